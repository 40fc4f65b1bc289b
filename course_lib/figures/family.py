"""Who took which idea from whom: works by year, joined by what went from one to the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from course_lib.figures import BLACK, COLOURS, LINES, SKY, WIDEST, letters


def family_tree(works: Mapping[str, tuple[float, float]], loans: Iterable[tuple[str, str, str]]) -> Figure:
    """works: name -> (year, row). loans: (from, to, idea); each idea has its colour and stroke.

    ValueError for a loan of a work that is not named, for one that goes back in time, and for more than seven ideas.
    """
    loans = list(loans)
    for giver, taker, idea in loans:
        if unknown := {giver, taker} - set(works):
            raise ValueError(f"{idea} from {giver} to {taker}: no work is called {' or '.join(sorted(unknown))}")
        if works[giver][0] > works[taker][0]:
            raise ValueError(f"{idea} cannot go from {giver} ({works[giver][0]:g}) back to {taker}")
    ideas = list(dict.fromkeys(idea for _, _, idea in loans))
    if len(ideas) > 7:
        raise ValueError(f"{len(ideas)} ideas cannot be told apart by colour and stroke: name seven at most")
    height = 0.45 * (1 + max(row for _, row in works.values())) + 0.8
    figure = Figure(figsize=(WIDEST, height), layout="constrained")
    axis = figure.subplots()
    styles: dict[str, Any] = dict(
        zip(ideas, zip((*COLOURS, SKY, BLACK), (*LINES, (0, (9, 2)), (0, (1, 3))), strict=True), strict=False)
    )
    box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "0.4", "linewidth": 0.8}
    middle: Any = {"ha": "center", "va": "center", "fontsize": letters(height)}
    boxes = {
        name: axis.text(year, row, name, **middle, color="white", bbox=box, zorder=3)
        for name, (year, row) in works.items()
    }
    between: dict[tuple[str, str], int] = {}
    for giver, taker, idea in loans:
        again = between[giver, taker] = between.get((giver, taker), -1) + 1  # a second loan bends more
        colour, stroke = styles[idea]
        ends = {"patchA": boxes[giver].get_bbox_patch(), "patchB": boxes[taker].get_bbox_patch()}
        bend = f"arc3,rad={0.1 + 0.25 * again}"
        how: Any = {"arrowstyle": "-|>", "connectionstyle": bend, "shrinkA": 2, "shrinkB": 2, "linewidth": 1.3}
        axis.annotate("", works[taker], works[giver], arrowprops=how | ends | {"color": colour, "linestyle": stroke})
    halo = [withStroke(linewidth=3, foreground="white")]
    for name, (year, row) in works.items():  # above the arrows that pass
        axis.text(year, row, name, **middle, zorder=5, path_effects=halo)
    years = sorted({int(year) for year, _ in works.values()})
    axis.set_xlim(min(years) - 0.6, max(year for year, _ in works.values()) + 0.7)
    axis.set_ylim(max(row for _, row in works.values()) + 0.6, -0.6)
    axis.set_xticks(years)
    axis.set_yticks([])
    axis.spines[["left", "top", "right"]].set_visible(False)
    figure.legend(
        [Line2D([], [], color=colour, linestyle=stroke) for colour, stroke in styles.values()],
        ideas,
        loc="outside upper center",
        ncols=len(ideas),
        fontsize=letters(height),
        frameon=False,
    )
    return figure
