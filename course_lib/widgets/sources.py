"""Relations as the page gets them: what to draw as JSON, masks as tables of bytes that layers of one kind share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from course_lib.analysis.relations import Bits, Reads, Relation, SameGroup
from course_lib.analysis.tokens import Tokens
from course_lib.analysis.weights import KEPT
from course_lib.widgets.stills import STEPS

ONE, BLOCK, NETWORK = VIEWS = ("one layer", "whole block", "whole network")
Sources = Mapping[str, Sequence[Relation]]


class Tables:
    """Byte strings by content: a hundred blocks with the same windows send them once."""

    def __init__(self) -> None:
        self.number: dict[bytes, int] = {}

    def add(self, data: np.ndarray) -> int:
        return self.number.setdefault(np.ascontiguousarray(data).tobytes(), len(self.number))


def is_mask(part: Any) -> bool:
    return isinstance(part, SameGroup | Reads | Bits)


def weighs(layer: Relation) -> bool:
    """Whether a layer shows weights: rows of floats."""
    return not all(is_mask(part) for part in layer.parts.values())


def stays(layer: Relation) -> bool:
    """Whether rows are worked out one by one, when they are asked for, and so stay in the kernel."""
    return weighs(layer) and not all(hasattr(part, "calls") for part in layer.parts.values())


def checked(relations: Sources) -> dict[str, list[Relation]]:
    """ValueError names the source that has no layer, or two layers of one name."""
    if not relations:
        raise ValueError("no relations: pass at least one source, such as {'divided': layer_masks(net)}")
    found = {}
    for source, layers in relations.items():
        names = [layer.name for layer in layers]
        if not names:
            raise ValueError(f"source '{source}' has no layer: give a list of relations")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"source '{source}' names a layer '{twice[0]}' twice: layers need names of their own")
        found[source] = list(layers)
    return found


def colours_of(relations: Sources) -> dict[str, str]:
    """Part -> its colour, the same in every source."""
    names = dict.fromkeys(part for layers in relations.values() for layer in layers for part in layer.parts)
    return {name: STEPS[i % len(STEPS)] for i, name in enumerate(names)}


def chain(layers: Sequence[Relation], index: int, view: str) -> list[Relation] | None:
    """The layers that a view of layer `index` composes, in order; None where nothing can be composed.

    A block up to its last layer; the network from its first attention up to this layer. Convolutions run side by side
    and have no chain: what a unit of theirs sees of the clip is known exactly.
    """
    here = layers[index]
    if view == BLOCK:
        found = [layer for layer in layers if layer.block == here.block]
    else:
        found = [layer for layer in layers[: index + 1] if layer.kind != "convolution"]
    follow = all(one.queries.size == (two.inputs or two.keys).size for one, two in pairwise(found))
    kinds = all(layer.kind in ("attention", "pooling") for layer in found)
    signed = any(getattr(part, "signed", False) for layer in found for part in layer.parts.values())
    if not follow or not kinds or signed or here not in found:
        return None
    return found


def views(layers: Sequence[Relation], index: int) -> list[str]:
    """The views that a layer has. Masks are not composed with weights: a mask after layers with weights has fewer."""
    here, chains = layers[index], {view: chain(layers, index, view) for view in (BLOCK, NETWORK)}
    if here.kind in ("convolution", "pooling") and chains[NETWORK] is None:
        return [ONE, NETWORK]
    composed = {view: found for view, found in chains.items() if found is not None}
    return [ONE, *(view for view, found in composed.items() if weighs(here) or not any(map(weighs, found)))]


def described(relations: Sources, facts: Mapping[str, Mapping[str, str]]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Every source as JSON, and the tables that its masks lie in."""
    tables, colour = Tables(), colours_of(relations)
    found = [
        {
            "name": source,
            "facts": dict(facts.get(source, {})),
            "layers": [layer_as_json(layers, i, colour, tables) for i in range(len(layers))],
        }
        for source, layers in relations.items()
    ]
    return found, list(tables.number)


def layer_as_json(layers: Sequence[Relation], index: int, colour: Mapping[str, str], tables: Tables) -> dict[str, Any]:
    layer = layers[index]
    offered = views(layers, index)
    chains = {view: chain(layers, index, view) for view in offered[1:]}
    tells_reach = layer.kind == "gradient" or (NETWORK in chains and chains[NETWORK] is None)
    return {
        "name": layer.name,
        "block": layer.block,
        "kind": layer.kind,
        "queries": tokens_as_json(layer.queries),
        "keys": tokens_as_json(layer.keys),
        "inputs": tokens_as_json(layer.inputs or layer.keys),
        "weights": weighs(layer),
        "parts": [part_as_json(name, part, colour[name], tables) for name, part in layer.parts.items()],
        "ofKeys": layer.of_keys and part_as_json("", layer.of_keys, "", tables),
        "ofQueries": layer.of_queries and part_as_json("", layer.of_queries, "", tables),
        "views": offered,
        "absent": [],  # of these, the views that a page without a kernel has no rows for
        "chains": {
            view: {"first": layers.index(found[0]), "last": layers.index(found[-1])}
            for view, found in chains.items()
            if found
        },
        "sees": part_as_json("", Reads(layer.queries.sees), "", tables) if tells_reach else None,
        "clip": list(layer.queries.clip),
        "pairs": sum(pairs(part) for part in layer.parts.values()),
    }


def tokens_as_json(tokens: Tokens) -> dict[str, Any]:
    extra = [{"name": extra.name, "shape": list(extra.shape)} for extra in tokens.extra]
    return {"grid": list(tokens.grid), "extra": extra, "size": tokens.size}


def part_as_json(name: str, part: Any, colour: str, tables: Tables) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "colour": colour}
    if isinstance(part, SameGroup):
        numbers = [tables.add(side.astype("<i4")) for side in (part.queries, part.keys)]
        return found | {"kind": "group", "tables": numbers, "size": len(part.keys)}
    if isinstance(part, Reads):
        numbers = [tables.add(axis.astype(np.uint8)) for axis in part.axes]
        grids = {"queries": list(part.queries), "keys": list(part.keys), "size": part.keys.size + part.extra}
        return found | grids | {"kind": "axes", "tables": numbers}
    if isinstance(part, Bits):
        return found | {"kind": "bits", "tables": [tables.add(part.packed)], "size": part.keys}
    signed = bool(getattr(part, "signed", False))
    return found | {"kind": "weights", "heads": part.heads, "signed": signed, "marks": name == KEPT}


def pairs(part: Any) -> int:
    """How many pairs of query and key a part joins."""
    if isinstance(part, SameGroup):
        keys = {number: len(np.flatnonzero(part.row(query))) for number, query in first_of(part.queries)}
        return sum(keys[number] for number in part.queries.tolist())
    if isinstance(part, Reads):
        return int(np.prod([axis.sum() for axis in part.axes])) + part.extra
    if isinstance(part, Bits):
        return int(np.unpackbits(part.packed, axis=1, count=part.keys, bitorder="little").sum())
    calls = getattr(part, "calls", ())
    once = sum(int((call.keys >= 0).sum()) * call.queries.shape[1] for call in calls)
    often = (
        np.flatnonzero(part.times > 1).tolist() if calls else []
    )  # a class token visits every frame, and itself as often
    return once - sum(int(part.times[token]) - 1 for token in often)


def first_of(numbers: np.ndarray) -> list[tuple[int, int]]:
    values, first = np.unique(numbers, return_index=True)
    return list(zip(values.tolist(), first.tolist(), strict=True))
