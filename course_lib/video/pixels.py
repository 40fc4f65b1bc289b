"""Frames from video files: the right ones, or a VideoError that says why not.

decord, which most papers' code uses, finds frame i by counting packets and jumping to key frames. That is exact only
if a packet is a picture and each key frame is a fresh start; elsewhere it returns other frames and says nothing: seen
with open groups of pictures (frame 61 for frame 79), MPEG-4 in AVI, WMV, MPEG-TS, H.264 with intra refresh and MP4
with an edit list. So PyAV first lists the packets without decoding them, and decord reads only

- MP4, MOV, Matroska or WebM files with one video stream of H.264, HEVC or VP9, 8 bits a colour, stored upright,
- whose timestamps are all known, distinct and shown, and whose key frames each start a closed group (H.264: an IDR).

Every other file is decoded by PyAV from its first frame on, and `VideoInfo.decoder` says so. Where both may read,
they give the same bytes, so that no result depends on which is installed. Frames are counted in the order in which
they are shown, turned as a player turns them, with the pixels as stored: scaling inside the decoder would round
colours otherwise than `transforms.resize` (from 256 to 224 pixels by 1.1 to 1.5 of 255 levels in the mean and 26 to
48 at most, in decord and in each of swscale's methods) and saves no time.

PyAV stops at damaged bytes. decord stops at some and shows a patched picture at others; `examine` finds these, and
a data set whose manifest has SHA-256 sums finds any change at all.

These functions trust the decoder with this process. `course_lib.video.decode` calls them in a process of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from course_lib.video.packets import ANEW, Listing, VideoError, list_packets, pictures, quarter_turns


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds: height, width in pixels as displayed; fps, the mean rate; decoder, "decord" or "pyav"; times,
    the seconds from the first frame at which each frame is shown."""

    path: Path
    frames: int
    fps: float
    height: int
    width: int
    decoder: str
    times: tuple[float, ...] = field(repr=False)

    def at(self, seconds: Float[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """The frame on the screen at each time, the last one for ever after: exact whatever the rate does between."""
        return np.clip(np.searchsorted(self.times, seconds, side="right") - 1, 0, self.frames - 1)


def look(path: Path) -> VideoInfo:
    """Count the frames of a video by its packets, or by decoding all where packets do not tell."""
    found = _list_once(path, *_stamp(path))
    times, fps = np.array(found.times), found.fps
    if not found.exact:
        shown = [picture.time for picture in pictures(path)]
        known = None not in shown and shown == sorted(set(shown))
        times = np.array(shown) if known else np.arange(len(shown)) / fps
    times = times - times[0]
    if len(times) > 1 and not np.isfinite(times[-1]):
        raise VideoError(path, "says neither when its frames are shown nor how fast; encode it again")
    if len(times) > 1 and not abs(fps * times[-1] / (len(times) - 1) - 1) < 0.01:  # what the file claims is only a hint
        fps = float((len(times) - 1) / times[-1])
    return VideoInfo(path, len(times), fps, found.height, found.width, _decoder_for(found), tuple(times.tolist()))


def pick(path: Path, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames with these numbers, in the order asked, in one pass over the file."""
    wanted, place = np.unique(np.asarray(indices), return_inverse=True)
    found = _list_once(path, *_stamp(path))
    if wanted[0] < 0 or (found.exact and wanted[-1] >= found.packets):
        raise _out_of_range(wanted, look(path))
    if _decoder_for(found) == "decord":
        return _pick_with_decord(found, wanted)[place]
    return _pick_with_pyav(found, wanted)[place]


def examine(path: Path) -> VideoInfo:
    """Decode every frame; VideoError at any damage that the codec notices."""
    info = look(path)
    sizes = [(picture.height, picture.width) for picture in pictures(path)]
    if len(sizes) != info.frames:
        raise VideoError(path, f"lists {info.frames} frames, {len(sizes)} decode; {ANEW}")
    if len(set(sizes)) > 1:
        raise VideoError(path, f"frames change their size {sorted(set(sizes))}; encode it again")
    pick(path, [0, info.frames // 2, info.frames - 1])
    return info


@lru_cache(maxsize=4)
def _list_once(path: Path, *stamp: int) -> Listing:
    return list_packets(path)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _decoder_for(found: Listing) -> str:
    # decord cannot read AV1 nor turn pictures of every width, and rounds the colours of 10 bits otherwise than PyAV.
    if not found.exact or found.codec not in ("h264", "hevc", "vp9") or found.bits != 8 or found.turns:
        return "pyav"
    try:
        import decord  # noqa: F401
    except ImportError:  # no wheel for this machine
        return "pyav"
    return "decord"


def _pick_with_decord(found: Listing, wanted: np.ndarray) -> np.ndarray:
    import decord

    try:
        reader = decord.VideoReader(str(found.path.absolute()), ctx=decord.cpu(0), num_threads=1)
        counted, frames = len(reader), reader.get_batch(wanted).asnumpy()
    except Exception as error:  # decord raises its own type, RuntimeError and IndexError for the same causes
        why = str(error).strip().partition("\n")[0].rpartition(") ")[2]
        raise VideoError(found.path, f"damaged (decord: {why}); {ANEW}") from error
    if (counted, *frames.shape[1:3]) != (found.packets, found.height, found.width):
        raise VideoError(
            found.path,
            f"lists {found.packets} frames of {found.height} x {found.width}, decord finds {counted} of "
            f"{frames.shape[1]} x {frames.shape[2]}; encode it again",
        )
    return frames


def _pick_with_pyav(found: Listing, wanted: np.ndarray) -> np.ndarray:
    frames, last = [], int(wanted[-1])
    for number, picture in enumerate(islice(pictures(found.path), last + 1)):
        if number == wanted[len(frames)]:
            frames.append(np.rot90(picture.to_ndarray(format="rgb24"), quarter_turns(picture)))
    if len(frames) < len(wanted):
        if found.exact:
            raise VideoError(found.path, f"lists {found.packets} frames, frame {last} is missing; {ANEW}")
        raise _out_of_range(wanted, look(found.path))
    sizes = sorted({frame.shape[:2] for frame in frames})
    if len(sizes) > 1:
        raise VideoError(found.path, f"frames change their size {sizes}; encode it again")
    return np.stack(frames)


def _out_of_range(wanted: np.ndarray, info: VideoInfo) -> ValueError:
    wrong = next(int(i) for i in wanted if not 0 <= i < info.frames)
    held = f"the file has {info.frames} frames: use 0 to {info.frames - 1}"
    return ValueError(f"{info.path}: frame {wrong} asked for, but {held}")
