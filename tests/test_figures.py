"""Figures draw what the arrays say; the picture of a scheme is its mask."""

from __future__ import annotations

import ast
import base64
import html
import importlib
import inspect
import io
import pkgutil
import re
import textwrap
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

import course_lib
from course_lib.analysis.branches import residual_branches
from course_lib.figures import BLUE, LETTERS, RED, WIDEST, letters, picture, png, source, table
from course_lib.figures.blocks import block_diagram, block_words, towers, towers_words
from course_lib.figures.clips import boxes, picks, spans, strips
from course_lib.figures.code import narrow
from course_lib.figures.convolutions import HATCHES, KINDS, placements, placements_words, reach_in_time, reach_words
from course_lib.figures.costs import accuracy_against_cost, crossing
from course_lib.figures.curves import LiveCurve, by_dial, curves, over_seeds, plateau, smooth
from course_lib.figures.family import family_tree
from course_lib.figures.masks import rolled_windows, schemes_picture, schemes_words
from course_lib.figures.pooling import key_boxes, key_words
from course_lib.figures.weights import weight_bars, weight_words
from course_lib.grid import Grid
from course_lib.layers.schemes import SPACE, TIME, ShiftedWindows
from course_lib.models import build


def picture_in(page: str) -> tuple[str, bytes]:
    """Alt text and content of the one picture of a page."""
    ((alt, data),) = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', page)
    return html.unescape(alt), base64.b64decode(data)


def test_the_drawn_scheme_is_its_mask():
    grid = Grid(3, 2, 2)
    figure = schemes_picture({"divided": [("time", TIME.mask(grid).numpy())]}, grid, (1, 0, 1))
    for frame, axis in enumerate(figure.axes):
        drawn = axis.images[0].get_array()
        coloured = np.abs(drawn - np.array(to_rgb(RED))).max(-1) < 1e-6
        assert coloured.tolist() == [[False, True], [False, False]]  # the same place in every frame
        assert len(axis.patches) == (frame == 1)  # the query, once
    assert figure.axes[1].patches[0].get_facecolor()[:3] == pytest.approx(to_rgb(BLUE))


def test_a_pooled_key_is_drawn_as_its_box_and_tokens_in_no_key_are_grey():
    """By hand: of 6 rows boxes hold 0-1 and 3-5, of 3 columns 0-1 and 2."""
    rows = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]], dtype=bool)
    columns = np.array([[1, 1, 0], [0, 0, 1]], dtype=bool)
    scales = {"coarse": (rows, columns), "every token": (np.eye(2, dtype=bool),) * 2}
    figure = key_boxes(scales)
    drawn, whole = (axis.images[0].get_array() for axis in figure.axes)
    assert (drawn < 1).tolist() == [[row == 2] * 3 for row in range(6)] and (whole == 1).all()
    outlines = [box for box in figure.axes[0].patches if not box.get_fill()]
    boxes = [(*box.get_xy(), box.get_width(), box.get_height()) for box in outlines]
    assert boxes == [(-0.5, -0.5, 2, 2), (1.5, -0.5, 1, 2), (-0.5, 2.5, 2, 3), (1.5, 2.5, 1, 3)]
    assert len({box.get_edgecolor() for box in outlines[:2]}) == 2, "neighbours can be told apart"
    assert "coarse: 6 by 3 tokens, 2 by 2 keys, which hold 83% of the tokens" in key_words(scales)


def test_the_drawn_row_is_what_the_query_attends_to_not_who_attends_to_it():
    mask = np.eye(4, dtype=bool)
    mask[2, 0] = True  # token 2 attends to token 0
    figure = schemes_picture({"one way": [("look back", mask)]}, Grid(1, 2, 2), (0, 1, 0))
    drawn = figure.axes[0].images[0].get_array()
    assert (np.abs(drawn - np.array(to_rgb(RED))).max(-1) < 1e-6).tolist() == [[True, False], [True, False]]


