"""What a person settled: a csv with student, question, points and note, which wins over everything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from course_lib.files import read_csv
from course_lib.grading.books import plain
from course_lib.grading.results import About
from course_lib.grading.source import HomeworkError


class Settled(NamedTuple):
    """One line of the table."""

    points: float
    note: str


Overrides = Mapping[tuple[str, str], Settled]  # by student and question


def read_overrides(path: Path | None, about: About, students: Iterable[str]) -> Overrides:
    """The table of a file; empty without one. HomeworkError names the line that cannot be meant."""
    if path is None:
        return {}
    most, known = {question.id: question.points for question in about.questions}, set(students)
    found: dict[tuple[str, str], Settled] = {}
    try:
        for line, row in read_csv(path, ("student", "question", "points", "note")):
            where = f"{path}: line {line}"
            # the name as it is, or as a gradebook writes it
            student = row["student"] if row["student"] in known else plain(row["student"])
            question = row["question"]
            if student not in known:
                raise HomeworkError(f"{where}: there is no result of {row['student']!r}: write the name of the folder")
            if question not in most:
                raise HomeworkError(f"{where}: {about.homework} has no question {question!r}: {', '.join(most)}")
            if (student, question) in found:
                raise HomeworkError(f"{where}: {question} of {student} was settled in a line before: keep one")
            found[student, question] = Settled(_points(where, row["points"], most[question]), plain(row["note"]))
    except OSError as error:
        raise HomeworkError(f"{path} could not be read: {error.strerror}") from error
    except ValueError as error:
        raise HomeworkError(str(error)) from error
    return found


def _points(where: str, text: str, most: float) -> float:
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points <= most:
        raise HomeworkError(f"{where}: {text!r} are no points, a number from 0 to {most:g} is needed")
    return points


def settle(result: Mapping[str, Any], about: About, overrides: Overrides) -> dict[str, Any]:
    """A result with every question of the homework, in its order, and with what a person settled."""
    rows = {row["question"]: row for row in result["questions"]}
    for question in about.questions:
        row = rows.get(question.id) or _not_asked(question.id, question.points)
        if settled := overrides.get((result["student"], question.id)):
            outcome = "right" if settled.points == question.points else "wrong"
            row = row | {"points": settled.points, "outcome": outcome, "reason": settled.note, "settled": True}
        rows[question.id] = row
    return dict(result) | {"questions": [rows[question.id] for question in about.questions]}


def _not_asked(question: str, points: float) -> dict[str, Any]:
    return {
        "question": question, "points": None, "max_points": points, "outcome": "not_graded",
        "reason": "not graded yet", "stop": "", "seconds": 0.0, "inputs_sha256": "", "carried": [], "checks": [],
    }  # fmt: skip


def total(result: Mapping[str, Any]) -> float | None:
    """The sum of the points; None while a question is not graded."""
    points = [row["points"] for row in result["questions"]]
    return None if None in points else sum(points)
