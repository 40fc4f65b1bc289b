"""Marks as tables: gradebook.csv of a run, and what it changed. Safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from course_lib.files import atomic_write
from course_lib.grading import results

COLUMNS = ("student", "homework", "question", "points", "max_points", "outcome", "reason", "seconds")
CHANGES = ("student", "question", "before", "after", "why")
FORMULA = re.compile(
    r"'*[=+\-@\t\r\n＝＋－＠]"
)  # what a spreadsheet may compute; ' before it, so that `plain` is exact


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Every field in quotes, lines as in RFC 4180; a text that a spreadsheet would compute gets a ' before it."""
    table = io.StringIO()
    writer = csv.writer(table, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    for row in rows:
        writer.writerow([defused(each) if isinstance(each, str) else each for each in row])
    return table.getvalue()


def defused(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) else text


def plain(text: str) -> str:
    """The text that `defused` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def number(points: float | None) -> str:
    """Points in a table: empty where a person has to settle them."""
    return "" if points is None else f"{points:g}"


def write_gradebook(path: Path, of: Iterable[Mapping[str, Any]]) -> None:
    """gradebook.csv: a row a student and question."""
    rows: list[Sequence[object]] = [COLUMNS]
    for result in of:
        for row in result["questions"]:
            rows.append(
                (
                    result["student"], result["homework"], row["question"], number(row["points"]),
                    number(row["max_points"]), row["outcome"], row["reason"], number(row["seconds"]),
                )
            )  # fmt: skip
    atomic_write(path, as_csv(rows).encode())


def write_changes(out: Path, grading: str) -> tuple[int, tuple[str, ...]]:
    """regrade.csv: the marks that a grading changed; how many there are, and those that fell, in words."""
    found = list(results.changes(out, grading))
    rows = [(student, question, number(old), number(new), why) for student, question, old, new, why in found]
    atomic_write(out / "regrade.csv", as_csv([CHANGES, *rows]).encode())
    fallen = tuple(
        f"{student}, {question}: {number(old)} -> {number(new) or 'not graded'} ({why})"
        for student, question, old, new, why in found
        if old is not None and (new is None or new < old)
    )
    return len(found), fallen
