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
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from stand_ins import write_kinetics
from test_train_ranks import on, trained
from typer.testing import CliRunner

import course_lib.datasets.clips as clip_files
import course_lib.training.fit as fitting
import course_lib.training.folder as folders
import course_lib.training.resume as resuming
import course_lib.training.watch as watching
from course_lib.cli import app
from course_lib.training.checkpoint import load
from course_lib.training.distributed import Ranks
from course_lib.training.fit import Plan, fit
from course_lib.training.folder import BEST, LAST, LOCK
from course_lib.training.metrics import Lines, Metrics, read
from course_lib.training.resume import Asked, Step
from course_lib.training.tested import candidate
from course_lib.video.errors import VideoError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_kinetics(tmp_path_factory.mktemp("kinetics"), each=(1, 1))


def plan(folder: Path, out: Path, **changes: object) -> Plan:
    """Two steps an epoch, so small that reading takes longer."""
    small = {"batch": "5", "epochs": "2.5", "warmup": "0"}
    return Plan("r2plus1d_tiny", "K", out, "mini10", "short", small, root=str(folder), save_every=100, **changes)


@contextmanager
def trains_elsewhere(run: Path) -> Iterator[None]:
    """Another process holds the lock of a run folder."""
    code = f"import filelock; lock = filelock.FileLock({str(run / LOCK)!r}); lock.acquire(); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        try:
            yield
        finally:
            other.communicate(b"\n")


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


def test_who_watches_stays_through_a_long_test_and_leaves_with_the_run(tmp_path, monkeypatch):
    with Metrics(tmp_path, 0, 4, 8, 2) as metrics:
        write(metrics, range(2))
    os.utime(tmp_path / "metrics.jsonl", (0, 0))  # a test has lasted for years
    assert not watching.progress(tmp_path).goes_on
    with trains_elsewhere(tmp_path):
        assert watching.progress(tmp_path).goes_on
    os.utime(tmp_path / "metrics.jsonl")
    assert not watching.progress(tmp_path).goes_on, "it has just ended"


def test_who_watches_reads_each_line_once(tmp_path):
    def told() -> tuple[list[float], list[tuple[float, float]]]:
        seen = watching.progress(tmp_path, written)
        return seen.losses, seen.tests

    written = Lines(tmp_path)
    with Metrics(tmp_path, 0, 6, 8, 2) as metrics:
        write(metrics, range(2))
        assert told() == ([4, 3], [])
        metrics.file.write('{"step": 1, "epo')
        metrics.file.flush()
        assert told() == ([4, 3], [])
        metrics.file.write('ch": 1.0, "top1": 0.5}\n')
        metrics.file.flush()
        assert told() == ([4, 3], [(1, 0.5)])
    before = written.lines[0]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(before | {"step": 2, "loss": 9.0}) + "\n")
    assert told()[0] == [4, 3, 9] and written.lines[0] is before, "what was read is not read again"
    with Metrics(tmp_path, 1, 6, 8, 2) as metrics:  # the run goes on after its first step
        write(metrics, range(1, 3))
    assert told() == ([4, 3, 2], [])


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


def steps_tested(run: Path) -> list[dict[str, float]]:
    return [{name: line[name] for name in ("step", "top1", "top5")} for line in read(run) if "top1" in line]


