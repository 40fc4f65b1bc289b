"""The attention explorer, as far as it can be tested without a browser; tests/browser has the rest."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import zlib
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from nbconvert import HTMLExporter
from PIL import Image, ImageColor, ImageFont
from torch import nn

from course_lib.analysis import layers as layers_module
from course_lib.analysis.layers import layer_masks
from course_lib.analysis.relations import Bits, Call, Relation, SameGroup, Weights, reach_of
from course_lib.analysis.tokens import Extra, Tokens, shares
from course_lib.analysis.weights import layer_weights
from course_lib.grid import Grid
from course_lib.models import build, names
from course_lib.widgets import AttentionExplorer, stills
from course_lib.widgets.explore import explore, places
from course_lib.widgets.explorer import SCRIPT
from course_lib.widgets.rows import packed, quantise, runs_of
from course_lib.widgets.sources import BLOCK, NETWORK, ONE, chain, described, pairs, views

GRID = Grid(3, 4, 5)  # three different lengths, so that no two axes can be mistaken for each other
VIEW = "application/vnd.jupyter.widget-view+json"
PATCH = 6


def clip(grid: Grid = GRID, patch: int = PATCH) -> np.ndarray:
    shape = (grid.t, grid.h * patch, grid.w * patch, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def tokens(grid: Grid = GRID, patch: int = PATCH) -> Tokens:
    found = shares(Grid(grid.t, grid.h * patch, grid.w * patch), grid)
    return found._replace(extra=(Extra("class token", Grid(1, 1, 1)),))


def mask_layer(name: str, group: np.ndarray, block: str = "block 1", grid: Grid = GRID) -> Relation:
    """A layer in which the class token takes no part."""
    numbers = np.append(group, -2)
    at = tokens(grid)
    return Relation(f"{block} {name}", block, "attention", at, at, {name: SameGroup(numbers, numbers)})


def mask_after_weights() -> list[Relation]:
    """A layer that is recorded, and a pooling of its tokens, which has no weights."""
    first, group = learned(), np.append(np.arange(60) // 20, 3)
    frames = Relation("frames", "", "pooling", first.queries, first.queries, {"a frame": SameGroup(group, group)})
    return [first, frames]


def relations(grid: Grid = GRID) -> dict[str, list[Relation]]:
    t, h, w = (axis.ravel() for axis in np.indices(grid))
    return {
        "divided": [mask_layer("time", h * grid.w + w, grid=grid), mask_layer("space", t, grid=grid)],
        "joint": [mask_layer("joint", 0 * t, grid=grid)],
    }


def learned(grid: Grid = GRID, heads: int = 3, seed: int = 0) -> Relation:
    """Random shares in space, a class token in every frame."""
    rng, at = np.random.default_rng(seed), tokens(grid)
    rows = np.concatenate([np.full((grid.t, 1), grid.size), at.numbers().reshape(grid.t, -1)], axis=1)
    weights = rng.random((grid.t, heads, rows.shape[1], rows.shape[1]), dtype=np.float32) ** 4
    call = Call(rows, rows, weights / weights.sum(-1, keepdims=True))
    return Relation("block 1 space", "block 1", "attention", at, at, {"space": Weights((call,), at.size, at.size)})


def everything() -> dict[str, list[Relation]]:
    return relations() | {"learned": [learned()]}


def explorer(**changes) -> AttentionExplorer:
    return AttentionExplorer(**{"frames": clip(), "relations": everything(), **changes})


def still_in(data: dict[str, str]) -> tuple[str, bytes]:
    ((alt, picture),) = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', data["text/html"])
    return html.unescape(alt), base64.b64decode(picture)


# ---- rows as bytes


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_byte_a_weight_is_off_by_at_most_half_a_level(dtype, signed):
    weights = (np.random.default_rng(0).random((7, 50)) ** 8).astype(dtype)
    weights = weights - 0.5 * signed
    weights[3] = 0
    level, scale = quantise(weights, signed)
    assert level.dtype == (np.int8 if signed else np.uint8) and scale.dtype == np.float32
    most = 127 if signed else 255
    error = np.abs(level * scale[..., None].astype(float) - weights.astype(float))
    assert (error <= np.abs(weights).max(-1, keepdims=True).astype(float) / most * 0.501).all()
    assert not level[3].any() and not scale[3]
    assert (np.abs(level.astype(int)).max(-1) == most)[np.abs(weights).max(-1) > 0].all()


def unpacked(data: bytes, parts: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Keys, weights head by head, sums: by numpy, where the page has JavaScript."""
    found, at = [], 0
    for _ in range(parts):
        many, heads, runs = np.frombuffer(data, "<i4", 3, at)
        pairs = np.frombuffer(data, "<i4", 2 * runs, at + 12).reshape(runs, 2).tolist()
        keys = np.array([key for start, length in pairs for key in range(start, start + length)], int)
        assert len(keys) == many
        scales = np.frombuffer(data, "<f4", heads, at + 12 + 8 * runs)
        sums = np.frombuffer(data, "<f4", heads, at + 12 + 8 * runs + 4 * heads)
        first = at + 12 + 8 * (runs + heads)
        levels = np.frombuffer(data, np.uint8, heads * many, first).reshape(heads, many)
        found.append((keys, levels * scales[:, None], sums))
        at = first + heads * many + -(first + heads * many) % 4
    assert at == len(data)
    return found


