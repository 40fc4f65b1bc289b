"""What a network costs: parameters and multiply-adds, counted without running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.analysis.shapes import on_meta
from course_lib.layers.attention import RecordableAttention


class Cost(NamedTuple):
    """`macs` are the multiply-adds of one forward pass, attention products included: the papers' "FLOPs"."""

    parameters: int
    macs: int

    def __str__(self) -> str:
        return f"{self.parameters / 1e6:.2f} M parameters, {self.macs / 1e9:.2f} G multiply-adds"


def cost(net: nn.Module, shape: Sequence[int]) -> Cost:
    """Count `net` on a clip of `shape` (b, 3, T, H, W), in evaluation mode, on the meta device.

    Matrix products and convolutions only, as torch's own counter has them (one multiply-add = two of its FLOPs);
    norms, softmax and additions are left out. `net` itself is not touched.
    """
    return counted(net, shape)[0]


def counted(net: nn.Module, shape: Sequence[int]) -> tuple[Cost, int]:
    """`cost`, and how many attention weights all layers have together on such a clip."""
    net, sizes = on_meta(net), [0]
    for part in net.modules():
        if isinstance(part, RecordableAttention):  # its products written out, without a fused kernel's detours
            part.recorder = lambda weights: sizes.append(weights.numel())
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(*shape, device="meta"))
    counts = counter.get_flop_counts()["Global"]
    parameters = sum(p.numel() for p in net.parameters())
    return Cost(parameters, sum(counts.values()) // 2), sum(sizes)
