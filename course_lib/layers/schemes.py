"""Who attends to whom on a grid of tokens.

A scheme has two faces, and tests/test_schemes.py proves that they agree:
    mask(grid)        the picture: mask[i, j] is True iff output token i can change when input token j changes
    apply(attend, x)  the computation: a fold around `attend`, dense attention that knows nothing about video

`attend` takes tokens "rows n d" and, where a fold cannot keep strangers apart, mask="rows n n" or, the same for all
rows, "1 n n"; it returns "rows n d".
A class token travels beside the grid, never inside it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, overload, runtime_checkable

import torch
import torch.nn.functional as F
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

    @overload
    def apply(self, attend: Attend, x: Tensor, cls: None = None) -> Tensor: ...
    @overload
    def apply(self, attend: Attend, x: Tensor, cls: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]: ...
    def apply(
        self, attend: Attend, x: Float[Tensor, "b *grid d"], cls: Float[Tensor, "b 1 d"] | None = None
    ) -> Float[Tensor, "b *grid c"] | tuple[Float[Tensor, "b *grid c"], Float[Tensor, "b 1 c"]]:
        """Run `attend` in every group. A class token visits every group and takes the mean of the answers.

        ValueError if the grid does not tile.
        """
        grid, groups = self.pattern.split(" -> ")
        lengths = axis_lengths(grid, x.shape, dict(self.sizes))
        del lengths["b"], lengths["d"]  # any batch, none too; what `attend` returns may have other features
        tokens = math.prod(x.shape[1:-1])
        x = rearrange(x, self.pattern, **dict(self.sizes))  # (b group) member d
        if cls is None:
            return rearrange(attend(x), f"{groups} -> {grid}", **lengths)
        group = tokens // x.shape[1]
        visits = repeat(cls, "b 1 d -> (b group) 1 d", group=group)
        y = attend(torch.cat([visits, x], dim=1))  # (b group) 1+member d
        visits, y = y.split([1, x.shape[1]], dim=1)
        cls = reduce(visits, "(b group) 1 d -> b 1 d", "mean", group=group)
        return rearrange(y, f"{groups} -> {grid}", **lengths), cls

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
    """Windows displaced by `shift` tokens; what sticks out at a border stays a smaller window (Video Swin, figure 3).

    Takes any grid, as released: a window longer than the grid shrinks to it, and along an axis where one window covers
    everything nothing shifts; elsewhere zeros fill up the last windows, and these do take part as keys.
    """

    window: tuple[int, int, int]
    shift: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        for axis, size, step in zip("thw", self.window, self.shift, strict=True):
            if not 0 <= step < size:
                raise ValueError(
                    f"shift {self.shift} of window {self.window}: along {axis} it must lie in 0..{size - 1}, not {step}"
                )

    @property
    def name(self) -> str:
        shifted = f" shifted by {'x'.join(map(str, self.shift))}" if any(self.shift) else ""
        return f"{'x'.join(map(str, self.window))} windows{shifted}"

    def fit(self, grid: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The window and the shift that `grid` really gets."""
        axes = list(zip(grid, self.window, self.shift, strict=True))
        return tuple(min(n, size) for n, size, _ in axes), tuple(step if n > size else 0 for n, size, step in axes)

    def padded(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The next grid that whole windows tile."""
        return tuple(-(-n // size) * size for n, size in zip(grid, self.fit(grid)[0], strict=True))

    def numbers(self, grid: tuple[int, ...], device: torch.device | None = None) -> Int[Tensor, "t h w"]:
        """The number of the displaced window that every token falls in; some numbers may have no token."""
        number = torch.zeros((), dtype=torch.long, device=device)
        for n, size, step in zip(grid, *self.fit(grid), strict=True):
            place = (torch.arange(n, device=device) + size - step) // size
            number = number[..., None] * (n // size + 2) + place
        return number

    def group_of(self, grid: tuple[int, ...]) -> Int[Tensor, " n"]:
        """The same without gaps."""
        return self.numbers(grid).flatten().unique(return_inverse=True)[1]

    def mask(self, grid: tuple[int, ...]) -> Bool[Tensor, "n n"]:
        group = self.group_of(grid)
        return group[:, None] == group[None, :]

    def apply(
        self, attend: Attend, x: Float[Tensor, "b t h w d"], cls: Tensor | None = None
    ) -> Float[Tensor, "b t h w d"]:
        """Roll the leftovers of opposite borders into one window, and mask them from each other.

        Only the last window along an axis holds leftovers, so there are at most eight kinds of windows. Each goes by
        itself, with one mask for all its windows.
        """
        if cls is not None:
            raise ValueError("shifted windows take no class token: average the tokens instead, as Video Swin does")
        grid = t, h, w = tuple(x.shape[1:4])
        window, shift = self.fit(grid)
        box, full, back = windows(*window), self.padded(grid), [-step for step in shift]
        if full != grid:
            x = F.pad(x, (0, 0, 0, full[2] - w, 0, full[1] - h, 0, full[0] - t))
        if not any(shift):
            return box.apply(attend, x)[:, :t, :h, :w]
        cuts = [[n - size, size] if step else [n] for n, size, step in zip(full, window, shift, strict=True)]

        def each_kind(x: Tensor, numbers: Tensor, axis: int) -> Tensor:
            if axis < 3:
                parts = zip(x.split(cuts[axis], axis + 1), numbers.split(cuts[axis], axis), strict=True)
                return torch.cat([each_kind(*part, axis + 1) for part in parts], axis + 1)
            number = numbers[: window[0], : window[1], : window[2]].flatten()
            return box.apply(partial(attend, mask=(number[:, None] == number[None, :])[None]), x)

        numbers = self.numbers(full, x.device).roll(back, (0, 1, 2))
        y = each_kind(x.roll(back, (1, 2, 3)), numbers, 0)
        return y.roll(shift, (1, 2, 3))[:, :t, :h, :w]

    def computed(self, grid: tuple[int, ...]) -> int:
        """All pairs of the filled-up windows; what the mask hides is computed all the same."""
        return windows(*self.fit(grid)[0]).computed(self.padded(grid))


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
        self, attend: Attend, x: Float[Tensor, "b *grid d"], cls: Float[Tensor, "b 1 d"] | None = None
    ) -> Float[Tensor, "b *grid d"] | tuple[Float[Tensor, "b *grid d"], Float[Tensor, "b 1 d"]]:
        """A class token stands first in the row, sees every token and is seen by every token (Longformer)."""
        row, mask = x.flatten(1, -2), self.mask(tuple(x.shape[1:-1])).to(x.device)
        if cls is None:
            return attend(row, mask=mask.expand(x.shape[0], -1, -1)).view_as(x)
        mask = F.pad(mask, (1, 0, 1, 0), value=True)
        y = attend(torch.cat([cls, row], dim=1), mask=mask.expand(x.shape[0], -1, -1))
        return y[:, 1:].reshape(x.shape), y[:, :1]

    def computed(self, grid: tuple[int, ...]) -> int:
        return math.prod(grid) ** 2


@dataclass(frozen=True)
class SplitHeads:
    """One half of the features under one scheme, the other under another (the heads of ViViT's model 4).

    `attend` gets each half by itself. The picture is that of the layer, whose output mixes the halves.
    """

    first: Groups
    second: Groups

    @property
    def name(self) -> str:
        return f"half {self.first.name}, half {self.second.name}"

    def mask(self, grid: tuple[int, ...]) -> Bool[Tensor, "n n"]:
        return self.first.mask(grid) | self.second.mask(grid)

    def apply(
        self, attend: Attend, x: Float[Tensor, "b *grid d"], cls: Tensor | None = None
    ) -> Float[Tensor, "b *grid c"]:
        if cls is not None:
            raise ValueError("split heads take no class token: average the tokens instead, as ViViT does")
        first, second = x.chunk(2, dim=-1)
        return torch.cat([self.first.apply(attend, first), self.second.apply(attend, second)], dim=-1)

    def computed(self, grid: tuple[int, ...]) -> int:
        """Query-key pairs of one head, on the average."""
        return (self.first.computed(grid) + self.second.computed(grid)) // 2


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
        rest = math.prod([known[name] for name in axis if name in known])  # a list, for torch.compile
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


class Pooling(NamedTuple):
    """Boxes of `kernel` tokens, `stride` apart, the first centred on the first token; borders are padded."""

    kernel: Grid
    stride: Grid

    @property
    def acts(self) -> bool:
        return math.prod(self.kernel) * math.prod(self.stride) > 1

    def shrink(self, grid: tuple[int, ...]) -> Grid:
        """The grid of boxes."""
        return Grid(*((n + k // 2 * 2 - k) // s + 1 for n, k, s in zip(grid, self.kernel, self.stride, strict=True)))

    def axes(self, grid: tuple[int, ...]) -> list[Bool[Tensor, "_ _"]]:
        """Along each axis: which places every box holds."""
        found = []
        for n, m, k, s in zip(grid, self.shrink(grid), self.kernel, self.stride, strict=True):
            place = torch.arange(n)[None, :] - s * torch.arange(m)[:, None] + k // 2
            found.append((place >= 0) & (place < k))
        return found

    def reads(self, grid: tuple[int, ...]) -> Bool[Tensor, "m n"]:
        """Which tokens every box holds."""
        return functools.reduce(torch.kron, [axis.int() for axis in self.axes(grid)]).bool()


@dataclass(frozen=True)
class PooledKeys:
    """Queries pooled a little, keys and values a lot, then every query with every key (MViT).

    A picture of fewer rows than columns: queries and tokens. Where the stride is longer than the kernel, most tokens
    are in no key. What pools is learned, so the other face is `models.mvit.PooledAttention`.
    """

    queries: Pooling
    keys: Pooling

    @property
    def name(self) -> str:
        q, k = ("x".join(map(str, pooling.stride)) for pooling in (self.queries, self.keys))
        return f"queries pooled by {q}, keys by {k}"

    def mask(self, grid: tuple[int, ...]) -> Bool[Tensor, "m n"]:
        return self.queries.reads(grid) | self.keys.reads(grid).any(0)

    def computed(self, grid: tuple[int, ...]) -> int:
        return self.queries.shrink(grid).size * self.keys.shrink(grid).size


# One place axis for all patches of a frame, class tokens among them: VidTr's (T+1) x (N+1) tokens
FLAT_TIME = Groups("time", "b t n d -> (b n) t d")
FLAT_SPACE = Groups("space", "b t n d -> (b t) n d")
FLAT_JOINT = Groups("joint", "b n d -> b n d")


def most_varied(weights: Float[Tensor, "*rows n m"], keep: int) -> Int[Tensor, "*rows keep"]:
    """The `keep` queries whose attention weights have the largest standard deviation, in their old order (C-VidTr).

    Who looks at everyone alike has nothing of its own to say. ValueError if there are fewer queries.
    """
    if not 1 <= keep <= weights.shape[-2]:
        raise ValueError(f"cannot keep {keep} of {weights.shape[-2]} rows of attention weights")
    if not weights.numel():  # torch's std warns of an empty batch
        return weights.new_empty((*weights.shape[:-2], keep), dtype=torch.long)
    return weights.float().std(dim=-1).topk(keep, dim=-1).indices.sort(dim=-1).values


def take(x: Float[Tensor, "*rows n d"], kept: Int[Tensor, "*rows keep"]) -> Float[Tensor, "*rows keep d"]:
    return x.gather(-2, kept[..., None].expand(*kept.shape, x.shape[-1]))


def kept_mask(kept: Int[Tensor, "place keep"], frames: int) -> Bool[Tensor, "m n"]:
    """The picture of frames kept in one head: which token (t place) each of the fewer tokens (keep place) continues.

    It hangs on the clip, place by place. What attention adds to a kept token still comes from all frames of its place.
    """
    source = torch.zeros(*kept.T.shape, frames, len(kept), dtype=torch.bool)  # keep place t place
    slot, place = torch.meshgrid(*map(torch.arange, kept.T.shape), indexing="ij")
    source[slot, place, kept.T.cpu(), place] = True
    return rearrange(source, "keep place t p -> (keep place) (t p)")
