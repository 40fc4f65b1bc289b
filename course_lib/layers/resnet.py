"""ResNets over b c t h w: the bottleneck block and a stage of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.layers.conv import conv_bn

R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)  # blocks of res2 .. res5


class Bottleneck(nn.Module):
    """1x1x1 down, 3x3 in space, 1x1x1 up, added to the input (ResNet).

    A network that convolves over time does so in the first of the three; the stride in space sits in the second.
    The last norm starts at zero, and the block with it at the shortcut alone.
    """

    def __init__(self, dim: int, inner: int, out: int, time_kernel: int = 1, stride: int = 1):
        super().__init__()
        self.a = conv_bn(dim, inner, (time_kernel, 1, 1))
        self.b = conv_bn(inner, inner, (1, 3, 3), (1, stride, stride))
        self.c = conv_bn(inner, out, (1, 1, 1), relu=False)
        same = dim == out and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(dim, out, (1, 1, 1), (1, stride, stride), relu=False)
        nn.init.zeros_(self.c.get_parameter("norm.weight"))

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b out t v u"]:
        return F.relu(self.c(self.b(self.a(x))) + self.shortcut(x), inplace=True)


def stage(
    dim: int, inner: int, out: int, time_kernels: Sequence[int], stride: int, nonlocals: Mapping[int, nn.Module]
) -> nn.Sequential:
    """A stage of a ResNet: one block for each time kernel, the stride in the first; nonlocals[i] follows block i.

    ValueError if there is no block i.
    """
    for i in nonlocals:
        if not 0 <= i < len(time_kernels):
            raise ValueError(
                f"no block {i} for a non-local block to follow: this stage has blocks 0 to {len(time_kernels) - 1}"
            )
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, time_kernel in enumerate(time_kernels):
        parts[f"block{i}"] = Bottleneck(out if i else dim, inner, out, time_kernel, 1 if i else stride)
        if i in nonlocals:
            parts[f"nonlocal{i}"] = nonlocals[i]
    return nn.Sequential(parts)
