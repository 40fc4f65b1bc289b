"""What the objects of the generated sets look like, and what stands behind them."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

REACH = 1.25  # no kind reaches further from its middle, in its own unit of length
Plane = Float[np.ndarray, "H W"]  # in an object's own coordinates: x grows to its right, y downwards


class Kind(NamedTuple):
    """A shape (negative inside, roughly a distance) and a texture (the second colour where positive).

    Where `shaded`, the texture runs from -0.5 to 0.5 and blends the two colours, without an edge between them.
    """

    name: str
    shape: Callable[[Plane, Plane], Plane]
    texture: Callable[[Plane, Plane], Plane]
    shaded: bool = False


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


def wall(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x) - 1, np.abs(y) - 0.75)


def opening(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x) - 0.8, np.abs(y + 0.75) - 0.2)


# Turned by less than 70 degrees, none of them looks as it did before.
KINDS = (
    Kind("striped disc", disc, lambda x, y: np.sin(7 * x)),
    Kind("checked square", square, lambda x, y: np.sin(5 * x) * np.sin(5 * y)),
    Kind("parted ring", ring, lambda x, y: np.sin(3 * np.arctan2(x, -y))),
    Kind("dotted triangle", triangle, lambda x, y: np.cos(9 * x) + np.cos(9 * y) - 0.5),
    Kind("shaded cross", cross, lambda x, y: y),
    Kind("rayed star", star, lambda x, y: np.sin(5 * np.arctan2(x, -y))),
    Kind("banded bar", bar, lambda x, y: np.cos(9 * y)),
    Kind("ringed dome", dome, lambda x, y: np.sin(9 * np.hypot(x, y - 0.4))),
)
CLOTH = Kind("cloth", square, lambda x, y: np.sin(9 * (x + y)))  # hides what lies below: it has no holes
INSIDE = Kind("box, inside", opening, lambda x, y: np.full_like(x, 1))
# At each of its places it grows dark slowly and bright at once, or the other way round: so each tells how it turns.
WHEEL = Kind("wheel", disc, lambda x, y: np.arctan2(x, -y) / math.tau % 1 - 0.5, shaded=True)
FRONT = Kind("box, front", wall, lambda x, y: np.cos(6 * x))

# The hues of a split, in degrees: six arcs, each so far from a multiple of 60 and so wide. They do not overlap.
POOLS = {"train": (0, 40), "test": (45, 10), "paired": (45, 10)}


def hue(rng: np.random.Generator, split: str) -> float:
    """A hue in [0, 1) from the split's pool."""
    start, width = POOLS[split]
    return (60 * int(rng.integers(6)) + start + width * rng.random()) / 360


def colour(hue: float, saturation: float, value: float) -> Float[np.ndarray, "3"]:
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)


class Paint(NamedTuple):
    """The two colours of an object, one hue: bright, and dark where the texture is positive."""

    bright: Float[np.ndarray, "3"]
    dark: Float[np.ndarray, "3"]


def paint(rng: np.random.Generator, split: str) -> Paint:
    tint, saturation = hue(rng, split), rng.uniform(0.4, 0.9)
    return Paint(colour(tint, saturation, rng.uniform(0.85, 1.0)), colour(tint, saturation, rng.uniform(0.1, 0.25)))


def clouds(rng: np.random.Generator, size: int, cells: int) -> Float[np.ndarray, "size size"]:
    """A small grid of random values in [0, 1], blended by half cosines."""
    grid = rng.random((cells + 1, cells + 1))
    place = np.linspace(0, cells, size, endpoint=False)
    cell = place.astype(int)
    part = (1 - np.cos(math.pi * (place % 1))) / 2
    rows = grid[cell] + (grid[cell + 1] - grid[cell]) * part[:, None]
    return rows[:, cell] + (rows[:, cell + 1] - rows[:, cell]) * part


def backdrop(rng: np.random.Generator, size: int, split: str) -> Float[np.ndarray, "size size 3"]:
    """Clouds, coarse to fine, between a dark and a middling colour: never as bright as an object's bright parts."""
    low, high = (colour(hue(rng, split), rng.uniform(0.3, 0.8), value) for value in (0.04, 0.55))
    mix = 0.45 * clouds(rng, size, 3) + 0.3 * clouds(rng, size, 7) + 0.25 * clouds(rng, size, size // 4)
    mix = (mix - mix.min()) / np.ptp(mix)
    return (low + (high - low) * mix[..., None]).astype(np.float32)
