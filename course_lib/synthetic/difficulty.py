"""What hides the motion in sets M and D, dial by dial."""

from __future__ import annotations

from dataclasses import dataclass, fields

from course_lib.synthetic.appearance import KINDS


@dataclass(frozen=True)
class Difficulty:
    """Dials of the sets M and D. As they stand here, they are the sets at full difficulty; EASY is D in the lessons.

    A network that looks at single frames and then compares them has to find what stays the same from one to the next.
    Very short ways make that hard to learn. Textures, many shapes and small turns hardly do so alone, but together,
    without the wheel, they do, though the way is longer then (single runs: `course experiment dials`). None of them
    gives a direction away: partners show the same frames at any difficulty.
    """

    texture: float = 1.0  # contrast of an object's two colours; 0: it has one
    shapes: int = len(KINDS)  # how many of the kinds of objects there are, a disc first
    way: float = 1.0  # how far things are pushed or lowered: a multiple of 0.95 to 1.25 picture widths
    turn: float = 1.0  # how far things turn: a multiple of 100 to 160 degrees
    wheel: bool = False  # what turns is a large wheel, its shade falling off all the way round

    def __post_init__(self) -> None:
        for name, holds, remedy in (
            ("texture", 0 <= self.texture <= 1, "give a contrast from 0 to 1"),
            ("shapes", 1 <= self.shapes <= len(KINDS), f"there are 1 to {len(KINDS)}"),
            ("way", 0 < self.way <= 1.5, "give more than 0 and at most 1.5, or things jump across the picture"),
            ("turn", 0 < self.turn <= 2, "give more than 0 and at most 2, or wheels seem to turn the other way"),
            ("texture", self.texture > 0 or self.wheel, "a plain disc that turns looks still: give wheel=True too"),
        ):
            if not holds:
                raise ValueError(f"{name}={getattr(self, name)!r}: {remedy}")

    @property
    def name(self) -> str:
        """What differs from full difficulty, for the names of folders; empty if nothing does."""
        changed = [(part.name, getattr(self, part.name)) for part in fields(self)]
        changed = [(name, value) for name, value in changed if value != getattr(FULL, name)]
        return "-".join(name if value is True else f"{name}{value:g}" for name, value in changed)


FULL = Difficulty()
HAVE_DIFFICULTY = ("M", "D")  # these sets have it, the others have none
EASY = Difficulty(texture=0, shapes=1, way=0.7, turn=1.5, wheel=True)  # tiny networks learn it in minutes
