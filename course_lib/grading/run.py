"""Many submissions: a plan, processes that mark, and results that are whole or not there.

A result has a key made of all that it depends on. Killed at any moment, the same command goes on: what has its key
already is left as it is. A worker that dies takes its box with it, and its submission is marked by the next one.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from course_lib.files import sha256
from course_lib.grading import answers, results
from course_lib.grading import box as boxes
from course_lib.grading import judge as judging
from course_lib.grading.answers import Answers
from course_lib.grading.books import write_changes, write_gradebook
from course_lib.grading.box import Box, Sandbox
from course_lib.grading.extract import SubmissionError, shown
from course_lib.grading.handed import Handed, read_notebook, read_submission, students_in
from course_lib.grading.kernels import Kernels, NotForked
from course_lib.grading.manifest import Limits, Manifest, Question, Release
from course_lib.grading.results import SCHEMA, About, file_of, read_result, store
from course_lib.grading.source import HomeworkError

PACKAGES = ("torch", "numpy", "einops", "safetensors", "ipykernel", "papermill")
SPENT = {  # what a machine has none of any more, and so every submission stops with: what helps
    errno.ENOSPC: "make room there", errno.EDQUOT: "make room there", errno.ENOMEM: "give fewer --workers",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close what holds so many files open",
}  # fmt: skip
DEATHS = 2  # of workers, over one submission, before a person has to look


@dataclass(frozen=True)
class Plan:
    """What a run of the grader is to do."""

    release: Path
    submissions: Path
    out: Path
    sandbox: Sandbox
    limits: Limits
    profile: str = "smoke"
    questions: tuple[str, ...] = ()
    retries: int = 1
    scheduler: str = ""  # the address of a dask cluster that marks in place of processes here


@dataclass(frozen=True)
class Task:
    """One submission to mark. `site`, `id`: of a download, where it comes from and the number the student has there."""

    student: str
    key: str = ""
    problem: str = ""  # why it cannot be read
    questions: tuple[str, ...] = ()  # those of the plan if none
    attempt: int = 1
    deaths: int = 0
    again: bool = False  # whatever it answered before
    site: str = ""
    id: str = ""
    notes: tuple[str, ...] = ()  # what else he has handed in


@dataclass(frozen=True)
class Summary:
    """What a run came to."""

    students: int
    done: int  # in this run
    not_graded: int  # questions
    seconds: float
    unread: tuple[str, ...] = ()  # what lies in the folder of submissions and is none
    changed: int = 0  # marks that are not what they were
    fallen: tuple[str, ...] = ()  # those of them that are lower now, or open again
    own_faults: int = 0  # questions over which the grader itself stopped


def environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def key_of(release: Release, plan: Plan, student: str, sha256: str) -> str:
    """The sum of all that a result depends on."""
    parts = [release.manifest.version, os.fsencode(student).hex(), sha256, plan.profile, plan.sandbox.name]
    parts += [json.dumps(environment()), json.dumps(asdict(plan.limits))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


# One submission


def result_of(release: Release, plan: Plan, task: Task, found: Mapping[str, Any]) -> dict[str, Any]:
    """A result as it is stored: what stands at its head, and what marking gave."""
    manifest = release.manifest
    return {
        "schema": SCHEMA,
        "student": shown(task.student),
        "site": task.site,
        "id": task.id,
        "homework": manifest.homework,
        "key": task.key,
        "version": manifest.version,
        "environment": environment(),
        "profile": plan.profile,
        "sandbox": plan.sandbox.name,
        "attempts": task.attempt,
        **found,
        "messages": [*task.notes, *found["messages"]],
    }


def unmarked(release: Release, questions: Sequence[Question], reason: str, stop: str) -> dict[str, Any]:
    """What marking gives where nothing could be run."""
    rows: list[dict[str, Any]] = [
        {
            "question": question.id, "points": None, "max_points": question.points, "outcome": "not_graded",
            "reason": reason, "stop": stop, "seconds": 0.0, "inputs_sha256": "", "carried": [], "checks": [],
        }
        for question in questions
    ]  # fmt: skip
    return {
        "submission": None,
        "seconds": 0.0,
        "messages": [],
        "texts": {},
        "sources": [],
        "cells": [],
        "questions": rows,
    }


def asked_of(release: Release, plan: Plan, task: Task | None = None) -> list[Question]:
    """The questions of a plan or a task, in their order. HomeworkError names the questions there are."""
    names = (task and task.questions) or plan.questions
    wanted = {release.manifest.question(name).id for name in names}
    return [question for question in release.manifest.questions if not wanted or question.id in wanted]


class Marker:
    """Marks submissions one after another in this process; the release is read and its reference run once.

    No box is opened before a submission needs one: to judge kept answers again takes none.
    """

    def __init__(self, plan: Plan, slot: int = 0) -> None:
        from course_lib.grading.mark import box_of
        from course_lib.grading.reference import Reference

        self.plan = plan
        self.forking = None if plan.sandbox == boxes.NONE else Kernels.start(boxes.environment(1))
        self.release = Release.read(plan.release)
        parameters = {**self.release.manifest.parameters, "profile": plan.profile}
        manifest = replace(self.release.manifest, parameters=parameters)
        self.release = replace(self.release, manifest=manifest)
        self.reference = Reference.of_release(self.release)
        self.box = replace(box_of(self.release, Box(plan.sandbox, slot=slot)), limits=plan.limits)
        self.kernels = ""  # how they are made, once there was one
        self.new_answers = b""  # of the last submission, packed
        mounts = {inside: sha256(path) for inside, path in self.box.mounts.items()}
        self.given = answers.basis_of(environment(), plan.sandbox.name, asdict(plan.limits), parameters, mounts)

    def ready(self) -> Box:
        """The box with its kernels forked, if one can be forked on this machine that is closed in as the others are."""
        if not self.kernels:
            self.kernels = "each imports everything anew"
            if self.forking is not None:
                self._use(self.forking)
        return self.box

    def end(self) -> None:
        if self.forking is not None:
            self.forking.end()

    def _use(self, forking: Kernels) -> None:
        from course_lib.grading.engine import run_box

        try:
            forking.ready()
            self.box, self.kernels = replace(self.box, kernels=forking), "forked"
            if stopped := run_box(self.box, [""], self.plan.limits.submission_s).stopped:
                raise NotForked(f"a forked kernel stops: {stopped}")
        except NotForked as error:
            forking.end()
            self.box, self.kernels = replace(self.box, kernels=None), f"not forked: {error}"

    def __call__(self, task: Task) -> dict[str, Any]:
        """The result; `new_answers` is what is to be kept with it."""
        self.new_answers = b""
        return result_of(self.release, self.plan, task, self._mark(task)) | {"kernels": self.kernels}

    def _mark(self, task: Task) -> dict[str, Any]:
        from course_lib.grading.mark import grade_one

        questions = asked_of(self.release, self.plan, task)
        try:
            submission = read_submission(self.plan.submissions, task.student, self.release.manifest)
        except SubmissionError as error:
            return unmarked(self.release, questions, str(error), "submission")
        anew = task.again or task.attempt > 1
        kept = Answers(self.release.key, self.given, answers.read(self.plan.out, task.student), anew)
        found = grade_one(self.release, self.reference, task.student, submission, self.box, questions, self.ready, kept)
        about = {"path": submission.path, "sha256": submission.sha256, "bytes": submission.bytes}
        self.new_answers = kept.pack() if kept.changed else b""
        return {"submission": about, **found}


# The pool


def _work(plan: Plan, slot: int, pipe: Connection) -> None:
    """A worker: tasks come in, results go out, one at a time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started it decides
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with its grader, and its box with it
    import torch

    torch.set_num_threads(1)
    try:
        marker = Marker(plan, slot)
    except (HomeworkError, OSError) as error:
        sentence = spent(error) if isinstance(error, OSError) else str(error)
        if not sentence:
            raise
        pipe.send(("unable", sentence))
        return
    pipe.send(("ready", None))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(answer(marker, task))


