"""The source of a homework, an nbgrader notebook: which cell is what, what students get of it, what stays hidden.

The hidden part of a test cell describes a question; it is no list of asserts. Outside, in a process that never ran a
student's code, `inputs(rng)` draws what is asked and `judge(found, expected, **inputs)` compares. Inside the student's
kernel `call(answers, **inputs)` runs his functions. Arrays and tensors of `inputs` reach `call` and `judge` as tensors.
"""

from __future__ import annotations

import ast
import builtins
import hmac
import json
import re
import symtable
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["setup", "answer", "test", "manual", "text"]
STUB = "# YOUR CODE HERE"
SOLUTION, HIDDEN = ("### BEGIN SOLUTION", "### END SOLUTION"), ("### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS")
MARKS = (*SOLUTION, *HIDDEN)
TEST = "test-"  # the id of a test cell is this and the id of its question
QUESTION = re.compile(r"[a-z][a-z0-9_]{0,30}\Z")


class HomeworkError(ValueError):
    """A source, release or submission that cannot be used; the sentence names it and the way out."""


@dataclass(frozen=True)
class SourceCell:
    """A cell of the source. `id` is nbgrader's grade_id, for text the cell's own."""

    id: str
    kind: Kind
    source: str
    points: float = 0.0
    code: bool = True
    tags: tuple[str, ...] = ()
    graded: bool = True  # it has nbgrader metadata

    @property
    def question(self) -> str:
        """Of a test cell."""
        return self.id.removeprefix(TEST)


@dataclass(frozen=True)
class Source:
    """A source notebook, read and checked cell by cell."""

    path: Path
    title: str
    cells: tuple[SourceCell, ...]

    @property
    def name(self) -> str:
        return self.path.stem

    def of_kind(self, *kinds: Kind) -> list[SourceCell]:
        return [cell for cell in self.cells if cell.kind in kinds]

    def heading(self, cell_id: str) -> str:
        """The last heading before a cell, without what stands in brackets at its end; "" if there is none."""
        found = ""
        for cell in self.cells:
            if cell.id == cell_id:
                break
            if not cell.code:
                found = _heading(cell.source) or found
        return re.sub(r"\s*\([^()]*\)$", "", found)


def _heading(text: str) -> str:
    lines = re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE)
    return lines[-1] if lines else ""


