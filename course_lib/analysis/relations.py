"""Relations: from the tokens that ask in one layer to the tokens that answer, as a mask or as weights.

Four ways to say who is joined to whom; all give the row of one query:
    SameGroup   one number a token (most attention)
    Reads       a mask along each axis (convolutions, pooling, joins)
    Bits        one bit a pair (bands, whatever else there is)
    Weights     recorded from a network on a clip; heads apart
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from course_lib.analysis.tokens import Axes, Tokens
from course_lib.grid import Grid

EVERY, NONE = -1, -2  # in place of a group number: joined to every token that has a group, joined to nobody


@dataclass(frozen=True)
class SameGroup:
    """Joined iff the group numbers are equal, or one of them is EVERY and the other is not NONE."""

    queries: Int[np.ndarray, " n"]
    keys: Int[np.ndarray, " m"]

    def row(self, query: int) -> Bool[np.ndarray, " m"]:
        mine = self.queries[query]
        if mine == NONE:
            return np.zeros(len(self.keys), dtype=bool)
        return (self.keys == EVERY) | (self.keys != NONE if mine == EVERY else self.keys == mine)

    def reached(self, asking: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " m"]:
        open_groups = np.unique(self.queries[asking])
        if EVERY in open_groups:
            return self.keys != NONE
        open_groups = open_groups[open_groups != NONE]
        return np.isin(self.keys, open_groups) | (self.keys == EVERY) & (len(open_groups) > 0)


@dataclass(frozen=True)
class Reads:
    """Joined iff joined along every axis. Extra tokens, numbered last, keep to themselves: so many on both sides."""

    axes: Axes
    extra: int = 0

    @property
    def queries(self) -> Grid:
        return Grid(*(len(axis) for axis in self.axes))

    @property
    def keys(self) -> Grid:
        return Grid(*(axis.shape[1] for axis in self.axes))

    def row(self, query: int) -> Bool[np.ndarray, " m"]:
        found = np.zeros(self.keys.size + self.extra, dtype=bool)
        if query >= self.queries.size:
            found[query - self.queries.size + self.keys.size] = True
        else:
            place = np.unravel_index(query, self.queries)
            t, h, w = (axis[i] for axis, i in zip(self.axes, place, strict=True))
            found[: self.keys.size] = (t[:, None, None] & h[:, None] & w).ravel()
        return found

    def reached(self, asking: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " m"]:
        return self.pull(asking.astype(float)) > 0

    def pull(self, share: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
        """What arrives at the keys when every query passes its share on in equal parts."""
        size = self.queries.size
        x = share[:size].reshape(self.queries)
        for i, axis in enumerate(self.axes):
            parts = axis / np.maximum(axis.sum(1, keepdims=True), 1)
            x = np.moveaxis(np.tensordot(x, parts, (i, 0)), -1, i)
        return np.concatenate([x.ravel(), share[size:]])


@dataclass(frozen=True)
class Bits:
    """A mask as it is, eight pairs in a byte."""

    packed: UInt8[np.ndarray, "n bytes"]
    keys: int

    @classmethod
    def of(cls, mask: Bool[np.ndarray, "n m"]) -> Bits:
        return cls(np.packbits(mask, axis=1, bitorder="little"), mask.shape[1])

    def row(self, query: int) -> Bool[np.ndarray, " m"]:
        return np.unpackbits(self.packed[query], count=self.keys, bitorder="little").astype(bool)

    def reached(self, asking: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " m"]:
        packed = np.bitwise_or.reduce(self.packed[asking], axis=0)
        return np.unpackbits(packed, count=self.keys, bitorder="little").astype(bool)


@dataclass(frozen=True)
class Call:
    """One batch of rows of attention: who asks, who answers (-1: padding) and what is paid."""

    queries: Int[np.ndarray, "row i"]
    keys: Int[np.ndarray, "row j"]
    weights: Float[np.ndarray, "row head i j"]


@dataclass(frozen=True)
class Weights:
    """What a layer paid on one clip. Who asks in several rows, as class tokens do, takes the mean of the answers."""

    calls: tuple[Call, ...]
    queries: int
    keys: int

    @property
    def heads(self) -> int:
        return self.calls[0].weights.shape[1]

    @cached_property
    def signed(self) -> bool:
        """Whether some weights are below zero: an affinity, not a share."""
        return any(call.weights.min() < 0 for call in self.calls)

    @cached_property
    def where(self) -> tuple[Int[np.ndarray, "asked 3"], Int[np.ndarray, " n1"]]:
        """Call, row and place of everyone who asks, sorted by token; and where each token's entries begin."""
        asked = np.concatenate([call.queries.ravel() for call in self.calls])
        places = [np.insert(each_place(call.queries), 0, number, axis=1) for number, call in enumerate(self.calls)]
        order = np.argsort(asked, kind="stable")
        return np.concatenate(places)[order], np.searchsorted(asked[order], np.arange(self.queries + 1))

    @cached_property
    def times(self) -> Int[np.ndarray, " n"]:
        """In how many rows every token asks."""
        return np.diff(self.where[1])

    def row(self, query: int) -> Float[np.ndarray, "head m"]:
        places, begin = self.where
        row = np.zeros((self.heads, self.keys + 1), dtype=np.float32)  # the last collects what padding gets
        for number, group, place in places[begin[query] : begin[query + 1]]:
            call = self.calls[number]
            row[:, call.keys[group]] += call.weights[group, :, place]
        return row[:, :-1] / max(1, self.times[query])

    def sparse(self, query: int) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, "head k"]]:
        """The keys that may be taken from, and their weights: the same as `row` without the others."""
        places, begin = self.where
        if begin[query + 1] - begin[query] != 1:
            row = self.row(query)
            keys = np.flatnonzero((row != 0).any(axis=0))
            return keys, row[:, keys]
        number, group, place = places[begin[query]]
        call = self.calls[number]
        there = call.keys[group] >= 0
        return call.keys[group][there], call.weights[group, :, place][:, there]

    def push(self, value: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
        """weights @ value, heads averaged."""
        found, value = np.zeros(self.queries), np.append(value, 0)  # the last is padding's
        for call in self.calls:
            np.add.at(found, call.queries, np.einsum("rij,rj->ri", call.weights.mean(1), value[call.keys]))
        return found / np.maximum(self.times, 1)

    def pull(self, share: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
        """share @ weights, heads averaged."""
        found = np.zeros(self.keys + 1)
        share = share / np.maximum(self.times, 1)
        for call in self.calls:
            np.add.at(found, call.keys, np.einsum("ri,rij->rj", share[call.queries], call.weights.mean(1)))
        return found[:-1]


def each_place(queries: Int[np.ndarray, "row i"]) -> Int[np.ndarray, "asked 2"]:
    return np.indices(queries.shape).reshape(2, -1).T


@dataclass(frozen=True)
class Relation:
    """One layer: what `queries` take from `keys`, part by part ("time", "space", "first half of the heads").

    kind: "attention", "convolution", or "pooling" for what only thins tokens out.
    inputs: the tokens that enter the layer, where keys are pooled from them; `of_keys` and `of_queries` tell how.
    straight_on: whether its output goes into the next layer with nothing added in between.
    block: the block that it belongs to ("block 1"); layers of one block follow each other.
    """

    name: str
    block: str
    kind: str
    queries: Tokens
    keys: Tokens
    parts: Mapping[str, Any] = field(default_factory=dict)
    inputs: Tokens | None = None
    of_keys: Reads | None = None
    of_queries: Reads | None = None
    straight_on: bool = False

    def mask_row(self, query: int) -> Bool[np.ndarray, " m"]:
        """Keys that some part joins to `query`."""
        return np.any([part.row(query) for part in self.parts.values()], axis=0)

    def reached(self, asking: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " inputs"]:
        """Tokens that enter the layer and can change what one of `asking` becomes: by keys, or as what it was before.

        For masks.
        """
        found = np.any([part.reached(asking) for part in self.parts.values()], axis=0)
        if self.of_keys is not None and self.of_queries is not None:
            return self.of_queries.reached(asking) | self.of_keys.reached(found)
        return found | asking if self.kind == "attention" and self.queries.size == self.keys.size else found


def reach_of(layers: Sequence[Relation], query: int) -> Bool[np.ndarray, " m"]:
    """Tokens that enter the first of `layers` and can change `query` of the last: layers that follow each other."""
    asking = np.arange(layers[-1].queries.size) == query
    for layer in reversed(layers):
        asking = layer.reached(asking)
    return asking
