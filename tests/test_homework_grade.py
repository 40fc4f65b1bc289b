"""Hostile submissions gain nothing, unlucky ones lose nothing, and a run that is killed goes on."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import tiny_homework as tiny
from typer.testing import CliRunner

from course_lib.cli import app
from course_lib.grading import books, mark, results, run
from course_lib.grading import box as boxes
from course_lib.grading.box import Box
from course_lib.grading.extract import extract
from course_lib.grading.manifest import Limits, Release
from course_lib.grading.reference import Reference
from course_lib.grading.results import file_of
from course_lib.grading.source import HomeworkError

WRONG_3 = "def count(x):\n    return -1"


@pytest.fixture(scope="module")
def graded(sandbox, tmp_path_factory):
    """Marks one notebook of ann's: (rows by question, the whole result)."""
    release = tiny.release(tmp_path_factory.mktemp("release") / "tiny")
    reference = Reference.of_release(release)
    box = mark.box_of(release, Box(sandbox))

    def of(notebook: bytes, limits: Limits = box.limits) -> tuple[dict, dict]:
        handed_in = extract(notebook, release.manifest, "ann/tiny.ipynb")
        found = mark.grade_one(release, reference, "ann", handed_in, replace(box, limits=limits))
        return {row["question"]: row for row in found["questions"]}, found

    return of


def points(rows: dict) -> list:
    return [rows[name]["points"] for name in ("q1", "q2", "q3")]


def with_helper(source: str, last: str = "", **changed: str) -> bytes:
    """A notebook with a cell of the student's own before his answers, and one after."""
    after = [tiny.cell(last)] if last else []
    return tiny.notebook(tiny.cell(tiny.SETUP), tiny.cell(source), *tiny.answers(**changed), *after)


# Unlucky but right ----------------------------------------------------------------------------------------------------

NOISE = """
import sys, warnings, logging
warnings.simplefilter("error")
warnings.filterwarnings("ignore", category=DeprecationWarning)
print("look", file=sys.stderr)
logging.getLogger().warning("beware")
torch.set_default_dtype(torch.float64)
json = exec = open = None
"""


def test_noise_odd_cells_other_kinds_of_numbers_and_taken_names_cost_nothing(graded):
    cells = [
        tiny.cell(tiny.SETUP, "setup"), tiny.cell(NOISE), tiny.cell("1 / 0"),
        tiny.cell("import sys; sys.exit(0)"), tiny.cell("# text", kind="markdown"), tiny.cell("import numpy as np"),
        tiny.cell("def double(x):\n    print('hello')\n    return (np.asarray(x) * 2.0).astype('float64')", "q1"),
        tiny.cell("def quadruple(x):\n    return torch.as_tensor(double(x)).requires_grad_() + helper(x)", "q2",
                  "markdown"),
        tiny.cell(tiny.RIGHT["q3"].replace("int(", "(").replace("return ", "return 1.0 * "), "q3"),
        tiny.cell("def helper(y):\n    return 2 * y"), tiny.cell("undefined_name"),
    ]  # fmt: skip
    rows, found = graded(tiny.notebook(*cells))
    assert points(rows) == [4, 3, 3], rows
    assert any("markdown" in message for message in found["messages"])
    texts = "".join(cell["text"] for cell in found["cells"])
    assert "ZeroDivisionError" in texts and "beware" in texts and "hello" not in texts


def test_a_notebook_without_metadata_gets_every_point(graded):
    rows, _ = graded(tiny.notebook(*(tiny.cell(source) for source in (tiny.SETUP, *tiny.RIGHT.values()))))
    assert points(rows) == [4, 3, 3]


def test_a_question_that_builds_on_a_wrong_one_is_marked_with_the_right_one_in_its_place(graded):
    rows, _ = graded(tiny.submission(q1="def double(x):\n    return 3 * x"))
    assert points(rows) == [1, 3, 3] and rows["q2"]["carried"] == ["q1"]
    assert "numbers differ" in rows["q1"]["reason"] and rows["q1"]["carried"] == []


