"""The notebooks run, are stored with honest outputs, and their exercises can be solved."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
SMOKE = {**os.environ, "COURSE_PROFILE": "smoke", "COURSE_CLIPS": "", "OMP_NUM_THREADS": "2"}


def read(path: Path):
    return nbformat.read(path, as_version=4)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag: str) -> list:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def solve(notebook) -> None:
    """Put each solution in place of its stub."""
    solutions = [re.findall(r"```python\n(.*?)```", cell.source, re.S) for cell in tagged(notebook, "solution")]
    stubs = tagged(notebook, "exercise")
    assert all(len(found) == 1 for found in solutions), "a solution is one block of code"
    assert len(solutions) == len(stubs)
    for stub, (solution,) in zip(stubs, solutions, strict=True):
        stub.source = solution


def verdicts(notebook) -> list[str]:
    return [
        output["data"]["text/plain"]
        for cell in tagged(notebook, "check")
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]


def test_there_are_notebooks():
    assert {"00_clips", "06_timesformer"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.timeout(600)
def test_nbval_runs_every_notebook_in_the_smoke_profile(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # the warnings of other people's kernels are not ours
    command = [sys.executable, "-m", "pytest", "-c", str(tmp_path / "pytest.ini"), "--rootdir", str(tmp_path)]
    command += [
        "--nbval-lax",
        "--nbval-kernel-name=python3",
        "--nbval-cell-timeout=180",
        "-p",
        "no:cacheprovider",
        "-q",
    ]
    run = subprocess.run([*command, *map(str, NOTEBOOKS)], env=SMOKE, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


@each
@pytest.mark.timeout(600)
def test_every_solution_passes_its_check(path, monkeypatch):
    for name, value in SMOKE.items():
        monkeypatch.setenv(name, value)
    notebook = read(path)
    solve(notebook)
    for cell in code(notebook):
        cell.outputs = []
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    answers = verdicts(notebook)
    assert len(answers) == len(tagged(notebook, "check")) >= 3
    assert all(answer.startswith("Right: ") for answer in answers), answers


@each
def test_stored_stubs_do_not_pass(path):
    answers = verdicts(read(path))
    assert answers and all(answer.startswith("Not yet: ") for answer in answers), answers


@pytest.mark.timeout(600)
def test_papermill_runs_a_lesson_with_a_parameter(tmp_path):
    lesson = next(path for path in NOTEBOOKS if path.stem == "06_timesformer")
    out = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(lesson), str(out), "-p", "profile", "smoke", "-k", "python3"]
    environment = {name: value for name, value in SMOKE.items() if name != "COURSE_PROFILE"}
    run = subprocess.run([*command, "--cwd", str(lesson.parent)], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    notebook = read(out)
    assert any("Profile smoke" in json.dumps(cell.outputs) for cell in code(notebook))


@each
def test_notebooks_are_stored_whole_and_without_errors(path):
    notebook = read(path)
    for cell in code(notebook):
        assert cell.execution_count is not None, f"not executed: {cell.source[:60]}"
        assert not [output for output in cell.outputs if output.output_type == "error"]
        assert not [output for output in cell.outputs if output.get("name") == "stderr"], cell.source[:60]
    assert "widgets" not in notebook.metadata
    assert path.stat().st_size < 2_000_000


@each
def test_stored_outputs_come_from_a_real_run_not_from_smoke(path):
    text = path.read_text()
    assert "Profile smoke" not in text and "smoke:" not in "".join(
        json.dumps(cell.outputs) for cell in code(read(path))
    )
    assert re.search(r"Profile (cpu|gpu) ", text)


@each
def test_every_stored_picture_has_words_for_those_who_cannot_see_it(path):
    for cell in code(read(path)):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                assert len(alt) > 20, f"no alt text: {cell.source[:80]}"


@each
def test_headings_follow_one_another(path):
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.M)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@each
def test_cells_are_short_enough_to_read(path):
    lengths = [len(cell.source.splitlines()) for cell in code(read(path))]
    assert max(lengths) <= 40 and sorted(lengths)[len(lengths) // 2] <= 13


@each
def test_the_parameters_cell_chooses_nothing_by_itself(path):
    (cell,) = tagged(read(path), "parameters")
    assert cell.source.startswith('profile = ""')


def test_every_code_name_of_the_glossary_exists():
    rows = re.findall(r"^\|(.*)\|$", (NOTEBOOKS[0].parent / "GLOSSARY.md").read_text(), re.M)[2:]
    names = [re.findall(r"`(course_lib[\w.]+)`", row.split("|")[-1]) for row in rows]
    assert len(names) >= 30 and all(len(found) == 1 for found in names)
    for (name,) in names:
        module, thing = name.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), thing), name
