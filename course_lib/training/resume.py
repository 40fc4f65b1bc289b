"""A run that survives being stopped: what it saves, when, and how it goes on.

Ctrl-C waits for the end of the step, so that no file holds half of one. torch's generators are the run's own: what
others draw between two steps changes nothing, and a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.optim.swa_utils import AveragedModel

from course_lib.training.checkpoint import Checkpoint, as_plain, load, save
from course_lib.training.distributed import ALONE, PeerLost, Ranks, parted_like, whole
from course_lib.training.optim import TrainConfig
from course_lib.video.errors import VideoError


class Step(NamedTuple):
    """The record of one update; loss and accuracy are those of its batch just before it."""

    number: int  # the first is 0
    loss: float
    accuracy: float  # share of the batch, 0 to 1
    lr: float
    grad_norm: float  # before clipping
    seconds: float  # the wait for the batch included
    waited: float = 0.0  # seconds, until every process had its batch


class Run:
    """A network, its optimiser and the records so far; with a path, also the file that they go on from.

    Used as a context around the steps: left early, by Ctrl-C, `break`, `close()` or a batch that cannot be read, it
    saves. A network that FSDP2 has parted is put together by all processes, so it is saved only where all come: on
    schedule, by `leave`, and before a batch that one of them cannot read. Whatever else ends one of them ends the run
    with its last whole checkpoint; waiting for the others' help would last for ever.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        path: Path | None,
        every: int,
        ranks: Ranks = ALONE,
        mean: AveragedModel | None = None,
    ):
        if every < 1:
            raise ValueError(f"every={every}: save after every 1 or more steps")
        self.ranks, self.mean = ranks, mean
        self.net, self.optimizer, self.config, self.path, self.every = unwrapped(net), optimizer, config, path, every
        self.device = next(net.parameters()).device
        self.generators, self.records = seeded_generators(config.seed, self.device), list[Step]()
        self.settings = {} if path is None else settings(self.net, config)
        if path is not None and path.exists():
            saved = resume(path, self.settings, self.net, optimizer)
            self.generators, self.records = self.generators | saved.generators, step_records(saved)
            if mean is not None:
                mean.load_state_dict(saved.mean)
        self.whole, self.mark = True, self._mark()

    @property
    def parted(self) -> bool:
        return isinstance(self.net, FSDPModule)

    def next_batch(self, batches: Iterator[Any]) -> Any:
        """None after the last. Where one process cannot read its own, all end before the step, and lose none."""
        try:
            batch = next(batches, None)
        except (VideoError, RuntimeError):
            self._all_have_read(False)
            raise
        if not self._all_have_read(True):
            raise PeerLost("another process of this training could not read its batch")
        return batch

    def _all_have_read(self, this: bool) -> bool:
        lost = self.ranks.any(not this, self.device)
        if lost and self.parted:
            self.save()
        return not lost

    @contextmanager
    def own_generators(self) -> Iterator[None]:
        """torch's generators as this run left them. Of several processes each has its own, which the seed, the step and
        its rank fix, so that no state has to be kept of them."""
        if self.ranks.world > 1:
            drawn = np.random.SeedSequence((self.config.seed, len(self.records), self.ranks.rank))
            self.generators = seeded_generators(int(drawn.generate_state(1, np.uint64)[0] >> 1), self.device)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            set_generators(self.generators, self.device)
            yield

    @contextmanager
    def whole_step(self) -> Iterator[None]:
        """The block is one step: Ctrl-C comes before it or after it."""
        with ctrl_c_waits():
            self.whole = False
            yield
            self.generators = get_generators(self.device)
            self.whole = True

    def save_on_schedule(self, now: bool = False) -> None:
        """After every `every` steps and after the last, and `now`."""
        if now or len(self.records) % self.every == 0 or len(self.records) == self.config.steps:
            self.save()
        self.mark = self._mark()

    def save(self) -> None:
        if self.path is None:
            return
        past, mean = step_columns(self.records), {} if self.mean is None else self.mean.state_dict()
        # where FSDP2 has parted them, all processes help to put them together, one by one; the first keeps them
        parts = (self.net.state_dict(), optimizer_state(self.net, self.optimizer), mean)
        weights, state, mean = (
            {name: full.cpu() for name, value in part.items() for full in [whole(value)] if self.ranks.first}
            for part in parts
        )
        if self.ranks.first:
            save(self.path, Checkpoint(len(self.records), self.settings, weights, state, self.generators, past, mean))

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # kept alive by a traceback, a generator may close late, when others have gone on with the file or the net;
        # several processes do not ask, since each would look at the file at another moment
        closed = isinstance(error, GeneratorExit) and (self.ranks.world > 1 or self.mark == self._mark())
        left = isinstance(error, KeyboardInterrupt | VideoError | RuntimeError) and self.whole
        if (closed or left) and not self.parted:
            self.save()

    def _mark(self) -> tuple:
        """Differs once anybody has written or deleted the file or changed a weight in place."""
        file = self.path.stat() if self.path is not None and self.path.exists() else None
        return file and (file.st_ino, file.st_mtime_ns), [parameter._version for parameter in self.net.parameters()]


def leave(steps: Generator[Step, bool | None, None]) -> None:
    """End a training and save it. All its processes have to come here, after the same step."""
    with suppress(StopIteration):
        steps.send(True)


def history(checkpoint: str | Path) -> list[Step]:
    """The records of a run so far, to redraw its curve after a restart; [] before its first checkpoint."""
    return step_records(load(checkpoint)) if Path(checkpoint).exists() else []


