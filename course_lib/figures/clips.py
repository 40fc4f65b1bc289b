"""Clips as rows of frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure


def strips(
    clips: Sequence[UInt8[np.ndarray, "T H W 3"]], titles: Sequence[str] = (), numbers: Sequence[object] = ()
) -> Figure:
    """One row a clip, its frames from left to right; `titles` name the rows, `numbers` the columns."""
    frames = max(len(clip) for clip in clips)
    height, width = clips[0].shape[1:3]
    side = min(1.3, 10.5 / frames)
    figure = Figure(figsize=(side * frames + 1.4, len(clips) * side * height / width + 0.3), layout="constrained")
    axes = figure.subplots(len(clips), frames, squeeze=False)
    for row, clip in enumerate(clips):
        for column, axis in enumerate(axes[row]):
            axis.set_xticks([])
            axis.set_yticks([])
            if column >= len(clip):
                axis.axis("off")
                continue
            axis.imshow(clip[column])
            if row == 0 and len(numbers) > column:
                axis.set_title(str(numbers[column]), fontsize=9)
        if len(titles) > row:
            axes[row][0].set_ylabel(titles[row], rotation=0, ha="right", va="center", fontsize=10)
    return figure
