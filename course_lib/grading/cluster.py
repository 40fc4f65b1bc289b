"""Marking by the workers of a dask cluster that is there already, on other machines too: `course grade --scheduler`.

All that a task needs travels in it, the notebook and the private part of the release, so that is never sent in clear
from one machine to another: loopback or TLS. What marks is the `Marker` of the local pool. A worker that is lost loses
nothing: the scheduler gives its submission to the next one.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from course_lib.grading import answers, run
from course_lib.grading import box as boxes
from course_lib.grading.box import NoSafeBox, Sandbox
from course_lib.grading.extract import SubmissionError
from course_lib.grading.handed import Notebook, read_notebook
from course_lib.grading.manifest import PRIVATE, Manifest, Release
from course_lib.grading.results import file_of
from course_lib.grading.run import Marker, Plan, Task
from course_lib.grading.source import HomeworkError

ALLOWED_FAILURES = 2  # of workers, over one submission, before a person has to look
CONNECT = 60.0  # seconds until a scheduler, and until a worker is there
SLOTS = 1000  # boxes that one machine may hold at a time


def distributed() -> ModuleType:
    """The optional package. HomeworkError says how it is installed."""
    try:
        import distributed as found
    except ImportError:
        raise HomeworkError("--scheduler needs dask: python -m pip install 'course_lib[cluster]'") from None
    return found


def check_address(address: str) -> None:
    """HomeworkError unless it is a TLS address or one of this machine."""
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        scheme, host, port = "", "", None
    if not host or port is None or scheme not in ("tcp", "tls"):
        raise HomeworkError(f"{address!r} is no address of a scheduler: tls://HOST:PORT or tcp://127.0.0.1:PORT")
    if scheme == "tls" or host == "localhost":
        return
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    raise HomeworkError(
        f"{address} is neither TLS nor of this machine: submissions and what is hidden would travel in clear; "
        "give the scheduler certificates (tls://HOST:PORT), or reach it through a tunnel at 127.0.0.1"
    )


def connect(address: str) -> Any:
    """A client of the scheduler. HomeworkError if it is not there, has no worker, or would send in clear."""
    check_address(address)
    dask = distributed()
    try:
        client = dask.Client(address, timeout=CONNECT, set_as_default=False, name="course-grade")
    except (OSError, TimeoutError, TypeError, ValueError) as error:  # TypeError: TLS without certificates
        why = str(error) or type(error).__name__
        raise HomeworkError(f"no scheduler answers at {address}: {why.splitlines()[0][:200]}") from error
    try:
        check_address(client.scheduler_info()["address"])  # it may listen to other machines too
        client.wait_for_workers(1, timeout=CONNECT)
    except TimeoutError:
        client.close()
        raise HomeworkError(f"the scheduler at {address} has no workers: start some") from None
    except BaseException:
        client.close()
        raise
    return client


# On a worker


@dataclass(frozen=True)
class Parcel:
    """One submission with all that marks it. `release`: {path in the release: content}."""

    plan: Plan
    task: Task
    environment: Mapping[str, str]
    release: Mapping[str, bytes]
    notebook: Notebook
    answers: bytes  # what it answered before, packed


_one_at_a_time = threading.Lock()  # a process may have several threads, and random numbers are drawn in one order
_markers: dict[str, Marker] = {}


def mark(parcel: Parcel) -> tuple[str, Any]:
    """What became of it.

    "done" and the result; "failed" and a class, the grader's own fault; "unable" and a sentence, which ends the run.
    """
    with _one_at_a_time:
        try:
            marker = _marker(parcel)
        except (HomeworkError, NoSafeBox) as error:
            return "unable", f"{socket.gethostname()}: {error}"
        with _folder("sub") as folder:
            place = folder / "in" / parcel.notebook.path
            place.parent.mkdir(parents=True)
            place.write_bytes(parcel.notebook.content)
            if parcel.answers:
                answers.write(folder / "out", parcel.task.student, parcel.answers)
            marker.plan = replace(
                marker.plan, submissions=folder / "in", out=folder / "out", questions=parcel.plan.questions
            )
            return run.answer(marker, parcel.task)


def _folder(what: str) -> tempfile.TemporaryDirectory:
    """Of this process, 0700; `boxes.sweep` removes it if the process is killed."""

    class Folder(tempfile.TemporaryDirectory):
        def __enter__(self) -> Path:  # type: ignore[override]
            return Path(self.name)

    path = Path(boxes.PREFIX)
    return Folder(prefix=f"{path.name}{os.getpid()}-{what}-", dir=path.parent)


def _marker(parcel: Parcel) -> Marker:
    """The one that this process keeps, while release, limits and box are the same."""
    about = [parcel.plan.profile, parcel.plan.sandbox, parcel.plan.limits, sorted(parcel.release.items())]
    key = hashlib.sha256(repr(about).encode()).hexdigest()
    if key in _markers:
        return _markers[key]
    if parcel.environment != run.environment():
        differ = [name for name, version in run.environment().items() if parcel.environment.get(name) != version]
        raise HomeworkError(f"another {', '.join(differ) or 'set of packages'} than where the grader was started")
    if parcel.plan.sandbox != boxes.NONE and boxes.find_sandbox() != parcel.plan.sandbox:
        raise HomeworkError(f"another box than the other workers ({parcel.plan.sandbox.name})")
    boxes.sweep()
    import torch

    torch.set_num_threads(1)
    folder = _folder("release")
    root = Path(folder.name)
    for path, content in parcel.release.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    plan = replace(parcel.plan, release=root, submissions=root, out=root / "out")
    marker = Marker(plan, _slot())
    for path in parcel.release:  # what is hidden is in memory now
        if path.startswith(f"{PRIVATE}/"):
            (root / path).unlink()
    for old in _markers.values():
        old.end()
    _markers.clear()
    vars(marker)["folder"] = folder  # as long as the marker
    _markers[key] = marker
    return marker


@functools.cache
def _slot() -> int:
    """The number of this process among those of its machine that hold boxes; with it goes the uid of its boxes."""
    for number in range(SLOTS):
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0course-grade-slot-{number}")
        except OSError:  # another has it
            lock.close()
        else:
            _held.append(lock)
            return number
    raise HomeworkError(f"{SLOTS} boxes are on this machine already")


_held: list[socket.socket] = []  # held until the process ends


def _box_here() -> tuple[Sandbox | None, str]:
    try:
        return boxes.find_sandbox(), ""
    except NoSafeBox as error:
        return None, str(error)


# Where the grader was started


def find_sandbox(address: str) -> Sandbox:
    """The box of the workers. NoSafeBox if one has none; HomeworkError if they have not the same."""
    with connect(address) as client:
        try:
            found = client.run(_box_here)
        except OSError as error:
            raise HomeworkError(
                f"a worker of {address} ended while it tried its box: the same command again"
            ) from error
    for worker, (sandbox, why) in found.items():
        if sandbox is None:
            raise NoSafeBox(f"{worker}: {why}")
    kinds = {sandbox.name: sandbox for sandbox, _ in found.values() if sandbox}
    if len(kinds) != 1:
        raise HomeworkError(f"the workers have not the same box ({'; '.join(sorted(kinds))}): marks would not compare")
    return next(iter(kinds.values()))


def packed(folder: Path) -> dict[str, bytes]:
    """What a worker needs of a release: its private part, and the files that students get."""
    manifest = Manifest.read(folder / PRIVATE / "manifest.json")
    paths = [f"{PRIVATE}/{name}" for name in ("manifest.json", "key", *manifest.private)]
    paths += [f"student/{name}" for name in manifest.files if name != f"{manifest.homework}.ipynb"]
    return {path: (folder / path).read_bytes() for path in paths}


def pool(plan: Plan, tasks: Sequence[Task]) -> Iterator[tuple[Task, dict[str, Any] | str]]:
    """Mark the tasks on the cluster; a result each, or why there is none. See `run.pool`.

    Twice as many tasks as threads are under way: the scheduler holds no whole class.
    """
    release, waiting = Release.read(plan.release), list(reversed(tasks))
    content, homework = packed(plan.release), release.manifest.homework
    dask = distributed()
    with connect(plan.scheduler) as client:
        client.run_on_scheduler(_give_up_after, failures=ALLOWED_FAILURES)
        given: dict[Any, Task] = {}
        done = dask.as_completed(loop=client.loop)
        try:
            while waiting or given:
                while waiting and len(given) < max(2, 2 * sum(client.nthreads().values())):
                    task = waiting.pop()
                    try:
                        notebook = read_notebook(plan.submissions, task.student, homework)
                    except SubmissionError as error:
                        blank = run.unmarked(release, run.asked_of(release, plan, task), str(error), "submission")
                        yield task, run.result_of(release, plan, task, blank)
                        continue
                    before = answers.read(plan.out, task.student)
                    parcel = Parcel(plan, task, run.environment(), content, notebook, before)
                    future = client.submit(mark, parcel, key=_key(plan, task), pure=False)
                    given[future] = task
                    done.add(future)
                if given:
                    future = next(done)
                    yield given.pop(future), _result(future, plan.scheduler)
        finally:
            with suppress(Exception):  # the scheduler may be gone, which is told already
                client.cancel(list(given))


def _result(future: Any, address: str) -> dict[str, Any] | str:
    if future.status not in ("finished", "error"):
        raise HomeworkError(f"the scheduler at {address} is gone; the same command goes on from here")
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        return f"{ALLOWED_FAILURES + 1} workers ended while they marked this: the grader's own fault"
    if error is not None:
        raise HomeworkError(f"a worker of {address} stops with {type(error).__name__}: is the same course there?")
    what, found = future.result()
    future.release()
    if what == "unable":
        raise HomeworkError(f"a worker cannot mark: {found}")
    return found if what == "done" else run.own_fault(found)


def _key(plan: Plan, task: Task) -> str:
    asked = json.dumps([task.key, task.questions or plan.questions, task.attempt])
    return f"course-grade-{file_of(task.student)}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}"


def _give_up_after(failures: int, dask_scheduler: Any = None) -> None:
    dask_scheduler.allowed_failures = failures
