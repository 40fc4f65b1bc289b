"""One submission: run in a box, asked, judged. A question that stops or is wrong costs no other a mark."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ipykernel.compiler import get_tmp_hash_seed, murmur2_x86

from course_lib.grading import answers, wire
from course_lib.grading import box as boxes
from course_lib.grading import judge as judging
from course_lib.grading.answers import Answers, Kept
from course_lib.grading.box import HOME, MB, Box
from course_lib.grading.engine import KEPT, KEPT_OF_CELL, Ask, BoxRun, Stopped, run_box
from course_lib.grading.extract import Piece, Submission, belongs, shown, up_to, with_reference
from course_lib.grading.judge import Found, Judgement
from course_lib.grading.manifest import Question, Release
from course_lib.grading.reference import Asked, Reference, ask

OF_TIME = ("time", "question time", "submission time", "no start")
LATE = ("submission time", "no start")  # no fault of the cell in which it happens


@dataclass(frozen=True)
class Marked:
    """What one question came to, and how.

    `carried` names the questions that were right by the reference; `kept`: nothing was run for it.
    """

    judgement: Judgement
    seconds: float
    inputs_sha256: str = ""
    carried: tuple[str, ...] = ()
    kept: bool = False


@dataclass(frozen=True)
class Answered:
    """What a box gave, or gave before. `left_out`: what it was run without and why, in words; "" if nothing."""

    found: Found
    left_out: tuple[str, str] = ("", "")
    kept: bool = False


@dataclass
class Marking:
    """The marking of one submission."""

    release: Release
    reference: Reference
    student: str
    submission: Submission
    box: Box
    ready: Callable[[], Box] | None = None  # the box with kernels, made when the first is needed
    answers: Answers = field(default_factory=Answers)
    deadline: float = 0.0
    waited: float = 0.0
    asked: dict[str, Asked] = field(default_factory=dict)
    expected: dict[str, list[Any]] = field(default_factory=dict)
    stopping: dict[Piece, str] = field(default_factory=dict)  # cells that ended a box, and why
    runs: list[BoxRun] = field(default_factory=list)
    own: list[BoxRun] = field(default_factory=list)  # those in which nothing but the student's cells was run

    def mark(self, questions: Sequence[Question]) -> dict[str, Marked]:
        """Every question; the first box is for all of them."""
        self.deadline = time.monotonic() + self.box.limits.submission_s
        graded = [question for question in questions if not question.manual]
        for question in graded:
            self._draw(question)
        pieces = self.submission.pieces
        answered = {question.id: kept for question in graded if (kept := self._kept(question, answers.OWN, pieces))}
        asked = [question for question in graded if question.id not in answered]
        found = self.run(pieces, asked) if len(asked) > 1 else {}
        for question in asked:
            whole = question.id in found and not found[question.id].stop
            answered[question.id] = Answered(found[question.id]) if whole else self._alone(question)
            self._keep(question, answers.OWN, pieces, answered[question.id])
        marked = {question.id: self._judged(question, answered[question.id]) for question in graded}
        for question in graded:
            if question.carry and marked[question.id].judgement.outcome != "right":
                marked[question.id] = self._carried(question, marked)
        for question in questions:
            if question.manual:
                marked[question.id] = Marked(judging.not_graded("person", self.box.limits), 0.0)
        return {question.id: marked[question.id] for question in questions}

    def _draw(self, question: Question) -> None:
        hidden, manifest = self.release.hidden[question.id], self.release.manifest
        # by the name that the result holds, so that `course feedback --reveal` can draw it again
        asked = ask(hidden, self.release.key, manifest.homework, shown(self.student), self.submission.sha256)
        self.asked[question.id] = asked
        self.expected[question.id] = self.reference.answer(hidden, asked)

    # Kept answers

    def _basis(self, pieces: Sequence[Piece], *more: object) -> str:
        run = [[piece.kind, piece.id, piece.source, *piece.tags] for piece in pieces]
        return answers.basis_of(self.answers.given, run, *more)

    def _basis_of(self, question: Question, pieces: Sequence[Piece]) -> str:
        hidden = self.release.hidden[question.id]
        cell = wire.probe_cell(hidden.call_source, list(hidden.names), "", "")
        return self._basis(pieces, cell, self.asked[question.id].sha256)

    def _kept(self, question: Question, which: str, pieces: Sequence[Piece]) -> Answered | None:
        """What these pieces have answered before, if the same was asked."""
        kept = self.answers.get(f"{question.id} {which}", self._basis_of(question, pieces))
        if kept is None:
            return None
        try:
            return Answered(Found(wire.read(kept.content), seconds=kept.seconds), kept.left_out, kept=True)
        except wire.Unreadable:
            return None

    def _keep(self, question: Question, which: str, pieces: Sequence[Piece], answered: Answered) -> None:
        """An answer that came back whole; one that stopped may not stop another time."""
        found = answered.found
        if not found.stop:
            kept = Kept(found.content, self._basis_of(question, pieces), found.seconds, answered.left_out)
            self.answers.put(f"{question.id} {which}", kept)

    def cells(self) -> list[dict[str, Any]]:
        """What the student's own cells did, in the first box that had nothing else in it, now or when it was run."""
        basis = self._basis(self.submission.pieces)
        if not self.own:
            kept = self.answers.get(answers.CELLS, basis)
            return json.loads(kept.content) if kept else []
        cells = [
            {"index": piece.index, "id": piece.id, "kind": piece.kind, **asdict(run)}
            for piece, run in zip(self.submission.pieces, self.own[0].cells, strict=False)
            if piece.index is not None
        ]
        self.answers.put(answers.CELLS, Kept(json.dumps(cells).encode(), basis))
        return cells

    # Boxes

    def run(self, pieces: Sequence[Piece], questions: Sequence[Question], own: bool = True) -> dict[str, Found]:
        """Run the pieces in a fresh box and ask it the questions; those it did not come to are missing.

        `own`: they are all the student's, and what they print may be shown to him.
        """
        found: dict[str, Found] = {}
        if self.ready is not None:
            start = time.monotonic()
            self.box, self.ready = self.ready(), None
            self.waited = time.monotonic() - start  # the grader's time, not the student's
            self.deadline += self.waited

        def put(run_cell: Ask, work: Path) -> None:
            for question in questions:
                start = time.monotonic()
                try:
                    found[question.id] = self._ask(question, run_cell, work)
                except Stopped as stopped:
                    why = "question time" if stopped.why == "time" else stopped.why
                    found[question.id] = Found(stop=why, seconds=round(time.monotonic() - start, 3))
                    raise

        left = self.deadline - time.monotonic()
        if left < 1:
            return {question.id: Found(stop="submission time") for question in questions}
        tagged = next((at for at, piece in enumerate(pieces) if "parameters" in piece.tags), None)
        run = run_box(self.box, [piece.source for piece in pieces], left, put, self.release.manifest.parameters, tagged)
        self.runs.append(run)
        if own:
            self.own.append(run)
        if run.stopped and run.stopped not in LATE and run.at is not None and pieces[run.at].kind != "setup":
            self.stopping.setdefault(pieces[run.at], run.stopped)
        if run.stopped in LATE:
            for question in questions:
                found.setdefault(question.id, Found(stop=run.stopped))
        return found

    def _ask(self, question: Question, run_cell: Ask, work: Path) -> Found:
        inside = work if self.box.sandbox == boxes.NONE else Path("/")
        name = f"{question.id}.safetensors"
        (work / "in" / name).write_bytes(self.asked[question.id].packed)
        (work / "in" / name).chmod(0o644)
        with open(os.open(work / "answer", os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW), "wb"):
            pass  # what another question left there
        start = time.monotonic()
        hidden = self.release.hidden[question.id]
        cell = wire.probe_cell(
            hidden.call_source, list(hidden.names), str(inside / "in" / name), str(inside / "answer")
        )
        try:
            run_cell(cell, self.box.limits.question_s)
        finally:
            (work / "in" / name).unlink()
        seconds = round(time.monotonic() - start, 3)
        try:
            content = wire.read_file(work / "answer", self.box.limits.answer_mb * MB)
            return Found(wire.read(content), seconds=seconds, content=content)
        except wire.Unreadable:
            return Found(stop="unreadable", seconds=seconds)

    def _alone(self, question: Question) -> Answered:
        """A question in a box of its own, without cells that ended a box and belong to others."""
        pieces = self.submission.pieces
        found, left_out = self._without_stopping(pieces, question)
        short = up_to(pieces, question)
        if found.stop and found.stop not in OF_TIME and len(short) < len(pieces):
            # something later may have ended it, a thread that was started there
            found, left_out = self._without_stopping(short, question)
            left_out = [*left_out, *pieces[len(short) :]]
        return Answered(found, self._words(left_out))

    def _words(self, left_out: Sequence[Piece]) -> tuple[str, str]:
        return (called(left_out[0]), self.stopping.get(left_out[0], "died")) if left_out else ("", "")

    def _without_stopping(
        self, wanted: Sequence[Piece], question: Question, own: bool = True
    ) -> tuple[Found, list[Piece]]:
        while True:
            known = set(self.stopping)
            pieces, left_out = self._part(wanted, question)
            found = self.run(pieces, [question], own)
            if question.id in found:
                return found[question.id], left_out
            ended = set(self.stopping) - known
            its = [piece for piece in pieces if piece in self.stopping and belongs(piece, question)]
            if its or not ended:  # also a setup that ends, which is nobody's fault but the machine's
                return Found(stop=self.stopping[its[0]] if its else self.runs[-1].stopped or "died"), left_out

    def _part(self, pieces: Iterable[Piece], question: Question) -> tuple[list[Piece], list[Piece]]:
        """What of the pieces is run for a question, and what is left out because it ended a box."""
        kept: list[Piece] = []
        left_out: list[Piece] = []
        for piece in pieces:
            (left_out if piece in self.stopping and not belongs(piece, question) else kept).append(piece)
        return kept, left_out

    def _carried(self, question: Question, marked: Mapping[str, Marked]) -> Marked:
        """The better of two: as it is, and with right answers after the wrong ones that it builds on.

        That box holds what is hidden: nothing of its text is kept, and nothing else is judged in it. Without a mark of
        the question as it is, a sentence could only be about that box, so it is a fixed one.
        """
        own, manifest = marked[question.id], self.release.manifest
        wrong = [
            need for need in needed(question, manifest.questions)
            if need.id in self.asked and marked[need.id].judgement.outcome != "right"
        ]  # fmt: skip
        if not wrong:
            return own
        pieces: Sequence[Piece] = self.submission.pieces
        for need in wrong:
            pieces = with_reference(pieces, need, self.release.reference)
        answered = self._kept(question, answers.CARRIED, pieces)
        if answered is None:
            found, left_out = self._without_stopping(pieces, question, own=False)
            answered = Answered(found, self._words(left_out))
            self._keep(question, answers.CARRIED, pieces, answered)
        better = self._judged(question, answered, quote=False)
        names, kept = tuple(need.id for need in wrong), own.kept and better.kept
        if better.judgement.points is None:
            return replace(own, kept=kept)
        if better.judgement.rank > own.judgement.rank:
            if own.judgement.points is None:
                said = f"with a right {' and '.join(names)} in its place"
                better = replace(better, judgement=judging.in_fixed_words(question, better.judgement, said))
            return replace(better, carried=names, kept=kept, seconds=round(own.seconds + better.seconds, 3))
        return replace(own, carried=names, kept=kept)

    # Judging

    def _judged(self, question: Question, answered: Answered, quote: bool = True) -> Marked:
        hidden, limits, found = self.release.hidden[question.id], self.box.limits, answered.found
        asked, expected = self.asked[question.id], self.expected[question.id]
        place = self._place if quote else lambda file, line: ""
        judgement = judging.judge(question, hidden, asked.cases, expected, found, limits, place)
        name, why = answered.left_out
        if judgement.outcome == "wrong" and name:  # perhaps only because of what was left out
            judgement = judging.not_graded(why, limits, f"{name} was left out: ")
        return Marked(judgement, found.seconds, asked.sha256, kept=answered.kept)

    def _place(self, file: str, line: int) -> str:
        """Where in the student's notebook a line of a kernel's cell is."""
        seed = get_tmp_hash_seed()
        for piece in self.submission.pieces:
            if piece.index is not None and str(murmur2_x86(piece.source, seed)) == file:
                inside = line <= piece.source.count("\n") + 1
                return f", in line {line} of {called(piece)}" if inside else ""
        return ""


