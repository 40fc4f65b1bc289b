"""A class marked by a dask cluster has the marks of the local pool, and a worker that is killed loses none."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import tiny_homework as tiny
from test_homework_grade import WRONG_3, gradebook, hand_in, wait_for
from typer.testing import CliRunner

from course_lib.cli import app
from course_lib.grading import box as boxes
from course_lib.grading import cluster, run
from course_lib.grading.handed import Notebook
from course_lib.grading.source import HomeworkError

STARTED = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
SLOW_3 = "import time\ntime.sleep(4)\n" + tiny.RIGHT["q3"]  # long enough to be killed in the midst


def dask(*arguments: str) -> subprocess.Popen:
    """A process of dask's command line."""
    return subprocess.Popen([sys.executable, "-m", *arguments], **STARTED, start_new_session=True)


def end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def address(dask_cluster) -> str:
    return dask_cluster[0]


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory) -> Iterator[tuple[str, int]]:
    """The address of a scheduler with two workers, as somebody else may have started them, and who watches these."""
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    folder = tmp_path_factory.mktemp("dask")
    told = folder / "scheduler.json"
    started = [
        dask("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
             "--scheduler-file", str(told)),
        dask("distributed.cli.dask_worker", "--scheduler-file", str(told), "--nworkers", "2", "--nthreads", "1",
             "--no-dashboard", "--local-directory", str(folder)),
    ]  # fmt: skip
    try:
        yield wait_for(lambda: told.exists() and json.loads(told.read_text()))["address"], started[1].pid
    finally:
        family = [psutil.Process(one.pid) for one in started]
        family += [child for one in family for child in one.children(recursive=True)]
        for one in started:
            end(one)
        for process in psutil.wait_procs(family, timeout=60)[1]:
            process.kill()


def a_class(folder: Path) -> None:
    tiny.release(folder / "tiny")
    hand_in(folder, "ann", tiny.submission(q3=SLOW_3))
    hand_in(folder, "bob", tiny.submission(q3=WRONG_3))
    hand_in(folder, "cy ü\udcff", tiny.submission(q1="def double(x):\n    return 3 * x"))
    (folder / "class" / "dee").mkdir()


def command(folder: Path, out: str, *more: str) -> list[str]:
    start = [sys.executable, "-c", "from course_lib.cli import app; app()", "grade"]
    return [*start, str(folder / "tiny"), str(folder / "class"), "--out", str(folder / out), *more]


def comparable(folder: Path, out: str) -> dict[str, object]:
    """What must not depend on who marked it."""
    found = {}
    for path in (folder / out / "results").glob("*.json"):
        result = json.loads(path.read_text())
        rows = [{name: row[name] for name in row if name != "seconds"} for row in result["questions"]]
        found[path.stem] = (result["key"], result["submission"], result["sandbox"], rows)
    return found


