"""Cost against the length or the size of a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    """Where the second line falls below the first, by straight interpolation; None if it never does."""
    for i in range(1, len(at)):
        before, after = second[i - 1] - first[i - 1], second[i] - first[i]
        if before >= 0 > after:
            return at[i - 1] + (at[i] - at[i - 1]) * before / (before - after)
    return None