class Rows:
    """One row, whoever asks."""

    def __init__(self, row: np.ndarray):
        self.only = row

    def row(self, query: int) -> np.ndarray:
        return self.only


def test_a_packed_row_holds_every_part_and_head():
    rows = [np.random.default_rng(i).random((heads, 9)) * (np.arange(9) % 3 > 0) for i, heads in enumerate((2, 3))]
    found = unpacked(packed([Rows(row) for row in rows], 0), 2)
    for (keys, weights, sums), row in zip(found, rows, strict=True):
        assert keys.tolist() == [1, 2, 4, 5, 7, 8]
        np.testing.assert_allclose(weights, row[:, keys], atol=row.max() / 509)
        np.testing.assert_allclose(sums, row.sum(1), rtol=1e-6)


@pytest.mark.parametrize(
    ("numbers", "runs"),
    [([], []), ([0], [[0, 1]]), ([3, 4, 5], [[3, 3]]), ([0, 1, 3, 7, 8, 9], [[0, 2], [3, 1], [7, 3]])],
)
def test_keys_that_follow_each_other_are_one_run(numbers, runs):
    assert runs_of(np.array(numbers, np.int64)).tolist() == runs


# ---- what layers have


def test_views_follow_from_the_layers():
    layers = relations()["divided"]
    assert views(layers, 0) == [ONE, BLOCK, NETWORK]
    assert chain(layers, 0, BLOCK) == layers and chain(layers, 0, NETWORK) == layers[:1]
    convolutions = layer_masks(build("r2plus1d_tiny"))
    assert views(convolutions, 3) == [ONE, NETWORK] and chain(convolutions, 3, NETWORK) is None
    swin = layer_masks(build("video_swin_tiny"))
    assert [layer.name for layer in chain(swin, 4, NETWORK)] == [layer.name for layer in swin[1:5]]


def test_a_mask_after_layers_with_weights_has_no_whole_network():
    first, frames = layers = mask_after_weights()
    assert views(layers, 0) == [ONE, BLOCK, NETWORK] and views(layers, 1) == [ONE, BLOCK]
    assert views([frames], 0) == [ONE, BLOCK, NETWORK]
    widget = AttentionExplorer(clip(), {"it": layers}, layer=first.name, view=NETWORK)
    widget.layer = "frames"
    assert widget.view == ONE and "20 of 61 tokens" in widget._still()[1]
    (source,), _ = described({"it": layers}, {})
    assert source["layers"][1]["views"] == [ONE, BLOCK] and set(source["layers"][1]["chains"]) == {BLOCK}


def test_masks_that_many_layers_share_travel_once():
    at = tokens()
    layers = [mask_layer("time", np.arange(60) % 20, f"block {i}") for i in range(12)]
    _, tables = described({"twelve": layers}, {})
    assert len(tables) == 1 and len(tables[0]) == 4 * at.size


def test_pairs_are_those_of_the_mask():
    net = build("timesformer_tiny", depth=1)
    maps = layer_weights(net, torch.randn(1, 3, *net.config.clip))
    for layer in layer_masks(net)[1:]:
        dense = sum(layer.mask_row(query).sum() for query in range(layer.queries.size))
        for found in (layer, maps[layer.name]):
            assert [pairs(part) for part in found.parts.values()] == [dense]
    band = Bits.of(np.tri(9, dtype=bool))
    assert pairs(band) == 45
    first = layer_masks(net)[0].parts["space"]
    assert pairs(first) == 8 * 64 * 64


# ---- where things are drawn


