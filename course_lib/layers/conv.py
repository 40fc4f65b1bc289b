"""Convolutions over b c t h w: what the convolutional networks share."""

from __future__ import annotations

from collections import OrderedDict
from functools import reduce
from operator import add

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

Axes = tuple[int, int, int]  # time, height, width


def with_norm(conv: nn.Module, out: int, *, relu: bool = True, eps: float = 1e-5) -> nn.Sequential:
    """`conv`, batch norm of its `out` channels and, unless told otherwise, a ReLU."""
    parts = OrderedDict(conv=conv, norm=nn.BatchNorm3d(out, eps=eps))
    if relu:
        parts["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)


def conv_bn(
    dim: int, out: int, kernel: Axes, stride: Axes = (1, 1, 1), *, relu: bool = True, eps: float = 1e-5
) -> nn.Sequential:
    """Convolution without bias, with norm and ReLU.

    Zeros pad each side by kernel // 2, so that an odd kernel with stride 1 keeps every length.
    """
    t, h, w = (size // 2 for size in kernel)
    conv = nn.Conv3d(dim, out, kernel, stride, (t, h, w), bias=False)
    return with_norm(conv, out, relu=relu, eps=eps)


class DepthwiseConv(nn.Conv3d):
    """A kernel of its own for every channel: nn.Conv3d with groups=dim, no bias, and zeros around by kernel // 2.

    Computed as a 2-D convolution for each of the kernel's frames, channels last in memory: libraries do those faster
    than grouped 3-D ones (tests/benchmarks/bench_conv.py). ValueError for a stride in time.
    """

    padding: Axes  # never a word, as nn.Conv3d allows

    def __init__(self, dim: int, kernel: Axes, stride: Axes):
        if stride[0] != 1:
            raise ValueError(f"a depthwise convolution goes through time frame by frame, not by {stride[0]} frames")
        t, h, w = (size // 2 for size in kernel)
        super().__init__(dim, dim, kernel, stride, (t, h, w), groups=dim, bias=False)

    def forward(self, x: Float[Tensor, "b d t h w"]) -> Float[Tensor, "b d s v u"]:
        frames = rearrange(x, "b d t h w -> (b t) h w d").movedim(-1, 1)
        around, *padding = self.padding
        longer, parts = 2 * around + 1 - self.kernel_size[0], []  # an even kernel gives one frame more
        for i, kernel in enumerate(self.weight.unbind(2)):
            later = around - i  # frame t takes part in frame t + later, if there is one
            if -x.shape[2] < later < x.shape[2] + longer:
                part = F.conv2d(frames, kernel, None, self.stride[1:], padding, groups=self.groups)
                part = rearrange(part, "(b t) d h w -> b d t h w", t=x.shape[2])
                parts.append(F.pad(part, (0, 0, 0, 0, later, longer - later)))
        return reduce(add, parts)


def sliding_mean(x: Float[Tensor, "b c t h w"], window: Axes) -> Float[Tensor, "b c p q r"]:
    """Means over every box of `window` places, one step apart: one place where the window fits exactly once.

    The released heads test on larger crops this way; it is not the mean over all places, since those in the middle
    lie in more windows. ValueError if the window does not fit.
    """
    if min(window) < 1:
        more = "more frames" if window[0] < 1 else "size=32 or more a side"
        raise ValueError(
            f"nothing is left for the head: a window of {'x'.join(map(str, window))} places (time, height, width); "
            f"build with {more}"
        )
    if any(size < length for size, length in zip(x.shape[2:], window, strict=True)):
        raise ValueError(
            f"the head averages over {'x'.join(map(str, window))} places (time, height, width) and this clip leaves "
            f"{'x'.join(map(str, x.shape[2:]))}: give a longer or larger clip, or build with smaller frames= or size="
        )
    return F.avg_pool3d(x, window, stride=1)


def conv_init(part: nn.Module) -> None:
    """The start of convolutional networks, for net.apply: He-normal by fan-out; linear weights std 0.01; biases zero.

    Norms keep torch's start, scale one and shift zero, or what their block gave them.
    """
    if isinstance(part, nn.Conv3d):
        nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(part, nn.Linear):
        nn.init.normal_(part.weight, std=0.01)
    if isinstance(part, nn.Conv3d | nn.Linear) and part.bias is not None:
        nn.init.zeros_(part.bias)
