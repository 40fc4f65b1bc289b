"""What one query takes from each of its keys, as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from course_lib.figures import BLUE, RED, WIDEST


def weight_bars(weights: Mapping[str, Sequence[float]]) -> Figure:
    """A panel a name, a bar a key, each panel to its own scale; weights below zero have another colour."""
    figure = Figure(figsize=(WIDEST, 1.9), layout="constrained")
    axes = figure.subplots(1, len(weights), squeeze=False)[0]
    for axis, (name, values) in zip(axes, weights.items(), strict=True):
        axis.bar(range(len(values)), values, color=[RED if value < 0 else BLUE for value in values])
        axis.axhline(0, color="0.3", linewidth=0.8)
        axis.set_title(name, fontsize=9)
        axis.set_xticks([])
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def weight_words(weights: Mapping[str, Sequence[float]]) -> str:
    """The same picture for those who cannot see it."""
    told = [
        f"{name} from {min(values):.2f} to {max(values):.2f}, together {sum(values):.2f}"
        for name, values in weights.items()
    ]
    return f"What one place takes from {len(next(iter(weights.values())))} places: {'; '.join(told)}."
