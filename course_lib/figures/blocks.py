"""A transformer block as its residual branches, drawn from what the block is made of; whole designs as towers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from course_lib.figures import GREEN, ORANGE, SKY, WIDEST, YELLOW

COLOURS_OF = {"Norm": "0.9", "Attention": SKY, "Linear": YELLOW, "MLP": ORANGE}  # by what a layer's name contains

TOWER_COLOURS = {"2D": SKY, "3D": ORANGE, "LSTM": GREEN}  # by what a box says


def block_diagram(branches: Mapping[str, Sequence[str]], notes: Mapping[str, str] | None = None) -> Figure:
    """From left to right: the tokens on their way through a block; each branch leaves the way and is added to it again.

    branches: what a branch is called -> its layers, in order. notes: a layer's name -> a word under it.
    """
    width, gap = 1.55, 0.35
    columns = sum(len(layers) for layers in branches.values())
    length = columns * (width + 0.2) + len(branches) * 2 * gap + 0.6
    figure = Figure(figsize=(min(0.62 * length + 0.4, WIDEST), 2.0), layout="constrained")
    axis = figure.subplots()
    axis.axis("off")
    axis.set_xlim(0, length)
    axis.set_ylim(-0.3, 2.2)
    arrow = dict(arrowstyle="-|>", color="0.25", linewidth=1.3, shrinkA=0, shrinkB=0)
    axis.annotate("", (length - 0.05, 0), (0.05, 0), arrowprops=arrow)
    x = 0.3
    for name, layers in branches.items():
        start, x = x, x + gap
        axis.plot([start, start, x], [0, 1.2, 1.2], color="0.25", linewidth=1.3)
        for layer in layers:
            colour = next((found for word, found in COLOURS_OF.items() if word.lower() in layer.lower()), GREEN)
            axis.add_patch(
                FancyBboxPatch((x, 0.75), width, 0.9, "round,pad=0,rounding_size=0.12", fc=colour, ec="0.25")
            )
            axis.text(x + width / 2, 1.2, layer.replace(" ", "\n"), ha="center", va="center", fontsize=9)
            if notes and layer in notes:
                axis.text(x + width / 2, 0.62, notes[layer], ha="center", va="top", fontsize=9, style="italic")
            axis.plot([x + width, x + width + 0.2], [1.2, 1.2], color="0.25", linewidth=1.3)
            x += width + 0.2
        x += gap - 0.2
        axis.plot([x - gap, x], [1.2, 1.2], color="0.25", linewidth=1.3)
        axis.annotate("", (x, 0.14), (x, 1.2), arrowprops=arrow)
        axis.text(x, 0, "+", ha="center", va="center", fontsize=12, bbox=dict(boxstyle="circle,pad=0.15", fc="white"))
        axis.text((start + x) / 2, 1.85, name, ha="center", va="bottom", fontsize=10.5)
        x += 0.2
    return figure


def block_words(branches: Mapping[str, Sequence[str]]) -> str:
    """The same in words."""
    told = "; ".join(f"{name}: {', '.join(layers)}" for name, layers in branches.items())
    return f"A block with {len(branches)} residual branches, each added to its input. In order: {told}."


def towers(designs: Mapping[str, Sequence[Sequence[str]]], linked: Sequence[str] = ()) -> Figure:
    """Networks side by side, each as rows of boxes: its inputs below, its answer above.

    A row as long as the one under it takes from it box by box, another row from all of it. Boxes of a name in `linked`
    also pass something on to their right.
    """
    columns = sum(max(map(len, rows)) for rows in designs.values()) + 0.6 * (len(designs) - 1)
    height = max(map(len, designs.values()))
    figure = Figure(figsize=(WIDEST, 0.62 * height + 0.4), layout="constrained")
    axis = figure.subplots()
    axis.axis("off")
    axis.set_xlim(0, columns)
    axis.set_ylim(-0.1, height + 0.35)
    arrow = dict(arrowstyle="-|>", color="0.25", linewidth=1.1, shrinkA=0, shrinkB=0)
    left = 0.0
    for name, rows in designs.items():
        width = max(map(len, rows))
        below: list[float] = []
        for level, row in enumerate(rows):
            middles = [left + width * (i + 0.5) / len(row) for i in range(len(row))]
            for i, (x, label) in enumerate(zip(middles, row, strict=True)):
                colour = next((found for word, found in TOWER_COLOURS.items() if word in label), "0.92")
                axis.add_patch(
                    FancyBboxPatch((x - 0.43, level), 0.86, 0.55, "round,pad=0,rounding_size=0.1", fc=colour, ec="0.25")
                )
                axis.text(x, level + 0.275, label.replace(" ", "\n"), ha="center", va="center", fontsize=8)
                for start in [below[i]] if len(below) == len(row) else below:
                    axis.annotate("", (x, level), (start, level - 0.45), arrowprops=arrow)
                if label in linked and i:
                    axis.annotate(
                        "", (x - 0.43, level + 0.275), (middles[i - 1] + 0.43, level + 0.275), arrowprops=arrow
                    )
            below = middles
        axis.text(left + width / 2, len(rows) - 0.3, name, ha="center", va="bottom", fontsize=9)
        left += width + 0.6
    return figure


def towers_words(designs: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """The same in words."""
    told = "; ".join(
        f"{name}: {', then '.join(' and '.join(row) for row in rows)}".replace("\n", " ")
        for name, rows in designs.items()
    )
    return f"{len(designs)} networks, each from its inputs to its answer. {told}."
