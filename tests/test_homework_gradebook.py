"""The marks of a class as tables: what is open stays empty, what changed is told, and no field is a formula."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from pathlib import Path

import homework_results as small
import pytest
import tiny_homework as tiny
from typer.testing import CliRunner

from course_lib.cli import app
from course_lib.grading import books, results, run
from course_lib.grading import box as boxes
from course_lib.grading.gradebook import write_books
from course_lib.grading.overrides import Settled
from course_lib.grading.roster import read_roster
from course_lib.grading.source import HomeworkError

BOB_DONE = {(small.BOB, name): Settled(points, "on paper") for name, points in (("q1", 4), ("q2", 1.5), ("q3", 3))}
CANVAS = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Tiny (1234),Final Score\n"
    "    Points Possible,,,,,9,\n"
    '"Co, Ann",11,s11,=<b>ann & co,A,,50\n'
    '"-Lee, Bob",12,s12,bob@uni,A,,60\n'
    '"Ray, Cy",13,s13,cy,A,,70\n'
)
MOODLE = (
    "\ufeffIdentifier,Full name,Email address,Status,Grade,Maximum Grade,Feedback comments\n"
    "Participant 11,Ann Co,=<b>ann & co,Submitted,,100,\n"
    "Participant 12,Bob Lee,bob@uni,Submitted,,100,\n"
    "Participant 13,Cy Ray,cy@uni,No submission,7,100,kept\n"
)


@pytest.fixture(scope="module")
def graded(tmp_path_factory) -> Path:
    return small.grade_class(tmp_path_factory.mktemp("class"))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def renamed(out: Path, folder: Path, student: str) -> Path:
    """The same results, bob's under another name."""
    shutil.copytree(out, folder)
    path = folder / "results" / f"{results.file_of(small.BOB)}.json"
    found = json.loads(path.read_text()) | {"student": student}
    path.unlink()
    (folder / "results" / f"{results.file_of(student)}.json").write_text(json.dumps(found))
    return folder


def test_a_total_is_empty_while_a_question_is_not_graded(graded, tmp_path):
    found = write_books(graded, tmp_path, {})
    assert (found.students, found.not_graded) == (2, 3)
    ann, bob = table(tmp_path / "wide.csv")
    assert list(ann) == ["student", "q1", "q2", "q3", "total", "max", "not_graded"]
    assert list(ann.values()) == [f"'{small.ANN}", "1", "3", "0", "4", "10", "0"]
    assert list(bob.values()) == ["bob", "", "", "", "", "10", "3"]
    rows = table(tmp_path / "gradebook.csv")
    assert list(rows[0]) == list(books.COLUMNS) and len(rows) == 6
    assert all((row["points"] == "") == (row["outcome"] == "not_graded") for row in rows)
    whole = json.loads((tmp_path / "gradebook.json").read_text())
    assert [(each["student"], each["total"]) for each in whole["students"]] == [(small.ANN, 4), ("bob", None)]
    assert [each["sandboxed"] for each in whole["students"]] == [False, False]
    assert any("not sandboxed: 2 of 2 submissions" in line for line in found.problems)


def test_what_a_person_settled_wins(graded, tmp_path):
    settled = BOB_DONE | {(small.ANN, "q2"): Settled(0, "=copied")}
    assert write_books(graded, tmp_path, settled).not_graded == 0
    assert [row["total"] for row in table(tmp_path / "wide.csv")] == ["1", "8.5"]
    rows = {(row["student"], row["question"]): row for row in table(tmp_path / "gradebook.csv")}
    assert rows["bob", "q2"]["points"] == "1.5" and rows["bob", "q2"]["outcome"] == "wrong"
    assert rows["bob", "q1"]["outcome"] == "right" and rows["bob", "q1"]["reason"] == "on paper"
    assert rows[f"'{small.ANN}", "q2"]["reason"] == "'=copied"


