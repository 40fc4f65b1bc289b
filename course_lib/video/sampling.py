"""Which frames of a video a network sees: whole numbers in, whole numbers out, no file touched.

All can be called as sampler(available, frames, generator=...), as a data set calls them, once partial(dense, stride=8)
has fixed what is special to one. Random with a generator, in the middle without.

What a video is too short for is refused: repeating it from its start would show the network a jump that nobody filmed.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Int


def dense(
    available: int,
    frames: int,
    stride: int,
    start: int | None = None,
    hold: bool = False,
    generator: torch.Generator | None = None,
) -> Int[np.ndarray, "frames"]:
    """`frames` frames, `stride` apart: the papers' "8 x 32" is frames=8, stride=32 and spans 225 frames.

    They begin at `start` if given, else at random with a generator, else so that they lie in the middle.
    With `hold` a video that is too short is shown from its start and its last frame stands still, as PySlowFast has it.
    """
    _check(max(available, frames) if hold else available, frames)
    if stride < 1:
        raise ValueError(f"stride={stride}: frames lie at least 1 apart")
    span = (frames - 1) * stride + 1
    slack = available - span
    if hold and slack < 0:
        return np.minimum(np.arange(frames) * stride, available - 1)
    if slack < 0:
        raise ValueError(
            f"{frames} frames, {stride} apart, span {span}, but the video has {available}: "
            f"use stride={(available - 1) // (frames - 1)} or fewer frames, or hold=True"
        )
    if start is None:
        start = slack // 2 if generator is None else _below(slack + 1, generator)
    if not 0 <= start <= slack:
        raise ValueError(f"start={start}: a span of {span} in {available} frames can start at 0 to {slack}")
    return start + stride * np.arange(frames)


def segments(available: int, frames: int, generator: torch.Generator | None = None) -> Int[np.ndarray, "frames"]:
    """One frame from each of `frames` equal parts (Wang et al., Temporal Segment Networks, ECCV 2016).

    Parts differ in length by one frame at most where they do not divide the video.
    """
    _check(available, frames)
    edges = np.arange(frames + 1) * available // frames
    if generator is None:
        return (edges[:-1] + edges[1:]) // 2
    return np.array([low + _below(high - low, generator) for low, high in pairwise(edges.tolist())])


def spread(available: int, frames: int, generator: torch.Generator | None = None) -> Int[np.ndarray, "frames"]:
    """Evenly from the first frame to the last, and the same frames when the video is played backwards.

    Exactly: i is chosen iff available-1-i is. So a clip and its reverse hold the same pictures, and only their order
    can tell them apart. Nothing is random; `generator` is ignored.
    """
    _check(available, frames)
    if frames % 2 and available % 2 == 0:
        raise ValueError(
            f"{frames} of {available} frames cannot be the same backwards, because no frame is in the middle: "
            f"use frames={frames + 1 if frames < available else frames - 1}, or segments"
        )
    if frames == 1:
        return np.array([available // 2])
    first_half = (2 * np.arange(frames // 2) * (available - 1) + frames - 1) // (2 * (frames - 1))  # nearest
    middle = [available // 2] * (frames % 2)
    return np.concatenate([first_half, np.array(middle, dtype=int), available - 1 - first_half[::-1]])


def views(
    available: int,
    frames: int,
    stride: int,
    clips: int,
    hold: bool = False,
    generator: torch.Generator | None = None,
) -> Int[np.ndarray, "clips frames"]:
    """`clips` dense clips for testing, from the first possible start to the last; one clip lies in the middle.
    Nothing is random; `generator` is ignored.

    With `hold` clips of a video that is too short may begin at the same frame, and its last frame stands still where
    even one does not fit, as PySlowFast has it.

    Papers test with "10 x 3 views": 10 clips in time, each cropped 3 times, scores averaged.
    """
    if clips < 1:
        raise ValueError(f"clips={clips}: test with at least 1 view")
    if clips == 1:
        return dense(available, frames, stride, hold=hold)[None]
    first = dense(available, frames, stride, start=0, hold=hold)
    slack = available - 1 - int(first[-1])
    if slack + 1 < clips and not hold:
        raise ValueError(
            f"{frames} frames, {stride} apart, fit in {slack + 1} places of {available} frames: "
            f"use clips={slack + 1} instead of {clips}, a smaller stride, or hold=True"
        )
    starts = (2 * np.arange(clips) * slack + clips - 1) // (2 * (clips - 1))
    return starts[:, None] + first


def whole(
    available: int, frames: int, stride: int = 1, generator: torch.Generator | None = None
) -> Int[np.ndarray, "T"]:
    """Every `stride`-th frame of the whole video, for networks that take any number (VTN); `frames` is the most that is
    allowed. Nothing is random; `generator` is ignored."""
    if stride < 1:
        raise ValueError(f"stride={stride}: frames lie at least 1 apart")
    count = -(-available // stride)
    if count > frames:
        raise ValueError(
            f"every {stride}. of {available} frames makes {count}, more than the {frames} allowed: use "
            f"stride={-(-available // frames)}, or frames={count}"
        )
    return np.arange(0, available, stride)


def _check(available: int, frames: int) -> None:
    if frames < 1:
        raise ValueError(f"frames={frames}: a clip has at least 1 frame")
    if frames > available:
        raise ValueError(f"{frames} frames asked of a video that has {available}: use frames={available} or fewer")


def _below(end: int, generator: torch.Generator) -> int:
    return int(torch.randint(end, (), generator=generator))
