"""Cost against the length or the size of a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from course_lib.figures import line_style


def cost_lines(
    costs: Mapping[str, Sequence[float]], at: Sequence[float], xlabel: str, ylabel: str, marks: Sequence[float] = ()
) -> Figure:
    """One line a network over `at`; `marks` are drawn upright, where two lines cross. Both axes logarithmic."""
    figure = Figure(figsize=(5.2, 3.3), layout="constrained")
    axis = figure.subplots()
    for i, (name, values) in enumerate(costs.items()):
        axis.plot(at, values, label=name, marker="o", markersize=3.5, **line_style(i))
    for mark in marks:
        axis.axvline(mark, color="0.45", linewidth=1, linestyle=":")
        axis.text(mark, 0.03, f" {mark:.3g}", fontsize=10, transform=axis.get_xaxis_transform())
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(list(at), [f"{x:g}" for x in at], fontsize=8, rotation=45)
    axis.minorticks_off()
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, frameon=False)
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