def test_a_folder_of_a_download_finds_its_row_by_the_sites_number(tmp_path):
    (tmp_path / "moodle.csv").write_text(MOODLE)
    roster = read_roster(tmp_path / "moodle.csv")
    name = "Bob Lee_12_assignsubmission_file_x_13_assignsubmission_file_tiny.ipynb"
    assert roster.rows[roster.find(name)]["Full name"] == "Bob Lee"


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t1", "\r1", "\n1", "＝1", "'=1", "''-1"])
def test_no_field_is_a_formula_and_every_text_comes_back(text, tmp_path):
    (tmp_path / "a.csv").write_text(books.as_csv([["name"], [text]]), newline="")
    with (tmp_path / "a.csv").open(newline="") as file:
        read = list(csv.reader(file))[1][0]
    assert read.startswith("'") and read != text and books.plain(read) == text
    assert all(books.plain(each) == books.defused(each) == each for each in ("a", "'a", "", "a=1", "'"))


def test_canvas_gets_its_own_rows_with_marks(graded, tmp_path):
    (tmp_path / "canvas.csv").write_text(CANVAS)
    found = write_books(graded, tmp_path / "out", {}, read_roster(tmp_path / "canvas.csv"))
    with (tmp_path / "out" / "canvas.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Tiny (1234)"],
        ["Points Possible", "", "", "", "", "10"],
        ["Co, Ann", "11", "s11", f"'{small.ANN}", "A", "4"],
        ["'-Lee, Bob", "12", "s12", "bob@uni", "A", ""],
        ["Ray, Cy", "13", "s13", "cy", "A", ""],
    ]
    problems = "\n".join(found.problems)
    assert "bob: no rows of" in problems and "Ray, Cy: nothing was graded" in problems
    assert not (tmp_path / "out" / "moodle.csv").exists()


def test_moodle_gets_its_own_columns_with_marks_and_comments(graded, tmp_path):
    (tmp_path / "moodle.csv").write_text(MOODLE, encoding="utf-8")
    of = renamed(graded, tmp_path / "results", "Bob Lee_12_assignsubmission_file")
    settled = {("Bob Lee_12_assignsubmission_file", name): each for (_, name), each in BOB_DONE.items()}
    write_books(of, tmp_path / "out", settled, read_roster(tmp_path / "moodle.csv"))
    ann, bob, cy = table(tmp_path / "out" / "moodle.csv")
    assert list(ann)[:4] == ["Identifier", "Full name", "Email address", "Status"]
    assert (ann["Grade"], ann["Maximum Grade"]) == ("4", "10")
    assert ann["Feedback comments"].startswith("q1: numbers: ") and "; q3: your function" in ann["Feedback comments"]
    assert (bob["Grade"], bob["Feedback comments"]) == ("8.5", "q2: on paper")
    assert (cy["Grade"], cy["Maximum Grade"], cy["Feedback comments"]) == ("7", "100", "kept"), "not ours to change"


@pytest.mark.parametrize("name", ["12", "s12", "bob@uni", "-Lee, Bob", "leebob_12_777_tiny", "leebob_LATE_12_777_tiny"])
def test_a_folder_is_found_in_the_roster_by_each_of_its_names(name, graded, tmp_path):
    (tmp_path / "canvas.csv").write_text(CANVAS)
    assert read_roster(tmp_path / "canvas.csv").find(name) == 1


@pytest.mark.parametrize(("site", "points"), [("canvas", "8.5"), ("moodle", "")])
def test_the_number_of_a_download_finds_its_row_on_its_own_site_only(site, points, graded, tmp_path):
    (tmp_path / "canvas.csv").write_text(CANVAS)
    of = renamed(graded, tmp_path / "results", "leebob_12")
    path = of / "results" / f"{results.file_of('leebob_12')}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"site": site, "id": "12"}))
    settled = {("leebob_12", name): each for (_, name), each in BOB_DONE.items()}
    write_books(of, tmp_path / "out", settled, read_roster(tmp_path / "canvas.csv"))
    assert table(tmp_path / "out" / "canvas.csv")[2]["Tiny (1234)"] == points