def test_frames_of_14_x_14_patches_lie_where_a_ruler_finds_them():
    layout = stills.Layout.fit(shares(Grid(8, 224, 224), Grid(8, 14, 14)), 960)
    assert (layout.columns, layout.panel) == (4, (224, 224))
    assert layout.size == (12 + 4 * 224 + 3 * 12 + 12, 12 + 2 * (22 + 224) + 12 + 12)
    assert layout.centre(0) == (12 + 8, 12 + 22 + 8)
    token = (5 * 14 + 2) * 14 + 13  # frame 5 is the second of the second line
    assert layout.centre(token) == (12 + 236 + 13.5 * 16, 12 + 22 + 224 + 12 + 22 + 2.5 * 16)


def test_lines_of_frames_are_even():
    grids = [Grid(t, 4, 4) for t in (8, 16, 1)]
    assert [stills.Layout.fit(shares(Grid(grid.t, 64, 64), grid), 960).columns for grid in grids] == [4, 6, 1]


CLASSED = (Extra("class token", Grid(1, 1, 1)),)
LAYOUTS = [  # clip, grid, extra tokens
    (Grid(8, 224, 224), Grid(8, 14, 14), CLASSED),
    (Grid(16, 448, 448), Grid(16, 28, 28), CLASSED),
    (Grid(96, 224, 224), Grid(96, 14, 14), ()),
    (Grid(32, 224, 224), Grid(16, 56, 56), ()),
    (Grid(16, 224, 224), Grid(8, 7, 7), CLASSED),
    (Grid(16, 224, 224), Grid(16, 1, 1), CLASSED),
    (Grid(8, 224, 224), Grid(8, 224, 224), ()),
    (Grid(64, 224, 224), Grid(32, 112, 112), ()),
    (Grid(8, 48, 90), Grid(8, 3, 9), CLASSED),
    (Grid(8, 224, 224), Grid(8, 14, 14),
     (*CLASSED, Extra("of the frame", Grid(8, 1, 1)), Extra("place", Grid(1, 14, 14)))),
]  # fmt: skip


@pytest.mark.parametrize(("size", "grid", "extra"), LAYOUTS, ids=lambda x: "x".join(map(str, x)) if x[:0] == () else "")
def test_all_tokens_fit_into_a_notebook_cell_and_none_lies_on_another(size, grid, extra):
    at = shares(size, grid)._replace(extra=extra)
    layout = stills.Layout.fit(at, 960)
    width, height = layout.size
    assert width <= 960 and height <= 560
    used = np.zeros((height, width), int)
    for token in range(0, at.size, 1 if at.size < 60_000 else 97):
        x, y, wide, high = layout.box(token)
        used[round(y) : round(y + high), round(x) : round(x + wide)] += 1
    assert used.max() == 1
    x, y, wide, high = layout.box(at.size - 1)
    assert x + wide <= width and y + high <= height


def coloured(picture: np.ndarray, layout: stills.Layout, token: int) -> str:
    x, y, wide, high = layout.box(token)
    pixel = picture[int(y + high * 0.7), int(x + wide * 0.7)].astype(int)
    if np.ptp(pixel) < 20:
        return "."
    known = np.array([ImageColor.getrgb(colour) for colour in stills.STEPS[:2]])
    return "ts"[np.abs(known - pixel).sum(1).argmin()]


def drawn(widget: AttentionExplorer) -> str:
    data, _ = widget._repr_mimebundle_()
    picture = np.asarray(Image.open(io.BytesIO(still_in(data)[1])).convert("RGB"))
    layout = stills.Layout.fit(tokens(), *stills.STILL)
    return "".join(coloured(picture, layout, token) for token in range(GRID.size))


def test_the_stored_picture_colours_exactly_the_mask_of_the_pinned_patch():
    widget = explorer(pinned=[1, 2 * PATCH + 1, 3 * PATCH + 5], layer="block 1 space")
    assert drawn(widget) == "." * 20 + "s" * 20 + "." * 20
    widget.layer = "block 1 time"
    assert drawn(widget) == ("." * 13 + "t" + "." * 6) * 3
    widget.view = "whole block"
    assert drawn(widget) == "t" * 60


# ---- what is asked


def test_a_place_is_the_token_that_holds_it_in_every_layer():
    net = build("video_swin_tiny", size=32)
    widget = AttentionExplorer(np.zeros((8, 32, 32, 3), np.uint8), {"swin": layer_masks(net)})
    found = {layer.name: widget.token([3, 31, 9], layer) for layer in widget.relations["swin"]}
    assert found["stage 1 block 1 windows"] == (1 * 8 + 7) * 8 + 2
    assert found["stage 2 block 1 windows"] == (1 * 4 + 3) * 4 + 1
    assert found["stage 3 block 1 windows"] == (1 * 2 + 1) * 2 + 0
    assert widget.token(["class token", 0], widget.relations["swin"][1]) is None
    (joint,) = relations()["joint"]
    assert explorer().token(["class token", 0], joint) == 60