def answer(marker: Marker, task: Task) -> tuple[str, Any]:
    """What became of it.

    ("done", result and the answers to keep), ("failed", the class of what the grader stopped with), or ("unable", what
    the machine lacks), which ends the run.
    """
    try:
        found = marker(task)
        stopped = any(row["stop"] for row in found["questions"])
        if stopped and (sentence := spent(OSError(errno.ENOSPC, ""))):  # an answer that found no room is no bad one
            return "unable", sentence
        return "done", found | {"answers": marker.new_answers}
    except OSError as error:
        sentence = spent(error)
        return ("unable", sentence) if sentence else ("failed", type(error).__name__)
    except Exception as error:  # the class says enough, its text may hold what is hidden
        return "failed", type(error).__name__


def spent(error: OSError) -> str:
    """What the machine lacks, and what helps; "" if an error is of another kind, or what it lacked is there again."""
    if error.errno not in SPENT:
        return ""
    folder, where = Path(boxes.PREFIX).parent, ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        try:  # one box may have filled it, and is gone
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(1 << 20))
            return ""
        except OSError:
            where = f"{folder}: "
    return f"{where}{os.strerror(error.errno)}: {SPENT[error.errno]}; the same command goes on from here"


def own_fault(error: str) -> str:
    return f"the grader stopped with {error}: its own fault"


