"""Data flows one way, so imports do too."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import course_lib

ROOT = Path(course_lib.__file__).parent
CORE = {"grid", "words"}
MAY_IMPORT = {  # part: the parts it may use, besides itself
    "grid": set(),
    "files": set(),
    "paths": set(),
    "machine": set(),
    "lab": set(),
    "words": set(),
    "profiles": {"datasets", "paths", "synthetic"},
    "video": CORE,
    "datasets": CORE | {"files", "video"},
    "synthetic": CORE | {"files"},
    "layers": CORE,
    "models": CORE | {"layers"},
    "official": CORE | {"layers", "models"},
    "modes": set(),
    "training": CORE
    | {"files", "paths", "machine", "modes", "video", "datasets", "synthetic", "layers", "models", "official"}
    | {"figures"},
    "analysis": CORE | {"layers", "models", "modes"},
    "bench": {"analysis", "datasets", "files", "machine", "models", "paths", "video"},
    "figures": CORE,
    "widgets": CORE | {"files", "figures", "video", "layers", "analysis"},
    "experiments": CORE
    | {"files", "paths", "machine", "profiles", "video", "datasets", "synthetic"}
    | {"layers", "models", "modes", "official", "training", "analysis"},
    "grading": CORE
    | {"files", "paths", "machine", "profiles", "video", "datasets", "synthetic"}
    | {"layers", "models", "official", "training", "analysis", "experiments"},
    "lesson": CORE
    | {"files", "paths", "machine", "profiles", "video", "datasets", "synthetic"}
    | {"layers", "models", "modes", "training", "analysis"}
    | {"figures", "widgets", "experiments"},
    "notebooks": {"experiments", "files", "machine", "paths", "profiles"},
    "export": {"files", "widgets"},
    "doctor": {"datasets", "grading", "paths", "profiles", "synthetic", "video"},
    "cli": None,  # anything; and nothing imports it
}


def used(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_data_flows_one_way(path):
    if part(path) == "__init__":
        assert not list(used(path))[1:], "course_lib itself imports nothing"
        return
    assert part(path) in MAY_IMPORT, f"say in this table what {part(path)} may import"
    allowed = MAY_IMPORT[part(path)]
    if allowed is None:
        return
    parts = {name.split(".")[1] for name in used(path) if name.startswith("course_lib.")}
    wrong = parts - allowed - {part(path)}
    assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_networks_and_training_need_neither_jupyter_nor_a_decoder():
    loaded = modules_after("import course_lib.models, course_lib.official, course_lib.training.fit")
    heavy = {"IPython", "ipywidgets", "anywidget", "matplotlib", "decord", "av", "jupyterlab", "papermill", "nbformat"}
    heavy |= {"psutil", "msgpack"}
    assert not heavy & loaded


def test_reading_video_needs_no_decoder_until_a_file_is_opened():
    assert not {"decord", "av"} & modules_after("import course_lib.video")