def test_a_long_name_of_a_layer_does_not_run_into_that_of_the_next_column():
    grid = Grid(2, 4, 4)
    moved = ShiftedWindows((2, 2, 2), (0, 1, 1))
    schemes = {str(i): [(moved.name, moved.mask(grid).numpy())] for i in range(3)}
    figure = schemes_picture(schemes, grid, (0, 0, 0))
    figure.draw_without_rendering()
    legends = [axis.get_legend() for axis in figure.axes]
    boxes = [legend.get_window_extent() for legend in legends if legend is not None]
    assert len(boxes) == 3 and not any(one.overlaps(after) for one, after in pairwise(boxes))


NETWORKS = {"early": ("3d", "2d"), "late": ("2d", "2+1d")}


def test_every_group_has_the_colour_of_how_it_convolves_the_first_at_the_bottom():
    (axis,) = placements(NETWORKS).axes
    drawn = np.asarray(axis.images[0].get_array())
    for column, kinds in enumerate(NETWORKS.values()):
        for row, kind in enumerate(kinds):
            assert drawn[row, column] == pytest.approx(to_rgb(KINDS[kind][0]))
    assert axis.images[0].origin == "lower" and [text.get_text() for text in axis.texts] == ["3d", "2d", "2d", "2+1d"]
    assert "early 3d 2d; late 2d 2+1d." in placements_words(NETWORKS)


def test_reach_in_time_colours_the_frames_that_are_seen_and_no_other():
    frames = np.arange(6)
    seen = {"early": [abs(frames - 3) < 2] * 2, "late": [frames == 3, abs(frames - 3) < 2]}
    figure = reach_in_time(seen, NETWORKS, columns=2)
    for axis, (name, groups) in zip(figure.axes, seen.items(), strict=True):
        drawn = np.asarray(axis.images[0].get_array())
        assert axis.get_title() == name and axis.images[0].origin == "lower"
        assert [bar.get_hatch() or "" for bar in axis.collections] == [HATCHES[kind] for kind in NETWORKS[name]]
        for row, (group, kind) in enumerate(zip(groups, NETWORKS[name], strict=True)):
            coloured = np.abs(drawn[row] - np.array(to_rgb(KINDS[kind][0]))).max(-1) < 1e-6
            assert coloured.tolist() == group.tolist()
    assert len(set(HATCHES.values())) == len(HATCHES) == len(KINDS), "told apart without colours"
    assert "Of 6 frames" in reach_words(seen) and "early 3, 3; late 1, 3." in reach_words(seen)


def test_strips_show_each_frame_once():
    clips = [np.full((3, 4, 4, 3), 10 * i, dtype=np.uint8) for i in (1, 2)]
    figure = strips(clips, ["a", "b"], [0, 4, 8])
    (axis,) = figure.axes
    assert [image.get_array()[0, 0, 0] for image in axis.images] == [10] * 3 + [20] * 3
    boxes = [image.get_extent() for image in axis.images]  # left, right, bottom, top
    for box, (left, right, bottom, top) in zip(axis.patches, boxes, strict=True):
        assert box.get_bbox().extents == pytest.approx([left, top, right, bottom])
    assert [left for left, *_ in boxes[3:]] == [left for left, *_ in boxes[:3]] and boxes[0][1] < boxes[1][0]
    assert boxes[0][2] < boxes[3][3]  # one row below the other
    said = {text.get_text(): text.get_position() for text in axis.texts}
    assert list(said) == ["0", "4", "8", "a", "b"]
    for text, (left, right, *_) in zip("048", boxes[:3], strict=True):
        assert said[text][0] == pytest.approx((left + right) / 2) and said[text][1] < boxes[0][3]
    for text, (left, _, bottom, top) in zip("ab", boxes[::3], strict=True):
        assert said[text][1] == pytest.approx((top + bottom) / 2) and said[text][0] < left


def test_smoothing_is_the_mean_of_the_last_values():
    assert smooth([1, 3, 5, 7], 2).tolist() == [1, 2, 4, 6]


