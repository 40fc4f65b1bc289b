"""The training loop, as a generator of records: the notebook decides when to look, to plot and to stop.

AdamW (Loshchilov and Hutter 2019), a linear climb and half a cosine for the learning rate, clipped gradients:
the recipe of most video transformers. Notebook 06 trains with it first.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from course_lib.training import checkpoint as files
from course_lib.training.batches import Batch


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run. `seed` fixes dropout and drop path; the order of the clips has a seed of its own."""

    steps: int = 1000
    peak_rate: float = 1e-3
    warmup: int = 50  # steps of the linear climb
    weight_decay: float = 0.05
    clip_norm: float = 1.0  # the longest gradient that is followed at full length
    seed: int = 0

    def __post_init__(self) -> None:
        last = self.steps - 1
        for name, holds, remedy in (
            ("steps", self.steps >= 1, "train at least 1 step"),
            ("peak_rate", 0 < self.peak_rate < math.inf, "give a positive number; 1e-3 suits a tiny network"),
            ("warmup", 0 <= self.warmup <= last, f"climb for 0 to {last} of the {self.steps} steps"),
            (
                "weight_decay",
                0 <= self.weight_decay < math.inf,
                "give 0, for none, or a small positive number",
            ),
            ("clip_norm", 0 < self.clip_norm < math.inf, "give a positive number; 1e9 clips nothing"),
            ("seed", 0 <= self.seed < 2**32, "give a whole number from 0 to 4294967295"),
        ):
            if not holds:
                raise ValueError(f"{name}={getattr(self, name)!r}: {remedy}")


class Step(NamedTuple):
    """The record of one update; loss and accuracy are those of its batch just before it."""

    number: int  # the first is 0
    loss: float
    accuracy: float  # share of the batch, 0 to 1
    rate: float
    gradient_norm: float  # before clipping
    seconds: float  # the wait for the batch included


