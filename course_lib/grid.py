"""How many tokens (or pixels) lie along time, height and width."""

from __future__ import annotations

import math
from typing import NamedTuple


class Grid(NamedTuple):
    """Lengths along time, height and width: Grid(8, 14, 14) is TimeSformer's token grid."""

    t: int
    h: int
    w: int

    @property
    def size(self) -> int:
        return math.prod(self)

    def divide(self, patch: Grid) -> Grid:
        """The grid of patches that tiles this grid exactly; ValueError names the axis that does not fit."""
        for axis, length, step in zip(("t", "h", "w"), self, patch, strict=True):
            if length % step:
                down, up = length // step * step, -(-length // step) * step
                fits = " or ".join(str(n) for n in (down, up) if n)
                raise ValueError(
                    f"cannot tile {tuple(self)} with {tuple(patch)}: {axis}={length} is not a multiple of {step}; "
                    f"use {axis}={fits}"
                )
        return Grid(*(length // step for length, step in zip(self, patch, strict=True)))
