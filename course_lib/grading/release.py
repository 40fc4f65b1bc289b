"""From the source of a homework to a release: what students get, what the grader keeps, and that both hold.

Everything is made in DIR.part and renamed once every gate has held, so that a release is whole or not there.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import re
import secrets as randomness
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from course_lib.files import atomic_write, sha256, write_json
from course_lib.grading import box as boxes
from course_lib.grading import leaks
from course_lib.grading.extract import extract
from course_lib.grading.gates import (
    Draws,
    Gate,
    Homework,
    answers,
    defined,
    runs_whole,
    single,
    spread,
    try_answers,
    with_checks,
)
from course_lib.grading.manifest import PRIVATE, Cell, Manifest, Question, Release
from course_lib.grading.mark import box_of, grade_one
from course_lib.grading.reference import Reference
from course_lib.grading.source import (
    HIDDEN,
    TEST,
    Hidden,
    HomeworkError,
    Source,
    SourceCell,
    for_students,
    load_hidden,
    read_source,
    regions,
    solved,
)

PACKAGES = ("torch", "numpy", "einops", "safetensors", "ipykernel", "papermill")
FLAGS = {
    "setup": (False, False, True), "answer": (False, True, False), "test": (True, False, True),
    "manual": (True, True, False), "text": (False, False, True),
}  # fmt: skip  # nbgrader's grade, solution, locked


class GatesFailed(HomeworkError):
    """The source cannot be released; every gate that did not hold, a line each."""

    def __init__(self, source: Path, gates: Sequence[Gate]) -> None:
        lines = [f"  {gate.name}: {gate.found}" for gate in gates if not gate.held]
        super().__init__("\n".join([f"{source} was not released; of {len(gates)} gates did not hold:", *lines]))
        self.gates = tuple(gates)


def release(
    source: str | Path, out: str | Path, draws: int = 20, tell: Callable[[str], None] = lambda line: None
) -> Manifest:
    """Release the source of a homework, a notebook or its folder, into the folder `out`.

    HomeworkError says what to mend; then `out` is what it was before.
    """
    began = time.monotonic()
    path = find_source(Path(source))
    out = Path(out)
    if draws < 1:
        raise HomeworkError(f"{draws} draws: at least one is needed")
    key = _key_for(out, path.stem)
    read = read_source(path)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        homework = _write(read, part, key)
        homework, gates, spreads = _try(read, homework, part, key, draws, tell)
        if not all(gate.held for gate in gates):
            raise GatesFailed(path, gates)
        manifest = homework.manifest
        report = {
            "homework": manifest.homework,
            "version": manifest.version,
            "created": manifest.created,
            "draws": draws,
            "seconds": round(time.monotonic() - began, 1),
            "gates": [asdict(gate) for gate in gates],
            "spread": spreads,
        }
        write_json(part / "report.json", report)
        _put(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def find_source(path: Path) -> Path:
    """A notebook, or <name>/<name>.ipynb of a folder."""
    if path.is_dir():
        path = path / f"{path.resolve().name}.ipynb"
    if not path.is_file():
        raise HomeworkError(f"{path} is not there: name the source notebook, or its folder <name>/ with <name>.ipynb")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", path.stem):
        raise HomeworkError(f"{path}: the name of a homework is small letters, digits and _, as in timesformer.ipynb")
    return path


def _key_for(out: Path, homework: str) -> bytes:
    """That of the release which is there, so that the same submission is asked the same again; else a new one."""
    old = out.with_name(out.name + ".old")
    if old.is_dir() and not out.exists():  # stopped between two renames
        old.rename(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return randomness.token_bytes(32)
    try:
        there = json.loads((out / PRIVATE / "manifest.json").read_text(encoding="utf-8"))
        if there["homework"] != homework:
            raise HomeworkError(f"{out} holds a release of {there['homework']}: name another folder")
        key = bytes.fromhex((out / PRIVATE / "key").read_text().strip())
    except (OSError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HomeworkError(f"{out} is there and is no release: name another folder, or empty it") from error
    if len(key) != 32:
        raise HomeworkError(f"{out / PRIVATE / 'key'} holds no key: name another folder, or empty this one")
    return key


def _put(part: Path, out: Path) -> None:
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    part.rename(out)
    shutil.rmtree(old, ignore_errors=True)


# What is written


def prepare(source: Source) -> Homework:
    """What the gates are asked of: both notebooks, the hidden parts, the manifest but for what only answers tell."""
    folder = source.path.parent
    hidden = {
        cell.question: load_hidden(cell.question, regions(cell.source, HIDDEN), str(source.path))
        for cell in source.of_kind("test")
    }
    questions = _questions(source, hidden)
    graded = [question.id for question in questions if not question.manual]
    mutants, others = (_answers(folder / kind, graded) for kind in ("mutants", "right"))
    for name in graded:
        if not any(mutant.split("-")[0] == name for mutant in mutants):
            raise HomeworkError(f"{source.path}: {name} has no wrong answer; write mutants/{name}-<what>.py")
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    manifest = Manifest(
        homework=source.name,
        title=source.title,
        cells=tuple(Cell.of(c.id, c.kind, for_students(c), c.code, c.tags) for c in source.cells),
        questions=questions,
        library=library([cell.source for cell in source.of_kind("setup")]),
        environment={"python": platform.python_version(), **versions},
    )
    return Homework(
        manifest,
        hidden,
        reference=notebook(source, lambda c: solved(c) if c.kind in ("answer", "manual") else for_students(c)),
        untouched=notebook(source, for_students),
        right={cell.id: solved(cell) for cell in source.of_kind("answer")},
        mutants=mutants,
        others=others,
    )


def _write(source: Source, part: Path, key: bytes) -> Homework:
    """Both halves of the release into `part`, all but the manifest."""
    homework = prepare(source)
    student, private = part / "student", part / PRIVATE
    student.mkdir(parents=True, mode=0o755)
    private.mkdir(mode=0o700)
    atomic_write(student / f"{source.name}.ipynb", homework.untouched)
    own = f"{source.name}.ipynb"
    files = {own: sha256(student / own), **_copy(source.path.parent / "files", student / "files")}
    atomic_write(private / "reference.ipynb", homework.reference)
    for name, found in homework.hidden.items():
        atomic_write(private / "checks" / f"{name}.py", found.source.encode())
    for kind, beside in (("mutants", homework.mutants), ("right", homework.others)):
        for name, text in beside.items():
            atomic_write(private / kind / f"{name}.py", text.encode())
    sums = {str(path.relative_to(private)): sha256(path) for path in sorted(private.rglob("*.*"))}
    atomic_write(private / "key", key.hex().encode())
    for path in private.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    part.chmod(0o755)
    return replace(homework, manifest=replace(homework.manifest, files=files, private=sums))


def _questions(source: Source, hidden: Mapping[str, Hidden]) -> tuple[Question, ...]:
    """HomeworkError if answers, needs and cells do not fit together."""
    answers = {cell.id for cell in source.of_kind("answer")}
    taken: dict[str, str] = {}
    found: list[Question] = []
    for cell in source.of_kind("test", "manual"):
        if cell.kind == "manual":
            title = source.heading(cell.id) or cell.id
            found.append(Question(cell.id, title, cell.points, (cell.id,), carry=False, manual=True))
            continue
        part, name = hidden[cell.question], cell.question
        where = f"{source.path}: {TEST}{name}"
        for answer in part.answers:
            if answer not in answers:
                raise HomeworkError(f"{where} names the answer {answer!r}; there are {', '.join(sorted(answers))}")
            if answer in taken:
                raise HomeworkError(f"{where}: the answer {answer} belongs to {taken[answer]} already")
            taken[answer] = name
        earlier = [question.id for question in found if not question.manual]
        for need in part.needs:
            if need not in earlier:
                there = f"before it are {', '.join(earlier)}" if earlier else "it is the first"
                raise HomeworkError(f"{where} needs {need!r}, which is no question before it; {there}")
        title = source.heading(part.answers[0]) or name
        found.append(Question(name, title, cell.points, part.answers, part.names, part.needs, part.cases))
    if idle := answers - set(taken):
        raise HomeworkError(f"{source.path}: the answer {sorted(idle)[0]} is in the ANSWERS of no question")
    return tuple(found)


def _answers(folder: Path, questions: Sequence[str]) -> dict[str, str]:
    """The answers in a folder beside a source, by name."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
    for name in found:
        if "-" not in name or name.split("-")[0] not in questions:
            raise HomeworkError(
                f"{folder / name}.py: its name must be <question>-<what>.py, of {', '.join(sorted(questions))}"
            )
    return found