def asks_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM comes when this step is done."""
    record = Metrics.step

    def last(self: Metrics, told: Step) -> None:
        record(self, told)
        if told.number == step - 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(fitting.Metrics, "step", last)


@pytest.fixture(scope="module")
def tested(folder, tmp_path_factory):
    """A run of five steps that nothing stopped, with a moving mean and statistics taken anew, and its plan."""
    told = plan(folder, tmp_path_factory.mktemp("tested") / "run", keep_every=1)
    told = replace(told, changes=told.changes | {"ema": "0.8", "precise_bn": "2"})
    fit(told)
    assert [line["step"] for line in steps_tested(told.out)] == [1, 3, 4]
    return told


@pytest.mark.parametrize(("when", "step"), [("before", 2), ("before", 5), ("within", 2), ("it dies", 5)])
def test_a_test_that_a_run_was_stopped_at_is_done_when_it_goes_on(when, step, tested, tmp_path, monkeypatch, capsys):
    told, judge, batches = replace(tested, out=tmp_path / "run"), fitting.judge, []

    def within(*of: object) -> object:
        batches.append(len([line for line in read(told.out) if "loss" in line]))
        if batches[-1] == step and when == "it dies":
            raise RuntimeError("the machine")
        if batches[-1] == step:
            assert load(told.out / LAST).step == step, "it is saved before the test, which may last"
            signal.raise_signal(signal.SIGTERM)
        return judge(*of)

    with monkeypatch.context() as patched:
        if when == "before":
            asks_after(step, patched)
        else:
            patched.setattr(fitting, "judge", within)
        with suppress(RuntimeError):
            fit(told)
    said = capsys.readouterr().out
    if when != "it dies":
        last = "stopped after step 2 of 5, saved" if step == 2 else "5 steps done and saved, stopped before the last"
        assert last in said
    assert load(told.out / LAST).step == step and step - 1 not in [line["step"] for line in steps_tested(told.out)]
    fit(told)
    assert steps_tested(told.out) == steps_tested(tested.out)
    for name in ("epoch-0001.safetensors", "epoch-0002.safetensors", LAST, BEST):
        ours, theirs = load(told.out / name), load(tested.out / name)
        assert ours.step == theirs.step and all(ours.weights[k].equal(theirs.weights[k]) for k in theirs.weights)
    fit(told)
    assert steps_tested(told.out) == steps_tested(tested.out), "none is done twice"


def stopped_in_a_test(rank: int, plan: Plan) -> None:
    """The process of rank 1 alone is asked to stop, within the first test."""
    judge = fitting.judge

    def asked(*of: object) -> object:
        if rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return judge(*of)

    fitting.judge = asked
    fit(plan)


def sees_another_folder(rank: int, plan: Plan) -> None:
    """What the process of rank 1 is told whose folder is not that of the first."""
    with pytest.raises(ValueError) as error:
        fit(replace(plan, out=plan.out.with_name(f"node-{rank}") if rank else plan.out))
    (plan.out.parent / f"told-{rank}.txt").write_text(str(error.value))


def test_several_processes_leave_a_test_together_and_go_on_from_the_same_step(folder, tmp_path):
    told = plan(folder, tmp_path / "run")
    told = replace(told, changes=told.changes | {"batch": "4", "epochs": "1.5"})  # three steps
    on(2, stopped_in_a_test, told)
    assert load(told.out / LAST).step == 2 and not steps_tested(told.out)
    on(2, sees_another_folder, told)
    said = [(tmp_path / f"told-{rank}.txt").read_text() for rank in range(2)]
    differ = "process 1 would not train what the first does (steps done: 0, not 2): --out "
    assert all(sentence.startswith(differ) for sentence in said)
    on(2, trained, told)
    assert [line["step"] for line in steps_tested(told.out)] == [1, 2]


def test_a_run_goes_on_with_its_steps_when_a_clip_is_left_out(tmp_path, capsys):
    folder, out = write_kinetics(tmp_path / "kinetics", each=(1, 1)), tmp_path / "run"
    fit(plan(folder, out, stop_after=3))
    capsys.readouterr()
    fit(replace(plan(folder, tmp_path / "same", stop_after=1)))
    fit(replace(plan(folder, tmp_path / "same", stop_after=1)))
    assert "the run began with" not in capsys.readouterr().out
    broken = sorted((folder / "train").glob("*.mp4"))[0]
    broken.write_bytes(broken.read_bytes()[:200])
    assert CliRunner().invoke(app, ["data", "check", str(folder)]).exit_code in (0, 1)
    fit(plan(folder, out))
    said = capsys.readouterr().out
    assert "the run began with 10 clips to train on, and now there are 9: its batches come from those of now" in said
    assert "keeps its 2 steps an epoch" in said and "5 steps done" in said
    assert f"1 left out, first train/{broken.name} (not a video" in said and "Problem(" not in said
    assert "1 of 10 classes have no clip to train on" in said
    assert load(out / LAST).step == 5 and [line["step"] for line in steps_tested(out)] == [1, 3, 4]
    assert json.loads((out / "run.json").read_text())["list"]["clips"] == 10
    away = sorted((folder / "train").glob("*.mp4"))
    for path in away[4:]:
        path.unlink()
    with pytest.raises(ValueError, match="batch=5 of 3 clips: give more clips"):
        fit(plan(folder, out))


def test_a_folder_in_which_a_run_trains_is_left_to_it(folder, tmp_path, monkeypatch):
    out = tmp_path / "run"
    fit(plan(folder, out, stop_after=1))
    held = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(folders, "PATIENCE", 0.2)
    with (
        trains_elsewhere(out),
        pytest.raises(ValueError, match=f"another training is at work in {out}: wait for it, or give another --out"),
    ):
        fit(plan(folder, out))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == held
    fit(plan(folder, out, stop_after=1))
    assert load(out / LAST).step == 2


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_what_srun_has_started_several_times_is_told_to_be_started_by_torchrun(command, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    told = [command, "r2plus1d_tiny", "--data", "K", "--root", str(folder)]
    ran = CliRunner().invoke(app, [*told, "--out", str(tmp_path / "run")])
    assert ran.exit_code == 1 and "srun has started this 8 times" in ran.output and "torchrun" in ran.output
    assert not (tmp_path / "run").exists()


def test_a_run_that_goes_on_elsewhere_says_where_its_videos_are_now(folder, tmp_path, monkeypatch):
    out, moved = tmp_path / "run", tmp_path / "moved"
    monkeypatch.setattr(sys, "argv", ["course", "train", "--first"])
    fit(plan(folder, out, stop_after=1))
    moved.symlink_to(folder)
    monkeypatch.setattr(sys, "argv", ["run.py", "train", "--then"])
    monkeypatch.setattr(Path, "resolve", Path.absolute)
    fit(plan(moved, out, stop_after=1))
    about = json.loads((out / "run.json").read_text())
    assert about["now"]["root"] == str(moved) and candidate(out).root == str(moved)
    assert (about["began"], about["now"]["command"]) == ("course train --first", "course train --then")
    assert "`course train --then`, from commit" in (out / "README.md").read_text()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    started = "--nproc-per-node 4 -m course_lib.training.run train --then"
    assert folders._command(Ranks(0, 4)) == f"torchrun {started}"
    assert folders._command(Ranks(0, 8)) == f"torchrun --nnodes 2 {started}"


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
