"""What a run leaves for those who watch it: curves in TensorBoard and in a notebook, kept checkpoints, a polite end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from stand_ins import write_kinetics
from typer.testing import CliRunner

import course_lib.datasets.clips as clip_files
import course_lib.training.fit as fitting
import course_lib.training.resume as resuming
import course_lib.training.watch as watching
from course_lib.cli import app
from course_lib.training.checkpoint import load
from course_lib.training.fit import Plan, fit
from course_lib.training.folder import BEST, LAST
from course_lib.training.metrics import Metrics, read
from course_lib.training.resume import Asked, Step
from course_lib.video.errors import VideoError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_kinetics(tmp_path_factory.mktemp("kinetics"), each=(1, 1))


def plan(folder: Path, out: Path, **changes: object) -> Plan:
    """Two steps an epoch, so small that reading takes longer."""
    small = {"batch": "5", "epochs": "2.5", "warmup": "0"}
    return Plan("r2plus1d_tiny", "K", out, "mini10", "short", small, root=str(folder), save_every=100, **changes)


def write(metrics: Metrics, numbers: range) -> None:
    for number in numbers:
        metrics.step(Step(number, 4.0 - number, 0.25 * number, 0.1, 2.0, 1.0, 0.25))


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2]), (2, [2]), (0, [])])
def test_every_nth_epoch_leaves_a_checkpoint_whatever_the_tests_are(every, epochs, folder, tmp_path):
    fit(plan(folder, tmp_path / "run", keep_every=every, test_every=2))
    kept = sorted((tmp_path / "run").glob("epoch-*"))
    assert [path.name for path in kept] == [f"epoch-{epoch:04d}.safetensors" for epoch in epochs]
    assert [load(path).step for path in kept] == [2 * epoch for epoch in epochs]
    tested = [line["step"] + 1 for line in read(tmp_path / "run") if "top1" in line]
    assert tested == [*sorted({2 * epoch for epoch in (*epochs, 2)}), 5], "one that stays is tested, and so is the end"


def test_tensorboard_reads_what_it_is_installed_for(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Metrics(tmp_path, 0, 4, 8, 2) as metrics:
        write(metrics, range(3))
        metrics.test(1, {"top1": 0.5})
    with Metrics(tmp_path, 2, 4, 8, 2) as metrics:  # went on after step 2: what was done after it is done again
        write(metrics, range(2, 4))
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in found.Scalars("loss")]
    assert losses == [(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)]
    assert [(event.step, event.value) for event in found.Scalars("top1")] == [(1, 0.5)]
    assert {"loss", "accuracy", "lr", "grad_norm", "top1"} <= set(found.Tags()["scalars"])


def test_a_tensorboard_that_is_there_is_told_what_the_lines_say(tmp_path, monkeypatch):
    told = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int):
            told.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def close(self) -> None:
            told.append("closed")

    stand_in = types.ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    with Metrics(tmp_path, 3, 5, 8, 2) as metrics:  # a run that goes on after its third step
        write(metrics, range(3, 4))
        metrics.test(3, {"top1": 0.5})
    board, *values, end = told
    assert board == (str(tmp_path / "tensorboard"), 3) and end == "closed"
    step, test = read(tmp_path)
    assert values == [(name, step[name], 3) for name in ("loss", "accuracy", "lr", "grad_norm")] + [("top1", 0.5, 3)]
    assert test["top1"] == 0.5


@pytest.fixture
def notebook() -> Iterator[None]:
    InteractiveShell.instance()
    yield
    InteractiveShell.clear_instance()


def test_a_notebook_cell_draws_the_curve_anew_in_its_place_until_it_is_stopped(tmp_path, monkeypatch, notebook):
    with Metrics(tmp_path, 0, 4, 8, 2) as metrics:
        write(metrics, range(2))
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise KeyboardInterrupt  # the stop button
        with Metrics(tmp_path, 2, 4, 8, 2) as metrics:
            write(metrics, range(2, 3))

    monkeypatch.setattr(watching.time, "sleep", sleep)
    with capture_output() as cell:
        watching.watch(tmp_path, seconds=3)
    first, second = (output for output in cell.outputs if "text/html" in output.data)
    assert first.data["text/html"] != second.data["text/html"] and "image/png;base64," in first.data["text/html"]
    assert "2 steps" in first.data["text/plain"] and "3 steps" in second.data["text/plain"]
    assert first.transient["display_id"] == second.transient["display_id"] and second.update
    assert waits == [3, 3]
    os.utime(tmp_path / "metrics.jsonl", (0, 0))  # nobody has written for long
    with capture_output() as cell:
        watching.watch(tmp_path)
    assert len(waits) == 2 and len(cell.outputs) == 1


def test_a_second_ctrl_c_counts_only_when_torchrun_cannot_have_sent_it(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(resuming.time, "monotonic", lambda: clock[0])
    asked = Asked()
    assert not asked
    asked(signal.SIGINT, None)
    clock[0] += 1.9
    asked(signal.SIGINT, None)
    asked(signal.SIGTERM, None)
    assert asked
    clock[0] += 0.2
    asked(signal.SIGTERM, None)  # torchrun's, which does not hurry anybody
    with pytest.raises(KeyboardInterrupt):
        asked(signal.SIGINT, None)


def test_an_impatient_second_ctrl_c_in_a_test_leaves_the_run_as_it_learned(folder, tmp_path, monkeypatch):
    """It comes while the statistics of batch norms are taken anew, which no checkpoint may hold."""
    out, whole = tmp_path / "run", tmp_path / "whole"
    told = replace(plan(folder, out), changes={"batch": "5", "epochs": "1", "warmup": "0", "precise_bn": "2"})
    command = ["train", "r2plus1d_tiny", "--data", "K", "--root", str(folder), "--subset", "mini10"]
    command += ["--recipe", "short", "--workers", "0"]
    command += [word for change in told.changes.items() for word in ("--set", "=".join(change))]
    fit(replace(told, out=whole))
    clock = [100.0]
    taken = fitting.update_bn

    def broken_off(batches: Iterator, *of: object) -> None:
        taken([next(batches)], *of)
        signal.raise_signal(signal.SIGINT)
        clock[0] += 3
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(fitting, "update_bn", broken_off)
        patched.setattr(resuming.time, "monotonic", lambda: clock[0])
        ran = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert ran.exit_code == 130 and f"broken off; {out} keeps the last whole checkpoint" in ran.output
    ours, theirs = load(out / LAST), load(whole / LAST)
    assert ours.step == theirs.step == 2 and not (out / BEST).exists()
    assert all(ours.weights[name].equal(theirs.weights[name]) for name in theirs.weights)


def stopped_in_the_midst(start: list[str], workers: int, sent: list[signal.Signals], folder: Path, out: Path) -> str:
    """What a training says that is sent these signals as a terminal does it, all its group at once."""
    command = [sys.executable, "-m", *start, "course_lib.training.run", "train", "r2plus1d_tiny", "--data", "K"]
    command += ["--root", str(folder), "--subset", "mini10", "--recipe", "short", "--out", str(out)]
    command += ["--workers", str(workers), "--save-every", "9999", "--set", "batch=2", "--set", "epochs=9999"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(fitting.__file__).parents[2])}
    with subprocess.Popen(
        [*command, "--test-every", "9999"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as started:
        try:
            said = ""
            assert started.stdout is not None
            while not any("loss" in line for line in read(out)) and (more := started.stdout.read(1)):
                said += more  # the progress line moves with every step
            for number in sent:
                os.killpg(started.pid, number)
                time.sleep(0.03)  # so that a second one meets torchrun handing on the first
            return said + started.communicate(timeout=300)[0]
        finally:
            if started.poll() is None:
                os.killpg(started.pid, signal.SIGKILL)


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


@pytest.mark.parametrize(
    ("start", "workers", "sent"),
    [
        (TORCHRUN, 0, [signal.SIGINT, signal.SIGINT]),
        (TORCHRUN, 1, [signal.SIGTERM]),
        ([], 1, [signal.SIGTERM, signal.SIGTERM]),
    ],
    ids=["ctrl-c twice under torchrun", "ended under torchrun", "ended twice, as by Slurm"],
)
def test_what_is_sent_to_all_processes_of_a_run_stops_it_saved(start, workers, sent, folder, tmp_path):
    out = tmp_path / "run"
    said = stopped_in_the_midst(start, workers, sent, folder, out)
    assert (out / LAST).exists(), said
    held = load(out / LAST)
    assert held.step == max(line["step"] for line in read(out)) + 1 and held.optimizer
    assert f"stopped after step {held.step} of" in said and "saved; the same command goes on" in said
    assert json.loads((out / "run.json").read_text())["now"]["processes"] == (2 if start else 1)


def test_a_batch_that_cannot_be_read_loses_no_step_before_it(folder, tmp_path, monkeypatch):
    out, whole = tmp_path / "run", tmp_path / "whole"
    fit(plan(folder, whole))
    read_frames, asked = clip_files.read_frames, []

    def breaks(path: Path, *of: object) -> object:
        asked.append(path)
        if len(asked) == 16:  # of the fourth batch
            raise VideoError(path, "the disk is away for a moment")
        return read_frames(path, *of)

    with monkeypatch.context() as patched:
        patched.setattr(clip_files, "read_frames", breaks)
        with pytest.raises(VideoError, match="away for a moment"):
            fit(plan(folder, out, test_every=9))
    assert load(out / LAST).step == 3
    fit(plan(folder, out))
    ours, theirs = load(out / LAST), load(whole / LAST)
    assert all(ours.weights[name].equal(theirs.weights[name]) for name in theirs.weights)