def test_the_untouched_notebook_gets_nothing_and_says_why(graded):
    stubs = {
        name: f"def {source.split('(')[0][4:]}(x):\n    raise NotImplementedError"
        for name, source in tiny.RIGHT.items()
    }
    stubs["q3"] = "pass"
    rows, _ = graded(tiny.submission(**stubs))
    assert points(rows) == [0, 0, 0]
    assert "not attempted" in rows["q1"]["reason"] and "count is not defined" in rows["q3"]["reason"]


def test_an_error_is_told_by_its_class_and_its_line(graded):
    rows, _ = graded(tiny.submission(q3="def count(x):\n    y = 1\n    raise KeyError('my words', x)"))
    assert rows["q3"]["reason"] == "your function stops with KeyError, in line 3 of your cell q3"


# Hostile --------------------------------------------------------------------------------------------------------------

FORGER = """
import threading, time, json, torch
from safetensors.torch import save
forged = save({"0": torch.zeros(2, 4)}, metadata={"tree": json.dumps({"cases": [{"gives": 0}] * 3})})
def forge():
    while True:
        with open("/answer", "wb") as file:
            file.write(forged)
        time.sleep(0.001)
threading.Thread(target=forge, daemon=True).start()
"""


def test_a_thread_that_rewrites_the_answer_gains_nothing(graded):
    rows, _ = graded(with_helper("", FORGER, q3=WRONG_3))
    assert rows["q3"]["points"] in (0, None)


PATCHES = """
import torch, numpy, json, sys, builtins
for name in ("equal", "allclose", "isclose"):
    setattr(torch, name, lambda *a, **k: True)
torch.Tensor.__eq__ = lambda a, b: torch.ones(a.shape, dtype=torch.bool)
torch.Tensor.__sub__ = lambda a, b: torch.zeros(a.shape)
numpy.allclose = numpy.array_equal = lambda *a, **k: True
json.dumps = lambda *a, **k: '{"outcome": "right", "points": 3}'
numpy.testing.assert_allclose = lambda *a, **k: None
class Fake:
    def __getattr__(self, name): return lambda *a, **k: True
sys.modules["course_lib"] = sys.modules["course_lib.grading"] = sys.modules["course_lib.grading.checks"] = Fake()
get_ipython().ast_node_interactivity = "none"
get_ipython().input_transformers_post.append(lambda lines: lines)
"""


def test_patches_of_torch_numpy_json_and_the_checks_gain_nothing(graded):
    rows, _ = graded(with_helper("", PATCHES, q3=WRONG_3))
    assert rows["q3"]["points"] in (0, None)


ODD_ANSWERS = {
    "q1": """
class Same:
    def __eq__(self, other): return True
    def __array__(self, *a, **k): raise SystemExit
    def __reduce__(self): return (print, ("run",))
def double(x):
    return Same()""",
    "q2": """
import pickle, os
class Attack:
    def __reduce__(self): return (os.mkdir, ("/tmp/homework-attacked",))
def quadruple(x):
    with open("/answer", "wb") as file:
        pickle.dump(Attack(), file)
    import torch.utils, safetensors.torch
    import builtins; builtins.open = None
    return x""",
    "q3": """
def count(x):
    import os
    os.unlink("/answer"); os.symlink("/etc/shadow", "/answer")""",
}


def test_objects_that_equal_everything_pickles_and_links_gain_nothing(graded):
    rows, _ = graded(tiny.submission(**ODD_ANSWERS))
    assert not any(points(rows)), points(rows)
    assert "neither tensor, number" in rows["q1"]["reason"]
    assert not Path("/tmp/homework-attacked").exists()


SEARCH = """
import os, sys
FOUND, AWAY = [], ("/proc", "/usr", "/sys", "/root", "/dev", sys.prefix)
for folder, below, files in os.walk("/"):
    below[:] = [one for one in below if not os.path.join(folder, one).startswith(AWAY)]  # to be quick
    FOUND += [os.path.join(folder, file) for file in files]
FOUND += [name for name in os.listdir("/proc") if name.isdigit()]
said = [open(f"/proc/{pid}/cmdline").read().replace("\\0", " ") for pid in os.listdir("/proc") if pid.isdigit()]
said += [open(f"/proc/{pid}/environ").read() for pid in ("self",)]
print([name for name in FOUND if "hidden" in name or "manifest" in name or "private" in name or "reference" in name])
print([name for name in FOUND if name.endswith((".safetensors", "key", "q1.py"))])
print([line for line in said if "private" in line or "release" in line])
"""
LOOK_BACK = """
import inspect, threading, time
def late():
    while True:
        for name in __import__("glob").glob("/in/*"):
            print("SEEN", name, flush=True)
        time.sleep(0.005)
threading.Thread(target=late, daemon=True).start()
def count(x):
    frame, seen = inspect.currentframe(), []
    while frame:
        seen += [name for name in frame.f_locals if "expected" in name or "reference" in name or "judge" in name]
        frame = frame.f_back
    print("SEEN", float(x.sum()))
    raise ValueError(f"SEEN {seen} {x}")
"""


