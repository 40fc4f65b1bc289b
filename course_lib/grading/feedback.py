"""`course feedback`: one page a student. It tells the sentences of the checks, and the student's own words back to him.

Nothing of a box that has seen what is hidden is in a result, so nothing hidden can be in a page; with `reveal` the
right answers and what was asked are, which is for after the deadline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from course_lib.files import atomic_write
from course_lib.grading import page
from course_lib.grading.manifest import Question, Release
from course_lib.grading.overrides import Overrides, settle, total
from course_lib.grading.reference import ask
from course_lib.grading.results import About, read_all
from course_lib.grading.source import HomeworkError
from course_lib.words import count

WORDS = {"right": "right", "wrong": "not right yet", "not_graded": "not graded yet"}
SHOWN = 1500  # characters of an input


@dataclass(frozen=True)
class Written:
    """What a run of the command came to."""

    pages: int
    not_graded: int  # questions


def write_feedback(
    results: Path,
    out: Path,
    overrides: Overrides,
    reveal: Release | None = None,
) -> Written:
    """Write <file>.html for every result into `out`. HomeworkError names a result that cannot be read, or that is of
    another version than the release to reveal."""
    about = About.read(results)
    found = [(file, settle(result, about, overrides)) for file, result in read_all(results, about)]
    if not found:
        raise HomeworkError(f"{results} holds no results: run `course grade` first")
    for file, result in found if reveal else ():
        if reveal and result["version"] != reveal.manifest.version:
            raise HomeworkError(
                f"{results / 'results' / file}.json is of another version than {reveal.folder}: grade it again"
            )
    for file, result in found:
        atomic_write(out / f"{file}.html", feedback(about, result, reveal).encode())
    rows = [row for _, result in found for row in result["questions"]]
    return Written(len(found), sum(row["outcome"] == "not_graded" for row in rows))


def feedback(about: About, result: Mapping[str, Any], reveal: Release | None = None) -> str:
    """The page of one student."""
    body = [*_head(about, result)]
    rows = {row["question"]: row for row in result["questions"]}
    said = {cell["index"]: cell for cell in result["cells"]}
    own = [cell | {"run": said.get(cell["index"])} for cell in result["sources"]]
    for question in about.questions:
        row = rows[question.id]
        body += _question(question, row, result["texts"])
        body += _cells([cell for cell in own if cell["id"] in question.answers])
        if reveal is not None:
            body += _revealed(question, row, result, reveal)
    named = {name for question in about.questions for name in question.answers}
    if others := [cell for cell in own if cell["id"] not in named]:
        body += [page.heading(2, "Your other cells"), *_cells(others)]
    return page.document(f"{about.title}: feedback for {result['student']}", body)


def _head(about: About, result: Mapping[str, Any]) -> Iterator[str]:
    rows = result["questions"]
    points, most = total(result), sum(question.points for question in about.questions)
    not_yet = [row["question"] for row in rows if row["points"] is None]
    if points is None:
        so_far = sum(row["points"] or 0 for row in rows)
        yield page.paragraph(
            f"{so_far:g} of {count(most, 'point')} so far. Not graded yet: {', '.join(not_yet)}. That costs no points; "
            "your teacher will settle it."
        )
    else:
        yield page.paragraph(f"{points:g} of {count(most, 'point')}.")
    if file := result["submission"]:
        yield page.paragraph(
            f"This is about the file {file['path']} of {file['bytes']:,} bytes, whose SHA-256 begins with "
            f"{file['sha256'][:12]}."
        )
    if result["sandbox"] == "none":
        yield page.paragraph("Graded by trust: the notebook was not sandboxed.", "warning")
    if result["messages"]:
        yield page.heading(2, "What was odd in your file")
        yield page.listing(result["messages"])
    lines = [
        (row["question"], question.title, f"{_points(row['points'])} of {question.points:g}", WORDS[row["outcome"]])
        for question, row in zip(about.questions, rows, strict=True)
    ]
    yield page.table("Your points", ("Question", "What it was about", "Points", "Outcome"), lines)


def _points(points: float | None) -> str:
    return "none yet" if points is None else f"{points:g}"


def _question(question: Question, row: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[str]:
    title = f" · {question.title}" if question.title else ""
    points = f"{_points(row['points'])} of {count(question.points, 'point')}"
    yield page.heading(2, f"{question.id}{title}: {points}, {WORDS[row['outcome']]}")
    if row.get("settled"):
        yield page.paragraph("A person settled this question." + (f" {row['reason']}" if row["reason"] else ""))
    elif row["reason"]:
        yield page.paragraph(f"Why: {row['reason']}" + ("" if row["reason"].endswith((".", "?")) else "."))
    if row["carried"]:
        yield page.paragraph(
            f"It builds on {' and '.join(row['carried'])}, which you do not have right yet. So it was also graded with "
            "a right answer in that place, and the better of both counts."
        )
    if row["checks"] and not row.get("settled"):
        checks = [
            (check["name"], f"{check['points'] if check['outcome'] == 'right' else 0:g} of {check['points']:g}",
             WORDS[check["outcome"]], check["sentence"])
            for check in row["checks"]
        ]  # fmt: skip
        yield page.table(f"What was checked in {question.id}", ("Check", "Points", "Outcome", "What it says"), checks)
    for name in question.answers if question.manual else ():
        if name in texts:
            yield page.heading(3, f"Your text {name}")
            yield page.code(texts[name])


def _cells(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for cell in cells:
        run = cell["run"]
        name = f"Your cell {cell['id']}" if cell["id"] else "Your cell"
        yield page.heading(3, f"{name}, number {cell['index'] + 1} of the notebook")
        yield page.code(cell["source"])
        if cell["cut"]:
            yield page.paragraph("The cell is longer; the rest is left out here.")
        if run is None:
            yield page.paragraph("It was not run in the first go: a cell before it had ended the kernel.")
        elif run["error"]:
            yield page.paragraph(f"It stopped with {run['error']}; that alone costs no points.")
        if run and run["text"]:
            yield page.heading(4, "What it printed")
            yield page.code(run["text"])


def _revealed(question: Question, row: Mapping[str, Any], result: Mapping[str, Any], release: Release) -> Iterator[str]:
    for name in question.answers:
        if name in release.reference:
            yield page.heading(3, f"A right answer to {question.id}")
            yield page.code(release.reference[name])
    if question.id not in release.hidden or not row["inputs_sha256"]:
        return
    hidden, submission = release.hidden[question.id], result["submission"] or {}
    asked = ask(hidden, release.key, release.manifest.homework, result["student"], submission.get("sha256", ""))
    if asked.sha256 != row["inputs_sha256"]:
        yield page.paragraph("What you were asked cannot be drawn again on this machine.")
        return
    for number, case in enumerate(asked.cases, 1):
        yield page.heading(3, f"What you were asked in {question.id}, case {number}")
        yield page.table("Inputs", ("Name", "Value"), [(name, _input(value)) for name, value in case.items()])


def _input(value: object) -> str:
    kind = f"tensor of shape {tuple(value.shape)}, {value.dtype}: " if isinstance(value, Tensor) else ""
    text = kind + (str(value.tolist()) if isinstance(value, Tensor) else repr(value))
    return text if len(text) <= SHOWN else text[:SHOWN] + " ..."
