"""Which frames a C-VidTr keeps, and what tells them from the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from course_lib.figures import BLUE, COLOURS, WIDEST, line_style


def kept_rows(
    film: UInt8[np.ndarray, "T H W 3"], rows: Float[np.ndarray, "T T"], kept: Collection[int], most: float = 0.0
) -> Figure:
    """Attention along time at one place in one head: a row a frame, the frame at its left, the row's standard deviation
    at its right; rows that stay are blue. `most`: the weight that is drawn black, the largest if 0."""
    frames, deviation = len(film), rows.std(axis=1, ddof=1)
    figure = Figure(figsize=(WIDEST, 0.27 * frames + 0.7), layout="constrained")
    pictures, weights, bars = figure.subplots(1, 3, width_ratios=(1, 14, 9))
    pictures.imshow(np.concatenate(list(film)), extent=(0, 1, frames - 0.5, -0.5), aspect="auto")
    pictures.set_xticks([])
    pictures.set_yticks(range(frames), [str(frame) for frame in range(frames)], fontsize=8)
    pictures.set_ylabel("frame that asks")
    weights.imshow(rows, cmap="Greys", vmin=0, vmax=most or rows.max(), aspect="auto")
    weights.set_yticks([])
    weights.set_xticks(range(frames), [str(frame) for frame in range(frames)], fontsize=8)
    weights.set_title("what it takes from each frame", fontsize=9)
    bars.barh(range(frames), deviation, color=[BLUE if frame in kept else "0.75" for frame in range(frames)])
    bars.set_ylim(frames - 0.5, -0.5)
    bars.set_yticks([])
    bars.tick_params(labelsize=8)
    bars.set_title("deviation of the row; blue: stays", fontsize=9)
    bars.spines[["top", "right"]].set_visible(False)
    return figure


def kept_words(rows: Float[np.ndarray, "T T"], kept: Collection[int]) -> str:
    """The same picture for those who cannot see it."""
    told = ", ".join(
        f"{frame} {deviation:.4f}{' stays' if frame in kept else ''}"
        for frame, deviation in enumerate(rows.std(axis=1, ddof=1))
    )
    return f"Standard deviation of each frame's row of attention weights: {told}."


def deviations(kinds: Mapping[str, Float[np.ndarray, "_"]], bins: int = 40) -> Figure:
    """How often rows of each kind deviate how much: a histogram a kind, each of area 1, its mean as an upright line."""
    figure = Figure(figsize=(WIDEST, 2.6), layout="constrained")
    axis = figure.subplots()
    edges = np.linspace(0, max(np.quantile(values, 0.995) for values in kinds.values()), bins + 1)
    for i, (name, values) in enumerate(kinds.items()):
        axis.hist(values, edges.tolist(), density=True, alpha=0.3, color=COLOURS[i % len(COLOURS)])
        axis.hist(values, edges.tolist(), density=True, histtype="step", linewidth=1.5, **line_style(i))
        told = f"{name}, mean {np.mean(values):.3f}"
        axis.axvline(float(np.mean(values)), linewidth=1.5, label=told, **line_style(i))
    axis.set_xlabel("standard deviation of a row")
    axis.set_yticks([])
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.legend(fontsize=9, frameon=False)
    return figure


def deviations_words(kinds: Mapping[str, Float[np.ndarray, "_"]]) -> str:
    """The same picture for those who cannot see it."""
    told = "; ".join(f"{name}: mean {np.mean(values):.3f}" for name, values in kinds.items())
    return f"Standard deviations of rows of attention. {told}."
