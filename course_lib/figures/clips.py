"""Clips as rows of frames, and which frames of a video a clip takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

from course_lib.figures import COLOURS, WIDEST, letters, line_style

GAP = 0.08  # inches between frames
MARKERS = "os^Dv"  # a clip is known by its mark as well as by its colour


def strips(
    clips: Sequence[UInt8[np.ndarray, "T H W 3"]],
    titles: Sequence[str] = (),
    numbers: Sequence[object] = (),
    side: float = 1.3,
) -> Figure:
    """One row a clip, its frames from left to right; `titles` name the rows, `numbers` the columns.

    A frame is `side` inches wide, less where they would not fit on the page.
    """
    frames = max(len(clip) for clip in clips)
    height, width = clips[0].shape[1:3]
    side = min(side, (WIDEST - 1.4) / frames)
    high = side * height / width
    lines = 1 + max((title.count("\n") for title in titles), default=0)
    size = min(12.5, 72 * high / (1.25 * lines))  # as the row has room for
    wide, top = side * frames + 1.4, 0.3 if len(numbers) else 0.0
    figure = Figure(figsize=(wide, len(clips) * high + 0.3))
    left = max((_width(line, size) for title in titles for line in title.split("\n")), default=0) + 0.1
    side = min(side, (wide - left) / frames)
    right, bottom = left + side * frames - GAP, top + len(clips) * high
    # one for all, in inches: a hundred take a second
    axis = figure.add_axes((0, 0, right / wide, bottom / figure.get_figheight()))
    axis.set_axis_off()
    for row, clip in enumerate(clips):
        middle = top + (row + 0.5) * high
        for column, frame in enumerate(clip):
            x, w = left + column * side, side - GAP
            y, h = middle - w * height / width / 2, w * height / width
            axis.imshow(frame, extent=(x, x + w, y + h, y))
            axis.add_patch(Rectangle((x, y), w, h, facecolor="none", edgecolor="black", linewidth=0.8, clip_on=False))
            if row == 0 and len(numbers) > column:
                axis.text(x + w / 2, y - 0.05, str(numbers[column]), ha="center", va="bottom", fontsize=9)
        if len(titles) > row:
            axis.text(left - 0.05, middle, titles[row], ha="right", va="center", fontsize=size)
    axis.set(xlim=(0, right), ylim=(bottom, 0), aspect="auto")
    return figure


def _width(line: str, size: float) -> float:
    """Inches that a line of letters of so many points takes."""
    return float(TextPath((0, 0), line, size=size).get_extents().width) / 72 if line.strip() else 0.0


def picks(rules: Mapping[str, Sequence[Int[np.ndarray, "_"]]], available: int) -> Figure:
    """A row a rule: which of the `available` frames of a video it takes, one line of marks for each of its clips."""
    lines = sum(len(clips) for clips in rules.values())
    height = 0.2 * lines + 0.28 * len(rules) + 0.5
    figure = Figure(figsize=(WIDEST, height), layout="constrained")
    axis = figure.subplots()
    depth, middles = 0.0, []
    for clips in rules.values():
        middles.append(depth + 0.2 * (len(clips) - 1) / 2)
        for i, frames in enumerate(clips):
            colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
            axis.plot([0, available - 1], [depth] * 2, color="0.88", linewidth=1, zorder=1)
            axis.plot(frames, [depth] * len(frames), marker, color=colour, markersize=5.5, clip_on=False, zorder=2)
            depth += 0.2
        depth += 0.28
    axis.set_yticks(middles, list(rules))
    axis.set_ylim(depth - 0.28, -0.2)
    axis.set_xlim(0, available - 1)
    axis.set_xlabel(f"frame number, 0 to {available - 1}", fontsize=letters(height, 10))
    axis.tick_params(labelsize=letters(height, 10))
    axis.tick_params(axis="y", length=0, pad=8)  # no mark at 0 lies on a name
    axis.spines[["top", "right", "left"]].set_visible(False)
    return figure


def boxes(frame: UInt8[np.ndarray, "H W 3"], crops: Mapping[str, tuple[int, int, int, int]]) -> Figure:
    """A frame and the windows cut out of it; `crops` gives each as top, left, height, width in pixels."""
    height, width = frame.shape[:2]
    figure = Figure(figsize=(5.5, 5.5 * height / width + 0.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(frame)
    axis.axis("off")
    for i, (name, (top, left, tall, wide)) in enumerate(crops.items()):
        style = line_style(i)
        corner = (left - 0.5, top - 0.5)
        axis.add_patch(Rectangle(corner, wide, tall, facecolor="none", linewidth=5, edgecolor="white", clip_on=False))
        axis.add_patch(
            Rectangle(
                corner,
                wide,
                tall,
                facecolor="none",
                linewidth=3,
                clip_on=False,
                edgecolor=style["color"],
                linestyle=style["linestyle"],
            )
        )
        axis.text(
            left + wide / 2, top - 0.03 * height, name, ha="center", va="bottom", fontsize=10, color=style["color"]
        )
    return figure


def spans(reads: Mapping[str, tuple[int, int]], available: int) -> Figure:
    """A bar a row: from its first to its last of `available` frames, both counted; the number of frames beside it."""
    figure = Figure(figsize=(WIDEST, 0.2 * len(reads) + 0.6), layout="constrained")
    axis = figure.subplots()
    for row, (first, last) in enumerate(reads.values()):
        axis.barh(row, last - first + 1, left=first - 0.5, height=0.7, color=COLOURS[0])
        axis.text(available + 0.5, row, str(last - first + 1), ha="left", va="center", fontsize=9)
    axis.set_yticks(range(len(reads)), list(reads), fontsize=9)
    axis.set_ylim(len(reads) - 0.5, -0.5)
    axis.set_xlim(-0.5, available - 0.5)
    axis.set_xlabel(f"frame number, 0 to {available - 1}; on the right how many")
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    return figure
