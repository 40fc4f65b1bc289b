"""How the objects of the generated sets move: pure functions of progress and of a clip's own choices.

Progress u goes from 0 to 1. Lengths are in picture widths; x grows rightwards, y downwards, angles clockwise (radians).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from course_lib.synthetic.appearance import CLOTH, FRONT, INSIDE, REACH, WHEEL, Kind
from course_lib.synthetic.difficulty import Difficulty

Progress = Float[np.ndarray, "T"]
Choices = Float[np.ndarray, "8"]  # each uniform in [0, 1)


class Track(NamedTuple):
    """One object over time: middle, half its extent, width over height (both 1 as the kind has it), angle.

    Where the motion needs a certain `kind` of thing, it names it; else any will do. The stage is a torus: what
    leaves the picture comes in again on the other side. It is as much wider as lets it leave wholly first, so that
    an object is never seen twice (`breadth`). x and y themselves are not wrapped: they tell how far it went.
    """

    x: Float[np.ndarray, "T"]
    y: Float[np.ndarray, "T"]
    radius: Float[np.ndarray, "T"]
    angle: Float[np.ndarray, "T"]
    stretch: Float[np.ndarray, "T"]
    kind: Kind | None


def track(u: Progress, x, y, radius, angle=0.0, stretch=1.0, kind: Kind | None = None) -> Track:
    """From values over time, or numbers that hold throughout."""
    x, y, radius, angle, stretch = (
        np.broadcast_to(np.float64(part), u.shape) for part in (x, y, radius, angle, stretch)
    )
    return Track(x, y, radius, angle, stretch, kind)


def breadth(radius):
    """Width and height of the torus for an object of this radius: the picture and the object's own breadth."""
    return 1 + 2 * REACH * radius


def between(low, high, part):
    return low + (high - low) * part


def ease(t: Progress, rng: np.random.Generator) -> Progress:
    """Random changes of speed, never backwards; a change is as likely as its mirror image in time."""
    swing, lean = rng.uniform(-0.45, 0.45, 2)
    return t + swing * np.sin(math.tau * t) / math.tau + lean * np.sin(math.pi * t) / math.pi


def tilt(u: Progress, c: Choices) -> Progress:
    """Held askew, and swaying a little either way."""
    return between(-0.25, 0.25, c[6]) + between(-0.3, 0.3, c[7]) * (u - 0.5)


# Set M


def rightwards(u: Progress, c: Choices) -> tuple[Track, ...]:
    """Around the torus, from anywhere on it, drifting a little across."""
    radius = between(0.2, 0.24, c[0])
    x = between(0, breadth(radius), c[1]) + between(0.95, 1.25, c[2]) * u
    y = between(0.3, 0.7, c[3]) + between(-0.1, 0.1, c[4]) * (u - 0.5)
    return (track(u, x, y, radius, tilt(u, c)),)


def downwards(u: Progress, c: Choices) -> tuple[Track, ...]:
    (across,) = rightwards(u, c)
    return (across._replace(x=across.y, y=across.x),)


def nearer(u: Progress, c: Choices) -> tuple[Track, ...]:
    """Growing by the same factor in each equal part of the way."""
    x = between(0.35, 0.65, c[0]) + between(-0.1, 0.1, c[1]) * (u - 0.5)
    y = between(0.35, 0.65, c[2]) + between(-0.1, 0.1, c[3]) * (u - 0.5)
    radius = between(0.13, 0.16, c[4]) * between(2.0, 2.4, c[5]) ** u
    return (track(u, x, y, radius, tilt(u, c)),)


def clockwise(u: Progress, c: Choices) -> tuple[Track, ...]:
    """By 100 to 160 degrees, from any angle."""
    x = between(0.35, 0.65, c[0]) + between(-0.1, 0.1, c[1]) * (u - 0.5)
    y = between(0.35, 0.65, c[2]) + between(-0.1, 0.1, c[3]) * (u - 0.5)
    return (track(u, x, y, between(0.24, 0.31, c[4]), between(0, math.tau, c[5]) + between(1.75, 2.8, c[6]) * u),)


