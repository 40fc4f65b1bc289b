"""MViT: from many narrow tokens to few wide ones, with keys and values pooled by far more than the queries.

v1: Multiscale Vision Transformers, Fan et al., ICCV 2021, https://arxiv.org/abs/2104.11227
v2: MViTv2: Improved Multiscale Vision Transformers, Li et al., CVPR 2022, https://arxiv.org/abs/2112.01526
v2 is v1 with the four changes of `V2`. Notebook 09.
Symbols: D width, T x H x W tokens, P pooling by a kernel k and a stride s, Q K V after pooling, R relative positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.grid import Grid
from course_lib.layers.attention import RecordableAttention
from course_lib.layers.blocks import DropPath, Mlp, Recomputable, drop_path_rates, xavier_init
from course_lib.layers.conv import DepthwiseConv
from course_lib.layers.positions import SpaceEmbedding, TimeEmbedding, check_grid
from course_lib.layers.relative import RelativePositions
from course_lib.layers.schemes import PooledKeys, Pooling
from course_lib.layers.settings import NetworkConfig, one_of

POOLING = ("conv", "max", "average", "average_norm")  # v1, table 15; the last is ours, to tell the mean from the norm
POSITIONS = {  # v1, table 11, and v2, table A.6: the axes that every attention has relative positions along
    "none": "",
    "space": "",
    "joint": "",
    "separate": "",
    "relative_time": "t",
    "relative_space": "hw",
    "relative": "thw",
}
WIDEN = ("mlp", "attention")


class Scale(NamedTuple):
    """One row of the tables that describe an MViT (v1, table 3)."""

    blocks: int
    grid: Grid
    dim: int
    heads: int
    stride: int  # of keys and values, in height and width


@dataclass(frozen=True)
class MViTConfig(NetworkConfig):
    frames: int = 16
    size: int | tuple[int, int] = 224
    depths: tuple[int, ...] = (1, 2, 11, 2)  # blocks of every scale
    dim: int = 96
    heads: int = 1
    cube: tuple[int, int, int] = (3, 7, 7)  # c, of frames x pixels x pixels: each becomes a token
    cube_stride: tuple[int, int, int] = (2, 4, 4)  # from cube to cube: smaller, so they overlap
    stride: int = 8  # of keys and values at the first scale: s = 1 x 8 x 8; time is never pooled
    pooling: str = "conv"
    kernel: int | None = 3  # of the pooling, along each axis; None: stride + 1 where there is a stride, else no pooling
    positions: str = "separate"
    pool_queries: bool = False  # in every block, not only where a scale begins
    pool_residual: bool = False  # Z = Attn(Q, K, V) + Q: what pooling did to a token stays, whatever it attends to
    widen: str = "mlp"  # which half of a block brings the next scale's width
    drop_path: float = 0.2
    dropout: float = 0.5
    scratch: bool = False  # ours: a start for small nets and short training; the released one needs hundreds of epochs
    classes: int = 400

    def validate(self) -> None:
        for setting, known in (("pooling", POOLING), ("positions", POSITIONS), ("widen", WIDEN)):
            one_of(setting, getattr(self, setting), known)
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} does not split into heads={self.heads} equal parts: use a multiple of it")
        if min(self.depths, default=0) < 1:
            raise ValueError(f"every scale needs a block: depths={self.depths}")
        for name, cube, stride in zip(Grid._fields, self.cube, self.cube_stride, strict=True):
            if cube > stride and cube % 2 == 0:
                raise ValueError(
                    f"cubes that overlap need an odd length: {name}={cube} of cube={self.cube}, use {cube + 1}"
                )
        _ = self.grid

    @property
    def grid(self) -> Grid:
        return self.clip.divide(Grid(*self.cube_stride))

    @property
    def scales(self) -> list[Scale]:
        """From scale to scale height and width halve, rounded up, and so does the keys' stride; D and heads double."""
        t, h, w = self.grid
        return [
            Scale(
                depth,
                Grid(t, -(-h // 2**i), -(-w // 2**i)),
                self.dim * 2**i,
                self.heads * 2**i,
                max(1, self.stride >> i),
            )
            for i, depth in enumerate(self.depths)
        ]

    def pool(self, stride: int, always: bool = True) -> Pooling:
        if not always and stride == 1:
            return Pooling(Grid(1, 1, 1), Grid(1, 1, 1))
        k = stride + 1 if stride > 1 else 1
        return Pooling(Grid(1, k, k) if self.kernel is None else Grid(*[self.kernel] * 3), Grid(1, stride, stride))


VIT: dict[str, Any] = dict(  # v1, table 2a: the plain ViT that MViT is compared with has one scale and pools nothing
    depths=(12,), dim=768, heads=12, cube=(1, 16, 16), cube_stride=(1, 16, 16), stride=1, kernel=None
)
V2: dict[str, Any] = dict(positions="relative", pool_queries=True, pool_residual=True, widen="attention")
VARIANTS = {  # frames x their distance
    "mvit_b_16x4": MViTConfig(),
    "mvit_b_32x3": MViTConfig(frames=32),
    "mvit_b24_32x3": MViTConfig(frames=32, depths=(2, 3, 16, 3), kernel=None, drop_path=0.3),
    "mvitv2_s_16x4": MViTConfig(**V2),
    "mvitv2_b_32x3": MViTConfig(frames=32, depths=(2, 3, 16, 3), drop_path=0.3, **V2),
    "mvitv2_l_40x3": MViTConfig(
        frames=40, size=312, depths=(2, 6, 36, 4), dim=144, heads=2, drop_path=0.75, **V2
    ),
}  # fmt: skip
TINY: dict[str, Any] = dict(
    frames=8, size=64, depths=(1, 2, 2), dim=40, stride=4, drop_path=0.0, dropout=0.0, scratch=True, classes=8
)
VARIANTS["mvit_tiny"] = MViTConfig(**TINY)  # ours: learn the generated clips on a laptop
VARIANTS["mvitv2_tiny"] = MViTConfig(**TINY, **V2)


class Pool(nn.Module):
    """P: thin out the tokens of each head, all heads by one kernel, then norm.

    The class token skips the kernel and shares the norm. As released, max and average have no norm.
    """

    def __init__(self, dim: int, kind: str, grid: Grid, pooling: Pooling):
        super().__init__()
        self.grid = grid
        (kernel, stride), (t, h, w) = pooling, [k // 2 for k in pooling.kernel]
        if kind == "conv":
            self.pool: nn.Module = DepthwiseConv(dim, kernel, stride)
        elif kind == "max":
            self.pool = nn.MaxPool3d(kernel, stride, (t, h, w))
        else:  # padded by hand: the module refuses grids smaller than its kernel
            self.pool = nn.Sequential(nn.ZeroPad3d((w, w, h, h, t, t)), nn.AvgPool3d(kernel, stride))
        self.norm = nn.LayerNorm(dim, eps=1e-6) if kind in ("conv", "average_norm") else nn.Identity()

    def forward(self, x: Float[Tensor, "b head n d"]) -> Float[Tensor, "b head m d"]:
        head = x.shape[1]
        cls, z = x.split([1, x.shape[2] - 1], dim=2)
        z = rearrange(z, "b head (t h w) d -> (b head) t h w d", **self.grid._asdict())
        z = self.pool(rearrange(z, "b t h w d -> b d t h w"))  # in two steps: the channels stay last in memory
        z = rearrange(z, "(b head) d t h w -> b head (t h w) d", head=head)
        return self.norm(torch.cat([cls, z], dim=2))


class PooledAttention(RecordableAttention):
    """Multi-head pooling attention (v1, section 3.1): linear layers first, then P on the tokens of every head."""

    def __init__(
        self,
        dim: int,
        out: int,
        heads: int,
        grid: Grid,
        scheme: PooledKeys,
        table: Grid,
        pooling: str,
        axes: str,
        pool_residual: bool,
    ):
        super().__init__()
        self.heads, self.scheme, self.pool_residual, d = heads, scheme, pool_residual, out // heads
        self.qkv, self.out = nn.Linear(dim, 3 * out), nn.Linear(out, out)
        pools = dict(q=scheme.queries, k=scheme.keys, v=scheme.keys)
        self.pools = nn.ModuleDict(
            {name: Pool(d, pooling, grid, pool) for name, pool in pools.items() if pool.acts}
        )  # fmt: skip
        queries, keys = scheme.queries.shrink(grid), scheme.keys.shrink(grid)
        self.relative = RelativePositions(d, axes, table, queries, keys) if axes else None

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b m out"]:
        q, k, v = rearrange(self.qkv(x), "b n (qkv head d) -> qkv b head n d", qkv=3, head=self.heads).unbind()
        q, k, v = (self.pools[name](z) if name in self.pools else z for name, z in zip("qkv", (q, k, v), strict=True))
        if self.relative is None:
            y = self.mix(q, k, v)
        elif self.recorder is not None:
            y = self.mix(q, k, v, bias=self.relative.bias(q))
        else:
            y = self.mix(*self.relative.lengthen(q, k, v))[..., : q.shape[-1]]
        if self.pool_residual:
            y, cls = y + q, y[:, :, 0]
            y[:, :, 0] = cls  # no residual for the class token
        return self.out(rearrange(y, "b head n d -> b n (head d)"))

    def extra_repr(self) -> str:
        return f"scheme={self.scheme.name}"


class Block(Recomputable):
    """Attention, then MLP; `dims` before, between and after them. A skip that grows starts from what is normed.

    Where the scale changes the skip is pooled too: the greatest of the neighbours, the class token as it is.
    """

    def __init__(self, dims: tuple[int, int, int], heads: int, grid: Grid, scheme: PooledKeys,
                 table: Grid, pooling: str, axes: str, pool_residual: bool, drop_path: float):  # fmt: skip
        super().__init__()
        dim, inner, out = dims
        self.grid, self.widen_first = grid, dim < inner
        self.norm, self.attention = (
            nn.LayerNorm(dim, eps=1e-6),
            PooledAttention(dim, inner, heads, grid, scheme, table, pooling, axes, pool_residual),
        )
        self.norm_mlp, self.mlp = nn.LayerNorm(inner, eps=1e-6), Mlp(inner, 4 * inner, out=out)
        self.widen = nn.Linear(dim, out) if dim < out else None
        stride = scheme.queries.stride
        kernel = tuple(s + 1 if s > 1 else 1 for s in stride)
        self.pool = nn.MaxPool3d(kernel, stride, tuple(k // 2 for k in kernel)) if max(stride) > 1 else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b m out"]:
        z = self.norm(x)
        if self.widen is not None and self.widen_first:
            x = self.widen(z)
        if self.pool is not None:
            skip = self.pool(rearrange(x[:, 1:], "b (t h w) d -> b d t h w", **self.grid._asdict()))
            x = torch.cat([x[:, :1], rearrange(skip, "b d t h w -> b (t h w) d")], dim=1)
        x = x + self.drop_path(self.attention(z))
        z = self.norm_mlp(x)
        if self.widen is not None and not self.widen_first:
            x = self.widen(z)
        return x + self.drop_path(self.mlp(z))


class JointEmbedding(nn.Module):
    """One learned vector for every token, and one for the class token."""

    def __init__(self, grid: Grid, dim: int, std: float):
        super().__init__()
        self.weight, self.cls = nn.Parameter(torch.empty(grid.t, grid.h * grid.w, dim)), nn.Parameter(torch.empty(dim))
        nn.init.normal_(self.weight, std=std)
        nn.init.normal_(self.cls, std=0.02)

    def forward(
        self, x: Float[Tensor, "b t h w d"], cls: Float[Tensor, "b 1 d"]
    ) -> tuple[Float[Tensor, "b t h w d"], Float[Tensor, "b 1 d"]]:
        return x + self.weight.unflatten(1, x.shape[2:4]), cls + self.cls


class MViT(nn.Module):
    """Clip in, logits out. The tokens travel in one row, the class token first."""

    def __init__(self, config: MViTConfig):
        super().__init__()
        self.config = c = config
        pos_std, time_std = (0.5, 1.0) if c.scratch else (0.02, 0.02)
        pad = Grid(*(k // 2 if k > s else 0 for k, s in zip(c.cube, c.cube_stride, strict=True)))
        self.patch_embed = nn.Conv3d(3, c.dim, c.cube, c.cube_stride, pad)
        self.cls = nn.Parameter(torch.empty(1, 1, c.dim))
        if c.positions in ("space", "separate"):
            self.pos_embed: nn.Module = SpaceEmbedding(*c.grid[1:], c.dim, pos_std)
        elif c.positions == "joint":
            self.pos_embed = JointEmbedding(c.grid, c.dim, time_std)
        if c.positions == "separate":
            self.time_embed = TimeEmbedding(c.grid.t, c.dim, time_std)
        self.blocks, rates = nn.ModuleList(), drop_path_rates(c.drop_path, sum(c.depths))
        scales = c.scales
        for i, scale in enumerate(scales):
            for j in range(scale.blocks):
                begins = i > 0 and j == 0
                before = scales[i - 1] if begins else scale  # what comes in
                after = scales[min(i + 1, len(scales) - 1)] if j == scale.blocks - 1 else scale
                dims = (scale.dim, scale.dim, after.dim) if c.widen == "mlp" else (before.dim, scale.dim, scale.dim)
                halve = 2 if begins else 1
                scheme = PooledKeys(queries=c.pool(halve, c.pool_queries), keys=c.pool(scale.stride))
                down = 2 ** (i - begins)  # tables have the lengths of grids that were rounded down
                table = [max(n // down // halve, n // down // scale.stride) for n in c.grid[1:]]
                self.blocks.append(
                    Block(
                        dims,
                        scale.heads,
                        before.grid,
                        scheme,
                        Grid(c.grid.t, *table),
                        c.pooling,
                        POSITIONS[c.positions],
                        c.pool_residual,
                        rates[len(self.blocks)],
                    )
                )
        self.norm, self.dropout = nn.LayerNorm(scales[-1].dim, eps=1e-6), nn.Dropout(c.dropout)
        self.head = nn.Linear(scales[-1].dim, c.classes)
        self.apply(xavier_init if c.scratch else mvit_init)
        nn.init.trunc_normal_(self.cls, std=0.02)

    def forward(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        x = rearrange(self.patch_embed(clip), "b d t h w -> b t h w d")
        check_grid(x, self.config.grid)
        cls = repeat(self.cls, "1 1 d -> b 1 d", b=x.shape[0])
        if hasattr(self, "pos_embed"):
            x, cls = self.pos_embed(x, cls)
        if hasattr(self, "time_embed"):
            x = self.time_embed(x)
        x = torch.cat([cls, rearrange(x, "b t h w d -> b (t h w) d")], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.dropout(self.norm(x[:, 0])))


def mvit_init(part: nn.Module) -> None:
    """The released start, for net.apply: weights normal with std 0.02 (cut at +-2), biases 0.02 and not zero."""
    if isinstance(part, nn.Linear | nn.Conv3d):
        nn.init.trunc_normal_(part.weight, std=0.02)
    if isinstance(part, nn.Linear | nn.LayerNorm):
        nn.init.constant_(part.bias, 0.02)