def called(piece: Piece) -> str:
    """What a sentence calls a cell."""
    if piece.kind == "answer" and piece.index is not None:
        return f"your cell {piece.id}"
    return f"your cell number {piece.index + 1}" if piece.index is not None else "a cell of the teacher's"


def needed(question: Question, questions: Iterable[Question]) -> list[Question]:
    """The questions that one builds on, and those that these build on, in their order."""
    by_id, found = {each.id: each for each in questions}, set(question.needs)
    while more := {name for each in found for name in by_id[each].needs} - found:
        found |= more
    return [each for each in questions if each.id in found]


def box_of(release: Release, box: Box) -> Box:
    """The box with the limits, files and modules of a release.

    course_lib is not in it, but for the modules that the manifest names: it holds the answers.
    """
    mounts: dict[str, Path] = {}
    for name in release.manifest.library:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise FileNotFoundError(f"{name}, which the homework uses, is not in this course_lib: release it again")
        path = name.replace(".", "/") + ("/__init__.py" if spec.submodule_search_locations else ".py")
        mounts[f"/course/{path}"] = Path(spec.origin)
    for name in release.manifest.files:
        if name != f"{release.manifest.homework}.ipynb":
            mounts[f"{HOME}/{name}"] = release.folder / "student" / name
    return replace(box, limits=release.manifest.limits, mounts=mounts)


