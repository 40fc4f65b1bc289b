"""Rows of weights as the page gets them: one byte a weight, scaled by head; as many parts as the layer has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int8, Integer, UInt8

from course_lib.analysis.relations import Weights


def quantise(
    weights: Float[np.ndarray, "head key"], signed: bool = False
) -> tuple[UInt8[np.ndarray, "head key"] | Int8[np.ndarray, "head key"], Float32[np.ndarray, " head"]]:
    """Levels and scales with weight = level * scale, the largest of every head at level 255, or 127 with a sign.

    The error is at most half a scale.
    """
    most, kind = (127, np.int8) if signed else (255, np.uint8)
    scale = np.abs(weights).max(axis=-1, initial=0).astype(np.float32) / np.float32(most)
    level = np.rint(weights / np.where(scale > 0, scale, 1)[:, None])
    return level.clip(-most if signed else 0, most).astype(kind), scale


@runtime_checkable
class Weighted(Protocol):
    """A part of a relation with weights; some know which keys a query may take from without going through all."""

    def row(self, query: int) -> Float[np.ndarray, "head m"]: ...


def packed(parts: Iterable[Weighted], query: int) -> bytes:
    """One query: for every part its number of keys, of heads and of runs, then the keys that get anything as runs (the
    first and how many follow each other), scales, sums, levels.

    Little-endian, each part filled up to whole words; static/relations.js takes it apart.
    """
    found = []
    for part in parts:
        if isinstance(part, Weights):
            keys, weights = part.sparse(query)
        else:
            row = part.row(query)
            keys = np.flatnonzero((row != 0).any(axis=0))
            weights = row[:, keys]
        level, scale = quantise(weights, isinstance(part, Weights) and part.signed)
        sums = weights.sum(axis=-1, dtype=np.float32)  # many weights below half a level add up to more than nothing
        runs = runs_of(keys)
        words = (
            np.array([len(keys), len(weights), len(runs)], "<i4"),
            runs.astype("<i4"),
            scale.astype("<f4"),
            sums.astype("<f4"),
        )
        data = b"".join(word.tobytes() for word in words) + level.tobytes()
        found.append(data + bytes(-len(data) % 4))
    return b"".join(found)


def runs_of(numbers: Integer[np.ndarray, " n"]) -> Integer[np.ndarray, "run 2"]:
    """Numbers in their order as runs of those that follow each other: the first, and how many."""
    if not len(numbers):
        return np.empty((0, 2), int)
    begin = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 2) != 1)
    return np.stack([numbers[begin], np.diff(begin, append=len(numbers))], axis=1)