def test_a_cluster_gives_the_marks_of_the_local_pool_though_a_worker_is_killed(sandbox, dask_cluster, tmp_path):
    address, nanny = dask_cluster
    a_class(tmp_path)
    results = tmp_path / "out" / "results"
    with subprocess.Popen(
        command(tmp_path, "out", "--scheduler", address), stderr=subprocess.PIPE, text=True
    ) as grader:
        (busy, *_) = wait_for(lambda: [one for one in psutil.Process(nanny).children(recursive=True) if has_box(one)])
        box = busy.children(recursive=True)
        os.kill(busy.pid, signal.SIGKILL)
        said = grader.communicate(timeout=300)
    assert grader.returncode == 0, said
    assert not psutil.wait_procs(box, timeout=60)[1], "its box ends with it"
    assert [row["points"] for row in gradebook(tmp_path)] == ["4", "3", "3", "4", "3", "0", "1", "3", "3", "", "", ""]
    subprocess.run(command(tmp_path, "local", "--workers", "1"), check=True, **STARTED)
    assert comparable(tmp_path, "out") == comparable(tmp_path, "local")
    again = subprocess.run(command(tmp_path, "out", "--scheduler", address), capture_output=True, text=True)
    assert "0 of 4 submissions marked" in again.stdout, again
    shutil.rmtree(tmp_path / "tiny")
    tiny.release(tmp_path / "tiny", q3=tiny.HIDDEN["q3"].replace("same_value(", "same_value( "))
    again = subprocess.run(command(tmp_path, "out", "--scheduler", address), capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    times = [
        one["times"]["boxes"] for path in results.glob("*.json") if "times" in (one := json.loads(path.read_text()))
    ]
    assert times == [0, 0, 0], "a changed check judges the kept answers"


def has_box(process: psutil.Process) -> bool:
    """Is it a worker of dask whose box is no trial?"""
    try:
        ours = "spawn_main" in " ".join(process.cmdline())
        inside = [" ".join(one.cmdline()) for one in process.children(recursive=True)]
        return ours and any("bwrap" in line and "/proc/self/status" not in line for line in inside)
    except psutil.Error:
        return False


def test_a_grader_that_is_killed_goes_on_and_asks_for_nothing_twice(sandbox, address, tmp_path):
    a_class(tmp_path)
    results = tmp_path / "out" / "results"
    with subprocess.Popen(command(tmp_path, "out", "--scheduler", address), **STARTED) as grader:
        wait_for(lambda: results.is_dir() and len(list(results.glob("*.json"))) > 1)
        grader.kill()
    kept = {path.name: path.stat().st_mtime_ns for path in results.glob("*.json")}
    subprocess.run(command(tmp_path, "out", "--scheduler", address), check=True, **STARTED)
    assert {name: (results / name).stat().st_mtime_ns for name in kept} == kept
    assert [row["points"] for row in gradebook(tmp_path)] == ["4", "3", "3", "4", "3", "0", "1", "3", "3", "", "", ""]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("tcp://192.0.2.1:8786", "neither TLS nor of this machine"),
        ("192.0.2.1:8786", "neither TLS nor of this machine"),
        ("tcp://grader.example:8786", "neither TLS nor of this machine"),
        ("tcp://127.0.0.1.example:8786", "neither TLS nor of this machine"),
        ("tcp://0.0.0.0:8786", "neither TLS nor of this machine"),
        ("ws://127.0.0.1:8786", "no address"),
        ("tcp://127.0.0.1", "no address"),
        ("tcp://127.0.0.1:x", "no address"),
        ("nonsense", "no address"),
    ],
)
def test_what_would_travel_in_clear_is_refused(given, sentence):
    with pytest.raises(HomeworkError, match=sentence):
        cluster.check_address(given)


@pytest.mark.parametrize("given", ["tcp://127.0.0.1:8786", "localhost:8786", "tcp://[::1]:8786", "tls://far.example:1"])
def test_this_machine_and_tls_are_allowed(given):
    cluster.check_address(given)


