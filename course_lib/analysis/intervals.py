"""Confidence intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean and the two ends of its confidence interval."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % t interval of one value per seed; to compare two networks, give differences by seed."""
    if len(values) < 2:
        raise ValueError(f"{len(values)} value(s) have no interval: run at least 2 seeds")
    mean = fmean(values)
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def t_quantile(freedom: int, inside: float = 0.95) -> float:
    """The t such that Student's distribution of `freedom` degrees lies in -t..t with chance `inside`."""
    low, high = 0.0, math.pi / 2  # of the angle atan(t / sqrt(freedom)), which has an end where t has none
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _inside(middle, freedom) < inside else (low, middle)
    return math.tan(middle) * math.sqrt(freedom)


def _inside(angle: float, freedom: int) -> float:
    """Chance of -t..t, a finite sum for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):  # powers of the cosine: 1, 3, 5 ... or 0, 2, 4 ...
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
