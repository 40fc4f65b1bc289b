"""A small homework of two questions and a text, written as an instructor would, for tests of releases and grading."""

from __future__ import annotations

import json
from pathlib import Path

FLAGS = {  # grade, solution, locked
    "setup": (False, False, True),
    "answer": (False, True, False),
    "test": (True, False, True),
    "manual": (True, True, False),
}


def cell(kind: str, id: str, source: str, points: float = 0, cell_type: str = "code", **more) -> dict:
    """A cell of nbformat 4 with nbgrader's metadata; `kind` "text" has none."""
    made = {"cell_type": cell_type, "id": id, "metadata": {}, "source": source.strip("\n").splitlines(keepends=True)}
    if cell_type == "code":
        made |= {"execution_count": None, "outputs": []}
    if kind in FLAGS:
        grade, solution, locked = FLAGS[kind]
        flags = {"schema_version": 3, "grade_id": id, "grade": grade, "solution": solution, "locked": locked}
        made["metadata"]["nbgrader"] = flags | {"task": False} | ({"points": points} if grade else {})
    made["metadata"] |= more
    return made


def text(id: str, source: str) -> dict:
    return cell("text", id, source, cell_type="markdown")


TITLE = text("title", "# Doubling\n\nTwo functions and a sentence.")
PARAMETERS = cell("setup", "parameters", 'profile = "smoke"', tags=["parameters"])
SETUP = cell("setup", "imports", "import torch")
DOUBLE = cell(
    "answer",
    "q1",
    '''
def double(x):
    """Twice x, whatever its shape."""
    ### BEGIN SOLUTION
    solution_of_one = torch.add(x, x)
    return solution_of_one
    ### END SOLUTION
''',
)
DOUBLE_TEST = cell(
    "test",
    "test-q1",
    """
print("Right" if double(1) == 2 else "Not yet: double(1) is not 2") if False else None
### BEGIN HIDDEN TESTS
ANSWERS, NAMES = ["q1"], ["double"]


def inputs(rng):
    return {"x": rng.normal(size=rng.integers(2, 5, size=2)).astype("float32")}


def call(answers, x):
    return answers.double(x)


def judge(found, expected, x):
    from course_lib.grading.checks import same_numbers

    return same_numbers(found, expected, quote=False)
### END HIDDEN TESTS
""",
    2,
)
SHIFT = cell(
    "answer",
    "q2",
    '''
def shifted(x, by):
    """Twice x, then `by` is added: uses double."""
    ### BEGIN SOLUTION
    solution_of_two = double(x) + by
    return solution_of_two
    ### END SOLUTION
''',
)
SHIFT_TEST = cell(
    "test",
    "test-q2",
    """
### BEGIN HIDDEN TESTS
NEEDS, ANSWERS, NAMES, CASES = ["q1"], ["q2"], ["shifted"], 2


def inputs(rng):
    return {"x": rng.normal(size=3).astype("float32"), "by": int(rng.integers(1, 100))}


def call(answers, x, by):
    return {"numbers": answers.shifted(x, by), "zero": answers.shifted(0 * x, by)}


def judge(found, expected, x, by):
    from course_lib.grading.checks import same_numbers

    numbers = same_numbers(found["numbers"], expected["numbers"], quote=False)
    return {"numbers": (2, numbers), "zeros": (1, same_numbers(found["zero"], expected["zero"], quote=False))}
### END HIDDEN TESTS
""",
    3,
)
ESSAY = cell(
    "manual",
    "essay",
    "### BEGIN SOLUTION\nBecause doubling is linear, says the solution.\n### END SOLUTION",
    4,
    cell_type="markdown",
)
CELLS = (
    TITLE, PARAMETERS, SETUP, text("text-1", "## One (2 points)"), DOUBLE, DOUBLE_TEST,
    text("text-2", "## Two (3 points)"), SHIFT, SHIFT_TEST, text("text-3", "## Why (4 points)"), ESSAY,
)  # fmt: skip
MUTANTS = {
    "q1-three-times": "def double(x):\n    three_times_it_is = x * 3\n    return three_times_it_is\n",
    "q2-without-shift": "def shifted(x, by):\n    return double(x) + 0 * by\n",
}


RIGHT = {"q1-filled": "def double(x):\n    filled = torch.zeros(x.shape)\n    filled += x\n    return filled + x\n"}


def notebook(cells) -> dict:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": list(cells), "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def write_source(folder: Path, cells=CELLS, mutants=MUTANTS, name: str = "doubling", right=RIGHT) -> Path:
    """The folder of a source, as below notebooks/homework."""
    for kind, beside in (("mutants", mutants), ("right", right)):
        (folder / name / kind).mkdir(parents=True)
        for answer, source in beside.items():
            (folder / name / kind / f"{answer}.py").write_text(source)
    (folder / name / f"{name}.ipynb").write_text(json.dumps(notebook(cells)))
    return folder / name


def changed(original: dict, old: str, new: str) -> dict:
    """A cell with some text of its source replaced."""
    source = "".join(original["source"])
    assert old in source
    return original | {"source": source.replace(old, new).splitlines(keepends=True)}


def swapped(cells, *others: dict) -> list[dict]:
    """The cells, with `others` in place of those that have their id."""
    by_id = {other["id"]: other for other in others}
    return [by_id.get(each["id"], each) for each in cells]
