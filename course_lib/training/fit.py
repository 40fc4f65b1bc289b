"""A whole training by a recipe, in a run folder that tells what it is, goes on where it stopped and can be repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from course_lib.layers.blocks import recompute
from course_lib.models import NETWORKS, build, configure
from course_lib.training.batches import loader
from course_lib.training.checkpoint import Checkpoint, save, steps_done
from course_lib.training.distributed import Ranks, parallel, started, whole
from course_lib.training.evaluate import accuracy, top_k
from course_lib.training.folder import (
    BEST,
    LAST,
    about_run,
    locked,
    require_alike,
    require_same,
    write_about,
)
from course_lib.training.loop import train
from course_lib.training.metrics import Metrics, read, was_tested
from course_lib.training.optim import make_optimizer, moving_mean
from course_lib.training.recipe import Recipe
from course_lib.training.recipes import network_changes, recipe
from course_lib.training.report import judge
from course_lib.training.resume import leave, resume, settings, stop_asked, unwrapped
from course_lib.training.sources import Source, read_source, train_clips
from course_lib.training.start import start_from
from course_lib.video.transforms import ToNetwork
from course_lib.words import count


@dataclass(frozen=True)
class Plan:
    """What `course train` is told. `root` and what follows `seed` may differ when a run goes on."""

    network: str
    data: str
    out: Path
    subset: str = "all"
    kind: str = "paper"
    changes: dict[str, str] = field(default_factory=dict)
    start: str | None = None
    source: str | None = None
    seed: int = 0
    root: str | None = None
    workers: int = 0  # processes that read, for each process that trains
    save_every: int = 200  # steps
    keep_every: int = 0  # epochs; 0: keep the last and the best only
    test_every: int = 1  # epochs
    stop_after: int | None = None  # steps of this call; None: all


class LeftTest(Exception):
    """A stop was asked for in a test, which the next call does from its beginning."""


def fit(plan: Plan) -> Path:
    """Train as planned, on as many processes as torchrun has started; the run folder. A run that is there goes on.

    Raises:
        ValueError: what does not fit, with the way out. FloatingPointError: the loss is no number. OSError: a file
            cannot be written. The last whole checkpoint stays in every case.
    """
    chosen = recipe(plan.network, plan.data, plan.kind, plan.changes)
    with started() as (ranks, device), ExitStack() as held:
        frames, size = configure(plan.network).clip[:2]
        source = read_source(plan.data, plan.root, plan.subset, size, plan.workers)
        numbered = getattr(NETWORKS[plan.network][0], "numbered", False)
        dataset = train_clips(source, chosen, frames, size, plan.seed, numbered)
        if chosen.batch > len(dataset):
            raise ValueError(
                f"the recipe's batch={chosen.batch} of {len(dataset)} clips: give more clips, or a smaller batch, such "
                f"as --set batch={max(1, len(dataset) // 4)}; the rate goes with it"
            )
        if chosen.ema and chosen.shard:
            raise ValueError("ema keeps a second network whole, which shard=yes cannot: --set ema=0 or --set shard=no")
        about = about_run(plan, chosen, source.train, ranks)
        there = require_same(plan.out, about)
        held.enter_context(locked(plan.out, ranks, device))
        done = steps_done(plan.out / LAST)
        began = (there if done else about)["list"]
        epoch = began["epoch"]  # as it began, also where clips have gone since
        config = chosen.config(epoch, plan.seed)
        goes_on = {"steps done": done, "steps": config.steps, "clips": len(dataset)}
        require_alike(plan.out, ranks, goes_on | {"sum of their list": about["list"]["sum"]})
        net = make_network(plan.network, len(dataset.classes), chosen, plan.seed)
        if plan.start is not None and not done:
            start = start_from(net, plan.start, plan.source, dataset.classes)
            about["started_from"] = start.origin
            if ranks.first:
                print(start.line)
        net = ready(net, chosen, ranks, device)
        settled = settings(unwrapped(net), config)
        mean = moving_mean(unwrapped(net), chosen.ema) if chosen.ema else None
        prepare = to_network(chosen, device)
        if ranks.first:
            _introduce(plan, chosen, source, config.steps, done, began, about["list"], ranks)
            write_about(plan.out, about, done)

        def ends(epochs: int, done: int) -> bool:  # every so many epochs
            return bool(epochs) and done % (epochs * epoch) == 0

        def due(done: int) -> bool:  # a test
            return done == config.steps or ends(plan.test_every, done) or ends(plan.keep_every, done)

        def looking(clips: Tensor) -> Tensor:  # at each batch of a test, all of which have as many
            if ranks.any(bool(asked), device):
                raise LeftTest
            return prepare(clips)

        def batches(prepare: Callable[[Tensor], Tensor]) -> Callable[[int], Iterator]:
            given = (dataset, chosen.batch, plan.seed, plan.workers, prepare, device)
            return loader(*given, ranks=ranks, repeats=chosen.repeats)

        def test(done: int) -> None:
            with _tested(net, mean, batches(looking), chosen.precise_bn, ranks) as tested:
                scored = judge(tested, source, chosen, frames, size, (1, 1), looking, device, ranks, plan.workers)
                scores = {"top1": accuracy(*scored), "top5": top_k(*scored, k=min(5, scored[0].shape[1]))}
                state = tested.state_dict().items()
                weights = {name: full.cpu() for name, value in state for full in [whole(value)] if ranks.first}
            before = max((line["top1"] for line in read(plan.out) if "top1" in line), default=-1.0)
            kept = Checkpoint(done, settled, weights)
            if ranks.first and scores["top1"] > before:
                save(plan.out / BEST, kept)
            if ranks.first and ends(plan.keep_every, done):
                save(plan.out / f"epoch-{done // epoch:04d}.safetensors", kept)
            metrics.test(done - 1, scores)

        shown, last = ranks.first, plan.out / LAST
        late = ranks.any(ranks.first and done > 0 and due(done) and not was_tested(plan.out, done), device)
        with (
            suppress(LeftTest),
            stop_asked() as asked,
            Metrics(plan.out, done, config.steps, chosen.batch * chosen.repeats, epoch, shown) as metrics,
        ):
            if late:  # the run ended before this test did
                saved = resume(last, settled, unwrapped(net), make_optimizer(unwrapped(net), config))
                if mean is not None:
                    mean.load_state_dict(saved.mean)
                test(done)
            given = (batches(prepare), config, last, plan.save_every, ranks, chosen.at_once, mean)
            steps = train(net, *given, also=due)  # saved before each test, which may last
            with closing(steps):  # type: ignore[type-var]
                for step in islice(steps, plan.stop_after):
                    metrics.step(step)
                    if ranks.any(bool(asked), device):
                        break
                    if due(step.number + 1):
                        test(step.number + 1)
                leave(steps)
        if ranks.first:
            _say_goodbye(plan, config.steps)
        ranks.wait()
    return plan.out


def make_network(name: str, classes: int, chosen: Recipe, seed: int) -> nn.Module:
    """The network of a recipe for so many classes, the same start for the same seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build(name, classes=classes, **network_changes(name, chosen))


