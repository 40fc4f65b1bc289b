"""A release is whole or not there: right answers get every point, wrong ones lose theirs, nothing hidden gets out."""

from __future__ import annotations

import base64
import errno
import gzip
import io
import json
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import jsonschema
import nbformat
import numpy as np
import pytest
from homework_source import (
    CELLS,
    DOUBLE,
    DOUBLE_TEST,
    MUTANTS,
    SETUP,
    SHIFT_TEST,
    cell,
    changed,
    notebook,
    swapped,
    text,
    write_source,
)
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from course_lib.cli import app
from course_lib.grading import release as releasing
from course_lib.grading.gates import Gate, runs_whole
from course_lib.grading.leaks import leaks, secrets
from course_lib.grading.manifest import Limits, Manifest, Release
from course_lib.grading.release import GatesFailed, library, release
from course_lib.grading.source import HomeworkError, drawing, for_students, read_source

HOMEWORK = Path(__file__).parents[1] / "notebooks" / "homework"
SCHEMA = json.loads((Path(__file__).parent / "nbgrader_v3.json").read_text())  # of nbgrader 0.9.6


@pytest.fixture
def quick(monkeypatch):
    """Without the gates that start a kernel: `released` tries those."""
    held = Gate("not tried here", True, "")
    monkeypatch.setattr(releasing, "runs_whole", lambda name, content, folder: held)
    monkeypatch.setattr(releasing, "_in_a_box", lambda made, content: held)


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """The small homework, with every gate."""
    folder = tmp_path_factory.mktemp("whole")
    source = write_source(folder)
    (source / "files" / "tables").mkdir(parents=True)
    (source / "files" / "tables" / "numbers.csv").write_text("a,b\n1,2\n")
    release(source, folder / "out", draws=2)
    return folder / "out"


def released_from(folder, cells=CELLS, mutants=MUTANTS, draws=2) -> Manifest:
    return release(write_source(folder / "source", cells, mutants), folder / "out", draws)


def fails(folder, cells=CELLS, mutants=MUTANTS) -> str:
    with pytest.raises(HomeworkError) as caught:
        released_from(folder, cells, mutants)
    assert not (folder / "out").exists() and not (folder / "out.part").exists(), "nothing was to be released"
    return str(caught.value)


# The source -----------------------------------------------------------------------------------------------------------

UNFIT = {
    "code nobody knows": ([cell("text", "x", "1 + 1")], "cell 11 is code that nbgrader knows nothing of"),
    "raw": ([cell("text", "x", "1", cell_type="raw")], "cell 11 is raw"),
    "no points": ([cell("test", "test-q3", "1")], "test-q3 has 0 points, a number above 0 is needed"),
    "points no number": ([cell("test", "test-q3", "1", "two")], "test-q3 has 'two' points"),
    "odd id of a test": ([cell("test", "q3-test", "1", 1)], "the id of a test is test-<question>"),
    "odd id": ([cell("answer", "q 3", "1")], "grade_id 'q 3' must be letters"),
    "twice": ([cell("answer", "q1", "1")], "the id 'q1' belongs to 2 cells"),
    "no hidden tests": ([cell("test", "test-q3", "1", 1)], "a test cell has one region"),
    "region not closed": ([cell("answer", "q3", "### BEGIN SOLUTION\n1")], "'### BEGIN SOLUTION' needs its"),
    "regions crossed": ([cell("answer", "q3", "### END SOLUTION\n### BEGIN SOLUTION")], "needs its"),
    "foreign region": ([cell("answer", "q3", "### BEGIN HIDDEN TESTS")], "has no meaning in a cell of kind answer"),
    "region in the text": ([text("x", "### BEGIN MARK SCHEME")], "has no meaning in a cell of kind text"),
    "answer in Markdown": ([cell("answer", "q3", "1", cell_type="markdown")], "q3 is markdown"),
    "an answer that is idle": ([cell("answer", "q3", "1")], "the answer q3 is in the ANSWERS of no question"),
    "an attachment": ([text("x", "![](a)") | {"attachments": {"a": {}}}], "has attachments"),
}


