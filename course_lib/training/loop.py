"""The training loop, as a generator of records: the notebook decides when to look, to plot and to stop.

Notebook 06 trains with it first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.optim.swa_utils import AveragedModel

from course_lib.modes import modes, restore
from course_lib.training import mixing
from course_lib.training.batches import Batch, NumberedBatch
from course_lib.training.distributed import ALONE, Ranks, whole
from course_lib.training.optim import TrainConfig, in_full, learning_rate, make_optimizer
from course_lib.training.resume import Run, Step, ctrl_c_waits, unwrapped


def train(
    net: nn.Module,
    batches_from: Callable[[int], Iterable[Batch | NumberedBatch]],
    config: TrainConfig,
    checkpoint: str | Path | None = None,
    every: int = 100,
    ranks: Ranks = ALONE,
    at_once: int = 0,
    mean: AveragedModel | None = None,
    also: Callable[[int], bool] = lambda done: False,
) -> Generator[Step, bool | None, None]:
    """Train `net` where it is (bfloat16 autocast on a GPU) and yield a record of every update.

    `batches_from(step)` gives the batches from that step on, see `batches.shuffled` and `batches.loader`.

    Parts of `net` that are in evaluation mode when the training begins stay in it, whatever is done between two steps:
    a frozen backbone keeps the statistics of its batch norms. A parameter without `requires_grad` is not trained.

    With a `checkpoint` the run is saved there after every `every` steps, where `also` says so of the steps done, at
    the end, and when it is left early: by Ctrl-C (which waits for the step to end; a second one does not, and saves
    nothing), `break`, `close()` or a batch that cannot be read. Called again it goes on there, on the CPU bit for bit
    as if never stopped; a finished run puts its weights into `net` and yields nothing more. `resume.history` has the
    earlier records. What is drawn from torch's generators between two records does not change the training.

    A notebook keeps the frames of a failed cell alive. `with contextlib.closing(train(...)) as steps:`
    closes, and so saves, the run at once when the code between two steps fails or meets the Ctrl-C.

    Of several processes (`ranks`) each trains what `distributed.parallel` made of the network, on its share of every
    batch, and the first one writes; loss and accuracy are means over all. With `at_once`, so many clips are computed at
    a time, and their gradients added up. `mean` follows the weights (`RecipeConfig.ema`, `optim.moving_mean`).

    A batch that one process cannot read ends all of them after the same step, saved. What FSDP2 has parted has to be
    saved by all together: there neither `break` nor `close()` nor an error saves anything, `resume.leave(steps)` does,
    called by all after the same step.

    Raises ValueError for a network in evaluation mode as a whole, a checkpoint of another run, labels without a class
    and batches that end early; FloatingPointError when the loss or the gradient is no longer a finite number.
    """
    if not net.training:
        raise ValueError(
            f"the {type(net).__name__} is in evaluation mode: call net.train(), and after it .eval() of those parts "
            "that shall stay as they are"
        )
    kept = modes(net)
    with ctrl_c_waits():  # the first optimiser imports the rest of torch, which breaks when that is cut short
        optimizer = make_optimizer(unwrapped(net), config)  # the names decide what decays and how fast
    run = Run(net, optimizer, config, None if checkpoint is None else Path(checkpoint), every, ranks, mean)
    done = len(run.records)
    batches = iter(batches_from(done)) if done < config.steps else iter(())
    with run:
        for number in range(done, config.steps):
            start = time.perf_counter()
            with run.own_generators():
                batch = run.next_batch(batches)
                waited = time.perf_counter() - start
                with run.whole_step():
                    restore(kept)
                    values = update(net, optimizer, batch, config, number, ranks, at_once)
                    if mean is not None:
                        mean.update_parameters(unwrapped(net))
                    run.records.append(Step(number, *values, time.perf_counter() - start, waited))
            run.save_on_schedule(also(number + 1))
            if (yield run.records[-1]):  # `resume.leave`
                run.save()
                return


def update(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch | NumberedBatch | None,
    config: TrainConfig,
    number: int,
    ranks: Ranks = ALONE,
    at_once: int = 0,
) -> tuple[float, float, float, float]:
    """One step of the optimiser: the fields of its Step from loss to gradient norm."""
    if batch is None:
        raise ValueError(
            f"the batches ended before step {number} of {config.steps}: let batches_from go on "
            "for ever, as batches.shuffled and batches.loader do, or train for fewer steps"
        )
    c, device = in_full(config), next(net.parameters()).device
    clips, labels, *numbers = (part.to(device, non_blocking=True) for part in batch)
    lr = learning_rate(number, config)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["share"]
    mixed = mixing.mix(clips, labels, c.mixup, c.cutmix, c.seed, number)
    count = len(clips)
    pieces = mixed.pieces(at_once or count)
    optimizer.zero_grad()
    loss = right = torch.zeros((), device=device)
    for first, piece in zip(range(0, count, at_once or count), pieces, strict=True):
        with _gradients_averaged(net, piece is pieces[-1]):
            with torch.autocast(device.type, torch.bfloat16, enabled=c.bf16 and device.type == "cuda"):
                # a clip that another is mixed into keeps its own frames' numbers
                logits = net(piece.clips, *(part[first : first + len(piece.clips)] for part in numbers))  # b classes
            if piece is pieces[0]:  # once a step: a GPU has to be waited for
                _require_classes(number, labels, logits.shape[1])
            part = piece.loss(_exact(logits), c.label_smoothing) * (len(piece.clips) / count)
            part.backward()
        loss = loss + part.detach()
        right = right + (logits.argmax(dim=1) == piece.labels).float().sum() / count
    norm = whole(nn.utils.clip_grad_norm_(net.parameters(), config.grad_clip))
    lost, accuracy = ranks.mean(loss, right)
    if not (math.isfinite(lost) and norm.isfinite()):
        raise FloatingPointError(
            f"step {number}: loss {lost}, gradient norm {norm.item()} at learning rate {lr:.3g}; "
            f"lower peak_lr={config.peak_lr:g}, lengthen warmup={config.warmup}, "
            "or look for inf and nan in the clips"
        )
    optimizer.step()
    return lost, accuracy, lr, norm.item()


def _gradients_averaged(net: nn.Module, now: bool) -> AbstractContextManager:
    """Gradients of several processes are averaged once a step, with its last piece."""
    net = getattr(net, "_orig_mod", net)  # torch.compile's
    if isinstance(net, nn.parallel.DistributedDataParallel) and not now:
        return net.no_sync()
    if isinstance(net, FSDPModule):
        net.set_requires_gradient_sync(now)
    return nullcontext()


def _exact(logits: Tensor) -> Tensor:
    """In float32 at least, whatever the network computed in."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _require_classes(number: int, labels: Tensor, classes: int) -> None:
    low, high = (int(end) for end in labels.aminmax())
    if low < 0 or high >= classes:  # asked here because a GPU would answer by ending the process
        raise ValueError(
            f"step {number}: labels from {low} to {high}, but the network has {classes} classes, "
            f"numbered from 0; build it with classes={high + 1} or correct the labels"
        )
