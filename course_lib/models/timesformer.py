"""TimeSformer: Is Space-Time Attention All You Need for Video Understanding?

Bertasius, Wang, Torresani, ICML 2021, https://arxiv.org/abs/2102.05095. Notebook 06.
Symbols: F frames, P patch size, N = HW / P^2 patches a frame, L blocks, A heads, D features, z tokens, z_(0,0) class
token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.grid import Grid
from course_lib.layers.attention import GridAttention
from course_lib.layers.blocks import DropPath, Mlp, PatchEmbed, Recomputable, drop_path_rates, vit_init, xavier_init
from course_lib.layers.inflate import Entry, ImageStart
from course_lib.layers.positions import SpaceEmbedding, TimeEmbedding
from course_lib.layers.schemes import HEIGHT, JOINT, SPACE, TIME, WIDTH, Groups, local_global
from course_lib.layers.settings import NetworkConfig, one_of

ATTENTION = {  # figure 2: the attention layers of one block, in order
    "space": lambda grid: (SPACE,),  # S
    "joint": lambda grid: (JOINT,),  # ST
    "divided": lambda grid: (TIME, SPACE),  # T+S
    "local_global": local_global,  # L+G
    "axial": lambda grid: (TIME, WIDTH, HEIGHT),  # T+W+H
}


@dataclass(frozen=True)
class TimeSformerConfig(NetworkConfig):
    frames: int = 8  # F
    size: int | tuple[int, int] = 224  # H = W, or H and W
    patch: int = 16  # P
    dim: int = 768  # D
    depth: int = 12  # L
    heads: int = 12  # A
    mlp_ratio: int = 4
    drop_path: float = 0.1
    attention: str = "divided"
    scratch: bool | str = False  # ours: a start for training from nothing; the released start goes on from an image ViT
    classes: int = 400

    def validate(self) -> None:
        one_of("scratch", self.scratch, (False, True, "smooth"))  # True: loud embeddings; smooth: neighbours alike too
        one_of("attention", self.attention, ATTENTION)
        ATTENTION[self.attention](self.clip.divide(Grid(1, self.patch, self.patch)))

    @property
    def grid(self) -> Grid:
        return self.clip.divide(Grid(1, self.patch, self.patch))

    @property
    def schemes(self) -> tuple[Groups, ...]:
        return ATTENTION[self.attention](self.grid)


VARIANTS = {  # table 3; frames x pixels
    "timesformer_b_8x224": TimeSformerConfig(),
    "timesformer_hr_16x448": TimeSformerConfig(frames=16, size=448),
    "timesformer_l_96x224": TimeSformerConfig(frames=96),
    "timesformer_tiny": TimeSformerConfig(  # ours: learns the generated clips on a laptop
        size=64, dim=64, depth=3, heads=4, drop_path=0.0, scratch="smooth", classes=8
    ),
}


class FirstAttention(nn.Module):
    """An attention layer in front of the block's last: among patches alone, with a projection of its own.

    The paper (eq. 11) lets patches see the class token here; the released code does not, and neither does this.
    """

    def __init__(self, dim: int, heads: int, scheme: Groups, drop_path: float):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(dim, eps=1e-6), GridAttention(dim, heads, scheme)
        self.project = nn.Linear(dim, dim)  # temporal_fc in the released code, not in the paper
        self.drop_path = DropPath(drop_path)

    def forward(self, z: Float[Tensor, "b t h w d"]) -> Float[Tensor, "b t h w d"]:
        return z + self.project(self.drop_path(self.attention(self.norm(z))))


class Block(Recomputable):
    """One attention layer after another, then the MLP (eqs. 5-9); the class token joins at the last attention.

    Released: drop path skips single frames or places, since the batch is folded; here it skips whole clips.
    """

    def __init__(self, dim: int, heads: int, hidden: int, schemes: Sequence[Groups], drop_path: float):
        super().__init__()
        *first, last = schemes
        self.first = nn.ModuleList(FirstAttention(dim, heads, scheme, drop_path) for scheme in first)
        self.norm, self.attention = nn.LayerNorm(dim, eps=1e-6), GridAttention(dim, heads, last)
        self.norm_mlp, self.mlp = nn.LayerNorm(dim, eps=1e-6), Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, z: Float[Tensor, "b t h w d"], cls: Float[Tensor, "b 1 d"]
    ) -> tuple[Float[Tensor, "b t h w d"], Float[Tensor, "b 1 d"]]:
        for attention in self.first:
            z = attention(z)
        dz, dcls = self.attention(self.norm(z), self.norm(cls))
        z, cls = z + self.drop_path(dz), cls + self.drop_path(dcls)
        return z + self.drop_path(self.mlp(self.norm_mlp(z))), cls + self.drop_path(self.mlp(self.norm_mlp(cls)))


class TimeSformer(nn.Module):
    """Clip in, logits out. Without frames to compare, attention="space" on one frame is an image ViT."""

    averages_logits = True  # over views, as its released test: softmax before the mean is the other way
    head: nn.Module

    def __init__(self, config: TimeSformerConfig):
        super().__init__()
        self.config = c = config
        t, h, w = c.grid
        smooth = c.scratch == "smooth"
        pos_std, time_std = (1.0 if smooth else 0.5, 1.0) if c.scratch else (0.02, 0.0)
        self.patch_embed = PatchEmbed(c.dim, Grid(1, c.patch, c.patch))  # E in eq. 1
        self.cls = nn.Parameter(torch.empty(1, 1, c.dim))  # z_(0,0)
        self.pos_embed = SpaceEmbedding(h, w, c.dim, pos_std, smooth)  # e^pos
        self.time_embed = nn.Identity() if c.attention == "space" else TimeEmbedding(t, c.dim, time_std, smooth)
        self.blocks = nn.ModuleList(
            Block(c.dim, c.heads, c.mlp_ratio * c.dim, c.schemes, rate)
            for rate in drop_path_rates(c.drop_path, c.depth)
        )
        self.norm, self.head = nn.LayerNorm(c.dim, eps=1e-6), nn.Linear(c.dim, c.classes)
        self.apply(xavier_init if c.scratch else vit_init)
        nn.init.trunc_normal_(self.cls, std=0.02)
        for part in self.modules():  # each new layer starts by adding nothing: the net begins as an image ViT
            if isinstance(part, FirstAttention):
                nn.init.zeros_(part.project.weight)

    def forward(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        z = self.patch_embed(clip)  # b t h w d
        cls = repeat(self.cls, "1 1 d -> b 1 d", b=z.shape[0])
        z, cls = self.pos_embed(z, cls)
        z = self.time_embed(z)
        images = z.shape[1] if self.config.attention == "space" else 1
        if self.config.attention == "space":  # every frame is an image with a class token of its own
            cls = repeat(cls, "b 1 d -> (b t) 1 d", t=images)
            z = rearrange(z, "b t h w d -> (b t) 1 h w d")
        for block in self.blocks:
            z, cls = block(z, cls)
        cls = reduce(cls, "(b t) 1 d -> b d", "mean", t=images)  # over the frames, if there are several
        return self.head(self.norm(cls))

    def image_start(self) -> ImageStart:
        """A TimeSformer of one frame with attention in space alone: a ViT.

        Every attention starts as a copy of the image's (appendix A); projections and time embedding stay at zero.
        """
        names = [name for name in self.state_dict() if ".first." in name and ".project." not in name]
        entries: list[Entry] = [(name, re.sub(r"first\.\d+\.", "", name), None) for name in names]
        return ImageStart(TimeSformer(replace(self.config, frames=1, attention="space")), entries)