def _copy(folder: Path, to: Path) -> dict[str, str]:
    """The files given to students as they are: path below student/ -> sha256."""
    sums = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        name = path.relative_to(folder)
        if any(part.startswith(".") or part == "__pycache__" for part in name.parts):
            raise HomeworkError(f"{path} is hidden and would be given to students: delete it")
        kind = path.lstat().st_mode
        if stat.S_ISDIR(kind):
            continue
        if not stat.S_ISREG(kind):
            raise HomeworkError(f"{path} is no regular file: put a copy there")
        copy = to / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)  # neither its times nor its rights
        sums[f"{to.name}/{name}"] = sha256(copy)
    return sums


def notebook(source: Source, text: Callable[[SourceCell], str]) -> bytes:
    """A notebook of the source's cells with nbgrader's metadata and tags, and nothing else of it."""
    cells: list[dict[str, Any]] = []
    for cell in source.cells:
        written = text(cell)
        cell_type = "code" if cell.code else "markdown"
        metadata: dict[str, Any] = {"tags": list(cell.tags)} if cell.tags else {}
        if cell.graded:
            metadata["nbgrader"] = _flags(cell, cell_type, written)
        made = {
            "cell_type": cell_type,
            "id": cell.id,
            "metadata": metadata,
            "source": written.splitlines(keepends=True),
        }
        cells.append(made | ({"execution_count": None, "outputs": []} if cell.code else {}))
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode()