class Worker:
    """A process and what it works on."""

    def __init__(self, plan: Plan, slot: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=_work, args=(plan, slot, there), daemon=True)
        self.process.start()
        there.close()
        self.slot = slot
        self.task: Task | None = None
        self.ready = False

    def give(self, task: Task) -> None:
        self.task = task
        with suppress(OSError):  # it is dead, which is seen when it is heard
            self.pipe.send(task)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def pool(plan: Plan, tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, dict[str, Any] | str]]:
    """Mark the tasks in `workers` processes; a result each, or why there is none. One that dies is followed by another.

    HomeworkError if a worker cannot read the release.
    """
    waiting, crew = list(reversed(tasks)), list[Worker]()
    try:
        crew = [Worker(plan, slot) for slot in range(min(workers, len(tasks)))]
        while waiting or any(worker.task for worker in crew):
            for pipe in wait([worker.pipe for worker in crew]):
                one = next(each for each in crew if each.pipe is pipe)
                try:
                    what, found = one.pipe.recv()
                except (EOFError, OSError):
                    yield from _replace(plan, crew, one, waiting)
                    continue
                task, one.task = one.task, None
                one.ready = True
                if what == "unable":
                    raise HomeworkError(found)
                if task is not None:
                    yield task, found if what == "done" else own_fault(found)
                if waiting:
                    one.give(waiting.pop())
    finally:
        for worker in crew:
            worker.end()


def _replace(
    plan: Plan, crew: list[Worker], dead: Worker, waiting: list[Task]
) -> Iterator[tuple[Task, dict[str, Any] | str]]:
    """Another worker for one that died. Its submission comes again, unless it has ended too many."""
    dead.end()
    crew.remove(dead)
    if not dead.ready:
        raise HomeworkError("a process of the grader ended before it began: is there memory for --workers?")
    if dead.task is not None:
        task = replace(dead.task, deaths=dead.task.deaths + 1)
        if task.deaths >= DEATHS:
            yield task, f"the grader ended {DEATHS} times while it marked this: its own fault"
        else:
            waiting.append(task)
    if waiting:
        crew.append(Worker(plan, dead.slot))


