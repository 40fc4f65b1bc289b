"""A whole training by a recipe, in a run folder that tells what it is, goes on where it stopped and can be repeated."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from course_lib.files import atomic_write, read_json, write_json
from course_lib.layers.blocks import recompute
from course_lib.machine import machine
from course_lib.models import NETWORKS, build, configure
from course_lib.training.batches import loader
from course_lib.training.checkpoint import Checkpoint, save, steps_done
from course_lib.training.distributed import Ranks, parallel, started, whole
from course_lib.training.evaluate import accuracy, top_k
from course_lib.training.folder import ABOUT, BEST, LAST
from course_lib.training.loop import train
from course_lib.training.metrics import Metrics, read
from course_lib.training.optim import moving_mean
from course_lib.training.recipe import Recipe
from course_lib.training.recipes import network_changes, recipe
from course_lib.training.report import judge
from course_lib.training.resume import settings, stop_asked, unwrapped
from course_lib.training.sources import Source, read_source, train_clips
from course_lib.training.start import start_from
from course_lib.video.transforms import ToNetwork
from course_lib.words import count

COMPUTED = ("bf16", "at_once", "channels_last", "recompute", "compile", "shard")  # settings that may change on the way


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


def fit(plan: Plan) -> Path:
    """Train as planned, on as many processes as torchrun has started; the run folder. A run that is there goes on.

    Raises:
        ValueError: what does not fit, with the way out. FloatingPointError: the loss is no number. OSError: a file
            cannot be written. The last whole checkpoint stays in every case.
    """
    chosen = recipe(plan.network, plan.data, plan.kind, plan.changes)
    with started() as (ranks, device):
        frames, size = configure(plan.network).clip[:2]
        source = read_source(plan.data, plan.root, plan.subset, size, plan.workers)
        numbered = getattr(NETWORKS[plan.network][0], "numbered", False)
        dataset = train_clips(source, chosen, frames, size, plan.seed, numbered)
        if chosen.batch > len(dataset):
            raise ValueError(
                f"the recipe's batch={chosen.batch} of {len(dataset)} clips: give more clips, or a smaller batch, such "
                f"as --set batch={max(1, len(dataset) // 4)}; the rate goes with it"
            )
        epoch = len(dataset) // chosen.batch
        config = chosen.config(epoch, plan.seed)
        if chosen.ema and chosen.shard:
            raise ValueError("ema keeps a second network whole, which shard=yes cannot: --set ema=0 or --set shard=no")
        net = make_network(plan.network, len(dataset.classes), chosen, plan.seed)
        about = _about(plan, chosen, dataset.classes, ranks)
        _require_same(plan.out, about)
        done = steps_done(plan.out / LAST)
        ranks.wait()
        if plan.start is not None and not done:
            start = start_from(net, plan.start, plan.source, dataset.classes)
            about["started_from"] = start.origin
            if ranks.first:
                print(start.line)
        net = ready(net, chosen, ranks, device)
        settled = settings(unwrapped(net), config)
        mean = moving_mean(unwrapped(net), chosen.ema) if chosen.ema else None
        prepare = to_network(chosen, device)
        batches = loader(
            dataset, chosen.batch, plan.seed, plan.workers, prepare, device, ranks=ranks, repeats=chosen.repeats
        )
        if ranks.first:
            _introduce(plan, chosen, source, epoch, config.steps, done, about, ranks)

        def ends(epochs: int, steps: int) -> bool:  # every so many epochs
            return bool(epochs) and steps % (epochs * epoch) == 0

        def test(step: int) -> None:
            with _tested(net, mean, batches, chosen.precise_bn, ranks) as tested:
                scored = judge(tested, source, chosen, frames, size, (1, 1), prepare, device, ranks, plan.workers)
                scores = {"top1": accuracy(*scored), "top5": top_k(*scored, k=min(5, scored[0].shape[1]))}
                state = tested.state_dict().items()
                weights = {name: full.cpu() for name, value in state for full in [whole(value)] if ranks.first}
            before = max((line["top1"] for line in read(plan.out) if "top1" in line), default=-1.0)
            kept = Checkpoint(step + 1, settled, weights)
            if ranks.first and scores["top1"] > before:
                save(plan.out / BEST, kept)
            if ranks.first and ends(plan.keep_every, step + 1):
                save(plan.out / f"epoch-{(step + 1) // epoch:04d}.safetensors", kept)
            metrics.test(step, scores)

        shown = ranks.first
        with (
            stop_asked() as asked,
            Metrics(plan.out, done, config.steps, chosen.batch * chosen.repeats, epoch, shown) as metrics,
        ):
            steps = train(net, batches, config, plan.out / LAST, plan.save_every, ranks, chosen.at_once, mean)
            with closing(steps):  # type: ignore[type-var]
                for step in islice(steps, plan.stop_after):
                    metrics.step(step)
                    if ranks.any(bool(asked), device):
                        break
                    done = step.number + 1
                    if done == config.steps or ends(plan.test_every, done) or ends(plan.keep_every, done):
                        test(step.number)
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


def _about(plan: Plan, chosen: Recipe, classes: tuple[str, ...], ranks: Ranks) -> dict[str, Any]:
    """All that the run depends on: what has to stay, and beside it what may change."""
    stays = {name: value for name, value in asdict(chosen).items() if name not in COMPUTED}
    return json.loads(
        json.dumps(
            {
                "network": plan.network,
                "changes": network_changes(plan.network, chosen),
                "data": plan.data,
                "subset": plan.subset,
                "classes": classes,
                "start": plan.start and Path(plan.start).name,
                "seed": plan.seed,
                "kind": plan.kind,
                "recipe": stays,
                "now": {
                    "root": plan.root and str(Path(plan.root).resolve()),
                    "set": plan.changes,
                    "processes": ranks.world,
                    "machine": machine(),
                    "command": shlex.join(["course", "train", *sys.argv[(sys.argv[1:2] == ["train"] and 2) or 1 :]]),
                },
            }
        )
    )


def _require_same(out: Path, about: dict[str, Any]) -> None:
    """ValueError if the folder holds another run, or something else."""
    there = read_json(out / ABOUT)
    if there is None:
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"--out {out}: the folder is not empty and holds no run: choose another one")
        return
    differ = [
        f"{name}: {there[name]!r} there, {about[name]!r} now"
        for name in about
        if name not in ("now", "recipe", "classes") and there.get(name) != about[name]
    ]
    differ += [
        f"{name}: {there['recipe'].get(name)!r} there, {value!r} now"
        for name, value in about["recipe"].items()
        if there["recipe"].get(name) != value
    ]
    if there["classes"] != about["classes"]:
        differ.append(f"classes: {len(there['classes'])} there, {len(about['classes'])} now, or others")
    if differ:
        raise ValueError(
            f"--out {out} holds another run:\n  " + "\n  ".join(differ) + "\nChoose another folder, or its settings"
        )


def _introduce(
    plan: Plan, chosen: Recipe, source: Source, epoch: int, steps: int, done: int, about: dict, ranks: Ranks
) -> None:
    lost = f", {len(source.left_out):,} left out, first {source.left_out[0]}" if source.left_out else ""
    print(
        f"{plan.network}, recipe {plan.kind}: {chosen.source}\n"
        f"{count(len(source.train.videos), 'clip')} to train on, {len(source.test.videos):,} to test on{lost}; "
        f"{count(chosen.batch, 'clip')} a step on {count(ranks.world, 'process', 'processes')}, "
        f"{count(epoch, 'step')} an epoch, {count(steps, 'step')}, "
        f"highest rate {chosen.lr * chosen.batch / chosen.lr_clips:.3g}"
        + (f"; goes on after step {done}" if done else "")
    )
    if not done or read_json(plan.out / ABOUT) is None:
        write_json(plan.out / ABOUT, about)
    now = about["now"]
    atomic_write(
        plan.out / "README.md",
        (
            f"`{now['command']}`, from commit {now['machine']['commit']}, repeats this run (or goes on with it); "
            f"`course evaluate {plan.out}` tests it. `run.json` has the recipe, seeds and versions, `metrics.jsonl` "
            f"a line for each step.\n"
        ).encode(),
    )


def _say_goodbye(plan: Plan, steps: int) -> None:
    done = steps_done(plan.out / LAST)
    if done < steps:
        print(f"stopped after step {done} of {steps}, saved; the same command goes on")
    else:
        print(f"{count(steps, 'step')} done: course evaluate {plan.out}")
