"""A smaller copy of a video, as papers keep Kinetics: its shorter side 256 or 320 pixels, no sound.

Like `decode`, this trusts the decoder with its process; `worker.transcode` runs it in one of its own.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange

from course_lib.video.decode import probe
from course_lib.video.demux import open_video
from course_lib.video.display import Orientation, orientation
from course_lib.video.errors import VideoError


def small_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width with the shorter side as asked and the longer one in proportion, to the nearest even number."""
    scale = Fraction(short_side, min(height, width))
    height, width = (2 * round(side * scale / 2) for side in (height, width))
    return height, width


def check_side(short_side: int) -> None:
    if short_side < 2 or short_side % 2:
        raise ValueError(f"short_side={short_side}: H.264 wants even sizes; 256 and 320 are usual")


def transcode(source: Path, target: str | Path, short_side: int, keys: int = 250, crf: int = 18) -> bool:
    """Write an MP4 (H.264, 4:2:0) of every frame of `source` at its own time, made smaller by bicubic interpolation.

    False, and nothing written, if the video is that small already. Frames are turned as a player turns them and their
    pixels made square; the tags of colour are kept. There is a key frame every `keys` frames at least. `crf` is x264's
    quality: 18 can hardly be told from the original, 23 is its default, 6 more halve the bytes or so.

    Raises:
        ValueError: `short_side` is odd or below 2.
        VideoError: `source` is damaged, or the copy has another number of frames. `target` is then no use.
    """
    check_side(short_side)
    target = Path(target)
    before = probe(source)
    if min(before.height, before.width) <= short_side:
        return False
    height, width = small_size(before.height, before.width, short_side)
    with open_video(source) as (old, film), av.open(str(target.absolute()), "w", format="mp4") as new:
        options = {"crf": str(crf), "preset": "fast", "g": str(keys)}
        stream = new.add_stream("libx264", rate=film.average_rate or 25, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        if film.time_base is not None:
            stream.time_base = stream.codec_context.time_base = film.time_base
        last: int | None = None
        for number, frame in enumerate(old.decode(film)):
            time, turn = frame.pts, orientation(source, frame)
            if time is None or (last is not None and time <= last):
                raise VideoError(source, f"frame {number} has no time, or none after that of frame {number - 1}")
            last = time
            if turn != Orientation():
                upright = turn.apply(frame.to_ndarray(format="rgb24", threads=1))
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(upright), "rgb24")
            if number == 0:
                context = stream.codec_context
                context.color_range = ColorRange.MPEG
                context.colorspace, context.color_primaries = frame.colorspace, frame.color_primaries
                context.color_trc = frame.color_trc
            small = frame.reformat(
                width, height, "yuv420p", dst_color_range=ColorRange.MPEG, interpolation="BICUBIC", threads=1
            )
            small.pts, small.time_base = time, film.time_base
            small.pict_type = av.video.frame.PictureType.NONE  # the encoder chooses its own key frames
            new.mux(stream.encode(small))
        new.mux(stream.encode())
    after = probe(target)
    if (after.frames, after.height, after.width) != (before.frames, height, width):
        raise VideoError(
            source, f"has {before.frames} frames, its copy {after.frames} of {after.height} x {after.width}"
        )
    return True
