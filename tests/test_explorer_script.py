"""The explorer's JavaScript, run by Node: the same answers as Python's."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import torch
from test_explorer import LAYOUTS, clip, everything, learned, mask_after_weights, tokens
from torch import nn

from course_lib import paths
from course_lib.analysis.gradients import USED, Gradients, Pass
from course_lib.analysis.layers import layer_masks
from course_lib.analysis.relations import Bits, Call, Reads, Relation, SameGroup, Weights, reach_of
from course_lib.analysis.tokens import Tokens, shares
from course_lib.grid import Grid
from course_lib.models import build
from course_lib.widgets import AttentionExplorer, stills
from course_lib.widgets.explorer import SCRIPT
from course_lib.widgets.rows import packed
from course_lib.widgets.sources import NETWORK, Tables, chain, described, part_as_json, tokens_as_json

HARNESS = """
import * as explorer from "./explorer.mjs";
let text = "";
for await (const chunk of process.stdin) text += chunk;
const revive = (_, value) => value?.base64 === undefined ? value
  : Uint8Array.from(atob(value.base64), c => c.charCodeAt(0));
const { code, given } = JSON.parse(text, revive);
const plain = (_, value) => ArrayBuffer.isView(value) ? Array.from(value) : value;
const found = await new Function("explorer", ...Object.keys(given), code)(explorer, ...Object.values(given));
console.log(JSON.stringify(found, plain));
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """node("return explorer.size(grid)", grid=[2, 3, 4]): what this JavaScript returns, arrays as lists."""
    program = shutil.which("node")
    if program is None:
        assert not os.environ.get("CI"), "CI has no node: .ci/run installs it"
        pytest.skip("needs Node: apt install nodejs")
    folder = tmp_path_factory.mktemp("script")
    (folder / "explorer.mjs").write_text(SCRIPT, encoding="utf-8")
    (folder / "harness.mjs").write_text(HARNESS, encoding="utf-8")

    def run(code: str, **given):
        text = json.dumps({"code": code, "given": given}, default=_jsonable)
        done = subprocess.run([program, "harness.mjs"], cwd=folder, input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def _jsonable(value):
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else np.asarray(value).tolist()


def part(found) -> tuple[dict, list[bytes]]:
    tables = Tables()
    return part_as_json("it", found, "#000000", tables), list(tables.number)


# ---- where tokens lie


@pytest.mark.parametrize(("size", "grid", "extra"), LAYOUTS, ids=lambda x: "x".join(map(str, x)) if x[:0] == () else "")
def test_the_page_lays_out_as_python_does(node, size, grid, extra):
    at = shares(size, grid)._replace(extra=extra)
    for width, height, top in ((960, 560, 0), (700, 180, 40)):
        layout = stills.Layout.fit(at, width, height, top)
        few = sorted({0, grid.size // 2, grid.size - 1, at.size - 1})
        found = node(
            """const layout = explorer.layoutOf(at, clip, width, height, top);
            return [layout.panel, layout.columns, layout.size, few.map(token => explorer.boxOf(token, layout))]""",
            at=tokens_as_json(at), clip=size, width=width, height=height, top=top, few=few,
        )  # fmt: skip
        assert found[:3] == [list(layout.panel), layout.columns, list(layout.size)]
        np.testing.assert_allclose(found[3], [layout.box(token) for token in few])


def test_under_the_middle_of_every_token_lies_its_place_and_the_place_is_its_token(node):
    at, size = tokens(), clip().shape[:3]
    code = """const layout = explorer.layoutOf(at, clip, 960);
    return Array.from({ length: at.size }, (_, token) => {
      const [x, y, w, h] = explorer.boxOf(token, layout);
      const place = explorer.placeUnder(x + w / 2, y + h / 2, layout, clip);
      return [explorer.tokenOf(place, at, clip), explorer.tokenOf(explorer.placeOf(token, at, clip), at, clip)];
    })"""
    assert node(code, at=tokens_as_json(at), clip=size) == [[token, token] for token in range(at.size)]
    outside = """const layout = explorer.layoutOf(at, clip, 960);
    const points = [[0, 0], [layout.size[0] - 1, 50], [-5, 1e6]];
    return points.map(([x, y]) => explorer.placeUnder(x, y, layout, clip))"""
    assert node(outside, at=tokens_as_json(at), clip=size) == [[], [], []]


def test_the_one_who_asks_is_outlined_where_the_still_outlines_it(node):
    """On another grid than the one that answers: 2 steps of time are two panels each, a class token is its tile."""
    asking, at = tokens(Grid(2, 2, 5)), tokens(Grid(4, 4, 5))
    layout = stills.Layout.fit(at, 960)
    code = """const layout = explorer.layoutOf(at, clip, 960);
    return queries.map(query => explorer.outlines(query, asking, layout))"""
    queries = [3, 13, 20, -1]
    early, late, extra, none = node(
        code, asking=tokens_as_json(asking), at=tokens_as_json(at), clip=at.clip, queries=queries
    )
    for t, patch in enumerate((early, late)):  # row 0, column 3
        here = stills.Box((t / 2, 0, 3 / 5), (t / 2 + 1 / 2, 1 / 2, 4 / 5))
        assert [list(map(round, box)) for box in patch] == [list(box) for box in stills.asked_boxes(layout, at, here)]
        assert len(patch) == 2
    assert none == []
    assert extra == [list(box) for box in stills.asked_boxes(layout, at, stills.Box(extra="class token"))]


def test_a_place_is_the_same_token_as_in_python(node):
    widget = AttentionExplorer(clip(), everything())
    layer = widget.relations["divided"][0]
    places = [[0, 0, 0], [2, 23, 29], [1, 12, 15], [1, 11, 17], ["class token", 0], ["class token", 3], ["cls", 0], []]
    found = node(
        "return places.map(place => explorer.tokenOf(place, at, clip))",
        places=places,
        at=tokens_as_json(layer.queries),
        clip=widget.clip,
    )
    want = [widget.token(place, layer) for place in places]
    assert found == [-1 if token is None else token for token in want]


def test_a_frame_of_many_stands_for_a_step_of_time(node):
    found = node("return [[0, 4, 8], [3, 4, 8], [2, 8, 8], [1, 4, 32]].map(args => explorer.frameOf(...args))")
    assert found == [1, 7, 2, 12] == [stills.frame_of(*args) for args in [(0, 4, 8), (3, 4, 8), (2, 8, 8), (1, 4, 32)]]


def test_steps_stop_at_the_edge_and_neighbours_stay_in_the_frame(node):
    at, grid = tokens_as_json(tokens()), Grid(3, 4, 5)
    middle = int(np.ravel_multi_index((1, 2, 2), grid))
    steps = [[0, 0, 1], [0, 0, -1], [1, 0, 0], [-9, 0, 0], [0, 9, 0]]
    code = "return steps.map(by => explorer.moved(token, by, at))"
    found = node(code, at=at, token=middle, steps=steps)
    assert found == [np.ravel_multi_index(to, grid) for to in [(1, 2, 3), (1, 2, 1), (2, 2, 2), (0, 2, 2), (1, 3, 2)]]
    for token in (0, middle, 59):
        t, i, j = np.unravel_index(token, grid)
        around = {to for to in np.ndindex(*grid) if to[0] == t and abs(to[1] - i) <= 1 and abs(to[2] - j) <= 1}
        first, *others = node("return explorer.neighbourhood(token, at)", at=at, token=int(token))
        assert first == token and {np.unravel_index(other, grid) for other in [first, *others]} == around
    assert node("return explorer.neighbourhood(60, at)", at=at) == [60]


# ---- masks


def random_parts():
    rng = np.random.default_rng(0)
    numbers = rng.integers(-2, 5, (2, 20))
    yield SameGroup(numbers[0], rng.integers(-2, 5, 30))
    yield SameGroup(np.where(numbers[1] < 0, 0, numbers[1]), rng.integers(0, 5, 30))
    yield Reads(tuple(rng.random((n, m)) < 0.5 for n, m in ((2, 3), (3, 2), (3, 5))), extra=2)
    yield Bits.of(rng.random((20, 30)) < 0.3)


@pytest.mark.parametrize("found", list(random_parts()), ids=lambda found: type(found).__name__)
def test_rows_and_what_many_reach_are_those_of_python(node, found):
    as_json, tables = part(found)
    rng = np.random.default_rng(1)
    asking = [(rng.random(20) < share).astype(int).tolist() for share in (0, 0.1, 0.5, 1)]
    rows, reached = node(
        """const it = explorer.unpackPart(part, tables);
        return [Array.from({ length: 20 }, (_, query) => explorer.rowOf(it, query)),
          asking.map(one => explorer.reached(it, Uint8Array.from(one)))]""",
        part=as_json, tables=tables, asking=asking,
    )  # fmt: skip
    assert rows == [found.row(query).astype(int).tolist() for query in range(20)]
    assert reached == [found.reached(np.array(one, bool)).astype(int).tolist() for one in asking]


LAYERS = """const layers = source.layers.map(layer => ({
  ...layer, parts: layer.parts.map(part => explorer.unpackPart(part, tables)),
  ofKeys: explorer.unpackPart(layer.ofKeys, tables), ofQueries: explorer.unpackPart(layer.ofQueries, tables),
  sees: explorer.unpackPart(layer.sees, tables) }));"""


@pytest.mark.parametrize(
    ("name", "changes"),
    [("timesformer_tiny", {}), ("video_swin_tiny", {"size": 32}), ("mvit_tiny", {"size": 32}),
     ("vtn_tiny", {"size": 32}), ("vivit_tiny", {"model": 2, "size": 32}), ("cvidtr_tiny", {"size": 32}),
     ("vidtr_tiny", {"size": 32, "depth": 1})],
)  # fmt: skip
def test_the_way_through_a_network_is_that_of_python(node, name, changes):
    layers = layer_masks(build(name, **changes))
    last = len(layers) - 1
    found = chain(layers, last, NETWORK)
    assert found
    (source,), tables = described({"it": layers}, {})
    queries = [0, layers[last].queries.size // 2, layers[last].queries.size - 1]
    reached = node(
        LAYERS + "return queries.map(query => explorer.reachThrough(layers.slice(first), query).reached)",
        source=source, tables=tables, queries=queries, first=layers.index(found[0]),
    )  # fmt: skip
    assert reached == [reach_of(found, query).astype(int).tolist() for query in queries]


def test_each_token_is_told_by_how_many_layers_it_lies_back(node):
    """Divided attention on 1 x 2 patches in 2 frames: the own frame in the last layer, the rest one layer before."""
    layers = layer_masks(build("timesformer_tiny", depth=1, frames=2, size=(16, 32)))
    (source,), tables = described({"it": layers}, {})
    found = node(
        LAYERS + "const { steps, told } = explorer.reachThrough(layers.slice(1), 0); return { steps, told }",
        source=source, tables=tables,
    )  # fmt: skip
    assert found["steps"] == [1, 1, 2, 2, 1]
    assert found["told"] == [
        {"name": "space", "last": True, "found": 3}, {"name": "time", "last": False, "found": 2},
    ]  # fmt: skip


def test_layers_of_one_name_are_counted_together(node):
    """Two blocks of divided attention on 2 x 2 patches in 2 frames: after one block there is nothing left to reach."""
    layers = layer_masks(build("timesformer_tiny", depth=2, frames=2, size=32))
    (source,), tables = described({"it": layers}, {})
    told = node(LAYERS + "return explorer.reachThrough(layers.slice(1), 0).told", source=source, tables=tables)
    assert told == [
        {"name": "space", "last": False, "found": 5}, {"name": "time", "last": False, "found": 4},
    ]  # fmt: skip


def test_a_unit_sees_the_runs_that_python_has(node):
    layers = layer_masks(build("slowfast_tiny", join="none", size=32))
    layer = next(found for found in layers if found.name == "slow res4 block 1 a")
    as_json, tables = part(Reads(layer.queries.sees))
    query = int(np.ravel_multi_index((1, 1, 1), layer.queries.grid))
    runs = node(
        "return explorer.runsOf(explorer.unpackPart(part, tables), query)", part=as_json, tables=tables, query=query
    )
    assert runs[0] == [[0, 1], [5, 6], [10, 11]], "the slow path skips frames"
    for axis, (spans, i) in enumerate(zip(runs, (1, 1, 1), strict=True)):
        inside = [at for first, stop in spans for at in range(first, stop)]
        assert inside == np.flatnonzero(layer.queries.sees[axis][i]).tolist()


def test_runs_end_at_every_gap(node):
    """Drawn by hand: x.xx along time, x along height, .xx.x along width."""
    t, h, w = (np.array([[mark == "x" for mark in line]]) for line in ("x.xx", "x", ".xx.x"))
    as_json, tables = part(Reads((t, h, w)))
    code = "return explorer.runsOf(explorer.unpackPart(part, tables), 0)"
    assert node(code, part=as_json, tables=tables) == [[[0, 1], [2, 4]], [[0, 1]], [[1, 3], [4, 5]]]


def test_stripes_show_every_part_that_meets_in_a_patch(node):
    """Drawn by hand: 2 x 3 tokens, a row (a) and a column (b) that meet in the first."""
    masks = [{"mask": [1, 1, 1, 0, 0, 0], "packed": 10}, {"mask": [1, 0, 0, 1, 0, 0], "packed": 20}]
    code = "const pixels = new Uint32Array(12); explorer.paintMasks(pixels, masks, 2); return pixels"
    assert node(code, masks=masks) == [10, 20, 10, 10, 10, 10, 20, 20, 0, 0, 0, 0]
    assert node("return [1, 2, 3, 4].map(explorer.stripesFor)") == [1, 2, 6, 12]
    code = "const pixels = new Uint32Array(8); explorer.paintSteps(pixels, [1, 0, 2, 1], [7, 9], 2); return pixels"
    assert node(code) == [7, 7, 0, 0, 9, 9, 7, 7]


# ---- weights


def test_weights_come_through_bytes_to_within_half_a_level(node):
    weights = learned().parts["space"]
    for query in (0, 33, 60):
        row = weights.row(query)
        code = """const row = explorer.unpackRow(data, [{ signed: false }]);
        return [0, 2].map(head => explorer.weightsOf(row, head, 61))"""
        mean, one = node(code, data=packed([weights], query))
        for shown, right in ((mean, row.mean(0)), (one, row[1])):
            np.testing.assert_allclose(shown["weights"], right, atol=row.max() / 509)
            assert shown["best"] == right.argmax() and shown["sum"] == pytest.approx(right.sum(), abs=1e-5)
            assert shown["uniform"] == pytest.approx(1 / (row != 0).any(0).sum())


def one_row(weights: list[list[float]]) -> Weights:
    call = Call(np.array([[0]]), np.array([[0, 1, 2]]), np.array(weights)[None, :, None])
    return Weights((call,), 1, 3)


def test_heads_count_through_all_parts_and_a_row_keeps_its_signs(node):
    rows = [one_row([[0.5, -0.25, 0]]), one_row([[0, 0.1, 0.3]])]
    code = """const row = explorer.unpackRow(data, [{ signed: true }, { signed: false }]);
    return [0, 1, 2].map(head => Array.from(explorer.weightsOf(row, head, 3).weights))"""
    mean, first, second = node(code, data=packed(rows, 0))
    np.testing.assert_allclose(first, [0.5, -0.25, 0], atol=0.003)
    np.testing.assert_allclose(second, [0, 0.1, 0.3], atol=0.003)
    np.testing.assert_allclose(mean, [0.25, -0.075, 0.15], atol=0.003)


def test_one_row_of_many_is_found_by_where_it_begins(node):
    widget = AttentionExplorer(clip(), everything())
    stored = widget.rows["2/0/one layer"]
    code = "return [explorer.rowFrom(stored, 33, [{}]), explorer.unpackRow(alone, [{}])]"
    whole, alone = node(code, stored=stored, alone=packed([learned().parts["space"]], 33))
    assert whole == alone


def test_colour_begins_at_the_equal_share(node):
    code = """const pixels = new Uint32Array(5), heat = Array.from({ length: 256 }, (_, i) => 1000 + i);
    explorer.paintWeights(pixels, found, { heat, veil: 7, negative: 0x112233, signed }, 1); return pixels"""
    found = {"weights": [0.5, 0.25, 0.1, 0.375, 0], "may": [1, 1, 1, 1, 0], "most": 0.5, "uniform": 0.25}
    assert node(code, found=found, signed=False) == [1255, 7, 7, 1128, 0]
    found = {"weights": [0.5, -0.5, 0, -0.25, 0], "may": [1, 1, 1, 1, 0], "most": 0.5, "uniform": 0.25}
    assert node(code, found=found, signed=True)[:3] == [1255, 0x112233 + (round(255 * 0.9) << 24), 1000]


def test_no_digit_is_shown_that_a_byte_does_not_carry(node):
    code = """return maxima.map(most => {
      const row = [{ keys: [0], levels: [[255]], scales: [most / 255], sums: [most] }];
      return explorer.weightsOf(row, 0, 1).told(most);
    })"""
    assert node(code, maxima=[1.0, 0.25, 0.01, 0.0]) == ["1.00", "0.250", "0.0100", "0.00"]


def test_colours_are_packed_as_the_canvas_keeps_them(node):
    (value,) = node('return [explorer.pack(...explorer.hexToRgb("#0A72B2"), 128)]')
    assert value.to_bytes(4, "little") == bytes([0x0A, 0x72, 0xB2, 128])


# ---- words

DESCRIBE = LAYERS + "return explorer.describe({ head: 0, view: 'one layer', ...more, layer: layers[number] })"


def say(node, layers, number: int, **more) -> str:
    (source,), tables = described({"it": layers}, {})
    return node(DESCRIBE, source=source, tables=tables, number=number, more=more)


def test_the_words_say_what_the_masks_are(node):
    layers = everything()["divided"]
    assert say(node, layers, 1, query=33) == (
        "Patch at time 1, row 2, column 3. In block 1 space it may take from 20 of 61 tokens (space)."
    )
    assert say(node, layers, 1, query=None).startswith("Point at a patch")
    assert say(node, layers, 1, query=-1) == "No such token takes part in block 1 space."
    through = {"reached": [1] * 60 + [0]}
    words = say(node, layers, 1, query=60, view="whole block", through=through)
    assert words == "Class token. Through all layers of block 1 it can depend on 60 of 61 tokens."
    ways = [("space", True, 21), ("time", False, 39)]
    through["told"] = [{"name": name, "last": last, "found": found} for name, last, found in ways]
    words = say(node, layers, 1, query=60, view="whole block", through=through)
    assert words.endswith("can depend on 60 of 61 tokens: 21 in the last layer (space), 39 through time.")
    through["told"].pop()
    assert say(node, layers, 1, query=60, view="whole block", through=through).endswith("60 of 61 tokens.")
    assert "It sees 4.2 % of the clip through all layers up to" in say(node, layers, 0, query=0, seen=0.042)


def test_the_words_name_the_strongest_weights_or_say_that_the_kernel_is_late(node):
    layers = [learned()]
    row = [
        {"keys": [4, 60], "levels": [[255, 51], [0, 255], [0, 0]], "scales": [0.002, 0.001, 0], "sums": [0.7, 0.3, 0]}
    ]
    text = say(node, layers, 0, query=0, head=1, row=row)
    assert "Strongest in block 1 space, head 1: 0.51 at time 0, row 0, column 4; 0.10 at class token." in text
    assert "It takes from 2 of 61 tokens, 0.50 each if all were equal; they add up to 0.70." in text
    assert "mean of 3 heads" in say(node, layers, 0, query=0, row=row)
    assert "Waiting for the kernel" in say(node, layers, 0, query=0)
    assert "did not answer within 0.5 s" in say(node, layers, 0, query=0, late=True)


def gradient(queries: Tokens, keys: Tokens) -> Relation:
    part = Gradients(Pass(nn.Identity(), torch.zeros(1, 3, *keys.clip)), "conv", keys)
    return Relation("conv", "conv", "gradient", queries, keys, {USED: part})


def test_the_words_say_what_a_unit_sees_and_used(node):
    """Two frames of 2 x 2 pixels, each read as it is by a unit that sees all of its frame."""
    one, everywhere = np.eye(2, dtype=bool), np.ones((2, 2), dtype=bool)
    at = shares(Grid(2, 2, 2), Grid(2, 2, 2))
    units = at._replace(sees=(one, everywhere, everywhere))
    layers = [gradient(units, at)]
    row = [{"keys": [4, 5, 7], "levels": [[51, 255, 26]], "scales": [0.003], "sums": [1]}]
    text = say(node, layers, 0, query=6, row=row)
    assert text.startswith(
        "Patch at time 1, row 1, column 0. In conv it used most: 0.76 at time 1, row 0, column 1; 0.15"
    )
    assert text.endswith("its gradient is not zero in 3 of 8 places, and half of it lies in 1.")
    assert "It sees 50 % of the clip;" in text
    even = [{"keys": [4, 5, 7], "levels": [[255, 255, 255]], "scales": [0.0013], "sums": [1]}]
    assert say(node, layers, 0, query=6, row=even).endswith("not zero in 3 of 8 places, and half of it lies in 2.")
    zero = [{"keys": [], "levels": [[]], "scales": [0], "sums": [0]}]
    assert "sees 50 % of the clip through all layers up to conv, but its gradient is zero" in say(
        node, layers, 0, query=6, row=zero
    )
    assert "works out the gradient of this unit of conv" in say(node, layers, 0, query=6)
    assert "did not answer within 20 s" in say(node, layers, 0, query=6, late=True)


def test_a_row_that_costs_a_pass_is_asked_for_alone(node):
    code = """const sent = [], rows = explorer.kernelRows({ send: message => sent.push(message.queries) }, () => {});
    rows.ask({ source: 0, layer: 0, view: "one layer" }, 33, at, costly);
    rows.stop();
    return sent"""
    at = tokens_as_json(tokens())
    assert node(code, at=at, costly=True) == [[33]]
    ((first, *around),) = node(code, at=at, costly=False)
    assert first == 33 and len(around) == 8


def test_a_refusal_or_an_answer_makes_room_for_the_next_row(node):
    code = """const sent = [], at0 = { source: 0, layer: 0, view: "one layer" };
    const rows = explorer.kernelRows({ send: message => sent.push(message.queries[0]) }, () => {});
    const ask = query => rows.ask(at0, query, at, true);
    ask(1), ask(2), rows.receive({ kind: "refused" }, []), ask(1), ask(3), ask(4);
    rows.receive({ kind: "rows", ...at0, queries: [3] }, [new Uint8Array([7])]), ask(3), ask(4), rows.stop();
    return [sent, rows.late(at0, 1), rows.get(at0, 3)]"""
    assert node(code, at=tokens_as_json(tokens())) == [[1, 3, 4], True, [7]]


def test_the_words_say_why_views_are_missing(node):
    def why(layers, number):
        (source,), _ = described({"it": layers}, {})
        return node("return explorer.withoutWords(layers[number], layers)", layers=source["layers"], number=number)

    assert why(everything()["divided"], 0) == ""
    convolutions = layer_masks(build("nonlocal_tiny", size=32))
    assert why(convolutions, 0).startswith("Convolutions run side by side and have no whole block")
    call = Call(np.arange(61)[None], np.arange(61)[None], np.full((1, 1, 61, 61), -0.5))
    signed = Relation("it", "it", "attention", tokens(), tokens(), {"it": Weights((call,), 61, 61)})
    assert why([signed], 0).startswith("Rollout multiplies shares. Affinities may be negative")
    assert why([gradient(tokens(), tokens())], 0).startswith("The gradient comes from the clip itself")
    assert why(mask_after_weights(), 1).startswith("This layer only thins tokens out. Those before it show weights")


def test_what_stands_beside_a_source_is_short(node):
    (source,), _ = described(
        {"divided": layer_masks(build("timesformer_tiny"))}, {"divided": {"multiply-adds": "196 G"}}
    )
    words = node("return explorer.factWords(source, source.layers[2])", source=source)
    assert words == "divided · block 1 space: 129 tokens, 2305 pairs, multiply-adds 196 G"
    (source,), _ = described({"used": [gradient(tokens(), tokens())]}, {})
    assert node("return explorer.factWords(source, source.layers[0])", source=source) == "used · conv: 61 units"
    layer = {"name": "all", "keys": {"size": 1569}, "pairs": 2_461_761}
    assert node("return explorer.factWords({ name: 'joint', facts: {} }, layer)", layer=layer) == (
        "joint · all: 1569 tokens, 2.5 M pairs"
    )


# ---- the states that are kept for pages without a kernel

# A page of nothing: elements and pens that take everything. The script shows each layer of each source in each view
# that it has; what it throws ends the program.
EVERY_VIEW = """
const image = (w, h) => ({ data: new Uint8ClampedArray(4 * w * h) });
const known = { createImageData: image, getImageData: (x, y, w, h) => image(w, h), measureText: () => ({ width: 10 }) };
const pen = new Proxy({}, { get: (_, name) => known[name] ?? (() => {}), set: () => true });
class Element {
  constructor() { Object.assign(this, { style: { setProperty() {} }, dataset: {} }); }
  append() {} replaceChildren() {} setAttribute() {} dispatchEvent() {} getContext() { return pen; }
}
const made = {};
globalThis.document = { createElement: tag => (made[tag] ??= []).at(made[tag].push(new Element()) - 1) };
globalThis.window = { devicePixelRatio: 1 };
globalThis.OffscreenCanvas = Element;
globalThis.createImageBitmap = async () => ({ width: 64, height: 64 * state.clip[0] });
const heard = {}, model = {
  get: name => state[name], save_changes() {}, send() {}, off() {},
  set(name, value) { const old = state[name]; state[name] = value; if (old !== value) heard[`change:${name}`]?.(); },
  on: (name, call) => (heard[name] = call),
};
return (async () => {
  const stop = explorer.default.render({ model, el: new Element() }), said = [];
  await new Promise(setImmediate);
  const [canvas] = made.canvas, readout = made.p.find(({ className }) => className === "readout");
  for (const { name: source, layers } of state.sources) for (const { name: layer, views, absent } of layers)
    for (const view of views.filter(view => !absent.includes(view))) {
      for (const [name, value] of Object.entries({ source, layer, view, head: 0 })) model.set(name, value);
      await new Promise(setImmediate);
      said.push([source, layer, view, readout.textContent]);
    }
  stop();
  return said;
})();
"""
STATES = sorted((paths.DATA / "explorers").glob("*.json.gz"))


@pytest.mark.parametrize("path", STATES, ids=lambda path: path.name.partition(".")[0])
def test_every_view_of_every_stored_explorer_answers(node, path):
    kept = json.loads(gzip.decompress(path.read_bytes()))
    for cell, explorers in kept.items():
        for explorer in explorers:
            answers = node(EVERY_VIEW, state=explorer["state"])
            assert answers
            silent = [one for one in answers if len(one[3]) < 40 or "kernel" in one[3]]
            assert not silent, (cell, silent[:3])


def test_every_stored_explorer_offers_what_the_notebook_does():
    """No mask that comes after layers with weights has a whole network."""
    assert len(STATES) == 11
    for path in STATES:
        for explorers in json.loads(gzip.decompress(path.read_bytes())).values():
            for source in (source for explorer in explorers for source in explorer["state"]["sources"]):
                for layer in (one for one in source["layers"] if not one["weights"]):
                    assert set(layer["chains"]) <= set(layer["views"])
                    for ends in layer["chains"].values():
                        through = source["layers"][ends["first"] : ends["last"] + 1]
                        assert not any(one["weights"] for one in through), (path.name, source["name"], layer["name"])