def test_small_rows_lie_in_the_page_and_large_ones_stay_in_the_kernel():
    whole, asked = explorer(), explorer(whole_rows_bytes=10)
    assert list(whole.rows) == ["2/0/one layer"] and asked.rows == {}
    begin = np.frombuffer(whole.rows["2/0/one layer"]["begin"], "<i4")
    row = whole.rows["2/0/one layer"]["rows"][begin[33] : begin[34]]
    reply, buffers = asked._answer({"kind": "rows", "source": 2, "layer": 0, "view": ONE, "queries": [33, 0]})
    assert buffers[0] == row and reply["queries"] == [33, 0] and len(buffers) == 2
    ((keys, weights, sums),) = unpacked(row, 1)
    want = learned().parts["space"].row(33)
    assert sorted(keys.tolist()) == [*range(20, 40), 60]
    np.testing.assert_allclose(weights, want[:, keys], atol=want.max() / 509)
    np.testing.assert_allclose(sums, 1, rtol=1e-5)


def test_rows_of_a_whole_block_are_its_rollout():
    net = build("timesformer_tiny", depth=2).eval()
    film = torch.randn(1, 3, *net.config.clip)
    widget = explore(net, film)
    assert (widget.source, widget.layer) == ("TimeSformer, learned", "block 1 time")
    _, (row,) = widget._answer({"kind": "rows", "source": 0, "layer": 3, "view": BLOCK, "queries": [128]})
    ((keys, weights, _),) = unpacked(row, 1)
    maps = layer_weights(net, film)
    time, space = (np.stack([next(iter(maps[f"block 2 {one}"].parts.values())).row(i).mean(0) for i in range(129)])
                   for one in ("time", "space"))  # fmt: skip
    time[128, 128] = 1
    want = ((space + np.eye(129)) / 2 @ ((time + np.eye(129)) / 2))[128]
    np.testing.assert_allclose(weights[0], want[keys], atol=want.max() / 500)


BAD = [-1, 61, 10**30, 1.0, float("nan"), True, "3", None, [3], {}]


@pytest.mark.parametrize("query", BAD, ids=str)
def test_a_row_is_refused_for_what_is_not_a_token(query):
    reply, buffers = explorer()._answer({"kind": "rows", "source": 2, "layer": 0, "view": ONE, "queries": [5, query]})
    assert reply["kind"] == "refused" and "0 to 60" in reply["reason"] and not buffers


@pytest.mark.parametrize("queries", [None, 3, [], "3", {"0": 1}, list(range(10))], ids=str)
def test_rows_are_refused_when_not_asked_for_in_a_short_list(queries):
    reply, buffers = explorer()._answer({"source": 2, "layer": 0, "view": ONE, "queries": queries})
    assert reply["kind"] == "refused" and "list of 1 to 9 queries" in reply["reason"] and not buffers


@pytest.mark.parametrize(
    "message",
    [None, [], "rows", {}, {"source": 0, "layer": 0, "view": ONE}, {"source": 2, "layer": 0, "view": "x"},
     {"source": [], "layer": {}, "view": ONE}, {"source": True, "layer": 0, "view": ONE},
     {"source": "2", "layer": "0"}],
    ids=str,
)  # fmt: skip
def test_a_row_is_refused_for_what_has_no_weights(message):
    reply, buffers = explorer()._answer(message)
    assert reply["kind"] == "refused" and "no weights for source" in reply["reason"] and not buffers


def test_hiding_is_asked_of_whoever_knows_the_network():
    asked = []
    widget = explorer(hiding=lambda layer, row: asked.append((layer.name, row)) or "falls by half")
    reply, _ = widget._answer({"kind": "hide", "source": 2, "layer": 0, "view": ONE, "queries": [7]})
    assert reply == {"kind": "hidden", "text": "falls by half"} and widget.hides and not explorer().hides
    ((name, row),) = asked
    assert name == "block 1 space" and row == pytest.approx(learned().parts["space"].row(7).mean(0))


def test_the_score_without_what_a_network_attends_to_is_told():
    net = build("timesformer_tiny", depth=1)
    widget = explore(net, torch.randn(1, 3, *net.config.clip), label=2)
    reply, _ = widget._answer({"kind": "hide", "source": 0, "layer": 1, "view": ONE, "queries": [128]})
    assert reply["text"].startswith("25 of 128 patches hidden: the score falls by")


# ---- what convolutions used


