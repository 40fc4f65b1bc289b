"""Which tokens does a computation really connect? Asked of the gradients, not of the author."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor


def reach(compute: Callable[[Tensor], Tensor], grid: tuple[int, ...], dim: int = 8) -> Bool[Tensor, "n n"]:
    """reach[i, j]: does output token i change when input token j changes?

    `compute` maps tokens (1, *grid, dim), double precision, to tokens of the same shape, in evaluation mode.
    """
    n, generator = math.prod(grid), torch.Generator().manual_seed(0)
    x = torch.randn(1, *grid, dim, dtype=torch.double, generator=generator).requires_grad_()
    y = compute(x)
    if y.shape != x.shape:
        raise ValueError(f"reach needs tokens in, tokens out: {tuple(x.shape)} went in, {tuple(y.shape)} came out")
    y = (y * torch.randn(dim, dtype=torch.double, generator=generator)).sum(-1).flatten()
    rows = [torch.autograd.grad(y[i], x, retain_graph=True)[0].abs().sum(-1).flatten() > 0 for i in range(n)]
    return torch.stack(rows)


def then(first: Bool[Tensor, "n n"], second: Bool[Tensor, "n n"]) -> Bool[Tensor, "n n"]:
    """The reach of two layers in a row: the second sees what the first saw."""
    return (second.float() @ first.float()) > 0
