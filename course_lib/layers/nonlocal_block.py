"""The non-local block: every place of a clip looks at every other (Wang et al., https://arxiv.org/abs/1711.07971)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.layers.attention import RecordableAttention
from course_lib.layers.schemes import JOINT, SPACE, TIME

# After which blocks of res2 .. res5, counted from 0, a non-local block stands (section 4.1)
NO_BLOCKS = ((), (), (), ())
ONE_BLOCK = ((), (), (4,), ())  # right before the last block of res4, in R50
FIVE_BLOCKS = ((), (1, 3), (1, 3, 5), ())
TEN_BLOCKS = ((), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5), ())
FIVE_BLOCKS_R101 = ((), (1, 3), (6, 13, 20), ())  # the authors'; PySlowFast's recipe keeps FIVE_BLOCKS for R101
AFFINITIES = (  # section 3.2; softmax: the embedded Gaussian; uniform: ours
    "gaussian",
    "softmax",
    "dot_product",
    "concatenation",
    "uniform",
)
SCOPES = {"joint": JOINT, "space": SPACE, "time": TIME}  # table 2d


class NonLocal(RecordableAttention):
    """z = W_z y + x (eq. 6), after the ReLU of a residual block and without one of its own.

    gaussian        exp(x_i . x_j), over its sum
    softmax         exp(theta(x_i) . phi(x_j) / sqrt(inner)), over its sum: attention. The root is the released code's
    dot_product     theta(x_i) . phi(x_j), over the number of keys
    concatenation   ReLU(w_f [theta(x_i), phi(x_j)]), over the number of keys
    uniform         1, over the number of keys: the plain mean, not in the paper. What is left without any affinity

    With `pool_keys` only the largest of 2x2 neighbours is looked at. `scope` says within which group a place looks.
    """

    def __init__(self, dim: int, affinity: str = "softmax", scope: str = "joint", pool_keys: bool = True):
        super().__init__()
        if scope == "time" and pool_keys:
            raise ValueError("scope='time' looks along single places, where no 2x2 neighbours are: use pool_keys=False")
        self.affinity, self.scheme, self.pool_keys = affinity, SCOPES[scope], pool_keys
        inner = dim // 2
        if affinity not in ("gaussian", "uniform"):
            self.theta, self.phi = nn.Conv3d(dim, inner, 1), nn.Conv3d(dim, inner, 1)
        if affinity == "concatenation":
            self.w_f = nn.Parameter(torch.empty(2, inner).normal_(std=inner**-0.5))
        self.g, self.out = nn.Conv3d(dim, inner, 1), nn.Conv3d(inner, dim, 1)  # g, W_z
        self.norm = nn.BatchNorm3d(dim)
        nn.init.zeros_(self.norm.weight)  # a fresh block is the identity

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        keys = F.max_pool3d(x, (1, 2, 2)) if self.pool_keys else x
        q, k = (self.theta(x), self.phi(keys)) if hasattr(self, "theta") else (x, keys)
        y = self.look(self.fold(q), self.fold(k), self.fold(self.g(keys)))
        grid, groups = self.scheme.pattern.split(" -> ")
        t, h, w = x.shape[2:]
        y = rearrange(y, f"{groups} -> {grid}", t=t, h=h, w=w)
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
        if self.affinity == "uniform":
            f = q.new_ones(len(q), q.shape[1], k.shape[1])
        elif self.affinity == "dot_product":
            # q (k^T v) gives the same at a cost linear in the places; the released order is kept, and counted
            f = q @ k.transpose(1, 2)
        else:
            f = F.relu((q @ self.w_f[0])[:, :, None] + (k @ self.w_f[1])[:, None, :])
        weights = f / k.shape[1]
        if self.recorder is not None:
            self.recorder(weights.detach()[:, None])
        return weights @ v
