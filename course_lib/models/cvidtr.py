"""Compact VidTr: a VidTr that drops frames on the way, those whose attention along time varies least.

Li, Zhang, Liu, Shuai, Zhu, Brattoli, Chen, Marsic, Tighe, ICCV 2021, https://arxiv.org/abs/2104.11746. Notebook 08.
Symbols: those of `vidtr`; tau frames after pooling, Attn_t and Attn_s attention weights along time and space, sigma the
standard deviation of a row of Attn_t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.grid import Grid
from course_lib.layers.attention import RecordableAttention, attention_weights
from course_lib.layers.blocks import PatchEmbed, xavier_init
from course_lib.layers.inflate import Entry, ImageStart
from course_lib.layers.positions import check_grid, smooth_table
from course_lib.layers.schemes import most_varied, take
from course_lib.layers.settings import one_of
from course_lib.models.vidtr import TINY, Block, Config, JointAttention, SeparableAttention, image_network

POOL = ("topk", "average", "conv")  # table 4d
# C-VidTr: (block, counted from 0; tau, the frames left from there on). Released; the paper's table 1 has blocks 1, 2, 4
# for both. Resolution, width and heads change nowhere
POOLS_S = ((1, 6), (3, 4), (5, 2))
POOLS_M = ((1, 8), (2, 4), (4, 2))


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


VARIANTS = {
    "cvidtr_s_8x224": CVidTrConfig(),
    "cvidtr_m_16x224": CVidTrConfig(frames=16, pools=POOLS_M),
    "cvidtr_tiny": CVidTrConfig(**TINY, depth=5, pools=((1, 4), (2, 2))),  # ours
}


class TopTime(RecordableAttention):
    """topK_std: attention along time, of whose rows those of the `keep` largest sigma stay, in every head and place.

    The kept rows of Attn_t pass a second softmax (released, not in the paper), which leaves them almost flat: no
    weight is more than e times another. Their queries and keys go on; the values are mixed from all frames.
    `choose` may be set to another rule: from Attn_t and `keep` to the rows that stay, rising.
    """

    def __init__(self, heads: int, keep: int):
        super().__init__()
        self.heads, self.keep = heads, keep
        self.choose: Callable[[Tensor, int], Tensor] = most_varied

    def forward(
        self, qkv: Float[Tensor, "b t n qkvd"]
    ) -> tuple[Float[Tensor, "b keep n qkvd"], Int[Tensor, "b n head keep"]]:
        q, k, v = rearrange(qkv, "b t n (qkv head d) -> qkv b n head t d", qkv=3, head=self.heads).unbind()
        attn = attention_weights(q, k)
        kept = self.choose(attn, self.keep)
        weights = take(attn, kept).softmax(dim=-1)
        if self.recorder is not None:
            self.recorder(weights.detach().flatten(0, 1))
        pooled = torch.stack([take(q, kept), take(k, kept), weights @ v])
        return rearrange(pooled, "qkv b n head keep d -> b keep n (qkv head d)"), kept


class TopAttention(SeparableAttention):
    """The same with fewer frames after the step along time. Returns also which ones were kept."""

    def __init__(self, dim: int, heads: int, dropout: float, keep: int):
        super().__init__(dim, heads, dropout)
        self.time = TopTime(heads, keep)

    def forward(  # type: ignore[override]  # tells also which frames it kept
        self, x: Float[Tensor, "b t n d"]
    ) -> tuple[Float[Tensor, "b keep n d"], Int[Tensor, "b n head keep"]]:
        qkv, kept = self.time(self.qkv(x))
        return self.out(self.space(qkv)), kept


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
            nn.init.zeros_(self.pool.get_parameter("bias"))
            self.pool.weight.data = repeat(torch.eye(dim) / kernel, "o i -> o i k", k=kernel).contiguous()

    def forward(self, z: Float[Tensor, "b t n d"]) -> Float[Tensor, "b tau n d"]:
        y = self.pool(rearrange(z, "b t n d -> (b n) d t"))
        return rearrange(y, "(b n) d tau -> b tau n d", n=z.shape[2])


class CompactBlock(Block):
    """A block up to the last pooling: patches attend to patches, the class token to nothing.

    As released, the class token adds to itself its own norm, neither projected nor mixed, so it learns nothing from the
    clip here. (In the paper class tokens along time are kept.)
    """

    def __init__(self, dim: int, hidden: int, heads: int, dropout: float, pool: str, before: int, after: int):
        topk = after < before and pool == "topk"
        attention = TopAttention(dim, heads, dropout, after) if topk else SeparableAttention(dim, heads, dropout)
        super().__init__(dim, hidden, dropout, attention)
        self.pool = Pool(pool, dim, before, after) if after < before and not topk else nn.Identity()

    def forward(  # type: ignore[override]  # the class token goes apart
        self,
        z: Float[Tensor, "b t n d"],
        cls: Float[Tensor, "b 1 d"],
        pos_embed: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Float[Tensor, "b tau n d"], Float[Tensor, "b 1 d"]]:
        x, dcls = self.norm(z), self.norm(cls)
        if pos_embed is not None:
            x, dcls = x + pos_embed[0], dcls + pos_embed[1]
        dz = self.attention(x)
        if isinstance(self.attention, TopAttention):
            dz, kept = dz
            z = stay(z, kept)
        z, cls = self.pool(z + self.dropout(dz)), cls + self.dropout(dcls)
        return self.add_mlp(z), self.add_mlp(cls)


class CVidTr(nn.Module):
    """Clip in, logits out. Blocks up to the last pooling lose frames; later ones attend jointly, class token too."""

    def __init__(self, config: CVidTrConfig):
        super().__init__()
        self.config = c = config
        self.patch_embed = PatchEmbed(c.dim, Grid(1, c.patch, c.patch))
        self.pos_embed = nn.Parameter(torch.empty(c.frames, c.places, c.dim).normal_(std=0.02))
        if c.scratch:
            self.pos_embed.data = smooth_table(c.patches, c.dim).flatten(1, 2)
        self.cls = nn.Parameter(torch.empty(c.dim).normal_(std=0.02))
        self.cls_pos_embed = nn.Parameter(torch.empty(c.dim).normal_(std=0.02))
        taus, last, hidden = (c.frames, *c.frames_after), c.pools[-1][0], c.mlp_ratio * c.dim
        self.blocks = nn.ModuleList(
            CompactBlock(c.dim, hidden, c.heads, c.dropout, c.pool, taus[i], taus[i + 1])
            if i <= last
            else Block(c.dim, hidden, c.dropout, JointAttention(c.dim, c.heads, c.dropout))
            for i in range(c.depth)
        )
        self.norm, self.dropout = nn.LayerNorm(c.dim, eps=1e-5), nn.Dropout(c.head_dropout)
        self.head = nn.Linear(c.dim, c.classes)
        self.apply(xavier_init)

    def forward(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        z = self.patch_embed(clip)
        check_grid(z, self.config.patches)
        z, cls = rearrange(z, "b t h w d -> b t (h w) d"), repeat(self.cls, "d -> b 1 d", b=z.shape[0])
        compact = self.config.pools[-1][0] + 1
        for i, block in enumerate(self.blocks[:compact]):
            z, cls = block(z, cls, (self.pos_embed, self.cls_pos_embed) if i == 0 else None)
        z = torch.cat([cls, rearrange(z, "b t n d -> b (t n) d")], dim=1)
        for block in self.blocks[compact:]:
            z = block(z)
        return self.head(self.dropout(self.norm(z[:, 0])))

    def image_start(self) -> ImageStart:
        """A VidTr with joint attention on one frame; as released, every frame gets the image's position embeddings."""
        t = self.config.frames
        entries: list[Entry] = [
            ("pos_embed", "pos_embed", lambda x: repeat(x[1:], "n d -> t n d", t=t)),
            ("cls_pos_embed", "pos_embed", lambda x: x[0]),
        ]
        return ImageStart(image_network(self.config), entries)
