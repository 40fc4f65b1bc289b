"""Frames from video files: the right ones, or a VideoError that says why not.

Counting packets and jumping to key frames, as most readers do, is exact only if a packet is a picture and each key
frame is a fresh start; elsewhere other frames are shown and nothing is said: seen with open groups of pictures (frame
61 for frame 79), MPEG-4 in AVI, WMV, MPEG-TS, H.264 with intra refresh, MP4 with an edit list, and where the decoder
needs what an earlier packet says. So the packets are first listed without decoding them (`demux`), and groups of
pictures are decoded alone only in

- MP4, MOV, Matroska or WebM files with one video stream of H.264, HEVC or VP9, not interlaced,
- whose time stamps are all known, distinct and shown, whose key frames each start a closed group (H.264: an IDR),
- and whose groups each bring the same parameter sets and SEI (`bitstream`).

There only the groups that hold a wanted frame are decoded, and of these no frame that is neither wanted nor referred
to by others. Every other file is decoded from its first frame on. Both ways give the same bytes, because the pictures
are the same and one function makes RGB of them (`display`). Frames are counted in the order in which they are shown,
and look as a player shows them: turned, mirrored, with square pixels. Their size is otherwise as stored: scaling inside
the decoder would round colours otherwise than `transforms.resize` (from 256 to 224 pixels by 1.1 to 1.5 of 255 levels
in the mean and 26 to 48 at most, in each of swscale's methods), and saves no time.

PyAV reads, with one thread. decord, which mmaction2 reads with, gave the same bytes where it was exact, took a third
more time even for whole files, converts colours otherwise in interlaced pictures and odd sizes, and refuses some good
files; so it has no part here. PyAV stops at damaged bytes that it decodes; a data set whose list has SHA-256 sums finds
any change at all.

These functions trust the decoder with this process. `course_lib.video.worker` calls them in a process of their own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, UInt8

from course_lib.video.demux import Film, PacketIndex, ffmpeg_errors, open_video, pictures, read_film
from course_lib.video.display import ToRGB, displayed_size, orientation
from course_lib.video.errors import ANEW, MachineError, VideoError

if TYPE_CHECKING:
    import av


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds: height, width in pixels as displayed; fps, the mean rate; times, the seconds from the first
    frame at which each frame is shown (presentation time stamps)."""

    path: Path
    frames: int
    fps: float
    height: int
    width: int
    times: tuple[float, ...] = field(repr=False)

    def at(self, seconds: Float[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """The frame on the screen at each time, the last one for ever after: exact whatever the rate does between."""
        rounding = 1e-6  # a time that is exactly a frame's shows that frame
        return np.clip(np.searchsorted(self.times, seconds + rounding, side="right") - 1, 0, self.frames - 1)


def probe(path: Path) -> VideoInfo:
    """Count the frames of a video by its packets, or by decoding all where packets do not tell."""
    return _probe_once(path, *_stamp(path))


def read_frames(path: Path, indices: Sequence[int]) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames with these numbers, in the order asked, in one pass over the file."""
    wanted, place = np.unique(np.asarray(indices), return_inverse=True)
    index = _index_once(path, *_stamp(path))
    if wanted[0] < 0 or (index.exact and wanted[-1] >= index.packets):
        raise _out_of_range(wanted, probe(path))
    if index.jumps:
        try:
            return _decode_groups(index, wanted)[place]
        except MachineError:
            raise
        except VideoError:  # damaged is what cannot be read from the start either
            pass
    return _decode_from_start(index, wanted)[place]


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
    info, index = probe(path), _index_once(path, *_stamp(path))
    to_rgb, sizes, compared = ToRGB(path, index.aspect), [], set(_from_some_groups(index))
    samples: dict[int, np.ndarray] = {}
    for number, picture in enumerate(pictures(path)):
        _check_orientation(index, picture)
        sizes.append(displayed_size(path, picture, index.aspect))
        if number in compared:
            samples[number] = to_rgb(picture)
    if len(sizes) != info.frames:
        raise VideoError(path, f"lists {info.frames} frames, {len(sizes)} decode; {ANEW}")
    if len(set(sizes)) > 1:
        raise VideoError(path, f"frames change their size {sorted(set(sizes))}; encode it again")
    if samples:
        numbers = sorted(samples)
        _last.clear()  # its decoder has seen the first packet
        for number, frame in zip(numbers, _decode_groups(index, np.array(numbers)), strict=True):
            if not np.array_equal(frame, samples[number]):
                raise VideoError(path, f"frame {number} is another one when read from its key frame; encode it again")


def _from_some_groups(index: PacketIndex) -> list[int]:
    """Frames from the beginning, middle and end of up to three groups of pictures behind the first."""
    numbers = []
    for group in {len(index.keys) * part // 4 for part in (1, 2, 3)} - {0} if index.jumps else ():
        begin = bisect_left(index.shown, index.keys[group])
        end = bisect_left(index.shown, index.keys[group + 1]) if group + 1 < len(index.keys) else index.packets
        numbers += [begin, (begin + end) // 2, end - 1]
    return numbers


@lru_cache(maxsize=32)
def _probe_once(path: Path, *stamp: int) -> VideoInfo:
    index = _index_once(path, *stamp)
    times, fps = np.array(index.shown) * index.tick, index.fps
    if not index.exact:
        shown = [picture.time for picture in pictures(path)]
        known = None not in shown and shown == sorted(set(shown))
        times = np.array(shown) if known else np.arange(len(shown)) / fps
    times = times - times[0]
    if len(times) > 1 and not np.isfinite(times[-1]):
        raise VideoError(path, "says neither when its frames are shown nor how fast; encode it again")
    return VideoInfo(path, len(times), _rate(times, fps, index.tick), index.height, index.width, tuple(times.tolist()))


def _rate(times: np.ndarray, claimed: float, tick: float) -> float:
    """Frames a second: what the file claims if the last time stamp agrees to within its rounding, else their mean."""
    if len(times) < 2:
        return claimed if np.isfinite(claimed) else 1.0
    late = abs(times[-1] - (len(times) - 1) / claimed)
    return claimed if late <= min(1.01 * tick, 0.25 / claimed) else float((len(times) - 1) / times[-1])


_last: list[Film] = []  # of the file indexed last, until it is decoded: most are probed, then read once


@lru_cache(maxsize=32)
def _index_once(path: Path, *stamp: int) -> PacketIndex:
    _last.clear()
    film = read_film(path)
    _last.append(film)
    return film.index


@contextmanager
def _packets_of(index: PacketIndex) -> Iterator[tuple[av.VideoCodecContext, Iterable[av.Packet]]]:
    """The packets of a file and their decoder: those that were kept when it was indexed, or read again."""
    film = _last.pop() if _last and _last[0].index is index else None
    if film is not None and film.context is not None:
        film.context.flush_buffers()  # it has decoded the first picture
        with ffmpeg_errors(index.path):
            yield film.context, film.packets
    else:
        with open_video(index.path) as (container, stream):
            yield stream.codec_context, container.demux(stream)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _decode_groups(index: PacketIndex, wanted: np.ndarray) -> np.ndarray:
    """Decode what the wanted frames need and no more: their groups of pictures, and of those only frames that are
    wanted or that others refer to."""
    frames = _Frames(index, wanted)
    needed = {index.keys[bisect_right(index.keys, time) - 1] for time in frames.asked}
    within = False
    with _packets_of(index) as (context, packets):
        for packet in packets:
            if packet.is_keyframe:
                if within:  # what the decoder still holds belongs to the group that ends here
                    frames.gather(context.decode(None))
                    context.flush_buffers()
                within = packet.pts in needed
            if within and packet.size:
                context.skip_frame = "DEFAULT" if packet.pts in frames.asked else "NONREF"
                frames.gather(context.decode(packet))
            if frames.complete:
                break
        else:
            frames.gather(context.decode(None) if within else [])
    return frames.stack()


def _decode_from_start(index: PacketIndex, wanted: np.ndarray) -> np.ndarray:
    """Decode every frame up to the last one wanted; count them, or know them by their time stamps."""
    frames = _Frames(index, wanted)
    for number, picture in enumerate(pictures(index.path)):
        _check_orientation(index, picture)
        frames.gather([picture], None if index.exact else number)
        if frames.complete:
            break
    if not index.exact and not frames.complete:
        raise _out_of_range(wanted, probe(index.path))
    return frames.stack()


def _check_orientation(index: PacketIndex, picture: av.VideoFrame) -> None:
    if orientation(index.path, picture) != index.orientation:
        told = "tells of some frames only how they are turned (SEI display orientation)"
        raise VideoError(index.path, f"{told}; encode it again, upright")


class _Frames:
    """The wanted frames, gathered by their presentation time stamps, or by their numbers where those do not tell."""

    def __init__(self, index: PacketIndex, wanted: np.ndarray):
        self.index = index
        self.asked = {index.shown[i] if index.exact else i: i for i in wanted.tolist()}
        self._found: dict[int, np.ndarray] = {}
        self._to_rgb = ToRGB(index.path, index.aspect)

    def gather(self, shown: list[av.VideoFrame], number: int | None = None) -> None:
        for picture in shown:
            key = picture.pts if number is None else number
            if key is not None and key in self.asked:
                self._found[key] = self._to_rgb(picture)

    @property
    def complete(self) -> bool:
        return len(self._found) == len(self.asked)

    def stack(self) -> np.ndarray:
        lost = [number for key, number in self.asked.items() if key not in self._found]
        if lost:
            raise VideoError(self.index.path, f"lists {self.index.packets} frames, frame {lost[0]} is missing; {ANEW}")
        sizes = sorted({frame.shape[:2] for frame in self._found.values()})
        if len(sizes) > 1:
            raise VideoError(self.index.path, f"frames change their size {sizes}; encode it again")
        return np.stack([self._found[key] for key in self.asked])


def _out_of_range(wanted: np.ndarray, info: VideoInfo) -> ValueError:
    wrong = next(int(i) for i in wanted if not 0 <= i < info.frames)
    held = f"the file has {info.frames} frames: use 0 to {info.frames - 1}"
    return ValueError(f"{info.path}: frame {wrong} asked for, but {held}")