def test_two_rows_or_two_folders_for_one_student_are_told_and_not_guessed(graded, tmp_path):
    (tmp_path / "twins.csv").write_text(CANVAS.replace("s12", "s11").replace("=<b>ann & co", "ann"))
    roster = read_roster(tmp_path / "twins.csv")
    with pytest.raises(HomeworkError, match="s11: 2 rows"):
        roster.find("s11")
    of = renamed(graded, tmp_path / "results", "11")
    (tmp_path / "canvas.csv").write_text(CANVAS)
    found = write_books(of, tmp_path / "out", {}, read_roster(tmp_path / "canvas.csv"))
    assert any("are one row" in line for line in found.problems), found.problems


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("name,mark\nann,1\n", "neither Canvas"), ("", "neither Canvas"), ("Student,ID\nann\n", "not as many columns"),
     ("Student,ID\n  Points Possible,\n", "no students")],
)  # fmt: skip
def test_a_roster_that_is_none_is_named(text, sentence, tmp_path):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(HomeworkError, match=sentence) as error:
        read_roster(tmp_path / "list.csv")
    assert "list.csv" in str(error.value)


# What changed


def mark(out: Path, student: str, grading: str, key: str, sum: str = "a", **points: float | None) -> None:
    """Store a result as the grader does."""
    rows = [
        {"question": name, "points": each, "max_points": 4, "outcome": "not_graded" if each is None else "wrong",
         "reason": "", "stop": "", "seconds": 0, "inputs_sha256": "", "carried": [], "checks": []}
        for name, each in points.items()
    ]  # fmt: skip
    found = {"schema": 1, "student": student, "homework": "tiny", "key": key, "version": "v", "sandbox": "none",
             "attempts": 1, "submission": {"sha256": sum}, "messages": [], "texts": {}, "cells": [], "sources": [],
             "environment": {}, "profile": "smoke", "questions": rows}  # fmt: skip
    results.store(out, student, found, grading)


def test_a_grading_tells_which_marks_it_changed_and_why(tmp_path):
    mark(tmp_path, "ann", "1", "k1", q1=4, q2=None)
    mark(tmp_path, "bob", "1", "k1", q1=3, q2=2)
    mark(tmp_path, "=cy", "1", "k1", q1=3)
    assert books.write_changes(tmp_path, "1") == (0, ()) and table(tmp_path / "regrade.csv") == []
    mark(tmp_path, "ann", "2", "k2", "b", q1=2, q2=None)
    mark(tmp_path, "ann", "2", "k2", "b", q1=2, q2=1)  # a second try in the same grading
    mark(tmp_path, "bob", "2", "k2", q1=3, q2=2)
    mark(tmp_path, "=cy", "2", "k1", q1=None)  # the same key: what was judged stays
    changed, fallen = books.write_changes(tmp_path, "2")
    assert [list(row.values()) for row in table(tmp_path / "regrade.csv")] == [
        ["ann", "q1", "4", "2", "another file"],
        ["ann", "q2", "", "1", "another file"],
    ]
    assert changed == 2 and fallen == ("ann, q1: 4 -> 2 (another file)",)
    kept = json.loads((tmp_path / "history" / "2" / f"{results.file_of('ann')}.json").read_text())
    assert [row["points"] for row in kept["questions"]] == [4, None]
    mark(tmp_path, "=cy", "3", "k1", q1=1)
    assert books.write_changes(tmp_path, "3")[1] == ("=cy, q1: 3 -> 1 (graded again)",)