def test_a_scheduler_that_other_machines_can_join_is_refused_though_it_is_called_by_loopback(tmp_path):
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    told = tmp_path / "scheduler.json"
    open_to_all = dask("distributed.cli.dask_scheduler", "--host", "0.0.0.0", "--port", "0", "--no-dashboard",
                       "--scheduler-file", str(told))  # fmt: skip
    try:
        port = wait_for(lambda: told.exists() and json.loads(told.read_text()))["address"].rpartition(":")[2]
        with pytest.raises(HomeworkError, match="neither TLS nor of this machine"):
            cluster.connect(f"tcp://127.0.0.1:{port}")
    finally:
        end(open_to_all)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    tiny.release(tmp_path / "tiny")
    hand_in(tmp_path, "ann", tiny.submission())
    arguments = command(tmp_path, "out", "--scheduler", "tcp://127.0.0.1:9")[3:]
    if "distributed" in sys.modules or __import__("importlib.util").util.find_spec("distributed"):
        monkeypatch.setattr(cluster, "CONNECT", 1.0)
        found = CliRunner().invoke(app, arguments)
        assert found.exit_code == 1 and "no scheduler answers at tcp://127.0.0.1:9" in found.output, found.output
    monkeypatch.setitem(sys.modules, "distributed", None)
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 1 and "pip install 'course_lib[cluster]'" in found.output, found.output
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl, to make a certificate")
def test_over_tls_a_scheduler_that_is_killed_loses_no_mark_and_another_goes_on(sandbox, tmp_path):
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    a_class(tmp_path)
    slow_too = tiny.submission(q1="def double(x):\n    return 3 * x", q3=SLOW_3)  # two are slow: one is left
    (tmp_path / "class" / "cy ü\udcff" / "tiny.ipynb").write_bytes(slow_too)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, **STARTED)
    tls = {"CA_FILE": certificate, **{f"{who}__{what}": path for who in ("SCHEDULER", "WORKER", "CLIENT")
                                      for what, path in (("KEY", key), ("CERT", certificate))}}  # fmt: skip
    environment = os.environ | {f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(path) for name, path in tls.items()}
    results = tmp_path / "out" / "results"

    def grade_by(scheduler: str, kill: bool) -> subprocess.CompletedProcess:
        told, options = tmp_path / scheduler, {**STARTED, "env": environment, "start_new_session": True}
        start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "tls://127.0.0.1", "--port", "0"]
        of_both = ["--no-dashboard", "--scheduler-file", str(told)]
        work = [sys.executable, "-m", "distributed.cli.dask_worker", "--nworkers", "1", "--nthreads", "1"]
        with (
            subprocess.Popen([*start, *of_both], **options) as boss,
            subprocess.Popen([*work, *of_both, "--local-directory", str(tmp_path)], **options) as nanny,
        ):
            try:
                address = wait_for(lambda: told.exists() and json.loads(told.read_text()))["address"]
                assert address.startswith("tls://127.0.0.1:")
                line = command(tmp_path, "out", "--scheduler", address)
                with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) as grader:
                    if kill:
                        wait_for(lambda: results.is_dir() and len(list(results.glob("*.json"))) > 1)
                        boss.kill()
                    said = grader.communicate(timeout=240)[1]
                return subprocess.CompletedProcess(line, grader.returncode, "", said)
            finally:
                family = psutil.Process(nanny.pid).children(recursive=True)
                boss.kill()
                end(nanny)
                for process in psutil.wait_procs(family, timeout=60)[1]:
                    process.kill()

    first = grade_by("first.json", kill=True)
    assert first.returncode == 1 and "is gone; the same command goes on" in first.stderr, first
    kept = {path.name: path.stat().st_mtime_ns for path in results.glob("*.json")}
    assert 1 < len(kept) < 4
    second = grade_by("second.json", kill=False)
    assert second.returncode == 0, second.stderr
    assert {name: (results / name).stat().st_mtime_ns for name in kept} == kept, "what was done is not touched"
    assert [row["points"] for row in gradebook(tmp_path)] == ["4", "3", "3", "4", "3", "0", "1", "3", "3", "", "", ""]


def test_a_parcel_holds_all_that_marks_and_leaves_nothing_hidden_on_disk(tmp_path):
    a_class(tmp_path)
    plan = run.Plan(tmp_path / "tiny", tmp_path / "class", tmp_path / "out", boxes.NONE, tiny.LIMITS)
    notebook = Notebook("bob/b.ipynb", tiny.submission(q3=WRONG_3), ())
    task, packed = run.Task("bob", key="k"), cluster.packed(plan.release)
    parcel = cluster.Parcel(plan, task, run.environment(), packed, notebook, b"")
    (tmp_path / "tiny").rename(tmp_path / "away")
    (tmp_path / "class").rename(tmp_path / "gone")
    what, found = cluster.mark(pickle.loads(pickle.dumps(parcel)))
    assert what == "done" and [row["points"] for row in found["questions"]] == [4, 3, 0], found
    left = [path for path in Path("/tmp").glob(f"homework-{os.getpid()}-*") for path in path.rglob("*")]
    assert not [path for path in left if path.is_file()]
    other = cluster.Parcel(plan, task, {"torch": "0"}, {}, notebook, b"")
    assert cluster.mark(other)[0] == "unable" and "torch" in cluster.mark(other)[1]
