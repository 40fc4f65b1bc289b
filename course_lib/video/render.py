"""Draws the clips of the generated sets: what moves how, looking like what, in front of what.

One renderer for every set, so that sets differ in what fixes the label and in nothing else.
Read with notebook 00; `generate` writes whole sets to disk.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

SPLITS = ("train", "test")


# How things move: pure functions of the progress u, which goes from 0 to 1, and of a clip's own choices


class Track(NamedTuple):
    """Centre and radius of each object over time, in picture widths; x grows rightwards, y downwards."""

    x: Float[np.ndarray, "objects T"]
    y: Float[np.ndarray, "objects T"]
    radius: Float[np.ndarray, "objects T"]


Progress = Float[np.ndarray, "T"]
Choices = Float[np.ndarray, "6"]  # each uniform in [0, 1)


def between(low, high, part):
    return low + (high - low) * part


def rightwards(u: Progress, c: Choices) -> Track:
    """From near one edge to near the other, drifting a little across."""
    x = between(between(0.16, 0.30, c[0]), between(0.70, 0.84, c[1]), u)
    y = between(0.3, 0.7, c[2]) + between(-0.1, 0.1, c[3]) * (u - 0.5)
    radius = np.full_like(u, between(0.19, 0.25, c[4]))
    return Track(x[None], y[None], radius[None])


def downwards(u: Progress, c: Choices) -> Track:
    x, y, radius = rightwards(u, c)
    return Track(y, x, radius)


def nearer(u: Progress, c: Choices) -> Track:
    """Growing by the same factor in each equal part of the way."""
    x = between(0.35, 0.65, c[0]) + between(-0.1, 0.1, c[1]) * (u - 0.5)
    y = between(0.35, 0.65, c[2]) + between(-0.1, 0.1, c[3]) * (u - 0.5)
    radius = between(0.12, 0.16, c[4]) * between(2.0, 2.5, c[5]) ** u
    return Track(x[None], y[None], radius[None])


def together(u: Progress, c: Choices) -> Track:
    """Two objects, on opposite sides of a point, closing in on it."""
    half = between(between(0.32, 0.36, c[0]), between(0.15, 0.18, c[1]), u)  # of the distance between them
    angle = between(0, math.tau, c[2]) + between(-0.3, 0.3, c[3]) * (u - 0.5)
    x, y = half * np.cos(angle), half * np.sin(angle)
    radius = np.full_like(u, between(0.14, 0.17, c[4]))
    return Track(0.5 + np.stack([x, -x]), 0.5 + np.stack([y, -y]), np.stack([radius, radius]))


class Law(NamedTuple):
    """Two classes at once: a motion, and the same motion backwards."""

    forwards: str
    backwards: str
    track: Callable[[Progress, Choices], Track]


LAWS = (  # beside each, the Something-Something v2 templates that come nearest
    Law("moves right", "moves left", rightwards),  # Pushing something from left to right, from right to left
    Law("moves down", "moves up", downwards),  # Moving something down, up
    Law("approaches", "recedes", nearer),  # Moving something towards the camera, away from the camera
    Law("meet", "part", together),  # Moving something and something closer to, away from each other
)


# What things look like, in the object's own coordinates: it reaches about from -1 to 1, y grows downwards

Plane = Float[np.ndarray, "T H W"]


class Kind(NamedTuple):
    """A shape (negative inside, roughly a distance) and a texture (the second colour where positive)."""

    name: str
    shape: Callable[[Plane, Plane], Plane]
    texture: Callable[[Plane, Plane], Plane]


def disc(x: Plane, y: Plane) -> Plane:
    return np.hypot(x, y) - 1


def square(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x), np.abs(y)) - 0.88


def ring(x: Plane, y: Plane) -> Plane:
    return np.abs(np.hypot(x, y) - 0.7) - 0.3


def triangle(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x) * math.cos(math.pi / 6) - y * 0.5, y) - 0.6


def cross(x: Plane, y: Plane) -> Plane:
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 1, y - 0.34), np.maximum(x - 0.34, y - 1))


def star(x: Plane, y: Plane) -> Plane:
    return np.hypot(x, y) - 0.8 - 0.2 * np.cos(5 * np.arctan2(x, -y))


def bar(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x) - 1, np.abs(y) - 0.5)


def dome(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.hypot(x, y - 0.4) - 1, y - 0.4)


KINDS = (
    Kind("striped disc", disc, lambda x, y: np.sin(7 * x)),
    Kind("checked square", square, lambda x, y: np.sin(5 * x) * np.sin(5 * y)),
    Kind("plain ring", ring, lambda x, y: np.full_like(x, -1)),
    Kind("dotted triangle", triangle, lambda x, y: np.cos(9 * x) + np.cos(9 * y) - 0.5),
    Kind("shaded cross", cross, lambda x, y: y),
    Kind("rayed star", star, lambda x, y: np.sin(5 * np.arctan2(x, -y))),
    Kind("banded bar", bar, lambda x, y: np.cos(9 * y)),
    Kind("ringed dome", dome, lambda x, y: np.sin(9 * np.hypot(x, y - 0.4))),
)


def hue(rng: np.random.Generator, split: str) -> float:
    """A hue in [0, 1) from the split's pool: six arcs of 40 degrees, or the six of 10 midway between them."""
    start, width = {"train": (0, 40), "test": (45, 10)}[split]
    return (60 * int(rng.integers(6)) + start + width * rng.random()) / 360