def grade_one(
    release: Release,
    reference: Reference,
    student: str,
    submission: Submission,
    box: Box,
    questions: Sequence[Question] = (),
    ready: Callable[[], Box] | None = None,
    kept: Answers | None = None,
) -> dict[str, Any]:
    """The result of one submission, as it is stored. `questions`: only these; all if none.

    `ready` gives the box that is run, when one is needed. Answers in `kept` are not asked for, new ones are put there.
    """
    start = time.monotonic()
    marking = Marking(release, reference, student, submission, box, ready, kept or Answers())
    marked = marking.mark(questions or release.manifest.questions)
    times = {
        "boxes": len(marking.runs),
        "start": round(sum(run.start_seconds for run in marking.runs), 3),
        "cells": round(sum(cell.seconds for run in marking.runs for cell in run.cells), 3),
        "questions": round(sum(each.seconds for each in marked.values() if not each.kept), 3),
    }
    return {
        "seconds": round(time.monotonic() - start - marking.waited, 3),
        "times": times,
        "peak_mb": max((run.peak_mb for run in marking.runs), default=0),
        "messages": list(submission.messages),
        "texts": dict(submission.texts),
        "sources": sources_of(submission),
        "cells": marking.cells(),
        "questions": [question_row(release, name, each) for name, each in marked.items()],
    }


def sources_of(submission: Submission) -> list[dict[str, Any]]:
    """The cells of the student's own, as he wrote them: for feedback, cut where a cell or all are too long."""
    left, found = KEPT, []
    for piece in submission.pieces:
        if piece.index is not None:
            source = piece.source[: min(left, KEPT_OF_CELL)]
            left -= len(source)
            cut = len(source) < len(piece.source)
            found.append({"index": piece.index, "id": piece.id, "kind": piece.kind, "source": source, "cut": cut})
    return found


def question_row(release: Release, name: str, marked: Marked) -> dict[str, Any]:
    """One question of a result."""
    judgement = marked.judgement
    return {
        "question": name,
        "points": judgement.points,
        "max_points": release.manifest.question(name).points,
        "outcome": judgement.outcome,
        "reason": judgement.reason,
        "stop": judgement.stop,
        "seconds": marked.seconds,
        "inputs_sha256": marked.inputs_sha256,
        "carried": list(marked.carried),
        "kept": marked.kept,
        "checks": [asdict(check) for check in judgement.checks],
    }
