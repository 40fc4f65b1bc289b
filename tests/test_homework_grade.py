"""Hostile submissions gain nothing, unlucky ones lose nothing, and a run that is killed goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
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
from course_lib.grading.reference import Reference
from course_lib.grading.source import HomeworkError

WRONG_3 = "def count(x):\n    return -1"


@pytest.fixture(scope="module")
def graded(sandbox, tmp_path_factory):
    """Marks one notebook of ann's: (rows by question, the whole result)."""
    release = tiny.release(tmp_path_factory.mktemp("release") / "tiny")
    reference = Reference.of_release(release)
    box = mark.box_of(release, Box(sandbox))

    def of(notebook: bytes) -> tuple[dict, dict]:
        found = mark.grade_one(release, reference, "ann", extract(notebook, release.manifest, "ann/tiny.ipynb"), box)
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
    rows, _ = graded(tiny.submission(q3=source))
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
    head = {"schema": 1, "student": "ann", "key": "k", "attempts": 1, "cells": [1, 2]}
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


def test_trusted_submissions_say_so_in_every_result(folders):
    arguments = ["grade", str(folders / "tiny"), str(folders / "class"), "--out", str(folders / "out")]
    found = CliRunner().invoke(app, [*arguments, "--trust-submissions"])
    assert found.exit_code == 0 and "not sandboxed" in found.output, found.output
    results = [json.loads(path.read_text()) for path in (folders / "out" / "results").iterdir()]
    assert len(results) == 3 and {result["sandbox"] for result in results} == {"none"}


def test_a_grader_and_a_worker_that_are_killed_lose_and_give_no_mark(sandbox, tmp_path):
    tiny.release(tmp_path / "tiny")
    hand_in(tmp_path, "ann", tiny.submission())
    hand_in(tmp_path, "bob", tiny.submission(q3=WRONG_3))
    hand_in(tmp_path, "cy", tiny.submission())
    more = [f"dan{i}" for i in range(4)]  # so that there is something left to do at each kill
    for name in more:
        hand_in(tmp_path, name, tiny.submission(q3="import time\ntime.sleep(4)\n" + tiny.RIGHT["q3"]))
    command = [sys.executable, "-c", "from course_lib.cli import app; app()", "grade", str(tmp_path / "tiny"),
               str(tmp_path / "class"), "--out", str(tmp_path / "out"), "--workers", "1"]  # fmt: skip
    results = tmp_path / "out" / "results"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
        wait_for(lambda: results.is_dir() and list(results.glob("*.json")))
        time.sleep(0.3)  # the next one is under way
        family = psutil.Process(first.pid).children(recursive=True)
        first.kill()
    gone = psutil.wait_procs(family, timeout=60)[1]
    assert not [each for each in gone if each.status() != psutil.STATUS_ZOMBIE], "its workers and boxes end with it"
    kept = {path.name: path.stat().st_mtime_ns for path in results.glob("*.json")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as second:
        killed = wait_for(lambda: [each for each in psutil.Process(second.pid).children() if is_worker(each)])
        time.sleep(1)
        assert len(kept) < 3 + len(more) and second.poll() is None
        os.kill(killed[0].pid, signal.SIGKILL)
        second.communicate(timeout=300)
    assert second.returncode in (0, 1)
    if second.returncode:  # the worker was killed before it began, which is told
        subprocess.run(command, check=True, capture_output=True)
    assert {name: (results / name).stat().st_mtime_ns for name in kept} == kept, "what was done is not touched"
    assert [row["points"] for row in gradebook(tmp_path)] == [
        *("4", "3", "3", "4", "3", "0", "4", "3", "3"), *("4", "3", "3") * len(more)
    ]  # fmt: skip
    assert not list(Path("/tmp").glob(f"homework-{first.pid}-*"))


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
