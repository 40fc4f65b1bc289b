"""The set-up says one thing in one place, and everything else agrees with it."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)


def requirements() -> list[Requirement]:
    listed = PROJECT["dependencies"] + [r for extra in PROJECT["optional-dependencies"].values() for r in extra]
    return [Requirement(line) for line in listed]


def test_every_dependency_has_its_reason_in_a_comment():
    text = (ROOT / "pyproject.toml").read_text()
    for line in text.splitlines():
        if re.match(r'\s+"[a-z0-9-]+[=>].*",', line) and not re.search(r"pytest>=8", line):
            assert "#" in line, f"say why: {line.strip()}"


def test_every_dependency_is_pinned_and_the_pin_satisfies_it():
    pins = {name.lower().replace("_", "-"): version for name, version in PINS.items()}
    for requirement in requirements():
        name = requirement.name.lower().replace("_", "-")
        if name == "course-lib":  # another of its own extras
            assert requirement.extras <= set(PROJECT["optional-dependencies"])
            continue
        assert name in pins, f"constraints.txt does not pin {requirement.name}"
        assert Version(pins[name]) in requirement.specifier


def test_conda_installs_what_pyproject_lists_with_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, rest = environment["dependencies"]
    assert python.removeprefix("python ") == PROJECT["requires-python"] and pip == "pip"
    assert rest["pip"] == ["--constraint constraints.txt", "--editable .[test]"]


def test_torch_is_pinned_to_one_version():
    assert PINS["torch"] == "2.13.0" and "torch==2.13.0" in PROJECT["dependencies"]


def test_make_lab_serves_by_a_connection_that_keeps_nothing_back(monkeypatch):
    (path,) = re.findall(r"kernel_websocket_connection_class=(\S+)", (ROOT / "Makefile").read_text())
    module, name = path.rsplit(".", 1)
    kind = getattr(importlib.import_module(module), name)
    done = []
    monkeypatch.setattr(kind.__mro__[1], "connect", lambda self: done.append("connected"))
    handler = SimpleNamespace(set_nodelay=done.append)
    monkeypatch.setattr(kind, "websocket_handler", handler)
    kind.connect(kind.__new__(kind))
    assert done == [True, "connected"]


def test_ci_calls_the_readmes_test_command():
    assert "make test" in (ROOT / ".ci/run").read_text() and "make test" in (ROOT / "README.md").read_text()
    assert "make lab" in (ROOT / "README.md").read_text()