@pytest.mark.parametrize(("more", "sentence"), UNFIT.values(), ids=UNFIT)
def test_a_source_that_is_not_fit_is_told_where(tmp_path, more, sentence):
    assert sentence in fails(tmp_path, [*CELLS, *more])


def test_nbgraders_older_schemas_and_tasks_are_refused(tmp_path):
    for changes, sentence in (({"schema_version": 2}, "schema_version 2, 3 is needed"), ({"task": True}, "is a task")):
        old = json.loads(json.dumps(SETUP))
        old["metadata"]["nbgrader"] |= changes
        assert sentence in fails(tmp_path / sentence[:4], swapped(CELLS, old))


HIDDEN_FAULTS = {
    "no judge": ("def judge", "def judged", "defines no function judge"),
    "loose name": ("return answers.double(x)", "return answers.double(torch.tensor(x))", "call uses torch, which only"),
    "one case": ("ANSWERS, NAMES =", "CASES = 1\nANSWERS, NAMES =", "CASES is 1, a number from 2 to 100"),
    "unknown answer": ('ANSWERS, NAMES = ["q1"]', 'ANSWERS, NAMES = ["q7"]', "names the answer 'q7'"),
    "no names": ('["double"]', "[]", "needs ANSWERS, the ids of its answer cells, and NAMES"),
    "names no list": ('["double"]', '"double"', "NAMES is 'double', a list of strings is needed"),
    "a later question": ("ANSWERS, N", 'NEEDS = ["q2"]\nANSWERS, N', "needs 'q2', which is no question before it"),
    "an error": ("ANSWERS, NAMES =", "1 / 0\nANSWERS, NAMES =", "stops with ZeroDivisionError"),
    "call twice": ("def judge(", "def call(answers, x):\n    return 1\n\n\ndef judge(", "call must be written once"),
    "inputs stop": ("return {\"x\": rng", "1 / 0\n    return {\"x\": rng", "inputs of q1 stops with ZeroDivisionError"),
    "judge gives a number": ("return same_n", "return 1 or same_n", "judge of q1 gives a int, not a Verdict"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "sentence"), HIDDEN_FAULTS.values(), ids=HIDDEN_FAULTS)
def test_a_hidden_part_that_is_not_fit_is_told_what_is_missing(tmp_path, quick, old, new, sentence):
    assert sentence in fails(tmp_path, swapped(CELLS, changed(DOUBLE_TEST, old, new)))


@pytest.mark.parametrize(
    ("mutants", "sentence"),
    [
        ({"q1-x": "1"}, "q2 has no wrong answer; write mutants/q2-<what>.py"),
        (MUTANTS | {"q7-x": "1"}, "its name must be <question>-<what>.py, of q1, q2"),
        (MUTANTS | {"q1": "1"}, "its name must be <question>-<what>.py"),
    ],
)
def test_every_question_needs_a_wrong_answer_by_name(tmp_path, mutants, sentence):
    assert sentence in fails(tmp_path, mutants=mutants)


def test_a_source_that_cannot_be_read_is_named(tmp_path):
    for content, sentence in (("", "this is no notebook"), ('{"cells": [1]}', "this is no notebook")):
        path = tmp_path / "doubling.ipynb"
        path.write_text(content)
        with pytest.raises(HomeworkError, match=sentence):
            read_source(path)
    for path in (tmp_path / "nothing", tmp_path / "nothing.ipynb"):
        with pytest.raises(HomeworkError, match="is not there: name the source notebook"):
            release(path, tmp_path / "out")
    (tmp_path / "My Homework.ipynb").write_text("{}")
    with pytest.raises(HomeworkError, match="small letters, digits and _"):
        release(tmp_path / "My Homework.ipynb", tmp_path / "out")


# What students get ----------------------------------------------------------------------------------------------------


