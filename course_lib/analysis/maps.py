"""The attention that a network pays on one clip, laid out on its token grid."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.layers.attention import record_attention
from course_lib.layers.blocks import Recomputable
from course_lib.layers.schemes import Groups
from course_lib.modes import evaluating


class AttentionMap(NamedTuple):
    """Who paid how much attention to whom in one layer; tokens are numbered row-major in the grid.

    A class token that takes part attends once in every group (in divided attention: once a frame). Its row is what it
    pays, its column what it gets; both are None where it sits a layer out.
    """

    members: Int[np.ndarray, "group member"]
    weights: Float[np.ndarray, "group head member member"]  # a row sums to 1 less what the class token gets
    cls_pays: Float[np.ndarray, "group head member"] | None = None  # sums to 1 less what it pays to itself
    cls_gets: Float[np.ndarray, "group head member"] | None = None

    def row(self, query: int) -> Float[np.ndarray, "head n"]:
        """What token `query` pays to every token of the clip, head by head."""
        group, place = (int(i[0]) for i in np.nonzero(self.members == query))
        row = np.zeros((self.weights.shape[1], self.members.size), dtype=self.weights.dtype)
        row[:, self.members[group]] = self.weights[group, :, place]
        return row

    def cls_row(self) -> Float[np.ndarray, "head n"]:
        """What the class token pays to every token of the clip, group by group; within one it sums to at most 1."""
        return self._by_token(self.cls_pays)

    def cls_column(self) -> Float[np.ndarray, "head n"]:
        """What every token of the clip pays to the class token."""
        return self._by_token(self.cls_gets)

    def _by_token(self, values: Float[np.ndarray, "group head member"] | None) -> Float[np.ndarray, "head n"]:
        if values is None:
            raise ValueError("no class token takes part in this layer: ask another one")
        laid = np.empty((values.shape[1], self.members.size), dtype=values.dtype)
        laid[:, self.members.ravel()] = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
        return laid


def attention_maps(net: nn.Module, clip: Float[Tensor, "b 3 T H W"]) -> dict[str, AttentionMap]:
    """One map for every attention layer of `net`, named like "block 2 time", recorded in evaluation mode.

    For networks whose layers fold one token grid into groups; ValueError for others, and for more than one clip.
    """
    if len(clip) != 1:
        raise ValueError(f"{len(clip)} clips have as many maps a layer: give one, such as clips[:1]")
    grid = getattr(net.config, "grid", None)
    if grid is None:
        raise ValueError(f"{type(net).__name__} has no single token grid to lay maps out on: use record_attention(net)")
    with evaluating(net), record_attention(net) as recorded, torch.inference_mode():
        net(clip)
    numbers = {  # which block, counted from 1, a part lies in
        part: number
        for row in net.modules()
        if isinstance(row, nn.ModuleList)
        for number, block in enumerate(row, start=1)
        if isinstance(block, Recomputable)
        for part in block.modules()
    }
    maps = {}
    for name, calls in recorded.items():
        layer = net.get_submodule(name)
        scheme = getattr(layer, "scheme", None)
        if not isinstance(scheme, Groups):
            how = getattr(scheme, "name", "a scheme of its own")
            raise ValueError(f"{name} attends by {how!r}, which is no fold into groups")
        weights = torch.cat(calls).float().cpu().numpy()  # group head n n
        members = scheme.members(grid).numpy()
        if len(weights) != len(members):
            raise ValueError(f"{name} attends on another grid than the network's tokens: use record_attention(net)")
        extra = weights.shape[-1] - members.shape[1]  # the class token, where it takes part
        rows, columns = (weights[:, :, 0, 1:], weights[:, :, 1:, 0]) if extra == 1 else (None, None)
        drawn = f"block {numbers[layer]} {scheme.name}"
        maps[drawn] = AttentionMap(members, weights[:, :, extra:, extra:], rows, columns)
    return maps
