"""From a token back through several layers: where what it holds comes from, if attention were all that moved it.

Rollout (Abnar, Zuidema, https://arxiv.org/abs/2005.00928). Approximate: values, MLPs and norms are left out, heads are
averaged, and the skip counts as half. What is multiplied is exact: every map's rows add up to one, and pooled, merged
and dropped tokens have maps of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from course_lib.analysis.relations import Reads, Relation, SameGroup
from course_lib.analysis.weights import KEPT

ROLLOUT = "rollout (approximate)"


@dataclass(frozen=True)
class Rollout:
    """Rows of the product of all maps, one row at a time: no matrix of all pairs is ever made."""

    layers: tuple[Relation, ...]
    heads: int = 1

    def row(self, query: int) -> Float[np.ndarray, "1 m"]:
        share = np.zeros(self.layers[-1].queries.size)
        share[query] = 1
        for branch in reversed(branches(self.layers)):
            share = back(branch, share)
        return share[None].astype(np.float32)


def rollout(layers: Sequence[Relation], name: str = "whole network") -> Relation:
    """Layers that follow each other, from tokens to tokens, as one relation.

    ValueError for layers that do not follow each other, for convolutions, and for affinities, which may be negative.
    """
    layers = [layer for layer in layers if layer.name.split()[-2:] != ["patch", "embed"]]
    if not layers:
        raise ValueError("rollout needs the layers of at least one block: give a list of relations")
    for layer in layers:
        if layer.kind == "convolution" or any(getattr(part, "signed", False) for part in layer.parts.values()):
            raise ValueError(f"rollout cannot pass {layer.name!r}: it follows shares of attention, not convolutions")
    for before, after in pairwise(layers):
        if before.queries.size != (after.inputs or after.keys).size:
            raise ValueError(f"{after.name!r} does not take the tokens that {before.name!r} gives: leave out no layer")
    first, last = layers[0], layers[-1]
    return Relation(name, name, "rollout", last.queries, first.inputs or first.keys, {ROLLOUT: Rollout(tuple(layers))})


def branches(layers: Sequence[Relation]) -> list[list[Relation]]:
    """Layers between which nothing is added (VidTr's time and space) share one skip."""
    found: list[list[Relation]] = [[]]
    for layer in layers:
        found[-1].append(layer)
        if not layer.straight_on:
            found.append([])
    return [branch for branch in found if branch]


def back(branch: Sequence[Relation], share: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """Half comes over the skip, half by attention; all of it where tokens are only thinned out."""
    if branch[0].kind == "pooling":
        (part,) = branch[0].parts.values()
        return part.pull(share) if isinstance(part, Reads) else spread(part, share)
    paid = share / 2
    for layer in reversed(branch):
        heads = [part for name, part in layer.parts.items() if name != KEPT]
        paid = sum(part.pull(paid) for part in heads) / len(heads)
        paid = paid if layer.of_keys is None else layer.of_keys.pull(paid)
    return paid + over_the_skip(branch[0], share * (1 - sums(branch) / 2))


def sums(branch: Sequence[Relation]) -> Float[np.ndarray, " n"]:
    """What attention brings to every query: 1, less what padding gets, and 0 where a token sits the layer out."""
    found = np.ones(branch[0].keys.size)
    for layer in branch:
        heads = [part for name, part in layer.parts.items() if name != KEPT]
        found = sum(part.push(found) for part in heads) / len(heads)
    return found


def over_the_skip(layer: Relation, share: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    if KEPT in layer.parts:  # patches go where their frames came from; class tokens stay
        patches = layer.queries.grid.size
        found = layer.parts[KEPT].pull(np.where(np.arange(len(share)) < patches, share, 0))
        found[layer.keys.grid.size :] += share[patches:]
        return found
    return share if layer.of_queries is None else layer.of_queries.pull(share)


def spread(part: SameGroup, share: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """In equal parts to all that are joined; nothing from who is joined to nobody, such as a fresh class token."""
    rows = np.stack([part.row(query) for query in range(len(share))])
    return (share / np.maximum(rows.sum(1), 1)) @ rows


def whole_block(layers: Sequence[Relation], block: str) -> Relation:
    """The layers of one block as one relation. ValueError if there is no such block."""
    inside = [layer for layer in layers if layer.block == block]
    if not inside:
        raise ValueError(f"no block {block!r}: there are {list(dict.fromkeys(layer.block for layer in layers))}")
    return replace(rollout(inside, f"{block}, whole"), block=block)
