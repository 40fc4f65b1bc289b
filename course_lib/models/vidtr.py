"""VidTr: Video Transformer Without Convolutions. Attention along time, then along space.

Li, Zhang, Liu, Shuai, Zhu, Brattoli, Chen, Marsic, Tighe, ICCV 2021, https://arxiv.org/abs/2104.11746. Notebook 08.
Symbols: T frames, s patch size, N = HW / s^2 patches a frame, C' features, S tokens.
Compact VidTr, which drops frames on the way: `cvidtr`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.grid import Grid
from course_lib.layers.attention import GridAttention, RecordableAttention
from course_lib.layers.blocks import Mlp, PatchEmbed, Recomputable, xavier_init
from course_lib.layers.inflate import Entry, ImageStart
from course_lib.layers.positions import check_grid, smooth_table
from course_lib.layers.schemes import FLAT_JOINT, FLAT_SPACE, FLAT_TIME, Groups
from course_lib.layers.settings import NetworkConfig, one_of

ATTENTION = ("separable", "joint")  # joint: the paper's vanilla video transformer


@dataclass(frozen=True)
class Config(NetworkConfig):
    """What both networks have."""

    frames: int = 8  # T
    size: int | tuple[int, int] = 224  # H = W, or H and W
    patch: int = 16  # s
    dim: int = 768  # C'
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    dropout: float = 0.1  # of attention weights, and of all that is added to the tokens
    head_dropout: float = 0.5
    scratch: bool = False  # ours: loud and smooth position embeddings, which help a net that starts from nothing
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


TINY: dict[str, Any] = dict(size=64, dim=64, heads=4, dropout=0.0, head_dropout=0.0, scratch=True, classes=8)
VARIANTS = {
    "vidtr_s_8x224": VidTrConfig(),
    "vidtr_m_16x224": VidTrConfig(frames=16, pos_embed_in_every_block=True),
    "vidtr_l_32x224": VidTrConfig(frames=32),
    "vidtr_joint_8x224": VidTrConfig(attention="joint"),
    "vidtr_tiny": VidTrConfig(**TINY, depth=4),  # ours: learns the generated clips on a laptop
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


class SeparableAttention(nn.Module):
    """MSA_s(MSA_t(S)): first along time at every place, then along space in every frame; nothing is added between.

    As released, one projection serves both: space attends by the queries and keys that time used, and its values are
    what time gave. The paper projects what time gave anew: separate=True.
    """

    time: nn.Module

    def __init__(self, dim: int, heads: int, dropout: float, separate: bool = False):
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} does not split into heads={heads} equal parts: use a multiple of {heads}")
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.qkv_space = nn.Linear(dim, 3 * dim) if separate else None
        self.time, self.space = Mix(heads, FLAT_TIME, dropout), Mix(heads, FLAT_SPACE, dropout)

    def forward(self, x: Float[Tensor, "b t n d"]) -> Float[Tensor, "b t n d"]:
        qkv = self.qkv(x)
        v = self.time(qkv)
        qkv = torch.cat([qkv[..., : -v.shape[-1]], v], dim=-1) if self.qkv_space is None else self.qkv_space(v)
        return self.out(self.space(qkv))


class JointAttention(GridAttention):
    """All tokens in one row, the class token first."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__(dim, heads, FLAT_JOINT, dropout)


class Block(Recomputable):
    """Attention, then the MLP, each normed before and added. Position embeddings join
    behind the norm: never in what stays.

    As released: norms with eps 1e-5 and an MLP with a ReLU, although the weights come from an image ViT (1e-6, GELU).
    """

    def __init__(self, dim: int, hidden: int, dropout: float, attention: nn.Module):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(dim, eps=1e-5), attention
        self.norm_mlp = nn.LayerNorm(dim, eps=1e-5)
        self.mlp = Mlp(dim, hidden, nn.Sequential(nn.ReLU(), nn.Dropout(dropout)))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, z: Float[Tensor, "b *grid d"], pos_embed: Float[Tensor, "*grid d"] | None = None
    ) -> Float[Tensor, "b *grid d"]:
        x = self.norm(z) if pos_embed is None else self.norm(z) + pos_embed
        return self.add_mlp(z + self.dropout(self.attention(x)))

    def add_mlp(self, z: Float[Tensor, "b *grid d"]) -> Float[Tensor, "b *grid d"]:
        return z + self.dropout(self.mlp(self.norm_mlp(z)))