def test_nothing_hidden_is_found_on_disk_in_processes_or_frames_and_nothing_seen_is_quoted(graded):
    rows, found = graded(with_helper(SEARCH, q3=LOOK_BACK))
    assert points(rows)[:2] == [4, 3] and (rows["q3"]["points"] == 0 or rows["q3"]["stop"] == "output")
    (search,) = [cell for cell in found["cells"] if cell["kind"] == "helper"][:1]
    assert search["text"] == "[]\n[]\n[]\n", search
    told = {part: what for part, what in found.items() if part != "sources"}  # the student's own cells, kept as written
    assert "SEEN" not in json.dumps(told)


ENDS = {
    "endless loop": ("question time", "def count(x):\n    while True: pass"),
    "os._exit": ("died", "def count(x):\n    import os\n    os._exit(0)"),
    "memory": ("memory", "def count(x):\n    x = [bytearray(100 << 20) for _ in range(100)]"),
    "output": ("output", "import sys\ndef count(x):\n    while True: sys.__stdout__.write('x' * 1000), "
               "get_ipython().display_pub.publish({'text/plain': 'x' * 1000})"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ENDS)
def test_a_question_that_ends_the_box_costs_only_itself(attack, graded):
    why, source = ENDS[attack]
    limits = replace(tiny.LIMITS, question_s=5 if why == "question time" else 60)
    rows, _ = graded(tiny.submission(q3=source), limits)
    assert points(rows) == [4, 3, None], rows
    assert rows["q3"]["stop"] == why and rows["q3"]["outcome"] == "not_graded"


def test_a_cell_that_never_ends_costs_only_its_own_question(graded):
    rows, _ = graded(tiny.submission(q1="def double(x):\n    return 2 * x\nwhile True: pass"))
    assert points(rows) == [None, 3, 3], rows
    assert rows["q2"]["carried"] == ["q1"] and "longer than" in rows["q1"]["reason"]


# Many -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """A release, and submissions that need no box."""
    tiny.release(tmp_path / "tiny")
    (tmp_path / "class" / "empty").mkdir(parents=True)
    (tmp_path / "class" / "=broken").mkdir()
    (tmp_path / "class" / "=broken" / "tiny.ipynb").write_text("{")
    (tmp_path / "class" / "linked").symlink_to("/etc")
    (tmp_path / "class" / "note.txt").write_text("")
    return tmp_path


def plan_of(folder: Path, sandbox: boxes.Sandbox = boxes.NONE) -> run.Plan:
    return run.Plan(folder / "tiny", folder / "class", folder / "out", sandbox, tiny.LIMITS)


def gradebook(folder: Path) -> list[dict]:
    with (folder / "out" / "gradebook.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def hand_in(folder: Path, student: str, content: bytes) -> None:
    (folder / "class" / student).mkdir(parents=True)
    (folder / "class" / student / "tiny.ipynb").write_bytes(content)


def test_what_cannot_be_read_is_not_graded_never_0_and_a_sentence_names_it(folders):
    summary = run.grade(plan_of(folders))
    rows = gradebook(folders)
    assert list(rows[0]) == list(books.COLUMNS)
    assert len(rows) == 9 and summary.not_graded == 9 and summary.unread == ("note.txt",)
    assert {row["points"] for row in rows} == {""} and {row["outcome"] for row in rows} == {"not_graded"}
    reasons = {row["student"]: row["reason"] for row in rows}
    assert "broken" in reasons["'=broken"] and "empty folder" in reasons["empty"] and "link" in reasons["linked"]


def test_what_cannot_be_read_is_settled_without_starting_a_process(folders, monkeypatch):
    def refuse(plan: run.Plan, slot: int) -> None:
        raise AssertionError("a process was started")

    (folders / "class" / "=broken" / "tiny.ipynb").unlink()
    monkeypatch.setattr(run, "Worker", refuse)
    heard: list[tuple[int, int, int]] = []
    assert run.grade(plan_of(folders), tell=lambda *counts: heard.append(counts)).not_graded == 9
    assert heard == [(0, 3, 0), (1, 3, 3), (2, 3, 6), (3, 3, 9)]
    (folders / "class" / "empty" / "tiny.ipynb").write_bytes(tiny.submission())
    with pytest.raises(AssertionError, match="started"):  # the file is there now, so it is marked
        run.grade(plan_of(folders))


def test_a_gradebook_holds_no_formula():
    text = books.as_csv([["=1+1", "+1", "-1", "@x", "\tx", "plain", 'a "quote"', 3]])
    assert text == '"\'=1+1","\'+1","\'-1","\'@x","\'\tx","plain","a ""quote""","3"\r\n'


def test_a_second_run_marks_nothing_again_and_a_changed_file_is_marked_again(folders):
    run.grade(plan_of(folders))
    result = folders / "out" / "results" / f"{results.file_of('empty')}.json"
    before = result.stat().st_mtime_ns
    assert run.grade(plan_of(folders)).done == 0 and result.stat().st_mtime_ns == before
    (folders / "class" / "empty" / "a.ipynb").write_text("[]")
    assert run.grade(plan_of(folders)).done == 1
    assert run.grade(plan_of(folders), again=True).done == 3
    assert run.grade(plan_of(folders), students=["empty"], again=True).done == 1


def test_two_graders_do_not_work_in_one_folder(folders):
    with run.locked(folders / "out"), pytest.raises(HomeworkError, match="another grader"):
        run.grade(plan_of(folders))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"submissions": Path("/absent")}, "/absent"),
        ({"release": Path("/absent")}, "course release"),
        ({"questions": ("q9",)}, "q1, q2, q3"),
        ({"out": Path(boxes.sys.prefix) / "out"}, "every submission can read"),
    ],
    ids=["submissions", "release", "question", "out"],
)
def test_what_is_missing_is_named(change, sentence, folders):
    with pytest.raises(HomeworkError, match=sentence):
        run.grade(replace(plan_of(folders), **change))