def read_source(path: str | Path) -> Source:
    """Read a source notebook. HomeworkError names the cell that is not as it should be."""
    path = Path(path)
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        raw = [(cell["cell_type"], "".join(cell["source"]), cell["metadata"], cell) for cell in notebook["cells"]]
    except OSError as error:
        raise HomeworkError(f"{path}: could not be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HomeworkError(f"{path}: this is no notebook of nbformat 4; open and save it in JupyterLab") from error
    cells = []
    for number, (cell_type, source, metadata, cell) in enumerate(raw):
        where = f"{path}: cell {number}"
        if cell.get("attachments"):
            raise HomeworkError(f"{where} has attachments: put pictures into the folder files/ beside the source")
        cells.append(_read_cell(where, cell_type, source, metadata, str(cell.get("id", f"cell-{number}"))))
    ids = [cell.id for cell in cells]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise HomeworkError(f"{path}: the id {twice[0]!r} belongs to {ids.count(twice[0])} cells: give each its own")
    if not any(cell.kind in ("test", "manual") for cell in cells):
        raise HomeworkError(f"{path}: no cell has points: a question ends with a test cell, its id test-<question>")
    title = next((heading for cell in cells if not cell.code and (heading := _first_heading(cell.source))), path.stem)
    return Source(path, title, tuple(cells))


def _first_heading(text: str) -> str:
    found = re.search(r"^# +(.+?)\s*$", text, re.MULTILINE)
    return found[1] if found else ""


def _read_cell(where: str, cell_type: str, source: str, metadata: Mapping[str, Any], cell_id: str) -> SourceCell:
    code, flags = cell_type == "code", metadata.get("nbgrader") or {}
    if not isinstance(flags, dict):
        raise HomeworkError(f"{where}: its nbgrader metadata are no dictionary")
    tags = tuple(map(str, metadata.get("tags", ())))
    grade, solution, locked = (bool(flags.get(name)) for name in ("grade", "solution", "locked"))
    if cell_type == "raw":
        raise HomeworkError(f"{where} is raw: make it Markdown or code")
    if not (grade or solution or locked):
        if code:
            raise HomeworkError(f"{where} is code that nbgrader knows nothing of: mark it as read-only, answer or test")
        kind: Kind = "text"
    else:
        if flags.get("schema_version") != 3:
            raise HomeworkError(f"{where}: nbgrader schema_version {flags.get('schema_version')!r}, 3 is needed")
        if flags.get("task"):
            raise HomeworkError(f"{where} is a task of nbgrader: use a manually graded answer in its place")
        grade_id = flags.get("grade_id")
        if not isinstance(grade_id, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,60}", grade_id):
            raise HomeworkError(f"{where}: grade_id {grade_id!r} must be letters, digits, - and _")
        cell_id = grade_id
        kind = "manual" if grade and solution else "test" if grade else "answer" if solution else "setup"
        if kind == "setup" and not code:
            kind = "text"
    points = flags.get("points", 0) if kind in ("test", "manual") else 0
    if not isinstance(points, int | float) or not 0 <= points < 1000 or (kind in ("test", "manual") and not points):
        raise HomeworkError(f"{where}: {cell_id} has {points!r} points, a number above 0 is needed")
    if kind in ("answer", "test") and not code:
        raise HomeworkError(f"{where}: {cell_id} is {cell_type}, an answer or a test must be code")
    if kind == "test":
        if not cell_id.startswith(TEST) or not QUESTION.match(cell_id.removeprefix(TEST)):
            raise HomeworkError(f"{where}: the id of a test is {TEST}<question>, as in {TEST}q1, not {cell_id!r}")
        if not locked:
            raise HomeworkError(f"{where}: {cell_id} must be locked")
    _check_marks(where, kind, source)
    return SourceCell(cell_id, kind, source, float(points), code, tags, bool(flags))


def _check_marks(where: str, kind: Kind, source: str) -> None:
    marks: dict[str, tuple[str, ...]] = {"answer": SOLUTION, "manual": SOLUTION, "test": HIDDEN}
    allowed = marks.get(kind, ())
    found = [line.strip() for line in source.splitlines() if re.match(r"\s*#+\s*(BEGIN|END)\b", line)]
    for mark in found:
        if mark not in allowed:
            raise HomeworkError(f"{where}: {mark!r} has no meaning in a cell of kind {kind}")
    if found != list(allowed) * (len(found) // 2) or len(found) % 2:
        raise HomeworkError(f"{where}: every {allowed[0]!r} needs its {allowed[1]!r} after it")
    if kind == "test" and len(found) != 2:
        raise HomeworkError(f"{where}: a test cell has one region from {HIDDEN[0]!r} to {HIDDEN[1]!r}")


def for_students(cell: SourceCell) -> str:
    """The cell as students get it: without solutions and hidden tests."""
    if cell.kind == "test":
        return _without(cell.source, HIDDEN, lambda indent: []).strip("\n")
    if cell.kind in ("answer", "manual"):
        if SOLUTION[0] not in cell.source:
            return STUB if cell.code else ""
        return _without(cell.source, SOLUTION, lambda indent: stub(indent) if cell.code else [])
    return cell.source


def stub(indent: str) -> list[str]:
    """In a body it says that nothing was attempted; at the top of a cell it must let the cell run."""
    return [indent + STUB, *([indent + "raise NotImplementedError"] if indent else [])]


def _without(source: str, marks: tuple[str, str], instead: Callable[[str], list[str]]) -> str:
    kept, inside = [], False
    for line in source.splitlines():
        if line.strip() == marks[0]:
            inside = True
            kept += instead(line[: len(line) - len(line.lstrip())])
        elif line.strip() == marks[1]:
            inside = False
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def regions(source: str, marks: tuple[str, str]) -> str:
    """What stands between the marks, dedented."""
    kept, inside = [], False
    for line in source.splitlines():
        if line.strip() in marks:
            inside = line.strip() == marks[0]
        elif inside:
            kept.append(line)
    return textwrap.dedent("\n".join(kept)).strip("\n") + "\n"


def solved(cell: SourceCell) -> str:
    """An answer with its solution in place, without the marks."""
    return "\n".join(line for line in cell.source.splitlines() if line.strip() not in SOLUTION)


# The hidden part


@dataclass(frozen=True)
class Hidden:
    """The hidden part of a test cell, loaded. Of it, `call_source` alone goes into a student's kernel."""

    question: str
    source: str
    needs: tuple[str, ...]  # questions that this one builds on
    answers: tuple[str, ...]  # ids of answer cells
    names: tuple[str, ...]  # what is looked up in the kernel
    cases: int
    inputs: Callable[[np.random.Generator], dict[str, Any]]
    judge: Callable[..., Any]  # -> Verdict, or {check: (points, Verdict)}
    call: Callable[..., Any]
    call_source: str


def load_hidden(question: str, source: str, where: str = "") -> Hidden:
    """Run the hidden part of a question, which is the teacher's, and look at what it defines.

    HomeworkError says what is missing, and which name `call` uses without defining it.
    """
    where = f"{where}: " if where else ""
    where += f"the hidden part of {TEST}{question}"
    found: dict[str, Any] = {"__name__": f"hidden_{question}"}
    try:
        exec(compile(source, f"<hidden part of {question}>", "exec"), found)
        tree = ast.parse(source)
    except Exception as error:
        raise HomeworkError(f"{where} stops with {type(error).__name__}: {error}") from error
    for name in ("inputs", "call", "judge"):
        if not callable(found.get(name)):
            raise HomeworkError(f"{where} defines no function {name}")
    lists = {}
    for name in ("NEEDS", "ANSWERS", "NAMES"):
        value = found.get(name, [])
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
            raise HomeworkError(f"{where}: {name} is {value!r}, a list of strings is needed")
        lists[name] = tuple(value)
    if not lists["ANSWERS"] or not lists["NAMES"]:
        raise HomeworkError(f"{where} needs ANSWERS, the ids of its answer cells, and NAMES, what they define")
    if wrong := [name for name in lists["NAMES"] if not name.isidentifier()]:
        raise HomeworkError(f"{where}: {wrong[0]!r} in NAMES is no Python name")
    cases = found.get("CASES", 3)
    if not isinstance(cases, int) or not 2 <= cases <= 100:
        raise HomeworkError(f"{where}: CASES is {cases!r}, a number from 2 to 100 is needed")
    calls = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "call"]
    if len(calls) != 1:
        raise HomeworkError(f"{where}: call must be written once, as a function with def, at the left margin")
    call_source = ast.unparse(calls[0]) + "\n"
    if loose := sorted(_loose_names(call_source)):
        raise HomeworkError(f"{where}: call uses {', '.join(loose)}, which only the grader has: import it inside call")
    return Hidden(
        question, source, lists["NEEDS"], lists["ANSWERS"], lists["NAMES"], cases,
        found["inputs"], found["judge"], found["call"], call_source,
    )  # fmt: skip


def _loose_names(source: str) -> set[str]:
    """Names that a function takes from outside."""
    loose: set[str] = set()

    def visit(scope: symtable.SymbolTable) -> None:
        if scope.get_type() == "function":
            loose.update(symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global())
        for child in scope.get_children():
            visit(child)

    visit(symtable.symtable(source, "<call>", "exec"))
    return loose - set(dir(builtins))


def drawing(
    key: bytes, homework: str, student: str, submission_sha256: str, question: str, case: int
) -> np.random.Generator:
    """The generator that draws one hidden case. The same file gets the same inputs, another student or try others.

    The version of the release is not in it: so a mended `judge` can judge the answers that are there already.
    """
    parts = (homework, student, submission_sha256, question, str(case))
    message = b"\0".join(part.encode("utf-8", "surrogateescape") for part in parts)
    return np.random.default_rng(int.from_bytes(hmac.digest(key, message, "sha256")))