class VidTr(nn.Module):
    """Clip in, logits out. A row and a column of class tokens frame the patches; their corner S^(0,0) answers."""

    def __init__(self, config: VidTrConfig):
        super().__init__()
        self.config = c = config
        self.patch_embed = PatchEmbed(c.dim, Grid(1, c.patch, c.patch))
        self.pos_embed = nn.Parameter(torch.empty(*c.grid, c.dim).normal_(std=0.02))
        if c.scratch:
            self.pos_embed.data = loud_embedding(c)
        if c.attention == "joint":  # one class token
            self.cls = nn.Parameter(torch.empty(c.dim).normal_(std=0.02))
        else:
            self.row = nn.Parameter(torch.empty(c.places + 1, c.dim).normal_(std=0.02))  # S^(0,:), a frame of its own
            self.column = nn.Parameter(torch.empty(c.frames, c.dim).normal_(std=0.02))  # S^(1:,0), one in each frame
        joint = c.attention == "joint"
        self.blocks = nn.ModuleList(
            Block(
                c.dim,
                c.mlp_ratio * c.dim,
                c.dropout,
                JointAttention(c.dim, c.heads, c.dropout)
                if joint
                else SeparableAttention(c.dim, c.heads, c.dropout, c.separate),
            )
            for _ in range(c.depth)
        )
        self.norm, self.dropout = nn.LayerNorm(c.dim, eps=1e-5), nn.Dropout(c.head_dropout)
        self.head = nn.Linear(c.dim, c.classes)
        self.apply(xavier_init)

    def tokens(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b *grid d"]:
        z = self.patch_embed(clip)
        check_grid(z, self.config.patches)
        if self.config.attention == "joint":
            z = rearrange(z, "b t h w d -> b (t h w) d")
            return torch.cat([repeat(self.cls, "d -> b 1 d", b=z.shape[0]), z], dim=1)
        z = rearrange(z, "b t h w d -> b t (h w) d")
        z = torch.cat([repeat(self.column, "t d -> b t 1 d", b=z.shape[0]), z], dim=2)
        return torch.cat([repeat(self.row, "n d -> b 1 n d", b=z.shape[0]), z], dim=1)

    def forward(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        z = self.tokens(clip)
        for i, block in enumerate(self.blocks):
            z = block(z, self.pos_embed if i == 0 or self.config.pos_embed_in_every_block else None)
        return self.head(self.dropout(self.norm(z.flatten(1, -2)[:, 0])))

    def image_start(self) -> ImageStart:
        """A VidTr with joint attention on one frame.

        As released: every frame, and the row of class tokens, gets the image's position embeddings; all class tokens
        are the image's.
        """
        t, n = self.config.frames, self.config.places
        if self.config.attention == "joint":

            def in_one_row(x: Tensor) -> Tensor:
                return torch.cat([x[:1], repeat(x[1:], "n d -> (t n) d", t=t)])

            entries: list[Entry] = [("pos_embed", "pos_embed", in_one_row)]
        else:
            entries = [
                ("pos_embed", "pos_embed", lambda x: repeat(x, "n d -> t n d", t=t + 1)),
                ("row", "cls", lambda x: repeat(x, "d -> n d", n=n + 1)),
                ("column", "cls", lambda x: repeat(x, "d -> t d", t=t)),
            ]
        return ImageStart(image_network(self.config), entries)


def loud_embedding(c: VidTrConfig) -> Float[Tensor, "*grid d"]:
    """A start from nothing: patches by place and time, class tokens by what they stand for, all as loud as a norm."""
    t, n, d = c.frames, c.places, c.dim
    if c.attention == "joint":
        return torch.cat([torch.randn(1, d), smooth_table(c.patches, d).view(t * n, d)])
    patches = smooth_table((t + 1, *c.patches[1:]), d).view(t + 1, n, d)
    return torch.cat([smooth_table((t + 1, 1), d), patches], dim=1)


def image_network(c: Config) -> VidTr:
    return VidTr(VidTrConfig(1, c.size, c.patch, c.dim, c.depth, c.heads, c.mlp_ratio, attention="joint"))
