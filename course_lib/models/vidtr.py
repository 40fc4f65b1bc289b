"""VidTr: Video Transformer Without Convolutions, and compact VidTr, which drops frames on the way.

Li, Zhang, Liu, Shuai, Zhu, Brattoli, Chen, Marsic, Tighe, ICCV 2021, https://arxiv.org/abs/2104.11746. Notebook 08.
Symbols: T frames, tau frames after pooling, s patch size, N = HW / s^2 patches a frame, C' features, S tokens,
Attn_t and Attn_s attention weights along time and space, sigma the standard deviation of a row of Attn_t.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.grid import Grid
from course_lib.layers.attention import GridAttention, RecordableAttention, attention_weights
from course_lib.layers.blocks import Mlp, PatchEmbed, Recomputable, xavier_init
from course_lib.layers.inflate import LoadReport, load_image_weights
from course_lib.layers.positions import check_grid
from course_lib.layers.schemes import FLAT_JOINT, FLAT_SPACE, FLAT_TIME, Groups, most_varied, take
from course_lib.layers.settings import NetworkConfig, one_of

ATTENTION = ("separable", "joint")  # joint: the paper's vanilla video transformer
POOL = ("topk", "average", "conv")  # table 4d
# C-VidTr: (block, counted from 0; tau, the frames left from there on). Released; the paper's table 1 has blocks 1, 2, 4
# for both. Resolution, width and heads change nowhere
POOLS_S = ((1, 6), (3, 4), (5, 2))
POOLS_M = ((1, 8), (2, 4), (4, 2))


@dataclass(frozen=True)
class Config(NetworkConfig):
    """What both networks have."""

    frames: int = 8  # T
    size: int = 224  # H = W
    patch: int = 16  # s
    dim: int = 768  # C'
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    dropout: float = 0.1  # of attention weights, and of all that is added to the tokens
    head_dropout: float = 0.5
    scratch: bool = False  # ours: loud position embeddings, which help a net that starts from nothing
    classes: int = 400

    def validate(self) -> None:
        self.clip.divide(Grid(1, self.patch, self.patch))

    @property
    def patches(self) -> Grid:
        return self.clip.divide(Grid(1, self.patch, self.patch))

    @property
    def places(self) -> int:
        """N"""
        return self.patches.h * self.patches.w


@dataclass(frozen=True)
class VidTrConfig(Config):
    attention: str = "separable"
    separate: bool = False  # the paper's own projections for time and for space; released: one for both
    pos_embed_in_every_block: bool = False  # released for 16 frames only; otherwise the first block alone adds them

    def validate(self) -> None:
        super().validate()
        one_of("attention", self.attention, ATTENTION)
        if self.separate and self.attention == "joint":
            raise ValueError("separate=True gives time and space their own projections: joint attention has no two")

    @property
    def grid(self) -> tuple[int, ...]:
        """All tokens, class tokens among them: (T+1, N+1), or for joint attention one row of 1 + T N."""
        t, n = self.frames, self.places
        return (1 + t * n,) if self.attention == "joint" else (t + 1, n + 1)


@dataclass(frozen=True)
class CVidTrConfig(Config):
    pools: tuple[tuple[int, int], ...] = POOLS_S
    pool: str = "topk"

    def validate(self) -> None:
        super().validate()
        one_of("pool", self.pool, POOL)
        blocks, taus = [block for block, _ in self.pools], [self.frames, *(tau for _, tau in self.pools)]
        if not blocks or blocks != sorted(set(blocks)) or not 0 <= blocks[0] <= blocks[-1] < self.depth - 1:
            raise ValueError(
                f"pools={self.pools} must name rising blocks of 0..{self.depth - 2}: the class token sees the clip in "
                f"the blocks after the last of them, and there are {self.depth} blocks"
            )
        if any(not 1 <= after < before for before, after in pairwise(taus)):
            raise ValueError(f"pools={self.pools} must leave fewer frames each time, and at least 1, of {self.frames}")

    @property
    def frames_after(self) -> tuple[int, ...]:
        """Frames that are left after every block."""
        return tuple(min([self.frames, *(tau for block, tau in self.pools if block <= i)]) for i in range(self.depth))


TINY = dict(size=64, dim=96, depth=5, heads=4, dropout=0.0, head_dropout=0.0, scratch=True, classes=8)
VARIANTS = {
    "vidtr_s_8x224": VidTrConfig(),
    "vidtr_m_16x224": VidTrConfig(frames=16, pos_embed_in_every_block=True),
    "vidtr_l_32x224": VidTrConfig(frames=32),
    "vidtr_joint_8x224": VidTrConfig(attention="joint"),
    "vidtr_tiny": VidTrConfig(**TINY),  # ours: learns the generated clips on a laptop
}
COMPACT_VARIANTS = {
    "cvidtr_s_8x224": CVidTrConfig(),
    "cvidtr_m_16x224": CVidTrConfig(frames=16, pools=POOLS_M),
    "cvidtr_tiny": CVidTrConfig(**TINY, pools=((1, 4), (2, 2))),  # ours
}


class Mix(RecordableAttention):
    """Attention among ready-made queries, keys and values, arranged by a scheme: no projections of its own."""

    def __init__(self, heads: int, scheme: Groups, dropout: float):
        super().__init__()
        self.heads, self.scheme, self.dropout = heads, scheme, dropout

    def forward(self, qkv: Float[Tensor, "b *grid qkvd"]) -> Float[Tensor, "b *grid d"]:
        return self.scheme.apply(self.core, qkv)

    def core(self, qkv: Float[Tensor, "rows n qkvd"]) -> Float[Tensor, "rows n d"]:
        q, k, v = rearrange(qkv, "rows n (qkv head d) -> qkv rows head n d", qkv=3, head=self.heads).unbind()
        y = self.mix(q, k, v, dropout=self.dropout if self.training else 0.0)
        return rearrange(y, "rows head n d -> rows n (head d)")

    def extra_repr(self) -> str:
        return f"scheme={self.scheme.name}"


class TopTime(RecordableAttention):
    """topK_std: attention along time, of whose rows those of the `keep` largest sigma stay, in every head and place.

    The kept rows of Attn_t pass a second softmax (released, not in the paper), which leaves them almost flat: no
    weight is more than e times another. Their queries and keys go on; the values are mixed from all frames.
    """

    def __init__(self, heads: int, keep: int):
        super().__init__()
        self.heads, self.keep = heads, keep

    def forward(
        self, qkv: Float[Tensor, "b t n qkvd"]
    ) -> tuple[Float[Tensor, "b keep n qkvd"], Int[Tensor, "b n head keep"]]:
        q, k, v = rearrange(qkv, "b t n (qkv head d) -> qkv b n head t d", qkv=3, head=self.heads).unbind()
        attn = attention_weights(q, k)
        kept = most_varied(attn, self.keep)
        weights = take(attn, kept).softmax(dim=-1)
        if self.recorder is not None:
            self.recorder(weights.detach().flatten(0, 1))
        pooled = torch.stack([take(q, kept), take(k, kept), weights @ v])
        return rearrange(pooled, "qkv b n head keep d -> b keep n (qkv head d)"), kept


class SeparableAttention(nn.Module):
    """MSA_s(MSA_t(S)): first along time at every place, then along space in every frame; nothing is added between.

    As released, one projection serves both: space attends by the queries and keys that time used, and its values are
    what time gave. The paper projects what time gave anew: separate=True.
    """

    def __init__(self, c: Config, separate: bool = False):
        super().__init__()
        if c.dim % c.heads:
            raise ValueError(
                f"dim={c.dim} does not split into heads={c.heads} equal parts: use a multiple of {c.heads}"
            )
        self.qkv, self.out = nn.Linear(c.dim, 3 * c.dim), nn.Linear(c.dim, c.dim)
        self.qkv_space = nn.Linear(c.dim, 3 * c.dim) if separate else None
        self.time, self.space = Mix(c.heads, FLAT_TIME, c.dropout), Mix(c.heads, FLAT_SPACE, c.dropout)

    def forward(self, x: Float[Tensor, "b t n d"]) -> Float[Tensor, "b t n d"]:
        qkv = self.qkv(x)
        v = self.time(qkv)
        qkv = torch.cat([qkv[..., : -v.shape[-1]], v], dim=-1) if self.qkv_space is None else self.qkv_space(v)
        return self.out(self.space(qkv))


class TopAttention(SeparableAttention):
    """The same with fewer frames after the step along time. Returns also which ones were kept."""

    def __init__(self, c: Config, keep: int):
        super().__init__(c)
        self.time = TopTime(c.heads, keep)

    def forward(self, x: Float[Tensor, "b t n d"]) -> tuple[Float[Tensor, "b keep n d"], Int[Tensor, "b n head keep"]]:
        qkv, kept = self.time(self.qkv(x))
        return self.out(self.space(qkv)), kept


class JointAttention(GridAttention):
    """All tokens in one row, the class token first."""

    def __init__(self, c: Config):
        super().__init__(c.dim, c.heads, FLAT_JOINT, c.dropout)


def stay(z: Float[Tensor, "b t n d"], kept: Int[Tensor, "b n head keep"]) -> Float[Tensor, "b keep n d"]:
    """The tokens that attention adds to: at every place each head's share of the features, from the head's frames.

    So what is one frame afterwards mixes several frames of the clip.
    """
    z = rearrange(z, "b t n (head d) -> b n head t d", head=kept.shape[2])
    return rearrange(take(z, kept), "b n head keep d -> b keep n (head d)")


class Pool(nn.Module):
    """The paper's other ways to fewer frames: the average of neighbours, or a convolution along time.

    Ours, since the paper says little more than "stride 2": tokens are pooled between attention and MLP, so the MLPs
    cost what they cost with topk; windows are just wide enough to cover all frames (8 to 6: 3 frames, stride 1); the
    convolution starts as the average.
    """

    def __init__(self, kind: str, dim: int, before: int, after: int):
        super().__init__()
        stride = before // after
        kernel = before - (after - 1) * stride
        self.pool = nn.Conv1d(dim, dim, kernel, stride) if kind == "conv" else nn.AvgPool1d(kernel, stride)
        if kind == "conv":
            nn.init.zeros_(self.pool.bias)
            self.pool.weight.data = repeat(torch.eye(dim) / kernel, "o i -> o i k", k=kernel).contiguous()

    def forward(self, z: Float[Tensor, "b t n d"]) -> Float[Tensor, "b tau n d"]:
        y = self.pool(rearrange(z, "b t n d -> (b n) d t"))
        return rearrange(y, "(b n) d tau -> b tau n d", b=len(z))


class Block(Recomputable):
    """Attention, then the MLP, each normed before and added. Position embeddings join
    behind the norm: never in what stays.

    As released: norms with eps 1e-5 and an MLP with a ReLU, although the weights come from an image ViT (1e-6, GELU).
    """

    def __init__(self, c: Config, attention: nn.Module):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(c.dim, eps=1e-5), attention
        self.norm_mlp = nn.LayerNorm(c.dim, eps=1e-5)
        self.mlp = Mlp(c.dim, c.mlp_ratio * c.dim, nn.Sequential(nn.ReLU(), nn.Dropout(c.dropout)))
        self.dropout = nn.Dropout(c.dropout)

    def forward(
        self, z: Float[Tensor, "b *grid d"], code: Float[Tensor, "*grid d"] | None = None
    ) -> Float[Tensor, "b *grid d"]:
        x = self.norm(z) if code is None else self.norm(z) + code
        return self.add_mlp(z + self.dropout(self.attention(x)))

    def add_mlp(self, z: Float[Tensor, "b *grid d"]) -> Float[Tensor, "b *grid d"]:
        return z + self.dropout(self.mlp(self.norm_mlp(z)))


class CompactBlock(Block):
    """A block up to the last pooling: patches attend to patches, the class token to nothing.

    As released, the class token adds to itself its own norm, neither projected nor mixed, so it learns nothing from the
    clip here. (In the paper class tokens along time are kept.)
    """

    def __init__(self, c: CVidTrConfig, before: int, after: int):
        fewer = after < before
        super().__init__(c, TopAttention(c, after) if fewer and c.pool == "topk" else SeparableAttention(c))
        self.pool = Pool(c.pool, c.dim, before, after) if fewer and c.pool != "topk" else nn.Identity()

    def forward(
        self,
        z: Float[Tensor, "b t n d"],
        cls: Float[Tensor, "b 1 d"],
        codes: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Float[Tensor, "b tau n d"], Float[Tensor, "b 1 d"]]:
        x, dcls = self.norm(z), self.norm(cls)
        if codes is not None:
            x, dcls = x + codes[0], dcls + codes[1]
        dz = self.attention(x)
        if isinstance(self.attention, TopAttention):
            dz, kept = dz
            z = stay(z, kept)
        z, cls = self.pool(z + self.dropout(dz)), cls + self.dropout(dcls)
        return self.add_mlp(z), self.add_mlp(cls)


class VidTr(nn.Module):
    """Clip in, logits out. A row and a column of class tokens frame the patches; their corner S^(0,0) answers."""

    def __init__(self, config: VidTrConfig):
        super().__init__()
        self.config = c = config
        self.patch_embed = PatchEmbed(c.dim, Grid(1, c.patch, c.patch))
        self.pos_embed = nn.Parameter(torch.empty(*c.grid, c.dim).normal_(std=0.5 if c.scratch else 0.02))
        if c.attention == "joint":  # one class token
            self.cls = nn.Parameter(torch.empty(c.dim).normal_(std=0.02))
        else:
            self.row = nn.Parameter(torch.empty(c.places + 1, c.dim).normal_(std=0.02))  # S^(0,:), a frame of its own
            self.column = nn.Parameter(torch.empty(c.frames, c.dim).normal_(std=0.02))  # S^(1:,0), one in each frame
        joint = c.attention == "joint"
        self.blocks = nn.ModuleList(
            Block(c, JointAttention(c) if joint else SeparableAttention(c, c.separate)) for _ in range(c.depth)
        )
        self.norm, self.dropout = nn.LayerNorm(c.dim, eps=1e-5), nn.Dropout(c.head_dropout)
        self.head = nn.Linear(c.dim, c.classes)
        self.apply(xavier_init)

    def tokens(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b *grid d"]:
        z = self.patch_embed(clip)
        check_grid(z, self.config.patches)
        if self.config.attention == "joint":
            z = rearrange(z, "b t h w d -> b (t h w) d")
            return torch.cat([repeat(self.cls, "d -> b 1 d", b=len(z)), z], dim=1)
        z = rearrange(z, "b t h w d -> b t (h w) d")
        z = torch.cat([repeat(self.column, "t d -> b t 1 d", b=len(z)), z], dim=2)
        return torch.cat([repeat(self.row, "n d -> b 1 n d", b=len(z)), z], dim=1)

    def forward(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        z = self.tokens(clip)
        for i, block in enumerate(self.blocks):
            z = block(z, self.pos_embed if i == 0 or self.config.pos_embed_in_every_block else None)
        return self.head(self.dropout(self.norm(z.flatten(1, -2)[:, 0])))


class CVidTr(nn.Module):
    """Clip in, logits out. Blocks up to the last pooling lose frames; later ones attend jointly, class token too."""

    def __init__(self, config: CVidTrConfig):
        super().__init__()
        self.config = c = config
        self.patch_embed = PatchEmbed(c.dim, Grid(1, c.patch, c.patch))
        self.pos_embed = nn.Parameter(torch.empty(c.frames, c.places, c.dim).normal_(std=0.5 if c.scratch else 0.02))
        self.cls = nn.Parameter(torch.empty(c.dim).normal_(std=0.02))
        self.cls_pos_embed = nn.Parameter(torch.empty(c.dim).normal_(std=0.02))
        taus, last = (c.frames, *c.frames_after), c.pools[-1][0]
        self.blocks = nn.ModuleList(
            CompactBlock(c, taus[i], taus[i + 1]) if i <= last else Block(c, JointAttention(c)) for i in range(c.depth)
        )
        self.norm, self.dropout = nn.LayerNorm(c.dim, eps=1e-5), nn.Dropout(c.head_dropout)
        self.head = nn.Linear(c.dim, c.classes)
        self.apply(xavier_init)

    def forward(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        z = self.patch_embed(clip)
        check_grid(z, self.config.patches)
        z, cls = rearrange(z, "b t h w d -> b t (h w) d"), repeat(self.cls, "d -> b 1 d", b=len(z))
        compact = self.config.pools[-1][0] + 1
        for i, block in enumerate(self.blocks[:compact]):
            z, cls = block(z, cls, (self.pos_embed, self.cls_pos_embed) if i == 0 else None)
        z = torch.cat([cls, rearrange(z, "b t n d -> b (t n) d")], dim=1)
        for block in self.blocks[compact:]:
            z = block(z)
        return self.head(self.dropout(self.norm(z[:, 0])))


def start_from_images(net: VidTr | CVidTr, image: Mapping[str, Tensor]) -> LoadReport:
    """Fill `net` from an image ViT: a VidTr with attention="joint" and frames=1, by our names; the head stays fresh.

    As released: every frame, and VidTr's row of class tokens, gets the image's position embeddings; all class
    tokens are the image's.
    """
    weights = {name: tensor for name, tensor in image.items() if not name.startswith("head.")}
    code, t = weights["pos_embed"], net.config.frames
    if isinstance(net, CVidTr):
        weights |= {"pos_embed": repeat(code[1:], "n d -> t n d", t=t), "cls_pos_embed": code[0]}
    elif net.config.attention == "joint":
        weights["pos_embed"] = torch.cat([code[:1], repeat(code[1:], "n d -> (t n) d", t=t)])
    else:
        weights["pos_embed"], cls = repeat(code, "n d -> t n d", t=t + 1), weights.pop("cls")
        weights |= {"row": repeat(cls, "d -> n d", n=len(code)), "column": repeat(cls, "d -> t d", t=t)}
    return load_image_weights(net, weights, {})
