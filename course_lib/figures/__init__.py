"""Arrays in, matplotlib figures out; never networks.

In a notebook `show` displays a figure with a text for those who cannot see it, `table` displays rows and `source` code.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every kind of colour vision
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
LINES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)))  # a curve is known by its stroke as well as by its colour
COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE)


def line_style(i: int) -> dict[str, Any]:
    """Colour and stroke of the i-th curve of a figure."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}


def show(figure: Figure, alt: str) -> None:
    """Display `figure` under this cell; `alt` says in words what it shows."""
    from IPython.display import Image, display

    display(Image(png(figure), format="png", alt=alt))


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> None:
    """Display rows as a Markdown table."""
    from IPython.display import Markdown, display

    lines = [header, ["---"] * len(header), *rows]
    display(Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)))


def source(*things: type | Callable) -> None:
    """Display how the library writes these functions and classes."""
    from IPython.display import Markdown, display

    display(Markdown("\n".join(f"```python\n{inspect.getsource(thing)}```" for thing in things)))


def png(figure: Figure, dpi: int = 90) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
    return file.getvalue()
