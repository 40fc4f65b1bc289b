"""A process between us and the decoders: if one hangs or crashes on a bad file, that file alone is lost.

Each thread that reads video keeps one such process. It is asked by a line of JSON and answers with a line of JSON,
followed by the pixels if any. No answer in time, and it is killed; the next file gets a new one.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from course_lib.video import decode
from course_lib.video.decode import VideoInfo
from course_lib.video.errors import MachineError, VideoError

LONGEST = 2000  # requests that one process answers: decoders lose some 3 kB a file
MEMORY = 8 * 2**30  # bytes of address space that decoding one file may take beyond those of a process at rest


def probe(path: str | Path, seconds: float = 60.0) -> VideoInfo:
    """Count the frames of a video by its packets, or by decoding all where packets do not tell.

    Raises:
        VideoError: the file cannot be read, is cut short, or crashes its decoder.
        MachineError: (a VideoError) it could not be read here and now; no answer within `seconds` is one.
    """
    answer, _ = _ask("probe", path, seconds)
    return VideoInfo(**answer | {"path": Path(path), "times": tuple(answer["times"])})


def read_frames(
    path: str | Path, indices: Sequence[int] | np.ndarray, seconds: float = 60.0
) -> UInt8[np.ndarray, "T H W 3"]:
    """Read the frames with these numbers, in the order asked (repeats allowed), as RGB.

    Each call opens the file anew, with one thread: safe in DataLoader workers, forked or spawned.

    Raises:
        VideoError: the file cannot be read, is cut short, or crashes its decoder.
        MachineError: (a VideoError) it could not be read here and now; no answer within `seconds` is one.
        ValueError: no index, an index that is no whole number, or one that the file does not have.
    """
    asked = np.asarray(indices)
    if asked.size == 0:
        raise ValueError(f"{path}: no frame asked for; give at least one index")
    if asked.ndim != 1 or asked.dtype.kind not in "iu":
        raise ValueError(f"{path}: frame indices must be a list of whole numbers, not {indices!r}")
    answer, frames = _ask("read_frames", path, seconds, indices=asked.tolist())
    return np.frombuffer(frames, np.uint8).reshape(answer["shape"])


def check(path: str | Path, seconds: float = 60.0) -> str | None:
    """Decode every frame of a file; the problem in words, or None.

    Stricter than `read_frames`: any damage that the codec notices counts. Costs the decoding of the whole file.

    Raises:
        MachineError: it could not be checked here and now, which says nothing about the file.
    """
    try:
        return _ask("check", path, seconds)[0]["problem"]
    except MachineError:
        raise
    except VideoError as crash:
        return str(crash)


def transcode(path: str | Path, target: Path, short_side: int, seconds: float, keys: int = 250, crf: int = 18) -> bool:
    """Write a smaller copy of a video, see `course_lib.video.transcode`; False if it is that small already."""
    arguments = {"target": os.path.abspath(target), "short_side": short_side, "keys": keys, "crf": crf}
    return _ask("transcode", path, seconds, **arguments)[0]["written"]


# This side


class DecodeWorker:
    """One process, and the pipes to and from it."""

    def __init__(self):
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); "
        code += "from course_lib.video.worker import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what a terminal or torchrun sends to all is for the one who asks
        )
        self.owner, self.asked = os.getpid(), 0
        self.close = weakref.finalize(self, _end, self.process, self.owner)

    def ask(self, request: dict) -> tuple[dict, bytearray]:
        """TimeoutError if there is no answer within request["seconds"], EOFError if the process dies."""
        self.asked += 1
        until = time.monotonic() + request["seconds"]
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise EOFError from None
        head = int.from_bytes(self._receive(4, until))
        answer = json.loads(self._receive(head, until))
        return answer, self._receive(answer.pop("bytes"), until)

    def _receive(self, size: int, until: float) -> bytearray:
        pipe, content, done = self.process.stdout.fileno(), bytearray(size), 0
        while done < size:
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            got = os.readv(pipe, [memoryview(content)[done:]])
            if not got:
                raise EOFError
            done += got
        return content


def _end(process: subprocess.Popen, owner: int) -> None:
    if os.getpid() == owner:  # a forked DataLoader worker holds a copy of what is not its own
        process.kill()
        process.communicate()


_kept = threading.local()
# Signals by which a decoder's own fault ends it, and so a file's; any other (SIGKILL when memory is short) is sent.
CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGBUS}


def _ask(call: str, path: str | Path, seconds: float, **arguments: object) -> tuple[dict, bytearray]:
    """Have a function of that name called in the process, of `decode` or `transcode`; its answer, and the pixels."""
    worker = getattr(_kept, "worker", None)
    if worker is not None and worker.owner != os.getpid():
        _kept.of_the_parent, worker = worker, None  # kept, since it is not ours to end
    if worker is not None and worker.asked >= LONGEST:
        worker.close()
    if worker is None or worker.process.poll() is not None:
        worker = _kept.worker = _start(path)
    request = {"call": call, "path": os.path.abspath(path), "seconds": seconds, "arguments": arguments}
    try:
        answer, content = worker.ask(request)
    except TimeoutError:
        worker.close()
        late = f"no answer within {seconds:g} s: the decoder hangs, or the file is long (raise `seconds`)"
        raise MachineError(path, late) from None
    except EOFError:
        died = worker.process.wait()
        worker.close()
        how = signal.Signals(-died).name if died < 0 else f"exit {died}"
        kind = VideoError if -died in CRASHES else MachineError
        raise kind(path, f"the process that decoded it died ({how})") from None
    except BaseException:  # Ctrl-C: the answer that is under way belongs to nobody
        worker.close()
        raise
    if "refusal" in answer:
        kind = MachineError if answer["machine"] else VideoError
        raise kind(path, answer["refusal"])
    for words in ("mistake", "problem"):
        if answer.get(words):
            answer[words] = answer[words].replace(request["path"], os.fspath(path), 1)
    if "mistake" in answer:
        raise ValueError(answer["mistake"])
    return answer, content


def _start(path: str | Path) -> DecodeWorker:
    try:
        return DecodeWorker()
    except OSError as error:  # no file descriptor, process or memory left
        raise MachineError(path, f"no process to decode it ({error.strerror})") from error


# The other side


def serve() -> None:
    """Answer requests until the pipe is closed."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what decoders print is no answer
    for asked in (signal.SIGINT, signal.SIGTERM):  # so does Slurm, to every process of a job
        signal.signal(asked, signal.SIG_IGN)
    _limit_memory()
    for line in questions:
        request = json.loads(line)
        # Ends this process even inside a decoder that hangs after the one who asked is gone.
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + 1)
        answer, content = _answer(request)
        head = json.dumps(answer | {"bytes": len(content)}).encode()
        answers.write(len(head).to_bytes(4) + head)
        answers.write(content)
        answers.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(request: dict) -> tuple[dict, memoryview | bytes]:
    path, arguments = Path(request["path"]), request["arguments"]
    try:
        match request["call"]:
            case "probe":
                return asdict(decode.probe(path)) | {"path": str(path)}, b""
            case "read_frames":
                frames = np.ascontiguousarray(decode.read_frames(path, **arguments))
                return {"shape": frames.shape}, frames.reshape(-1).data
            case "check":
                return {"problem": decode.check(path)}, b""
            case "transcode":
                from course_lib.video.transcode import transcode

                return {"written": transcode(path, **arguments)}, b""
            case other:
                raise KeyError(other)
    except VideoError as error:
        return {"refusal": error.reason, "machine": isinstance(error, MachineError)}, b""
    except ValueError as error:
        return {"mistake": str(error)}, b""
    except MemoryError:
        much = f"decoding it needs more than {MEMORY / 2**30:.0f} GiB; ask for fewer frames at once"
        return {"refusal": much, "machine": True}, b""
    except OSError as error:
        return {"refusal": f"cannot be read here ({error.strerror or error})", "machine": True}, b""
    except Exception as error:  # a file can bring a decoder to raise anything
        return {"refusal": f"cannot be decoded ({type(error).__name__}: {error})", "machine": False}, b""


def _limit_memory() -> None:
    if sys.platform != "linux":  # elsewhere the limit is missing or without effect
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
