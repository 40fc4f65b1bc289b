"""What a fold is worth: each scheme as fold against dense attention under its mask; and short rows side by side.

`make bench` prints the ratios; nothing is asserted, since they depend on the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.grid import Grid
from course_lib.layers.attention import GridAttention, MultiHeadAttention, attend_side_by_side
from course_lib.layers.schemes import HEIGHT, SPACE, TIME, WIDTH, ShiftedWindows, local_global, windows

GRID = Grid(8, 14, 14)
SCHEMES = [SPACE, TIME, WIDTH, HEIGHT, *local_global(GRID), windows(8, 7, 7), ShiftedWindows((2, 7, 7), (1, 3, 3))]


def milliseconds(run: Callable[[], Tensor], repeats: int = 5) -> float:
    """The fastest of several passes forwards and backwards, after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run().sum().backward()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return min(times[1:])


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_fold_against_masked_attention(scheme, capsys):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net, x = GridAttention(192, 3, scheme).to(device), torch.randn(2, *GRID, 192, device=device)
    mask = scheme.mask(GRID).to(device).expand(len(x), -1, -1)
    folded = milliseconds(lambda: net(x))
    masked = milliseconds(lambda: MultiHeadAttention.forward(net, x.flatten(1, 3), mask=mask))
    share = scheme.computed(GRID) / GRID.size**2
    with capsys.disabled():
        print(
            f"\n  {scheme.name}: fold {folded:.0f} ms, mask {masked:.0f} ms, ratio {masked / folded:.1f} "
            f"({share:.1%} of all pairs computed, {device})"
        )


@pytest.mark.parametrize("frames", [4, 8, 16])
def test_short_rows_side_by_side_against_row_by_row(frames, capsys):
    """Time attention of TimeSformer-B in bfloat16 on a GPU, in float32 on a CPU (where the networks go row by row)."""
    clips, device, kind = (32, "cuda", torch.bfloat16) if torch.cuda.is_available() else (2, "cpu", torch.float32)
    qkv = torch.randn(clips * 14 * 14, frames, 3, 12, 64, device=device, dtype=kind, requires_grad=True)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    together = milliseconds(lambda: attend_side_by_side(q, k, v))
    single = milliseconds(lambda: F.scaled_dot_product_attention(q, k, v))
    with capsys.disabled():
        print(
            f"\n  rows of {frames}, {clips} clips: side by side {together:.1f} ms, row by row {single:.1f} ms, "
            f"ratio {single / together:.2f} ({device})"
        )