def test_solutions_become_a_stub_and_hidden_tests_go(tmp_path):
    source = read_source(write_source(tmp_path) / "doubling.ipynb")
    shown = {each.id: for_students(each) for each in source.cells}
    assert shown["q1"] == (
        'def double(x):\n    """Twice x, whatever its shape."""\n    # YOUR CODE HERE\n    raise NotImplementedError'
    )
    assert shown["test-q1"].startswith("print(") and "judge" not in shown["test-q1"] and shown["test-q2"] == ""
    assert shown["essay"] == "" and shown["imports"] == "import torch"


def shown_to_students(folder, other) -> str:
    """The cell `other` of a source, as students get it."""
    cells = read_source(write_source(folder, swapped(CELLS, other)) / "doubling.ipynb").cells
    return next(for_students(each) for each in cells if each.id == other["id"])


def test_an_answer_without_marks_is_a_solution_as_a_whole_and_its_stub_runs(tmp_path):
    whole = cell("answer", "q1", "def double(x):\n    return x + x")
    assert shown_to_students(tmp_path, whole) == "# YOUR CODE HERE"


def test_two_regions_of_a_cell_are_both_taken_out(tmp_path):
    two = cell(
        "answer",
        "q1",
        "### BEGIN SOLUTION\na = 1\n### END SOLUTION\nb = 2\n### BEGIN SOLUTION\nc = 3\n### END SOLUTION",
    )
    assert shown_to_students(tmp_path, two) == "# YOUR CODE HERE\nb = 2\n# YOUR CODE HERE"


def held_to_nbgraders_schema(path: Path) -> list[dict]:
    read = nbformat.read(path, as_version=4)
    nbformat.validate(read)
    found = [each.metadata.nbgrader for each in read.cells if "nbgrader" in each.metadata]
    for flags in found:
        jsonschema.Draft4Validator(SCHEMA).validate(dict(flags))
        assert not (flags["grade"] or flags["solution"] or flags["locked"]) or flags["grade_id"]
    return found


@pytest.mark.parametrize("path", sorted(HOMEWORK.glob("*/*.ipynb")), ids=lambda path: path.stem)
def test_sources_follow_nbgraders_schema_and_are_stored_without_outputs(path):
    assert held_to_nbgraders_schema(path)
    for each in json.loads(path.read_text())["cells"]:
        assert not each.get("outputs") and set(each["metadata"]) <= {"nbgrader", "tags"}


def test_students_get_nbgraders_metadata_and_tags_and_nothing_else(released):
    path = released / "student" / "doubling.ipynb"
    flags = {each["grade_id"]: each for each in held_to_nbgraders_schema(path)}
    assert flags["test-q1"]["points"] == 2 and flags["q1"]["solution"] and flags["imports"]["locked"]
    # nbgrader.utils.compute_checksum of nbgrader 0.9.6 gives these
    assert flags["imports"]["checksum"] == "1bb7083e7b26cc7873c5b56de5f17d2a"
    assert flags["test-q2"]["checksum"] == "489e81c6a8691b740194afa4abbccb51"
    read = json.loads(path.read_text())
    assert set(read["metadata"]) == {"kernelspec", "language_info"}
    for each in read["cells"]:
        assert set(each["metadata"]) <= {"nbgrader", "tags"} and not each.get("outputs")
    (parameters,) = [each for each in read["cells"] if each["metadata"].get("tags")]
    assert parameters["metadata"]["tags"] == ["parameters"]


def test_what_the_source_remembers_of_its_runs_is_not_given_away(tmp_path, quick):
    run = DOUBLE | {
        "outputs": [{"output_type": "stream", "name": "stdout", "text": "the secret of doubling"}],
        "execution_count": 7,
    }
    run["metadata"] = DOUBLE["metadata"] | {
        "execution": {"iopub.execute_input": "x"},
        "widgets": "the secret of doubling",
    }
    released_from(tmp_path, swapped(CELLS, run))
    assert b"secret of doubling" not in b"".join(
        p.read_bytes() for p in (tmp_path / "out" / "student").rglob("*.ipynb")
    )


