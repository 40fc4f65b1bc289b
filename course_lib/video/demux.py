"""What a video file says about itself before its pictures are decoded; read with PyAV."""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    import av

MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"  # FFmpeg's names; Matroska includes WebM
ONE_PICTURE_A_PACKET = ("h264", "hevc", "vp9", "av1")
# FFmpeg also "plays" plain text and lists of other files: neither is the clip that was asked for.
NOT_VIDEO = ("concat", "dash", "hls", "image2", "tty")
ANEW = "fetch or make it again"
MOST_PIXELS = 8192 * 4320  # of one picture; a damaged header can ask for gigabytes


class VideoError(Exception):
    """A file that cannot be read as video; `.path` and `.reason` say which and why."""

    def __init__(self, path: str | Path, reason: str | None = None):
        if reason is None:
            # A DataLoader re-raises a worker's error as type(error)("...traceback... VideoError: path: reason").
            path, _, reason = re.split(r"\b(?:Video|Machine)Error: ", str(path))[-1].strip().partition(": ")
        super().__init__(path, reason)
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class MachineError(VideoError):
    """A file that could not be read here and now, for a reason that is not in the file: no permission, too many open
    files, a full or failing disk, too little memory or time. Trying again may help; it is no verdict on the file."""


MACHINE = {
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ESTALE,
}


@dataclass(frozen=True)
class PacketIndex:
    """The packets of one video stream, counted; height and width in pixels as displayed, fps the rate that the file
    claims, turns the quarter turns from stored to displayed, bits those of one colour of one pixel.

    `exact` promises that counting packets is counting frames, and that every key frame is a fresh start: `shown` are
    then the time stamps of all frames in the order in which they are shown, `keys` those of the key frames, and a
    time stamp is worth `tick` seconds.
    """

    path: Path
    codec: str
    bits: int
    fps: float
    height: int
    width: int
    turns: int
    packets: int
    shown: tuple[int, ...]
    keys: tuple[int, ...]
    tick: float
    exact: bool


def index_packets(path: Path) -> PacketIndex:
    """Read every packet of a file and decode its first picture; VideoError if it is no video, cut short or damaged."""
    with open_video(path) as (container, stream):
        context, kind = stream.codec_context, container.format.name
        codec = context.codec.canonical_name
        times: list[int | None] = []
        keys: list[int] = []
        plain, first = True, None
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise VideoError(path, f"cut short or damaged after {len(times)} frames; {ANEW}")
            if first is None:
                first = _picture_of(packet, context)
            if packet.size == 0 and packet.dts is None:  # marks the end
                continue
            if packet.is_keyframe:
                keys.append(len(times))
                plain = plain and (codec != "h264" or _has_idr(bytes(packet), context.extradata))
            times.append(packet.pts)
            plain = plain and packet.size > 0 and not packet.is_discard  # an edit list hides frames
        if _ends_early(path, kind):
            raise VideoError(path, f"cut short or damaged after {len(times)} frames; {ANEW}")
        if first is None:
            raise VideoError(path, f"no frame can be decoded; {ANEW}")
        plain = plain and kind in (MP4, MATROSKA) and codec in ONE_PICTURE_A_PACKET
        exact = plain and len(container.streams.video) == 1 and _closed_groups(times, keys)
        shown = [time for time in times if time is not None]
        size, turns = (first.height, first.width), quarter_turns(first)
        return PacketIndex(
            path=path,
            codec=codec,
            bits=max(component.bits for component in first.format.components),
            fps=float(stream.average_rate or stream.guessed_rate or "nan"),
            height=size[turns % 2],
            width=size[1 - turns % 2],
            turns=turns,
            packets=len(times),
            shown=tuple(sorted(shown)) if exact else (),
            keys=tuple(shown[key] for key in keys) if exact else (),
            tick=float(stream.time_base or 0),
            exact=exact,
        )


def _picture_of(packet: av.Packet, context: av.VideoCodecContext) -> av.VideoFrame | None:
    """The picture that this packet gives, or an earlier one; of a key frame at once, without waiting for others."""
    found = packet.decode()
    if not found and packet.is_keyframe and packet.size:
        found = context.decode(None)
        context.flush_buffers()
    return found[0] if found else None


