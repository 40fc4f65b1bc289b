"""Training mode and evaluation mode, module by module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

Modes = list[tuple[nn.Module, bool]]


def modes(net: nn.Module) -> Modes:
    """Every module of `net` and whether it is in training mode."""
    return [(module, module.training) for module in net.modules()]


def restore(kept: Modes) -> None:
    """Put every module back, one by one: a part may be frozen in evaluation mode inside a network that trains."""
    for module, training in kept:
        module.training = training


@contextmanager
def evaluating(net: nn.Module) -> Iterator[nn.Module]:
    """`net` in evaluation mode; after it, every module in the mode that it was in before."""
    kept = modes(net)
    try:
        yield net.eval()
    finally:
        restore(kept)