def learning_rate(step: int, config: TrainConfig) -> float:
    """A linear climb to `peak_rate` over `warmup` steps, then half a cosine down to zero at `steps`."""
    if step < config.warmup:
        return config.peak_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / (config.steps - config.warmup)
    return config.peak_rate * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay what multiplies the features: every `...weight` of two or more axes, the matrices and kernels.

    Spared are the vectors (biases, norms, scales) and the tables that are added, not multiplied: positions,
    class tokens, relative biases. The number of axes cannot tell a table from a matrix, but the name can:
    torch calls `weight` what its layers multiply by, and a table is a plain parameter with a name of its own.
    The released MViT and Swin code spares its tables too, by lists of names.
    """
    decayed, spared = [], []
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            (decayed if name.endswith("weight") and parameter.ndim >= 2 else spared).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def train(
    net: nn.Module,
    batches_from: Callable[[int], Iterable[Batch]],
    config: TrainConfig,
    checkpoint: str | Path | None = None,
    every: int = 100,
) -> Iterator[Step]:
    """Train `net` where it is (bfloat16 autocast on a GPU) and yield a record of every update.

    `batches_from(step)` gives the batches from that step on, see `batches.shuffled` and `batches.loader`.

    With a `checkpoint` the run is saved there after every `every` steps, at the end, and when it is left
    early: by Ctrl-C (which waits for the step to end; a second one does not, and saves nothing), `break` or
    `close()`. Called again it goes on there, on the CPU bit for bit as if never stopped; a finished run puts
    its weights into `net` and yields nothing more. `history` has the earlier records. What is drawn from
    torch's generators between two records does not change the training.

    A notebook keeps the frames of a failed cell alive. `with contextlib.closing(train(...)) as steps:`
    closes, and so saves, the run at once when the code between two steps fails or meets the Ctrl-C.

    Raises ValueError for a checkpoint of another run, labels without a class and batches that end early;
    FloatingPointError when the loss or the gradient is no longer a finite number.
    """
    if every < 1:
        raise ValueError(f"every={every}: save after every 1 or more steps")
    path = None if checkpoint is None else Path(checkpoint)
    device = next(net.parameters()).device
    with _ctrl_c_waits():  # the first optimiser imports the rest of torch, which breaks when that is cut short
        optimizer = torch.optim.AdamW(parameter_groups(net, config.weight_decay))
    generators, records = files.seeded_generators(config.seed, device), []
    settings = {} if path is None else _settings(net, config)
    if path is not None and path.exists():
        saved = files.resume(path, settings, net, optimizer)
        generators, records = generators | saved.generators, _records(saved)

    def save() -> None:
        if path is not None:
            columns = torch.tensor(records, dtype=torch.float64).reshape(-1, len(Step._fields)).unbind(1)
            past = dict(zip(Step._fields, columns, strict=True))
            state = files.optimizer_state(net, optimizer)
            weights = net.state_dict()
            files.save(path, files.Checkpoint(len(records), settings, weights, state, generators, past))

    batches = iter(batches_from(len(records))) if len(records) < config.steps else iter(())
    whole, left = True, _mark(path, net)
    try:
        for number in range(len(records), config.steps):
            start = time.perf_counter()
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                files.set_generators(generators, device)
                if (batch := next(batches, None)) is None:
                    raise ValueError(
                        f"the batches ended before step {number} of {config.steps}: let batches_from go on "
                        "for ever, as batches.shuffled and batches.loader do, or train for fewer steps"
                    )
                with _ctrl_c_waits():
                    whole = False
                    values = _update(net, optimizer, batch, config, number)
                    records.append(Step(number, *values, time.perf_counter() - start))
                    generators = files.get_generators(device)
                    whole = True
            if (number + 1) % every == 0 or number + 1 == config.steps:
                save()
            left = _mark(path, net)
            yield records[-1]
    except KeyboardInterrupt:
        if whole:
            save()
        raise
    except GeneratorExit:
        # kept alive by a traceback, it may close late, when others have gone on with the file or the net
        if left == _mark(path, net):
            save()
        raise


def history(checkpoint: str | Path) -> list[Step]:
    """The records of a run so far, to redraw its curve after a restart; [] before its first checkpoint."""
    return _records(files.load(checkpoint)) if Path(checkpoint).exists() else []


def _update(
    net: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, config: TrainConfig, number: int
) -> tuple[float, float, float, float]:
    """One step of AdamW: the fields of its Step from loss to gradient norm."""
    device = next(net.parameters()).device
    clips, labels = (part.to(device, non_blocking=True) for part in batch)
    rate = learning_rate(number, config)
    for group in optimizer.param_groups:
        group["lr"] = rate
    net.train()
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        logits = net(clips)  # b classes
    low, high = (int(end) for end in labels.aminmax())
    if low < 0 or high >= logits.shape[1]:  # asked here because a GPU would answer by ending the process
        raise ValueError(
            f"step {number}: labels from {low} to {high}, but the network has {logits.shape[1]} classes, "
            f"numbered from 0; build it with classes={high + 1} or correct the labels"
        )
    loss = F.cross_entropy(logits.float(), labels)
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(net.parameters(), config.clip_norm)
    if not (loss.isfinite() and norm.isfinite()):
        raise FloatingPointError(
            f"step {number}: loss {loss.item()}, gradient norm {norm.item()} at learning rate {rate:.3g}; "
            f"lower peak_rate={config.peak_rate:g}, lengthen warmup={config.warmup}, "
            "or look for inf and nan in the clips"
        )
    optimizer.step()
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    return loss.item(), accuracy.item(), rate, norm.item()


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Hold one Ctrl-C back until the block ends: no checkpoint shall hold half a step. A second breaks in."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is None:
        yield  # nothing interrupts another thread, and a handler from outside Python could not be put back
        return
    held = False

    def hold(*_: Any) -> None:
        nonlocal held
        if held:
            raise KeyboardInterrupt
        held = True

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)


def _settings(net: nn.Module, config: TrainConfig) -> dict[str, Any]:
    """What must stay the same in a run; not only shapes, two attention schemes can have the same weights."""
    network = getattr(net, "config", None)
    return {
        "training": files.as_plain(config),
        "network": {"class": type(net).__name__} | (files.as_plain(network) if is_dataclass(network) else {}),
        "frozen": [name for name, parameter in net.named_parameters() if not parameter.requires_grad],
    }


def _records(saved: files.Checkpoint) -> list[Step]:
    if not saved.history:
        return []
    columns = (saved.history[name].tolist() for name in Step._fields)
    return [Step(int(number), *values) for number, *values in zip(*columns, strict=True)]


def _mark(path: Path | None, net: nn.Module) -> tuple:
    """Differs once anybody has written or deleted the file or changed a weight in place."""
    file = path.stat() if path is not None and path.exists() else None
    return file and (file.st_ino, file.st_mtime_ns), [parameter._version for parameter in net.parameters()]
