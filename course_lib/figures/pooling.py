"""Pooled keys, drawn on the tokens of a frame that they are made of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib.figures import BLUE, ORANGE, WIDEST

Boxes = tuple[Bool[np.ndarray, "m h"], Bool[np.ndarray, "m w"]]  # which rows, which columns of tokens each box holds


def key_boxes(scales: Mapping[str, Boxes]) -> Figure:
    """A panel for each scale of a network: the tokens of one frame as squares, grey if no key holds them, and the box
    that each key is made of; every other one in the other colour, so that those that overlap can be told apart."""
    side = WIDEST / len(scales)
    figure = Figure(figsize=(WIDEST, side + 0.5), layout="constrained")
    panels = figure.subplots(1, len(scales), squeeze=False)[0]
    for axis, (title, (rows, columns)) in zip(panels, scales.items(), strict=True):
        (h, w), held = (rows.shape[1], columns.shape[1]), np.outer(rows.any(0), columns.any(0))
        axis.imshow(np.where(held, 1.0, 0.82), cmap="gray", vmin=0, vmax=1)
        axis.set_xticks(np.arange(-0.5, w), [])
        axis.set_yticks(np.arange(-0.5, h), [])
        axis.grid(color="0.7", linewidth=min(1, 12 / h))
        axis.tick_params(length=0)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                (top, bottom), (left, right) = (np.flatnonzero(held_by)[[0, -1]] for held_by in (row, column))
                colour = (BLUE, ORANGE)[(i + j) % 2]
                corner, width, height = (left - 0.5, top - 0.5), right - left + 1, bottom - top + 1
                axis.add_patch(Rectangle(corner, width, height, facecolor=colour, alpha=0.3))
                axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=1.2))
        axis.set_title(title, fontsize=10)
    return figure


def key_words(scales: Mapping[str, Boxes]) -> str:
    """The same for those who cannot see it: how many tokens and keys a frame has, and what share some key holds."""
    said = []
    for title, (rows, columns) in scales.items():
        share = rows.any(0).mean() * columns.any(0).mean()
        (keys_h, h), (keys_w, w) = rows.shape, columns.shape
        name = " ".join(title.split())
        said.append(f"{name}: {h} by {w} tokens, {keys_h} by {keys_w} keys, which hold {share:.0%} of the tokens")
    return f"One frame at {len(scales)} scales. " + "; ".join(said) + "."
