"""Masks as one number a token: two tokens attend to each other in a layer iff their group numbers are equal.

A whole mask of n tokens would be n x n; its group numbers are n, small enough to answer in the browser at any size.
Composing two layers is a product of attention masks; static/explorer.js does it by the same two functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int, Int32

from course_lib.grid import Grid

Steps = Sequence[tuple[str, Int[np.ndarray, "_"]]]  # the attention layers of one block, in the order they are applied


def attended(group: Int[np.ndarray, " n"], query: int) -> Bool[np.ndarray, " n"]:
    """The tokens that `query` may attend to in one layer."""
    return group == group[query]


def attended_twice(last: Int[np.ndarray, " n"], before: Int[np.ndarray, " n"], query: int) -> Bool[np.ndarray, " n"]:
    """The tokens that `query` can depend on through two layers in a row: `last`, and the one `before` it."""
    return np.isin(before, before[attended(last, query)])


def last_two(groups: Sequence[Int32[np.ndarray, " n"]]) -> tuple[Int32[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
    """The last layer of a block and the one before it; a block with one layer is followed by its like."""
    return groups[-1], groups[-2] if len(groups) > 1 else groups[-1]


def checked_groups(schemes: Mapping[str, Steps], grid: Grid) -> dict[str, dict[str, Int32[np.ndarray, "_"]]]:
    """Scheme -> layer -> group numbers as int32. ValueError names the scheme and layer that cannot be drawn."""
    if not schemes:
        raise ValueError("no schemes: pass at least one, such as {'joint': [('joint', np.zeros(n, int))]}")
    found: dict[str, dict[str, np.ndarray]] = {}
    for scheme, steps in schemes.items():
        if not steps:
            raise ValueError(f"scheme '{scheme}' has no attention layer: give [(name, group of every token), ...]")
        found[scheme] = {}
        for name, group in steps:
            group = np.asarray(group)
            if not name or name in found[scheme]:
                raise ValueError(
                    f"scheme '{scheme}' names a layer '{name}' {'twice' if name else '(nothing)'}: layers of one block "
                    "need names of their own"
                )
            if group.shape != (grid.size,) or not np.issubdtype(group.dtype, np.integer):
                raise ValueError(
                    f"scheme '{scheme}', layer '{name}': expected one whole group number for each of the {grid.size} "
                    f"tokens of {tuple(grid)}, have shape {group.shape} of {group.dtype}"
                )
            # Group numbers are only ever compared, so small ones serve as well as the caller's.
            found[scheme][name] = np.unique(group, return_inverse=True)[1].astype(np.int32)
    return found
