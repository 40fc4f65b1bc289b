"""The folder of a run: what was graded, a result a student, and what the results were before.

OUT/homework.json               the homework, the version of its release, its questions
OUT/results/<file>.json         one a student
OUT/answers/<file>.safetensors  what his boxes gave (see answers.py)
OUT/history/<time>/<file>.json  what a result was before that grading changed it
OUT/regrade.csv                 the marks that the last grading changed
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from course_lib.files import atomic_write, read_json, write_json
from course_lib.grading.manifest import Question, Release, build
from course_lib.grading.source import HomeworkError

SCHEMA = 1
NEEDED = ("student", "homework", "version", "sandbox", "submission", "messages", "texts", "cells", "sources")
ROW = {"question", "points", "max_points", "outcome", "reason", "seconds", "inputs_sha256", "carried", "checks"}


@dataclass(frozen=True)
class About:
    """What the results in a folder are of. `release` is where its release lay."""

    homework: str
    title: str
    version: str
    release: str
    questions: tuple[Question, ...]

    @classmethod
    def of(cls, release: Release) -> About:
        manifest = release.manifest
        folder = str(release.folder.resolve())
        return cls(manifest.homework, manifest.title, manifest.version, folder, manifest.questions)

    @classmethod
    def read(cls, out: Path) -> About:
        """HomeworkError if `out` is no folder of results."""
        path = out / "homework.json"
        try:
            found = read_json(path)
            if found is None:
                raise HomeworkError(f"{path} is missing: name a folder that `course grade` wrote")
            return cls(**{**found, "questions": tuple(build(Question, each) for each in found["questions"])})
        except OSError as error:
            raise HomeworkError(f"{path} could not be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if isinstance(error, HomeworkError):
                raise
            raise HomeworkError(f"{path} is not as `course grade` writes it: grade again") from error

    def write(self, out: Path) -> None:
        """HomeworkError if the results there are of another homework."""
        if (out / "homework.json").exists() and (there := About.read(out)).homework != self.homework:
            raise HomeworkError(f"{out} holds the results of {there.homework}: give {self.homework} another --out")
        write_json(out / "homework.json", asdict(self))


def file_of(student: str) -> str:
    """The name of a student's result, without its ending: safe on every disk, and another for every student."""
    safe = "".join(one if one.isascii() and (one.isalnum() or one in "-_") else "_" for one in student)
    return f"{safe[:40]}-{hashlib.sha256(os.fsencode(student)).hexdigest()[:8]}"


def read_result(out: Path, student: str) -> dict[str, Any] | None:
    """The result of a student; None if there is none that can be read."""
    try:
        found = read_json(out / "results" / f"{file_of(student)}.json")
    except ValueError:
        return None
    whole = isinstance(found, dict) and found.get("schema") == SCHEMA and isinstance(found.get("questions"), list)
    return found if whole else None


def read_file(path: Path) -> dict[str, Any]:
    """A result. HomeworkError names the file if it is broken or not as this course writes it."""
    try:
        found = read_json(path)
    except OSError as error:
        raise HomeworkError(f"{path} could not be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise HomeworkError(f"{path} is broken or cut off: delete it and run `course grade` again") from error
    whole = isinstance(found, dict) and found.get("schema") == SCHEMA and set(NEEDED) <= set(found)
    rows = found.get("questions") if whole else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and set(row) >= ROW for row in rows):
        raise HomeworkError(f"{path} is not as this course writes it: delete it and run `course grade` again")
    return found


def read_all(out: Path, about: About) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file, result) of this homework in the order of the students' names; questions in the order of the homework."""
    order = {question.id: at for at, question in enumerate(about.questions)}
    found = [(path.stem, read_file(path)) for path in (out / "results").glob("*.json")]
    for file, result in sorted(found, key=lambda each: (each[1]["student"], each[0])):
        result["questions"].sort(key=lambda row: order.get(row["question"], len(order)))
        yield file, result


def begin(out: Path) -> str:
    """The time of this grading. One that was stopped goes on as the same, so that what changed is told once."""
    path = out / "unfinished"
    if not path.exists():
        atomic_write(path, datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ").encode())
    return path.read_text().strip()


def store(out: Path, student: str, result: Mapping[str, Any], grading: str = "") -> dict[str, Any]:
    """Write a result whole, and give what was written. One of an earlier grading that changes goes to the history.

    What was judged before with the same key stays, where this time it was not asked or could not be judged, and so does
    what was read of the file, where this time it was not read.
    """
    old, file = read_result(out, student), f"{file_of(student)}.json"
    result = dict(result) | {"grading": grading}
    if old and old["key"] == result["key"]:
        rows = {row["question"]: row for row in result["questions"]}
        for row in old["questions"]:
            new = rows.get(row["question"])
            if new is None or (new["outcome"] == "not_graded" and row["outcome"] != "not_graded"):
                rows[row["question"]] = row
        result["questions"] = list(rows.values())
        if old["submission"] and not result["submission"]:
            result |= {name: old[name] for name in ("submission", "messages", "texts", "sources")}
        if len(old["cells"]) > len(result["cells"]):
            result["cells"] = old["cells"]
    if old and old.get("grading") != grading and (old["key"] != result["key"] or marks(old) != marks(result)):
        write_json(out / "history" / grading / file, old)
    write_json(out / "results" / file, result)
    line = {name: result.get(name) for name in ("student", "attempts", "seconds", "times", "peak_mb")}
    line["outcomes"] = {row["question"]: row["outcome"] for row in result["questions"]}
    with (out / "progress.jsonl").open("a", encoding="utf-8") as progress:
        progress.write(json.dumps(line) + "\n")
    return result


def marks(result: Mapping[str, Any]) -> dict[str, float | None]:
    """{question: points, None if not graded}"""
    return {row["question"]: row["points"] for row in result["questions"]}


def changes(out: Path, grading: str) -> Iterator[tuple[str, str, float | None, float | None, str]]:
    """Student, question, points before and after, and why, of every mark that a grading changed."""
    for path in sorted((out / "history" / grading).glob("*.json")):
        try:
            old = read_json(path)
            new = read_file(out / "results" / path.name)
            before, after = marks(old), marks(new)
            for question in dict.fromkeys([*before, *after]):
                if before.get(question) != after.get(question):
                    why = _why(old, new, question)
                    yield new["student"], question, before.get(question), after.get(question), why
        except (ValueError, KeyError, TypeError) as error:
            raise HomeworkError(f"{path} or the result it was before is broken: grade that student again") from error


def _why(old: Mapping[str, Any], new: Mapping[str, Any], question: str) -> str:
    sums = [(result.get("submission") or {}).get("sha256") for result in (old, new)]
    found = ["another file"] if sums[0] != sums[1] else []
    what = {"version": "release", "profile": "profile", "sandbox": "box", "environment": "set of packages"}
    found += [f"another {words}" for name, words in what.items() if old.get(name) != new.get(name)]
    if not found:
        found = ["graded again"] if old["key"] == new["key"] else ["other limits"]
    if any(row["question"] == question and row.get("kept") for row in new["questions"]):
        found.append("the same answer judged again")
    return ", ".join(found)
