"""Videos whose every frame shows its own number, as six blocks, dark or bright, and a white upper left corner."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

FRAMES, HEIGHT, WIDTH, BITS = 40, 48, 64, 6
CORNER = slice(0, HEIGHT // 4), slice(0, WIDTH // 4)
X264 = "scenecut=0:b-adapt=0:keyint=10:min-keyint=10"


def numbered(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    clip = np.full((frames, height, width, 3), 60, np.uint8)
    for bit in range(BITS):
        block = slice(height // 2 - 6, height // 2 + 6), slice(width // 2 + 8 * (bit - 3), width // 2 + 8 * (bit - 2))
        clip[:, *block] = np.where(np.arange(frames) >> bit & 1, 230, 20)[:, None, None, None]
    clip[:, *CORNER] = 255
    return clip


def numbers(frames: np.ndarray) -> list[int]:
    row, middle = frames.shape[1] // 2, frames.shape[2] // 2
    blocks = [frames[:, row - 2 : row + 2, middle + 8 * (bit - 3) + 2 :][:, :, :4] for bit in range(BITS)]
    return sum((block.mean(axis=(1, 2, 3)) > 125).astype(int) << bit for bit, block in enumerate(blocks)).tolist()


def write(
    path: Path,
    clip: np.ndarray | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    muxer: dict[str, str] | None = None,
    x264: str = "",
    **options: str,
) -> Path:
    """Encode a clip (frame numbers if none is given) at 25 frames a second, with PyAV and nothing of ours."""
    clip = numbered() if clip is None else clip
    if codec == "libx264":
        options |= {"x264-params": f"{X264}:{x264}".rstrip(":")}
    try:
        av.Codec(codec, "w")
    except av.error.FFmpegError:
        pytest.skip(f"this PyAV cannot write {codec}")
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *clip.shape[1:3], pixels
        stream.codec_context.time_base = Fraction(1, 25)
        for i, pixels_of_frame in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_of_frame), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def copy_packets(source: Path, target: Path, change) -> Path:
    """Remux without encoding; change(number, packet) returns the packet to write, or None."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            changed = packet.dts is not None and change(number, packet)
            if changed:
                changed.stream = stream
                new.mux(changed)
    return target


def witness(path: Path) -> Iterator[tuple[av.VideoFrame, np.ndarray]]:
    """Every picture from the first on, and its pixels as displayed: PyAV, and nothing of ours."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        aspect = stream.sample_aspect_ratio or 1
        for picture in container.decode(stream):
            size = {"width": round(picture.width * max(1, aspect)), "height": round(picture.height / min(1, aspect))}
            same = size == {"width": picture.width, "height": picture.height}
            how = {} if same else size | {"interpolation": "BICUBIC"}
            pixels = picture.to_ndarray(format="rgb24", **how)
            yield picture, np.rot90(pixels, picture.rotation // 90)