def test_a_plateau_is_drawn_between_the_levels_of_guessing():
    axes, told = plateau([1.8, 0.7], [1 / 6, 0.5], 6, window=1).axes, []
    for axis, values, levels in zip(
        axes, ((1.8, 0.7), (1 / 6, 0.5)), ((np.log(6), np.log(2)), (1 / 6, 0.5)), strict=True
    ):
        run, *drawn = axis.lines
        assert run.get_ydata()[[0, -1]].tolist() == pytest.approx(list(values))
        assert [line.get_ydata()[0] for line in drawn] == pytest.approx(list(levels))
        told += [text.get_text() for text in axis.texts]
    assert told == ["a guess", "the pair, not the way"] * 2


def test_each_dial_has_a_panel_in_which_settings_rise():
    found = {"way": {"x": [(1.0, 0.6), (0.5, 0.9)], "y": [(0.5, 1.0)]}, "turn": {"x": [(2, 0.7)]}}
    way, turn = by_dial(found, "right within the pair", chance=0.5).axes
    assert (way.get_xlabel(), turn.get_xlabel()) == ("way", "turn")
    one, other, chance = way.lines
    assert list(one.get_xdata()) == [0.5, 1.0] and list(one.get_ydata()) == [0.9, 0.6]
    assert list(other.get_ydata()) == [1.0] and chance.get_ydata()[0] == 0.5
    counts = by_dial({"way": {"x": [(1.0, 60)]}, "turn": {"x": [(2, 700)]}}, "steps").axes
    assert [len(axis.lines) for axis in counts] == [1, 1], "counts have no level of chance"
    assert all(axis.get_ylim()[0] == 0 and axis.get_ylim()[1] > 700 for axis in counts), (
        "no panel cuts another's points"
    )


def test_curves_differ_in_stroke_as_well_as_in_colour():
    (axis,) = curves({"one": [1, 2], "two": [2, 1]}, "loss", chance=0.5).axes
    one, two = axis.lines[:2]
    assert one.get_linestyle() != two.get_linestyle() and one.get_color() != two.get_color()


def test_lines_cross_where_arithmetic_says():
    at = [1, 2, 4, 9]
    cheap, dear = [10 * x + 30 for x in at], [x * x + 10 * x for x in at]  # meet at the square root of 30
    assert crossing(at, dear, cheap) == pytest.approx(30**0.5, rel=1e-12)
    assert crossing(at[:3], dear[:3], cheap[:3]) is None  # only beyond the end
    assert crossing(at, cheap, dear) is None  # there it rises above
    with pytest.raises(ValueError, match="give 3 or more"):
        crossing([1, 2], [1, 1], [2, 2])
    with pytest.raises(ValueError, match="not quadratic in"):
        crossing(at, dear, [x**3 for x in at])


def test_over_seeds_draws_every_mean_with_a_bar_from_the_least_seed_to_the_most():
    (axis,) = over_seeds({"a": {60: [80.0], 24: [50.0, 60.0, 70.0]}}, "clips", "top-1", 16.7).axes
    (bars,) = axis.containers
    line, _, (sticks,) = bars
    assert line.get_ydata().tolist() == [60, 80], "sorted by clips, not as given"
    ends = [segment[:, 1].tolist() for segment in sticks.get_segments()]
    assert ends == [[50, 70], [80, 80]]
    assert axis.get_xscale() == "log" and [label.get_text() for label in axis.get_xticklabels()] == ["24", "60"]


def test_accuracy_against_cost_joins_the_front_and_no_name_covers_another():
    points = {"cheap": (1.0, 70.0), "cheap too": (1.02, 70.1), "dear": (90.0, 80.0), "beaten": (95.0, 72.0)}
    kinds = {name: "from nothing" for name in points} | {"dear": "from images"}
    figure = accuracy_against_cost({"a view": points, "a test": points}, kinds, {"dear", "cheap"})
    (dotted,) = figure.axes[1].lines
    assert dotted.get_xydata().tolist() == [[1, 70], [90, 80]] and not figure.axes[0].lines
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert sorted(text.get_text() for text in axis.texts) == sorted(points)
        names = [text.get_window_extent() for text in axis.texts]
        assert not any(one.overlaps(other) for i, one in enumerate(names) for other in names[:i])


