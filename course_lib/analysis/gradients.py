"""What a unit of a convolution really used of one clip: the gradient's norm, pixel by pixel, inside its exact reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.analysis.layers import layers
from course_lib.analysis.relations import Relation
from course_lib.analysis.tokens import Tokens, shares
from course_lib.grid import Grid
from course_lib.modes import evaluating

USED = "gradient norm"


@dataclass
class Gradients:
    """Row of a unit: which share of its gradient's norm every key gets. The forward pass is kept, one row costs one
    backward pass."""

    output: Float[Tensor, "c t h w"]
    clip: Tensor
    keys: Tokens
    heads: int = 1
    grid: Grid = field(init=False)

    def __post_init__(self) -> None:
        self.grid = Grid(*self.output.shape[1:])

    def pixels(self, query: int) -> Float[np.ndarray, "T H W"]:
        """The norm of the gradient of the unit's features' norm, at every pixel."""
        t, h, w = np.unravel_index(query, self.grid)
        (gradient,) = torch.autograd.grad(self.output[:, t, h, w].norm(), self.clip, retain_graph=True)
        return gradient[0].norm(dim=0).cpu().numpy()

    def row(self, query: int) -> Float[np.ndarray, "1 m"]:
        x = self.pixels(query)
        for i, axis in enumerate(self.keys.sees):
            x = np.moveaxis(np.tensordot(x, axis.astype(x.dtype), (i, 1)), -1, i)
        return (x / max(x.sum(), np.finfo(x.dtype).tiny)).reshape(1, -1)


def used(net: nn.Module, clip: Float[Tensor, "b c T H W"], name: str, keys: Grid | None = None) -> Relation:
    """The convolution `name` of `net` ("conv4 block 1 first time"), from its units to the clip.

    keys: the grid on which shares are told; if not given, every frame, in as many places as the layer has.
    ValueError for more than one clip, or if no convolution or pooling has this name.
    """
    if len(clip) != 1:
        raise ValueError(f"{len(clip)} clips have as many gradients: give one, such as clips[:1]")
    found = {layer.relation.name: layer for layer in layers(net) if layer.rows is None}
    if name not in found:
        raise ValueError(f"no convolution is called {name!r}: there are {list(found)}")
    relation, outputs = found[name].relation, []

    def keep(_: nn.Module, args: Any, out: Tensor) -> None:
        outputs.append(out)

    handle = net.get_submodule(found[name].module).register_forward_hook(keep)
    clip = clip.detach().clone().requires_grad_()
    try:
        with evaluating(net), torch.enable_grad():
            net(clip)
    finally:
        handle.remove()
    grid = keys or Grid(clip.shape[2], *relation.queries.grid[1:])
    tokens = shares(relation.queries.clip, grid)
    part = Gradients(outputs[0][0], clip, tokens)
    return Relation(f"{name}, used", relation.block, "gradient", relation.queries, tokens, {USED: part})
