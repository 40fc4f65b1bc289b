"""Training curves: finished ones, and one that grows while a network learns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from course_lib.figures import COLOURS, WIDEST, line_style, picture, png


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """The mean of the last `window` values at every step; fewer at the start."""
    total = np.cumsum(np.insert(np.asarray(values, dtype=float), 0, 0.0))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(0, end - window)
    return (total[end] - total[start]) / (end - start)


def curves(
    runs: Mapping[str, Sequence[float]], ylabel: str, chance: float | None = None, window: int = 1, steps: int = 0
) -> Figure:
    """One line a run, told apart by colour and stroke; `chance` is drawn as a level, `steps` fixes the axis."""
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axis = figure.subplots()
    for i, (name, values) in enumerate(runs.items()):
        axis.plot(np.arange(1, len(values) + 1), smooth(values, window), label=name, linewidth=1.8, **line_style(i))
    if chance is not None:
        axis.axhline(chance, color="0.45", linewidth=1, label=f"chance {chance:.2f}")
    axis.set_xlabel("step")
    axis.set_ylabel(ylabel)
    if steps:
        axis.set_xlim(0, steps)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, frameon=False, loc="best")
    return figure


def plateau(
    loss: Sequence[float], batch_accuracy: Sequence[float], classes: int, title: str = "", window: int = 25
) -> Figure:
    """Loss and accuracy of the batches of one run on classes in pairs, forwards and backwards.

    Levels show what a guess gives, among all classes and between the two of the right pair: a network that sees what
    moves, but not which way, stays on the second.
    """
    figure = Figure(figsize=(5.8, 2.1), layout="constrained")  # two of them stand below each other on a slide
    sides = zip(
        figure.subplots(1, 2),
        (loss, batch_accuracy),
        ("loss", "accuracy\non the batch"),
        ((np.log(classes), np.log(2)), (1 / classes, 1 / 2)),
        strict=True,
    )
    for i, (axis, values, name, levels) in enumerate(sides):
        axis.plot(np.arange(1, len(values) + 1), smooth(values, window), linewidth=1.8, **line_style(i))
        for level, meaning in zip(levels, ("a guess", "the pair, not the way"), strict=True):
            axis.axhline(level, color="0.45", linewidth=1, linestyle=":")
            written = axis.annotate(meaning, (len(values), level), fontsize=10, ha="right", va="bottom", color="0.35")
            written.set_bbox({"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1})
        axis.set_ylim(0, None if i == 0 else 1.02)
        axis.set_xlabel("step")
        axis.set_ylabel(name)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    return figure


def by_dial(
    found: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], ylabel: str, chance: float | None = None
) -> Figure:
    """One panel a dial, one line a network: `found[dial][network]` has (setting, measure), in any order. Shares of at
    most 1 with `chance`, which is drawn as a level; counts without."""
    figure = Figure(figsize=(WIDEST, 2.7), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(found), sharey=True))
    for axis, (dial, runs) in zip(axes, found.items(), strict=True):
        for i, (network, points) in enumerate(runs.items()):
            axis.plot(*zip(*sorted(points), strict=True), marker="o", markersize=4, label=network, **line_style(i))
        if chance is not None:
            axis.axhline(chance, color="0.45", linewidth=1)
        axis.set_xlabel(dial)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    highest = max(value for runs in found.values() for points in runs.values() for _, value in points)
    axes[0].set_ylim(0, 1.06 * highest if chance is None else 1.03)  # shared by all
    axes[0].set_ylabel(ylabel)
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside upper center", ncols=9)
    return figure


def over_seeds(
    found: Mapping[str, Mapping[float, Sequence[float]]], xlabel: str, ylabel: str, chance: float | None = None
) -> Figure:
    """One line a run over a logarithmic axis: `found[name][x]` has one value a seed. A bar goes from the least of them
    to the most, the line through their means."""
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    axis = figure.subplots()
    at = sorted({x for values in found.values() for x in values})
    for i, (name, values) in enumerate(found.items()):
        x = sorted(values)
        shifted = [each * 1.035 ** (i - (len(found) - 1) / 2) for each in x]  # bars beside each other
        mean = np.array([np.mean(values[each]) for each in x])
        ends = np.array([[min(values[each]), max(values[each])] for each in x]).T
        axis.errorbar(shifted, mean, abs(ends - mean), capsize=2, marker="o", markersize=4, label=name, **line_style(i))
    if chance is not None:
        axis.axhline(chance, color="0.45", linewidth=1)
        axis.annotate("a guess", (at[-1], chance), fontsize=9, ha="right", va="bottom", color="0.35")
    axis.set_xscale("log", base=2)
    axis.set_xticks(at, [f"{x:g}" for x in at])
    axis.minorticks_off()
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, frameon=False, loc="best")
    return figure


class LiveCurve:
    """A progress bar and a curve that follow a run: with LiveCurve(1000) as live: live.add(step.loss, step.accuracy).

    The picture is drawn anew at most every `seconds`, and once more at the end, also after an interruption.
    `past` are the (loss, accuracy) of earlier steps, when a run goes on from its checkpoint.
    """

    def __init__(self, steps: int, title: str = "", past: Sequence[tuple[float, float]] = (), seconds: float = 3.0):
        self.steps, self.title, self.seconds = steps, title, seconds
        self.values = list(past)
        self.drawn = 0.0

    def __enter__(self) -> LiveCurve:
        from IPython.display import display

        self.bar = tqdm(total=self.steps, initial=len(self.values), desc=self.title, unit="step")
        self.handle = display({"text/plain": "waiting for the first step"}, raw=True, display_id=True)
        return self

    def add(self, loss: float, accuracy: float) -> None:
        self.values.append((loss, accuracy))
        self.bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        self.bar.update()
        if time.monotonic() - self.drawn > self.seconds:
            self.draw()

    def draw(self) -> None:
        if self.values and self.handle is not None:
            self.handle.update(picture(png(self.figure()), self.words()), raw=True)
        self.drawn = time.monotonic()

    def figure(self) -> Figure:
        losses, accuracies = zip(*self.values, strict=True)
        figure = Figure(figsize=(WIDEST, 2.4), layout="constrained")
        for axis, values, name, colour in zip(
            figure.subplots(1, 2), (losses, accuracies), ("loss", "accuracy on the batch"), COLOURS, strict=False
        ):
            axis.plot(values, color=colour, alpha=0.25, linewidth=0.8)
            axis.plot(smooth(values, 50), color=colour, linewidth=1.8)
            axis.set_xlim(0, max(self.steps, 2))
            axis.set_xlabel("step")
            axis.set_ylabel(name)
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
        figure.suptitle(self.title, fontsize=11)
        return figure

    def words(self) -> str:
        """The curve for those who cannot see it."""
        losses, accuracies = (smooth(values, 50) for values in zip(*self.values, strict=True))
        return (
            f"{self.title}: {len(self.values)} of {self.steps} steps; over the last 50 the loss is {losses[-1]:.3f} "
            f"(it began at {self.values[0][0]:.3f}) and the accuracy on the batch {accuracies[-1]:.2f}"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.draw()
        self.bar.close()
