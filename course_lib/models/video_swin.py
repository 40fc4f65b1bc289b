"""Video Swin Transformer: attention inside windows of space and time, shifted in every second block.

Liu, Ning, Cao, Wei, Zhang, Lin, Hu, CVPR 2022, https://arxiv.org/abs/2106.13230. Notebook 10.
Symbols: P x M x M tokens a window, C channels of the first stage, B relative position bias, (S)W-MSA attention in
(shifted) windows.

Swin-T on 32 x 224 x 224 (section 3.1); patches of 2 x 4 x 4, and time is not reduced any further:

    stage  tokens      channels  heads  blocks  window  shift in odd blocks
    1      16x56x56    C = 96    3      2       8x7x7   4x3x3
    2      16x28x28    2C        6      2       8x7x7   4x3x3
    3      16x14x14    4C        12     6       8x7x7   4x3x3
    4      16x7x7      8C        24     2       8x7x7   4x0x0, since one window covers a whole frame

No token knows its place, only its displacement from the others of its window; so clips of any size will do. (With
attention over time alone, of at most `frames`.)
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.grid import Grid
from course_lib.layers.attention import MultiHeadAttention
from course_lib.layers.blocks import DropPath, Mlp, PatchEmbed, Recomputable, drop_path_rates, vit_init, xavier_init
from course_lib.layers.inflate import Entry, ImageStart
from course_lib.layers.schemes import ShiftedWindows
from course_lib.layers.settings import NetworkConfig, one_of

# The three of the paper's ablation; only joint was released. Ours where the paper is silent: attention over time sees
# all frames (this gives the costs that the paper prints) and knows them by a B of its own along time; the new weight of
# "factorised" is one number a layer; the layers of "split" continue the drop-path rates.
ATTENTION = (
    "joint",  # windows of space and time
    "split",  # windows of space; two layers over the frames at each place on top
    "factorised",  # windows of space, each followed by attention over the frames at each place
)
SHIFTED = ("thw", "hw", "none")  # axes along which every second block shifts its windows (table 6)


@dataclass(frozen=True)
class VideoSwinConfig(NetworkConfig):
    frames: int = 32
    size: int | tuple[int, int] = 224
    patch: Grid = Grid(2, 4, 4)
    window: Grid = Grid(8, 7, 7)  # P, M, M
    dim: int = 96  # C
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    mlp_ratio: int = 4
    drop_path: float = 0.1
    dropout: float = 0.5
    attention: str = "joint"
    shifted: str = "thw"
    scratch: bool = False  # ours: a start for small nets and short training
    classes: int = 400

    def validate(self) -> None:
        one_of("attention", self.attention, ATTENTION)
        one_of("shifted", self.shifted, SHIFTED)
        if len(self.depths) != len(self.heads):
            raise ValueError(f"{len(self.depths)} depths and {len(self.heads)} heads: give one of each for every stage")
        if min(*self.patch, *self.window) < 1:
            raise ValueError(f"patch {tuple(self.patch)} and window {tuple(self.window)} must be 1 or more everywhere")

    @property
    def time_window(self) -> Grid:
        """Of attention over time alone: all frames of tokens, at one place."""
        return Grid(-(-self.frames // self.patch.t), 1, 1)

    @property
    def block_window(self) -> Grid:
        """As given, or of one frame where time has layers of its own."""
        return self.window if self.attention == "joint" else self.window._replace(t=1)


BASE: dict[str, Any] = dict(dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32))
VARIANTS = {  # section 3.2; frames x pixels
    "video_swin_t_32x224": VideoSwinConfig(),
    "video_swin_s_32x224": VideoSwinConfig(depths=(2, 2, 18, 2)),
    "video_swin_b_32x224": VideoSwinConfig(**BASE, drop_path=0.3),
    "video_swin_b_ssv2_32x224": VideoSwinConfig(**BASE, window=Grid(16, 7, 7), drop_path=0.4, classes=174),
    "video_swin_l_32x224": VideoSwinConfig(dim=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), drop_path=0.3),
    "video_swin_tiny": VideoSwinConfig(  # ours: learns the generated clips on a laptop
        frames=8, size=64, window=Grid(2, 4, 4), dim=32, depths=(2, 2, 2), heads=(2, 4, 8), drop_path=0.0, dropout=0.0,
        scratch=True, classes=8,
    ),
}  # fmt: skip


class RelativeBias(nn.Module):
    """B in eq. 4: one learned number a head for every displacement, query minus key, inside a window."""

    def __init__(self, heads: int, window: Grid):
        super().__init__()
        t, h, w = (2 * n - 1 for n in window)
        self.window = window
        self.table = nn.Parameter(torch.empty(heads, t, h * w))  # at the middle of each axis: not displaced
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, n: int) -> Float[Tensor, "1 head n n"]:
        """Among the first n tokens of a window, row by row.

        For a window that shrank in time these are its tokens. One that shrank in space has shorter rows, and yet the
        released code looks it up as if they were full; its weights were trained so, and this does the same.
        """
        i = torch.arange(n, device=self.table.device)
        _, h, w = self.window
        cell: int | Tensor = 0
        for place, size in zip((i // (h * w), i // w % h, i % w), self.window, strict=True):
            cell = cell * (2 * size - 1) + place[:, None] - place[None, :] + size - 1
        return self.table.flatten(1)[None, :, cell]


class WindowAttention(MultiHeadAttention):
    """W-MSA, and SW-MSA where `shift` is not zero."""

    def __init__(self, dim: int, heads: int, window: Grid, shift: Grid):
        super().__init__(dim, heads)
        self.scheme, self.bias = ShiftedWindows(window, shift), RelativeBias(heads, window)

    def forward(  # type: ignore[override]  # a grid in place of a row
        self, x: Float[Tensor, "b t h w d"]
    ) -> Float[Tensor, "b t h w d"]:
        window, _ = self.scheme.fit(x.shape[1:4])
        return self.scheme.apply(partial(super().forward, bias=self.bias(Grid(*window).size)), x)

    def extra_repr(self) -> str:
        return self.scheme.name


class TimeAttention(nn.Module):
    """What "factorised" puts after each attention in space; it starts by adding nothing."""

    def __init__(self, dim: int, heads: int, window: Grid):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(dim), WindowAttention(dim, heads, window, Grid(0, 0, 0))
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, z: Float[Tensor, "b t h w d"]) -> Float[Tensor, "b t h w d"]:
        return self.weight * self.attention(self.norm(z))


class Block(Recomputable):
    """Attention, then the MLP (eq. 1)."""

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        window: Grid,
        shifted: str,
        drop_path: float,
        time_window: Grid | None = None,
    ):
        super().__init__()
        shift = Grid(*(size // 2 if axis in shifted else 0 for axis, size in window._asdict().items()))
        self.norm, self.attention = nn.LayerNorm(dim), WindowAttention(dim, heads, window, shift)
        self.time = None if time_window is None else TimeAttention(dim, heads, time_window)
        self.norm_mlp, self.mlp = nn.LayerNorm(dim), Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, z: Float[Tensor, "b t h w d"]) -> Float[Tensor, "b t h w d"]:
        z = z + self.drop_path(self.attention(self.norm(z)))
        if self.time is not None:
            z = z + self.drop_path(self.time(z))
        return z + self.drop_path(self.mlp(self.norm_mlp(z)))


class PatchMerging(nn.Module):
    """Every 2 x 2 tokens of a frame become one, with twice the channels; the released code takes them column first."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, z: Float[Tensor, "b t h w d"]) -> Float[Tensor, "b t v u e"]:
        _, _, h, w, _ = z.shape
        if h % 2 or w % 2:
            z = F.pad(z, (0, 0, 0, w % 2, 0, h % 2))
        return self.reduction(self.norm(rearrange(z, "b t (h dh) (w dw) d -> b t h w (dw dh d)", dh=2, dw=2)))


