"""Non-local Neural Networks: a block that lets every place of a clip look at every other, in C2D and I3D ResNets.

Wang, Girshick, Gupta, He, CVPR 2018, https://arxiv.org/abs/1711.07971. Notebook 02.
Symbols: x input, i query and j key places, f affinity, C its normaliser, g values, y_i = sum_j f(x_i, x_j) g(x_j) / C,
z output.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.layers.conv import Axes, conv_bn, conv_init, sliding_mean
from course_lib.layers.inflate import ImageStart
from course_lib.layers.nonlocal_block import (
    AFFINITIES,
    FIVE_BLOCKS,
    FIVE_BLOCKS_R101,
    NO_BLOCKS,
    SCOPES,
    NonLocal,
)
from course_lib.layers.resnet import R50, R101, stage
from course_lib.layers.settings import NetworkConfig, one_of


class Stage(NamedTuple):
    """One row of table 1. Time kernels run over the blocks of a stage and start again when used up."""

    c2d: tuple[int, ...]
    i3d: tuple[int, ...]
    stride: int  # in space, in the first block; time keeps its stride of 1 everywhere


STAGES = {
    "stem": Stage(c2d=(1,), i3d=(5,), stride=2),  # 7x7; a 1x3x3 max-pool halves space once more
    "res2": Stage(c2d=(1,), i3d=(3,), stride=1),  # a 2x1x1 max-pool halves time, here only
    "res3": Stage(c2d=(1,), i3d=(3, 1), stride=2),
    "res4": Stage(c2d=(1,), i3d=(3, 1), stride=2),
    "res5": Stage(c2d=(1,), i3d=(1, 3), stride=2),
}


@dataclass(frozen=True)
class NonLocalConfig(NetworkConfig):
    network: str = "c2d"  # a column of STAGES
    frames: int = 8
    size: int | tuple[int, int] = 224
    depths: tuple[int, ...] = R50
    width: int = 64
    nonlocal_after: tuple[tuple[int, ...], ...] = NO_BLOCKS
    affinity: str = "softmax"
    scope: str = "joint"
    pool_keys: bool = True
    dropout: float = 0.5
    classes: int = 400

    def validate(self) -> None:
        one_of("network", self.network, ("c2d", "i3d"))
        one_of("affinity", self.affinity, AFFINITIES)
        one_of("scope", self.scope, SCOPES)
        if self.frames % 2:
            raise ValueError(f"frames={self.frames} is odd: the pool after res2 takes frames in pairs")

    @property
    def window(self) -> Axes:
        """What the head averages over; clips longer or larger than built for have several such windows."""
        return self.frames // 2, self.clip.h // 32, self.clip.w // 32


VARIANTS = {
    "c2d_r50_8x8": NonLocalConfig(),
    "c2d_r101": NonLocalConfig(depths=R101),
    "c2d_nl_r50_8x8": NonLocalConfig(nonlocal_after=FIVE_BLOCKS),
    "c2d_nl_r101": NonLocalConfig(depths=R101, nonlocal_after=FIVE_BLOCKS_R101),
    "i3d_r50_8x8": NonLocalConfig("i3d"),
    "i3d_r101": NonLocalConfig("i3d", depths=R101),
    "i3d_nl_r50_8x8": NonLocalConfig("i3d", nonlocal_after=FIVE_BLOCKS),
    "i3d_nl_r101": NonLocalConfig("i3d", depths=R101, nonlocal_after=FIVE_BLOCKS_R101),
    "nonlocal_tiny": NonLocalConfig(  # ours: learns the generated clips on a laptop
        size=64, depths=(1, 2, 2, 1), width=16, nonlocal_after=((), (1,), (1,), ()), dropout=0.0, classes=8
    ),
}


class NonLocalNet(nn.Module):
    """Clip in, logits out. C2D or I3D, with non-local blocks where the config says."""

    res2: nn.Sequential
    res3: nn.Sequential
    res4: nn.Sequential
    res5: nn.Sequential

    def __init__(self, config: NonLocalConfig):
        super().__init__()
        self.config = c = config
        row = STAGES["stem"]
        self.stem = conv_bn(3, c.width, (*getattr(row, c.network), 7, 7), (1, row.stride, row.stride))
        dim = c.width
        for i, (depth, after) in enumerate(zip(c.depths, c.nonlocal_after, strict=True)):
            row, inner = STAGES[f"res{i + 2}"], c.width * 2**i
            kernels = getattr(row, c.network)
            blocks = {j: NonLocal(4 * inner, c.affinity, c.scope, c.pool_keys) for j in after}
            kernels = [kernels[j % len(kernels)] for j in range(depth)]
            setattr(self, f"res{i + 2}", stage(dim, inner, 4 * inner, kernels, row.stride, blocks))
            dim = 4 * inner
        self.dropout, self.head = nn.Dropout(c.dropout), nn.Linear(dim, c.classes)
        self.apply(conv_init)

    def places(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b t h w classes"]:
        """Logits at every window of the head."""
        x = F.max_pool3d(self.stem(clip), (1, 3, 3), (1, 2, 2), (0, 1, 1))
        x = self.res2(x)
        x = F.max_pool3d(x, (2, 1, 1))
        x = self.res5(self.res4(self.res3(x)))
        x = rearrange(sliding_mean(x, self.config.window), "b c t h w -> b t h w c")
        return self.head(self.dropout(x))

    def forward(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        return reduce(self.places(clip), "b t h w classes -> b classes", "mean")

    def probabilities(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        """As the released test gives them: softmax at every window of the head, then the mean over windows."""
        return reduce(self.places(clip).softmax(dim=-1), "b t h w classes -> b classes", "mean")

    def image_start(self) -> ImageStart:
        """The C2D without non-local blocks: a ResNet."""
        return ImageStart(NonLocalNet(replace(self.config, network="c2d", nonlocal_after=NO_BLOCKS)))


def stamped(clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b 3 T H W"]:
    """Frames that tell when they are, for networks that do not know order: the first darker by one standard deviation,
    the last as much brighter."""
    return clip + torch.linspace(-1, 1, clip.shape[2], device=clip.device)[:, None, None]
