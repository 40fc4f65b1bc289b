"""How long a computation takes here and now, and what its attention weights would fill."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from course_lib.grid import Grid
from course_lib.layers.attention import record_attention
from course_lib.layers.schemes import Scheme


def fastest(run: Callable[[], object], repeats: int = 3, device: str = "cpu") -> float:
    """Seconds of the fastest of `repeats` runs, after one that warms up; on a GPU until its work is done."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def block_seconds(
    block: nn.Module, grid: Grid, dim: int, written_out: bool, repeats: int = 3, device: str = "cpu"
) -> float:
    """One pass of a block over one clip's tokens and class token.

    `written_out`: by the way that holds the n x n attention weights in memory, as released code does; else by the
    fused kernel.
    """
    block = block.eval().to(device)
    tokens, cls = torch.randn(1, *grid, dim, device=device), torch.zeros(1, 1, dim, device=device)
    with torch.inference_mode():
        if not written_out:
            return fastest(lambda: block(tokens, cls), repeats, device)
        with record_attention(block) as kept:

            def run() -> None:
                block(tokens, cls)
                for calls in kept.values():
                    calls.clear()

            return fastest(run, repeats, device)


def weight_megabytes(schemes: Sequence[Scheme], grid: Grid, heads: int = 12, bytes_each: int = 4) -> float:
    """What the attention weights of one block fill, if they are kept: 4 bytes for every pair in every head."""
    return sum(scheme.computed(grid) for scheme in schemes) * heads * bytes_each / 1e6
