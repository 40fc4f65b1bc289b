"""What a unit of a convolution really used of one clip: the gradient's norm, pixel by pixel, inside its exact reach."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.analysis.layers import Layer, layers, walked
from course_lib.analysis.relations import Relation
from course_lib.analysis.tokens import Tokens, shares
from course_lib.grid import Grid

USED = "gradient norm"


@dataclass
class Pass:
    """One forward pass on one clip, made when its features are first asked for and kept for every backward pass."""

    net: nn.Module
    clip: Float[Tensor, "1 c T H W"]

    @cached_property
    def features(self) -> dict[str, Float[Tensor, "1 c t h w"]]:
        """Of every convolution and pooling, by name."""
        with torch.enable_grad():
            return walked(self.net, self.clip).tracer.outputs


@dataclass
class Gradients:
    """Row of a unit: which share of its gradient's norm every key gets. One row costs one backward pass."""

    forward: Pass
    name: str
    keys: Tokens
    heads: int = 1

    def pixels(self, query: int) -> Float[np.ndarray, "T H W"]:
        """The norm of the gradient of the unit's features' norm, at every pixel."""
        (features,) = self.forward.features[self.name]
        t, h, w = np.unravel_index(query, features.shape[1:])
        (gradient,) = torch.autograd.grad(features[:, t, h, w].norm(), self.forward.clip, retain_graph=True)
        return gradient[0].norm(dim=0).cpu().numpy()

    def row(self, query: int) -> Float[np.ndarray, "1 m"]:
        x = self.pixels(query)
        for i, axis in enumerate(self.keys.sees):
            x = np.moveaxis(np.tensordot(x, axis.astype(x.dtype), (i, 1)), -1, i)
        return (x / max(x.sum(), np.finfo(x.dtype).tiny)).reshape(1, -1)


def used(
    net: nn.Module,
    clip: Float[Tensor, "b c T H W"],
    names: Collection[str] | None = None,
    keys: Grid | None = None,
    known: Sequence[Layer] | None = None,
) -> dict[str, Relation]:
    """Every convolution and pooling of `net` (or those of `names`), from its units to the clip.

    Named as `layer_masks` names them: "conv4 block 1 first time". A copy of the network runs once, when the first row
    is asked for. keys: the grid on which shares are told; if not given, every frame, in as many places as the layer
    has. known: what `layers(net)` found, where that was asked before. Empty for a network whose only convolution makes
    patches. ValueError for more than one clip, for one of another size than the network was built for, and for names
    that it has not.
    """
    if len(clip) != 1:
        raise ValueError(f"{len(clip)} clips have as many gradients: give one, such as clips[:1]")
    config: Any = net.config
    size = Grid(*config.clip)
    if tuple(clip.shape[2:]) != size:
        raise ValueError(
            f"the clip has {tuple(clip.shape[2:])} pixels, the network was built for {tuple(size)}: resize it"
        )
    found = {layer.relation.name: layer.relation for layer in known or layers(net) if layer.rows is None}
    if sum(relation.kind == "convolution" for relation in found.values()) < 2:
        found = {}
    if unknown := set(names or ()) - set(found):
        raise ValueError(f"no convolution is called {sorted(unknown)}: there are {list(found)}")
    if not found:
        return {}
    frozen = copy.deepcopy(net).eval().requires_grad_(False)
    forward = Pass(frozen, clip.detach().clone().requires_grad_())
    relations = {}
    for name, relation in found.items():
        if names is None or name in names:
            tokens = shares(size, keys or Grid(size.t, *relation.queries.grid[1:]))
            part = Gradients(forward, name, tokens)
            relations[name] = Relation(name, relation.block, "gradient", relation.queries, tokens, {USED: part})
    return relations
