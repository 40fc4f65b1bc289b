"""The small parts that several networks share."""

from __future__ import annotations

from functools import partial

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from course_lib.grid import Grid


class PatchEmbed(nn.Module):
    """Cut a clip into tubelets of `patch` frames x pixels x pixels and turn each into a token.

    ValueError if the clip does not tile.
    """

    def __init__(self, dim: int, patch: Grid, colours: int = 3):
        super().__init__()
        self.patch = patch
        self.project = nn.Conv3d(colours, dim, kernel_size=patch, stride=patch)

    def forward(self, clip: Float[Tensor, "b c T H W"]) -> Float[Tensor, "b t h w d"]:
        Grid(*clip.shape[2:]).divide(self.patch)
        return rearrange(self.project(clip), "b d t h w -> b t h w d")


class Mlp(nn.Module):
    """Two linear layers, token by token; between them the exact GELU, unless another activation is given."""

    def __init__(self, dim: int, hidden: int, activation: nn.Module | None = None, out: int | None = None):
        super().__init__()
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, out or dim)
        self.activation = activation or nn.GELU()

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows out"]:
        return self.down(self.activation(self.up(x)))


class DropPath(nn.Module):
    """While training, leave out a residual branch for a random part of the batch (stochastic depth)."""

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"a drop-path rate lies in [0, 1), not {rate}")
        self.rate = rate

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * (keep / (1 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def drop_path_rates(highest: float, depth: int) -> list[float]:
    """From 0 in the first block to `highest` in the last, evenly."""
    return [highest * i / max(1, depth - 1) for i in range(depth)]


def xavier_init(part: nn.Module) -> None:
    """A start for any width, for net.apply: linear weights uniform with variance 2 / (in + out), biases zero."""
    if isinstance(part, nn.Linear):
        nn.init.xavier_uniform_(part.weight)
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def vit_init(part: nn.Module) -> None:
    """ViT's start, for net.apply: linear weights normal with std 0.02 (cut at +-2), biases zero."""
    if isinstance(part, nn.Linear):
        nn.init.trunc_normal_(part.weight, std=0.02)
        if part.bias is not None:
            nn.init.zeros_(part.bias)


class Recomputable(nn.Module):
    """A block that `recompute` may run twice: it has no batch norm, which would count each batch twice."""


def recompute(net: nn.Module) -> nn.Module:
    """Save memory in training: forget what is inside the blocks of `net`, and compute it again on the way back.

    Activation checkpointing of every `Recomputable` part. ValueError if there is none.
    """
    blocks = [part for part in net.modules() if isinstance(part, Recomputable)]
    if not blocks:
        raise ValueError(f"{type(net).__name__} has no blocks that can be computed twice: theirs have batch norm")
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    return net
