"""Kept answers are judged again without a box, and count only for exactly what they were given to."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_homework as tiny
from test_homework_grade import gradebook, hand_in, plan_of

from course_lib.grading import answers, mark, results, run
from course_lib.grading.feedback import write_feedback
from course_lib.grading.judge import Found

NEAR_1 = "def double(x):\n    return 2.002 * x"  # wrong by the checks as they are
PRINTS = tiny.cell("print('hello')")
LOOSER = {"q1": tiny.HIDDEN["q1"].replace('"b n", quote', '"b n", 1e-2, quote')}
ANN = run.Task("ann")
BOB, BOBS = "bob_7", ("bob_LATE_7_9_tiny.ipynb", "bob_LATE_7_10_tiny-1.ipynb")
ALL = ["q1", "q2", "q3", "q2 carried"]


@pytest.fixture(scope="module")
def class_of_two(tmp_path_factory) -> Path:
    """ann and bob, whose q1 is nearly right and whose q2 is right on a right q1, marked once; bob's is a download."""
    folder = tmp_path_factory.mktemp("kept")
    tiny.release(folder / "tiny")
    content = tiny.notebook(tiny.cell(tiny.SETUP), PRINTS, *tiny.answers(q1=NEAR_1))
    hand_in(folder, "ann", content)
    for name in BOBS:
        (folder / "class" / name).write_bytes(content if name == BOBS[-1] else b"an earlier try")
    run.grade(plan_of(folder))
    assert [row["points"] for row in gradebook(folder)] == ["1", "3", "3"] * 2
    return folder


@pytest.fixture
def folder(class_of_two, tmp_path) -> Path:
    return shutil.copytree(class_of_two, tmp_path / "copy")


def release_again(folder: Path, **hidden: str) -> None:
    shutil.rmtree(folder / "tiny")
    tiny.release(folder / "tiny", **hidden)


def kept_of(folder: Path, student: str = "ann") -> Path:
    return folder / "out" / "answers" / f"{results.file_of(student)}.safetensors"


def result_of(folder: Path, student: str = "ann") -> dict[str, Any]:
    found = results.read_result(folder / "out", student)
    assert found is not None
    return found


def asked(folder: Path, monkeypatch, task: run.Task = ANN, **plan: Any) -> list[str]:
    """What a box would be opened for, without one."""
    wanted: list[str] = []

    def no_box(self: mark.Marking, pieces: Any, questions: Any, own: bool = True) -> dict[str, Found]:
        wanted.extend(question.id + " carried" * (not own) for question in questions)
        return {question.id: Found(stop="died") for question in questions}

    monkeypatch.setattr(mark.Marking, "run", no_box)
    run.Marker(replace(plan_of(folder), **plan))(task)
    return sorted(set(wanted), key=ALL.index)


# Judged again ---------------------------------------------------------------------------------------------------------


def test_another_tolerance_marks_a_class_again_without_a_box_and_what_fell_is_told(folder):
    release_again(folder, **LOOSER)
    summary = run.grade(plan_of(folder))
    assert [row["points"] for row in gradebook(folder)] == ["4", "0", "3"] * 2
    for student in ("ann", BOB):
        found = result_of(folder, student)
        assert set(found["times"].values()) == {0} and all(row["kept"] for row in found["questions"])
        assert found["cells"][0]["text"] == "hello\n", "what was printed when it was run"
    why = "another release, the same answer judged again"
    text = (folder / "out" / "regrade.csv").read_bytes().decode()
    assert text.splitlines()[0] == '"student","question","before","after","why"' and text.splitlines()[1:] == [
        f'"{student}","{row}","{why}"' for student in ("ann", BOB) for row in ('q1","1","4', 'q2","3","0')
    ]
    assert summary.changed == 4 and summary.fallen == tuple(f"{name}, q2: 3 -> 0 ({why})" for name in ("ann", BOB))
    assert len(list((folder / "out" / "history").glob("*/*.json"))) == 2
    again = run.grade(plan_of(folder))
    assert again.done == 0 and again.changed == 0, "and nothing is changed by looking again"


def test_what_a_carried_box_prints_is_not_told_though_it_is_the_only_one(folder):
    """q1 was wrong without a box; its right answer stands in the only box that is opened, and says so."""
    content = tiny.notebook(tiny.cell(tiny.SETUP), PRINTS, *tiny.answers(q2="def quadruple(x):\n    return double(x)"))
    hand_in(folder, "cy", content)
    marker = run.Marker(plan_of(folder))
    first = marker(run.Task("cy"))
    answers.write(folder / "out", "cy", marker.new_answers)
    assert [row["points"] for row in first["questions"]] == [4, 0, 3] and first["times"]["boxes"] == 1
    release_again(folder, q1=tiny.HIDDEN["q1"].replace("same_numbers(found", "same_numbers(found + 1"))
    marker = run.Marker(plan_of(folder))
    marker.release.reference["q1"] += "\nprint('SECRET')"
    second = marker(run.Task("cy"))
    assert second["times"]["boxes"] == 1 and second["questions"][1]["carried"] == ["q1"]
    assert second["cells"] == first["cells"] and "SECRET" not in json.dumps(second)


