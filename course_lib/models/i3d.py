"""Quo Vadis, Action Recognition? I3D: an image network (Inception-v1) whose kernels grow a time axis.

Carreira, Zisserman, CVPR 2017, https://arxiv.org/abs/1705.07750. Notebook 01.
Symbols: N frames over which a 2-D kernel is repeated, and by which it is divided, when it is inflated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.layers.conv import Axes, sliding_mean
from course_lib.layers.inflate import ImageStart
from course_lib.layers.settings import NetworkConfig, one_of


class Conv(NamedTuple):
    kernel: Axes  # time, height, width
    stride: Axes
    out: int  # channels


class Pool(NamedTuple):
    """Max-pool."""

    kernel: Axes
    stride: Axes


class Mix(NamedTuple):
    """An Inception module: four branches side by side, by their channels. Everything has stride 1."""

    single: int  # 1x1x1
    middle: tuple[int, int]  # 1x1x1, 3x3x3
    small: tuple[int, int]  # 1x1x1, 3x3x3: 5x5 in the image network of the Inception paper, not here
    pooled: int  # max-pool 3x3x3, 1x1x1

    @property
    def out(self) -> int:
        return self.single + self.middle[1] + self.small[1] + self.pooled

    def scaled(self, width: float) -> Mix:
        single, pooled = int(self.single * width), int(self.pooled * width)
        middle, small = ((int(a * width), int(b * width)) for a, b in (self.middle, self.small))
        return Mix(single, middle, small, pooled)


LAYERS: dict[str, Conv | Pool | Mix] = {  # figure 3
    "conv_1a": Conv((7, 7, 7), (2, 2, 2), 64),  # halves time too
    "pool_2a": Pool((1, 3, 3), (1, 2, 2)),  # the first two pools keep time
    "conv_2b": Conv((1, 1, 1), (1, 1, 1), 64),
    "conv_2c": Conv((3, 3, 3), (1, 1, 1), 192),
    "pool_3a": Pool((1, 3, 3), (1, 2, 2)),
    "mixed_3b": Mix(64, (96, 128), (16, 32), 32),
    "mixed_3c": Mix(128, (128, 192), (32, 96), 64),
    "pool_4a": Pool((3, 3, 3), (2, 2, 2)),
    "mixed_4b": Mix(192, (96, 208), (16, 48), 64),
    "mixed_4c": Mix(160, (112, 224), (24, 64), 64),
    "mixed_4d": Mix(128, (128, 256), (24, 64), 64),
    "mixed_4e": Mix(112, (144, 288), (32, 64), 64),
    "mixed_4f": Mix(256, (160, 320), (32, 128), 128),
    "pool_5a": Pool((2, 2, 2), (2, 2, 2)),
    "mixed_5b": Mix(256, (160, 320), (32, 128), 128),
    "mixed_5c": Mix(384, (192, 384), (48, 128), 128),
}


@dataclass(frozen=True)
class I3DConfig(NetworkConfig):
    frames: int = 64
    size: int | tuple[int, int] = 224
    colours: int = 3  # 2 for optical flow
    image: bool = False  # no kernel and no stride in time: the image network that I3D is inflated from
    edges: str = "zeros"  # what lies before and after the clip; "repeat" its end frames and a still video stays still
    width: float = 1.0  # of the channels in LAYERS
    dropout: float = 0.5
    classes: int = 400

    def validate(self) -> None:
        one_of("edges", self.edges, ("zeros", "repeat"))

    @property
    def window(self) -> Axes:
        """What the head averages over, 2x7x7 in the paper; clips that leave more have several such windows."""
        return 1 if self.image or self.frames <= 8 else 2, -(-self.clip.h // 32), -(-self.clip.w // 32)


VARIANTS = {
    "i3d_inception": I3DConfig(),
    "i3d_inception_flow": I3DConfig(colours=2),
    "i3d_tiny": I3DConfig(frames=8, size=64, width=0.25, dropout=0.0, classes=8),  # ours: learns on a laptop
}


def same_padding(lengths: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """Before and after, axis by axis: TensorFlow's SAME. It depends on the length, and the odd one comes after."""
    total = [max(k - (n % s or s), 0) for n, k, s in zip(lengths, kernel, stride, strict=True)]
    return [(pad // 2, pad - pad // 2) for pad in total]


def pad(x: Float[Tensor, "b c t h w"], kernel: Axes, stride: Axes, edges: str) -> Float[Tensor, "b c u v w2"]:
    (t0, t1), (h0, h1), (w0, w1) = same_padding(x.shape[2:], kernel, stride)
    if edges == "repeat" and t0 + t1:
        x, t0, t1 = F.pad(x, (0, 0, 0, 0, t0, t1), mode="replicate"), 0, 0
    return F.pad(x, (w0, w1, h0, h1, t0, t1)) if t0 + t1 + h0 + h1 + w0 + w1 else x


class Unit(nn.Module):
    """SAME convolution without bias, batch norm, ReLU."""

    def __init__(self, dim: int, out: int, kernel: Axes, stride: Axes = (1, 1, 1), edges: str = "zeros"):
        super().__init__()
        self.kernel, self.stride, self.edges = kernel, stride, edges
        self.conv = nn.Conv3d(dim, out, kernel, stride, bias=False)
        self.norm = nn.BatchNorm3d(out, eps=1e-3)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b out u v w2"]:
        return F.relu(self.norm(self.conv(pad(x, self.kernel, self.stride, self.edges))), inplace=True)


class MaxPool(nn.Module):
    """SAME max-pool. The zeros around the clip never win, since what is pooled went through a ReLU."""

    def __init__(self, kernel: Axes, stride: Axes):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c u v w2"]:
        return F.max_pool3d(pad(x, self.kernel, self.stride, "zeros"), self.kernel, self.stride)


class Mixed(nn.Module):
    """An Inception module: the branches of a `Mix`, their channels side by side."""

    def __init__(self, dim: int, mix: Mix, image: bool, edges: str):
        super().__init__()
        one, three = (1, 1, 1), (1 if image else 3, 3, 3)
        unit = partial(Unit, edges=edges)
        self.single = unit(dim, mix.single, one)
        self.middle = nn.Sequential(unit(dim, mix.middle[0], one), unit(*mix.middle, three))
        self.small = nn.Sequential(unit(dim, mix.small[0], one), unit(*mix.small, three))
        self.pooled = nn.Sequential(MaxPool(three, one), unit(dim, mix.pooled, one))

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b out t h w"]:
        return torch.cat([self.single(x), self.middle(x), self.small(x), self.pooled(x)], dim=1)


class I3D(nn.Module):
    """Clip in, logits out; RGB or, with colours=2, optical flow."""

    def __init__(self, config: I3DConfig):
        super().__init__()
        self.config = c = config
        self.layers = nn.Sequential()
        dim = c.colours
        for name, layer in LAYERS.items():
            if c.image and not isinstance(layer, Mix):
                layer = layer._replace(kernel=(1, *layer.kernel[1:]), stride=(1, *layer.stride[1:]))
            if isinstance(layer, Conv):
                out = int(layer.out * c.width)
                part: nn.Module = Unit(dim, out, layer.kernel, layer.stride, c.edges)
            elif isinstance(layer, Pool):
                out, part = dim, MaxPool(layer.kernel, layer.stride)
            else:
                layer = layer.scaled(c.width)
                out, part = layer.out, Mixed(dim, layer, c.image, c.edges)
            self.layers.add_module(name, part)
            dim = out
        self.dropout, self.head = nn.Dropout(c.dropout), nn.Conv3d(dim, c.classes, 1)

    def forward(self, clip: Float[Tensor, "b colours T H W"]) -> Float[Tensor, "b classes"]:
        x = sliding_mean(self.layers(clip), self.config.window)
        return reduce(self.head(self.dropout(x)), "b classes t h w -> b classes", "mean")

    def image_start(self) -> ImageStart:
        """The same without kernels and strides in time: Inception-v1 with batch norm (section 2)."""
        return ImageStart(I3D(replace(self.config, image=True)))


class TwoStream(nn.Module):
    """RGB and flow, trained apart, fused at the end: the sum of logits, as released; the paper averages predictions."""

    def __init__(self, rgb: I3D, flow: I3D):
        super().__init__()
        self.rgb, self.flow = rgb, flow

    def forward(self, clip: Float[Tensor, "b 3 T H W"], flow: Float[Tensor, "b 2 T H W"]) -> Float[Tensor, "b classes"]:
        return self.rgb(clip) + self.flow(flow)
