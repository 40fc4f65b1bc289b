"""Cost against the length or the size of a clip."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from course_lib.figures import COLOURS, WIDEST, line_style


def cost_lines(
    costs: Mapping[str, Sequence[float]], at: Sequence[float], xlabel: str, ylabel: str, marks: Sequence[float] = ()
) -> Figure:
    """One line a network over `at`; `marks` are drawn upright, where two lines cross. Both axes logarithmic."""
    size = 10.5  # two of them stand beside each other on a slide
    figure = Figure(figsize=(5.2, 3.3), layout="constrained")
    axis = figure.subplots()
    for i, (name, values) in enumerate(costs.items()):
        axis.plot(at, values, label=name, marker="o", markersize=3.5, **line_style(i))
    for mark in marks:
        axis.axvline(mark, color="0.45", linewidth=1, linestyle=":")
        number = f"{mark:.0f}" if mark >= 1000 else f"{mark:.3g}"
        axis.text(mark, 0.03, f" {number}", fontsize=size, transform=axis.get_xaxis_transform())
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(list(at), [f"{x:g}" for x in at], rotation=45)
    axis.minorticks_off()
    axis.tick_params(labelsize=size)
    axis.set_xlabel(xlabel, fontsize=size)
    axis.set_ylabel(ylabel, fontsize=size)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=size, frameon=False)
    return figure


def crossing(at: Sequence[float], first: Sequence[float], second: Sequence[float]) -> float | None:
    """Where the second cost falls below the first, exactly; None if it never does between the ends of `at`.

    For costs that are quadratic in `at`, as those of attention are in the number of tokens: three points fix the
    difference. ValueError for fewer points, or for others that contradict the three.
    """
    if len(at) < 3:
        raise ValueError(f"{len(at)} points do not fix a quadratic cost: give 3 or more")
    x, gap = np.asarray(at, float), np.asarray(second, float) - np.asarray(first, float)
    quadratic = np.polynomial.Polynomial.fit(x, gap, 2)
    off = np.abs(quadratic(x) - gap).max()
    if off > 1e-6 * np.abs(first).max():
        raise ValueError(
            f"the costs are not quadratic in {list(at)}: off by up to {off:.3g}; choose other units for at"
        )
    roots = [float(root.real) for root in quadratic.roots() if abs(root.imag) < 1e-9]
    falls = [root for root in roots if min(at) <= root <= max(at) and quadratic.deriv()(root) < 0]
    return falls[0] if falls else None


def accuracy_against_cost(
    panels: Mapping[str, Mapping[str, tuple[float, float]]], kinds: Mapping[str, str], front: Collection[str] = ()
) -> Figure:
    """Panels side by side, title of the cost axis -> name -> (cost, top-1 in percent); cost is logarithmic.

    kinds: name -> what its mark stands for. Names in `front` are joined in the last panel, cheapest first.
    """
    figure = Figure(figsize=(WIDEST, 3.3), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    marks = {kind: "os^D"[i] for i, kind in enumerate(dict.fromkeys(kinds.values()))}
    for axis, (title, points) in zip(axes, panels.items(), strict=True):
        for i, (kind, mark) in enumerate(marks.items()):
            here = [points[name] for name in points if kinds[name] == kind]
            if here:
                x, y = zip(*here, strict=True)
                axis.scatter(x, y, marker=mark, color=COLOURS[i], s=26, label=kind, zorder=3)
        axis.set_xscale("log")
        axis.set_xlabel(title)
        axis.margins(x=0.25)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    best = sorted(panels[title][name] for name in front if name in panels[title])
    if best:
        axes[-1].step(*zip(*best, strict=True), where="post", color="0.45", linewidth=1, linestyle=":")
    axes[0].set_ylabel("top-1, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    figure.draw_without_rendering()  # from here on it is known where points lie
    for axis, points in zip(axes, panels.values(), strict=True):
        _name_points(axis, points)
    return figure


SIDES = (
    (5, 0, "left", "center"), (-5, 0, "right", "center"), (0, 5, "center", "bottom"), (0, -5, "center", "top"),
    (4, 3, "left", "bottom"), (4, -3, "left", "top"), (-4, 3, "right", "bottom"), (-4, -3, "right", "top"),
)  # fmt: skip


def _name_points(axis: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write each name on that side of its point where it covers least."""
    taken = [Bbox.from_bounds(x - 3, y - 3, 6, 6) for x, y in axis.transData.transform(list(points.values()))]
    paper = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5}  # no line strikes a name through
    for name, at in points.items():
        tried: list[tuple[int, int, Any, Any]] = []
        for x, y, across, up in SIDES:
            style: dict[str, Any] = {"ha": across, "va": up, "fontsize": 8, "textcoords": "offset points"}
            text = axis.annotate(name, at, (x, y), bbox=paper, **style)
            box = text.get_window_extent().padded(2)
            tried.append((sum(map(box.overlaps, taken)), len(tried), text, box))
        *_, best, box = min(tried, key=lambda one: one[:2])
        taken.append(box)
        for _, _, text, _ in tried:
            if text is not best:
                text.remove()