def test_a_file_of_a_result_is_safe_and_belongs_to_one_student():
    names = ["a/b", "a_b", "ä", "x" * 300, "..", "con:", "a b", "\udcff"]
    files = [results.file_of(name) for name in names]
    assert len(set(files)) == len(names)
    assert all(file.isascii() and len(file) <= 49 and "/" not in file and ":" not in file for file in files)


def test_a_question_judged_before_is_not_lost_by_a_second_try(tmp_path):
    row = {"question": "q1", "points": 4, "outcome": "right", "stop": ""}
    head = {"schema": 1, "student": "ann", "key": "k", "attempts": 1, "submission": {}, "cells": [1, 2]}
    results.store(
        tmp_path,
        "ann",
        {**head, "questions": [row, {**row, "question": "q2", "points": None, "outcome": "not_graded"}]},
    )
    late = {**row, "points": None, "outcome": "not_graded"}
    found = results.store(tmp_path, "ann", {**head, "cells": [], "questions": [late, {**row, "question": "q2"}]})
    assert [each["points"] for each in found["questions"]] == [4, 4] and found["cells"] == [1, 2]


def test_the_command_refuses_a_machine_without_a_safe_box_and_runs_nothing(folders, monkeypatch):
    def none() -> None:
        raise boxes.NoSafeBox("no safe box: load a profile")

    monkeypatch.setattr(boxes, "find_sandbox", none)
    arguments = ["grade", str(folders / "tiny"), str(folders / "class"), "--out", str(folders / "out")]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 4 and "load a profile" in found.output and not (folders / "out").exists()


