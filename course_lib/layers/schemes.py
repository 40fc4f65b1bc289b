"""Who attends to whom on a grid of tokens.

A scheme has two faces, and tests/test_schemes.py proves that they agree:
    mask(grid)        the picture: mask[i, j] is True iff output token i can change when input token j changes
    apply(attend, x)  the computation: a fold around `attend`, dense attention that knows nothing about video

`attend` takes tokens "rows n d" and, where a fold cannot keep strangers apart, mask="rows n n"; it returns "rows n d".
A class token travels beside the grid, never inside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_lib.grid import Grid

Attend = Callable[..., Tensor]


@runtime_checkable
class Scheme(Protocol):
    """What the attention layers, the pictures and the tests ask of a scheme."""

    @property
    def name(self) -> str: ...
    def mask(self, grid: tuple[int, ...]) -> Bool[Tensor, "n n"]: ...
    def apply(self, attend: Attend, x: Tensor, cls: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]: ...
    def computed(self, grid: tuple[int, ...]) -> int: ...


@dataclass(frozen=True)
class Groups:
    """Full attention inside each group of tokens, none between groups.

    The pattern is the whole definition: on the left the grid; on the right the axes that pick a group, folded into
    the batch, and the axes that run inside it. `sizes` gives the lengths that the pattern cannot know.
    """

    name: str
    pattern: str  # 'b t h w d -> (b t) (h w) d'
    sizes: tuple[tuple[str, int], ...] = ()

    def apply(
        self, attend: Attend, x: Float[Tensor, "b *grid d"], cls: Float[Tensor, "b 1 d"] | None = None
    ) -> Float[Tensor, "b *grid d"] | tuple[Float[Tensor, "b *grid d"], Float[Tensor, "b 1 d"]]:
        """Run `attend` in every group. A class token visits every group and takes the mean of the answers.

        ValueError if the grid does not tile.
        """
        grid, groups = self.pattern.split(" -> ")
        lengths = axis_lengths(grid, x.shape, dict(self.sizes))
        x = rearrange(x, self.pattern, **dict(self.sizes))  # (b group) member d
        if cls is None:
            return rearrange(attend(x), f"{groups} -> {grid}", **lengths)
        visits = repeat(cls, "b 1 d -> (b group) 1 d", group=len(x) // len(cls))
        y = attend(torch.cat([visits, x], dim=1))  # (b group) 1+member d
        cls = reduce(y[:, :1], "(b group) 1 d -> b 1 d", "mean", b=len(cls))
        return rearrange(y[:, 1:], f"{groups} -> {grid}", **lengths), cls

    def members(self, grid: tuple[int, ...]) -> Int[Tensor, "group member"]:
        """The token numbers (row-major in the grid) of every group. ValueError if the grid does not tile."""
        axis_lengths(self.pattern.split(" -> ")[0], (1, *grid, 1), dict(self.sizes))
        number = torch.arange(math.prod(grid)).view(1, *grid, 1)
        return rearrange(number, self.pattern, **dict(self.sizes)).squeeze(-1)

    def group_of(self, grid: tuple[int, ...]) -> Int[Tensor, " n"]:
        """The number of the group that every token belongs to."""
        members = self.members(grid)
        group = torch.empty(members.numel(), dtype=torch.long)
        group[members] = torch.arange(len(members))[:, None].expand_as(members)
        return group

    def mask(self, grid: tuple[int, ...]) -> Bool[Tensor, "n n"]:
        group = self.group_of(grid)
        return group[:, None] == group[None, :]

    def computed(self, grid: tuple[int, ...]) -> int:
        """How many query-key pairs the fold computes; here just those that the mask allows."""
        groups, members = self.members(grid).shape
        return groups * members**2


JOINT = Groups("joint", "b t h w d -> b (t h w) d")
SPACE = Groups("space", "b t h w d -> (b t) (h w) d")
TIME = Groups("time", "b t h w d -> (b h w) t d")
WIDTH = Groups("width", "b t h w d -> (b t h) w d")
HEIGHT = Groups("height", "b t h w d -> (b t w) h d")


def windows(t: int, h: int, w: int) -> Groups:
    """Boxes of t x h x w neighbouring tokens (Video Swin; the local half of TimeSformer's L+G)."""
    pattern = "b (nt t) (nh h) (nw w) d -> (b nt nh nw) (t h w) d"
    return Groups(f"{t}x{h}x{w} windows", pattern, (("t", t), ("h", h), ("w", w)))


def strided(t: int, h: int, w: int) -> Groups:
    """Every t-th frame, h-th row and w-th column, counted from the query itself (the global half of L+G)."""
    pattern = "b (nt t) (nh h) (nw w) d -> (b t h w) (nt nh nw) d"
    return Groups(f"strides {t}x{h}x{w}", pattern, (("t", t), ("h", h), ("w", w)))


@dataclass(frozen=True)
class ShiftedWindows:
    """Windows displaced by `shift` tokens. What sticks out at a border stays a smaller window (Swin, figure 4)."""

    window: tuple[int, int, int]
    shift: tuple[int, int, int]

    def __post_init__(self) -> None:
        for axis, size, step in zip("thw", self.window, self.shift, strict=True):
            if not 0 <= step < size:
                raise ValueError(
                    f"shift {self.shift} of window {self.window}: along {axis} it must lie in 0..{size - 1}, not {step}"
                )

    @property
    def name(self) -> str:
        return f"{'x'.join(map(str, self.window))} windows shifted by {'x'.join(map(str, self.shift))}"

    def group_of(self, grid: tuple[int, ...]) -> Int[Tensor, " n"]:
        """The number of the displaced window that every token falls in."""
        places = [
            (torch.arange(n) + size - step) // size for n, size, step in zip(grid, self.window, self.shift, strict=True)
        ]
        t, h, w = torch.meshgrid(*places, indexing="ij")
        window = (t * (int(h.max()) + 1) + h) * (int(w.max()) + 1) + w
        return window.flatten().unique(return_inverse=True)[1]

    def mask(self, grid: tuple[int, ...]) -> Bool[Tensor, "n n"]:
        group = self.group_of(grid)
        return group[:, None] == group[None, :]

    def apply(
        self, attend: Attend, x: Float[Tensor, "b t h w d"], cls: Tensor | None = None
    ) -> Float[Tensor, "b t h w d"]:
        """Roll the leftovers of opposite borders into one window, and mask them from each other."""
        if cls is not None:
            raise ValueError("shifted windows take no class token: average the tokens instead, as Video Swin does")
        grid, box, back = x.shape[1:4], windows(*self.window), [-step for step in self.shift]
        rolled = self.group_of(grid).view(*grid).roll(back, (0, 1, 2)).flatten()
        group = rolled[box.members(grid)].to(x.device)  # window member
        mask = group[:, :, None] == group[:, None, :]
        mask = repeat(mask, "window i j -> (b window) i j", b=len(x))
        y = box.apply(lambda z: attend(z, mask=mask), x.roll(back, (1, 2, 3)))
        return y.roll(self.shift, (1, 2, 3))

    def computed(self, grid: tuple[int, ...]) -> int:
        """All pairs of the rolled windows; what the mask hides is computed all the same."""
        return windows(*self.window).computed(grid)


@dataclass(frozen=True)
class Band:
    """Every token sees the tokens at most `radius` places away in row-major order (the sliding window of VTN).

    Not a partition, so nothing can be folded away: the computation is dense attention under a mask.
    """

    radius: int

    def __post_init__(self) -> None:
        if self.radius < 0:
            raise ValueError(f"a band needs a radius of 0 or more, not {self.radius}")

    @property
    def name(self) -> str:
        return f"band of {2 * self.radius + 1}"

    def mask(self, grid: tuple[int, ...]) -> Bool[Tensor, "n n"]:
        place = torch.arange(math.prod(grid))
        return (place[:, None] - place[None, :]).abs() <= self.radius

    def apply(
        self, attend: Attend, x: Float[Tensor, "b *grid d"], cls: Tensor | None = None
    ) -> Float[Tensor, "b *grid d"]:
        if cls is not None:
            raise ValueError("a band takes no class token: put it in the row of tokens, or average the tokens")
        mask = self.mask(tuple(x.shape[1:-1])).to(x.device)
        return attend(x.flatten(1, -2), mask=mask.expand(len(x), -1, -1)).view_as(x)

    def computed(self, grid: tuple[int, ...]) -> int:
        return math.prod(grid) ** 2


def axis_lengths(side: str, shape: tuple[int, ...], known: dict[str, int]) -> dict[str, int]:
    """The length of every axis named on one side of a pattern: 'b (nt t)', (2, 8), t=4 -> b=2 nt=2 t=4."""
    axes: list[list[str]] = []
    inside = False
    for word in side.replace("(", "( ").replace(")", " )").split():
        if word in "()":
            inside = word == "("
            axes += [[]] if inside else []
        elif inside:
            axes[-1].append(word)
        else:
            axes.append([word])
    if len(axes) != len(shape):
        raise ValueError(f"{side!r} names {len(axes)} axes, the tokens have {len(shape)}: shape {tuple(shape)}")
    lengths = dict(known)
    for axis, length in zip(axes, shape, strict=True):
        rest = math.prod(known[name] for name in axis if name in known)
        if length % rest:
            raise ValueError(
                f"axis ({' '.join(axis)}) of {side!r} has length {length}, not a multiple of {rest}: "
                f"use {length // rest * rest or rest} or {-(-length // rest) * rest}, or another {axis[-1]}"
            )
        lengths.update({name: length // rest for name in axis if name not in known})
    return lengths


def local_global(grid: Grid) -> tuple[Groups, Groups]:
    """TimeSformer's L+G: first the neighbouring F x H/2 x W/2 tokens, then the whole clip with stride 2.

    The paper leaves three things open. Here the neighbourhood is the quadrant that the query lies in (a window centred
    on the query is no partition and would save nothing); the strided set is anchored at the query, which so sees
    itself; and the strides are 2 in time, height and width.
    """
    for axis, length in zip("thw", grid, strict=True):
        if length % 2:
            raise ValueError(f"local + global attention halves the grid: {axis}={length} of {tuple(grid)} is odd")
    return windows(grid.t, grid.h // 2, grid.w // 2), strided(2, 2, 2)
