"""Whatever a command of the homework is given, it ends in one sentence that names the file, and no traceback."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import homework_results as small
import pytest
import tiny_homework as tiny
from typer.testing import CliRunner

from course_lib.cli import app
from course_lib.grading import box as boxes

RUN = {  # {command: its arguments, in a folder with a release, a class and results}
    "release": "release source --draws 1 --out OUT", "grade": "grade tiny class --out OUT",
    "feedback": "feedback graded --out OUT", "gradebook": "gradebook graded --out OUT",
    "similar": "similar tiny pair --out OUT",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sentences")
    tiny.release(folder / "tiny")
    shutil.copytree(small.grade_class(folder / "of class"), folder / "graded")
    for student, content in {"ann": b"{", "bob": b"[]"}.items():
        (folder / "class" / student).mkdir(parents=True)
        (folder / "class" / student / "tiny.ipynb").write_bytes(content)
    for number, student in enumerate(("ann", "bob")):
        (folder / "pair" / student).mkdir(parents=True)
        (folder / "pair" / student / "tiny.ipynb").write_bytes(
            tiny.submission(q1=f"def double(x): return x + x * {number}")
        )
    (folder / "empty").mkdir()
    (folder / "file").write_text("")
    (folder / "two").mkdir()
    (folder / "two" / "a.ipynb").write_text("{}")
    (folder / "two" / "b.ipynb").write_text("{}")
    shutil.copytree(folder / "tiny", folder / "later")
    manifest = folder / "later" / "private" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema": 2}))
    shutil.copytree(folder / "graded", folder / "cut")
    next((folder / "cut" / "results").iterdir()).write_text("{")
    (folder / "source").mkdir()
    (folder / "source" / "source.ipynb").write_bytes(tiny.submission())
    return folder


def course(made: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.chdir(made)
    monkeypatch.setattr(boxes, "find_sandbox", lambda: boxes.NONE)
    found = CliRunner().invoke(app, command.split())
    assert found.exception is None or isinstance(found.exception, SystemExit), repr(found.exception)
    return found.exit_code, found.output


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("release absent --out o", "absent"), ("release empty --out o", "empty"), ("release two --out o", "two"),
        ("release file --out o", "file"), ("release source --out o", "source.ipynb"),
        ("grade empty class --out o", "empty/private/manifest.json"), ("grade tiny absent --out o", "absent"),
        ("grade tiny empty --out o", "empty"), ("grade tiny file --out o", "file"),
        ("grade later class --out o", "later/private/manifest.json"), ("grade tiny class --out file", "file"),
        ("grade tiny class --out o --student zoe", "zoe"),
        ("grade tiny class --out o --question q9", "q9"),
        ("feedback absent --out o", "absent/homework.json"), ("feedback empty --out o", "empty/homework.json"),
        ("feedback file --out o", "file/homework.json"), ("feedback cut --out o", "cut/results/"),
        ("feedback graded --out file", "file"), ("feedback graded --out o --overrides absent", "absent"),
        ("feedback graded --out o --reveal --release later", "later/private/manifest.json"),
        ("gradebook absent --out o", "absent/homework.json"), ("gradebook empty --out o", "empty/homework.json"),
        ("gradebook cut --out o", "cut/results/"), ("gradebook graded --out file", "file"),
        ("gradebook graded --out o --overrides empty", "empty"), ("gradebook graded --out o --roster empty", "empty"),
        ("gradebook graded --out o --roster tiny/private/key", "tiny/private/key"),
        ("similar empty class --out o.html", "empty/private/manifest.json"),
        ("similar tiny absent --out o.html", "absent"), ("similar tiny file --out o.html", "file"),
        ("similar tiny empty --out o.html", "empty"), ("similar later class --out o.html", "later"),
        ("similar tiny pair --out empty", "empty"),
        ("similar tiny class --out o.html", "class"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(command, named, made, monkeypatch):
    status, said = course(made, command, monkeypatch)
    assert status == 1 and named in said, (status, said)
    assert len(said.strip().splitlines()[-1]) < 400 and "Traceback" not in said


@pytest.mark.parametrize("command", RUN)
def test_no_right_to_write_is_told_with_the_name(command, made, monkeypatch):
    status, said = course(made, RUN[command].replace("OUT", "file/below"), monkeypatch)
    assert status == 1 and ("file" in said or command == "release"), (status, said)


FULL = {  # {command: the first file that it writes, which is put on a device that is full}
    "grade": "homework.json", "feedback": None, "gradebook": "gradebook.csv", "similar": "",
}  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("command", FULL)
def test_a_full_disk_is_told_and_leaves_no_half_file(command, made, monkeypatch, tmp_path):
    out = tmp_path / "out"
    if command == "similar":
        out.with_name("out.part").symlink_to("/dev/full")
    else:
        name = FULL[command] or next((made / "graded" / "results").iterdir()).stem + ".html"
        out.mkdir()
        (out / f"{name}.part").symlink_to("/dev/full")
    status, said = course(made, RUN[command].replace("OUT", str(out)), monkeypatch)
    assert status == 1 and "No space left" in said and str(out) in said, (status, said)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("feedback", "course_lib.grading.feedback.write_feedback"),
        ("gradebook", "course_lib.grading.gradebook.write_books"), ("grade", "course_lib.grading.run.grade"),
        ("similar", "course_lib.grading.similar.compare"),
    ],
)  # fmt: skip
def test_a_command_that_is_stopped_says_how_to_go_on(command, place, made, monkeypatch, tmp_path):
    def stopped(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, stopped)
    status, said = course(made, RUN[command].replace("OUT", str(tmp_path / "out")), monkeypatch)
    assert status == 130 and "stopped; the same command" in said, (status, said)


def test_a_file_without_the_right_to_read_it_is_named(made, monkeypatch, tmp_path):
    """As another user, where the tests are root's."""
    for each in (made / "graded" / "homework.json", made / "tiny" / "private" / "manifest.json"):
        real = Path.read_text

        def refuse(self: Path, *given: object, each: Path = each, real=real, **named: object) -> str:
            if self.resolve() == each:
                raise PermissionError(13, "Permission denied", os.fspath(self))
            return real(self, *given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", refuse)
            command = "gradebook" if "graded" in each.parts else "similar"
            status, said = course(made, RUN[command].replace("OUT", str(tmp_path / "out")), patch)
        assert status == 1 and each.name in said and "Permission denied" in said, said
