"""Convolutions over b c t h w: what the convolutional networks share."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Axes = int | tuple[int, int, int]  # one number for time, height and width, or one for each


def conv_bn(dim: int, out: int, kernel: Axes, stride: Axes = 1, *, relu: bool = True, eps: float = 1e-5):
    """Convolution without bias, batch norm and, unless told otherwise, a ReLU.

    Zeros pad each side by kernel // 2, so that an odd kernel with stride 1 keeps every length.
    """
    kernel = (kernel,) * 3 if isinstance(kernel, int) else kernel
    parts = OrderedDict(
        conv=nn.Conv3d(dim, out, kernel, stride, [size // 2 for size in kernel], bias=False),
        norm=nn.BatchNorm3d(out, eps=eps),
    )
    if relu:
        parts["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)


class Bottleneck(nn.Module):
    """1x1x1 down, 3x3 in space, 1x1x1 up, added to the input (ResNet).

    A network that convolves over time does so in the first of the three; the stride in space sits in the second.
    The last norm starts at zero, and the block with it at the shortcut alone.
    """

    def __init__(self, dim: int, inner: int, out: int, time_kernel: int = 1, stride: int = 1):
        super().__init__()
        self.a = conv_bn(dim, inner, (time_kernel, 1, 1))
        self.b = conv_bn(inner, inner, (1, 3, 3), (1, stride, stride))
        self.c = conv_bn(inner, out, 1, relu=False)
        same = dim == out and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(dim, out, 1, (1, stride, stride), relu=False)
        nn.init.zeros_(self.c.norm.weight)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b out t v u"]:
        return F.relu(self.c(self.b(self.a(x))) + self.shortcut(x))


def sliding_mean(x: Float[Tensor, "b c t h w"], window: tuple[int, int, int]) -> Float[Tensor, "b c p q r"]:
    """Means over every box of `window` places, one step apart: one place where the window fits exactly once.

    The released heads test on larger crops this way; it is not the mean over all places, since those in the middle
    lie in more windows. ValueError if the window does not fit.
    """
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