def test_of_several_tries_the_last_counts_or_the_best_of_the_same_release(graded, tmp_path):
    out = shutil.copytree(graded, tmp_path / "results")
    first = json.loads((out / "results" / f"{results.file_of(small.ANN)}.json").read_text())
    for grading, points, version in (("2", 2, first["version"]), ("3", 4, "another"), ("4", 0, first["version"])):
        rows = [row | {"points": points if row["question"] == "q1" else 0} for row in first["questions"]]
        results.store(out, small.ANN, first | {"questions": rows, "version": version, "key": grading}, grading)
    totals = {}
    for policy in ("last", "best"):
        write_books(out, tmp_path / policy, {}, policy=policy)
        totals[policy] = table(tmp_path / policy / "wide.csv")[0]["total"]
    assert totals == {"last": "0", "best": "4"}  # q1 1 + q2 3, not the 4 of another release


def test_a_grading_that_was_stopped_goes_on_as_the_same(tmp_path):
    first = results.begin(tmp_path)
    assert results.begin(tmp_path) == first
    (tmp_path / "unfinished").unlink()
    assert results.begin(tmp_path) > first


def test_results_of_two_homeworks_do_not_share_a_folder(graded, tmp_path):
    out = shutil.copytree(graded, tmp_path / "out")
    about = json.loads((out / "homework.json").read_text())
    (out / "homework.json").write_text(json.dumps(about | {"homework": "other"}))
    plan = run.Plan(graded.parent / "tiny", graded.parent / "class", out, boxes.NONE, tiny.LIMITS)
    with pytest.raises(HomeworkError, match="holds the results of other: give tiny another --out"):
        run.grade(plan)


def test_a_mark_that_fell_is_in_the_summary_of_the_grader(graded, tmp_path):
    folder = shutil.copytree(graded.parent, tmp_path / "run")
    (folder / "class" / small.ANN / "tiny.ipynb").unlink()
    arguments = [str(folder / "tiny"), str(folder / "class"), "--out", str(folder / "out"), "--trust-submissions"]
    found = CliRunner().invoke(app, ["grade", *arguments])
    assert found.exit_code == 0 and "3 marks are not what they were, 3 fell" in found.output, found.output
    assert f"{small.ANN}, q1: 1 -> not graded (another file" in found.output
    rows = table(folder / "out" / "regrade.csv")
    assert [(row["question"], row["before"], row["after"]) for row in rows] == [
        ("q1", "1", ""), ("q2", "3", ""), ("q3", "0", "")
    ]  # fmt: skip
    assert not (folder / "out" / "unfinished").exists()
    again = CliRunner().invoke(app, ["grade", *arguments])
    assert again.exit_code == 0 and "are not what they were" not in again.output
    assert table(folder / "out" / "regrade.csv") == [], "nothing changed since"


@pytest.mark.parametrize("command", ["feedback", "gradebook"])
def test_a_full_disk_is_told_by_the_name_of_the_file_and_leaves_none_that_is_cut_off(
    command, graded, tmp_path, monkeypatch
):
    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write() has it: without a name

    monkeypatch.setattr(Path, "write_bytes", full)
    found = CliRunner().invoke(app, [command, str(graded), "--out", str(tmp_path / "out")])
    assert found.exit_code == 1 and f"{tmp_path / 'out'}: No space left on device" in found.output, found.output
    assert list((tmp_path / "out").iterdir()) == []


def gradebook(*arguments: object):
    return CliRunner().invoke(app, ["gradebook", *map(str, arguments)])


def test_the_command_says_what_is_open_and_names_what_it_cannot_use(graded, tmp_path):
    found = gradebook(graded, "--out", tmp_path / "out")
    assert found.exit_code == 0 and "2 students, 3 questions not graded" in found.output.splitlines()[-1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gradebook.csv", "gradebook.json", "wide.csv"]
    assert gradebook(graded, "--out", tmp_path / "out", "--policy", "mean").exit_code == 2
    for option in ("--roster", "--overrides"):
        found = gradebook(graded, "--out", tmp_path / "more", option, tmp_path / "absent.csv")
        assert found.exit_code == 1 and "absent.csv could not be read: No such file" in found.output, found.output
    found = gradebook(tmp_path, "--out", tmp_path / "more")
    assert found.exit_code == 1 and "homework.json is missing" in found.output
    assert not (tmp_path / "more").exists()
