"""A transformer block as its residual branches, drawn from what the block is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from course_lib.figures import GREEN, ORANGE, SKY, WIDEST, YELLOW

COLOURS_OF = {"Norm": "0.9", "Attention": SKY, "Linear": YELLOW, "MLP": ORANGE}  # by what a layer's name contains


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