def test_rights_keep_the_private_part_private(released):
    assert stat.S_IMODE((released / "student").stat().st_mode) == 0o755
    assert stat.S_IMODE((released / "private").stat().st_mode) == 0o700
    for path in (released / "private").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert {path.name for path in released.iterdir()} == {"student", "private", "report.json"}


def test_files_are_given_as_they_are_and_no_hidden_or_linked_ones(tmp_path, released, quick):
    assert (released / "student" / "files" / "tables" / "numbers.csv").read_text() == "a,b\n1,2\n"
    assert list(Manifest.read(released / "private" / "manifest.json").files) == [
        "doubling.ipynb", "files/tables/numbers.csv",
    ]  # fmt: skip
    for name, sentence in ((".git", "is hidden and would be given to students"), ("link", "is no regular file")):
        source = write_source(tmp_path / name)
        (source / "files").mkdir()
        (source / "files" / name).symlink_to("/etc/hostname")
        with pytest.raises(HomeworkError, match=sentence):
            release(source, tmp_path / "out", 1)


# The manifest ---------------------------------------------------------------------------------------------------------


def test_the_manifest_tells_all_that_a_grader_must_know(released):
    manifest = Manifest.read(released / "private" / "manifest.json")
    assert (manifest.homework, manifest.title, manifest.points) == ("doubling", "Doubling", 9)
    assert [(q.id, q.title, q.points, q.names, q.needs, q.cases, q.manual) for q in manifest.questions] == [
        ("q1", "One", 2, ("double",), (), 3, False),
        ("q2", "Two", 3, ("shifted",), ("q1",), 2, False),
        ("essay", "Why", 4, (), (), 0, True),
    ]
    assert [(check.name, check.points) for check in manifest.question("q2").checks] == [("numbers", 2), ("zeros", 1)]
    assert [each.kind for each in manifest.cells if each.id in ("title", "parameters", "q1", "test-q1", "essay")] == [
        "text", "setup", "answer", "test", "manual",
    ]  # fmt: skip
    assert manifest.parameters == {"profile": "smoke"} and manifest.limits == Limits()
    with pytest.raises(HomeworkError, match="has no question 'q9': there are q1, q2, essay"):
        manifest.question("q9")


def test_a_manifest_comes_back_as_it_was_written(released, tmp_path):
    manifest = Manifest.read(released / "private" / "manifest.json")
    manifest.write(tmp_path / "again.json")
    assert Manifest.read(tmp_path / "again.json") == manifest


def test_the_version_is_that_of_all_that_is_in_a_release(tmp_path, quick):
    same = [released_from(tmp_path / name).version for name in ("a", "b")]
    assert same[0] == same[1]
    other = changed(SHIFT_TEST, "rng.integers(1, 100)", "rng.integers(1, 101)")  # hidden; no student sees it
    assert released_from(tmp_path / "c", swapped(CELLS, other)).version != same[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m | {"schema": 2}, "is of schema 2, this course reads 1"),
        (lambda m: m | {"title": "Another"}, "was changed after it was written"),
        (lambda m: m | {"extra": 1}, "Manifest has no 'extra'"),
        (lambda m: [m], "is of schema None"),
        (lambda m: {k: v for k, v in m.items() if k != "cells"}, "make the release again"),
    ],
)
def test_a_manifest_of_another_version_or_hand_is_refused(released, tmp_path, change, sentence):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(change(json.loads((released / "private" / "manifest.json").read_text()))))
    with pytest.raises(HomeworkError, match=str(path)) as caught:
        Manifest.read(path)
    assert sentence in str(caught.value)