class Stopped(KeyboardInterrupt):
    """A run that was stopped on purpose: notebooks show the sentence in place of a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [str(self)]


@contextmanager
def stopping(checkpoint: str | Path, steps: int) -> Iterator[None]:
    """Around a cell that trains: Ctrl-C, or the stop button, becomes one sentence that says how to go on.

    with stopping(path, 120), closing(train(..., path)) as records: ...
    """
    try:
        yield
    except KeyboardInterrupt:
        done = len(history(checkpoint))
        raise Stopped(f"Stopped at {done} of {steps}, saved; run this cell again to go on from there.") from None


def unwrapped(net: nn.Module) -> nn.Module:
    """The network inside what torch.compile, DataParallel and DistributedDataParallel make of it.

    Its names stand in the file, so that a run goes on whether or not it was wrapped when it was saved.
    """
    while (inner := getattr(net, "_orig_mod", None) or _parallel(net)) is not None:
        net = inner
    return net


def _parallel(net: nn.Module) -> nn.Module | None:
    return net.module if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel) else None


class Asked:
    """A handler that notes Ctrl-C and SIGTERM, for whoever looks at the end of a step. Another Ctrl-C breaks in, but
    not within two seconds: torchrun hands on the one that the terminal has sent already."""

    def __init__(self) -> None:
        self.since: float | None = None

    def __call__(self, number: int, _: Any) -> None:
        if self.since is None:
            self.since = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self.since > 2:
            raise KeyboardInterrupt

    def __bool__(self) -> bool:
        return self.since is not None


@contextmanager
def stop_asked() -> Iterator[Asked]:
    """Ctrl-C and SIGTERM are noted for as long as the block runs."""
    asked = Asked()
    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Hold one Ctrl-C back until the block ends: no checkpoint shall hold half a step. A second breaks in."""
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    if not in_main or handler is None or isinstance(handler, Asked):
        # nothing interrupts another thread, a handler from outside Python could not be put back, and one waits already
        yield
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


def settings(net: nn.Module, config: TrainConfig) -> dict[str, Any]:
    """What must stay the same in a run; not only shapes, two attention schemes can have the same weights."""
    network = getattr(net, "config", None)
    kind = type(net).__bases__[1] if isinstance(net, FSDPModule) else type(net)  # FSDP2 makes a class of its own
    return {
        "training": as_plain(config),
        "network": {"class": kind.__name__} | (as_plain(network) if is_dataclass(network) else {}),
        "frozen": [name for name, parameter in net.named_parameters() if not parameter.requires_grad],
    }


def step_columns(records: list[Step]) -> dict[str, Tensor]:
    """Records as a Checkpoint keeps them."""
    columns = torch.tensor(records, dtype=torch.float64).reshape(-1, len(Step._fields)).unbind(1)
    return dict(zip(Step._fields, columns, strict=True))


def step_records(saved: Checkpoint) -> list[Step]:
    if not saved.history:
        return []
    none = torch.zeros(saved.step)  # of what was not yet recorded when the file was written
    columns = (saved.history.get(name, none).tolist() for name in Step._fields)
    return [Step(int(number), *values) for number, *values in zip(*columns, strict=True)]


def resume(path: str | Path, settings: dict[str, Any], net: nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint:
    """Put the run at `path` into `net` and `optimizer`; ValueError names everything that differs."""
    saved = load(path)
    lines = differences(saved, settings, net)
    if not saved.generators:
        lines.append("optimizer, generators, history: missing in the file, which holds a network and not a run")
    if lines:
        raise ValueError(
            f"{path} is of another run:\n  " + "\n  ".join(lines) + "\n"
            "Delete the file to start again, choose another name, or go back to its settings and network"
        )
    parameters, held = dict(net.named_parameters()), net.state_dict()
    net.load_state_dict({name: parted_like(value, held[name]) for name, value in saved.weights.items()})
    for entry, value in saved.optimizer.items():
        key, name = entry.split("/", 1)
        parameter = parameters[name]
        # torch counts an optimiser's steps on the CPU; the rest of its state lies beside the parameter
        optimizer.state[parameter][key] = value if key == "step" else parted_like(value, parameter)
    return saved


def differences(checkpoint: Checkpoint, settings: dict[str, Any], net: nn.Module) -> list[str]:
    """Why a run of `net` with these settings cannot go on from `checkpoint`, line by line; [] if it can."""
    there = _flat(checkpoint.settings) | {name: _describe(t) for name, t in checkpoint.weights.items()}
    here = _flat(settings) | {name: _describe(t) for name, t in net.state_dict().items()}
    return [
        f"{name}: {there.get(name, 'missing')} in the file, {here.get(name, 'missing')} here"
        for name in there | here
        if there.get(name) != here.get(name)
    ]


def optimizer_state(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a Checkpoint keeps of the optimiser; by names, since torch's own numbers depend on the groups."""
    return {
        f"{key}/{name}": value
        for name, parameter in net.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def seeded_generators(seed: int, device: torch.device) -> dict[str, Tensor]:
    """What `torch.manual_seed(seed)` makes of the global generators that a network on `device` draws from."""
    kinds = ("cpu", "cuda") if device.type == "cuda" else ("cpu",)
    return {kind: torch.Generator(kind).manual_seed(seed).get_state() for kind in kinds}


def get_generators(device: torch.device) -> dict[str, Tensor]:
    """The present states of the global generators that a network on `device` draws from."""
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state()} | cuda


def set_generators(generators: dict[str, Tensor], device: torch.device) -> None:
    """Put the global generators into such states."""
    torch.set_rng_state(generators["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(generators["cuda"], device)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """{"training": {"steps": 5}} as {"training.steps": "5"}."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        inner = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{name}.") if inner else {prefix + name: repr(value)}
    return flat


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