def colour(hue: float, saturation: float, value: float) -> Float[np.ndarray, "3"]:
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def clouds(rng: np.random.Generator, size: int, cells: int) -> Float[np.ndarray, "size size"]:
    """A small grid of random values in [0, 1], blended by half cosines."""
    place = np.linspace(0, cells, size, endpoint=False)
    left, part = place.astype(int), (1 - np.cos(math.pi * (place % 1))) / 2
    blend = np.zeros((size, cells + 1))
    blend[np.arange(size), left] = 1 - part
    blend[np.arange(size), left + 1] = part
    return blend @ rng.random((cells + 1, cells + 1)) @ blend.T


def backdrop(rng: np.random.Generator, size: int, split: str) -> Float[np.ndarray, "size size 3"]:
    """Dim clouds, coarse to fine, between two colours."""
    low, high = (colour(hue(rng, split), rng.uniform(0.3, 0.8), value) for value in (0.02, 0.5))
    mix = 0.5 * clouds(rng, size, 3) + 0.3 * clouds(rng, size, 7) + 0.2 * clouds(rng, size, size // 4)
    return low + (high - low) * mix[..., None]


# One clip


def ease(t: Progress, rng: np.random.Generator) -> Progress:
    """Random changes of speed, never backwards; a change is as likely as its mirror image in time."""
    swing, lean = rng.uniform(-0.45, 0.45, 2)
    return t + swing * np.sin(math.tau * t) / math.tau + lean * np.sin(math.pi * t) / math.pi


def draw(track: Track, kind: Kind, rng: np.random.Generator, size: int, split: str) -> UInt8[np.ndarray, "T H W 3"]:
    """Bright objects, edges softened over one pixel, before a backdrop that stands still."""
    steps = track.x.shape[1]
    picture = np.repeat(backdrop(rng, size, split)[None], steps, axis=0).astype(np.float32)  # T H W 3
    place = ((np.arange(size) + 0.5) / size).astype(np.float32)
    for x, y, radius in zip(*(part.astype(np.float32)[..., None, None] for part in track), strict=True):
        tint, saturation = hue(rng, split), rng.uniform(0.4, 0.9)
        first = colour(tint, saturation, rng.uniform(0.85, 1.0)).astype(np.float32)
        second = colour(tint, saturation, rng.uniform(0.1, 0.25)).astype(np.float32)
        angle = rng.uniform(-0.25, 0.25) + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, steps)
        cos, sin = (part(angle).astype(np.float32)[:, None, None] for part in (np.cos, np.sin))
        right, down = (place - x) / radius, (place[:, None] - y) / radius
        right, down = cos * right + sin * down, cos * down - sin * right  # T H W
        pixels = size * radius  # in the object's unit of length
        cover = np.clip(0.5 - kind.shape(right, down) * pixels, 0, 1)[..., None]
        mix = np.clip(0.5 + kind.texture(right, down) * pixels / 8, 0, 1)[..., None]
        picture += cover * (first + (second - first) * mix - picture)
    return np.round(255 * picture).astype(np.uint8)


CLASSES: dict[str, tuple[str, ...]] = {
    "A": tuple(kind.name for kind in KINDS),
    "M": tuple(name for law in LAWS for name in (law.forwards, law.backwards)),
}
PARTNER = tuple(label ^ 1 for label in range(len(CLASSES["M"])))  # 1 0 3 2 ...: the class that plays M's backwards


def check(set: str, frames: int, size: int) -> None:
    if set not in CLASSES:
        raise ValueError(f"no set {set!r}: use one of {', '.join(CLASSES)}")
    if frames < 2:
        raise ValueError(f"frames={frames} cannot show a motion: use 2 or more")
    if size < 16 or size % 2:
        raise ValueError(f"size={size} does not fit H.264's halved colour planes: use an even size from 16 up")


def render(
    set: str, label: int, seed: int | Sequence[int], frames: int = 32, size: int = 128, split: str = "train"
) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames of one clip; in set M a label and its partner, same seed, give each other's reverse."""
    check(set, frames, size)
    if not 0 <= label < len(CLASSES[set]):
        raise ValueError(f"label={label} is no class of set {set}: use 0 to {len(CLASSES[set]) - 1}")
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: use one of {', '.join(SPLITS)}")
    source = [list(CLASSES).index(set), SPLITS.index(split), *np.atleast_1d(seed).tolist()]
    rng = np.random.default_rng(source)
    kind, law, backwards = rng.integers(len(KINDS)), rng.integers(len(LAWS)), rng.random() < 0.5
    if set == "A":
        kind = label
    else:
        law, backwards = divmod(label, 2)
    track = LAWS[law].track(ease(np.linspace(0, 1, frames), rng), rng.random(6))
    clip = draw(track, KINDS[kind], rng, size, split)
    return clip[::-1].copy() if backwards else clip