# Carried --------------------------------------------------------------------------------------------------------------

SQRT = "def quadruple(x):\n    return double(x) * int(math.sqrt(4))"
IMPORTS = "import math\ndef double(x):\n    return 3 * x"
ENDLESS = "import math\ndef double(x):\n    return 2 * x\nwhile True: pass"
SLOW = "def double(x):\n    while True: pass"
CARRIED = {  # q1, q2 -> the marks of both, and why
    "imports in q1": (IMPORTS, SQRT, (1, 3), ""),
    "a function in q1": ("def twice(y):\n    return y + y\ndef double(x):\n    return 3 * x",
                         "def quadruple(x):\n    return twice(double(x))", (1, 3), ""),
    "a q1 left out that q2 needs": (ENDLESS, SQRT, (None, None), "your cell q1 was left out: a cell ran longer"),
    "a q1 left out that q2 does not need": (ENDLESS, tiny.RIGHT["q2"], (None, 3), ""),
    "no answer with the own q1, wrong with a right one": (
        SLOW, "def quadruple(x):\n    return 3 * double(x)", (None, 0), "with a right q1 in its place: not right"),
    "wrong with both": (IMPORTS, "def quadruple(x):\n    return 2 * double(x) + 1", (1, 0), "the shape is right"),
}  # fmt: skip


@pytest.mark.parametrize("case", CARRIED)
def test_a_right_answer_in_place_of_a_wrong_one_takes_nothing_else_away(case, folder):
    """What else the wrong one's cell holds stays, and where it could not be run nothing is wrong for the want of it."""
    q1, q2, points, reason = CARRIED[case]
    hand_in(folder, "cy", tiny.notebook(tiny.cell(tiny.SETUP), *tiny.answers(q1=q1, q2=q2)))
    plan = replace(plan_of(folder), limits=replace(tiny.LIMITS, cell_s=2, question_s=2))
    rows = run.Marker(plan)(run.Task("cy"))["questions"]
    assert [row["points"] for row in rows] == [*points, 3] and rows[1]["reason"].startswith(reason), rows
    assert (rows[1]["points"] is None) == (rows[1]["carried"] == []), "only then it was graded so"


def test_a_cell_that_never_ends_is_left_out_of_a_carried_box_though_no_own_box_was_opened(folder, monkeypatch):
    endless = tiny.cell("while True: pass")
    hand_in(folder, "cy", tiny.notebook(tiny.cell(tiny.SETUP), endless, *tiny.answers(q1=NEAR_1)))
    plan = replace(plan_of(folder), limits=replace(tiny.LIMITS, cell_s=2))
    marker = run.Marker(plan)
    first = marker(run.Task("cy"))
    assert [row["points"] for row in first["questions"]] == [None, 3, 3], first
    answers.write(folder / "out", "cy", marker.new_answers)
    monkeypatch.setitem(tiny.RIGHT, "q1", "def double(x):\n    return x + x")
    release_again(folder)
    second = run.Marker(plan)(run.Task("cy"))
    assert [row["points"] for row in second["questions"]] == [None, 3, 3], second
    assert second["times"]["boxes"] == 2, "one that it ended, and one without it"


def test_of_two_files_of_a_download_the_newest_was_graded_and_the_student_is_told(folder):
    found = result_of(folder, BOB)
    assert found["messages"] == [f"of several files the newest was graded: {BOBS[1]}, not {BOBS[0]}"]
    assert found["submission"]["path"] == BOBS[1] and (found["site"], found["id"]) == ("canvas", "7")


# Asked again ----------------------------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[list[str], Callable[[Path], dict[str, Any]]]] = {
    "nothing": ([], lambda folder: {}),
    "a check": ([], lambda folder: release_again(folder, **LOOSER) or {}),
    "inputs": (["q3"], lambda folder: release_again(
        folder, q3=tiny.HIDDEN["q3"].replace("size=40", "size=41")) or {}),
    "call": (["q1"], lambda folder: release_again(
        folder, q1=tiny.HIDDEN["q1"].replace("answers.double(x)", "answers.double(1 * x)")) or {}),
    "limits": (ALL, lambda folder: {"limits": replace(tiny.LIMITS, cell_s=6)}),
    "profile": (ALL, lambda folder: {"profile": "gpu"}),
    "the submission": (ALL, lambda folder: kept_of(folder).parents[2].joinpath("class/ann/tiny.ipynb").write_bytes(
        tiny.notebook(tiny.cell(tiny.SETUP), *tiny.answers(q1=NEAR_1))) and {}),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_asked_again_is_what_changed(what, folder, monkeypatch):
    wanted, change = CHANGES[what]
    assert asked(folder, monkeypatch, **change(folder)) == wanted


