"""Frames from video files: the right ones, or a VideoError that says why not.

decord, which most papers' code uses, finds frame i by counting packets and jumping to key frames. That is exact only
if a packet is a picture and each key frame is a fresh start; elsewhere it returns other frames and says nothing: seen
with open groups of pictures (frame 61 for frame 79), MPEG-4 in AVI, WMV, MPEG-TS, H.264 with intra refresh and MP4
with an edit list. So PyAV first lists the packets without decoding them, and decord reads only

- MP4, MOV, Matroska or WebM files with one video stream of H.264, HEVC or VP9, 8 bits a colour, stored upright,
- whose timestamps are all known, distinct and shown, and whose key frames each start a closed group (H.264: an IDR).

Every other file is decoded by PyAV from its first frame on, and `VideoInfo.decoder` says so. Where both may read,
they give the same bytes, so that no result depends on which is installed. Frames are counted in the order in which
they are shown, turned as a player turns them, with the pixels as stored (never resized).

PyAV stops at damaged bytes. decord stops at some and shows a patched picture at others; `check` finds these, and
a data set whose manifest has SHA-256 sums finds any change at all.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from course_lib.video.packets import ANEW, Listing, VideoError, list_packets, pictures, quarter_turns

__all__ = ["VideoError", "VideoInfo", "check", "probe", "read_frames"]

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds: height, width in pixels as displayed; fps, the mean rate; decoder, "decord" or "pyav"."""

    path: Path
    frames: int
    fps: float
    height: int
    width: int
    decoder: str


def probe(path: str | Path, seconds: float = 60.0) -> VideoInfo:
    """Count the frames of a video by its packets, or by decoding all where packets do not tell.

    Raises:
        VideoError: the file cannot be read, is cut short, or gave no answer within `seconds`.
    """

    def work() -> VideoInfo:
        found = list_packets(Path(path))
        frames = found.packets if found.exact else sum(1 for _ in pictures(found.path))
        return VideoInfo(found.path, frames, found.fps, found.height, found.width, _decoder_for(found))

    return _within(seconds, path, work)


def read_frames(
    path: str | Path, indices: Sequence[int] | np.ndarray, seconds: float = 60.0
) -> UInt8[np.ndarray, "T H W 3"]:
    """Read the frames with these numbers, in the order asked (repeats allowed), as RGB.

    Each call opens the file anew, with one thread: safe in DataLoader workers, forked or spawned.

    Raises:
        VideoError: the file cannot be read, is cut short, or gave no answer within `seconds`.
        ValueError: no index, an index that is no whole number, or one that the file does not have.
    """
    asked = np.asarray(indices)
    if asked.size == 0:
        raise ValueError(f"{path}: no frame asked for; give at least one index")
    if asked.ndim != 1 or asked.dtype.kind not in "iu":
        raise ValueError(f"{path}: frame indices must be a list of whole numbers, not {indices!r}")
    wanted, place = np.unique(asked, return_inverse=True)

    def work() -> np.ndarray:
        found = list_packets(Path(path))
        if wanted[0] < 0 or (found.exact and wanted[-1] >= found.packets):
            raise _out_of_range(wanted, probe(path, seconds))
        if _decoder_for(found) == "decord":
            return _read_with_decord(found, wanted)[place]
        return _read_with_pyav(found, wanted)[place]

    return _within(seconds, path, work)


def check(path: str | Path, seconds: float = 60.0) -> str | None:
    """Decode every frame of a file in a process of its own; the problem in words, or None.

    Stricter than `read_frames`: any damage that the codec notices counts. A decoder that hangs or crashes is a problem
    like any other. Costs the start of a process (about half a second) and the decoding of the whole file.
    """
    code = "import sys; from course_lib.video import decode; decode._examine(sys.argv[1])"
    command = [sys.executable, "-c", code, str(path)]
    try:
        child = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"{path}: no answer within {seconds:g} s: the decoder hangs, or the file is long (raise `seconds`)"
    if child.returncode == 0:
        return child.stdout.decode() or None
    last_words = " ".join(child.stderr.decode(errors="replace").splitlines()[-1:])
    return f"{path}: the process that decoded it died (exit {child.returncode}) {last_words}".rstrip()


def _examine(path: str) -> None:
    try:
        info = probe(path, seconds=1e6)
        sizes = [(picture.height, picture.width) for picture in pictures(Path(path))]
        if len(sizes) != info.frames:
            raise VideoError(path, f"lists {info.frames} frames, {len(sizes)} decode; {ANEW}")
        if len(set(sizes)) > 1:
            raise VideoError(path, f"frames change their size {sorted(set(sizes))}; encode it again")
        read_frames(path, [0, info.frames // 2, info.frames - 1], seconds=1e6)
    except VideoError as problem:
        sys.stdout.buffer.write(str(problem).encode())


def _decoder_for(found: Listing) -> str:
    # decord cannot read AV1 nor turn pictures of every width, and rounds the colours of 10 bits otherwise than PyAV.
    if not found.exact or found.codec not in ("h264", "hevc", "vp9") or found.bits != 8 or found.turns:
        return "pyav"
    try:
        import decord  # noqa: F401
    except ImportError:  # no wheel for this machine
        return "pyav"
    return "decord"


def _read_with_decord(found: Listing, wanted: np.ndarray) -> np.ndarray:
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


def _read_with_pyav(found: Listing, wanted: np.ndarray) -> np.ndarray:
    frames, last = [], int(wanted[-1])
    for number, picture in enumerate(islice(pictures(found.path), last + 1)):
        if number == wanted[len(frames)]:
            frames.append(np.rot90(picture.to_ndarray(format="rgb24"), quarter_turns(picture)))
    if len(frames) < len(wanted):
        if found.exact:
            raise VideoError(found.path, f"lists {found.packets} frames, frame {last} is missing; {ANEW}")
        raise _out_of_range(wanted, probe(found.path))
    sizes = sorted({frame.shape[:2] for frame in frames})
    if len(sizes) > 1:
        raise VideoError(found.path, f"frames change their size {sizes}; encode it again")
    return np.stack(frames)


def _out_of_range(wanted: np.ndarray, info: VideoInfo) -> ValueError:
    wrong = next(int(i) for i in wanted if not 0 <= i < info.frames)
    held = f"the file has {info.frames} frames: use 0 to {info.frames - 1}"
    return ValueError(f"{info.path}: frame {wrong} asked for, but {held}")


def _within(seconds: float, path: str | Path, work: Callable[[], Answer]) -> Answer:
    """Do the work in a thread, and leave that thread behind if it gives no answer in time.

    A call inside a decoder cannot be interrupted, but decoders release Python's lock, so the caller can go on. The
    stuck thread lives until the process ends; `check` kills instead.
    """
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        late = f"no answer within {seconds:g} s: the decoder hangs, or the file is long (raise `seconds`)"
        raise VideoError(path, late) from None
    if error is not None:
        raise error
    return answer
