"""Which clips a generated set holds: splits, classes, pairs, looks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from course_lib.synthetic.appearance import KINDS
from course_lib.synthetic.render import CLASSES, GAP

AGREE = 0.5  # X's p, where none is given


class Item(NamedTuple):
    """One file that is to be. `look` is None where the set leaves it to the clip's own seed."""

    path: str
    label: int
    name: str
    split: str
    pair: str
    look: int | None
    seed: tuple[int, ...]


def dial(set_name: str, p: float | None = None, gap: int | None = None) -> dict[str, float]:
    """A set's dial, by name, with its setting: X has p, G has gap, the others none. ValueError for any other."""
    if p is not None and set_name != "X":
        raise ValueError(f"p={p}: only set X has a share of agreeing looks, set {set_name} has none: leave it out")
    if set_name == "X":
        p = AGREE if p is None else p
        if not 0 <= p <= 1:
            raise ValueError(f"p={p} is no share of the clips: use 0 to 1")
        return {"p": p}
    return {"gap": GAP if gap is None else gap} if set_name == "G" else {}


def shares(set_name: str) -> dict[str, int]:
    """How the clips are split: 80:20, for X 80:10:10."""
    return {"train": 8, "test": 1, "paired": 1} if set_name == "X" else {"train": 4, "test": 1}


def plan(set_name: str, clips: int, seed: int, p: float | None = None) -> list[Item]:
    """Four fifths for training, classes equal, pairs whole; ValueError where `clips` does not divide so.

    In X the look agrees with the label in exactly round(p * n) of a class's n training clips, and of its test clips.
    A set closed under reversal cannot have p above 0.5: a clip and its reverse look the same but are of two classes,
    so that one of them disagrees. That is why X's training and test clips come without their reverses. Its third
    split, "paired", comes with them, and each look occurs there equally often in every class: it measures what is
    left when looks do not help.
    """
    classes, parts = CLASSES[set_name], shares(set_name)
    unit = sum(parts.values()) * len(classes)
    if clips < unit or clips % unit:
        fits = (max(clips, 0) // unit + 1) * unit
        split = ":".join(f"{100 * part // sum(parts.values())}" for part in parts.values())
        raise ValueError(
            f"clips={clips} cannot be split {split} with {len(classes)} equal classes: the next count "
            f"that can is {fits} (any multiple of {unit})"
        )
    items = []
    for split, part in parts.items():
        count = clips * part // unit  # of each class
        paired = set_name in ("M", "G", "D") or split == "paired"
        chosen = looks(split, count, dial(set_name, p)["p"], seed) if set_name == "X" else None
        for i in range(count * len(classes)):
            label = i % len(classes)
            number = i // 2 if paired else i  # partners share a number, hence a seed
            pair = f"{split}-{number:05d}" if paired else ""
            look = None if chosen is None else int(chosen[i // len(classes), label])
            path = f"{split}/{classes[label].replace(' ', '_')}/{number:05d}.mp4"
            items.append(Item(path, label, classes[label], split, pair, look, (seed, number)))
    return items


def looks(split: str, count: int, p: float, seed: int) -> Int[np.ndarray, "count classes"]:
    """For each class of X, which look each of its clips in a split has."""
    classes = len(KINDS)
    rng = np.random.default_rng([seed, *split.encode()])
    if split == "paired":
        return np.repeat(rng.permutation(count)[:, None] % classes, classes, axis=1)
    agrees = rng.permuted(np.tile(np.arange(count)[:, None] < round(p * count), classes), axis=0)
    own = np.arange(classes)
    return np.where(agrees, own, (own + rng.integers(1, classes, agrees.shape)) % classes)
