"""The attention that a network pays on one clip, layer by layer, as relations with weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.analysis.layers import Layer, layers
from course_lib.analysis.relations import Call, Relation, Weights
from course_lib.layers.attention import record_attention
from course_lib.models.cvidtr import TopTime
from course_lib.modes import evaluating

KEPT = "kept"  # of C-VidTr: the frames that go on, head by head


def layer_weights(
    net: nn.Module,
    clip: Float[Tensor, "b 3 T H W"],
    names: Collection[str] | None = None,
    known: Sequence[Layer] | None = None,
) -> dict[str, Relation]:
    """Every attention layer of `net` (or those of `names`), recorded on one clip in evaluation mode.

    Named as `layer_masks` names them: "block 2 time". Weights are float32, one for each pair that meets: ask for some
    layers by name where all would not fit. known: what `layers(net)` found, where that was asked before. ValueError for
    more than one clip, for one of another size than the network was built for, for a network without attention and for
    names that it has not.
    """
    if len(clip) != 1:
        raise ValueError(f"{len(clip)} clips have as many maps a layer: give one, such as clips[:1]")
    config: Any = net.config
    size = tuple(config.clip)
    if tuple(clip.shape[2:]) != size:
        raise ValueError(f"the clip has {tuple(clip.shape[2:])} pixels, the network was built for {size}: resize it")
    found = {layer.relation.name: layer for layer in known or layers(net) if layer.rows is not None}
    if unknown := set(names or ()) - set(found):
        raise ValueError(f"no attention layer is called {sorted(unknown)}: there are {list(found)}")
    with evaluating(net), record_attention(net) as recorded, kept_frames(net) as kept, torch.inference_mode():
        net(clip)
    return {
        name: with_weights(layer, recorded[layer.module], kept.get(layer.module))
        for name, layer in found.items()
        if names is None or name in names
    }


def with_weights(layer: Layer, recorded: list[Tensor], kept: Tensor | None) -> Relation:
    """The relation of a layer with what it paid in place of whom it could have paid."""
    relation, calls, parts = layer.relation, iter(recorded), {}
    rows = layer.rows or {}
    for name, met in rows.items():
        paid = tuple(Call(ask, answer, next(calls).float().cpu().numpy()) for ask, answer in met)
        parts[name] = Weights(paid, relation.queries.size, relation.keys.size)
    if kept is not None:  # place head keep -> place head keep t
        (ask, answer), *_ = next(iter(rows.values()))
        stays = F.one_hot(kept.cpu(), relation.keys.grid.t).float().numpy()
        parts[KEPT] = Weights((Call(ask, answer, stays),), relation.queries.size, relation.keys.size)
    return replace(relation, parts=parts)


@contextmanager
def kept_frames(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Which frames C-VidTr keeps: "place head keep", by module."""
    kept: dict[str, Tensor] = {}

    def keep(name: str, out: Any) -> None:
        kept[name] = out[1][0]

    handles = [
        part.register_forward_hook(lambda _, args, out, name=name: keep(name, out))
        for name, part in net.named_modules()
        if isinstance(part, TopTime)
    ]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
