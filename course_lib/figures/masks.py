"""Who may attend to whom, drawn on the frames of a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from jaxtyping import Bool, Int
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from course_lib.figures import BLUE, GREEN, ORANGE, PURPLE, RED, SKY, WIDEST, YELLOW
from course_lib.grid import Grid

LAYER_COLOURS = (RED, SKY, GREEN, PURPLE, ORANGE, YELLOW)  # by name, in the order met, as in the explorer
HIGH = 0.8  # inches of a frame; with more, a figure of four is too high for its letters on a slide
WINDOW_COLOURS = (RED, SKY, GREEN, PURPLE, BLUE, YELLOW, ORANGE, "#999999", "#FFFFFF")


def schemes_picture(
    schemes: Mapping[str, Sequence[tuple[str, Bool[np.ndarray, "n n"]]]], grid: Grid, query: tuple[int, int, int]
) -> Figure:
    """The paper's figure 2 from masks: a column a scheme, a row a frame, what patch `query` = (t, h, w) attends to.

    `schemes`: for every scheme, the name and mask of each attention layer of one block, in order.
    """
    t, h, w = query
    names = list(dict.fromkeys(name for steps in schemes.values() for name, _ in steps))
    colours = {name: LAYER_COLOURS[i % len(LAYER_COLOURS)] for i, name in enumerate(names)}
    token = (t * grid.h + h) * grid.w + w
    side = min(2.1, WIDEST / len(schemes))
    label = {name: fill(name, round(side / 0.08) - 6) for name in names}  # a letter is 0.08 inches wide
    lines = max(sum(label[name].count("\n") + 1 for name, _ in steps) for steps in schemes.values())
    height = min(side - 0.35, HIGH) * grid.t + 0.5 + 0.2 * lines
    figure = Figure(figsize=(side * len(schemes), height), layout="constrained")
    axes = figure.subplots(grid.t, len(schemes), squeeze=False)
    for column, (name, steps) in enumerate(schemes.items()):
        picture = np.full((*grid, 3), 0.93)
        for step, mask in steps:
            picture[mask[token].reshape(grid)] = to_rgb(colours[step])
        for frame in range(grid.t):
            axis = axes[frame][column]
            axis.imshow(picture[frame])
            axis.set_xticks(np.arange(-0.5, grid.w), [])
            axis.set_yticks(np.arange(-0.5, grid.h), [])
            axis.grid(color="white", linewidth=1)
            axis.tick_params(length=0)
            if frame == t:
                axis.add_patch(Rectangle((w - 0.5, h - 0.5), 1, 1, facecolor=BLUE, edgecolor="black", linewidth=1.5))
            if column == 0:
                axis.set_ylabel(f"frame {frame}", fontsize=10)
        axes[0][column].set_title(name, fontsize=11)
        handles = [Patch(color=colours[step], label=label[step]) for step, _ in steps]
        axes[-1][column].legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.03), fontsize=10, frameon=False, ncols=1
        )
    return figure


def schemes_words(
    schemes: Mapping[str, Sequence[tuple[str, Bool[np.ndarray, "n n"]]]], grid: Grid, query: tuple[int, int, int]
) -> str:
    """The same picture for those who cannot see it: how many patches each layer joins to the query, frame by frame."""
    t, h, w = query
    token = (t * grid.h + h) * grid.w + w
    sentences = []
    for name, steps in schemes.items():
        layers = []
        for step, mask in steps:
            frames = mask[token].reshape(grid.t, -1).sum(axis=1)
            layers.append(f"{step} {'+'.join(map(str, frames.tolist()))}")
        sentences.append(f"{name}: {', '.join(layers)}")
    return (
        f"{grid.t} frames of {grid.h} by {grid.w} patches, a column for each scheme. The query is at frame {t}, "
        f"row {h}, column {w}. Patches that it attends to, frame by frame, in each layer: {'; '.join(sentences)}."
    )


def rolled_windows(
    numbers: Int[np.ndarray, "h w"], window: tuple[int, int], shift: tuple[int, int], names: str = "abcdefghijklmnop"
) -> Figure:
    """The cyclic trick in two dimensions (Video Swin, figure 3): the windows that tokens belong to, before and after
    the grid is rolled by `shift`. Thick lines cut it into ordinary windows. At most 16 shifted windows."""
    _, letter = np.unique(numbers, return_inverse=True)
    letter = letter.reshape(numbers.shape)
    figure = Figure(figsize=(WIDEST, WIDEST / 2), layout="constrained")
    rolled = np.roll(letter, [-step for step in shift], (0, 1))
    titles = ("shifted windows", f"rolled by {shift[0]} rows and {shift[1]} columns")
    for axis, picture, title in zip(figure.subplots(1, 2), (letter, rolled), titles, strict=True):
        colours = [to_rgb(WINDOW_COLOURS[i % len(WINDOW_COLOURS)]) for i in picture.ravel()]
        axis.imshow(np.reshape(colours, (*picture.shape, 3)) * 0.55 + 0.45)
        for (row, column), i in np.ndenumerate(picture):
            axis.text(column, row, names[i], ha="center", va="center", fontsize=11)
        for draw, length, size in (
            (axis.axhline, len(picture), window[0]),
            (axis.axvline, numbers.shape[1], window[1]),
        ):
            for place in range(0, length + 1, size):
                draw(place - 0.5, color="black", linewidth=2.5)
        axis.set_xticks(np.arange(-0.5, numbers.shape[1]), [])
        axis.set_yticks(np.arange(-0.5, len(picture)), [])
        axis.grid(color="white", linewidth=1)
        axis.tick_params(length=0)
        axis.set_title(title, fontsize=11)
    return figure
