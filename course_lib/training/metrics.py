"""What a training run tells while it goes on: one line of JSON a step and a test, in RUN/metrics.jsonl."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm

from course_lib.files import atomic_write
from course_lib.training.resume import Step

FILE = "metrics.jsonl"


class Lines:
    """The lines of a run as they come: each look reads what is new, and all where the run has begun its file anew."""

    def __init__(self, run: str | Path):
        self.path, self.file, self.lines, self.offset = Path(run) / FILE, 0, list[dict[str, Any]](), 0

    def all(self) -> list[dict[str, Any]]:
        """First to last; a line that is being written is left out, and comes when it is whole."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            if (status.st_ino, self.offset <= status.st_size) != (self.file, True):
                self.file, self.lines, self.offset = status.st_ino, [], 0
            file.seek(self.offset)
            whole, end, _ = file.read().rpartition(b"\n")
        self.offset += len(whole + end)
        for line in whole.splitlines():
            with suppress(ValueError):  # half written when its process died
                self.lines.append(json.loads(line))
        return self.lines


def read(run: str | Path) -> list[dict[str, Any]]:
    """The lines of a run so far, first to last; a line that is being written is left out."""
    return Lines(run).all()


def was_tested(run: str | Path, done: int) -> bool:
    """Whether the lines hold a test of the network after so many steps."""
    return any("top1" in line and line["step"] == done - 1 for line in read(run))


class Metrics:
    """Writes the lines, shows the progress line and, where TensorBoard is installed, writes for it too.

    A run that goes on from step `done` forgets lines of steps after it, which it is going to do again. Several
    processes have one such writer, in the first; `shown` is False in the others, where nothing happens.
    """

    def __init__(self, run: Path, done: int, steps: int, clips: int, epoch: int, shown: bool = True):
        self.run, self.clips, self.epoch, self.shown = run, clips, epoch, shown
        self.board: Any = None
        if not shown:
            return
        kept = [line for line in read(run) if line["step"] < done]
        atomic_write(run / FILE, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.file = (run / FILE).open("a", encoding="utf-8")
        self.bar = tqdm(total=steps, initial=done, unit="step", desc=run.name, dynamic_ncols=True)
        self.weight = self.seconds = self.waited = 0.0  # of steps of late, which count more than those long ago
        try:
            from torch.utils.tensorboard import SummaryWriter  # type: ignore[attr-defined]

            self.board = SummaryWriter(str(run / "tensorboard"), purge_step=done)
        except ImportError:
            pass

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.shown:
            self.bar.close()
            self.file.close()
            if self.board is not None:
                self.board.close()

    def step(self, step: Step) -> None:
        """Record an update."""
        if not self.shown:
            return
        line = step._asdict()
        line = {"step": line.pop("number"), "epoch": (step.number + 1) / self.epoch, **line}
        self._write({**line, "clips_a_second": self.clips / step.seconds}, ("loss", "accuracy", "lr", "grad_norm"))
        self.weight, self.seconds = 0.95 * self.weight + 1, 0.95 * self.seconds + step.seconds
        self.waited = 0.95 * self.waited + step.waited
        self.bar.set_postfix_str(
            f"loss {step.loss:.3f}, {self.clips * self.weight / self.seconds:.3g} clips/s, "
            f"{self.waited / self.seconds:.0%} waiting for data",
            refresh=False,
        )
        self.bar.update()

    def test(self, step: int, scores: dict[str, float]) -> None:
        """Record a test of the network after `step`."""
        if self.shown:
            self._write({"step": step, "epoch": (step + 1) / self.epoch, **scores}, tuple(scores))
            self.bar.write(
                f"epoch {(step + 1) / self.epoch:.3g}: " + ", ".join(f"{k} {v:.1%}" for k, v in scores.items())
            )

    def _write(self, line: dict[str, Any], told: tuple[str, ...]) -> None:
        self.file.write(json.dumps({**line, "time": round(time.time(), 3)}) + "\n")
        self.file.flush()
        if self.board is not None:
            for name in told:
                self.board.add_scalar(name, line[name], line["step"])