class Planted(nn.Module):
    """Two convolutions that pass one tap on, by hand; a channel of the second is dead."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(clip=Grid(4, 8, 8), colours=1)
        self.first = nn.Conv3d(1, 1, 3, padding=1, bias=False).requires_grad_(False)
        self.second = nn.Conv3d(1, 1, 3, padding=1).requires_grad_(False)
        self.first.weight.zero_()[0, 0, 0, 2, 1] = 3  # the frame before, the row below
        self.second.weight.zero_()[0, 0, 1, 1, 2] = -2  # the column to the right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def used_row(widget: AttentionExplorer, layer: str, place: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Where the unit at a place took what it has."""
    source = list(widget.relations).index(widget.source)
    number, relation = next((i, one) for i, one in enumerate(widget.relations[widget.source]) if one.name == layer)
    message = {"kind": "rows", "source": source, "layer": number, "view": ONE}
    query = int(np.ravel_multi_index(place, relation.queries.grid))
    _, (row,) = widget._answer(message | {"queries": [query]})
    ((keys, weights, sums),) = unpacked(row, 1)
    assert not len(keys) or ((weights > 0).all() and sums == pytest.approx(1, abs=1e-5))
    return [tuple(map(int, np.unravel_index(key, relation.keys.grid))) for key in keys]


def test_a_planted_tap_is_all_that_a_convolution_used():
    net = Planted()
    film = torch.rand(1, 1, 4, 8, 8) + 1
    widget = explore({"net": net}, film, source="net, used", layer="second", pinned=[2, 3, 4])
    assert [source["name"] for source in widget.sources] == ["net", "net, used"]
    assert used_row(widget, "first", (2, 3, 4)) == [(1, 4, 4)]
    assert used_row(widget, "second", (2, 3, 4)) == [(1, 4, 5)]
    assert used_row(widget, "second", (2, 3, 7)) == []  # to the right lies only padding
    alt = widget._still()[1]
    assert "net, used, second, one layer: what the patch at frame 2, row 3, column 4 used." in alt


def test_a_unit_whose_gradient_is_zero_used_nothing():
    net = Planted()
    net.second.weight.zero_()
    net.second.bias.fill_(5)
    widget = explore({"net": net}, torch.rand(1, 1, 4, 8, 8), source="net, used", layer="second")
    assert used_row(widget, "second", (2, 3, 4)) == []
    assert "gradient norm: 0 of 256 places" in widget._still()[1]


def test_no_pass_is_made_before_a_unit_is_asked_and_one_serves_all():
    net = Planted()
    passes = []
    net.register_forward_hook(lambda part, args, out: passes.append(args[0].is_meta))
    widget = explore({"net": net}, torch.rand(1, 1, 4, 8, 8))
    assert all(passes) and widget.source == "net"
    widget.source = "net, used"
    for layer in ("first", "second"):
        assert used_row(widget, layer, (2, 3, 4))
    assert passes.count(False) == 1


def test_weights_lie_in_the_page_beside_gradients_that_stay_in_the_kernel():
    net = build("nonlocal_tiny", size=32)
    widget = explore({"net": net}, torch.randn(1, 3, *net.config.clip))
    assert [source["name"] for source in widget.sources] == ["net, learned", "net", "net, used"]
    assert {key.split("/")[0] for key in widget.rows} == {"0"}
    order = widget._by_need()  # for a page: what is shown, then attention, then gradients, those of few units first
    found = [widget._relation(*key) for key in order]
    assert {order[0]} == widget._on_show() and widget.layer == found[0].name
    assert [key[0] for key in order] == sorted(key[0] for key in order)
    units = [relation.queries.size for relation in found if relation.kind == "gradient"]
    assert units == sorted(units) and len(set(units)) > 3
    widget.source, widget.layer = "net, used", "stem"
    assert widget._relation(*widget._by_need()[0]).name == "stem"


def test_a_page_holds_what_finds_room_and_says_what_does_not():
    widget = explore({"net": Planted()}, torch.rand(1, 1, 4, 8, 8), source="net, used", layer="second")
    whole = widget.page_state()
    assert list(whole["rows"]) == ["1/0/one layer", "1/1/one layer"] and whole["lacks"] == ""
    assert absent(whole) == {"first": [], "second": []}
    other, shown = (len(zlib.compress(base64.b64decode(rows["rows"]["base64"]))) for rows in whole["rows"].values())
    assert widget.page_state(shown + other)["rows"].keys() == whole["rows"].keys()
    part = widget.page_state(shown + other - 1)
    assert part["rows"] == {"1/1/one layer": whole["rows"]["1/1/one layer"]}
    assert absent(part) == {"first": [ONE], "second": []}
    assert part["lacks"] == (
        "Of the views of layers with weights this page has room for 1 of 2 in 'net, used'; the notebook has them all."
    )
    assert absent(widget.get_state()) == {"first": [], "second": []}  # the notebook's own has them
    with pytest.raises(ValueError, match=r"weights of 'second', one layer, are about [\d,]+ bytes: show a smaller"):
        widget.page_state(shown - 1)
    widget.source = "net"  # masks alone
    assert widget.page_state(0)["rows"] == {} and "0 of 2 in 'net, used'" in widget.page_state(0)["lacks"]
    widget.compared = ["net", "net, used"]
    with pytest.raises(ValueError, match="weights of 'second'"):
        widget.page_state(0)


