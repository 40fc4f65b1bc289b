"""What of a submission is run: taken by nbgrader's ids, never trusting metadata.

The teacher's setup goes first. Then come, in the student's order, his answers and whatever else is code. Answers are
looked up by name in the kernel, so a notebook whose metadata an editor dropped loses nothing. Outputs, attachments,
metadata and tags are left behind; points come from the manifest alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from course_lib.grading.manifest import Manifest, Question
from course_lib.grading.source import HomeworkError

MOST_PARTS = 4_000_000  # of JSON: each may take 60 bytes of memory when it is read


class SubmissionError(HomeworkError):
    """A submission that a person has to look at; the sentence names the file. It is not graded, never 0."""


@dataclass(frozen=True)
class Piece:
    """A cell that is run. `index` is its number in the student's notebook, None for the teacher's setup."""

    kind: Literal["setup", "answer", "helper"]
    source: str
    id: str = ""  # of setup and answers
    index: int | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submission:
    """A submission as it will be run. `texts`: what was written into manual cells, {id: text}."""

    path: str  # below the folder of submissions
    sha256: str
    bytes: int
    pieces: tuple[Piece, ...]
    texts: Mapping[str, str]
    messages: tuple[str, ...]  # for the student: what was found odd, and what was done about it


def shown(name: str) -> str:
    """A name of a file as text, no two names as the same: bytes that are no UTF-8 and control characters as \\xNN."""
    text = name.replace("\\", "\\\\").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def harmless(text: str) -> str:
    """Without escape sequences, control and bidirectional characters."""
    # none of these parts may look far ahead for its end: a text of a million beginnings must not take hours
    text = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.", "", text, flags=re.DOTALL)
    return "".join(c for c in text if c in "\t\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))


def extract(content: bytes, manifest: Manifest, path: str) -> Submission:
    """The pieces of a notebook. SubmissionError if it is no JSON or holds no cells."""
    known = {cell.id: cell for cell in manifest.cells}
    given = {_plain(cell.source): cell.kind for cell in manifest.cells if cell.kind in ("setup", "test")}
    setup = [cell for cell in manifest.cells if cell.kind == "setup"]
    pieces = [Piece("setup", cell.source, cell.id, None, cell.tags) for cell in setup]
    texts: dict[str, list[str]] = {}
    seen: dict[str, int] = {}
    messages = []
    for index, (cell_type, source, cell_id) in enumerate(_cells(content, shown(path))):
        cell = known.get(cell_id)
        kind = cell.kind if cell else "text"
        if kind in ("answer", "manual"):
            seen[cell_id] = seen.get(cell_id, 0) + 1
        if kind == "answer":
            if cell_type != "code":
                messages.append(f"the answer cell {cell_id} was {cell_type}; it was run as code")
            pieces.append(Piece("answer", source, cell_id, index))
        elif kind == "manual":
            texts.setdefault(cell_id, []).append(source)
        elif cell_type != "code" or not source.strip() or _plain(source) in given:
            continue  # text, or the teacher's own cell, whatever its metadata say
        elif _only_sets(source, manifest.parameters):
            continue  # the grader chooses the parameters
        else:
            if cell:
                messages.append(f"{cell_id} is not as it was given: the teacher's was used, yours was run after it")
            pieces.append(Piece("helper", source, "", index))
    for question in manifest.questions:
        for name in question.answers:
            if seen.get(name, 0) > 1:
                messages.append(f"{seen[name]} cells have the id {name}: all were used, in their order")
            if name not in seen:
                messages.append(f"no cell has the id {name}: answers to {question.id} were looked for by name")
    sum = hashlib.sha256(content).hexdigest()
    kept = {name: "\n\n".join(parts) for name, parts in texts.items()}
    return Submission(path, sum, len(content), tuple(pieces), kept, tuple(messages))


def _cells(content: bytes, path: str) -> list[tuple[str, str, str]]:
    """Type, source and nbgrader id of everything that looks like a cell."""
    if content.count(b",") + content.count(b"[") + content.count(b"{") > MOST_PARTS:
        raise SubmissionError(f"{path} has more than {MOST_PARTS:,} parts: clear its outputs")
    try:
        notebook = json.loads(content.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else "it is broken or cut off"
        raise SubmissionError(f"{path} is no notebook, {why}: save it anew in JupyterLab") from error
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        older = isinstance(notebook, dict) and "worksheets" in notebook
        why = "is in an older format of notebooks" if older else "has no list of cells"
        raise SubmissionError(f"{path} {why}: save it anew in JupyterLab")
    found = []
    for cell in cells:
        if not isinstance(cell, dict) or not isinstance(cell.get("cell_type"), str):
            continue
        source = cell.get("source", "")
        if isinstance(source, list):
            source = "".join(part for part in source if isinstance(part, str))
        if not isinstance(source, str):
            continue
        source = source.encode("utf-8", "replace").decode()  # JSON may hold half of a surrogate pair
        found.append((cell["cell_type"], source, _grade_id(cell)))
    return found


def _grade_id(cell: Mapping[str, Any]) -> str:
    metadata = cell.get("metadata")
    flags = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    found = flags.get("grade_id") if isinstance(flags, dict) else None
    return found if isinstance(found, str) else ""


def _plain(source: str) -> str:
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def _only_sets(source: str, names: Mapping[str, str]) -> bool:
    """Does a cell do nothing but set parameters of the grader's? By its text: parsing a stranger's could crash us."""
    value = r"""("[^"\\]*"|'[^'\\]*'|[\w.]+)"""
    line = re.compile(rf"({'|'.join(map(re.escape, names))}) *= *{value} *(#.*)?$" if names else r"(?!)")
    lines = [each for each in _plain(source).splitlines() if each and not each.startswith("#")]
    return bool(lines) and all(line.match(each) for each in lines)


# What a question needs


def defines(source: str, names: Sequence[str]) -> bool:
    """Does a cell define one of `names` at its left margin?"""
    wanted = "|".join(map(re.escape, names))
    return bool(names) and bool(
        re.search(rf"^(async +def|def|class) +({wanted})\b|^({wanted})\b[^=\n(]*=(?!=)", source, re.M)
    )


def belongs(piece: Piece, question: Question) -> bool:
    """Is this piece an answer to the question, by its id or by what it defines?"""
    if piece.kind == "answer":
        return piece.id in question.answers
    return piece.kind == "helper" and defines(piece.source, question.names)


def up_to(pieces: Sequence[Piece], question: Question) -> tuple[Piece, ...]:
    """The pieces up to the last that belongs to a question: what it is run with when it is run alone."""
    last = max((at for at, piece in enumerate(pieces) if belongs(piece, question)), default=len(pieces) - 1)
    return tuple(pieces[: last + 1])


def with_reference(pieces: Sequence[Piece], question: Question, reference: Mapping[str, str]) -> tuple[Piece, ...]:
    """The pieces with the right answers to a question after its own. What is run so must never be quoted.

    Its own stay: what else they define or import may be what later answers need.
    """
    own = [at for at, piece in enumerate(pieces) if belongs(piece, question)]
    setup = max((at for at, piece in enumerate(pieces) if piece.kind == "setup"), default=-1)
    at = own[-1] if own else setup
    right = tuple(Piece("answer", reference[name], name) for name in question.answers)
    return (*pieces[: at + 1], *right, *pieces[at + 1 :])