def test_the_family_tree_has_one_arrow_a_loan_in_the_colour_of_its_idea():
    works = {"a": (2014, 0), "b": (2017, 1), "c": (2017, 2)}
    figure = family_tree(works, [("a", "b", "x"), ("a", "c", "y"), ("a", "b", "y")])
    (axis,) = figure.axes
    arrows = [text.arrow_patch for text in axis.texts if getattr(text, "arrow_patch", None)]
    colours = [arrow.get_edgecolor() for arrow in arrows]
    assert len(arrows) == 3 and colours[1] == colours[2] != colours[0]
    assert arrows[0].get_connectionstyle().rad != arrows[2].get_connectionstyle().rad, (
        "two loans do not cover each other"
    )
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"x", "y"}
    with pytest.raises(ValueError, match="y from a to d: no work is called d"):
        family_tree(works, [("a", "d", "y")])
    with pytest.raises(ValueError, match=r"y cannot go from b \(2017\) back to a"):
        family_tree(works, [("b", "a", "y")])
    with pytest.raises(ValueError, match="8 ideas cannot be told apart"):
        family_tree(works, [("a", "b", str(i)) for i in range(8)])


def test_a_live_curve_draws_itself_and_says_so_in_words(monkeypatch):
    updates = []

    class Handle:
        def update(self, data, raw):
            updates.append(data)

    monkeypatch.setattr("IPython.display.display", lambda *a, **k: Handle())
    with LiveCurve(10, "M", past=[(2.0, 0.1)], seconds=1e9) as live:
        live.bar.disable = True
        live.add(1.0, 0.5)
    alt, content = picture_in(updates[-1]["text/html"])
    assert Image.open(io.BytesIO(content)).width > 300
    assert "2 of 10 steps" in alt and "1.500" in alt


def test_a_picture_says_how_small_the_letters_are_that_are_drawn():
    figure = Figure(figsize=(3, 2))
    axis, hidden = figure.subplots(1, 2)
    axis.text(0.5, 0.5, "small", fontsize=6)
    axis.tick_params(labelsize=11)
    axis.text(0.5, 0.5, "not drawn", fontsize=4, visible=False)
    axis.text(0.5, 0.5, "  ", fontsize=3)
    hidden.tick_params(labelsize=2)
    hidden.axis("off")
    assert Image.open(io.BytesIO(png(figure, dpi=144))).text == {LETTERS: "12.0"}
    axis.texts[0].set_visible(False)
    assert Image.open(io.BytesIO(png(figure, dpi=144))).text == {LETTERS: "22.0"}


def test_letters_grow_with_the_height_of_a_figure_so_that_a_slide_shows_them_at_16_pixels():
    for height in (4.0, 6.0):
        shown = 443 / height  # pixels an inch, where the figure is as high as a slide leaves room
        assert letters(height) / 72 * shown == pytest.approx(16)
    assert letters(1) == 9


def test_a_figure_becomes_a_png():
    assert png(curves({"one": [1.0]}, "loss")).startswith(b"\x89PNG")


def test_picks_marks_every_chosen_frame_one_line_a_clip():
    rules = {"one": [np.array([0, 3, 9])], "two": [np.array([1, 2]), np.array([4, 5])]}
    (axis,) = picks(rules, 10).axes
    marked = [line for line in axis.lines if line.get_marker() not in ("None", "")]
    assert [line.get_xdata().tolist() for line in marked] == [[0, 3, 9], [1, 2], [4, 5]]
    assert all(line.get_markevery() is None for line in marked), "every chosen frame has its mark"
    heights = [line.get_ydata()[0] for line in marked]
    assert heights == sorted(heights) and len(set(heights)) == 3
    assert marked[1].get_marker() != marked[2].get_marker() and marked[1].get_color() != marked[2].get_color()
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one", "two"]


def test_boxes_lie_where_the_crop_is_taken():
    (axis,) = boxes(np.zeros((10, 20, 3), np.uint8), {"left": (0, 0, 10, 10), "right": (0, 10, 10, 10)}).axes
    drawn = [patch.get_bbox().bounds for patch in axis.patches[1::2]]
    assert drawn == [(-0.5, -0.5, 10, 10), (9.5, -0.5, 10, 10)]  # pixel i reaches from i - 0.5 to i + 0.5