def test_an_explorer_walks_through_a_network_once(monkeypatch):
    walks = []
    walked = layers_module.walked
    monkeypatch.setattr(layers_module, "walked", lambda *given: walks.append(1) or walked(*given))
    net = build("nonlocal_tiny", size=32)
    assert len(explore({"net": net}, torch.randn(1, 3, *net.config.clip)).relations) == 3 and walks == [1]


def test_rows_that_would_take_long_are_not_worked_out_for_a_page(monkeypatch):
    net = Planted()
    widget = explore({"net": net}, torch.rand(1, 1, 4, 8, 8))
    monkeypatch.setattr("course_lib.widgets.explorer.MOST_WORKED_OUT", 256 * 256 * 5 - 1)
    passes = []
    net.register_forward_hook(lambda part, args, out: passes.append(1))
    assert widget.page_state()["lacks"].count("0 of 2 in 'net, used'") == 1 and not passes
    monkeypatch.setattr("course_lib.widgets.explorer.MOST_WORKED_OUT", 256 * 256 * 5)
    assert widget.page_state()["lacks"] == ""


def absent(state: dict) -> dict[str, list[str]]:
    return {layer["name"]: layer["absent"] for layer in state["sources"][1]["layers"]}


def test_layers_to_record_are_named_for_convolutions_too(tmp_path):
    net = build("nonlocal_tiny", size=32)
    film = torch.randn(1, 3, *net.config.clip)
    widget = explore({"net": net}, film, layers=["res5 block 1 b"])
    assert list(widget.relations) == ["net", "net, used"]
    assert [layer.name for layer in widget.relations["net, used"]] == ["res5 block 1 b"]
    assert list(explore({"net": net}, film, layers=[]).relations) == ["net"]
    page = widget.save_html(tmp_path / "page.html").read_text()
    assert json.loads(re.search(r'id="state">(.*?)</script>', page, re.S)[1])["rows"].keys() == {"1/0/one layer"}
    with pytest.raises(ValueError, match=r"net has no layer \['res9'\]: there are \['"):
        explore({"net": net}, film, layers=["res9"])


@pytest.mark.parametrize(
    ("clip", "found"),
    [((8, 64, 64), (8, 32, 32)), ((64, 224, 224), (64, 56, 56)), ((4, 8, 8), (4, 8, 8)), ((8, 112, 170), (8, 28, 43))],
)
def test_gradients_are_told_in_squares_of_few_pixels(clip, found):
    assert places(Grid(*clip)) == Grid(*found)


# ---- every network


@pytest.mark.parametrize("name", [name for name in names() if name.endswith("_tiny")])
def test_every_network_opens_with_and_without_a_clip(name):
    net = build(name)
    frames = np.zeros((*net.config.clip, 3), np.uint8)
    for film in (None, torch.randn(1, 3, *net.config.clip)):
        widget = explore({"it": net}, film, frames)
        assert "multiply-adds" in widget.sources[-1]["facts"]
        data, _ = widget._repr_mimebundle_()
        assert len(still_in(data)[0]) > 60
        for layer in widget.sources[0]["layers"]:
            widget.layer = layer["name"]
            for view in layer["views"]:
                widget.view = view
                alt = widget._still()[1] if layer["name"] == widget.sources[0]["layers"][-1]["name"] else "t"
                assert alt


def test_several_networks_are_compared_with_what_they_cost():
    nets = {scheme: build("timesformer_tiny", attention=scheme, depth=1) for scheme in ("divided", "joint")}
    widget = explore(nets, compared=["divided", "joint"])
    facts = [source["facts"] for source in widget.sources]
    assert facts[1]["attention weights"] == f"{4 * 129**2 * 4 / 2**20:.1f} MiB" and facts[0] != facts[1]
    assert [source["layers"][1]["pairs"] for source in widget.sources] == [16 * 64, 129**2]


# ---- without a kernel


