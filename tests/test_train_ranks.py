"""Training on several processes, here gloo's on the CPU: the same losses as on one, whatever dies or changes."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from stand_ins import write_kinetics
from torch import nn

import course_lib.training.distributed as distributed
import course_lib.training.fit as fitting
import course_lib.training.resume as resuming
from course_lib.models import NETWORKS, build
from course_lib.training.checkpoint import load
from course_lib.training.distributed import PeerLost, Ranks, started
from course_lib.training.evaluate import predict_views
from course_lib.training.fit import Plan, fit
from course_lib.training.folder import LAST
from course_lib.training.metrics import read
from course_lib.video.errors import VideoError

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
    processes = mp.start_processes(one_of, (world, port, task, *arguments), world, join=False, start_method="fork")
    assert processes is not None
    try:
        while not processes.join():
            pass
    finally:  # also where some wait for each other for ever
        for process in processes.processes:
            process.kill()


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


def told(plan: Plan) -> None:
    """`fit`, which loses another process; it says so."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which comes while it says it
    try:
        fit(plan)
    except PeerLost as error:
        (plan.out / "told.txt").write_text(str(error))


def dying(rank: int, plan: Plan) -> None:
    """The process of rank 1 dies after step 2, unasked; the other says what it saw."""
    step = fitting.Metrics.step

    def last(self: fitting.Metrics, record: object) -> None:
        step(self, record)
        if rank == 1 and record.number == 2:
            while len(losses(plan.out)) < 3:  # the other may yet be waiting for what this one has sent
                time.sleep(0.01)
            os._exit(9)

    fitting.Metrics.step = last
    told(plan)


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


def asked(rank: int, plan: Plan, after: int) -> None:
    """Only the process of rank 1 is asked to stop, after so many steps."""
    step, mark = fitting.Metrics.step, resuming.Run._mark

    def last(self: fitting.Metrics, record: object) -> None:
        step(self, record)
        if rank == 1 and record.number == after - 1:
            signal.raise_signal(signal.SIGTERM)

    def seen(self: resuming.Run) -> object:
        """At each look it finds another file, as one does over NFS or while the first process writes it."""
        return (mark(self), time.monotonic()) if rank == 1 else mark(self)

    fitting.Metrics.step, resuming.Run._mark = last, seen
    fit(plan)


@pytest.mark.parametrize("shard", ["no", "yes"])
@pytest.mark.parametrize("after", [2, 3])
def test_all_processes_stop_after_the_same_step_whichever_was_asked(after, shard, folder, tmp_path, capfd):
    """The schedule saves after the second step, not after the third."""
    plan = planned(folder, tmp_path / "run", shard=shard)
    on(2, asked, plan, after)
    assert load(plan.out / LAST).step == len(losses(plan.out)) == after
    assert f"stopped after step {after} of 5, saved; the same command goes on" in capfd.readouterr().out


def full_disk(rank: int, plan: Plan) -> None:
    """The process of rank 0 cannot write the line of step 2."""
    step = fitting.Metrics.step

    def last(self: fitting.Metrics, record: object) -> None:
        if rank == 0 and record.number == 2:
            raise OSError(28, "No space left on device")
        step(self, record)

    fitting.Metrics.step = last
    told(plan)


@pytest.mark.parametrize(("shard", "kept"), [("no", 3), ("yes", 2)])
def test_an_error_of_one_process_between_two_steps_ends_all(shard, kept, folder, tmp_path):
    """What FSDP2 has parted cannot be saved by one alone: what stays is what the schedule has saved."""
    plan = planned(folder, tmp_path / "run", shard=shard)
    with pytest.raises(mp.ProcessRaisedException, match="No space left on device"):
        on(2, full_disk, plan)
    assert "another process of this training ended" in (plan.out / "told.txt").read_text()
    assert load(plan.out / LAST).step == kept


def unread(rank: int, plan: Plan) -> None:
    """The process of rank 1 cannot read its part of the batch of step 3."""
    loader = fitting.loader

    def breaking(*of: object, **more: object) -> Callable:
        def batches_from(step: int) -> Iterator:
            for number, batch in enumerate(loader(*of, **more)(step), step):
                if number == 3 and rank == 1:
                    raise VideoError("a.mp4", "the disk is away for a moment")
                yield batch

        return batches_from

    fitting.loader = breaking
    told(plan)


@pytest.mark.parametrize("shard", ["no", "yes"])
def test_a_batch_that_one_process_cannot_read_loses_no_step_before_it(shard, folder, alone, tmp_path):
    plan = replace(planned(folder, tmp_path / "run", shard=shard), save_every=100)
    with pytest.raises(mp.ProcessRaisedException, match="the disk is away for a moment"):
        on(2, unread, plan)
    assert "another process of this training could not read its batch" in (plan.out / "told.txt").read_text()
    assert load(plan.out / LAST).step == 3
    on(2, trained, plan)
    assert_alike(plan.out, alone)


def test_a_network_parted_by_fsdp2_trains_alike_and_goes_on_whole(folder, alone, tmp_path):
    plan = planned(folder, tmp_path / "run", shard="yes", at_once="2")
    on(2, trained, replace(plan, stop_after=3))
    assert set(weights(plan.out)) == set(weights(alone)), "the file does not tell how it was computed"
    on(1, trained, replace(plan, changes=plan.changes | {"shard": "no"}))
    assert_alike(plan.out, alone)


def parted_and_whole(rank: int, names: list[str]) -> None:
    with started() as (ranks, _):
        for name in names:
            torch.manual_seed(0)
            net = build(name, classes=8)
            batches = [(torch.randn(2, 1, 3, *net.config.clip), torch.zeros(2, dtype=torch.long))]
            whole, _ = predict_views(net, batches)
            parted, _ = predict_views(distributed.parallel(net, ranks, shard=True), batches)
            torch.testing.assert_close(parted, whole)


def test_a_network_parted_by_fsdp2_gives_the_probabilities_of_its_released_test():
    names = ["nonlocal_tiny", "r2plus1d_tiny", "slowfast_tiny"]
    assert all(hasattr(NETWORKS[name][0], "probabilities") for name in names)
    on(2, parted_and_whole, names)


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