def test_another_setup_or_package_asks_everything_again(folder, monkeypatch):
    monkeypatch.setattr(tiny, "SETUP", "import torch, math")
    release_again(folder)
    assert asked(folder, monkeypatch) == ALL
    monkeypatch.undo()
    release_again(folder)
    monkeypatch.setattr(run, "environment", lambda: {"torch": "another"})
    assert asked(folder, monkeypatch) == ALL


def test_another_right_answer_to_q1_asks_again_what_was_asked_with_it(folder, monkeypatch):
    monkeypatch.setitem(tiny.RIGHT, "q1", "def double(x):\n    return x + x")
    release_again(folder)
    assert asked(folder, monkeypatch) == ["q2 carried"]


@pytest.mark.parametrize("task", [run.Task("ann", again=True), run.Task("ann", attempt=2)], ids=["again", "retry"])
def test_who_asks_for_it_is_asked_anew(task, folder, monkeypatch):
    assert asked(folder, monkeypatch, task) == ALL


def test_killed_before_the_result_is_there_the_answers_are(folder, monkeypatch):
    (folder / "out" / "results" / f"{results.file_of('ann')}.json").unlink()
    assert asked(folder, monkeypatch) == []
    kept_of(folder).unlink()
    assert asked(folder, monkeypatch) == ALL


# Not believed ---------------------------------------------------------------------------------------------------------


def damaged(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def of_another_key(folder: Path) -> None:
    """Whole, but with a seal that whoever has not the release would make."""
    found = answers.Answers(bytes.fromhex("ab" * 32), "", kept_of(folder).read_bytes())
    assert len(found.kept) == 5
    found.key = b""
    kept_of(folder).write_bytes(found.pack())


TAMPERED: dict[str, Callable[[Path], object]] = {
    "cut off": lambda folder: damaged(kept_of(folder), lambda content: content[:-9]),
    "cut off in its head": lambda folder: damaged(kept_of(folder), lambda content: content[:100]),
    "empty": lambda folder: damaged(kept_of(folder), lambda content: b""),
    "no safetensors file": lambda folder: damaged(kept_of(folder), lambda content: b"\x80\x04\x95" * 100),
    "another student's": lambda folder: shutil.copy(kept_of(folder, BOB), kept_of(folder)),
    "a link": lambda folder: kept_of(folder).rename(folder / "x") and kept_of(folder).symlink_to(folder / "x"),
    "sealed without the key": of_another_key,
}


@pytest.mark.parametrize("how", TAMPERED)
def test_kept_answers_that_were_tampered_with_are_asked_again(how, folder, monkeypatch):
    TAMPERED[how](folder)
    assert asked(folder, monkeypatch) == ALL


def test_of_a_file_with_one_changed_number_the_others_are_believed(folder, monkeypatch):
    file = kept_of(folder)
    whole = answers.Answers(bytes.fromhex("ab" * 32), "", file.read_bytes())
    (name,) = [name for name in whole.kept if name.startswith("q3")]
    content = file.read_bytes()
    at = content.index(whole.kept[name].content)
    file.write_bytes(content[: at + 60] + bytes([content[at + 60] ^ 1]) + content[at + 61 :])
    assert asked(folder, monkeypatch) == ["q3"]


def test_what_is_too_large_is_not_kept_and_an_old_one_of_that_name_goes():
    kept, large = answers.Answers(b"key"), answers.Kept(bytes(answers.MOST), "b")
    kept.put("q1", answers.Kept(b"small", "a"))
    kept.put("q2", large)
    assert list(kept.kept) == ["q1"]
    kept.put("q1", large)
    assert kept.get("q1", "b") == large and len(kept.pack()) < answers.MOST + 4096
    kept.put("q1", replace(large, content=bytes(answers.MOST + 1)))
    assert not kept.kept and kept.changed


def test_nobody_but_the_grader_reads_them_and_no_page_holds_them(folder, tmp_path):
    assert (folder / "out" / "answers").stat().st_mode & 0o777 == 0o700
    write_feedback(folder / "out", tmp_path / "pages", {})
    pages = "".join(path.read_text() for path in (tmp_path / "pages").iterdir())
    found = answers.Answers(bytes.fromhex("ab" * 32), "", kept_of(folder).read_bytes())
    tensor = answers.wire.read(found.kept["q1 own"].content)["cases"][0]["gives"]
    assert not [number for number in tensor.flatten().tolist() if f"{number:.3f}" in pages]
    assert not [name for name in os.listdir(tmp_path / "pages") if not name.endswith(".html")]
