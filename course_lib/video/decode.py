"""Reading video files safely: the functions of `pixels`, in a process that a bad file may hang or crash (`guard`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from course_lib.video import guard
from course_lib.video.packets import VideoError
from course_lib.video.pixels import VideoInfo

__all__ = ["VideoError", "VideoInfo", "check", "probe", "read_frames"]


def probe(path: str | Path, seconds: float = 60.0) -> VideoInfo:
    """Count the frames of a video by its packets, or by decoding all where packets do not tell.

    Raises:
        VideoError: the file cannot be read, is cut short, crashes its decoder, or gave no answer within `seconds`.
    """
    return guard.look(path, seconds)


def read_frames(
    path: str | Path, indices: Sequence[int] | np.ndarray, seconds: float = 60.0
) -> UInt8[np.ndarray, "T H W 3"]:
    """Read the frames with these numbers, in the order asked (repeats allowed), as RGB.

    Each call opens the file anew, with one thread: safe in DataLoader workers, forked or spawned.

    Raises:
        VideoError: the file cannot be read, is cut short, crashes its decoder, or gave no answer within `seconds`.
        ValueError: no index, an index that is no whole number, or one that the file does not have.
    """
    asked = np.asarray(indices)
    if asked.size == 0:
        raise ValueError(f"{path}: no frame asked for; give at least one index")
    if asked.ndim != 1 or asked.dtype.kind not in "iu":
        raise ValueError(f"{path}: frame indices must be a list of whole numbers, not {indices!r}")
    return guard.pick(path, asked.tolist(), seconds)


def check(path: str | Path, seconds: float = 60.0) -> str | None:
    """Decode every frame of a file; the problem in words, or None.

    Stricter than `read_frames`: any damage that the codec notices counts. Costs the decoding of the whole file.
    """
    try:
        guard.examine(path, seconds)
    except VideoError as problem:
        return str(problem)
    return None