def test_strips_are_as_wide_as_asked_unless_they_would_not_fit():
    clip = np.zeros((4, 8, 8, 3), np.uint8)
    assert strips([clip], side=0.5).get_figwidth() == pytest.approx(4 * 0.5 + 1.4)
    assert strips([clip] * 2, side=9).get_figwidth() == pytest.approx(WIDEST)


def test_no_figure_is_wider_than_a_narrow_page_can_show_with_letters_that_are_read():
    grid, layers = Grid(2, 2, 2), ["norm", "attention", "linear"]
    masks = [(s.name, s.mask(grid).numpy()) for s in (TIME, SPACE)]
    curve = LiveCurve(4, "a title", past=[(1.0, 0.5)])
    for figure in (
        strips([np.zeros((32, 8, 8, 3), np.uint8)]),
        picks({"a rule": [np.arange(8)]}, 300),
        block_diagram({str(i): layers for i in range(6)}),
        schemes_picture({str(i): masks for i in range(9)}, grid, (0, 0, 0)),
        placements({str(i): ("2d", "3d") for i in range(12)}),
        reach_in_time({str(i): [np.ones(8, bool)] * 5 for i in range(12)}, {str(i): ("2d",) * 5 for i in range(12)}),
        curve.figure(),
    ):
        assert figure.get_figwidth() <= WIDEST + 1e-9


def test_words_count_what_the_picture_colours():
    grid = Grid(3, 2, 2)
    words = schemes_words({"divided": [(s.name, s.mask(grid).numpy()) for s in (TIME, SPACE)]}, grid, (1, 0, 1))
    assert "at frame 1, row 0, column 1" in words and "divided: time 1+1+1, space 0+4+0" in words


def test_a_picture_carries_its_words_where_html_has_them():
    alt, content = picture_in(picture(b"\x89PNG", 'say "a < b"')["text/html"])
    assert (alt, content) == ('say "a < b"', b"\x89PNG")


def test_a_block_is_drawn_from_what_it_runs():
    net = build("timesformer_tiny")
    branches = residual_branches(net.blocks[0], torch.zeros(1, 8, 4, 4, 64), torch.zeros(1, 1, 64))
    assert branches == {
        "time attention": ["norm", "time attention", "linear"],
        "space attention": ["norm", "space attention"],
        "MLP": ["norm", "MLP"],
    }
    (axis,) = block_diagram(branches).axes
    drawn = [text.get_text().replace("\n", " ") for text in axis.texts]
    assert drawn.count("norm") == drawn.count("+") == 3 and drawn.count("linear") == 1 and "space attention" in drawn
    assert "time attention: norm, time attention, linear" in block_words(branches)
    with pytest.raises(ValueError, match="no pre-norm branches"):
        residual_branches(torch.nn.Linear(2, 2), torch.zeros(1, 2))


def library() -> list:
    """Every function and class of course_lib."""
    names = [found.name for found in pkgutil.walk_packages(course_lib.__path__, "course_lib.")]
    things = [(name, thing) for name in names for thing in vars(importlib.import_module(name)).values()]
    kinds = (inspect.isfunction, inspect.isclass)
    return [
        thing for name, thing in things if getattr(thing, "__module__", "") == name and any(k(thing) for k in kinds)
    ]


def test_narrow_code_is_the_same_program_and_fits_the_page():
    wide = 0
    for thing in library():
        try:
            code = inspect.getsource(thing)
        except OSError:  # named tuples and the like
            continue
        narrowed = narrow(code)
        before, after = (ast.dump(ast.parse(textwrap.dedent(text))) for text in (code, narrowed))
        assert re.sub(r"(\\n|\s)+", " ", before) == re.sub(r"(\\n|\s)+", " ", after), thing
        for line in narrowed.splitlines():
            wide += len(line) > 84
            assert len(line) <= 84 or " " not in line.strip() or 'f"' in line, line  # braces of a long f-string
    assert wide <= 24