def test_a_release_that_was_changed_is_refused_by_name(tmp_path, quick):
    released_from(tmp_path)
    out = tmp_path / "out"
    made = Release.read(out)
    assert set(made.hidden) == {"q1", "q2"} and "solution_of_one" in made.reference["q1"] and len(made.key) == 32
    checks = out / "private" / "checks" / "q1.py"
    whole = checks.read_text()
    checks.write_text(whole + "\n")
    with pytest.raises(HomeworkError, match=r"checks/q1\.py was changed after the release"):
        Release.read(out)
    checks.unlink()
    with pytest.raises(HomeworkError, match=r"checks/q1\.py: No such file"):
        Release.read(out)
    checks.write_text(whole)
    (out / "private" / "key").write_text("ab")
    with pytest.raises(HomeworkError, match="holds 1 bytes, not 32"):
        Release.read(out)
    with pytest.raises(HomeworkError, match="is missing: name a folder that `course release` wrote"):
        Release.read(tmp_path)


def test_hidden_cases_are_drawn_by_student_and_try_and_always_the_same():
    def first(*changes):
        asked = dict(key=b"k" * 32, homework="h", student="anna", submission_sha256="aa", question="q1", case=0)
        return drawing(**asked | dict(changes)).integers(1 << 60)

    assert first() == first()
    others = [
        ("key", b"l" * 32), ("homework", "i"), ("student", "bert"), ("student", "ann\udcff"),
        ("submission_sha256", "ab"), ("question", "q2"), ("case", 1),
    ]  # fmt: skip
    assert len({first(), *(first(change) for change in others)}) == len(others) + 1


def test_modules_that_setup_imports_come_with_all_they_import():
    found = library(["import torch\nfrom course_lib.layers import attention\n%matplotlib inline"])
    assert {"course_lib", "course_lib.layers", "course_lib.layers.attention", "course_lib.layers.schemes"} <= set(found)
    assert not any(name.startswith(("course_lib.models", "course_lib.grading")) for name in found)
    assert library(["import torch"]) == ()


# Gates ----------------------------------------------------------------------------------------------------------------


def test_every_gate_of_a_whole_release_is_in_its_report(released):
    report = json.loads((released / "report.json").read_text())
    assert all(gate["held"] for gate in report["gates"]) and report["draws"] == 2
    names = " | ".join(gate["name"] for gate in report["gates"])
    for part in (
        "reference gets every point", "untouched notebook gets no point", "reference defines every name",
        "untouched notebook runs to its end", "reference notebook runs to its end", "q1-three-times loses points",
        "q1-three-times loses points nowhere else", "q2, all numbers + 1 %", "q2, the answer of the first case for all",
        "every point from the grader", "nothing hidden", "no input is in double precision",
        "q1-filled, another right answer, gets every point",
    ):  # fmt: skip
        assert part in names
    assert report["spread"]["q1"] == {"answers": 6, "different": 6}


