"""The packets of a video file, listed without decoding them (demuxed); read with PyAV."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EACCES, EDQUOT, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM, ESTALE
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from course_lib.video.bitstream import GroupProof
from course_lib.video.container import MATROSKA, MP4, ends_early, shows_a_part
from course_lib.video.display import MOST_PIXELS, Orientation, displayed_size, orientation
from course_lib.video.errors import ANEW, MachineError, VideoError

if TYPE_CHECKING:
    import av

ONE_PICTURE_A_PACKET = ("h264", "hevc", "vp9", "av1")
# FFmpeg also "plays" plain text and lists of other files: neither is the clip that was asked for.
NOT_VIDEO = ("concat", "dash", "hls", "image2", "tty")
HELD = 32 * 2**20  # bytes of packets that are kept of a file, so that it need not be opened again to decode them
MACHINE = {EACCES, EPERM, EMFILE, ENFILE, ENOMEM, ENOSPC, EDQUOT, ESTALE}


@dataclass(frozen=True)
class PacketIndex:
    """The packets of one video stream, counted; height and width in pixels as displayed, fps the rate that the file
    claims, aspect the shape of a stored pixel (sample aspect ratio, width / height), orientation from stored to
    displayed.

    `exact` promises that counting packets is counting frames: `shown` are then the presentation time stamps of all
    frames in the order in which they are shown, `keys` those of the key frames. `jumps` promises that each group of
    pictures, from one key frame to the next, can be decoded alone. A time stamp is worth `tick` seconds.
    """

    path: Path
    codec: str
    fps: float
    height: int
    width: int
    aspect: Fraction
    orientation: Orientation
    packets: int
    shown: tuple[int, ...]
    keys: tuple[int, ...]
    tick: float
    exact: bool
    jumps: bool


@dataclass(frozen=True)
class Film:
    """A file that was read and closed: its packets with their decoder, if groups of pictures can be decoded alone and
    the packets are small enough to keep (`HELD`)."""

    index: PacketIndex
    context: av.VideoCodecContext | None
    packets: list[av.Packet]


def index_packets(path: Path) -> PacketIndex:
    """`read_film` without the film."""
    return read_film(path).index


def read_film(path: Path) -> Film:
    """Read every packet of a file and decode its first picture; VideoError if it is no video, cut short or damaged."""
    with open_video(path) as (container, stream):
        context, kind = stream.codec_context, container.format.name
        codec = context.codec.canonical_name
        proof = GroupProof(codec, context.extradata)
        times: list[int | None] = []
        keys: list[int] = []
        packets: list[av.Packet] = []
        plain, first, size = True, None, 0
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise VideoError(path, f"cut short or damaged after {len(times)} frames; {ANEW}")
            if first is None:
                first = _picture_of(packet, context)
            if packet.size == 0 and packet.dts is None:  # marks the end
                continue
            if packet.is_keyframe:
                keys.append(len(times))
            times.append(packet.pts)
            size += packet.size
            if size <= HELD:
                packets.append(packet)
            # An edit list hides frames.
            plain &= packet.size > 0 and not packet.is_discard and proof.add(bytes(packet), packet.is_keyframe)
        if ends_early(path, kind):
            raise VideoError(path, f"cut short or damaged after {len(times)} frames; {ANEW}")
        if first is None:
            raise VideoError(path, f"no frame can be decoded; {ANEW}")
        if part := shows_a_part(path, kind, first.height, first.width):
            raise VideoError(path, f"only a part of each picture is to be shown ({part}); encode it again, cropped")
        plain = plain and proof.progressive and kind in (MP4, MATROSKA) and codec in ONE_PICTURE_A_PACKET
        exact = plain and len(_moving(container)) == 1 and _closed_groups(times, keys)
        shown = [time for time in times if time is not None]
        aspect = stream.sample_aspect_ratio or context.sample_aspect_ratio or Fraction(1)
        height, width = displayed_size(path, first, aspect)
        index = PacketIndex(
            path=path,
            codec=codec,
            fps=float(stream.average_rate or stream.guessed_rate or "nan"),
            height=height,
            width=width,
            aspect=aspect,
            orientation=orientation(path, first),
            packets=len(times),
            shown=tuple(sorted(shown)) if exact else (),
            keys=tuple(shown[key] for key in keys) if exact else (),
            tick=float(stream.time_base or 0),
            exact=exact,
            jumps=exact and proof.alone,
        )
        return Film(index, context, packets) if index.jumps and size <= HELD else Film(index, None, [])


def _picture_of(packet: av.Packet, context: av.VideoCodecContext) -> av.VideoFrame | None:
    """The picture that this packet gives, or an earlier one; of a key frame at once, without waiting for others."""
    found = packet.decode()
    if not found and packet.is_keyframe and packet.size and not packet.is_discard:
        found = context.decode(None)
        context.flush_buffers()
    return found[0] if found else None


def pictures(path: Path) -> Iterator[av.VideoFrame]:
    """Decode every frame in the order shown; VideoError at the first damaged byte that the codec notices."""
    with open_video(path) as (container, stream):
        yield from container.decode(stream)


@contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The file and its video stream, with one thread; every error of FFmpeg becomes a VideoError."""
    import av

    _check_readable(path)
    # Only an absolute path cannot be taken for an address ("clip:1.mp4").
    with ffmpeg_errors(path), av.open(str(path.absolute()), metadata_errors="ignore") as container:
        if container.format.name in NOT_VIDEO:
            raise VideoError(path, f"not a video but text or a list of other files ({container.format.name})")
        if container.format.name.endswith("_pipe"):  # FFmpeg's readers of single pictures, by what they hold
            raise VideoError(path, f"not a video but a still picture ({container.format.name[:-5]})")
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or stream not in _moving(container):
            stream = next(iter(_moving(container)), None)
        if stream is None:
            kinds = {"a cover picture" if s.type == "video" else s.type for s in container.streams}
            held = ", ".join(sorted(kinds))
            raise VideoError(path, f"no video stream, only {held}" if held else f"cut short, no stream; {ANEW}")
        stream.codec_context.thread_count = 1
        # Otherwise damaged pictures are patched from their neighbours and shown as if nothing were wrong.
        stream.codec_context.options = {"err_detect": "explode", "max_pixels": str(MOST_PIXELS)}
        yield container, stream


