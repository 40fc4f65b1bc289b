"""A homework of three small questions, released by hand, for tests of the grader."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from course_lib.files import sha256
from course_lib.grading.manifest import Cell, Check, Limits, Manifest, Question, Release

LIMITS = Limits(
    cell_s=5, question_s=5, submission_s=150, cpu_s=60, memory_mb=900, address_mb=2500, processes=40, file_mb=16,
    folder_mb=32, tmp_mb=32, output_mb=1.0, message_mb=16.0, answer_mb=8,
)  # fmt: skip
SETUP = "import torch"
RIGHT = {
    "q1": 'def double(x):\n    """Twice x."""\n    return 2 * x',
    "q2": "def quadruple(x):\n    return double(double(x))",
    "q3": "def count(x):\n    return int((x > 0).sum())",
}
HIDDEN = {
    "q1": """
ANSWERS, NAMES, CASES = ["q1"], ["double"], 2

def inputs(rng):
    return {"x": rng.normal(size=(2, int(rng.integers(3, 6)))).astype("float32")}

def call(answers, x):
    return answers.double(x)

def judge(found, expected, x):
    from course_lib.grading.checks import same_numbers, same_shape
    return {"shape": (1, same_shape(found, tuple(expected.shape), "b n")),
            "numbers": (3, same_numbers(found, expected, "b n", quote=False))}
""",
    "q2": """
NEEDS, ANSWERS, NAMES, CASES = ["q1"], ["q2"], ["quadruple"], 2

def inputs(rng):
    return {"x": rng.normal(size=(2, 4)).astype("float32")}

def call(answers, x):
    return answers.quadruple(x)

def judge(found, expected, x):
    from course_lib.grading.checks import same_numbers
    return {"numbers": (3, same_numbers(found, expected, "b n", quote=False))}
""",
    "q3": """
ANSWERS, NAMES, CASES = ["q3"], ["count"], 3

def inputs(rng):
    return {"x": rng.normal(size=40)}

def call(answers, x):
    return answers.count(x)

def judge(found, expected, x):
    from course_lib.grading.checks import same_value
    return {"count": (3, same_value(found, expected, quote=False))}
""",
}
CHECKS = {
    "q1": (Check("shape", 1), Check("numbers", 3)), "q2": (Check("numbers", 3),), "q3": (Check("count", 3),),
}  # fmt: skip


def work_folders() -> set[Path]:
    """Of boxes of this process that are there."""
    return set(Path("/tmp").glob(f"homework-{os.getpid()}-*"))


def cell(source: str, grade_id: str = "", kind: str = "code", **flags: bool) -> dict[str, Any]:
    """A cell as a notebook's file has it."""
    metadata = {"nbgrader": {"grade_id": grade_id, "schema_version": 3, **flags}} if grade_id else {}
    more = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {"cell_type": kind, "metadata": metadata, "source": source.splitlines(keepends=True), **more}


def notebook(*cells: dict[str, Any]) -> bytes:
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def answers(**changed: str) -> list[dict[str, Any]]:
    """The answer cells, right but for those named."""
    return [cell({**RIGHT, **changed}[name], name, solution=True) for name in RIGHT]


def submission(**changed: str) -> bytes:
    return notebook(cell("profile = 'cpu'", "parameters", locked=True), cell(SETUP, "setup", locked=True),
                    *answers(**changed))  # fmt: skip


def release(folder: Path, limits: Limits = LIMITS, **hidden: str) -> Release:
    """Write the private part and read it. `hidden`: other hidden parts."""
    private = folder / "private"
    (private / "checks").mkdir(parents=True)
    sources = {**HIDDEN, **hidden}
    for name, source in sources.items():
        (private / "checks" / f"{name}.py").write_text(source)
    (private / "reference.ipynb").write_bytes(submission())
    (private / "key").write_text("ab" * 32)
    files = [private / "reference.ipynb", *sorted((private / "checks").iterdir())]
    titles = {"q1": "double", "q2": "quadruple", "q3": "count"}
    manifest = Manifest(
        "tiny", "Tiny",
        cells=(
            Cell.of("parameters", "setup", "profile = 'cpu'", tags=("parameters",)), Cell.of("setup", "setup", SETUP),
            *(Cell.of(name, "answer", f"def {titles[name]}(x):\n    raise NotImplementedError") for name in RIGHT),
        ),
        questions=tuple(
            Question(
                name, titles[name], sum(check.points for check in CHECKS[name]), (name,), (titles[name],),
                needs=("q1",) if name == "q2" else (), cases=3 if name == "q3" else 2, checks=CHECKS[name],
            )
            for name in RIGHT
        ),
        limits=limits,
        private={str(file.relative_to(private)): sha256(file) for file in files},
    )  # fmt: skip
    manifest.stamped("2026-01-01T00:00:00Z").write(private / "manifest.json")
    return Release.read(folder)


# A homework of many equal questions: as many answers are tried in one box

DOUBLE = """
ANSWERS, NAMES, CASES = ["{name}"], ["{name}"], 2

def inputs(rng):
    return {{"x": rng.normal(size=(2, 3)).astype("float32")}}

def call(answers, x):
    return answers.{name}(x)

def judge(found, expected, x):
    from course_lib.grading.checks import same_numbers
    return same_numbers(found, expected, "b n", {tolerance}, quote=False)
"""


def wide(count: int) -> list[str]:
    return [f"w{number}" for number in range(count)]


def wide_release(folder: Path, count: int, limits: Limits = LIMITS, tolerance: float = 1e-4) -> Release:
    """Write the private part of a homework that asks `count` times for twice x, and read it."""
    private = folder / "private"
    (private / "checks").mkdir(parents=True)
    names = wide(count)
    for name in names:
        (private / "checks" / f"{name}.py").write_text(DOUBLE.format(name=name, tolerance=tolerance))
    right = [cell(f"def {name}(x):\n    return 2 * x", name, solution=True) for name in names]
    (private / "reference.ipynb").write_bytes(notebook(cell(SETUP, "setup", locked=True), *right))
    (private / "key").write_text("cd" * 32)
    files = [private / "reference.ipynb", *sorted((private / "checks").iterdir())]
    manifest = Manifest(
        "tiny", "Wide",
        cells=(
            Cell.of("setup", "setup", SETUP),
            *(Cell.of(name, "answer", f"def {name}(x):\n    raise NotImplementedError") for name in names),
        ),
        questions=tuple(
            Question(name, name, 1, (name,), (name,), cases=2, checks=(Check("numbers", 1),)) for name in names
        ),
        limits=limits,
        private={str(file.relative_to(private)): sha256(file) for file in files},
    )  # fmt: skip
    manifest.stamped("2026-01-01T00:00:00Z").write(private / "manifest.json")
    return Release.read(folder)
