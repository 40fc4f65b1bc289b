"""How many submissions an hour a core marks, against nbgrader's autograder on the same notebooks without a sandbox.

One assignment is released, and its reference varied into a class. Both mark it on one core, by turns, and by turns at
going first; what a class of 300 takes on two cores is ten times a class of 30. nbgrader is no dependency: name a Python
of an environment of its own that has it and what the homework imports,

    NBGRADER=/path/to/bin/python make bench PYTEST_ARGS="-k grading"

CLASS sets the size (30), ROUNDS how often (3), RECORD a file that gets the figures (data/results/grading/vtn.json is
one). Where the kernel counts processor time for a group of processes (cgroups, as root), it is told beside the time by
the clock, because other work on the machine hardly changes it.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from course_lib.files import read_json, write_json
from course_lib.grading import run
from course_lib.grading.release import release
from course_lib.machine import machine

ROOT = Path(__file__).parents[2]
CORES = 2
CLASS, ROUNDS, HOMEWORK = int(os.environ.get("CLASS", "30")), int(os.environ.get("ROUNDS", "3")), "vtn"
OURS, THEIRS = "course grade", "nbgrader autograde"
GROUPS = (("/sys/fs/cgroup/cpuacct", "cpuacct.usage", 1e9), ("/sys/fs/cgroup", "cpu.stat", 1e6))


def make_class(released: Path, out: Path, number: int) -> None:
    """Variants of the reference, as students would hand them in: every file is another, every answer right."""
    notebook = read_json(released / "private" / "reference.ipynb")
    for student in range(number):
        for cell in notebook["cells"]:
            if (cell["metadata"].get("nbgrader") or {}).get("solution") and cell["cell_type"] == "code":
                source = "".join(cell["source"]).split("\n# written by ")[0]
                cell["source"] = f"{source}\n# written by {student}"
        folder = out / f"s{student:03}"
        folder.mkdir(parents=True)
        (folder / f"{HOMEWORK}.ipynb").write_text(json.dumps(notebook))


@contextmanager
def group() -> Iterator[Path | None]:
    """A group of processes whose processor time is counted; None if this machine lets us make none."""
    for root, file, _ in GROUPS:
        path = Path(root) / f"bench-grading-{os.getpid()}"
        if (Path(root) / file).exists():
            with suppress(OSError):
                path.mkdir()
                break
    else:
        yield None
        return
    try:
        yield path
    finally:
        path.rmdir()


def processor_seconds(path: Path) -> float:
    for root, file, unit in GROUPS:
        if path.parent == Path(root) and (path / file).exists():
            text = (path / file).read_text()
            return int(text.split("usage_usec")[1].split()[0] if "usage_usec" in text else text) / unit
    raise AssertionError(path)


def measured(command: Sequence[str], cwd: Path, cores: int = 1) -> tuple[float, float | None]:
    """Seconds by the clock and of processors, everything that it starts included, on so many cores."""
    pinned = ",".join(map(str, sorted(os.sched_getaffinity(0))[-cores:]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(command[0]).parent}:{environment['PATH']}"  # nbgrader's kernels are its own Python's
    with group() as path:
        join = f"echo $$ > {path}/cgroup.procs; " if path else ""
        start = time.monotonic()
        done = subprocess.run(
            ["taskset", "-c", pinned, "sh", "-c", f'{join}exec "$@"', "sh", *command],
            cwd=cwd, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        seconds = time.monotonic() - start
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        time.sleep(0.5)  # the last of them ends
        return seconds, processor_seconds(path) if path else None


def ours(released: Path, submissions: Path, out: Path, workers: int = 1) -> list[str]:
    command = [sys.executable, "-c", "from course_lib.cli import app; app()", "grade", str(released), str(submissions)]
    return [*command, "--out", str(out), "--workers", str(workers)]


def nbgrader_course(python: str, submissions: Path, folder: Path) -> None:
    """The same class as nbgrader wants it; its release is made and its database filled here, untimed."""
    source = folder / "source" / "a" / f"{HOMEWORK}.ipynb"
    source.parent.mkdir(parents=True)
    shutil.copy(ROOT / "notebooks" / "homework" / HOMEWORK / f"{HOMEWORK}.ipynb", source)
    for student in submissions.iterdir():
        shutil.copytree(student, folder / "submitted" / student.name / "a")
    (folder / "nbgrader_config.py").write_text(
        "c = get_config()\nc.ClearSolutions.enforce_metadata = False\nc.Execute.timeout = 120\n"
    )
    measured([python, "-m", "nbgrader", "generate_assignment", "a", "--force"], folder)


@pytest.mark.skipif(not shutil.which("taskset"), reason="needs taskset of util-linux, to use one core")
def test_submissions_an_hour(sandbox, tmp_path, capsys):
    released, submissions = tmp_path / "release", tmp_path / "class"
    release(ROOT / "notebooks" / "homework" / HOMEWORK, released, 2)
    make_class(released, submissions, CLASS)
    nbgrader = os.environ.get("NBGRADER", "")
    record = {"homework": HOMEWORK, "submissions": CLASS, "rounds": ROUNDS, "sandbox": sandbox.name, **machine()}
    record["load"] = [round(os.getloadavg()[0], 1)]
    found: dict[str, list[tuple[float, float | None]]] = {OURS: []}
    if nbgrader:
        nbgrader_course(nbgrader, submissions, tmp_path / "nbgrader")
        found[THEIRS] = []
        command = [nbgrader, "-m", "nbgrader", "--version"]
        record["nbgrader"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
    with capsys.disabled():
        print(f"\n  {HOMEWORK}, {CLASS} submissions, one core, box: {sandbox.name}; load {record['load'][0]}")
        if not nbgrader:
            print("  nbgrader: not measured (NBGRADER names no Python)")
        for turn in range(ROUNDS):
            for name in list(found)[:: -1 if turn % 2 else 1]:
                found[name].append(one_turn(name, nbgrader, released, submissions, tmp_path, turn))
        for name, turns in found.items():
            wall = statistics.median(seconds for seconds, _ in turns) / CLASS
            processor = [seconds for _, seconds in turns if seconds is not None]
            busy = statistics.median(processor) / CLASS if processor else None
            told = f", {3600 / busy:5.0f} by processor time ({busy:.2f} s each)" if busy else ""
            print(f"  {name:20} {3600 / wall:5.0f} an hour a core by the clock ({wall:.2f} s each){told}")
            record[name] = {"seconds": round(wall, 3), "processor_seconds": busy and round(busy, 3)}
            record[name]["turns"] = [[round(seconds, 1), busy and round(busy, 1)] for seconds, busy in turns]
        record["where_time_goes"] = run.where_time_goes(tmp_path / "out0")
        print(*(f"    {line}" for line in record["where_time_goes"]), sep="\n")
        seconds, busy_s = measured(ours(released, submissions, tmp_path / "all", CORES), tmp_path, CORES)
        record["class_on_two_cores"] = {"seconds": round(seconds, 1), "processor_seconds": busy_s and round(busy_s, 1)}
        record["load"].append(round(os.getloadavg()[0], 1))
        print(f"  the class on {CORES} cores: {seconds:.0f} s; ten times that: {seconds * 10 / 60:.0f} minutes")
    if os.environ.get("RECORD"):
        write_json(Path(os.environ["RECORD"]), record)


def one_turn(
    name: str, nbgrader: str, released: Path, submissions: Path, folder: Path, turn: int
) -> tuple[float, float | None]:
    """Mark the class once; everything in it was marked, and rightly."""
    if name == THEIRS:
        taken = measured([nbgrader, "-m", "nbgrader", "autograde", "a", "--force"], folder / "nbgrader")
        assert len(list((folder / "nbgrader" / "autograded").glob("*/a/*.ipynb"))) == CLASS
        return taken
    out = folder / f"out{turn}"
    taken = measured(ours(released, submissions, out), folder)
    results = [read_json(path) for path in (out / "results").glob("*.json")]
    outcomes = {row["outcome"] for result in results for row in result["questions"]}
    assert len(results) == CLASS and outcomes == {"right"}, outcomes
    return taken
