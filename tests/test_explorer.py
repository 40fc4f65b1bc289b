"""The attention explorer, as far as it can be tested without a browser; tests/browser has the rest."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import NamedTuple

import nbformat
import numpy as np
import pytest
from nbconvert import HTMLExporter
from PIL import Image, ImageColor

from course_lib.grid import Grid
from course_lib.widgets import AttentionExplorer, stills
from course_lib.widgets.groups import attended, attended_twice
from course_lib.widgets.weights import checked_map, quantise

GRID = Grid(3, 4, 5)  # three different lengths, so that no two axes can be mistaken for each other
VIEW = "application/vnd.jupyter.widget-view+json"


class Map(NamedTuple):
    members: np.ndarray
    weights: np.ndarray


def clip(grid: Grid = GRID, patch: int = 6) -> np.ndarray:
    shape = (grid.t, grid.h * patch, grid.w * patch, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def schemes(grid: Grid = GRID) -> dict[str, list[tuple[str, np.ndarray]]]:
    t, h, w = (axis.ravel() for axis in np.indices(grid))
    return {
        "divided": [("time", h * grid.w + w), ("space", t)],
        "space": [("space", t)],
        "joint": [("joint", 0 * t)],
        "axial": [("time axis", h * grid.w + w), ("height", t * grid.w + w), ("width", t * grid.h + h)],
    }


def softmax_map(members: np.ndarray, heads: int, seed: int = 0) -> Map:
    groups, size = members.shape
    weights = np.random.default_rng(seed).random((groups, heads, size, size + 1), dtype=np.float32)
    return Map(members, (weights / weights.sum(-1, keepdims=True))[..., 1:])  # the first was the class token


def maps(grid: Grid = GRID) -> dict[str, Map]:
    tokens = np.arange(grid.size).reshape(grid.t, -1)
    return {"block 1 time": softmax_map(tokens.T, heads=4), "block 1 space": softmax_map(tokens, heads=2, seed=1)}


def still_in(data: dict[str, str]) -> tuple[str, bytes]:
    ((alt, picture),) = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', data["text/html"])
    return alt, base64.b64decode(picture)


def explorer(**changes) -> AttentionExplorer:
    return AttentionExplorer(
        **{
            "frames": clip(),
            "grid": GRID,
            "schemes": schemes(),
            "maps": maps(),
            "maps_scheme": "divided",
            **changes,
        }
    )


# ---- masks


@pytest.mark.parametrize("seed", range(5))
def test_two_layers_reach_what_the_product_of_their_masks_says(seed):
    rng = np.random.default_rng(seed)
    last, before = rng.integers(0, 9, 60), rng.integers(0, 12, 60)
    masks = [number[:, None] == number[None] for number in (last, before)]
    product = masks[0].astype(int) @ masks[1].astype(int) > 0
    for query in range(60):
        np.testing.assert_array_equal(attended(last, query), masks[0][query])
        np.testing.assert_array_equal(attended_twice(last, before, query), product[query])


def test_divided_attention_reaches_every_token_in_two_layers_and_space_alone_never_leaves_its_frame():
    (_, time), (_, space) = schemes()["divided"]
    for query in range(GRID.size):
        assert attended(time, query).sum() == GRID.t
        assert attended(space, query).sum() == GRID.h * GRID.w
        assert attended_twice(space, time, query).all()
        assert attended_twice(space, space, query).sum() == GRID.h * GRID.w


# ---- weights as bytes


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_byte_a_weight_is_off_by_at_most_half_a_level(dtype):
    weights = (np.random.default_rng(0).random((4, 3, 7, 50)) ** 8).astype(dtype)
    weights[1, 2, 3] = 0
    level, scale = quantise(weights)
    assert level.dtype == np.uint8 and scale.dtype == np.float32
    error = np.abs(level * scale[..., None].astype(float) - weights.astype(float))
    assert (error <= weights.max(-1, keepdims=True).astype(float) / 255 * 0.501).all()
    assert not level[1, 2, 3].any() and not scale[1, 2, 3]
    assert (level.max(-1) == 255)[weights.max(-1) > 0].all()


def test_a_planted_weight_comes_back_at_its_own_token():
    shuffled = np.random.default_rng(3).permutation(GRID.size).reshape(10, 6)
    for query, key in [(0, 1), (2, 5), (4, 4)]:
        weights = np.zeros((10, 2, 6, 6), np.float32)
        weights[7, 1, query, key] = 0.75
        members, row = checked_map("planted", Map(shuffled, weights), GRID.size).row(int(shuffled[7, query]))
        assert not row[0].any() and row[1].sum() == 0.75
        assert members[row[1].argmax()] == shuffled[7, key]


# ---- where things are drawn


def test_frames_of_14_x_14_patches_lie_where_a_ruler_finds_them():
    layout = stills.Layout.fit(Grid(8, 14, 14), 960)
    assert (layout.columns, layout.patch) == (4, 16)
    assert layout.size == (12 + 4 * 224 + 3 * 12 + 12, 12 + 2 * (22 + 224) + 12 + 12)
    assert layout.centre(0) == (12 + 8, 12 + 22 + 8)
    token = (5 * 14 + 2) * 14 + 13  # frame 5 is the second of the second line
    assert layout.centre(token) == (12 + 236 + 13.5 * 16, 12 + 22 + 224 + 12 + 22 + 2.5 * 16)


def test_lines_of_frames_are_even():
    assert [stills.Layout.fit(Grid(t, 4, 4), 960).columns for t in (8, 16, 1)] == [4, 6, 1]


@pytest.mark.parametrize("grid", [(8, 14, 14), (16, 28, 28), (96, 14, 14), (8, 8, 8), (1, 3, 9), (16, 7, 12)])
def test_all_patches_fit_into_a_notebook_cell_and_none_lies_on_another(grid):
    layout = stills.Layout.fit(Grid(*grid), 960)
    width, height = layout.size
    assert width <= 960 and height <= 560
    used = np.zeros((height, width), int)
    for token in range(Grid(*grid).size):
        x, y = (int(centre - layout.patch / 2) for centre in layout.centre(token))
        used[y : y + layout.patch, x : x + layout.patch] += 1
    assert used.max() == 1 and used.sum() == Grid(*grid).size * layout.patch**2


def coloured(picture: np.ndarray, layout: stills.Layout, token: int) -> str:
    x, y = (int(centre) for centre in layout.centre(token))
    pixel = picture[y, x].astype(int)
    if np.ptp(pixel) < 20:
        return "grey"
    grey = np.array([ImageColor.getrgb(colour) for colour in (stills.QUERY, *stills.STEPS[:2])])
    return ("query", "first", "second")[np.abs(grey - pixel).sum(1).argmin()]


def test_the_stored_picture_colours_exactly_the_mask_of_the_pinned_patch():
    pinned = (1 * 4 + 2) * 5 + 3
    widget = explorer(pinned=pinned)
    layout = stills.Layout.fit(GRID, stills.STILL_WIDTH)

    def drawn():
        data, _ = widget._repr_mimebundle_()
        picture = np.asarray(Image.open(io.BytesIO(still_in(data)[1])).convert("RGB"))
        return [coloured(picture, layout, token) for token in range(GRID.size)]

    def expected(here, same_patch, elsewhere):
        for t, row, column in np.ndindex(*GRID):
            same = (row, column) == (2, 3)
            yield "query" if same and t == 1 else here if t == 1 else same_patch if same else elsewhere

    assert drawn() == list(expected("second", "first", "grey"))
    widget.view = "two layers"
    assert drawn() == list(expected("second", "first", "first"))
    widget.scheme = "space"
    assert drawn() == list(expected("second", "grey", "grey"))


# ---- rows on request


def test_small_maps_lie_in_the_page_and_large_ones_stay_in_the_kernel():
    weights = sum(found.weights.size for found in maps().values())
    whole, by_row = explorer(whole_map_bytes=weights), explorer(whole_map_bytes=weights - 1)
    assert sum(len(layer["levels"]) for layer in whole.weights) == weights
    assert by_row.weights == [] and by_row.layers == whole.layers


def test_a_row_holds_every_head_of_one_query():
    widget = explorer(whole_map_bytes=0)
    queries = [33, 0, GRID.size - 1]
    for name, found in maps().items():
        reply, buffers = widget._answer({"kind": "rows", "layer": name, "queries": queries})
        assert reply == {"kind": "rows", "layer": name, "queries": queries}
        assert len(buffers) == 4 * len(queries)
        for i, query in enumerate(queries):
            members, levels, scales, sums = buffers[4 * i : 4 * i + 4]
            group, position = (int(index[0]) for index in np.nonzero(found.members == query))
            np.testing.assert_array_equal(np.frombuffer(members, np.int32), found.members[group])
            want = found.weights[group, :, position]
            got = np.frombuffer(levels, np.uint8).reshape(want.shape) * np.frombuffer(scales, np.float32)[:, None]
            np.testing.assert_allclose(got, want, atol=want.max() / 509)
            np.testing.assert_allclose(np.frombuffer(sums, np.float32), want.sum(-1), rtol=1e-6)


@pytest.mark.parametrize("query", [-1, GRID.size, 10**30, 1.0, float("nan"), True, "3", None, [3], {}])
def test_a_row_is_refused_for_what_is_not_a_token(query):
    reply, buffers = explorer()._answer({"kind": "rows", "layer": "block 1 time", "queries": [5, query]})
    assert reply["kind"] == "refused" and f"0 to {GRID.size - 1}" in reply["reason"] and not buffers


@pytest.mark.parametrize("queries", [None, 3, [], "3", {"0": 1}, list(range(10))])
def test_rows_are_refused_when_not_asked_for_in_a_short_list(queries):
    reply, buffers = explorer()._answer({"kind": "rows", "layer": "block 1 time", "queries": queries})
    assert reply["kind"] == "refused" and "list of 1 to 9 queries" in reply["reason"] and not buffers


@pytest.mark.parametrize("message", [None, [], "rows", {}, {"layer": "block 9", "queries": [0]}, {"layer": []}])
def test_a_row_is_refused_for_what_is_not_a_layer(message):
    reply, buffers = explorer()._answer(message)
    assert reply["kind"] == "refused" and "'block 1 time'" in reply["reason"] and not buffers


# ---- without a kernel


def test_the_stored_output_has_a_picture_beside_the_widget():
    data, _ = explorer()._repr_mimebundle_()
    alt, picture = still_in(data)
    assert data[VIEW]["model_id"] and data["text/plain"] == alt
    assert Image.open(io.BytesIO(picture)).format == "PNG"
    assert "patch at time 1, row 2, column 2" in alt and "time: 3 tokens, space: 20 tokens" in alt


@pytest.mark.parametrize("template", ["lab", "classic"])
def test_nbconvert_shows_the_picture_with_its_alt_text_where_no_widget_state_is_stored(template):
    data, metadata = explorer()._repr_mimebundle_()
    output = nbformat.v4.new_output("execute_result", data, execution_count=1, metadata=metadata)
    cell = nbformat.v4.new_code_cell("explorer", outputs=[output], execution_count=1)
    page, _ = HTMLExporter(template_name=template).from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    pictures = re.findall(r"<img[^>]*data:image/png[^>]*>", page)
    assert len(pictures) == 1 and f'alt="{still_in(data)[0]}"' in pictures[0]
    assert VIEW not in page


def test_the_lecture_page_holds_everything_and_asks_the_network_for_nothing(tmp_path):
    widget = explorer(head=1, view="learned", scheme="axial")
    path = widget.save_html(tmp_path / "page.html", title="Who <sees> whom?")
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//cdn|@import|\bsrc=\"(?!data:)|\bhref=", page)
    assert "<h1>Who &lt;sees&gt; whom?</h1>" in page and "{{" not in page.split("<script")[0]
    state = json.loads(re.search(r'<script type="application/json" id="state">(.*?)</script>', page, re.S)[1])
    assert (state["view"], state["scheme"], state["head"], state["hover"]) == ("learned", "axial", 1, -1)
    assert base64.b64decode(state["sprite"]["base64"]) == widget.sprite
    assert base64.b64decode(state["weights"][1]["levels"]["base64"]) == widget.weights[1]["levels"]
    script = re.search(r'<script type="text/plain" id="explorer">(.*?)</script>', page, re.S)[1]
    assert script == str(widget._esm) and "export default" in script
    assert [found.name for found in tmp_path.iterdir()] == ["page.html"]


def test_a_page_cannot_be_written_when_the_kernel_keeps_the_weights(tmp_path):
    with pytest.raises(ValueError, match=r"2 layers, 3,120 bytes.*fewer layers in maps, or a larger whole_map_bytes"):
        explorer(whole_map_bytes=100).save_html(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


# ---- what is refused


def test_names_and_numbers_that_do_not_exist_are_refused_and_the_last_good_ones_kept():
    widget = explorer()
    for name, value, message in [
        ("scheme", "diveded", "'divided', 'space', 'joint', 'axial'"),
        ("view", "three layers", "'one layer', 'two layers', 'learned'"),
        ("step", "width", "'', 'time', 'space'"),
        ("layer", "block 2 time", "'block 1 time', 'block 1 space'"),
        ("head", 4, r"choose 0 to 3 .* -1 for the mean"),
        ("pinned", 60, "choose 0 to 59 .* -1 for no patch"),
        ("hover", -2, "choose 0 to 59"),
    ]:
        before = getattr(widget, name)
        with pytest.raises(ValueError, match=message):
            setattr(widget, name, value)
        with pytest.raises(ValueError, match=message):
            widget.set_state({name: value})  # the way in which a page's values arrive
        assert getattr(widget, name) == before


def test_learned_weights_are_offered_only_where_there_are_some():
    with pytest.raises(ValueError, match="choose from 'one layer', 'two layers'; pass maps"):
        explorer(maps=None, view="learned")


def test_a_new_scheme_or_layer_drops_the_step_and_head_that_it_does_not_have():
    widget = explorer(step="time", head=3)
    widget.scheme, widget.layer = "joint", "block 1 space"
    assert (widget.step, widget.head) == ("", -1)
    widget.scheme, widget.step, widget.head = "divided", "space", 1
    widget.scheme, widget.layer = "space", "block 1 time"
    assert (widget.step, widget.head) == ("space", 1)


NAN = {"block": Map(np.arange(60).reshape(3, 20), np.full((3, 1, 20, 20), np.nan))}
LOGITS = {"block": Map(np.arange(60).reshape(3, 20), np.ones((3, 1, 20, 20)))}
WITH_CLASS = {"block": Map(np.arange(63).reshape(3, 21), np.zeros((3, 1, 21, 21)))}
TWICE = {"block": Map(np.zeros((3, 20), int), np.zeros((3, 1, 20, 20)))}
LACKING = {"block": Map(np.arange(60).reshape(3, 20), np.zeros((3, 1, 20, 21)))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": clip()[:2]}, r"2 frames for 3 token times of grid \(3, 4, 5\)"),
        ({"frames": clip()[:, :23]}, "h=23 is not a multiple of 4"),
        ({"frames": clip()[:, :12]}, "patches of 3 x 6: crop"),
        ({"grid": (3, 0, 5)}, r"grid \(3, 0, 5\)"),
        ({"schemes": {}}, "no schemes"),
        ({"schemes": {"joint": []}}, "scheme 'joint' has no attention layer"),
        ({"schemes": {"joint": [("all", np.zeros(61, int))]}}, r"'joint', layer 'all': .* 60 tokens .* shape \(61,\)"),
        ({"schemes": {"joint": [("a", np.zeros(60, int))] * 2}}, "names a layer 'a' twice"),
        ({"maps_scheme": "dividde"}, "maps_scheme 'dividde' is none of the schemes: 'divided'"),
        ({"maps": NAN}, "map 'block': weights must be at least 0"),
        ({"maps": LOGITS}, "largest sum 20: give softmax outputs"),
        ({"maps": WITH_CLASS}, r"map 'block': members .* 60 tokens once, have shape \(3, 21\)"),
        ({"maps": TWICE}, "60 tokens once"),
        ({"maps": LACKING}, r"= \(3, heads, 20, 20\) .* have \(3, 1, 20, 21\)"),
        ({"pinned": 60}, "pinned=60"),
        ({"scheme": "jiont"}, "scheme='jiont' is unknown here"),
    ],
)
def test_what_does_not_fit_is_named_with_its_numbers(changes, message):
    with pytest.raises(ValueError, match=message):
        explorer(**changes)