def test_a_full_disk_is_told_before_anything_is_run(folders, monkeypatch):
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/homework-1-x")

    monkeypatch.setattr(boxes, "find_sandbox", full)
    arguments = ["grade", str(folders / "tiny"), str(folders / "class"), "--out", str(folders / "out")]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 1 and found.output == "/tmp/homework-1-x: No space left on device; nothing was run\n"


def test_a_box_on_a_full_disk_says_where_it_is(monkeypatch):
    def full(self: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as raised, boxes.work_folder(Box(boxes.NONE)):
        pass
    assert raised.value.filename.startswith(boxes.PREFIX)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "/tmp: No space left on device: make room there; the same command goes on from here"),
        (errno.EDQUOT, "/tmp: Disk quota exceeded: make room there; the same command goes on from here"),
        (errno.ENOMEM, "Cannot allocate memory: give fewer --workers; the same command goes on from here"),
        (errno.EMFILE, "Too many open files: raise the limit of open files (ulimit -n); the same command goes on"),
        (errno.EIO, ""),
    ],
)
def test_what_every_submission_would_stop_with_ends_the_run_and_what_helps_is_told(number, sentence, monkeypatch):
    class Broken(run.Marker):
        def __init__(self) -> None: ...

        def __call__(self, task: run.Task) -> dict:
            raise OSError(number, os.strerror(number))

    def full(**given: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run.tempfile, "TemporaryFile", full)
    what, said = run.answer(Broken(), run.Task("ann"))
    assert what == ("unable" if sentence else "failed") and said.startswith(sentence or "OSError"), said
    monkeypatch.undo()
    if number == errno.ENOSPC:  # one box filled the disk, and is gone: no reason to stop all others
        assert run.answer(Broken(), run.Task("ann")) == ("failed", "OSError")


def test_an_answer_that_finds_no_room_on_the_disk_is_not_taken_for_a_bad_one(monkeypatch):
    class Unread(run.Marker):
        def __init__(self) -> None:
            self.new_answers = b""

        def __call__(self, task: run.Task) -> dict:
            return {"questions": [{"stop": "unreadable"}]}

    def full(**given: object) -> None:
        raise OSError(errno.ENOSPC, "")

    assert run.answer(Unread(), run.Task("ann"))[0] == "done"
    monkeypatch.setattr(run.tempfile, "TemporaryFile", full)
    assert run.answer(Unread(), run.Task("ann"))[0] == "unable"


def test_what_stopped_by_the_graders_own_fault_is_tried_again_by_the_same_command(folders, monkeypatch):
    (folders / "class" / "empty" / "tiny.ipynb").write_bytes(tiny.submission())
    release, given = Release.read(folders / "tiny"), list[run.Task]()

    def broken(plan: run.Plan, tasks: list, workers: int):
        given.extend(tasks)
        yield from ((task, run.own_fault("OSError")) for task in tasks)

    def whole(plan: run.Plan, tasks: list, workers: int):
        for task in tasks:
            given.append(task)
            found = run.unmarked(release, run.asked_of(release, plan, task), "", "")
            for row in found["questions"]:
                row |= {"points": row["max_points"], "outcome": "right"}
            yield task, run.result_of(release, plan, task, found)

    def course() -> str:
        arguments = ["grade", str(folders / "tiny"), str(folders / "class"), "--out", str(folders / "out")]
        found = CliRunner().invoke(app, [*arguments, "--trust-submissions", "--student", "empty"])
        assert found.exit_code == 0, found.output
        return found.output

    again = "3 questions stopped by the grader's own fault: the same command tries them again"
    monkeypatch.setattr(run, "pool", broken)
    assert again in course() and again in course()
    monkeypatch.setattr(run, "pool", whole)
    assert again not in course()
    course()
    assert [task.attempt for task in given] == [1, 1, 1], "the grader's own fault takes no try away"
    assert given[1].questions == given[2].questions == ("q1", "q2", "q3")
    assert [row["points"] for row in gradebook(folders) if row["student"] == "empty"] == ["4", "3", "3"]


def test_trusted_submissions_say_so_in_every_result(folders):
    arguments = ["grade", str(folders / "tiny"), str(folders / "class"), "--out", str(folders / "out")]
    found = CliRunner().invoke(app, [*arguments, "--trust-submissions"])
    assert found.exit_code == 0 and "not sandboxed" in found.output, found.output
    results = [json.loads(path.read_text()) for path in (folders / "out" / "results").iterdir()]
    assert len(results) == 3 and {result["sandbox"] for result in results} == {"none"}