def test_the_stored_output_has_a_picture_beside_the_widget():
    data, _ = explorer()._repr_mimebundle_()
    alt, picture = still_in(data)
    assert data[VIEW]["model_id"] and data["text/plain"] == alt
    assert Image.open(io.BytesIO(picture)).format == "PNG"
    assert "the patch at frame 1, row 12, column 15 takes from. time: 3 of 61 tokens" in alt
    alt, _ = still_in(explorer(pinned=["class token", 0])._repr_mimebundle_()[0])
    assert "what class token 0 takes from. time: 0 of 61 tokens" in alt


def test_the_still_tells_keys_from_the_tokens_that_ask():
    """MViT pools its keys: a picture of 4 x 4 keys a step, in which 16 x 16 tokens ask."""
    net = build("mvit_tiny", stride=4)
    at = shares(net.config.clip, net.config.grid)
    few = shares(net.config.clip, Grid(4, 4, 4))
    whole = np.zeros(at.size, int), np.zeros(few.size, int)
    layer = Relation("block 1 pooled", "block 1", "attention", at, few, {"joint": SameGroup(*whole)})
    alt = AttentionExplorer(clip(Grid(8, 4, 4), 16), {"MViT": [layer]})._still()[1]
    assert alt.startswith(
        "8 frames of a clip in 4 steps of 4 x 4 keys; 4 x 16 x 16 tokens ask. MViT, block 1 pooled, one"
    )
    assert explorer()._still()[1].startswith("3 frames of a clip in 3 steps of 4 x 5 tokens. divided")


@pytest.mark.parametrize("template", ["lab", "classic"])
def test_nbconvert_shows_the_picture_with_its_alt_text_where_no_widget_state_is_stored(template):
    data, metadata = explorer()._repr_mimebundle_()
    output = nbformat.v4.new_output("execute_result", data, execution_count=1, metadata=metadata)
    cell = nbformat.v4.new_code_cell("explorer", outputs=[output], execution_count=1)
    page, _ = HTMLExporter(template_name=template).from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    pictures = re.findall(r"<img[^>]*data:image/png[^>]*>", page)
    assert len(pictures) == 1 and f'alt="{still_in(data)[0]}"' in html.unescape(pictures[0])
    assert VIEW not in page


def test_the_lecture_page_holds_everything_and_asks_the_network_for_nothing(tmp_path):
    net = build("timesformer_tiny", depth=1)
    widget = explore(net, torch.randn(1, 3, *net.config.clip), head=1, layer="block 1 space")
    path = widget.save_html(tmp_path / "page.html", title="Who <sees> whom?")
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//cdn|@import|\bsrc=\"(?!data:)|\bhref=", page)
    assert "<h1>Who &lt;sees&gt; whom?</h1>" in page and "{{" not in page.split("<script")[0]
    state = json.loads(re.search(r'<script type="application/json" id="state">(.*?)</script>', page, re.S)[1])
    assert (state["layer"], state["head"], state["hover"]) == ("block 1 space", 1, [])
    assert base64.b64decode(state["sprite"]["base64"]) == widget.sprite
    assert set(state["rows"]) == {f"0/{layer}/{view}" for layer in (0, 1) for view in (ONE, BLOCK, NETWORK)}
    assert base64.b64decode(state["rows"]["0/1/one layer"]["rows"]["base64"]) == widget.rows["0/1/one layer"]["rows"]
    script = re.search(r'<script type="text/plain" id="explorer">(.*?)</script>', page, re.S)[1]
    assert script == SCRIPT and "export default" in script
    assert [found.name for found in tmp_path.iterdir()] == ["page.html"]


def test_a_page_is_not_written_when_the_rows_that_it_shows_would_not_fit(tmp_path):
    with pytest.raises(ValueError, match=r"weights of 'block 1 space', one layer, are about [\d,]+ bytes: show"):
        explorer(source="learned").save_html(tmp_path / "page.html", most_bytes=100)
    assert not list(tmp_path.iterdir())
    page = explorer().save_html(tmp_path / "page.html", most_bytes=100).read_text(encoding="utf-8")
    assert "this page has room for 0 of 3 in 'learned'" in page


# ---- what is refused


