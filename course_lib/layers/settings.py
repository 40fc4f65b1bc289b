"""What the configs of all networks share."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from course_lib.grid import Grid


class NetworkConfig:
    """The clip that a network is built for, and how many classes it tells apart."""

    frames: int
    size: int | tuple[int, int]  # in pixels: of a square, or height and width
    classes: int

    def __post_init__(self) -> None:
        if (not isinstance(self.size, int) and len(self.size) != 2) or min(self.clip[1:]) < 1:
            raise ValueError(f"size={self.size} is neither a side of a square nor (height, width), in pixels")
        self.validate()

    def validate(self) -> None:
        """ValueError for settings that do not fit together."""

    @property
    def clip(self) -> Grid:
        """Frames, height and width, in pixels."""
        return Grid(self.frames, *((self.size, self.size) if isinstance(self.size, int) else self.size))


def one_of(setting: str, value: object, known: Collection[object]) -> None:
    """ValueError that lists the known values, and first the nearest, unless `value` is one of them."""
    if value not in known:
        names = [str(name) for name in known]
        near = get_close_matches(str(value), names, 1, 0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {setting} {value!r}: {hint}There are {', '.join(names)}")