def test_a_run_that_is_stopped_again_and_again_gives_the_marks_of_one_that_was_not(sandbox, tmp_path):
    """Killed twice, its worker once, and ended once; two of the submissions are hostile."""
    tiny.release(tmp_path / "tiny")
    hand_in(tmp_path, "ann", tiny.submission())
    hand_in(tmp_path, "bad", tiny.submission(q3=ENDS["os._exit"][1]))
    hand_in(tmp_path, "bob", tiny.submission(q3=WRONG_3))
    for number in range(4):  # so that there is something left to do at each kill
        hand_in(tmp_path, f"dan{number}", tiny.submission(q3="import time\ntime.sleep(2)\n" + tiny.RIGHT["q3"]))
    hand_in(tmp_path, "evil", tiny.submission(q1=ODD_ANSWERS["q1"]))
    command = [sys.executable, "-c", "from course_lib.cli import app; app()", "grade", str(tmp_path / "tiny"),
               str(tmp_path / "class"), "--out", str(tmp_path / "out"), "--workers", "1",
               "--cell-seconds", "60"]  # fmt: skip
    results = tmp_path / "out" / "results"
    kept: dict[str, int] = {}

    def under_way(process: subprocess.Popen) -> psutil.Process:
        """Its worker, once it has marked one more and is at work on the next."""
        known = len(list(results.glob("*.json")))
        wait_for(lambda: len(list(results.glob("*.json"))) > known)
        time.sleep(0.3)
        assert process.poll() is None and len(list(results.glob("*.json"))) < 8
        kept.update((path.name, path.stat().st_mtime_ns) for path in results.glob("*.json"))
        return next(each for each in psutil.Process(process.pid).children() if is_worker(each))

    def gone(family: list[psutil.Process]) -> None:
        left = psutil.wait_procs(family, timeout=60)[1]
        assert not [each for each in left if each.status() != psutil.STATUS_ZOMBIE], "workers and boxes end with it"

    heard = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **heard) as first:
        under_way(first)
        family = psutil.Process(first.pid).children(recursive=True)
        first.kill()
        gone(family)
    with subprocess.Popen(command, **heard) as second:
        under_way(second).kill()
        under_way(second)
        family = psutil.Process(second.pid).children(recursive=True)
        second.kill()
        gone(family)
    with subprocess.Popen(command, **heard) as third:
        under_way(third)
        family = psutil.Process(third.pid).children(recursive=True)
        third.terminate()
        _, errors = third.communicate(timeout=60)
        gone(family)
    assert third.returncode == 130 and errors.endswith("stopped; the same command goes on from here\n"), errors
    ended = {str(each.pid) for each in family} | {str(third.pid)}
    assert not [each for each in Path("/tmp").glob("homework-*") if each.name.split("-")[1] in ended]
    subprocess.run(command, check=True, capture_output=True)
    hostile = f"{file_of('bad')}.json"  # its kernel died, so it is tried once more at the end
    kept.pop(hostile, None)
    assert {name: (results / name).stat().st_mtime_ns for name in kept} == kept, "what was done is not touched"
    assert len(kept) > 2
    run.grade(replace(plan_of(tmp_path, sandbox), out=tmp_path / "calm", limits=replace(tiny.LIMITS, cell_s=60)), 2)
    marks = {}
    for out in ("out", "calm"):
        for told in ("feedback", "gradebook"):
            said = CliRunner().invoke(app, [told, str(tmp_path / out), "--out", str(tmp_path / out / told)])
            assert said.exit_code == 0, said.output
        marks[out] = (tmp_path / out / "gradebook" / "wide.csv").read_text()
        assert len(list((tmp_path / out / "feedback").glob("*.html"))) == 8
    assert marks["out"] == marks["calm"]
    assert [row["points"] for row in gradebook(tmp_path)] == [
        *("4", "3", "3"), *("4", "3", ""), *("4", "3", "0"), *("4", "3", "3") * 4, *("0", "3", "3")
    ]  # fmt: skip


def is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def wait_for(what, seconds: float = 180):
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found
