"""The package works when it is installed from a wheel, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the tracked files and the new ones (without git, from all), with the tools of this environment;
    nothing is downloaded."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    if (ROOT / ".git").exists():
        command = ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"]
        command += ["course_lib", "*.toml", "*.md"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    else:
        paths = [*ROOT.glob("*.toml"), *ROOT.glob("*.md"), *(ROOT / "course_lib").rglob("*")]
        listed = [str(path.relative_to(ROOT)) for path in paths if path.parent.name != "__pycache__"]
    for name in listed:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", built, source]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """An environment with the wheel; what the course needs is borrowed from the environment of the tests."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    folder = next(home.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COURSE_DATA")}

    def run(code: str) -> subprocess.CompletedProcess:
        command = [home / "bin" / "python", "-c", code]
        return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)

    return run


def test_a_wheel_holds_types_lists_and_the_widgets_files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "course_lib/py.typed",
        "course_lib/datasets/lists/kinetics/mini10.csv",
        "course_lib/datasets/lists/ssv2/opposites.csv",
        *(f"course_lib/widgets/static/{part}.js" for part in ("space", "relations", "words", "paint", "explorer")),
    } <= names
    assert all(name.startswith(("course_lib/", "course_lib-")) for name in names)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import course_lib; print(course_lib.__file__)", "site-packages"),
        ("from course_lib.models import build; print(build('timesformer_tiny').config.frames)", "8"),
        ("from course_lib.datasets import kinetics; print(len(kinetics.subset('mini10')))", "10"),
        ("from course_lib.datasets import ssv2; print(len(ssv2.opposites()))", "26"),
        ("from course_lib.paths import DATA; print(DATA.parent.name)", "elsewhere"),
    ],
)
def test_the_installed_package_finds_all_that_it_needs(python, code, said):
    run = python(code)
    assert run.returncode == 0, run.stderr[-2000:]
    assert said in run.stdout


def test_the_doctor_speaks_in_an_installed_package(python):
    run = python("import sys; sys.argv = ['course', 'doctor']; from course_lib.cli import app; app()")
    lines = run.stdout.splitlines()
    found = {line.split()[1]: line.split()[0] for line in lines if line.startswith(("ok", "WRONG"))}
    wanted = {"system", "Python", "torch", "GPU", "decoder", "disk", "data", "kinetics", "ssv2", "browser", "box"}
    assert wanted == set(found), run.stderr[-2000:]
    assert [found[name] for name in ("system", "Python", "torch", "decoder")] == ["ok"] * 4, run.stdout
    assert found["data"] == "WRONG" and "course data small" in run.stdout, "nothing was generated there yet"


def test_an_installed_package_does_not_take_another_projects_commit_for_its_own(python):
    ask = "import sys; from course_lib.machine import commit; print(sys.prefix, commit())"
    home = python(ask).stdout.split()[0]
    git = ["git", "-C", home, "-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "another project"], check=True)
    assert subprocess.run([*git, "describe", "--always"], capture_output=True, check=True).stdout
    assert python(ask).stdout.split() == [home, "unknown"]