def ready(net: nn.Module, chosen: Recipe, ranks: Ranks, device: torch.device) -> nn.Module:
    """The network on its device as the recipe computes it: frozen or synchronised norms, layout, recomputation,
    compiled, and on several processes."""
    net.train()
    if chosen.frozen_bn:
        for part in norms(net):
            part.eval()
            for parameter in part.parameters():
                parameter.requires_grad_(False)
    if chosen.sync_bn and ranks.world > 1:
        if device.type != "cuda":
            raise ValueError("the recipe synchronises batch norms, which PyTorch does on GPUs alone: --set sync_bn=no")
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    if chosen.recompute:
        recompute(net)
    net.to(device)
    if chosen.channels_last:
        for parameter in net.parameters():
            if parameter.ndim == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    net = parallel(net, ranks, chosen.shard)
    return torch.compile(net) if chosen.compile else net  # type: ignore[return-value]


def to_network(chosen: Recipe, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Bytes to the numbers that the network is given."""
    colours = ToNetwork(chosen.colours)
    dtype = torch.get_default_dtype()

    def prepare(clips: Tensor) -> Tensor:
        clips = colours(clips).to(dtype)
        return (
            clips.contiguous(memory_format=torch.channels_last_3d)
            if chosen.channels_last and clips.ndim == 5
            else clips
        )

    return prepare


def norms(net: nn.Module) -> list[_BatchNorm]:
    """Its batch norms."""
    return [part for part in net.modules() if isinstance(part, _BatchNorm)]


@contextmanager
def _tested(
    net: nn.Module, mean: Any, batches: Callable[[int], Iterator], precise: int, ranks: Ranks
) -> Iterator[nn.Module]:
    """The network to test: the mean of the weights if there is one, with the statistics of its batch norms taken anew
    if the recipe says so; those of training come back."""
    tested = unwrapped(net) if mean is None else mean.module
    parts = [part for part in norms(tested) if part.training and part.track_running_stats]
    kept = [(buffer, buffer.clone()) for part in parts for buffer in part.buffers()]
    momenta = [part.momentum for part in parts]
    try:
        if precise and parts:
            with closing(batches(0)) as some:  # type: ignore[type-var]
                update_bn(((clips,) for clips, *_ in islice(some, precise)), tested, next(tested.parameters()).device)
        if ranks.world > 1:  # each has seen other clips, and all have to test the same network
            for buffer in (getattr(part, name) for part in parts for name in ("running_mean", "running_var")):
                torch.distributed.all_reduce(buffer)
                buffer /= ranks.world
        yield tested
    finally:  # also after Ctrl-C, since the run is saved then
        for part, momentum in zip(parts, momenta, strict=True):
            part.momentum = momentum
        for buffer, before in kept:
            buffer.copy_(before)


def _introduce(
    plan: Plan, chosen: Recipe, source: Source, steps: int, done: int, began: dict, now: dict, ranks: Ranks
) -> None:
    clips, classes, epoch = now["clips"], len(source.train.classes), began["epoch"]
    notes = ""
    if source.left_out:
        path, reason = source.left_out[0]
        notes += f", {len(source.left_out):,} left out, first {path} ({reason})"
    if empty := classes - len({video.label for video in source.train.videos}):
        notes += f"; {empty:,} of {count(classes, 'class', 'classes')} have no clip to train on"
    print(
        f"{plan.network}, recipe {plan.kind}: {chosen.source}\n"
        f"{count(clips, 'clip')} to train on, {len(source.test.videos):,} to test on{notes}; "
        f"{count(chosen.batch, 'clip')} a step on {count(ranks.world, 'process', 'processes')}, "
        f"{count(epoch, 'step')} an epoch, {count(steps, 'step')}, "
        f"highest rate {chosen.lr * chosen.batch / chosen.lr_clips:.3g}"
        + (f"; goes on after step {done}" if done else "")
    )
    if began["sum"] != now["sum"]:
        print(
            f"the run began with {count(began['clips'], 'clip')} to train on, and now there are "
            f"{f'{clips:,}' if clips != began['clips'] else 'as many, but others'}: its batches come from those "
            f"of now, and it keeps its {count(epoch, 'step')} an epoch"
        )


def _say_goodbye(plan: Plan, steps: int) -> None:
    done = steps_done(plan.out / LAST)
    if done < steps:
        print(f"stopped after step {done} of {steps}, saved; the same command goes on")
    elif not was_tested(plan.out, steps):
        print(f"{count(steps, 'step')} done and saved, stopped before the last test; the same command does it")
    else:
        print(f"{count(steps, 'step')} done: course evaluate {plan.out}")