def test_narrow_breaks_after_a_comma_and_moves_comments_up():
    code = "def f():\n    return call(first_argument, second_argument)  # why\n"
    wanted = "def f():\n    # why\n    return call(first_argument,\n        second_argument)\n"
    assert narrow(code, 36) == wanted
    text = narrow('x = g("one two three four five six")\n', 24)
    assert text == 'x = g("one two three "\n    "four five six")\n'


def test_source_shows_one_thing_and_tables_scroll(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    source(picture_in)
    table(["a", "b"], [[1, 2], [3]])
    assert shown[0].data.startswith("```python\ndef picture_in") and shown[0].data.endswith("```")
    assert 'overflow-x: auto">\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 |  |\n\n</div>' in shown[1].data


def test_bars_of_weights_are_the_weights_and_those_below_zero_stand_out():
    weights = {"softmax": [0.25, 0.75], "dot product": [0.5, -1.0]}
    figure = weight_bars(weights)
    for axis, (name, values) in zip(figure.axes, weights.items(), strict=True):
        assert axis.get_title() == name and [bar.get_height() for bar in axis.patches] == values
        colours = [tuple(bar.get_facecolor()[:3]) for bar in axis.patches]
        assert colours == [to_rgb(RED if value < 0 else BLUE) for value in values]
    assert weight_words(weights) == (
        "What one place takes from 2 places: softmax from 0.25 to 0.75, together 1.00; "
        "dot product from -1.00 to 0.50, together -0.50."
    )


def test_towers_have_a_box_for_every_part_and_arrows_upwards_and_along_what_is_linked():
    designs = {"one": [["frame"] * 3, ["2D"] * 3, ["LSTM"] * 3, ["action"]], "two": [["a", "b"], ["3D"]]}
    axis = towers(designs, linked=["LSTM"]).axes[0]
    said = [text.get_text() for text in axis.texts if text.get_text()]
    assert sorted(said) == sorted(["frame", "2D", "LSTM"] * 3 + ["action", "a", "b", "3D", "one", "two"])
    assert len(axis.patches) == 13
    arrows = [text for text in axis.texts if not text.get_text()]
    along = [arrow for arrow in arrows if arrow.xy[1] == arrow.xyann[1]]
    assert len(along) == 2 and all(arrow.xy[0] > arrow.xyann[0] for arrow in along)
    upwards = [arrow for arrow in arrows if arrow not in along]
    assert len(upwards) == 3 + 3 + 3 + 2 and all(arrow.xy[1] > arrow.xyann[1] for arrow in upwards)
    straight = [arrow for arrow in upwards if arrow.xy[0] == pytest.approx(arrow.xyann[0])]
    assert len(straight) == 3 + 3 + 1, "box by box where rows are alike; from the middle LSTM to the answer"
    assert "one: frame and frame and frame, then 2D" in towers_words(designs)


def test_a_span_covers_its_frames_from_first_to_last_and_says_how_many():
    axis = spans({"near": (3, 5), "far": (0, 7)}, 8).axes[0]
    assert [(bar.get_x(), bar.get_width()) for bar in axis.patches] == [(2.5, 3), (-0.5, 8)]
    assert [text.get_text() for text in axis.texts] == ["3", "8"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["near", "far"]
    assert axis.patches[0].get_y() < axis.patches[1].get_y() and axis.yaxis_inverted(), "the first on top"


def test_rolled_windows_shows_the_leftovers_of_opposite_borders_side_by_side():
    numbers = ShiftedWindows((1, 2, 2), (0, 1, 1)).numbers((1, 4, 4))[0].numpy()
    before, after = rolled_windows(numbers, (2, 2), (1, 1)).axes
    drawn = [
        "".join(text.get_text() for text in sorted(axis.texts, key=lambda one: one.get_position()[::-1]))
        for axis in (before, after)
    ]
    assert drawn == ["abbcdeefdeefghhi", "eefdeefdhhigbbca"]
    thick = [line.get_ydata()[0] for line in after.lines if line.get_ydata()[0] == line.get_ydata()[1]]
    assert thick == [-0.5, 1.5, 3.5]
