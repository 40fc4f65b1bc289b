"""Where a network convolves over time, group by group, and what that lets it see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from course_lib.figures import GREEN, ORANGE, PURPLE, RED, SKY, WIDEST, letters

KINDS = {  # how a group of layers convolves: its colour, and in words
    "2d": (SKY, "every frame alone"),
    "3d": (RED, "space and time at once"),
    "2+1d": (GREEN, "space, then time"),
    "1+2d": (PURPLE, "time, then space"),
    "all": (ORANGE, "all frames as colours of one image"),
}
HATCHES = {"2d": "", "3d": "///", "2+1d": "xxx", "1+2d": "...", "all": "|||"}  # where colours are not seen


def placements(networks: Mapping[str, Sequence[str]]) -> Figure:
    """A column a network, a box a group, the first group at the bottom: its colour says how the group convolves."""
    groups = max(map(len, networks.values()))
    figure = Figure(figsize=(WIDEST, 0.36 * groups + 0.9), layout="constrained")
    axis = figure.subplots()
    picture = np.ones((groups, len(networks), 3))
    for column, kinds in enumerate(networks.values()):
        for row, kind in enumerate(kinds):
            picture[row, column] = to_rgb(KINDS[kind][0])
            axis.text(column, row, kind, ha="center", va="center", fontsize=9)
    axis.imshow(picture, origin="lower", aspect="auto")
    axis.set_xticks(range(len(networks)), [_broken(name) for name in networks], fontsize=9)
    axis.set_yticks(range(groups), _called(groups), fontsize=9)
    axis.set_xticks(np.arange(-0.5, len(networks)), minor=True)
    axis.set_yticks(np.arange(-0.5, groups), minor=True)
    axis.grid(which="minor", color="white", linewidth=3)
    _plain(axis)
    _legend(figure, networks)
    return figure


def placements_words(networks: Mapping[str, Sequence[str]]) -> str:
    """The same picture for those who cannot see it."""
    each = [f"{name} {' '.join(kinds)}" for name, kinds in networks.items()]
    return f"How each group convolves, from the first to the last: {'; '.join(each)}."


def reach_in_time(
    seen: Mapping[str, Sequence[Bool[np.ndarray, " T"]]], networks: Mapping[str, Sequence[str]], columns: int = 4
) -> Figure:
    """A panel a network, a row a group, the first at the bottom: the frames that one unit of the group sees.

    `seen`: for every network, and every group in order, whether the unit sees each of the clip's frames. Colours are
    those of `placements`.
    """
    rows = -(-len(seen) // columns)
    size = letters(1.05 * rows + 0.5)
    figure = Figure(figsize=(WIDEST, 1.05 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(seen) :]:
        panel.axis("off")
    for number, (panel, (name, groups)) in enumerate(zip(panels, seen.items(), strict=False)):
        picture = np.full((len(groups), len(groups[0]), 3), 0.92)
        for row, (frames, kind) in enumerate(zip(groups, networks[name], strict=True)):
            picture[row, frames] = to_rgb(KINDS[kind][0])
        panel.imshow(picture, origin="lower", aspect="auto", interpolation="nearest")
        for row, (frames, kind) in enumerate(zip(groups, networks[name], strict=True)):
            runs = [(frame - 0.5, 1) for frame in np.flatnonzero(frames)]
            panel.broken_barh(
                runs, (row - 0.5, 1), facecolor="none", edgecolor="white", linewidth=0, hatch=HATCHES[kind]
            )
        panel.set_title(name, fontsize=size, pad=3)
        panel.set_yticks(range(len(groups)), _called(len(groups)) if number % columns == 0 else [], fontsize=size)
        panel.set_yticks(np.arange(0.5, len(groups) - 1), minor=True)
        last = len(groups[0]) - 1
        panel.set_xticks([0, last], [0, last] if number >= len(seen) - columns else [], fontsize=size)
        panel.grid(which="minor", color="white", linewidth=2)
        _plain(panel)
    figure.supxlabel("frame of the clip", fontsize=size)
    _legend(figure, {name: networks[name] for name in seen}, hatched=True)
    return figure


def reach_words(seen: Mapping[str, Sequence[Bool[np.ndarray, " T"]]]) -> str:
    """The same picture in words: how many frames a unit of each group sees."""
    each = [f"{name} {', '.join(str(int(frames.sum())) for frames in groups)}" for name, groups in seen.items()]
    frames = len(next(iter(seen.values()))[0])
    return (
        f"Of {frames} frames, so many are seen by a unit of each group, from the first to the last: {'; '.join(each)}."
    )


def _called(groups: int) -> list[str]:
    return [f"conv{i + 1}" for i in range(groups)]


def _broken(name: str) -> str:
    return name.replace("r2plus1d", "r2plus\n1d")


def _plain(axis) -> None:
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_visible(False)


def _legend(figure: Figure, networks: Mapping[str, Sequence[str]], hatched: bool = False) -> None:
    used = [kind for kind in KINDS if any(kind in kinds for kinds in networks.values())]
    handles = [
        Patch(facecolor=KINDS[kind][0], edgecolor="white", linewidth=0, hatch=HATCHES[kind] if hatched else "",
              label=f"{kind}: {KINDS[kind][1]}") for kind in used
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=9, frameon=False)
