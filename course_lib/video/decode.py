"""Frames from video files: the right ones, or a VideoError that says why not.

decord, which most papers' code uses, finds frame i by counting packets and jumping to key frames. That is exact only
if a packet is a picture and each key frame is a fresh start; elsewhere it returns other frames and says nothing: seen
with open groups of pictures (frame 61 for frame 79), MPEG-4 in AVI, WMV, MPEG-TS, H.264 with intra refresh and MP4
with an edit list. So PyAV first lists the packets without decoding them, and decord reads only

- MP4, MOV, Matroska or WebM files with one video stream of H.264, HEVC or VP9, 8 bits a colour, stored upright,
- whose timestamps are all known, distinct and shown, and whose key frames each start a closed group (H.264: an IDR).

Where frames are few and far between, as in most clips that networks see, PyAV reads such a file by its packets: only
the groups that hold a wanted frame, and of these no frame that is neither wanted nor referred to by others. That is
faster than decoding all and counting. Every other file is decoded by PyAV from its first frame on, and
`VideoInfo.decoder` says so. Where two ways may be taken they give the same bytes, so that no result depends on which
decoder is installed. Frames are counted in the order in which they are shown, turned as a player turns them, with the
pixels as stored: scaling inside the decoder would round colours otherwise than `transforms.resize` (from 256 to 224
pixels by 1.1 to 1.5 of 255 levels in the mean and 26 to 48 at most, in decord and in each of swscale's methods), and
saves no time.

PyAV stops at damaged bytes that it decodes. decord stops at some and shows a patched picture at others; `check`
finds these, and a data set whose list has SHA-256 sums finds any change at all.

These functions trust the decoder with this process. `course_lib.video.worker` calls them in a process of their own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, UInt8

from course_lib.video.demux import (
    ANEW,
    MachineError,
    PacketIndex,
    VideoError,
    index_packets,
    open_video,
    pictures,
    quarter_turns,
)

if TYPE_CHECKING:
    import av

JUMPS = ("h264", "hevc", "vp9")  # codecs whose decoders begin anew at every key frame, in decord and in PyAV


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds: height, width in pixels as displayed; fps, the mean rate; times, the seconds from the first
    frame at which each frame is shown; decoder, "decord" where that can be trusted with the file, else "pyav"."""

    path: Path
    frames: int
    fps: float
    height: int
    width: int
    decoder: str
    times: tuple[float, ...] = field(repr=False)

    def at(self, seconds: Float[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """The frame on the screen at each time, the last one for ever after: exact whatever the rate does between."""
        rounding = 1e-6  # a time that is exactly a frame's shows that frame
        return np.clip(np.searchsorted(self.times, seconds + rounding, side="right") - 1, 0, self.frames - 1)


def probe(path: Path) -> VideoInfo:
    """Count the frames of a video by its packets, or by decoding all where packets do not tell."""
    index = _index_once(path, *_stamp(path))
    times, fps = np.array(index.shown) * index.tick, index.fps
    if not index.exact:
        shown = [picture.time for picture in pictures(path)]
        known = None not in shown and shown == sorted(set(shown))
        times = np.array(shown) if known else np.arange(len(shown)) / fps
    times = times - times[0]
    if len(times) > 1 and not np.isfinite(times[-1]):
        raise VideoError(path, "says neither when its frames are shown nor how fast; encode it again")
    if len(times) > 1 and not abs(fps * times[-1] / (len(times) - 1) - 1) < 0.01:  # what the file claims is only a hint
        fps = float((len(times) - 1) / times[-1])
    return VideoInfo(path, len(times), fps, index.height, index.width, _decoder_for(index), tuple(times.tolist()))


def read_frames(path: Path, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames with these numbers, in the order asked, in one pass over the file."""
    wanted, place = np.unique(np.asarray(indices), return_inverse=True)
    index = _index_once(path, *_stamp(path))
    if wanted[0] < 0 or (index.exact and wanted[-1] >= index.packets):
        raise _out_of_range(wanted, probe(path))
    if not index.exact or index.codec not in JUMPS:
        return _decode_from_start(index, wanted)[place]
    if _decoder_for(index) == "decord" and 2 * len(wanted) > _stretch(index, wanted):
        return _read_with_decord(index, wanted)[place]
    return _decode_groups(index, wanted)[place]


def check(path: Path) -> str | None:
    """Decode every frame; the problem in words if there is any damage that the codec notices, or None."""
    try:
        _check(path)
    except MachineError:
        raise
    except VideoError as problem:
        return str(problem)
    return None


def _check(path: Path) -> None:
    info = probe(path)
    sizes = [(picture.height, picture.width) for picture in pictures(path)]
    if len(sizes) != info.frames:
        raise VideoError(path, f"lists {info.frames} frames, {len(sizes)} decode; {ANEW}")
    if len(set(sizes)) > 1:
        raise VideoError(path, f"frames change their size {sorted(set(sizes))}; encode it again")
    if info.decoder == "decord":  # `read_frames` would leave so few frames to PyAV, which has just decoded all
        ends = np.unique([0, info.frames // 2, info.frames - 1])
        _read_with_decord(_index_once(path, *_stamp(path)), ends)


@lru_cache(maxsize=4)
def _index_once(path: Path, *stamp: int) -> PacketIndex:
    return index_packets(path)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _decoder_for(index: PacketIndex) -> str:
    # decord cannot read AV1 nor turn pictures of every width, and rounds the colours of 10 bits otherwise than PyAV.
    if not index.exact or index.codec not in JUMPS or index.bits != 8 or index.turns:
        return "pyav"
    try:
        import decord  # noqa: F401  # type: ignore[import-untyped]
    except ImportError:  # no wheel for this machine
        return "pyav"
    return "decord"


def _stretch(index: PacketIndex, wanted: np.ndarray) -> int:
    """How many frames lie between the key frame before the first one wanted and the last one wanted."""
    key = index.keys[bisect_right(index.keys, index.shown[wanted[0]]) - 1]
    return int(wanted[-1]) - bisect_left(index.shown, key) + 1


def _read_with_decord(index: PacketIndex, wanted: np.ndarray) -> np.ndarray:
    import decord  # type: ignore[import-untyped]

    try:
        reader = decord.VideoReader(str(index.path.absolute()), ctx=decord.cpu(0), num_threads=1)
        counted, frames = len(reader), reader.get_batch(wanted).asnumpy()
    except Exception as error:  # decord raises its own type, RuntimeError and IndexError for the same causes
        why = str(error).strip().partition("\n")[0].rpartition(") ")[2]
        raise VideoError(index.path, f"damaged (decord: {why}); {ANEW}") from error
    if (counted, *frames.shape[1:3]) != (index.packets, index.height, index.width):
        raise VideoError(
            index.path,
            f"lists {index.packets} frames of {index.height} x {index.width}, decord finds {counted} of "
            f"{frames.shape[1]} x {frames.shape[2]}; encode it again",
        )
    return frames


def _decode_groups(index: PacketIndex, wanted: np.ndarray) -> np.ndarray:
    """Decode what the wanted frames need and no more: their groups of pictures, and of those only frames that are
    wanted or that others refer to."""
    asked = dict.fromkeys(index.shown[i] for i in wanted)
    needed = {index.keys[bisect_right(index.keys, time) - 1] for time in asked}
    frames: dict[int, np.ndarray] = {}

    def gather(shown: list[av.VideoFrame]) -> None:
        for picture in shown:
            if picture.pts is not None and picture.pts in asked:
                frames[picture.pts] = np.rot90(picture.to_ndarray(format="rgb24"), quarter_turns(picture))

    with open_video(index.path) as (container, stream):
        context, within = stream.codec_context, False
        for packet in container.demux(stream):
            if packet.is_keyframe:
                if within:  # what the decoder still holds belongs to the group that ends here
                    gather(context.decode(None))
                    context.flush_buffers()
                within = packet.pts in needed
            if within and packet.size:
                context.skip_frame = "DEFAULT" if packet.pts in asked else "NONREF"
                gather(context.decode(packet))
            if len(frames) == len(asked):
                break
        else:
            gather(context.decode(None) if within else [])
    lost = [i for i in wanted.tolist() if index.shown[i] not in frames]
    if lost:
        raise VideoError(index.path, f"lists {index.packets} frames, frame {lost[0]} is missing; {ANEW}")
    return _stack(index.path, [frames[time] for time in asked])


def _decode_from_start(index: PacketIndex, wanted: np.ndarray) -> np.ndarray:
    """Decode every frame up to the last one wanted, and count."""
    frames: list[np.ndarray] = []
    for number, picture in enumerate(islice(pictures(index.path), int(wanted[-1]) + 1)):
        if number == wanted[len(frames)]:
            frames.append(np.rot90(picture.to_ndarray(format="rgb24"), quarter_turns(picture)))
    if len(frames) < len(wanted):
        raise _out_of_range(wanted, probe(index.path))
    return _stack(index.path, frames)


def _stack(path: Path, frames: list[np.ndarray]) -> np.ndarray:
    sizes = sorted({frame.shape[:2] for frame in frames})
    if len(sizes) > 1:
        raise VideoError(path, f"frames change their size {sizes}; encode it again")
    return np.stack(frames)


def _out_of_range(wanted: np.ndarray, info: VideoInfo) -> ValueError:
    wrong = next(int(i) for i in wanted if not 0 <= i < info.frames)
    held = f"the file has {info.frames} frames: use 0 to {info.frames - 1}"
    return ValueError(f"{info.path}: frame {wrong} asked for, but {held}")
