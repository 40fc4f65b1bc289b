"""`course gradebook`: the marks of a class, with what a person settled, in the tables that others read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib.files import atomic_write, write_json
from course_lib.grading.books import as_csv, number, write_gradebook
from course_lib.grading.overrides import Overrides, settle, total
from course_lib.grading.results import About, marks, read_all, read_file
from course_lib.grading.roster import Roster, with_marks
from course_lib.grading.source import HomeworkError
from course_lib.words import count

SCHEMA = 1
POLICIES = ("last", "best")
ROW = ("question", "points", "max_points", "outcome", "reason", "seconds", "carried", "settled", "checks")


@dataclass(frozen=True)
class Books:
    """What was written, and what a person should know of it."""

    files: tuple[Path, ...]
    students: int
    not_graded: int  # questions
    problems: tuple[str, ...]


def write_books(
    results: Path,
    out: Path,
    overrides: Overrides,
    roster: Roster | None = None,
    policy: str = "last",
) -> Books:
    """Write gradebook.csv, wide.csv, gradebook.json, and what the roster's site imports: canvas.csv or moodle.csv.

    `policy`: of a student's tries the last one counts, or the best that was graded with the same release. HomeworkError
    names a result that cannot be read.
    """
    about = About.read(results)
    tries = [
        (file, result if policy == "last" else best(results, file, result)) for file, result in read_all(results, about)
    ]
    if not tries:
        raise HomeworkError(f"{results} holds no results: run `course grade` first")
    found = [settle(result, about, overrides) for _, result in tries]
    files = [out / "gradebook.csv", out / "wide.csv", out / "gradebook.json"]
    write_gradebook(files[0], found)
    atomic_write(files[1], as_csv(wide(about, found)).encode())
    write_json(files[2], {"schema": SCHEMA, **_head(about, policy), "students": list(map(_student, found))})
    problems = [
        f"{result['student']} was graded with another version of the release: run `course grade` again"
        for result in found
        if result["version"] != about.version
    ]
    if untrusted := sum(result["sandbox"] == "none" for result in found):
        problems.append(f"not sandboxed: {untrusted} of {count(len(found), 'submission')}")
    if roster is not None:
        lines, unplaced = with_marks(roster, about, found)
        files.append(out / f"{roster.site}.csv")
        atomic_write(files[-1], as_csv(lines).encode())
        problems += unplaced
    open_questions = sum(row["points"] is None for result in found for row in result["questions"])
    return Books(tuple(files), len(found), open_questions, tuple(problems))


def best(results: Path, file: str, last: dict[str, Any]) -> dict[str, Any]:
    """The try with the most points, of those that were asked by the same release; of equals the latest."""
    earlier = sorted((results / "history").glob(f"*/{file}.json"), reverse=True)
    tries = [last, *(one for one in map(read_file, earlier) if one["version"] == last["version"])]
    return max(tries, key=lambda one: sum(points or 0 for points in marks(one).values()))


def wide(about: About, found: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """A row a student; the total is empty while a question is not graded."""
    yield ["student", *(question.id for question in about.questions), "total", "max", "not_graded"]
    most = number(sum(question.points for question in about.questions))
    for result in found:
        points = [row["points"] for row in result["questions"]]
        yield [result["student"], *map(number, points), number(total(result)), most, str(points.count(None))]


def _head(about: About, policy: str) -> dict[str, str]:
    return {"homework": about.homework, "title": about.title, "version": about.version, "policy": policy}


def _student(result: Mapping[str, Any]) -> dict[str, Any]:
    points = [row["points"] for row in result["questions"]]
    return {
        "student": result["student"],
        "total": total(result),
        "not_graded": points.count(None),
        "sandbox": result["sandbox"],
        "sandboxed": result["sandbox"] != "none",
        "version": result["version"],
        "submission": result["submission"],
        "questions": [{name: row[name] for name in ROW if name in row} for row in result["questions"]],
    }
