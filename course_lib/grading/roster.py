"""A class list as Canvas and Moodle export it, and the same list with marks, as they import it.

Column names and names of downloads are those of Canvas's gradebook export and Moodle's offline grading worksheet; look
at one export of your own site before you rely on them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from course_lib.files import read_csv
from course_lib.grading.books import number
from course_lib.grading.overrides import total
from course_lib.grading.results import About
from course_lib.grading.source import HomeworkError

Row = dict[str, str]
NAMES = {  # columns that a student's folder may be called by
    "canvas": ("ID", "SIS User ID", "SIS Login ID", "Student"),
    "moodle": ("Identifier", "Email address", "Username", "ID number", "Full name"),
}
DOWNLOADS = {  # how the site names what it packs for a teacher; the number is the student's
    "canvas": re.compile(r"[^_]+(?:_LATE)?_(\d+)_\d+(?:_.*)?"),
    "moodle": re.compile(r".+?_(\d+)_assignsubmission_(?:file|onlinetext).*"),
}
IDENTITY = ("Student", "ID", "SIS User ID", "SIS Login ID", "Integration ID", "Root Account", "Section")
TOTALS = "Points Possible"


@dataclass(frozen=True)
class Roster:
    """The rows of an export, a student each."""

    path: Path
    site: Literal["canvas", "moodle"]
    rows: tuple[Row, ...]

    def find(self, student: str, id: str = "") -> int:
        """The row of a student, by his folder or by his number on this site.

        HomeworkError if there is none, or more than one.
        """
        found = [at for at, row in enumerate(self.rows) if student in self._names(row)]
        if not id and (download := DOWNLOADS[self.site].fullmatch(student)):
            id = download[1]
        if not found and id:
            found = [at for at, row in enumerate(self.rows) if id in self._names(row)]
        if len(found) != 1:
            raise HomeworkError(f"{student}: {len(found) or 'no'} rows of {self.path} fit the name of this folder")
        return found[0]

    def _names(self, row: Row) -> set[str]:
        names = {row.get(column, "") for column in NAMES[self.site]} - {""}
        return names | {name.removeprefix("Participant ") for name in names}


def read_roster(path: Path) -> Roster:
    """HomeworkError names the file if it is no export of Canvas or Moodle."""
    try:
        rows = [row for _, row in read_csv(path, ())]
    except OSError as error:
        raise HomeworkError(f"{path} could not be read: {error.strerror}") from error
    except ValueError as error:
        raise HomeworkError(str(error)) from error
    columns = list(rows[0]) if rows else []
    if {"Student", "ID"} <= set(columns):
        students = [row for row in rows if row["ID"].strip() and row["Student"].strip() != TOTALS]
        roster = Roster(path, "canvas", tuple(students))
    elif {"Identifier", "Full name"} <= set(columns):
        roster = Roster(path, "moodle", tuple(rows))
    else:
        raise HomeworkError(
            f"{path} is neither Canvas's export of a gradebook (Student, ID, ...) nor Moodle's grading worksheet "
            f"(Identifier, Full name, ...): its first line is {','.join(columns)[:100]!r}"
        )
    if not roster.rows:
        raise HomeworkError(f"{path} has no students: export it again")
    return roster


def with_marks(roster: Roster, about: About, found: Sequence[Mapping[str, Any]]) -> tuple[list[list[str]], list[str]]:
    """The lines of the table to import, its header first, and whose mark is not in it and why."""
    marks: dict[int, Mapping[str, Any]] = {}
    problems: list[str] = []
    for result in found:
        try:
            at = roster.find(result["student"], result.get("id", "") if result.get("site") == roster.site else "")
            if at in marks:
                raise HomeworkError(f"{result['student']} and {marks[at]['student']} are one row of {roster.path}")
            marks[at] = result
            if total(result) is None:
                problems.append(f"{result['student']}: left blank, not everything is graded")
        except HomeworkError as error:
            problems.append(str(error))
    problems += [f"{_name(row)}: nothing was graded" for at, row in enumerate(roster.rows) if at not in marks]
    table = _canvas if roster.site == "canvas" else _moodle
    return table(roster, about, marks), problems


def _name(row: Row) -> str:
    return row.get("Student") or row.get("Full name") or row.get("Identifier") or "a row without a name"


def _canvas(roster: Roster, about: About, marks: Mapping[int, Mapping[str, Any]]) -> list[list[str]]:
    columns = [column for column in IDENTITY if column in roster.rows[0]]
    names = "|".join(map(re.escape, (about.homework, about.title)))
    known = [column for column in roster.rows[0] if re.fullmatch(rf"({names}) \(\d+\)", column)]
    header = [*columns, known[0] if known else about.homework]
    lines = [header, [TOTALS if column == "Student" else "" for column in columns] + [_most(about)]]
    for at, row in enumerate(roster.rows):
        points = number(total(marks[at])) if at in marks else ""
        lines.append([*(row[column] for column in columns), points])
    return lines


def _moodle(roster: Roster, about: About, marks: Mapping[int, Mapping[str, Any]]) -> list[list[str]]:
    columns = list(dict.fromkeys([*roster.rows[0], "Grade", "Maximum Grade", "Feedback comments"]))
    lines = [columns]
    for at, row in enumerate(roster.rows):
        if at in marks:
            points = number(total(marks[at]))
            row = row | {"Grade": points, "Maximum Grade": _most(about)}
            row["Feedback comments"] = comments(marks[at]) if points else ""
        lines.append([row.get(column, "") for column in columns])
    return lines


def _most(about: About) -> str:
    return number(sum(question.points for question in about.questions))


def comments(result: Mapping[str, Any]) -> str:
    """A sentence a question that is not right."""
    rows = [row for row in result["questions"] if row["outcome"] != "right"]
    return "; ".join(f"{row['question']}: {row['reason'] or 'settled by a person'}" for row in rows)