class VideoSwin(nn.Module):
    """Clip in, logits out."""

    def __init__(self, config: VideoSwinConfig):
        super().__init__()
        self.config = c = config
        top = 2 if c.attention == "split" else 0
        over_time = c.time_window if c.attention == "factorised" else None
        shifts = ("none", c.shifted)
        rates = iter(drop_path_rates(c.drop_path, sum(c.depths) + top))
        self.patch_embed, self.norm_embed = PatchEmbed(c.dim, c.patch), nn.LayerNorm(c.dim)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (depth, heads) in enumerate(zip(c.depths, c.heads, strict=True)):
            dim = c.dim * 2**i
            if i:
                layers[f"merge{i}"] = PatchMerging(dim // 2)
            blocks = (
                Block(dim, heads, c.mlp_ratio * dim, c.block_window, shifts[j % 2], next(rates), over_time)
                for j in range(depth)
            )
            layers[f"stage{i + 1}"] = nn.Sequential(*blocks)
        if top:
            layers["time"] = nn.Sequential(
                *(Block(dim, heads, c.mlp_ratio * dim, c.time_window, "none", next(rates)) for _ in range(top))
            )
        self.stages = nn.Sequential(layers)
        self.norm, self.dropout, self.head = nn.LayerNorm(dim), nn.Dropout(c.dropout), nn.Linear(dim, c.classes)
        self.apply(xavier_init if c.scratch else vit_init)
        nn.init.normal_(self.head.weight, std=0.01)  # torchvision: 0.02, as elsewhere

    def forward(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        t, h, w = (-n % size for n, size in zip(clip.shape[2:], self.config.patch, strict=True))
        if t or h or w:
            clip = F.pad(clip, (0, w, 0, h, 0, t))
        z = self.norm_embed(self.patch_embed(clip))  # b t h w d
        longest = self.config.time_window.t
        if self.config.attention != "joint" and z.shape[1] > longest:
            raise ValueError(
                f"the clip gives t={z.shape[1]} tokens, attention over time was built for up to t={longest}: "
                f"sample fewer frames, or build the network with frames={clip.shape[2]}"
            )
        z = self.norm(self.stages(z))
        return self.head(self.dropout(reduce(z, "b t h w d -> b d", "mean")))

    def image_start(self) -> ImageStart:
        """A VideoSwin with patches and windows of one frame: a Swin.

        Every displacement in time starts from the image's B, resized where the windows differ in space (section 3.3).
        """
        c = self.config
        t, h, w = (2 * n - 1 for n in c.block_window)

        def grow(table: Float[Tensor, "head 1 old"]) -> Float[Tensor, "head t new"]:
            if table.shape[-1] != h * w:  # of square windows of another size
                side = math.isqrt(table.shape[-1])
                square = rearrange(table, "head 1 (h w) -> 1 head h w", h=side)
                table = rearrange(F.interpolate(square, size=(h, w), mode="bicubic"), "1 head h w -> head 1 (h w)")
            return repeat(table, "head 1 hw -> head t hw", t=t)

        names = [name for name in self.state_dict() if name.endswith("bias.table") and ".time." not in name]
        entries: list[Entry] = [(name, name, grow) for name in names]
        image = replace(c, patch=Grid(1, *c.patch[1:]), window=Grid(1, *c.window[1:]), attention="joint")
        return ImageStart(VideoSwin(image), entries)
