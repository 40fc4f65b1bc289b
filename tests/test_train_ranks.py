"""Training on several processes, here gloo's on the CPU: the same losses as on one, whatever dies or changes."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from stand_ins import write_kinetics
from torch import nn

import course_lib.training.fit as fitting
from course_lib.training.checkpoint import load
from course_lib.training.distributed import PeerLost, Ranks, started
from course_lib.training.fit import Plan, fit
from course_lib.training.folder import LAST
from course_lib.training.metrics import read

STEPS = 5  # an epoch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 clips to train on, and 10 to test on, which are not as many for each of four processes."""
    return write_kinetics(tmp_path_factory.mktemp("kinetics"), each=(4, 1))


def planned(folder: Path, out: Path, **changes: str) -> Plan:
    small = {"batch": "8", "epochs": "1", "warmup": "0", "dropout": "0", "drop_path": "0", "mixup": "0.8"}
    return Plan("video_swin_tiny", "K", out, "mini10", "short", small | changes, root=str(folder), save_every=2)


def one_of(rank: int, world: int, port: int, task: Callable, *arguments: object) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_default_dtype(torch.float64)
    task(rank, *arguments)


def on(world: int, task: Callable, *arguments: object) -> None:
    """`task(rank, ...)` in so many processes, in float64; forked, so that none has to import torch again."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    mp.start_processes(one_of, (world, port, task, *arguments), world, start_method="fork")


def trained(rank: int, plan: Plan) -> None:
    fit(plan)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read(run) if "loss" in line]


def accuracies(run: Path) -> list[tuple[float, float]]:
    return [(line["top1"], line["top5"]) for line in read(run) if "top1" in line]


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """The run of one process that all others have to be like."""
    out = tmp_path_factory.mktemp("alone") / "run"
    on(1, trained, planned(folder, out))
    assert len(losses(out)) == STEPS
    return out


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load(run / LAST).weights


def assert_alike(run: Path, alone: Path) -> None:
    assert losses(run) == pytest.approx(losses(alone), abs=1e-6)
    assert accuracies(run) == accuracies(alone)
    ours, theirs = weights(run), weights(alone)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


def test_two_and_four_processes_have_the_losses_weights_and_test_scores_of_one(folder, alone, tmp_path):
    on(2, trained, planned(folder, tmp_path / "two", at_once="2"))
    assert_alike(tmp_path / "two", alone)
    on(4, trained, planned(folder, tmp_path / "four"))
    assert_alike(tmp_path / "four", alone)


def dying(rank: int, plan: Plan) -> None:
    """The process of rank 1 dies after step 2, unasked; the other says what it saw."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which comes while it says it
    step = fitting.Metrics.step

    def last(self: fitting.Metrics, record: object) -> None:
        step(self, record)
        if rank == 1 and record.number == 2:
            os._exit(9)

    fitting.Metrics.step = last
    try:
        fit(plan)
    except PeerLost as error:
        (plan.out / "told.txt").write_text(str(error))


def test_a_process_that_dies_ends_the_run_which_goes_on_on_other_numbers_of_processes(folder, alone, tmp_path):
    plan = planned(folder, tmp_path / "run")
    with pytest.raises(mp.ProcessExitedException, match="exit code 9"):
        on(2, dying, plan)
    assert load(plan.out / LAST).step == 3, "the process that writes saves the last step that all have done"
    assert "another process of this training ended" in (plan.out / "told.txt").read_text()
    on(4, trained, replace(plan, stop_after=1))
    assert load(plan.out / LAST).step == 4
    on(1, trained, plan)
    assert_alike(plan.out, alone)


def asked(rank: int, plan: Plan) -> None:
    """Only the process of rank 1 is asked to stop, after step 2."""
    step = fitting.Metrics.step

    def last(self: fitting.Metrics, record: object) -> None:
        step(self, record)
        if rank == 1 and record.number == 2:
            signal.raise_signal(signal.SIGTERM)

    fitting.Metrics.step = last
    fit(plan)


def test_all_processes_stop_after_the_same_step_whichever_was_asked(folder, tmp_path, capfd):
    plan = planned(folder, tmp_path / "run")
    on(2, asked, plan)
    assert load(plan.out / LAST).step == 3 and len(losses(plan.out)) == 3
    assert "stopped after step 3 of 5, saved; the same command goes on" in capfd.readouterr().out


def test_a_network_parted_by_fsdp2_trains_alike_and_goes_on_whole(folder, alone, tmp_path):
    plan = planned(folder, tmp_path / "run", shard="yes", at_once="2")
    on(2, trained, replace(plan, stop_after=3))
    assert set(weights(plan.out)) == set(weights(alone)), "the file does not tell how it was computed"
    on(1, trained, replace(plan, changes=plan.changes | {"shard": "no"}))
    assert_alike(plan.out, alone)


def judged(rank: int, out: Path) -> None:
    """Each process has seen other clips, and has other statistics."""
    net = nn.Sequential(nn.BatchNorm3d(2), nn.Flatten(), nn.Linear(2, 2))
    with started() as (ranks, _), torch.no_grad():
        net[0].running_mean.copy_(torch.tensor([rank, 3.0 * rank]))
        before = net[0].running_mean.clone()
        with fitting._tested(net, None, lambda step: iter(()), 0, ranks) as tested:
            found = ranks.gather(tested[0].running_mean.tolist())
        assert net[0].running_mean.equal(before)
        if ranks.first:
            (out / "found.json").write_text(json.dumps(found))


def test_all_processes_test_the_same_network_though_each_has_seen_other_clips(tmp_path):
    on(2, judged, tmp_path)
    assert json.loads((tmp_path / "found.json").read_text()) == [[0.5, 1.5]] * 2


def test_every_share_of_a_batch_is_there_once_and_one_that_does_not_divide_is_refused():
    for world in (1, 2, 4):
        shares = [list(range(8))[Ranks(rank, world).share(8)] for rank in range(world)]
        assert [clip for share in shares for clip in share] == list(range(8))
    with pytest.raises(ValueError, match="batch of 8 clips does not divide among 3 processes: use batch=6 or 9"):
        Ranks(0, 3).share(8)
    with pytest.raises(ValueError, match="use batch=4,"):
        Ranks(0, 4).share(2)
