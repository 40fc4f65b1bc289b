"""What a release says of itself, manifest.json, and the private part of a release as the grader reads it.

DIR/student/<name>.ipynb, files/     all that students get
DIR/private/  manifest.json  reference.ipynb  checks/<question>.py  mutants/  right/  key
DIR/report.json
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from course_lib.files import read_json, sha256, write_json
from course_lib.grading.source import Hidden, HomeworkError, Kind, load_hidden

SCHEMA = 1
PRIVATE = "private"


@dataclass(frozen=True)
class Limits:
    """What one submission may take; seconds by the wall clock, MB of 2**20 bytes."""

    cell_s: float = 60.0
    question_s: float = 60.0
    submission_s: float = 300.0  # all boxes of it together
    cpu_s: int = 300  # a process
    memory_mb: int = 4096  # resident, all processes together
    address_mb: int = 4096  # a process
    processes: int = 64
    files: int = 256  # open ones, a process
    file_mb: int = 64
    folder_mb: int = 256
    tmp_mb: int = 128  # /tmp and /dev/shm, each
    output_mb: float = 4.0
    message_mb: float = 16.0
    answer_mb: int = 64  # what a question may give back


@dataclass(frozen=True)
class Cell:
    """A cell of the notebook that students get. `sha256` is that of `source`."""

    id: str
    kind: Kind
    source: str
    sha256: str
    code: bool = True
    tags: tuple[str, ...] = ()  # "parameters" where papermill puts them

    @classmethod
    def of(cls, id: str, kind: Kind, source: str, code: bool = True, tags: tuple[str, ...] = ()) -> Cell:
        return cls(id, kind, source, hashlib.sha256(source.encode()).hexdigest(), code, tags)


@dataclass(frozen=True)
class Check:
    """One of the things that `judge` tells apart, and what it is worth."""

    name: str
    points: float


@dataclass(frozen=True)
class Question:
    """`manual`: a text to be read by a person; it has no names, cases and checks."""

    id: str
    title: str
    points: float
    answers: tuple[str, ...]
    names: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    cases: int = 0
    checks: tuple[Check, ...] = ()
    carry: bool = True
    manual: bool = False


@dataclass(frozen=True)
class Manifest:
    """Everything a grader must know of a homework, without what is hidden. `version` is the sum of all but itself and
    `created`; through `private` it stands for the hidden parts too."""

    homework: str
    title: str
    cells: tuple[Cell, ...]
    questions: tuple[Question, ...]
    version: str = ""
    created: str = ""  # ISO 8601, UTC
    parameters: Mapping[str, str] = field(default_factory=lambda: {"profile": "smoke"})
    limits: Limits = Limits()
    library: tuple[str, ...] = ()  # modules of course_lib that a submission may import, with all they import
    files: Mapping[str, str] = field(default_factory=dict)  # path in student/ -> sha256
    private: Mapping[str, str] = field(default_factory=dict)  # path in private/ -> sha256
    environment: Mapping[str, str] = field(default_factory=dict)  # package -> version at the release
    schema: int = SCHEMA

    def question(self, id: str) -> Question:
        """HomeworkError names the questions there are."""
        for question in self.questions:
            if question.id == id:
                return question
        raise HomeworkError(
            f"{self.homework} has no question {id!r}: there are {', '.join(q.id for q in self.questions)}"
        )

    @property
    def points(self) -> float:
        return sum(question.points for question in self.questions)

    @property
    def sum(self) -> str:
        """What `version` must be."""
        content = {name: value for name, value in asdict(self).items() if name not in ("version", "created")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def stamped(self, created: str) -> Manifest:
        return replace(self, version=self.sum, created=created)

    def write(self, path: str | Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """HomeworkError if it is not there, of another schema, or changed since it was written."""
        path = Path(path)
        try:
            content = read_json(path)
        except OSError as error:
            raise HomeworkError(f"{path}: could not be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise HomeworkError(f"{path}: this is no JSON ({error}): make the release again") from error
        if content is None:
            raise HomeworkError(f"{path} is missing: name a folder that `course release` wrote")
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            found = content.get("schema") if isinstance(content, dict) else None
            raise HomeworkError(
                f"{path} is of schema {found!r}, this course reads {SCHEMA}: release the source again with this course"
            )
        try:
            manifest = build(cls, content)
        except (TypeError, KeyError, AttributeError) as error:
            raise HomeworkError(f"{path}: {error}: make the release again") from error
        if manifest.version != manifest.sum:
            raise HomeworkError(f"{path} was changed after it was written: make the release again from its source")
        return manifest


_PARTS: dict[tuple[type, str], type] = {
    (Manifest, "cells"): Cell, (Manifest, "questions"): Question, (Question, "checks"): Check,
}  # fmt: skip


def build(kind: Any, content: Mapping[str, Any]) -> Any:
    """A dataclass from its dictionary: lists become tuples, dictionaries of parts the parts."""
    if unknown := set(content) - {each.name for each in fields(kind)}:
        raise TypeError(f"{kind.__name__} has no {sorted(unknown)[0]!r}")
    values = dict(content)
    for name, value in values.items():
        if part := _PARTS.get((kind, name)):
            values[name] = tuple(build(part, each) for each in value)
        elif name == "limits":
            values[name] = build(Limits, value)
        elif isinstance(value, list):
            values[name] = tuple(value)
    return kind(**values)


@dataclass(frozen=True)
class Release:
    """A release as its grader reads it. `key` and `hidden` are secret; `reference` is {answer id: right source}."""

    folder: Path
    manifest: Manifest
    key: bytes
    hidden: Mapping[str, Hidden]
    reference: Mapping[str, str]

    @classmethod
    def read(cls, folder: str | Path) -> Release:
        """HomeworkError if the folder is no release, or if a file of its private part is missing or was changed."""
        folder = Path(folder)
        manifest = Manifest.read(folder / PRIVATE / "manifest.json")
        try:
            given = {
                folder / "student" / path: sum for path, sum in manifest.files.items() if path.startswith("files/")
            }
            for path, sum in ({folder / PRIVATE / path: sum for path, sum in manifest.private.items()} | given).items():
                if sha256(path) != sum:
                    raise HomeworkError(f"{path} was changed after the release: make it again")
            key = bytes.fromhex((folder / PRIVATE / "key").read_text().strip())
            sources = {
                question.id: (folder / PRIVATE / "checks" / f"{question.id}.py").read_text(encoding="utf-8")
                for question in manifest.questions
                if not question.manual
            }
            notebook = json.loads((folder / PRIVATE / "reference.ipynb").read_text(encoding="utf-8"))
        except OSError as error:
            raise HomeworkError(f"{error.filename}: {error.strerror}: make the release again") from error
        except ValueError as error:
            if isinstance(error, HomeworkError):
                raise
            raise HomeworkError(f"{folder / PRIVATE}: {error}: make the release again") from error
        if len(key) != 32:
            raise HomeworkError(f"{folder / PRIVATE / 'key'} holds {len(key)} bytes, not 32: make the release again")
        answers = {cell.id for cell in manifest.cells if cell.kind == "answer"}
        named = {(cell["metadata"].get("nbgrader") or {}).get("grade_id"): cell for cell in notebook["cells"]}
        return cls(
            folder,
            manifest,
            key,
            {name: load_hidden(name, source, str(folder)) for name, source in sources.items()},
            {name: "".join(named[name]["source"]) for name in answers if name in named},
        )
