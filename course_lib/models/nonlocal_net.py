"""Non-local Neural Networks: a block that lets every place of a clip look at every other, in C2D and I3D ResNets.

Wang, Girshick, Gupta, He, CVPR 2018, https://arxiv.org/abs/1711.07971. Notebook 02.
Symbols: x input, i query and j key places, f affinity, C its normaliser, g values, y_i = sum_j f(x_i, x_j) g(x_j) / C,
z output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.layers.attention import RecordableAttention
from course_lib.layers.conv import Axes, conv_bn, conv_init, sliding_mean, stage
from course_lib.layers.schemes import JOINT, SPACE, TIME
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
R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)  # blocks of res2 .. res5
# After which blocks of res2 .. res5, counted from 0, a non-local block stands (section 4.1)
NO_BLOCKS = ((), (), (), ())
ONE_BLOCK = ((), (), (4,), ())  # right before the last block of res4, in R50
FIVE_BLOCKS = ((), (1, 3), (1, 3, 5), ())
TEN_BLOCKS = ((), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5), ())
FIVE_BLOCKS_R101 = ((), (1, 3), (6, 13, 20), ())  # the authors'; PySlowFast's recipe keeps FIVE_BLOCKS for R101
AFFINITIES = ("gaussian", "softmax", "dot_product", "concatenation")  # section 3.2; softmax: the embedded Gaussian
SCOPES = {"joint": JOINT, "space": SPACE, "time": TIME}  # table 2d


@dataclass(frozen=True)
class NonLocalConfig(NetworkConfig):
    network: str = "c2d"  # a column of STAGES
    frames: int = 8
    size: int = 224
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
        return self.frames // 2, self.size // 32, self.size // 32


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


class NonLocal(RecordableAttention):
    """z = W_z y + x (eq. 6), after the ReLU of a residual block and without one of its own.

    gaussian        exp(x_i . x_j), over its sum
    softmax         exp(theta(x_i) . phi(x_j) / sqrt(inner)), over its sum: attention. The root is the released code's
    dot_product     theta(x_i) . phi(x_j), over the number of keys
    concatenation   ReLU(w_f [theta(x_i), phi(x_j)]), over the number of keys

    With `pool_keys` only the largest of 2x2 neighbours is looked at. `scope` says within which group a place looks.
    """

    def __init__(self, dim: int, affinity: str = "softmax", scope: str = "joint", pool_keys: bool = True):
        super().__init__()
        if scope == "time" and pool_keys:
            raise ValueError("scope='time' looks along single places, where no 2x2 neighbours are: use pool_keys=False")
        self.affinity, self.scheme, self.pool_keys = affinity, SCOPES[scope], pool_keys
        inner = dim // 2
        if affinity != "gaussian":
            self.theta, self.phi = nn.Conv3d(dim, inner, 1), nn.Conv3d(dim, inner, 1)
        if affinity == "concatenation":
            self.w_f = nn.Parameter(torch.empty(2, inner).normal_(std=inner**-0.5))
        self.g, self.out = nn.Conv3d(dim, inner, 1), nn.Conv3d(inner, dim, 1)  # g, W_z
        self.norm = nn.BatchNorm3d(dim)
        nn.init.zeros_(self.norm.weight)  # a fresh block is the identity

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        keys = F.max_pool3d(x, (1, 2, 2)) if self.pool_keys else x
        q, k = (x, keys) if self.affinity == "gaussian" else (self.theta(x), self.phi(keys))
        y = self.look(self.fold(q), self.fold(k), self.fold(self.g(keys)))
        grid, groups = self.scheme.pattern.split(" -> ")
        b, _, t, h, w = x.shape
        y = rearrange(y, f"{groups} -> {grid}", b=b, t=t, h=h, w=w)
        return x + self.norm(self.out(rearrange(y, "b t h w d -> b d t h w")))

    def fold(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "rows n c"]:
        return rearrange(rearrange(x, "b d t h w -> b t h w d"), self.scheme.pattern)

    def look(
        self, q: Float[Tensor, "rows n d"], k: Float[Tensor, "rows m d"], v: Float[Tensor, "rows m c"]
    ) -> Float[Tensor, "rows n c"]:
        """y, by the fused kernel where f / C is a softmax."""
        if self.affinity in ("gaussian", "softmax"):
            if self.affinity == "gaussian":
                q = q * q.shape[-1] ** 0.5  # undoes the root that attention divides by
            return self.mix(q[:, None], k[:, None], v[:, None])[:, 0]
        if self.affinity == "dot_product":
            # q (k^T v) gives the same at a cost linear in the places; the released order is kept, and counted
            f = q @ k.transpose(1, 2)
        else:
            f = F.relu((q @ self.w_f[0])[:, :, None] + (k @ self.w_f[1])[:, None, :])
        weights = f / k.shape[1]
        if self.recorder is not None:
            self.recorder(weights.detach()[:, None])
        return weights @ v


class NonLocalNet(nn.Module):
    """Clip in, logits out. C2D or I3D, with non-local blocks where the config says."""

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