# A run


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """One grader at a time in a folder of results. HomeworkError if there is another."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise HomeworkError(f"another grader is at work on {out}: wait for it, or give another --out") from None
    try:
        yield
    finally:
        lock.release()


def grade(
    plan: Plan,
    workers: int = 1,
    students: Sequence[str] = (),
    again: bool = False,
    tell: Callable[[int, int, int], None] = lambda done, total, not_graded: None,
) -> Summary:
    """Mark what is not marked yet, write results/ and gradebook.csv. HomeworkError names what cannot be read.

    `tell` gets how many submissions are done, how many there are, and how many questions are not graded so far.
    """
    start = time.monotonic()
    for path in (plan.release, plan.submissions, plan.out):
        if inside := boxes.visible(path):
            raise HomeworkError(f"{path} lies in {inside}, which every submission can read: put it elsewhere")
    release = Release.read(plan.release)
    asked = {question.id for question in asked_of(release, plan)}
    try:
        names, others = students_in(plan.submissions)
    except OSError as error:
        hint = ": unpack it, and name that folder" if plan.submissions.suffix == ".zip" else ""
        raise HomeworkError(f"{plan.submissions}: {error.strerror}{hint}") from error
    if not names:
        raise HomeworkError(
            f"{plan.submissions} holds no submission: a folder a student, or a download of Canvas or Moodle"
        )
    if missing := [name for name in students if name not in names]:
        there = ", ".join(map(shown, [*names][:5])) + (" ..." if len(names) > 5 else "")
        raise HomeworkError(f"{plan.submissions} has no student {missing[0]!r}: there are {there}")
    with locked(plan.out):
        boxes.sweep()
        about = About.of(release)
        about.write(plan.out)
        grading = results.begin(plan.out)
        tasks: list[Task] = []
        for name, handed in names.items():
            if not students or name in students:
                task = replace(_task(release, plan, handed), again=again)
                old = None if again else read_result(plan.out, name)
                if old is None or old.get("key") != task.key or asked - {row["question"] for row in old["questions"]}:
                    tasks.append(task)
                else:
                    stopped = _worth_again(plan, old)
                    own = tuple(name for name in _own_faults(old) if name in asked)
                    if stopped or own:  # the grader's own fault is no attempt
                        attempt = old["attempts"] + bool(stopped)
                        tasks.append(replace(task, attempt=attempt, questions=stopped + own))
        try:
            done = _mark_all(release, plan, tasks, workers, tell, len(students or names), grading)
        finally:
            boxes.sweep()
        all_results = [result for _, result in results.read_all(plan.out, about)]
        write_gradebook(plan.out / "gradebook.csv", all_results)
        changed, fallen = write_changes(plan.out, grading)
        (plan.out / "unfinished").unlink()
    not_graded = sum(row["outcome"] == "not_graded" for result in all_results for row in result["questions"])
    faults = sum(len(_own_faults(result)) for result in all_results)
    seconds = time.monotonic() - start
    return Summary(len(names), done, not_graded, seconds, tuple(map(shown, others)), changed, fallen, faults)


def _task(release: Release, plan: Plan, handed: Handed) -> Task:
    """The key is made from the bytes of the file; of one that cannot be read, from why."""
    student = handed.student
    task = Task(student, site=handed.site, id=handed.id)
    try:
        notebook = read_notebook(plan.submissions, student, release.manifest.homework)
    except SubmissionError as error:
        return replace(task, key=key_of(release, plan, student, str(error)), problem=str(error))
    sum = hashlib.sha256(notebook.content).hexdigest()
    return replace(task, key=key_of(release, plan, student, sum), notes=notebook.notes)


def _worth_again(plan: Plan, result: Mapping[str, Any]) -> tuple[str, ...]:
    """The questions that stopped for what a busy machine may have caused, if a try is left."""
    stopped = tuple(row["question"] for row in result["questions"] if row["stop"] in judging.RETRIED)
    return stopped if result["attempts"] <= plan.retries else ()


def _own_faults(result: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row["question"] for row in result["questions"] if row["stop"] == "grader")


def _mark_all(
    release: Release,
    plan: Plan,
    tasks: Sequence[Task],
    workers: int,
    tell: Callable[[int, int, int], None],
    total: int,
    grading: str,
) -> int:
    done, first = total - len(tasks), [task for task in tasks if task.attempt == 1]
    anew = {file_of(task.student) for task in tasks}
    not_graded = sum(
        row["outcome"] == "not_graded"
        for path in (plan.out / "results").glob("*.json")
        if path.stem not in anew
        for row in results.read_file(path)["questions"]
    )
    late = [task for task in tasks if task.attempt > 1]
    tell(done, total, not_graded)
    count = 0
    for task in [each for each in first if each.problem]:  # nothing to run: no process is started for it
        first.remove(task)
        blank = unmarked(release, asked_of(release, plan, task), task.problem, "submission")
        stored = store(plan.out, task.student, result_of(release, plan, task, blank), grading)
        count += 1
        not_graded += sum(row["outcome"] == "not_graded" for row in stored["questions"])
        tell(done + count, total, not_graded)
    while first or late:
        # the second try comes at the end and alone, when the machine is quiet
        batch, first = first or [late.pop(0)], []
        for task, found in _by_cluster(plan, batch) if plan.scheduler else pool(plan, batch, workers):
            if isinstance(found, str):
                blank = unmarked(release, asked_of(release, plan, task), found, "grader")
                found = result_of(release, plan, task, blank)
            if packed := found.pop("answers", b""):
                answers.write(plan.out, task.student, packed)  # first: a result is never without its answers
            found = store(plan.out, task.student, found, grading)
            if stopped := _worth_again(plan, found):
                late.append(replace(task, attempt=task.attempt + 1, questions=stopped))
                continue
            count += 1
            not_graded += sum(row["outcome"] == "not_graded" for row in found["questions"])
            tell(done + count, total, not_graded)
    return count


def _by_cluster(plan: Plan, tasks: Sequence[Task]) -> Iterator[tuple[Task, dict[str, Any] | str]]:
    from course_lib.grading import cluster

    return cluster.pool(plan, tasks)


# What it came to


def where_time_goes(out: Path) -> list[str]:
    """Of the results that are there: seconds a submission, and what they were spent on."""
    times = [found for path in (out / "results").glob("*.json") if (found := results.read_file(path)).get("times")]
    if not times:
        return []
    count = len(times)
    mean = {
        name: sum(each["times"][name] for each in times) / count for name in ("boxes", "start", "cells", "questions")
    }
    whole = sum(each["seconds"] for each in times) / count
    rest = whole - mean["start"] - mean["cells"] - mean["questions"]
    slow = {found["kernels"] for found in times} - {"forked", ""}
    return [
        f"{whole:.2f} s a submission: {mean['start']:.2f} kernel and torch ({mean['boxes']:.1f} boxes), "
        f"{mean['cells']:.2f} cells, {mean['questions']:.2f} questions, {rest:.2f} the grader's own",
        *(f"kernels: {why}" for why in sorted(slow)),
    ]


def limits_of(manifest: Manifest, cell_seconds: float | None, submission_seconds: float | None) -> Limits:
    """The release's limits with what a command changes."""
    limits = manifest.limits
    return replace(limits, cell_s=cell_seconds or limits.cell_s, submission_s=submission_seconds or limits.submission_s)