def together(u: Progress, c: Choices) -> tuple[Track, ...]:
    """Two objects, on opposite sides of a point, closing in on it."""
    half = between(between(0.32, 0.36, c[0]), between(0.15, 0.18, c[1]), u)  # of the distance between them
    angle = between(0, math.tau, c[2]) + between(-0.3, 0.3, c[3]) * (u - 0.5)
    x, y, radius = half * np.cos(angle), half * np.sin(angle), between(0.14, 0.17, c[4])
    return tuple(track(u, 0.5 + side * x, 0.5 + side * y, radius, tilt(u, c)) for side in (1, -1))


def covering(u: Progress, c: Choices) -> tuple[Track, ...]:
    """A cloth slides over an object that stands still, from any side, until nothing of it is left to see."""
    x, y, from_side = between(0.4, 0.6, c[0]), between(0.4, 0.6, c[1]), between(0, math.tau, c[2])
    away = between(0.46, 0.56, c[3]) * (1 - u)
    below = track(u, x, y, between(0.13, 0.16, c[4]), between(-0.4, 0.4, c[6]))
    cloth = (x + away * np.cos(from_side), y + away * np.sin(from_side), between(0.26, 0.29, c[5]))
    return below, track(u, *cloth, between(-0.2, 0.2, c[7]), kind=CLOTH)


def putting_in(u: Progress, c: Choices) -> tuple[Track, ...]:
    """Down into a box, seen from a little above, whose front hides what is in it."""
    x, y, radius = between(0.3, 0.7, c[0]), between(0.68, 0.74, c[1]), between(0.23, 0.26, c[2])
    over = (1 - u) * between(-0.15, 0.15, c[3])
    down = between(between(0.14, 0.24, c[4]), y, u)
    inside, front = (track(u, x, y, radius, kind=kind) for kind in (INSIDE, FRONT))
    return inside, track(u, x + over, down, between(0.115, 0.135, c[5]), tilt(u, c)), front


def unfolding(u: Progress, c: Choices) -> tuple[Track, ...]:
    """Opening sideways, by the same factor in each equal part of the way."""
    x, y, radius = between(0.4, 0.6, c[0]), between(0.4, 0.6, c[1]), between(0.24, 0.3, c[2])
    return (track(u, x, y, radius, tilt(u, c), stretch=between(0.2, 0.3, c[3]) ** (1 - u)),)


class Law(NamedTuple):
    """Two classes at once: a motion, and the same motion backwards.

    `even`: what is seen at each frame number has the same distribution forwards and backwards, so that no frame
    gives the direction away even to those who know its number. The others cannot be so, since things are as they
    are for good at one end: large or small, open or covered. Their first frame, known as the first, tells.
    `dial`: what sets how far an even law goes, of `Difficulty`.
    """

    forwards: str
    backwards: str
    tracks: Callable[[Progress, Choices], tuple[Track, ...]]  # the objects, the one furthest back first
    even: bool = False
    dial: str = ""


LAWS = (  # beside each, the Something-Something v2 templates that come nearest
    # Pushing something from left to right, from right to left
    Law("push right", "push left", rightwards, even=True, dial="way"),
    # Moving something down, up
    Law("lower", "lift", downwards, even=True, dial="way"),
    # Moving something towards the camera, away from the camera
    Law("approach", "recede", nearer),
    # Spinning something so it continues spinning (whichever way)
    Law("turn clockwise", "turn counter-clockwise", clockwise, even=True, dial="turn"),
    # Moving something and something closer to each other, away from each other
    Law("meet", "part", together),
    # Covering something with something, Uncovering something
    Law("cover", "uncover", covering),
    # Putting something into something, Taking something out of something
    Law("put in", "take out", putting_in),
    # Unfolding something, Folding something
    Law("unfold", "fold", unfolding),
)
ALONE = LAWS[:4]  # one object, in sight throughout
EVEN = tuple(law for law in LAWS if law.even)


