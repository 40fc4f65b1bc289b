"""A clip as a scene, and what follows from it: the picture, which object is seen where, and the optical flow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from course_lib.synthetic.appearance import REACH, Kind, Paint
from course_lib.synthetic.motion import Track, breadth


class Actor(NamedTuple):
    track: Track
    kind: Kind
    paint: Paint


@dataclass(frozen=True)
class Scene:
    """Objects, the one furthest back first, before a backdrop that stands still. `backwards`: all of it is played
    from the last frame to the first."""

    actors: tuple[Actor, ...]
    backdrop: Float32[np.ndarray, "size size 3"]
    backwards: bool = False

    @property
    def order(self) -> range:
        """The steps of the tracks in the order in which they are shown."""
        steps = range(len(self.actors[0].track.x))
        return steps[::-1] if self.backwards else steps


class Patch(NamedTuple):
    """An object at one moment: where in the picture it may be seen, and each pixel there in its own coordinates."""

    window: tuple[slice, slice]
    x: Float32[np.ndarray, "h w"]
    y: Float32[np.ndarray, "h w"]
    cover: Float32[np.ndarray, "h w"]  # 1 inside, 0 outside, edges softened over one pixel

    @property
    def seen(self) -> Bool[np.ndarray, "h w"]:
        return self.cover >= 0.5


def place(track: Track, step: int) -> tuple[float, float]:
    """Where on the stage: both in [-margin, 1 + margin)."""
    radius = float(track.radius[step])
    margin = REACH * radius
    return tuple((float(part[step]) + margin) % breadth(radius) - margin for part in (track.x, track.y))


def patch(actor: Actor, step: int, size: int) -> Patch:
    """Only the pixels around the object are looked at; none if it is out of view."""
    radius, angle, stretch = (float(part[step]) for part in actor.track[2:5])
    middle, spans = place(actor.track, step), []
    for at in middle:
        first, last = ((at + side * REACH * radius) * size for side in (-1, 1))
        spans.append(slice(max(0, math.floor(first)), max(0, min(size, math.ceil(last)))))
    across, down = (
        (np.arange(span.start, span.stop, dtype=np.float32) + 0.5 - at * size) / (radius * size)
        for span, at in zip(spans, middle, strict=True)
    )
    down = down[:, None]
    x = (math.cos(angle) * across + math.sin(angle) * down) / stretch
    y = math.cos(angle) * down - math.sin(angle) * across
    cover = np.clip(0.5 - actor.kind.shape(x, y) * (radius * size), 0, 1)
    return Patch((spans[1], spans[0]), x, y, cover)


def draw(scene: Scene) -> UInt8[np.ndarray, "T size size 3"]:
    size, picture = len(scene.backdrop), []
    for step in range(len(scene.order)):
        frame = scene.backdrop.copy()
        for actor in scene.actors:
            window, x, y, cover = patch(actor, step, size)
            sharp = 1.0 if actor.kind.shaded else float(actor.track.radius[step]) * size / 8
            mix = np.clip(0.5 + actor.kind.texture(x, y) * sharp, 0, 1)[..., None]
            here = actor.paint.bright + (actor.paint.dark - actor.paint.bright) * mix
            frame[window] += cover[..., None] * (here - frame[window])
        picture.append(np.round(255 * frame).astype(np.uint8))
    # Drawn forwards in any case: the reverse then has the same frames to the last bit.
    return np.stack(picture[::-1] if scene.backwards else picture)


def masks(scene: Scene) -> UInt8[np.ndarray, "T size size"]:
    """Which object is seen at each pixel: 1 for the scene's first actor and so on, 0 for the backdrop."""
    size = len(scene.backdrop)
    found = np.zeros((len(scene.order), size, size), np.uint8)
    for frame, step in zip(found, scene.order, strict=True):
        for number, actor in enumerate(scene.actors, 1):
            part = patch(actor, step, size)
            frame[part.window][part.seen] = number
    return found


def flow(scene: Scene) -> Float32[np.ndarray, "steps size size 2"]:
    """By how many pixels (rightwards, downwards) what is seen at a pixel of frame t has moved in frame t + 1.

    Exact, from the motion itself; for all T - 1 steps. It goes on where the thing leaves the picture or is hidden
    in frame t + 1. Zero on the backdrop.
    """
    size = len(scene.backdrop)
    found = np.zeros((len(scene.order) - 1, size, size, 2), np.float32)
    for frame, (step, after) in zip(found, pairwise(scene.order), strict=True):
        for actor in scene.actors:
            part = patch(actor, step, size)
            moved = _points(actor.track, part, after) - _points(actor.track, part, step)
            frame[part.window][part.seen] = size * moved[part.seen]
    return found


def _points(track: Track, part: Patch, step: int) -> Float[np.ndarray, "h w 2"]:
    """Where the points of an object, which the pixels of a patch show, are at a step: picture widths, not wrapped."""
    x, y, radius, angle, stretch = (float(values[step]) for values in track[:5])
    right, down = radius * stretch * part.x.astype(float), radius * part.y.astype(float)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack([x + cos * right - sin * down, y + sin * right + cos * down], axis=-1)
