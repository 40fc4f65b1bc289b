"""The clips of the seven generated sets: one renderer, so that sets differ in what fixes the label.

A appearance: what an object looks like fixes the label; how it moves is random.
M motion: how it moves fixes the label; a class played backwards is its partner, label ^ 1.
V speed: how fast, how often, or whether it moves at all; a clip played backwards keeps its label.
X mixed: motion fixes the label, and the look agrees with it in a share p of the clips.
G order: two short events, a gap apart; which comes first fixes the label. The partner is label ^ 1 again.
D direction: M's even laws alone. Not even a frame whose number is known tells which way.
L looks: A made easy. The same kinds, large, nearly upright and in full sight.

How hard M and D are is set by `Difficulty`.

`appearance`, `motion` and `scene` hold the parts, `write` writes whole sets to disk. Read with notebook 00.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from course_lib.synthetic.appearance import KINDS, Paint, backdrop, paint
from course_lib.synthetic.difficulty import FULL, HAVE_DIFFICULTY, Difficulty
from course_lib.synthetic.motion import (
    ALONE,
    EVEN,
    EVENT,
    EVENTS,
    LAWS,
    PACES,
    circling,
    close_up,
    ease,
    tracks,
    two_events,
)
from course_lib.synthetic.scene import Actor, Scene, draw, flow, masks

__all__ = [
    "CLASSES",
    "KINDS",
    "LAWS",
    "PARTNER",
    "SPLITS",
    "Scene",
    "check",
    "draw",
    "flow",
    "masks",
    "render",
    "scene",
]

SPLITS = ("train", "test")  # X has a third: "paired"
GAP = 8  # G's, where none is given


def _both_ways(pairs) -> tuple[str, ...]:
    return tuple(name for pair in pairs for name in pair)


CLASSES: dict[str, tuple[str, ...]] = {
    "A": tuple(kind.name for kind in KINDS),
    "M": _both_ways((law.forwards, law.backwards) for law in LAWS),
    "V": tuple(PACES),
    "X": _both_ways((law.forwards, law.backwards) for law in ALONE),
    "G": _both_ways((f"{a} then {b}", f"{b} then {a}") for a, b in EVENTS),
    "D": _both_ways((law.forwards, law.backwards) for law in EVEN),
    "L": tuple(kind.name for kind in KINDS),
}
PARTNER: dict[str, tuple[int, ...] | None] = {  # the class that plays a class's clips backwards: 1 0 3 2 ...
    set_name: tuple(label ^ 1 for label in range(len(names))) if set_name in ("M", "X", "G", "D") else None
    for set_name, names in CLASSES.items()
}


def check(set_name: str, frames: int, size: int, gap: int | None = None, difficulty: Difficulty = FULL) -> None:
    """ValueError for what cannot be drawn."""
    if set_name not in CLASSES:
        raise ValueError(f"no set {set_name!r}: use one of {', '.join(CLASSES)}")
    if frames < 2:
        raise ValueError(f"frames={frames} cannot show a motion: use 2 or more")
    if size < 16 or size % 2:
        raise ValueError(f"size={size} does not fit H.264's halved colour planes: use an even size from 16 up")
    if difficulty != FULL and set_name not in HAVE_DIFFICULTY:
        raise ValueError(f"{difficulty}: only sets M and D have a difficulty, set {set_name} has none: leave it out")
    if gap is not None and set_name != "G":
        raise ValueError(f"gap={gap}: only set G has a gap, set {set_name} has none: leave it out")
    if set_name == "G":
        gap, room = GAP if gap is None else gap, frames - 2 * EVENT
        if room < 0:
            raise ValueError(f"frames={frames} cannot hold two events of {EVENT} frames: use {2 * EVENT} or more")
        if not 0 <= gap <= room:
            raise ValueError(
                f"gap={gap} does not fit into frames={frames} with two events of {EVENT} frames: use 0 to {room}"
                + (f", or {gap + 2 * EVENT} frames" if gap > room else "")
            )


def _splits(set_name: str) -> tuple[str, ...]:
    return (*SPLITS, "paired") if set_name == "X" else SPLITS


def _check_clip(set_name: str, label: int, split: str, look: int | None) -> None:
    if not 0 <= label < len(CLASSES[set_name]):
        raise ValueError(f"label={label} is no class of set {set_name}: use 0 to {len(CLASSES[set_name]) - 1}")
    if split not in _splits(set_name):
        raise ValueError(f"no split {split!r} in set {set_name}: use one of {', '.join(_splits(set_name))}")
    if look is not None and set_name != "X":
        raise ValueError(f"look={look}: only in set X can it be chosen: leave it out")
    if look is not None and not 0 <= look < len(KINDS):
        raise ValueError(f"look={look} is no look: use 0 to {len(KINDS) - 1}")


def scene(
    set_name: str,
    label: int,
    seed: int | Sequence[int],
    frames: int = 32,
    size: int = 128,
    split: str = "train",
    look: int | None = None,
    gap: int | None = None,
    difficulty: Difficulty = FULL,
) -> Scene:
    """All that one clip shows. In M, D, X and G a label and its partner, same seed, give each other's reverse.

    Args:
        look: X only; the object's kind, as a label of set A. None: any.
        gap: G only; frames of rest between the two events. None: 8.
        difficulty: M and D only.

    Raises:
        ValueError: no such set, label, split, look; a size, number of frames or gap that does not fit.
    """
    check(set_name, frames, size, gap, difficulty)
    _check_clip(set_name, label, split, look)
    rng = np.random.default_rng(
        [list(CLASSES).index(set_name), _splits(set_name).index(split), *np.atleast_1d(seed).tolist()]
    )
    # The same draws whatever the label: so partners share all but the direction of time.
    kind, law = int(rng.integers(len(KINDS))), int(rng.integers(len(ALONE)))
    backwards, choices = bool(rng.random() < 0.5), rng.random(8)
    progress = ease(np.linspace(0, 1, frames), rng)
    if set_name in ("A", "L"):
        kind = label
    elif look is not None:
        kind = look
    if PARTNER[set_name]:
        law, backwards = label // 2, label % 2 == 1
    if set_name == "V":
        moving = circling(progress, choices, list(PACES.values())[label])
    elif set_name == "L":
        moving = close_up(progress, choices)
    elif set_name == "G":
        moving = two_events(frames, GAP if gap is None else gap, choices, *EVENTS[law])
    else:
        moving = tracks((EVEN if set_name == "D" else LAWS)[law], progress, choices, difficulty)
    behind = backdrop(rng, size, split)
    actors = []
    for track in moving:
        bright, dark = paint(rng, split)
        if track.kind is None:  # the texture of a kind that the motion names belongs to the motion
            dark = bright + difficulty.texture * (dark - bright) if difficulty.texture < 1 else dark
        actors.append(Actor(track, track.kind or KINDS[kind % difficulty.shapes], Paint(bright, dark)))
    return Scene(tuple(actors), behind, bool(backwards))


def render(
    set_name: str,
    label: int,
    seed: int | Sequence[int],
    frames: int = 32,
    size: int = 128,
    split: str = "train",
    look: int | None = None,
    gap: int | None = None,
    difficulty: Difficulty = FULL,
) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames of one clip: see `scene`."""
    return draw(scene(set_name, label, seed, frames, size, split, look, gap, difficulty))
