"""The curve of a run while it trains: `course watch RUN` in a terminal, `watch("RUN")` in a notebook cell."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from course_lib.files import read_json
from course_lib.training.folder import in_training
from course_lib.training.metrics import FILE, Lines
from course_lib.words import count

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille sign: four rows of two
QUIET = 600.0  # seconds without a line, after which a run is taken to have stopped where nobody can tell


class Progress(NamedTuple):
    """What a run has written so far. `tests` are (epoch, top-1)."""

    losses: list[float]
    tests: list[tuple[float, float]]
    line: str
    goes_on: bool


def progress(run: str | Path, written: Lines | None = None) -> Progress:
    """`written` holds what an earlier look has read. ValueError for a folder in which no run has written."""
    path = Path(run) / FILE
    if not path.is_file():
        raise ValueError(f"{run}: no {FILE}, so no run of `course train` has begun there")
    trains = in_training(Path(run))  # asked first: what it writes at its end is drawn
    lines = (written or Lines(run)).all()
    steps = [line for line in lines if "loss" in line]
    tests = [(line["epoch"], line["top1"]) for line in lines if "top1" in line]
    about: dict[str, Any] = read_json(Path(run) / "run.json") or {}
    told = f"{about.get('network', '')} on {about.get('data', '')}, {count(len(steps), 'step')}"
    if steps:
        late = steps[-20:]
        seconds, waited = (sum(line[name] for line in late) for name in ("seconds", "waited"))
        told += f", epoch {steps[-1]['epoch']:.2f}, loss {np.mean([line['loss'] for line in late]):.3f}"
        told += f", {np.mean([line['clips_a_second'] for line in late]):.3g} clips/s"
        told += f", {waited / max(seconds, 1e-9):.0%} waiting for data"
    if tests:
        told += f"; top-1 {tests[-1][1]:.1%}, best {max(top for _, top in tests):.1%}"
    goes_on = time.time() - path.stat().st_mtime <= QUIET if trains is None else trains
    return Progress([line["loss"] for line in steps], tests, told, goes_on)


def chart(values: Sequence[float], width: int = 72, height: int = 12) -> str:
    """A curve in braille signs, `width` x `height` of them, with its lowest and highest value."""
    finite = np.asarray([value for value in values if np.isfinite(value)])
    if not len(finite):
        return "(nothing yet)"
    columns = [part.mean() for part in np.array_split(finite, min(2 * width, len(finite)))]
    low, high = min(columns), max(columns)
    rows = [round((4 * height - 1) * (high - value) / max(high - low, 1e-12)) for value in columns]
    signs = np.zeros((height, width), dtype=int)
    for i, row in enumerate(rows):
        x = i * 2 * width // len(rows)
        above = rows[max(0, i - 1)]
        for y in range(min(row, above), max(row, above) + 1) if abs(row - above) > 1 else (row,):
            signs[y // 4, x // 2] |= DOTS[y % 4][x % 2]
    lines = ["".join(chr(0x2800 + sign) for sign in line) for line in signs]
    marks = {0: f"{high:.4g}", height - 1: f"{low:.4g}"}
    return "\n".join(f"{marks.get(i, ''):>8} {line}" for i, line in enumerate(lines))


def watch_terminal(run: Path, seconds: float = 5.0, once: bool = False) -> None:
    """Draw the loss anew every few seconds, until the run stops or Ctrl-C; once where nobody looks."""
    written = Lines(run)
    while True:
        now = progress(run, written)
        size = shutil.get_terminal_size()
        live = sys.stdout.isatty() and not once
        print("\x1b[2J\x1b[H" * live + chart(now.losses, max(20, size.columns - 12)) + f"\n{now.line}", flush=True)
        if not (live and now.goes_on):
            return
        time.sleep(seconds)


def watch(run: str | Path, seconds: float = 5.0, once: bool = False) -> None:
    """The same in a notebook cell, until the run stops or the stop button."""
    from IPython.display import display

    from course_lib.figures import picture, png
    from course_lib.figures.curves import curves

    shown: Any = None
    written = Lines(run)
    while True:
        now = progress(run, written)
        window = max(1, len(now.losses) // 50)
        # a bare Figure would be a line of text until somebody has called %matplotlib
        drawn = picture(png(curves({now.line: now.losses}, "loss", window=window)), now.line)
        if shown is None:
            shown = display(drawn, raw=True, display_id=True)
        else:
            shown.update(drawn, raw=True)
        if once or not now.goes_on:
            return
        try:
            time.sleep(seconds)
        except KeyboardInterrupt:
            return