def tracks(law: Law, u: Progress, c: Choices, difficulty: Difficulty) -> tuple[Track, ...]:
    """What a law's objects do at a difficulty. An even law goes as far around the middle of its way as its dial says,
    and stays even."""
    part = getattr(difficulty, law.dial) if law.dial else 1.0
    found = law.tracks(part * u + (1 - part) / 2, c)
    if difficulty.wheel and law.dial == "turn":
        found = tuple(one._replace(radius=1.5 * one.radius, kind=WHEEL) for one in found)
    return found


# Set V


def swing(times: int) -> Callable[[Progress, float], Progress]:
    """To and fro. How far is random, so that the speed does not give the number away."""
    return lambda u, part: between(0.5, 1.5, part) * (1 - np.cos(math.tau * times * u)) / 2


PACES = {  # radians along a circle, from wherever the object begins
    "stands still": lambda u, part: 0 * u,
    "drifts slowly": lambda u, part: between(0.6, 0.9, part) * u,
    "drifts": lambda u, part: between(1.6, 2.1, part) * u,
    "drifts fast": lambda u, part: between(3.2, 4.2, part) * u,
    "swings once": swing(1),
    "swings twice": swing(2),
    "swings three times": swing(3),
    "swings four times": swing(4),
}


def circling(u: Progress, c: Choices, pace: Callable[[Progress, float], Progress]) -> tuple[Track, ...]:
    """Along a circle, either way, always in sight."""
    # A start uniform on the circle plus any path leaves it uniform: one frame looks alike in every class.
    angle = between(0, math.tau, c[0]) + (1 if c[1] < 0.5 else -1) * pace(u, c[2])
    far, radius = between(0.22, 0.27, c[3]), between(0.13, 0.17, c[4])
    x, y = (between(0.48, 0.52, c[5]) + far * np.cos(angle), between(0.48, 0.52, c[6]) + far * np.sin(angle))
    return (track(u, x, y, radius, between(-0.4, 0.4, c[7])),)


# Set L


def close_up(u: Progress, c: Choices) -> tuple[Track, ...]:
    """Large, nearly upright, in the middle of the picture, drifting a little any way."""
    x = between(0.4, 0.6, c[0]) + between(-0.3, 0.3, c[1]) * (u - 0.5)
    y = between(0.4, 0.6, c[2]) + between(-0.3, 0.3, c[3]) * (u - 0.5)
    return (track(u, x, y, between(0.3, 0.38, c[4]), tilt(u, c)),)


# Set G

EVENT = 5  # frames
EVENTS = (("hop", "swell"), ("hop", "nod"), ("swell", "nod"))  # each its own reverse: up and back, and so on


def two_events(frames: int, gap: int, c: Choices, first: str, second: str) -> tuple[Track, ...]:
    """One object at rest, but for two events with `gap` frames of rest between them, anywhere in the clip."""
    start = int(between(0, frames - 2 * EVENT - gap + 1, c[0]))
    amount = {name: np.zeros(frames) for name in ("hop", "swell", "nod")}
    for name, begin in ((first, start), (second, start + EVENT + gap)):
        amount[name][begin : begin + EVENT] = np.sin(math.pi * np.arange(1, EVENT + 1) / (EVENT + 1)) ** 2
    return (
        track(
            amount["hop"],
            between(0.35, 0.65, c[1]),
            between(0.5, 0.65, c[2]) - 0.25 * amount["hop"],
            between(0.16, 0.2, c[3]) * (1 + 0.6 * amount["swell"]),
            between(-0.4, 0.4, c[4]) + (0.9 if c[5] < 0.5 else -0.9) * amount["nod"],
        ),
    )
