"""The explorer of a network and a clip in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from course_lib.analysis.cost import counted
from course_lib.analysis.gradients import used
from course_lib.analysis.hiding import drops
from course_lib.analysis.layers import layers as layers_of
from course_lib.analysis.relations import Relation
from course_lib.analysis.weights import layer_weights
from course_lib.grid import Grid
from course_lib.widgets.explorer import AttentionExplorer

PLACES = 56  # along a side, at most, in which shares of a gradient are told


def explore(
    nets: nn.Module | Mapping[str, nn.Module],
    clip: Float[Tensor, "1 c T H W"] | None = None,
    frames: UInt8[np.ndarray, "T H W 3"] | None = None,
    label: int | None = None,
    layers: Sequence[str] | None = None,
    only: str = "",
    **shown: Any,
) -> AttentionExplorer:
    """Every layer of a network, or of several by name: what it may take and, with a clip, what it took.

    clip: as the network takes it; without one, masks alone. frames: the same clip to look at; grey if there is none.
    With a clip, "NAME, learned" has the weights of attention, and "NAME, used" the gradients of convolutions, which
    are worked out for the unit that is asked. label: the clip's class, to see how far its score falls without what is
    taken from most. layers: names of the layers to record, where all would not fit in memory.
    """
    named = dict(nets) if isinstance(nets, Mapping) else {type(nets).__name__: nets}
    relations: dict[str, list[Relation]] = {}
    facts: dict[str, dict[str, str]] = {}
    for name, net in named.items():
        known = layers_of(net)
        every = [layer.relation for layer in known]
        masks = [layer for layer in every if layer.name.startswith(only)]
        if not masks:
            raise ValueError(f"no layer of {name} begins with {only!r}: there are {', '.join(x.name for x in every)}")
        there = [layer.name for layer in masks]
        if unknown := [layer for layer in layers or () if layer not in there]:
            raise ValueError(f"{name} has no layer {unknown}: there are {there}")
        wanted = [layer for layer in masks if layers is None or layer.name in layers]
        attending = [layer.name for layer in wanted if layer.kind == "attention"]
        if clip is not None and attending:
            recorded = layer_weights(net, clip, attending, known)
            follow = [recorded.get(layer.name, layer) for layer in masks if layer.kind != "convolution"]
            relations[f"{name}, learned"] = follow
        relations[name] = masks
        if clip is not None:
            units = used(net, clip, keys=places(Grid(*clip.shape[2:])), known=known)
            if slopes := [units[layer.name] for layer in wanted if layer.name in units]:
                relations[f"{name}, used"] = slopes
        facts |= dict.fromkeys((name, f"{name}, learned", f"{name}, used"), told(net))
    config: Any = next(iter(named.values())).config
    if frames is None:
        frames = np.full((*config.clip, 3), 90, np.uint8)
    if clip is not None and label is not None and len(named) == 1:
        (net,) = named.values()

        def hiding(layer: Relation, row: np.ndarray) -> str:
            return str(drops(net, clip, label, layer.keys, row, [max(1, layer.keys.grid.size // 5)])[0])

        shown["hiding"] = hiding
    return AttentionExplorer(frames, relations, facts=facts, **shown)


def places(clip: Grid) -> Grid:
    """Every frame, in squares of as few pixels as there is room for."""
    side = -(-max(clip.h, clip.w) // PLACES)
    return Grid(clip.t, -(-clip.h // side), -(-clip.w // side))


def told(net: nn.Module) -> dict[str, str]:
    """What a network costs on one clip. Memory: of all its attention weights, written out in float32."""
    config: Any = getattr(net, "config", None)
    shape = (1, getattr(config, "colours", 3), *config.clip)
    found, weights = counted(net, shape)
    facts = {"multiply-adds": f"{found.macs / 1e9:.2f} G" if found.macs >= 1e8 else f"{found.macs / 1e6:.1f} M"}
    return facts | ({"attention weights": f"{4 * weights / 2**20:.1f} MiB"} if weights else {})


def weights_bytes(net: nn.Module, shape: Sequence[int]) -> int:
    """Of all attention weights of one clip, in float32, on the meta device."""
    return 4 * counted(net, shape)[1]