def test_names_and_numbers_that_do_not_exist_are_refused_and_the_last_good_ones_kept():
    widget = explorer(source="learned")
    for name, value, message in [
        ("source", "diveded", "'divided', 'joint', 'learned'"),
        ("view", "three layers", "'one layer', 'whole block', 'whole network'"),
        ("layer", "block 2 time", "'block 1 space'"),
        ("head", 4, r"heads count from 1 to 3, and 0 is their mean"),
        ("pinned", [0, 24, 0], r"give \[frame, row, column\] inside the frames \(3, 24, 30\), or \[\] for none"),
        ("pinned", [0, 1], "inside the frames"),
        ("hover", ["cls", 0], r"extra tokens are \[name, number\] with the names 'class token'"),
        ("hover", ["class token", 1], "extra tokens are"),
        ("compared", ["joint", "axial"], r"compared=\['axial'\] is unknown here: choose from 'divided'"),
    ]:
        before = getattr(widget, name)
        with pytest.raises(ValueError, match=message):
            setattr(widget, name, value)
        with pytest.raises(ValueError, match=message):
            widget.set_state({name: value})  # the way in which a page's values arrive
        assert getattr(widget, name) == before


def test_another_source_brings_its_own_layers_views_and_heads():
    widget = explorer(source="learned", head=3)
    assert widget.layer == "block 1 space"
    widget.source = "divided"
    assert (widget.layer, widget.head) == ("block 1 space", 0)
    widget.view = "whole block"
    widget.source = "joint"
    assert (widget.layer, widget.view) == ("block 1 joint", "whole block")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": clip()[:, :12]}, r"frames \(3, 12, 30\) do not show the clip \(3, 24, 30\) of 'divided': crop"),
        ({"frames": clip().astype(float)}, r"frames must be uint8 \(T, H, W, 3\), have float64"),
        ({"relations": {}}, "no relations: pass at least one source"),
        ({"relations": {"joint": []}}, "source 'joint' has no layer"),
        ({"relations": {"twice": relations()["joint"] * 2}}, "names a layer 'block 1 joint' twice"),
    ],
    ids=lambda x: "",
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_a_way_out(changes, message):
    with pytest.raises(ValueError, match=message):
        explorer(**changes)


def test_reach_in_the_still_is_that_of_the_relations():
    layers = relations()["divided"]
    assert reach_of(layers, 33)[:60].all()
    alt = explorer(view="whole block")._still()[1]
    assert f"{reach_of(layers, 32).sum()} of 61 tokens reach it" in alt


def test_the_still_is_as_wide_as_its_caption():
    frames, tokens = np.zeros((2, 8, 8, 3), np.uint8), explorer().relations["divided"][0].queries
    narrow, wide = (
        Image.open(io.BytesIO(stills.still(frames, tokens, None, [], title))) for title in ("short", "w" * 300)
    )
    assert narrow.width < 800 and wide.width > 300 * 8
    lines = Image.open(io.BytesIO(stills.still(frames, tokens, None, [], "words " * 100)))
    assert lines.width == narrow.width and lines.height > narrow.height + 5 * 18, "words go on in the next line"
    assert stills.broken("a bc def", 40, ImageFont.load_default(size=18)) == ["a bc", "def"]
    right = np.asarray(wide.convert("L"))[:, -stills.MARGIN + 2 :]
    assert (right == right[0, 0]).all(), "the last letter stands before the margin"


def test_a_still_shows_what_is_taken_with_a_minus_sign():
    torch.manual_seed(0)
    net = build("nonlocal_tiny", width=4, size=32, frames=4, affinity="dot_product", classes=3)
    widget = explore(net, torch.randn(1, 3, 4, 32, 32), np.zeros((4, 32, 32, 3), np.uint8))
    layer = widget._here()
    query = widget.token(widget.pinned, layer)
    weights = layer.parts["joint"].row(query)[0]
    strong = np.abs(weights) >= np.abs(weights).max() / 2
    plus, minus = (strong & (weights > 0)).sum(), (strong & (weights < 0)).sum()
    assert (weights < 0).any() and plus + minus > 0
    alt = widget._still()[1]
    assert f"joint: {plus} of {weights.size} strongly, with a plus sign" in alt
    assert f"joint: {minus} of {weights.size} strongly, with a minus sign" in alt


def test_no_word_of_a_stills_legend_is_cut():
    frames, tokens = clip(), shares(Grid(8, 64, 64), Grid(8, 4, 4))
    none = np.zeros(tokens.size, dtype=bool)
    many = [
        stills.Painted(f"scheme {i}: 2 of 64 tokens get more than an equal share", "#fedcba", none) for i in range(3)
    ]
    picture = np.asarray(Image.open(io.BytesIO(stills.still(frames, tokens, None, many, "t"))).convert("RGB"))
    squares = (np.abs(picture.astype(int) - (0xFE, 0xDC, 0xBA)).sum(-1) < 12).any(1)
    assert np.diff(squares.astype(int)).tolist().count(1) == 3  # a line each
    assert (picture[:, -stills.MARGIN :] == picture[0, -1]).all()
