"""What static/explorer.js computes (geometry, masks, weights, words), in Node, against Python and drawings by hand."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from test_explorer import GRID, clip, explorer, maps, schemes, softmax_map

from course_lib.grid import Grid
from course_lib.widgets import explorer as widget
from course_lib.widgets import stills
from course_lib.widgets.groups import attended, attended_twice
from course_lib.widgets.weights import checked_map

HARNESS = """
import * as explorer from "./explorer.mjs";
import { readFileSync } from "node:fs";
const revive = (_, value) => value?.base64 === undefined ? value
  : new DataView(Uint8Array.from(Buffer.from(value.base64, "base64")).buffer);
const { code, given } = JSON.parse(readFileSync(0, "utf8"), revive);
const plain = (_, value) => ArrayBuffer.isView(value) ? Array.from(value) : value;
const found = new Function("explorer", ...Object.keys(given), code)(explorer, ...Object.values(given));
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
    (folder / "explorer.mjs").write_text((widget.STATIC / "explorer.js").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "harness.mjs").write_text(HARNESS, encoding="utf-8")

    def run(code: str, **given):
        text = json.dumps({"code": code, "given": given}, default=_jsonable)
        done = subprocess.run([program, "harness.mjs"], cwd=folder, input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def _jsonable(value):
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else np.asarray(value).tolist()


def geometry(grid: Grid) -> dict:
    found = explorer(frames=clip(grid), grid=grid, schemes=schemes(grid), maps=None, maps_scheme="")
    return found.geometry


# ---- geometry


def test_tokens_are_numbered_row_major_and_the_numbers_come_back(node):
    found = node("return Array.from({ length: 60 }, (_, i) => explorer.position(i, grid))", grid=GRID)
    assert found == [list(map(int, at)) for at in np.ndindex(*GRID)]
    back = node("return positions.map(at => explorer.tokenAt(at, grid))", grid=GRID, positions=found)
    assert back == list(range(60))
    assert node("return explorer.size(grid)", grid=GRID) == 60


def test_patches_lie_where_python_draws_them_and_each_is_found_under_its_middle(node):
    layout, shape = stills.Layout.fit(GRID, 960), geometry(GRID)
    boxes = node(
        "return Array.from({ length: 60 }, (_, i) => explorer.patchBox(i, grid, shape))", grid=GRID, shape=shape
    )
    for token, (x, y, side) in enumerate(boxes):
        assert (x + side / 2, y + side / 2) == layout.centre(token) and side == layout.patch
    code = """return boxes.map(([x, y, side]) => corners.map(([a, b]) =>
        explorer.tokenUnder(x + a * side, y + b * side, grid, shape)))"""
    corners = [(0, 0), (0.99, 0.99), (0.5, 0.5)]
    found = node(code, grid=GRID, shape=shape, boxes=boxes, corners=corners)
    assert found == [[token] * 3 for token in range(60)]


def test_between_the_frames_there_is_no_token(node):
    shape = geometry(GRID)
    left, top = shape["corners"][0]
    right = left + GRID.w * shape["patch"]
    points = [(left - 1, top), (left, top - 1), (right, top), (0, 0), (-5, 1e6)]
    code = "return points.map(([x, y]) => explorer.tokenUnder(x, y, grid, shape))"
    assert node(code, points=points, grid=GRID, shape=shape) == [-1] * len(points)


def test_steps_stop_at_the_edge_and_neighbours_stay_in_the_frame(node):
    middle = node("return explorer.middle(grid)", grid=GRID)
    assert middle == np.ravel_multi_index((1, 2, 2), GRID)
    steps = [[0, 0, 1], [0, 0, -1], [1, 0, 0], [-9, 0, 0], [0, 9, 0]]
    found = node("return steps.map(by => explorer.moved(at, by, grid))", grid=GRID, at=middle, steps=steps)
    assert found == [np.ravel_multi_index(at, GRID) for at in [(1, 2, 3), (1, 2, 1), (2, 2, 2), (0, 2, 2), (1, 3, 2)]]
    for token in (0, middle, 59):
        t, i, j = np.unravel_index(token, GRID)
        around = {at for at in np.ndindex(*GRID) if at[0] == t and abs(at[1] - i) <= 1 and abs(at[2] - j) <= 1}
        first, *others = node("return explorer.neighbourhood(at, grid)", grid=GRID, at=int(token))
        assert first == token and {np.unravel_index(other, GRID) for other in [first, *others]} == around


# ---- masks


def test_one_layer_and_two_are_the_masks_of_python(node):
    rng = np.random.default_rng(0)
    last, before = rng.integers(0, 9, 60), rng.integers(0, 12, 60)
    code = (
        """return queries.map(query => [explorer.attended(last, query), explorer.attendedTwice(last, before, query)])"""
    )
    found = node(code, last=last, before=before, queries=range(60))
    for query, (direct, twice) in enumerate(found):
        assert direct == twice["direct"] == attended(last, query).tolist()
        assert twice["reached"] == attended_twice(last, before, query).tolist()
    assert node("return explorer.count([1, 0, 1, 1])") == 3


def test_the_last_layer_follows_the_one_before_it_and_a_single_one_follows_itself(node):
    assert node("return [explorer.lastTwo([1, 2, 3]), explorer.lastTwo([7])]") == [[3, 2], [7, 7]]


def test_stripes_show_every_layer_that_meets_in_a_patch(node):
    """Drawn by hand: 2 x 3 tokens of one frame, the query at the upper left, rows (a) and columns (b)."""
    steps = [{"group": [0, 0, 0, 1, 1, 1], "packed": 10}, {"group": [0, 1, 2, 0, 1, 2], "packed": 20}]
    code = "const pixels = new Uint32Array(12); explorer.paintLayers(pixels, steps, 0, 2); return pixels"
    assert node(code, steps=steps) == [10, 20, 10, 10, 10, 10, 20, 20, 0, 0, 0, 0]
    assert node("return [[1], [2], [2, 3], [1, 2, 3, 4]].map(explorer.stripesFor)") == [2, 2, 6, 12]
    code = "const pixels = new Uint32Array(12); explorer.paintTwoLayers(pixels, steps, 0, 2); return pixels"
    assert node(code, steps=steps) == [10] * 6 + [20] * 6


# ---- weights


def test_weights_come_through_bytes_to_within_half_a_level(node):
    for name, found in maps().items():
        checked = checked_map(name, found, GRID.size)
        code = """const map = explorer.unpackMap(packed, heads, 60);
        return queries.map(query => [-1, 1].map(head => explorer.weightsOf(explorer.rowOfMap(map, query), head)))"""
        rows = node(code, packed=checked.packed(), heads=checked.heads, queries=range(60))
        for query, (mean, one) in enumerate(rows):
            members, weights = checked.row(query)
            assert mean["members"] == one["members"] == members.tolist()
            for shown, right in ((mean, weights.mean(0)), (one, weights[1])):
                np.testing.assert_allclose(shown["weights"], right, atol=weights.max() / 509)
                assert shown["most"] == max(shown["weights"]) and shown["sum"] == pytest.approx(right.sum(), abs=1e-5)


def test_a_row_from_the_kernel_is_the_row_of_the_whole_map(node):
    found = checked_map("space", softmax_map(np.arange(60).reshape(3, 20), heads=2), GRID.size)
    code = """return [explorer.rowOfMap(explorer.unpackMap(packed, 2, 60), 33), explorer.unpackRow(buffers)]"""
    whole, asked = node(code, packed=found.packed(), buffers=list(found.packed(33).values()))
    assert whole == asked and whole["members"] == list(range(20, 40))


def test_no_digit_is_shown_that_a_byte_does_not_carry(node):
    code = """return maxima.map(most => {
      const row = { members: [0], levels: [[255]], scales: [most / 255], sums: [most] };
      return explorer.weightsOf(row, -1).told(most);
    })"""
    assert node(code, maxima=[1.0, 0.25, 0.01, 0.0]) == ["1.00", "0.250", "0.0100", "0.00"]


def test_the_strongest_weight_is_the_brightest(node):
    code = """const pixels = new Uint32Array(8), heat = Array.from({ length: 256 }, (_, i) => 1000 + i);
    explorer.paintWeights(pixels, { members: [3, 1], weights: [0.5, 0.1], most: 0.5 }, heat, 2); return pixels"""
    assert node(code) == [0, 0, 1051, 1051, 0, 0, 1255, 1255]


def test_colours_are_packed_as_the_canvas_keeps_them(node):
    (value,) = node('return [explorer.pack(...explorer.hexToRgb("#0A72B2"), 128)]')
    assert value.to_bytes(4, "little") == bytes([0x0A, 0x72, 0xB2, 128])


# ---- words


def test_the_words_say_what_the_masks_are(node):
    t, h, w = (axis.ravel() for axis in np.indices(GRID))
    steps = [{"name": "time", "group": h * 5 + w}, {"name": "space", "group": t}]
    say = "return explorer.describe({ query, grid, steps, chosen, learned })"
    shown = dict(query=33, grid=GRID, steps=steps, chosen=steps, learned=False)
    assert node(say, **shown) == (
        "Patch at time 1, row 2, column 3. In one layer it may attend: 3 of 60 tokens (time), 20 of 60 tokens (space). "
        "Through two layers in a row (space, and before it time) it can depend on all 60 tokens."
    )
    assert node(say, **shown | {"query": -1}).startswith("Point at a patch")
    alone = node(say, **shown | {"steps": steps[1:], "chosen": steps[1:]})
    assert alone.endswith("(space twice) it can depend on 20 of 60 tokens.")


def test_the_words_name_the_strongest_weights_or_say_that_the_kernel_is_late(node):
    row = {"members": [4, 5], "levels": [[255, 51], [0, 255]], "scales": [0.002, 0.001], "sums": [0.7, 0.3]}
    say = "return explorer.describe({ query, grid, steps: undefined, chosen: [], learned })"
    learned = {"name": "block 1", "heads": 2, "head": 0, "row": row, "late": False}
    text = node(say, query=0, grid=GRID, learned=learned)
    assert "Strongest in block 1, head 0: 0.51 at time 0, row 0, column 4; 0.10 at time 0, row 1, column 0." in text
    assert "it may attend 2 of 60 tokens; their weights add up to 0.70." in text
    assert "mean of 2 heads" in node(say, query=0, grid=GRID, learned=learned | {"head": -1})
    assert "Waiting for the kernel" in node(say, query=0, grid=GRID, learned=learned | {"row": None})
    assert "did not answer within 0.5 s" in node(say, query=0, grid=GRID, learned=learned | {"row": None, "late": True})
