"""What a homework must pass before its release: right answers get all points, wrong ones lose their own and no other.

Everything here is the teacher's own code, run in fresh processes without a box.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nbformat
import torch
from nbclient import NotebookClient

from course_lib.grading import probe, wire
from course_lib.grading.checks import Verdict
from course_lib.grading.extract import Piece, extract, with_reference
from course_lib.grading.judge import judge_question
from course_lib.grading.manifest import Check, Manifest, Question
from course_lib.grading.source import Hidden, HomeworkError, drawing

SECONDS = 300.0  # for all draws of one wrong answer


@dataclass(frozen=True)
class Gate:
    """One thing that must hold, and a sentence that says what was found."""

    name: str
    held: bool
    found: str


@dataclass(frozen=True)
class Draws:
    """The hidden cases of every question, drawn as for that many submissions."""

    inputs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]  # question -> draw -> case

    @classmethod
    def of(cls, hidden: Mapping[str, Hidden], key: bytes, homework: str, count: int) -> Draws:
        """HomeworkError if `inputs` stops, or gives what cannot be sent."""
        found: dict[str, list[list[dict[str, Any]]]] = {}
        for name, part in hidden.items():
            found[name] = []
            for draw in range(count):
                cases = []
                for case in range(part.cases):
                    try:
                        given = part.inputs(drawing(key, homework, f"draw {draw}", "", name, case))
                        cases.append(wire.plain(given))
                    except Exception as error:
                        raise HomeworkError(f"inputs of {name} stops with {type(error).__name__}: {error}") from error
                found[name].append(cases)
        return cls(found)

    @property
    def count(self) -> int:
        return len(next(iter(self.inputs.values())))


Found = Mapping[str, Sequence[Any]]  # question -> draw -> what a probe brought back


def answers(pieces: Sequence[Piece], hidden: Mapping[str, Hidden], draws: Draws, seconds: float = SECONDS) -> Found:
    """Run the pieces in a fresh process and ask it everything. HomeworkError if it dies or takes too long."""
    asked = {
        name: (part.call_source, list(part.names), [probe.pack(cases) for cases in draws.inputs[name]])
        for name, part in hidden.items()
    }
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["course_lib.grading.gates", "IPython.core.interactiveshell"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, [piece.source for piece in pieces], asked), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(seconds):
            raise HomeworkError(f"it takes more than {seconds:.0f} s")
        sent = here.recv()
    except EOFError:
        raise HomeworkError("its process ended before it had answered") from None
    finally:
        process.kill()
        process.join()
        here.close()
    return {name: [wire.read(content) for content in contents] for name, contents in sent.items()}


def _answer(there: Connection, cells: list[str], asked: Mapping[str, tuple[str, list[str], list[bytes]]]) -> None:
    from IPython.core.history import HistoryManager
    from IPython.core.interactiveshell import InteractiveShell

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    HistoryManager.enabled = False  # type: ignore[assignment]
    shell = InteractiveShell()
    for source in cells:
        shell.run_cell(source, silent=True)
    with tempfile.TemporaryDirectory() as folder:
        given, answer = os.path.join(folder, "given"), os.path.join(folder, "answer")

        def ask(call_source: str, names: list[str], cases: bytes) -> bytes:
            Path(given).write_bytes(cases)
            Path(answer).write_bytes(b"")
            probe.probe(shell.user_ns, call_source, names, given, answer)
            return Path(answer).read_bytes()

        there.send({name: [ask(call, names, each) for each in draws] for name, (call, names, draws) in asked.items()})


# What is asked of a homework


@dataclass(frozen=True)
class Homework:
    """What the gates need: the manifest, the hidden parts, and the notebooks as a student would hand them in."""

    manifest: Manifest
    hidden: Mapping[str, Hidden]
    reference: bytes
    untouched: bytes
    right: Mapping[str, str]  # answer id -> source
    mutants: Mapping[str, str]  # question-what -> source of that question's last answer
    others: Mapping[str, str]  # the same, of other right answers

    def pieces(self, notebook: bytes) -> tuple[Piece, ...]:
        return extract(notebook, self.manifest, "the source").pieces

    def with_answer(self, question: Question, source: str) -> tuple[Piece, ...]:
        last = question.answers[-1]
        return tuple(
            Piece(piece.kind, source, piece.id, piece.index, piece.tags) if piece.id == last else piece
            for piece in self.pieces(self.reference)
        )

    def built_on(self, question: str) -> set[str]:
        """The questions that need this one, or one that needs it."""
        found: set[str] = set()
        while more := {n for n, part in self.hidden.items() if {question, *found} & set(part.needs)} - found:
            found |= more
        return found


def single(draws: Draws) -> Gate:
    """Is every fraction float32? A tensor that an answer makes itself is, and it does not go with float64."""
    wrong = {
        f"{question}: {name} of `inputs` is float64, and what students make with torch.zeros is float32; "
        'write .astype("float32")'
        for question, drawn in draws.inputs.items()
        for cases in drawn
        for given in cases
        for name, part in given.items()
        if _double(part)
    }
    return Gate("no input is in double precision", not wrong, "; ".join(sorted(wrong)) or "no tensor of float64")


def _double(part: Any) -> bool:
    if isinstance(part, Mapping):
        part = list(part.values())
    if isinstance(part, list):
        return any(map(_double, part))
    return isinstance(part, torch.Tensor) and part.dtype == torch.float64


def defined(expected: Found) -> Gate:
    """Does the reference define every name, and answer every case?"""
    wrong = {}
    for name, drawn in expected.items():
        for found in drawn:
            if "missing" in found:
                wrong[name] = f"{name}: {', '.join(found['missing'])} is not defined"
            elif "cases" not in found:
                wrong[name] = f"{name}: the reference gives something that is no data"
            elif stopped := [case["stops"] for case in found["cases"] if "stops" in case]:
                wrong[name] = f"{name}: the reference stops with {stopped[0]}"
    found = "; ".join(wrong.values()) or "all names, all answers"
    return Gate("the reference defines every name and answers every case", not wrong, found)


def with_checks(hidden: Mapping[str, Hidden], question: Question, expected: Found, draws: Draws) -> Question:
    """The question with its checks, as `judge` gives them for the reference. HomeworkError if they are not always the
    same, or do not add up to its points."""
    if question.manual:
        return question
    kinds = set()
    for drawn, inputs in zip(expected[question.id], draws.inputs[question.id], strict=True):
        for case, given in zip(drawn["cases"], inputs, strict=True):
            try:
                found = hidden[question.id].judge(case["gives"], case["gives"], **given)
            except Exception as error:
                raise HomeworkError(f"judge of {question.id} stops with {type(error).__name__}: {error}") from error
            kinds.add(_checks_of(question, found))
    if len(kinds) > 1:
        raise HomeworkError(f"judge of {question.id} gives other checks for other cases; give always the same")
    (checks,) = kinds
    total = sum(check.points for check in checks)
    if total != question.points:
        raise HomeworkError(
            f"checks of {question.id} are worth {total:g} points, its test cell {question.points:g}; make them equal"
        )
    return replace(question, checks=checks)


def _checks_of(question: Question, found: Any) -> tuple[Check, ...]:
    if isinstance(found, Verdict):
        return (Check("answer", question.points),)
    if (
        isinstance(found, Mapping)
        and found
        and all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Verdict) for pair in found.values())
    ):
        return tuple(Check(name, float(points)) for name, (points, _) in found.items())
    raise HomeworkError(
        f"judge of {question.id} gives a {type(found).__name__}, not a Verdict or {{name: (points, Verdict)}}"
    )


def try_answers(
    homework: Homework, expected: Found, draws: Draws, tell: Callable[[str], None] = lambda line: None
) -> list[Gate]:
    """Right, untouched, other right and wrong answers, against `expected`. `tell` gets a line before each."""
    graded = [question for question in homework.manifest.questions if not question.manual]
    again = answers(homework.pieces(homework.reference), homework.hidden, draws)
    marks = {question.id: _marks(homework, question, again, expected, draws) for question in graded}
    gates = [_all_points(graded, marks)]
    tell("untouched")
    found = answers(homework.pieces(homework.untouched), homework.hidden, draws)
    most = {question.id: max(_marks(homework, question, found, expected, draws)) for question in graded}
    got = "; ".join(f"{name} gets up to {points:g}" for name, points in most.items() if points)
    gates.append(Gate("the untouched notebook gets no point", not got, got or f"0 in {draws.count} draws"))
    for question in graded:
        for what, change in (
            ("the answer of the first case for all", _repeated), ("all numbers + 1 %", _raised), ("no lists", _emptied)
        ):  # fmt: skip
            changed = {question.id: [change(each) for each in expected[question.id]]}
            if change is _emptied and probe.pack(changed) == probe.pack({question.id: expected[question.id]}):
                continue  # it has none
            gates.append(
                _loses(f"{question.id}, {what},", question, _marks(homework, question, changed, expected, draws))
            )
    for name, source in homework.others.items():
        tell(f"{name}, another right answer")
        gates.append(_try_other(homework, name, source, expected, draws))
    for name, source in homework.mutants.items():
        tell(name)
        gates += _try_mutant(homework, homework.manifest.question(name.split("-")[0]), name, source, expected, draws)
    return gates


def runs_whole(name: str, notebook: bytes, folder: Path) -> Gate:
    """Does a notebook run to its end, its tests included, beside a copy of `folder`? The reference must hear Right."""
    read = nbformat.reads(notebook.decode(), as_version=4)
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(folder, scratch, dirs_exist_ok=True)
        client = NotebookClient(
            read, timeout=SECONDS, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": scratch}}
        )
        try:
            client.execute(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except Exception as error:  # a dead kernel, a cell without an end
            wrong.append(f"{type(error).__name__}: {error!s:.200}")
    for cell in read.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                wrong.append(f"{cell.id} stops with {output.ename}: {output.evalue:.200}")
            elif name == "reference" and (
                said := re.search("Not yet: .*", str(output.get("text", output.get("data", ""))))
            ):
                wrong.append(f"{cell.id} says {said[0]:.200}")
    how = "and hears Right" if name == "reference" else "without an error"
    return Gate(f"the {name} notebook runs to its end {how}", not wrong, "; ".join(wrong) or f"{len(read.cells)} cells")


def _marks(homework: Homework, question: Question, found: Found, expected: Found, draws: Draws) -> list[float]:
    """Points of a question, draw by draw. HomeworkError if one could not be graded."""
    part, points = homework.hidden[question.id], []
    for draw, inputs in enumerate(draws.inputs[question.id]):
        judged = judge_question(part, question, found[question.id][draw], expected[question.id][draw], inputs)
        if judged.points is None:
            raise HomeworkError(f"{question.id} could not be graded: {judged.reason}")
        points.append(judged.points)
    return points


def _all_points(graded: Sequence[Question], marks: Mapping[str, Sequence[float]]) -> Gate:
    lost = [
        f"{question.id} gets {min(marks[question.id]):g} of {question.points:g}"
        for question in graded
        if min(marks[question.id]) != question.points
    ]
    count = len(marks[graded[0].id]) if graded else 0
    return Gate("the reference gets every point", not lost, "; ".join(lost) or f"all points in {count} draws")


def _loses(name: str, question: Question, points: Sequence[float]) -> Gate:
    best = max(points)
    kept = sum(each >= question.points for each in points)
    found = f"{min(points):g} to {best:g} of {question.points:g}"
    return Gate(f"{name} loses points", not kept, found + (f": all points in {kept} of {len(points)}" if kept else ""))


def _try_other(homework: Homework, name: str, source: str, expected: Found, draws: Draws) -> Gate:
    what = f"{name}, another right answer, gets every point"
    pieces = homework.with_answer(homework.manifest.question(name.split("-")[0]), source)
    graded = [question for question in homework.manifest.questions if not question.manual]
    try:
        found = answers(pieces, homework.hidden, draws)
        return replace(
            _all_points(graded, {each.id: _marks(homework, each, found, expected, draws) for each in graded}), name=what
        )
    except HomeworkError as error:
        return Gate(what, False, str(error))


def _try_mutant(
    homework: Homework, question: Question, name: str, source: str, expected: Found, draws: Draws
) -> list[Gate]:
    pieces = homework.with_answer(question, source)
    others = [each for each in homework.manifest.questions if each.id != question.id and not each.manual]
    try:
        found = answers(pieces, homework.hidden, draws)
        carried = found
        if built := homework.built_on(question.id):
            some = {each: homework.hidden[each] for each in built}
            carried = {**found, **answers(with_reference(pieces, question, homework.right), some, draws)}
        gates = [_loses(name, question, _marks(homework, question, found, expected, draws))]
        lost = [
            f"{other.id} gets {min(points):g} of {other.points:g}"
            for other in others
            if min(points := _marks(homework, other, carried, expected, draws)) != other.points
        ]
    except HomeworkError as error:
        return [Gate(f"{name} loses points", False, str(error))]
    gates.append(Gate(f"{name} loses points nowhere else", not lost, "; ".join(lost) or "all points elsewhere"))
    return gates


def _repeated(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"cases": [found["cases"][0]] * len(found["cases"])}


def _emptied(found: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing in every list: a `judge` that pairs what is there with what should be must see that it is missing."""

    def empty(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {key: empty(each) for key, each in part.items()}
        return [] if isinstance(part, list) else part

    return {"cases": [empty(case) for case in found["cases"]]}


def _raised(part: Any) -> Any:
    """The same with every number one per cent larger; truth values the other way round."""
    if isinstance(part, torch.Tensor):
        return ~part if part.dtype == torch.bool else part * 1.01
    if isinstance(part, bool):
        return not part
    if isinstance(part, int | float):
        return part * 1.01
    if isinstance(part, list):
        return [_raised(each) for each in part]
    return {key: _raised(each) for key, each in part.items()} if isinstance(part, Mapping) else part


def spread(question: str, expected: Found) -> dict[str, Any]:
    """How different the right answers are, from case to case and from draw to draw."""
    packed = [probe.pack(case) for drawn in expected[question] for case in drawn["cases"]]
    return {"answers": len(packed), "different": len(set(packed))}
