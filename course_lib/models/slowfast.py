"""SlowFast Networks for Video Recognition: few frames with many channels beside many frames with few channels.

Feichtenhofer, Fan, Malik, He, ICCV 2019, https://arxiv.org/abs/1812.03982. Notebook 04.
Symbols: T frames of the slow path, alpha T of the fast one, C channels of the slow path, beta C of the fast one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.layers.conv import Axes, conv_bn, conv_init, sliding_mean
from course_lib.layers.inflate import ImageStart
from course_lib.layers.nonlocal_block import FIVE_BLOCKS, NO_BLOCKS, NonLocal
from course_lib.layers.resnet import R50, R101, stage
from course_lib.layers.settings import NetworkConfig, one_of
from course_lib.models.nonlocal_net import NonLocalConfig, NonLocalNet


class Stage(NamedTuple):
    """One row of table 1: time kernels of the paths, stride in space, and whether the paths join after it."""

    slow: int
    fast: int
    stride: int  # of both paths, in the first block; time has no stride anywhere
    join: bool


STAGES = {
    "stem": Stage(slow=1, fast=5, stride=2, join=True),  # 7x7; a 1x3x3 max-pool halves space once more, then the join
    "res2": Stage(slow=1, fast=3, stride=1, join=True),
    "res3": Stage(slow=1, fast=3, stride=2, join=True),
    "res4": Stage(slow=3, fast=3, stride=2, join=True),
    "res5": Stage(slow=3, fast=3, stride=2, join=False),
}
JOINS = ("none", "ttoc_sum", "ttoc_concat", "t_sample", "t_conv")  # section 3.4 and table 5a
PATHS = ("slow", "fast")


def slow_frames(frames: int, alpha: int) -> Int[Tensor, " T"]:
    """Which frames the slow path looks at: evenly from the first to the last (released), not every alpha-th.

    ValueError if `alpha` does not divide `frames`.
    """
    if frames % alpha:
        raise ValueError(
            f"{frames} frames are no multiple of alpha={alpha}: use {frames // alpha * alpha or alpha} or "
            f"{-(-frames // alpha) * alpha} frames, or another alpha"
        )
    return torch.linspace(0, frames - 1, frames // alpha).long()


@dataclass(frozen=True)
class SlowFastConfig(NetworkConfig):
    paths: tuple[str, ...] = PATHS
    frames: int = 32  # alpha T: of the clip, of which the slow path picks T
    size: int | tuple[int, int] = 224
    alpha: int = 8
    beta: int = 8  # 1 / beta in the paper
    join: str = "t_conv"
    join_kernel: int = 5
    depths: tuple[int, ...] = R50
    res4_timed: tuple[int, int] = (6, 6)  # slow, fast: so many first blocks of res4 keep their time kernel
    width: int = 64
    nonlocal_after: tuple[tuple[int, ...], ...] = NO_BLOCKS  # in the slow path
    affinity: str = "dot_product"
    dropout: float = 0.5
    classes: int = 400

    def validate(self) -> None:
        one_of("join", self.join, JOINS)
        if self.paths not in (PATHS, ("slow",), ("fast",)):
            raise ValueError(f"paths must be ('slow', 'fast'), ('slow',) or ('fast',), not {self.paths}")
        if self.join == "ttoc_sum" and self.alpha != self.beta:
            raise ValueError(
                f"join='ttoc_sum' adds alpha frames, packed into channels, to the slow path: alpha={self.alpha} must "
                f"equal beta={self.beta}"
            )
        if self.width < self.beta:
            raise ValueError(
                f"width={self.width} over beta={self.beta} leaves the fast path no channel: use a smaller beta"
            )
        slow_frames(self.frames, self.alpha)

    def window(self, path: str) -> Axes:
        """What the head averages over; clips longer or larger than built for have several such windows."""
        frames = self.frames // self.alpha if path == "slow" else self.frames
        return frames, self.clip.h // 32, self.clip.w // 32


# T x tau, e.g. 4x16: the slow path's frames and their distance in the video
VARIANTS = {
    "slow_r50_4x16": SlowFastConfig(("slow",), frames=4, alpha=1),
    "slow_r50_8x8": SlowFastConfig(("slow",), frames=8, alpha=1),
    "slow_nl_r50_4x16": SlowFastConfig(("slow",), frames=4, alpha=1, nonlocal_after=FIVE_BLOCKS),
    "slow_nl_r50_8x8": SlowFastConfig(("slow",), frames=8, alpha=1, nonlocal_after=FIVE_BLOCKS),
    "fast_r50": SlowFastConfig(("fast",)),
    "slowfast_r50_4x16": SlowFastConfig(),
    "slowfast_r50_8x8": SlowFastConfig(alpha=4, join_kernel=7),
    "slowfast_r50_16x8_ssv2": SlowFastConfig(frames=64, alpha=4, join_kernel=7, classes=174),
    # 50 and 101: how many blocks of res4 have time kernels, slow then fast, as in a net of that depth
    "slowfast_r101_8x8_50_50": SlowFastConfig(alpha=4, depths=R101),
    "slowfast_r101_8x8_50_101": SlowFastConfig(alpha=4, depths=R101, res4_timed=(6, 23)),
    "slowfast_r101_8x8_101_101": SlowFastConfig(alpha=4, depths=R101, res4_timed=(23, 23)),
    "slowfast_r101_16x8_50_50": SlowFastConfig(frames=64, alpha=4, depths=R101),
    "slowfast_nl_r50_4x16": SlowFastConfig(nonlocal_after=FIVE_BLOCKS),
    "slowfast_nl_r50_8x8": SlowFastConfig(alpha=4, nonlocal_after=FIVE_BLOCKS),
    "slowfast_nl_r101_16x8_50_50": SlowFastConfig(
        frames=64, alpha=4, depths=R101, nonlocal_after=((), (), (6, 13, 20), ())
    ),
    "slowfast_tiny": SlowFastConfig(  # ours: learns the generated clips on a laptop
        frames=16, size=64, alpha=4, beta=4, depths=(1, 1, 1, 1), width=16, dropout=0.0, classes=8
    ),
}


class Join(nn.Module):
    """What the fast path hands to the slow one (section 3.4): slow (T, S^2, C) and fast (alpha T, S^2, beta C)."""

    def __init__(self, kind: str, slow: int, fast: int, alpha: int, kernel: int):
        super().__init__()
        self.kind, self.alpha = kind, alpha
        more = {"none": 0, "ttoc_sum": 0, "ttoc_concat": alpha * fast, "t_sample": fast, "t_conv": 2 * fast}
        self.out = slow + more[kind]
        if kind == "t_conv":  # the ReLU is the released code's, the paper has none
            self.conv = conv_bn(fast, 2 * fast, (kernel, 1, 1), (alpha, 1, 1))

    def forward(
        self, slow: Float[Tensor, "b c T h w"], fast: Float[Tensor, "b d aT h w"]
    ) -> Float[Tensor, "b out T h w"]:
        if self.kind == "none":
            return slow
        if self.kind == "t_conv":
            return torch.cat([slow, self.conv(fast)], dim=1)
        if self.kind == "t_sample":
            return torch.cat([slow, fast[:, :, :: self.alpha]], dim=1)
        packed = rearrange(fast, "b d (T a) h w -> b (a d) T h w", a=self.alpha)
        return slow + packed if self.kind == "ttoc_sum" else torch.cat([slow, packed], dim=1)

    def extra_repr(self) -> str:
        return self.kind


class Pathway(nn.Module):
    """stem and res2 .. res5 of one path; row i of STAGES turns ins[i] channels into outs[i]."""

    def __init__(
        self,
        path: str,
        ins: list[int],
        outs: list[int],
        depths: Sequence[int],
        res4_timed: int,
        nonlocal_after: Sequence[Sequence[int]],
        affinity: str,
    ):
        super().__init__()
        row = STAGES["stem"]
        self.stem = conv_bn(ins[0], outs[0], (getattr(row, path), 7, 7), (1, row.stride, row.stride))
        self.stem.append(nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)))
        for i, depth in enumerate(depths, start=1):
            name, row = list(STAGES.items())[i]
            timed = res4_timed if name == "res4" else depth
            kernels = [getattr(row, path) if j < timed else 1 for j in range(depth)]
            after = nonlocal_after[i - 1]
            blocks = {j: NonLocal(outs[i], affinity) for j in after}
            self.add_module(name, stage(ins[i], outs[i] // 4, outs[i], kernels, row.stride, blocks))


class SlowFast(nn.Module):
    """Clip in, logits out: the network itself picks the slow path's frames. One path alone is a network too."""

    def __init__(self, config: SlowFastConfig):
        super().__init__()
        self.config = c = config
        slow = [c.width, *(4 * c.width * 2**i for i in range(4))]  # channels after each row of STAGES
        outs = {"slow": slow, "fast": [dim // c.beta for dim in slow]}
        ins = {path: [3, *dims[:-1]] for path, dims in outs.items()}
        self.joins = nn.ModuleDict()
        for i, (name, row) in enumerate(STAGES.items()):
            if row.join and c.paths == PATHS:
                self.joins[name] = Join(c.join, outs["slow"][i], outs["fast"][i], c.alpha, c.join_kernel)
                ins["slow"][i + 1] = self.joins[name].out
        timed, after = dict(zip(PATHS, c.res4_timed, strict=True)), {"slow": c.nonlocal_after, "fast": NO_BLOCKS}
        self.paths = nn.ModuleDict(
            {
                path: Pathway(path, ins[path], outs[path], c.depths, timed[path], after[path], c.affinity)
                for path in c.paths
            }
        )
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(sum(outs[path][-1] for path in c.paths), c.classes)
        self.apply(conv_init)

    def places(self, clip: Float[Tensor, "b 3 aT H W"]) -> Float[Tensor, "b t h w classes"]:
        """Logits at every window of the head. ValueError for a longer clip, of which two paths see unequal windows."""
        if len(self.paths) == 2 and clip.shape[2] > self.config.frames:  # the released head breaks there, too
            raise ValueError(
                f"{clip.shape[2]} frames give the two paths unequal windows in time: show views of "
                f"{self.config.frames} frames, or build the network with frames={clip.shape[2]}"
            )
        frames = slow_frames(clip.shape[2], self.config.alpha).to(clip.device)
        x = {"slow": clip.index_select(2, frames), "fast": clip}
        for name in STAGES:
            x = {path: part.get_submodule(name)(x[path]) for path, part in self.paths.items()}
            if name in self.joins:
                x["slow"] = self.joins[name](x["slow"], x["fast"])
        means = torch.cat([sliding_mean(x[path], self.config.window(path)) for path in self.paths], dim=1)
        return self.head(self.dropout(rearrange(means, "b c t h w -> b t h w c")))

    def forward(self, clip: Float[Tensor, "b 3 aT H W"]) -> Float[Tensor, "b classes"]:
        return reduce(self.places(clip), "b t h w classes -> b classes", "mean")

    def probabilities(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        """As the released test gives them: softmax at every window of the head, then the mean over windows."""
        return reduce(self.places(clip).softmax(dim=-1), "b t h w classes -> b classes", "mean")

    def image_start(self) -> ImageStart:
        """For the slow path alone, a ResNet. ValueError with a fast path: SlowFast learns from nothing."""
        c = self.config
        if c.paths != ("slow",):
            raise ValueError(
                "SlowFast learns from nothing in its paper; of its paths only paths=('slow',) starts from a ResNet"
            )
        image = NonLocalNet(NonLocalConfig(depths=c.depths, width=c.width))
        return ImageStart(image, part="paths.slow.")
