"""What a transformer block computes, one residual branch after another: asked of the block while it runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_lib.layers.attention import MultiHeadAttention
from course_lib.layers.blocks import Mlp

UNITS = (nn.LayerNorm, MultiHeadAttention, Mlp, nn.Linear)


def residual_branches(block: nn.Module, *inputs: Tensor) -> dict[str, list[str]]:
    """The branches of a pre-norm block in the order in which they ran on `inputs`, each with its layers.

    A branch begins at a norm and is called after its attention or MLP. ValueError for a block without norms.
    """
    order: list[nn.Module] = []
    handles = [
        unit.register_forward_pre_hook(lambda module, _: order.append(module) if module not in order else None)
        for unit in _units(block)
    ]
    try:
        with torch.inference_mode():
            block(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    branches: list[list[str]] = []
    for unit in order:
        if isinstance(unit, nn.LayerNorm):
            branches.append([])
        if not branches:
            raise ValueError(f"{type(block).__name__} does not begin with a norm: it has no pre-norm branches to tell")
        branches[-1].append(_called(unit))
    return {next((name for name in layers if name not in ("norm", "linear")), layers[0]): layers for layers in branches}


def _units(part: nn.Module) -> list[nn.Module]:
    if isinstance(part, UNITS):
        return [part]
    return [unit for child in part.children() for unit in _units(child)]


def _called(unit: nn.Module) -> str:
    scheme = getattr(unit, "scheme", None)
    if scheme is not None:
        return f"{scheme.name} attention"
    names = {nn.LayerNorm: "norm", nn.Linear: "linear", Mlp: "MLP"}
    return next((name for kind, name in names.items() if isinstance(unit, kind)), "attention")
