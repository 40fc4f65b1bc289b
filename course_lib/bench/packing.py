"""What packing costs and brings: the loss in pixels, bytes, and the work of reading before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from course_lib.bench import reading
from course_lib.video import probe, read_frames
from course_lib.video.worker import transcode


def loss(before: Path, after: Path, frames: int = 8) -> tuple[float, float]:
    """Mean absolute difference in levels of 255, and mean squared difference, of `frames` frames spread over a video:
    the original made as small by Pillow (bicubic), against the copy."""
    from PIL import Image

    info = probe(after)
    indices = np.linspace(0, info.frames - 1, min(frames, info.frames)).round().astype(int)
    old, new = read_frames(before, indices), read_frames(after, indices)
    size = (info.width, info.height)
    small = np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in old])
    return differences(small, new)


def differences(a: UInt8[np.ndarray, "*shape"], b: UInt8[np.ndarray, "*shape"]) -> tuple[float, float]:
    """Mean absolute and mean squared difference."""
    apart = a.astype(np.float64) - b
    return float(np.abs(apart).mean()), float((apart**2).mean())


def compare(before: Sequence[Path], after: Sequence[Path], frames: int = 8, stride: int = 32) -> dict[str, Any]:
    """Loss, bytes and processor seconds a clip of originals and their copies, in the mean over the files; PSNR in dB is
    that of the mean squared difference. Clips are closer, and shorter, where a file has too few frames."""
    length = min(probe(path).frames for path in after)
    frames = min(frames, length)
    stride = min(stride, (length - 1) // max(1, frames - 1)) or 1
    losses = np.array([loss(old, new) for old, new in zip(before, after, strict=True)])
    absolute, squared = losses.mean(0)
    sides = {"before": before, "after": after}
    return {
        "files": len(before),
        "mean_absolute_difference": absolute,
        "psnr": 10 * math.log10(255**2 / squared) if squared else math.inf,
        "bytes": {side: float(np.mean([path.stat().st_size for path in paths])) for side, paths in sides.items()},
        "clip": f"{frames}x{stride}",
        "seconds": {side: reading.seconds_a_clip(paths, frames, stride) for side, paths in sides.items()},
    }


def sentence(told: dict[str, Any]) -> str:
    """A comparison in words."""
    before, after = (1000 * told["seconds"][side]["read"] for side in ("before", "after"))
    return (
        f"{told['bytes']['after'] / told['bytes']['before']:.2f} of the bytes; {told['clip'].replace('x', ' x ')} in "
        f"{after:.0f} ms of a core for {before:.0f}; pixels {told['mean_absolute_difference']:.1f} of 255 levels apart "
        f"in the mean ({told['psnr']:.1f} dB), over {told['files']} videos"
    )


def measure(
    folder: Path, short_side: int, keys: int, crf: int = 23, files: int = 2, size: tuple[int, int] = (480, 640)
) -> dict[str, Any]:
    """A part of the record: files of `size` (height, width) as `reading.write_videos` draws them, packed."""
    made = folder / f"large {size[0]}x{size[1]}"
    before = sorted(made.glob("*.mp4")) or reading.write_videos(made, files, *size)
    after = [folder / f"{short_side} {keys} {path.name}" for path in before]
    for old, new in zip(before, after, strict=True):
        transcode(old, new, short_side, 600.0, keys, crf)
    return {"short_side": short_side, "keys": keys, "crf": crf, "height": size[0], "width": size[1]} | compare(
        before, after
    )