GATES = {
    "a wrong answer that is right": (
        CELLS, MUTANTS | {"q1-right": "def double(x):\n    return 2 * x\n"},
        "q1-right loses points: 2 to 2 of 2: all points in 2",
    ),
    "a wrong answer that is wrong elsewhere": (
        CELLS, MUTANTS | {"q2-double": "def shifted(x, by):\n    return x\n\n\ndef double(x):\n    return x\n"},
        "q2-double loses points nowhere else: q1 gets 0 of 2",
    ),
    "a wrong answer that ends the process": (
        CELLS, MUTANTS | {"q1-ends": "import os\n\nos._exit(0)\n"}, "q1-ends loses points: its process ended"
    ),
    "a check of shapes alone": (
        swapped(CELLS, changed(DOUBLE_TEST, "found, expected, quote", "0 * found, 0 * expected, quote")), MUTANTS,
        "q1, all numbers + 1 %, loses points",
    ),
    "always the same inputs": (
        swapped(CELLS, changed(DOUBLE_TEST, "rng.normal(size=rng.integers(2, 5, size=2))", "0 * rng.normal(size=2)")),
        MUTANTS, "q1, the answer of the first case for all, loses points",
    ),
    "a stub that is the answer": (
        swapped(CELLS, cell("answer", "q1", "### BEGIN SOLUTION\n### END SOLUTION\ndef double(x):\n    return x + x")),
        MUTANTS, "the untouched notebook gets no point: q1 gets up to 2",
    ),
    "a name that nobody defines": (
        swapped(CELLS, changed(DOUBLE, "def double", "def doubled")), MUTANTS, "q1: double is not defined"
    ),
    "a reference that stops": (
        swapped(CELLS, changed(DOUBLE, "torch.add(x, x)", "torch.add(x, 1 / 0)")), MUTANTS,
        "q1: the reference stops with ZeroDivisionError",
    ),
    "a reference that is never twice the same": (
        swapped(CELLS, changed(DOUBLE, "torch.add(x, x)", "x + __import__('time').time_ns() % 1009")), MUTANTS,
        "the reference gets every point: q1 gets 0 of 2",
    ),
    "inputs in double precision": (
        swapped(CELLS, changed(SHIFT_TEST, '.astype("float32")', "")), MUTANTS,
        "no input is in double precision: q2: x of `inputs` is float64, and what students make with torch.zeros is",
    ),
    "double precision in a list": (
        swapped(CELLS, changed(DOUBLE_TEST, 'return {"x": rng', 'return {"more": [rng.normal(size=2)], "x": rng')),
        MUTANTS, "q1: more of `inputs` is float64",
    ),
    "points that do not add up": (
        swapped(CELLS, changed(SHIFT_TEST, '"zeros": (1,', '"zeros": (2,')), MUTANTS,
        "checks of q2 are worth 4 points, its test cell 3",
    ),
    "checks that come and go": (
        swapped(CELLS, changed(SHIFT_TEST, '"zeros": (1,', '"zeros" + str(by): (1,')), MUTANTS,
        "gives other checks for other cases",
    ),
    "an answer that the box cannot import": (
        swapped(CELLS, changed(DOUBLE, "= torch.add(x, x)", "= x + x; import course_lib.layers.schemes")), MUTANTS,
        "answers import what setup cells do: q1 imports course_lib.layers.schemes",
    ),
    "a solution in the text": (
        [*CELLS, text("x", "Remember: `solution_of_one = torch.add(x, x)`")], MUTANTS,
        "doubling.ipynb holds a line hidden in q1: solution_of_one = torch.add(x, x)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("cells", "mutants", "sentence"), GATES.values(), ids=GATES)
def test_a_gate_that_does_not_hold_keeps_everything_in(tmp_path, quick, cells, mutants, sentence):
    assert sentence in fails(tmp_path, cells, mutants)


def test_a_notebook_that_stops_or_misjudges_the_reference_is_not_released(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "given.txt").write_text("3")
    first = cell("setup", "imports", "number = int(open('files/given.txt').read())")
    says = cell("test", "test-q1", "print('Not yet:', number)")
    stops = cell("test", "test-q2", "1 / 0")
    made = [json.dumps(notebook(cells)).encode() for cells in ([first, says], [first, says, stops])]
    gate = runs_whole("reference", made[0], tmp_path)
    assert not gate.held and gate.found.startswith("test-q1 says Not yet: 3")
    gate = runs_whole("untouched", made[1], tmp_path)  # may say so, but not stop
    assert not gate.held and gate.found == "test-q2 stops with ZeroDivisionError: division by zero"


def test_another_right_answer_that_loses_a_point_is_not_released(tmp_path, quick):
    for right, sentence in (
        ({"q1-late": "def double(x):\n    return 2 * x + 1\n"},
         "q1-late, another right answer, gets every point: q1 gets 0 of 2; q2 gets 0 of 3"),
        ({"q2-ends": "import os\n\nos._exit(0)\n"},
         "q2-ends, another right answer, gets every point: its process ended"),
        ({"q7-late": "1"}, "right/q7-late.py: its name must be <question>-<what>.py, of q1, q2"),
    ):  # fmt: skip
        (name,) = right
        with pytest.raises(HomeworkError) as caught:
            release(write_source(tmp_path / name, right=right), tmp_path / "out", 2)
        assert sentence in str(caught.value)


# Renamed as a whole ---------------------------------------------------------------------------------------------------


def test_a_failed_release_leaves_the_one_that_is_there(tmp_path, quick):
    before = released_from(tmp_path).version
    bad = write_source(tmp_path / "bad", mutants=MUTANTS | {"q1-right": "def double(x):\n    return 2 * x\n"})
    with pytest.raises(GatesFailed, match="q1-right loses points"):
        release(bad, tmp_path / "out", 1)
    assert Release.read(tmp_path / "out").manifest.version == before and not (tmp_path / "out.part").exists()


def test_a_second_release_keeps_the_key_so_that_nobody_is_asked_something_else(tmp_path, quick):
    released_from(tmp_path)
    key = Release.read(tmp_path / "out").key
    other = write_source(tmp_path / "b", swapped(CELLS, changed(SHIFT_TEST, "1, 100", "1, 101")))
    release(other, tmp_path / "out", 1)
    assert Release.read(tmp_path / "out").key == key and not (tmp_path / "out.old").exists()
    (tmp_path / "out").rename(tmp_path / "out.old")  # killed between two renames
    release(other, tmp_path / "out", 1)
    assert Release.read(tmp_path / "out").key == key and not (tmp_path / "out.old").exists()
    assert released_from(tmp_path / "c") and Release.read(tmp_path / "c" / "out").key != key


def test_a_folder_that_holds_something_else_is_never_replaced(tmp_path, quick):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years")
    with pytest.raises(HomeworkError, match="is there and is no release: name another folder"):
        released_from(tmp_path)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years"
    released_from(tmp_path / "a")
    with pytest.raises(HomeworkError, match="holds a release of doubling: name another folder"):
        release(write_source(tmp_path / "b", name="tripling"), tmp_path / "a" / "out", 1)


# Leaks ----------------------------------------------------------------------------------------------------------------

LINE = "    solution_of_one = torch.add(x, x)\n"
KEY = bytes(range(32))


def zipped(content: bytes, name: str = "a.txt") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


def tarred(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def picture(content: bytes, packed: bool) -> bytes:
    said = PngImagePlugin.PngInfo()
    said.add_text("Comment", content.decode(), zip=packed)
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(file, "png", pnginfo=said)
    return file.getvalue()


def kept_output(content: bytes) -> bytes:
    output = {"output_type": "display_data", "metadata": {}, "data": {"text/html": content.decode()}}
    return json.dumps(notebook([cell("text", "x", "1") | {"outputs": [output]}])).encode()


PACKED = {
    "as it is": bytes,
    "with other spaces": lambda content: content.replace(b" = ", b"=").replace(b"    ", b"\t"),
    "in an output": kept_output,
    "in a string in JSON": lambda content: json.dumps(json.dumps({"a": content.decode()})).encode(),
    "as \\u": lambda content: b'"' + "".join(f"\\u{one:04x}" for one in content).encode() + b'"',
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "zip": zipped,
    "zip in zip": lambda content: zipped(zipped(content), "b.zip"),
    "the name in a zip": lambda content: zipped(b"", content.decode().strip()),
    "tar.xz": tarred,
    "gzip": gzip.compress,
    "gzip after something else": lambda content: b"x" * 100 + gzip.compress(content),
    "PNG comment": lambda content: picture(content, False),
    "packed PNG comment": lambda content: picture(content, True),
    "base64": base64.b64encode,
    "base64 after a word": lambda content: b"image=" + base64.b64encode(content),
    "base64 in lines": lambda content: json.dumps({"image/png": base64.encodebytes(content * 3).decode()}).encode(),
    "zip in base64": lambda content: base64.b64encode(zipped(content)),
}


@pytest.fixture(scope="module")
def hidden(tmp_path_factory):
    source = read_source(write_source(tmp_path_factory.mktemp("s")) / "doubling.ipynb")
    return secrets(source, MUTANTS, [f"{name}.py" for name in MUTANTS], KEY)


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_a_hidden_line_is_found_however_it_is_packed(tmp_path, hidden, pack):
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "given"
    path.write_bytes(
        pack(f"# a file\n{LINE}# ends\n".encode() if pack is not PACKED["the name in a zip"] else LINE.encode())
    )
    (found,) = leaks(tmp_path, hidden)
    assert str(found) == "files/given holds a line hidden in q1: solution_of_one = torch.add(x, x)"
    path.write_bytes(pack(b"# a file\n    the_public_line_of_one = torch.ones(x, x)\n# ends\n"))
    assert not leaks(tmp_path, hidden), "what is not hidden is no leak"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("numbers = answers.shifted(x, by)", ""),  # of `call`, which runs in the student's kernel
        ("from course_lib.grading.checks import same_numbers", ""),
        ("def shifted(x, by):\n    return double(x)", ""),
        ('return {"x": rng.normal(size=rng.integers(2, 5, size=2)).astype("float32")}', "a line hidden in test-q1"),
        ("Because doubling is linear, says the solution.", "a line hidden in essay"),
        ("three_times_it_is = x * 3\n# and so", "a line of the answer q1-three-times"),
        (KEY.hex(), "the key of the release"),
        (KEY.hex().upper()[:10], ""),
        ("see q1-three-times.py", "the name of the private file"),
        ("### BEGIN SOLUTION", "the mark"),
    ],
)
def test_what_counts_as_hidden(tmp_path, hidden, content, what):
    (tmp_path / "a.txt").write_text(content)
    found = leaks(tmp_path, hidden)
    assert [what in str(leak) for leak in found] == ([True] if what else [])


def test_what_cannot_be_looked_into_is_not_given_away(tmp_path, hidden):
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + b"\0" * 100)
    (tmp_path / "b").symlink_to("/etc/hostname")
    (tmp_path / "q1-three-times.py").write_text("")
    found = " | ".join(map(str, leaks(tmp_path, hidden)))
    assert "a.7z holds a 7-Zip archive, which cannot be looked into" in found and "b holds a link" in found
    assert "q1-three-times.py holds the name of the private file" in found


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_says_what_was_made_and_what_was_wrong(tmp_path, quick):
    source = write_source(tmp_path)
    run = CliRunner().invoke(app, ["release", str(source), "--out", str(tmp_path / "out"), "--draws", "1"])
    assert run.exit_code == 0 and "Doubling: 3 questions, 9 points" in run.output
    run = CliRunner().invoke(app, ["release", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")])
    assert run.exit_code == 1 and "is not there: name the source notebook" in run.output
    assert CliRunner().invoke(app, ["release", str(source)]).exit_code == 2


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/private/key"),
            1,
            "/x/private/key: No space left on device",
        ),
        (KeyboardInterrupt(), 130, "stopped; nothing was released"),
    ],
    ids=["full disk", "stopped"],
)
def test_a_full_disk_and_a_stop_leave_nothing_behind(tmp_path, quick, monkeypatch, error, status, sentence):
    def stops(*rest):
        raise error

    monkeypatch.setattr(releasing, "try_answers", stops)
    run = CliRunner().invoke(
        app, ["release", str(write_source(tmp_path)), "--out", str(tmp_path / "out"), "--draws", "1"]
    )
    assert run.exit_code == status and sentence in run.output
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


# The assignments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.name for path in HOMEWORK.iterdir() if path.is_dir()))
def test_an_assignment_of_the_course_passes_every_gate(tmp_path, name):
    manifest = release(HOMEWORK / name, tmp_path / "out", draws=2)
    assert 10 <= manifest.points <= 12 and len(manifest.questions) >= 2
    assert manifest.library == (), "with the library in the box, one call of it could be the answer"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    for question in manifest.questions:
        wrong = {gate["name"] for gate in report["gates"] if gate["name"].startswith(f"{question.id}-")}
        assert len(wrong) >= 4  # two wrong answers, each on its own question and elsewhere