def _flags(cell: SourceCell, cell_type: str, written: str) -> dict[str, Any]:
    """nbgrader's metadata of schema 3; the checksum is the one that nbgrader computes."""
    grade, solution, locked = FLAGS[cell.kind]
    parts = [written, cell_type, str(grade), str(solution), str(locked), cell.id]
    parts += [str(float(cell.points))] if grade else []
    checksum = hashlib.md5("".join(parts).encode(), usedforsecurity=False).hexdigest()
    flags = {"schema_version": 3, "grade_id": cell.id, "grade": grade, "solution": solution, "locked": locked}
    flags |= {"task": False, "cell_type": cell_type, "checksum": checksum}
    return flags | ({"points": cell.points} if grade else {})


def library(setup: Iterable[str]) -> tuple[str, ...]:
    """The modules of course_lib that setup cells import, with all of course_lib that those import."""
    wanted = [name for source in setup for name in _imported(source)]
    found: dict[str, None] = {}
    while wanted:
        name = wanted.pop()
        spec = importlib.util.find_spec(name) if name not in found else None
        if spec is None or spec.origin is None:
            continue
        found[name] = None
        package, _, _ = name.rpartition(".")
        wanted += [package] if package else []
        wanted += _imported(Path(spec.origin).read_text(encoding="utf-8"))
    return tuple(sorted(found))


def _imported(source: str) -> list[str]:
    """Modules of course_lib that a source imports; what is imported from a module may be one too."""
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    found = []
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in found if name.split(".")[0] == "course_lib" and _is_module(name)]


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


# Whether it holds


def _try(
    source: Source, homework: Homework, part: Path, key: bytes, draws: int, tell: Callable[[str], None]
) -> tuple[Homework, list[Gate], dict[str, Any]]:
    """All gates, and how different the right answers are. The manifest gets its checks from the reference, then its
    version, and is written."""
    drawn = Draws.of(homework.hidden, key, source.name, draws)
    gates = [_imports(source, homework)]
    tell("the reference")
    expected = answers(homework.pieces(homework.reference), homework.hidden, drawn)
    gates += [defined(expected), single(drawn)]
    if all(gate.held for gate in gates):
        questions = tuple(with_checks(homework.hidden, q, expected, drawn) for q in homework.manifest.questions)
        manifest = replace(homework.manifest, questions=questions).stamped(
            datetime.now(UTC).isoformat(timespec="seconds")
        )
        manifest.write(part / PRIVATE / "manifest.json")
        (part / PRIVATE / "manifest.json").chmod(0o600)
        homework = replace(homework, manifest=manifest)
        gates += try_answers(homework, expected, drawn, tell)
        tell("the reference, in a box")
        gates.append(_in_a_box(Release.read(part), homework.reference))
    for name, content in (("untouched", homework.untouched), ("reference", homework.reference)):
        tell(f"the {name} notebook, from top to bottom")
        gates.append(runs_whole(name, content, part / "student"))
    beside = {**homework.mutants, **{f"{name} (right)": text for name, text in homework.others.items()}}
    names = [f"{name}.py" for name in (*homework.mutants, *homework.others)] + ["reference.ipynb"]
    found = leaks.leaks(part / "student", leaks.secrets(source, beside, names, key))
    what = "; ".join(map(str, found[:10])) + (f"; and {len(found) - 10} more" if len(found) > 10 else "")
    gates.append(Gate("nothing hidden is in what students get", not found, what or "nothing found"))
    spreads = {name: spread(name, expected) for name in homework.hidden} if gates[1].held else {}
    return homework, gates, spreads


def _in_a_box(made: Release, notebook: bytes) -> Gate:
    """Is the reference graded as it should be by the grader itself? A machine without a box can only say so."""
    name = "the reference gets every point from the grader"
    try:
        sandbox = boxes.find_sandbox()
    except boxes.NoSafeBox as error:
        return Gate(name, True, f"NOT TRIED, for want of a safe box: {error}")
    submission = extract(notebook, made.manifest, "the reference")
    box = box_of(made, boxes.Box(sandbox))
    rows = grade_one(made, Reference.of_release(made), "reference", submission, box)["questions"]
    lost = [
        f"{row['question']}: {row['outcome']}, {row['reason']}"
        for row in rows
        if row["points"] != row["max_points"] and not made.manifest.question(row["question"]).manual
    ]
    return Gate(name, not lost, "; ".join(lost) or f"all points, {sandbox.name}")


def _imports(source: Source, homework: Homework) -> Gate:
    """The box has no more of course_lib than what the setup imports."""
    there = set(homework.manifest.library)
    asked = {cell.id: solved(cell) for cell in source.of_kind("answer")}
    asked |= {f"call of {name}": part.call_source for name, part in homework.hidden.items()}
    wrong = [
        f"{name} imports {module}" for name, text in asked.items() for module in _imported(text) if module not in there
    ]
    return Gate(
        "answers import what setup cells do", not wrong, "; ".join(wrong) or f"{len(there)} modules of course_lib"
    )
