"""Learned position embeddings: vectors that tell a token where and when it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.grid import Grid


def smooth_table(shape: Sequence[int], dim: int, std: float = 1.0) -> Float[Tensor, "*shape dim"]:
    """Random vectors, neighbours alike: a start for position tables of networks that train from nothing (ours).

    Along each axis random directions times half cosines, the k-th of amplitude 1/k; the axes are added. Then what a
    network learns of one place or moment holds nearly for the next. With vectors that have nothing in common it has to
    learn each anew, and on motion it often never begins to.
    """
    table = torch.zeros(*shape, dim)
    for axis, length in enumerate(shape):
        k = torch.arange(1, length)
        waves = torch.cos(math.pi * k * (torch.arange(length)[:, None] + 0.5) / length) / k
        table += (waves @ torch.randn(length - 1, dim)).view(*(-1 if i == axis else 1 for i in range(len(shape))), dim)
    return table * (std / table.std()) if max(shape) > 1 else std * torch.randn(*shape, dim)


class SpaceEmbedding(nn.Module):
    """One learned vector a place, the same in every frame, and one for the class token."""

    def __init__(self, h: int, w: int, dim: int, std: float = 0.02, smooth: bool = False):
        super().__init__()
        start = smooth_table((h, w), dim, std) if smooth else nn.init.normal_(torch.empty(h, w, dim), std=std)
        self.weight = nn.Parameter(start)
        self.cls = nn.Parameter(torch.empty(dim))
        nn.init.normal_(self.cls, std=0.02)

    def forward(
        self, x: Float[Tensor, "b t h w d"], cls: Float[Tensor, "b 1 d"]
    ) -> tuple[Float[Tensor, "b t h w d"], Float[Tensor, "b 1 d"]]:
        check_grid(x, (None, *self.weight.shape[:2]))
        return x + self.weight, cls + self.cls


class TimeEmbedding(nn.Module):
    """One learned vector a time step, the same at every place. With std 0 order cannot matter at the start."""

    def __init__(self, t: int, dim: int, std: float = 0.0, smooth: bool = False):
        super().__init__()
        start = smooth_table((t,), dim, std) if smooth else nn.init.normal_(torch.empty(t, dim), std=std)
        self.weight = nn.Parameter(start)

    def forward(self, x: Float[Tensor, "b t h w d"]) -> Float[Tensor, "b t h w d"]:
        check_grid(x, (len(self.weight), None, None))
        return x + self.weight[:, None, None]


def check_grid(x: Tensor, wanted: tuple[int | None, ...]) -> None:
    """ValueError that names the axis whose length the network was not built for."""
    for axis, have, want in zip("thw", x.shape[1:4], wanted, strict=True):
        if want is not None and have != want:
            raise ValueError(
                f"the clip gives {axis}={have} tokens, the network was built for {axis}={want}: "
                f"sample another clip, or build the network for this one (frames=..., size=(height, width))"
            )


def resize_space(
    weight: Float[Tensor, "h w d"], grid: Grid, mode: Literal["nearest", "bilinear"] = "bilinear"
) -> Float[Tensor, "H W d"]:
    """Position embeddings resized to on another grid."""
    table = rearrange(weight, "h w d -> 1 d h w")
    keywords = {} if mode == "nearest" else {"align_corners": False}
    return rearrange(F.interpolate(table, size=grid[1:], mode=mode, **keywords), "1 d h w -> h w d")


def resize_time(
    weight: Float[Tensor, "t d"], frames: int, mode: Literal["nearest", "linear"] = "linear"
) -> Float[Tensor, "T d"]:
    """Position embeddings in time, resized to another number of frames."""
    table = rearrange(weight, "t d -> 1 d t")
    keywords = {} if mode == "nearest" else {"align_corners": False}
    return rearrange(F.interpolate(table, size=frames, mode=mode, **keywords), "1 d t -> t d")
