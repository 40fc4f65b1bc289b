"""Relative position embeddings: a bias of attention that hangs on how far a key lies from the query."""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.grid import Grid


def distances(n: int, m: int) -> Int[Tensor, "n m"]:
    """Which row of a table of 2 max(n, m) - 1 holds query i's distance to key j; in steps of the finer of the axes.

    Fractions are cut off. In float32 and in this order, as released: where n is no multiple of m, rounding decides
    some rows (39 queries, 20 keys), and MViTv2-L's weights are made for it.
    """
    i, j = torch.arange(n, dtype=torch.float)[:, None], torch.arange(m, dtype=torch.float)[None, :]
    fine, coarse = max(m / n, 1.0), max(n / m, 1.0)
    return (i * fine - j * coarse + (m - 1) * coarse).long()


class RelativePositions(nn.Module):
    """Decomposed relative positions (MViTv2, eq. 4): to the score of query i and key j adds Q_i . (R^t + R^h + R^w).

    One table an axis, shared by the heads. Q is not divided by sqrt(d) here. The class token has no place, and no bias.
    """

    columns: Tensor
    hot: Tensor

    def __init__(self, dim: int, axes: str, lengths: Grid, queries: Grid, keys: Grid):
        super().__init__()
        self.queries, self.axes = queries, axes
        self.tables = nn.ParameterDict()
        offset, columns = 0, []
        places = torch.meshgrid(*map(torch.arange, keys), indexing="ij")
        for axis, length, n, m, place in zip("thw", lengths, queries, keys, places, strict=True):
            if axis in axes:
                self.tables[axis] = nn.Parameter(nn.init.trunc_normal_(torch.empty(2 * length - 1, dim), std=0.02))
                self.register_buffer(f"distances_{axis}", distances(n, m), persistent=False)
                columns.append(offset + place.flatten())
                offset += m
        self.spare = -(dim + offset) % 8  # fused kernels want the length of a vector to be a multiple of 8
        hot = (torch.stack(columns)[..., None] == torch.arange(offset + self.spare)).sum(0)
        self.register_buffer("columns", torch.stack(columns), persistent=False)
        self.register_buffer("hot", F.pad(hot.float(), (0, 0, 1, 0)), persistent=False)  # 1+m keys, their places

    def forward(self, q: Float[Tensor, "b head n d"]) -> Float[Tensor, "b head n places"]:
        """What a query gives to every frame, row and column of keys."""
        z, found = rearrange(q[:, :, 1:], "b head (t h w) d -> b head t h w d", **self.queries._asdict()), []
        for axis in self.axes:
            table, steps = self.tables[axis], self.get_buffer(f"distances_{axis}")
            rows = 2 * max(steps.shape) - 1
            if len(table) != rows:  # released tables are sized by rounding down, token grids round up
                table = F.interpolate(table.T[None], size=rows, mode="linear", align_corners=False)[0].T
            found.append(einsum(z, table[steps], f"b head t h w d, {axis} place d -> b head t h w place"))
        return F.pad(torch.cat(found, dim=-1).flatten(2, 4), (0, self.spare, 1, 0))

    def bias(self, q: Float[Tensor, "b head n d"]) -> Float[Tensor, "b head n m"]:
        given = self(q)
        return F.pad(reduce(add, [given[..., column] for column in self.columns]), (1, 0))

    def lengthen(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Longer vectors whose plain attention is the one with the bias: no matrix of n x m anywhere.

        The bias of key j sums three numbers of query i, so it is a product too: of what i gives to all places, and of
        ones at j's places. v grows by zeros, since fused kernels want three equal lengths.
        """
        given, d = self(q), q.shape[-1]
        length = d + given.shape[-1]  # `mix` will divide by its root, and the bias is to be left whole
        hot = self.hot.expand(*k.shape[:2], -1, -1)
        q = torch.cat([q, given * length**0.5], dim=-1)
        return q, torch.cat([k * (length / d) ** 0.5, hot], dim=-1), F.pad(v, (0, length - d))
