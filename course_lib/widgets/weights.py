"""Learned attention weights as the browser gets them: one byte a weight, scaled by row."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

ROUNDING = 1e-3  # rows of half-precision weights may add up to a little more than one


@runtime_checkable
class MapLike(Protocol):
    """What one attention layer did with one clip: its softmax weights, as `analysis.maps.AttentionMap` has them.

    members: Int (group, member), the token numbers of every group
    weights: Float (group, head, query, key), rows adding up to at most one (a class token's share is left out)
    """

    @property
    def members(self) -> Any: ...
    @property
    def weights(self) -> Any: ...


class CheckedMap(NamedTuple):
    """An attention map whose shapes and numbers have been checked."""

    members: Int32[np.ndarray, "group member"]
    weights: Float[np.ndarray, "group head query key"]
    place: Int32[np.ndarray, " n"]  # where token number i stands in members.ravel()

    @property
    def heads(self) -> int:
        return self.weights.shape[1]

    def row(self, query: int) -> tuple[Int32[np.ndarray, " key"], Float[np.ndarray, "head key"]]:
        """The tokens that `query` attends to, and the weights it gives them in every head."""
        group, position = divmod(int(self.place[query]), self.members.shape[1])
        return self.members[group], self.weights[group, :, position]

    def packed(self, query: int | None = None) -> dict[str, bytes]:
        """The whole map as static/explorer.js unpacks it, or the row of one `query`: levels, their scales and sums."""
        members, weights = (self.members, self.weights) if query is None else self.row(query)
        level, scale = quantise(weights)
        sums = weights.sum(axis=-1, dtype=np.float32)  # many weights below half a level add up to more than nothing
        parts = {"members": members, "levels": level, "scales": scale, "sums": sums}
        return {name: part.tobytes() for name, part in parts.items()}


def checked_map(name: str, attention: MapLike, tokens: int) -> CheckedMap:
    """One layer's map, checked. ValueError names the layer and what does not fit."""
    members, weights = np.asarray(attention.members), np.asarray(attention.weights)
    groups, member = members.shape if members.ndim == 2 else (0, 0)
    if not np.array_equal(np.sort(members, axis=None), np.arange(tokens)) or members.ndim != 2:
        raise ValueError(
            f"map '{name}': members must be (group, member) and hold each of the {tokens} tokens once, have shape "
            f"{members.shape}; leave the class token out and number the tokens row-major in (t, h, w)"
        )
    if weights.ndim != 4 or weights.shape[::2] != (groups, member) or weights.shape[3] != member or not weights.size:
        raise ValueError(
            f"map '{name}': weights must be (group, head, member, member) = ({groups}, heads, {member}, {member}) to "
            f"go with members {members.shape}, have {weights.shape}"
        )
    least, most = weights.min(), weights.sum(-1, dtype=np.float64).max()
    if not (least >= 0 and most <= 1 + ROUNDING):  # written so that NaN is refused as well
        raise ValueError(
            f"map '{name}': weights must be at least 0 and add up to at most 1 in every row; the least is {least:.3g}, "
            f"the largest sum {most:.3g}: give softmax outputs, not logits"
        )
    return CheckedMap(members.astype(np.int32), weights, np.argsort(members, axis=None).astype(np.int32))


def quantise(
    weights: Float[np.ndarray, "*rows key"],
) -> tuple[UInt8[np.ndarray, "*rows key"], Float32[np.ndarray, "*rows"]]:
    """Levels and scales with weight = level * scale, the largest of every row at level 255.

    The error is at most half a scale: 1/510 of the row's largest weight.
    """
    scale = weights.max(axis=-1).astype(np.float32) / np.float32(255)
    level = np.rint(weights / np.where(scale > 0, scale, 1)[..., None])
    return np.minimum(level, 255).astype(np.uint8), scale