def pictures(path: Path) -> Iterator[av.VideoFrame]:
    """Decode every frame in the order shown; VideoError at the first damaged byte that the codec notices."""
    with open_video(path) as (container, stream):
        yield from container.decode(stream)


def quarter_turns(picture: av.VideoFrame) -> int:
    """How often to turn a stored picture counter-clockwise by 90 degrees to see it as a player shows it."""
    return round(picture.rotation / 90) % 4


@contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The file and its video stream, with one thread; every error of FFmpeg becomes a VideoError."""
    import av

    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise VideoError(path, "not a file")
        if state.st_size == 0:
            raise VideoError(path, f"empty file; {ANEW}")
        with path.open("rb"):
            pass
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError(path, "no such file") from None
    except OSError as error:
        raise MachineError(path, f"cannot be opened ({error.strerror})") from error
    try:
        # Only an absolute path cannot be taken for an address ("clip:1.mp4").
        with av.open(str(path.absolute()), metadata_errors="ignore") as container:
            if container.format.name in NOT_VIDEO:
                raise VideoError(path, f"not a video but text or a list of other files ({container.format.name})")
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                held = ", ".join(sorted({s.type for s in container.streams}))
                raise VideoError(path, f"no video stream, only {held}" if held else f"cut short, no stream; {ANEW}")
            stream.codec_context.thread_count = 1
            # Otherwise damaged pictures are patched from their neighbours and shown as if nothing were wrong.
            stream.codec_context.options = {"err_detect": "explode", "max_pixels": str(MOST_PIXELS)}
            yield container, stream
    except av.error.FFmpegError as error:
        if error.errno in MACHINE:
            raise MachineError(path, f"cannot be read ({error.strerror})") from error
        raise VideoError(path, f"not a video, cut short or damaged ({error.strerror}); {ANEW}") from error


def _closed_groups(times: list[int | None], keys: list[int]) -> bool:
    """Whether each key frame is shown after all that precede it in the file and before all that follow."""
    if None in times or not keys or keys[0] != 0 or len(set(times)) != len(times):
        return False
    shown = np.array(times)
    latest = np.maximum.accumulate(shown)
    earliest = np.minimum.accumulate(shown[::-1])[::-1]
    return all(earliest[k] == shown[k] and (k == 0 or latest[k - 1] < shown[k]) for k in keys)


def _has_idr(packet: bytes, extradata: bytes | None) -> bool:
    """Whether an H.264 key frame forgets all before it; others mend the picture strip by strip (intra refresh)."""
    if not extradata or len(extradata) < 5 or extradata[0] != 1:  # units not framed as in MP4 (ISO/IEC 14496-15)
        return False
    at, size = 0, (extradata[4] & 3) + 1
    while at + size < len(packet):
        kind = packet[at + size] & 31
        if kind in (1, 5):  # a slice of an ordinary picture, of an IDR picture
            return kind == 5
        at += size + int.from_bytes(packet[at : at + size])
    return False


def _ends_early(path: Path, kind: str) -> bool:
    """Whether a file is shorter than its own parts announce, in the formats that do."""
    length = path.stat().st_size
    with path.open("rb") as file:
        if kind == "gif":
            file.seek(-1, 2)
            return file.read(1) != b";"
        if kind == MATROSKA:
            return _segment_end(file.read(4096)) > length
        return kind == MP4 and _boxes_end(file, length) > length


def _boxes_end(file: BinaryIO, length: int) -> int:
    """Where the last of an MP4's boxes ends (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at < length:
        file.seek(at)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4]), head[4:8]
        if size == 0 or kind not in (b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"free", b"skip", b"wide"):
            return length  # the rest of the file, or none of ours
        at += int.from_bytes(head[8:16]) if size == 1 else size
    return at


def _segment_end(head: bytes) -> int:
    """Where a Matroska file's segment, which holds all else, ends (RFC 8794); 0 if it does not say."""
    at = head.find(b"\x18\x53\x80\x67") + 4
    if not 4 <= at < len(head):
        return 0
    # The zeros in front of a length's first one-bit tell how many bytes it takes; all ones: unknown.
    size = 9 - head[at].bit_length()
    unknown = (1 << 7 * size) - 1
    length = int.from_bytes(head[at : at + size]) & unknown
    return 0 if length == unknown else at + size + length
