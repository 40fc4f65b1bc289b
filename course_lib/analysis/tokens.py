"""The tokens of one layer, and what part of the clip each of them stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from course_lib.grid import Grid

Axis = Bool[np.ndarray, "_ _"]  # along one axis: which of m places each of n places is computed from
Axes = tuple[Axis, Axis, Axis]  # time, height, width; together they are exact as long as reach is a box with holes


class Extra(NamedTuple):
    """Class tokens: one (1, 1, 1), one for each frame (t, 1, 1) or one for each place of a frame (1, h, w)."""

    name: str
    shape: Grid


class Tokens(NamedTuple):
    """A grid of tokens on a clip, numbered row-major in (t, h, w), then its extra tokens, which stand for no box.

    clip: frames, height and width in pixels. sees: along each axis, the frames, rows and columns that a token is
    computed from before any attention; tokens may overlap. `at` gives each an equal share of the clip instead.
    """

    clip: Grid
    sees: Axes
    extra: tuple[Extra, ...] = ()

    @property
    def grid(self) -> Grid:
        return Grid(*map(len, self.sees))

    @property
    def size(self) -> int:
        return self.grid.size + sum(extra.shape.size for extra in self.extra)

    def numbers(self) -> Int[np.ndarray, "t h w"]:
        return np.arange(self.grid.size).reshape(self.grid)

    def extra_numbers(self, name: str) -> Int[np.ndarray, "t h w"]:
        """The numbers of the extra tokens of one name. ValueError lists the names."""
        first = self.grid.size
        for extra in self.extra:
            if extra.name == name:
                return np.arange(first, first + extra.shape.size).reshape(extra.shape)
            first += extra.shape.size
        raise ValueError(f"no extra token is called {name!r}: there are {[extra.name for extra in self.extra]}")

    def box(self, token: int) -> tuple[slice, slice, slice] | None:
        """From the first to the last of its frames, rows and columns; None for an extra token."""
        if token >= self.grid.size:
            return None
        place = np.unravel_index(token, self.grid)
        seen = [np.flatnonzero(axis[i]) for axis, i in zip(self.sees, place, strict=True)]
        t, h, w = (slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0) for at in seen)
        return t, h, w

    def at(self, frame: int, row: int, column: int) -> int:
        """The token that has this pixel in its share of the clip. ValueError outside of the clip."""
        place = (frame, row, column)
        if any(not 0 <= at < length for at, length in zip(place, self.clip, strict=True)):
            raise ValueError(f"no pixel (frame, row, column) {place} in a clip of {tuple(self.clip)}")
        inside = [at * n // length for at, n, length in zip(place, self.grid, self.clip, strict=True)]
        return int(np.ravel_multi_index(inside, self.grid))

    def through(self, reads: Sequence[Axis]) -> Tokens:
        """Tokens that are computed from these places of this grid; the extra tokens stay."""
        return self._replace(sees=through(reads, self.sees))


def through(reads: Sequence[Axis], before: Sequence[Axis]) -> Axes:
    """Two steps in a row, the later one first."""
    t, h, w = ((later.astype(np.float32) @ axis) > 0 for later, axis in zip(reads, before, strict=True))
    return t, h, w


def itself(lengths: Sequence[int]) -> Axes:
    """Every place is computed from itself."""
    t, h, w = (np.eye(length, dtype=bool) for length in lengths)
    return t, h, w


def sliding(length: int, kernel: int, stride: int, padding: int) -> Axis:
    """What a kernel reads of an axis that is padded on both sides; the padding is nobody."""
    first = np.arange((length + 2 * padding - kernel) // stride + 1) * stride - padding
    place = np.arange(length)
    return (place >= first[:, None]) & (place < first[:, None] + kernel)


def pixels(clip: Grid) -> Tokens:
    """Every pixel a token: what the first layer reads."""
    return Tokens(clip, itself(clip))


def shares(clip: Grid, grid: Grid) -> Tokens:
    """Equal parts of a clip, as `Tokens.at` has them."""
    t, h, w = (np.arange(length) * n // length == np.arange(n)[:, None] for n, length in zip(grid, clip, strict=True))
    return Tokens(clip, (t, h, w))