@contextmanager
def ffmpeg_errors(path: Path) -> Iterator[None]:
    """Every error of FFmpeg becomes a VideoError that names the file."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        if error.errno == ENOMEM and _memory_left():
            raise VideoError(path, f"damaged: asks for more memory than any video needs; {ANEW}") from error
        if error.errno in MACHINE:
            raise MachineError(path, f"cannot be read ({error.strerror})") from error
        if error.errno == EIO:  # FFmpeg says so of cut files and of failing disks
            _check_readable(path, whole=True)
        raise VideoError(path, f"not a video, cut short or damaged ({error.strerror}); {ANEW}") from error


def _moving(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The video streams that are not the cover of a piece of music, or thumbnails."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & still]


def _memory_left(size: int = 2**30) -> bool:
    """Whether this process may have another GiB; then what was refused to a decoder was beyond reason."""
    try:
        np.empty(size, np.uint8)
    except MemoryError:
        return False
    return True


def _check_readable(path: Path, whole: bool = False) -> None:
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise VideoError(path, "not a file")
        if state.st_size == 0:
            raise VideoError(path, f"empty file; {ANEW}")
        with path.open("rb") as file:
            while whole and file.read(2**20):
                pass
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError(path, "no such file") from None
    except OSError as error:
        raise MachineError(path, f"cannot be read ({error.strerror})") from error


def _closed_groups(times: list[int | None], keys: list[int]) -> bool:
    """Whether each key frame is shown after all that precede it in the file and before all that follow."""
    if None in times or not keys or keys[0] != 0 or len(set(times)) != len(times):
        return False
    shown = np.array(times)
    latest = np.maximum.accumulate(shown)
    earliest = np.minimum.accumulate(shown[::-1])[::-1]
    return all(earliest[k] == shown[k] and (k == 0 or latest[k - 1] < shown[k]) for k in keys)
