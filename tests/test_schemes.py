"""One definition of a scheme is both the picture and the computation."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

from course_lib.analysis.reach import reach, then
from course_lib.grid import Grid
from course_lib.layers.attention import GridAttention, MultiHeadAttention, record_attention
from course_lib.layers.schemes import (
    HEIGHT,
    JOINT,
    SPACE,
    TIME,
    WIDTH,
    Band,
    Scheme,
    ShiftedWindows,
    SplitHeads,
    local_global,
    strided,
    windows,
)

GRID = Grid(4, 4, 6)
LOCAL, GLOBAL = local_global(GRID)
SCHEMES = [
    JOINT,
    SPACE,
    TIME,
    WIDTH,
    HEIGHT,
    LOCAL,
    GLOBAL,
    windows(2, 2, 3),
    ShiftedWindows((2, 2, 3), (1, 1, 1)),
    ShiftedWindows((2, 4, 3), (1, 0, 2)),
    ShiftedWindows((2, 2, 3)),
    ShiftedWindows((8, 4, 3), (4, 2, 1)),  # longer than time, as long as the height
    Band(0),
    Band(5),
]
PARTITIONS = [scheme for scheme in SCHEMES if hasattr(scheme, "group_of")]
FOLDS = [scheme for scheme in PARTITIONS if hasattr(scheme, "members")]


def each(schemes):
    return pytest.mark.parametrize("scheme", schemes, ids=lambda scheme: scheme.name)


def attention(scheme) -> GridAttention:
    torch.manual_seed(0)
    return GridAttention(8, 2, scheme).double().eval()


def tokens(grid=GRID) -> torch.Tensor:
    return torch.randn(2, *grid, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def picture(mask) -> list[str]:
    return ["".join("#" if seen else "." for seen in row) for row in mask.tolist()]


@each(SCHEMES)
def test_the_fold_computes_dense_masked_attention(scheme):
    net, x = attention(scheme), tokens()
    mask = scheme.mask(GRID).expand(len(x), -1, -1)
    torch.testing.assert_close(net(x), MultiHeadAttention.forward(net, x.flatten(1, 3), mask=mask).view_as(x))


@each(SCHEMES)
def test_the_mask_is_what_gradients_reach(scheme):
    assert torch.equal(reach(attention(scheme), GRID), scheme.mask(GRID))


@each(SCHEMES)
def test_recording_changes_no_output_and_rows_sum_to_one(scheme):
    net, x = attention(scheme), tokens()
    before = net(x)
    with record_attention(net) as weights:
        torch.testing.assert_close(net(x), before)
    for recorded in weights[""]:  # one entry, but of shifted windows one for each kind of window
        torch.testing.assert_close(recorded.sum(-1), torch.ones(recorded.shape[:-1], dtype=torch.double))
    assert sum(len(recorded) * recorded.shape[2] for recorded in weights[""]) == 2 * GRID.size
    assert net.recorder is None, "the recorder must be taken out again"


@each(SCHEMES)
def test_a_scheme_has_both_faces(scheme):
    assert isinstance(scheme, Scheme)
    assert scheme.name


@each(PARTITIONS)
def test_one_group_number_a_token_says_the_whole_mask(scheme):
    group = scheme.group_of(GRID)
    assert torch.equal(group[:, None] == group[None, :], scheme.mask(GRID))
    assert sorted(set(group.tolist())) == list(range(len(set(group.tolist()))))


# The outside witness: both faces come from one definition, so a wrong definition would fool the tests above.
DRAWINGS = [  # scheme, grid, its mask drawn by hand
    (JOINT, (2, 1, 2), ["####", "####", "####", "####"]),
    (SPACE, (2, 1, 2), ["##..", "##..", "..##", "..##"]),
    (TIME, (2, 1, 2), ["#.#.", ".#.#", "#.#.", ".#.#"]),
    (WIDTH, (1, 2, 2), ["##..", "##..", "..##", "..##"]),
    (WIDTH, (2, 1, 2), ["##..", "##..", "..##", "..##"]),
    (HEIGHT, (1, 2, 2), ["#.#.", ".#.#", "#.#.", ".#.#"]),
    (HEIGHT, (2, 2, 1), ["##..", "##..", "..##", "..##"]),
    (windows(1, 1, 2), (1, 1, 4), ["##..", "##..", "..##", "..##"]),
    (windows(2, 1, 1), (4, 1, 1), ["##..", "##..", "..##", "..##"]),
    (windows(1, 2, 1), (1, 4, 1), ["##..", "##..", "..##", "..##"]),
    (strided(1, 1, 2), (1, 1, 4), ["#.#.", ".#.#", "#.#.", ".#.#"]),
    (strided(2, 1, 1), (4, 1, 1), ["#.#.", ".#.#", "#.#.", ".#.#"]),
    (strided(1, 2, 1), (1, 4, 1), ["#.#.", ".#.#", "#.#.", ".#.#"]),
    (ShiftedWindows((1, 1, 2), (0, 0, 1)), (1, 1, 4), ["#...", ".##.", ".##.", "...#"]),
    (ShiftedWindows((2, 1, 1), (1, 0, 0)), (4, 1, 1), ["#...", ".##.", ".##.", "...#"]),
    (ShiftedWindows((1, 1, 3), (0, 0, 1)), (1, 1, 6), ["#.....", ".###..", ".###..", ".###..", "....##", "....##"]),
    (ShiftedWindows((1, 1, 2)), (1, 1, 4), ["##..", "##..", "..##", "..##"]),
    (ShiftedWindows((1, 1, 3)), (1, 1, 5), ["###..", "###..", "###..", "...##", "...##"]),
    (ShiftedWindows((1, 1, 3), (0, 0, 1)), (1, 1, 5), ["#....", ".###.", ".###.", ".###.", "....#"]),
    (ShiftedWindows((1, 3, 1), (0, 2, 0)), (1, 5, 1), ["##...", "##...", "..###", "..###", "..###"]),
    (ShiftedWindows((1, 1, 4), (0, 0, 2)), (1, 1, 4), ["####", "####", "####", "####"]),
    (ShiftedWindows((5, 1, 1), (2, 0, 0)), (3, 1, 1), ["###", "###", "###"]),
    (ShiftedWindows((2, 1, 2), (1, 0, 1)), (3, 1, 2), ["##....", "##....", "..####", "..####", "..####", "..####"]),
    (Band(1), (4,), ["##..", "###.", ".###", "..##"]),
    (Band(2), (1, 1, 4), ["###.", "####", "####", ".###"]),
]


@pytest.mark.parametrize(("scheme", "grid", "drawn"), DRAWINGS, ids=lambda x: getattr(x, "name", ""))
def test_the_mask_is_the_one_drawn_by_hand(scheme, grid, drawn):
    assert picture(scheme.mask(grid)) == drawn


def test_local_global_is_quadrants_then_every_second_token():
    local, far = local_global(Grid(2, 2, 4))
    assert (
        picture(local.mask((2, 2, 4)))[0] == "##......##......"
    )  # the quadrant's columns 0-1 of row 0, in both frames
    assert picture(far.mask((4, 2, 2)))[5] == ".....#.......#.."  # token 5: frames 1 and 3, row 0, column 1


# allowed / computed at TimeSformer's 8x14x14 and Swin's window: how much of the saving is real
PAIRS = [
    (JOINT, 1568**2, 1568**2),
    (SPACE, 8 * 196**2, 8 * 196**2),
    (TIME, 196 * 8**2, 196 * 8**2),
    (WIDTH, 1568 * 14, 1568 * 14),
    (windows(8, 7, 7), 4 * 392**2, 4 * 392**2),
    (strided(2, 2, 2), 8 * 196**2, 8 * 196**2),
    (windows(2, 7, 7), 153_664, 153_664),
    (ShiftedWindows((2, 7, 7), (1, 3, 3)), 76_664, 153_664),
    (ShiftedWindows((16, 7, 7), (8, 3, 3)), 8**2 * (9 + 49 + 16) ** 2, 4 * 392**2),
    (ShiftedWindows((8, 5, 5)), 8**2 * (25 + 25 + 16) ** 2, 9 * 200**2),
    (Band(49), 1568 * 99 - 2 * sum(range(1, 50)), 1568**2),
]


@pytest.mark.parametrize(("scheme", "allowed", "computed"), PAIRS, ids=lambda x: getattr(x, "name", ""))
def test_pairs_allowed_and_pairs_computed(scheme, allowed, computed):
    grid = Grid(8, 14, 14)
    assert int(scheme.mask(grid).sum()) == allowed
    assert scheme.computed(grid) == computed


def test_two_layers_in_a_row_see_what_the_first_one_saw():
    first = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1]]).bool()  # token 1 hears of token 0
    second = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1]]).bool()  # then token 2 hears of token 1, and so of 0
    assert picture(then(first, second)) == ["#..", "##.", "###"]
    assert picture(then(second, first)) == ["#..", "##.", ".##"]


def test_timesformer_divided_attention_reaches_the_whole_clip_in_one_block():
    assert then(TIME.mask(GRID), SPACE.mask(GRID)).all()
    assert not TIME.mask(GRID).all() and not SPACE.mask(GRID).all()


def test_timesformer_axial_attention_needs_all_three_of_its_layers():
    two = then(TIME.mask(GRID), WIDTH.mask(GRID))
    assert not two.all() and then(two, HEIGHT.mask(GRID)).all()


def test_swin_windows_stay_closed_until_they_shift():
    plain, shifted = windows(2, 2, 3).mask(GRID), ShiftedWindows((2, 2, 3), (1, 1, 1)).mask(GRID)
    assert torch.equal(then(plain, plain), plain)
    assert then(plain, shifted).sum() > plain.sum()


def test_swin_shift_never_joins_opposite_borders():
    assert not ShiftedWindows((2, 2, 3), (1, 1, 1)).mask(GRID)[0, -1]


def test_swin_windows_see_across_a_border_with_the_shift_and_never_without():
    """In a row of 8 with windows of 4 the border lies between tokens 3 and 4; the shift moves it by 2."""
    plain = reach(attention(ShiftedWindows((1, 1, 4))), (1, 1, 8))
    shifted = reach(attention(ShiftedWindows((1, 1, 4), (0, 0, 2))), (1, 1, 8))
    assert not plain[:4, 4:].any() and not plain[4:, :4].any()
    assert shifted[2:6, 2:6].all() and not shifted[:2, 2:].any() and not shifted[6:, :6].any()


RAGGED = [  # scheme, a grid that its windows do not tile
    (ShiftedWindows((2, 2, 3)), Grid(3, 4, 5)),
    (ShiftedWindows((2, 3, 2), (1, 1, 1)), Grid(3, 4, 5)),
    (ShiftedWindows((4, 3, 4), (2, 2, 1)), Grid(3, 4, 5)),
    (ShiftedWindows((1, 4, 4), (0, 2, 2)), Grid(2, 5, 3)),
]
each_ragged = pytest.mark.parametrize(("scheme", "grid"), RAGGED, ids=lambda part: getattr(part, "name", ""))


@each_ragged
def test_on_ragged_grids_too_the_mask_is_what_gradients_reach(scheme, grid):
    assert torch.equal(reach(attention(scheme), grid), scheme.mask(grid))


@each_ragged
def test_zeros_fill_up_the_last_windows_and_take_part_as_keys(scheme, grid):
    net, x = attention(scheme), tokens(grid)
    full = scheme.padded(grid)
    filled = torch.zeros(2, *full, 8, dtype=torch.double)
    filled[:, : grid.t, : grid.h, : grid.w] = x
    mask = scheme.mask(full).expand(2, -1, -1)
    dense = MultiHeadAttention.forward(net, filled.flatten(1, 3), mask=mask).view_as(filled)
    torch.testing.assert_close(net(x), dense[:, : grid.t, : grid.h, : grid.w])


@pytest.mark.parametrize(  # grid, window, shift: Swin-T's stages 1 and 4, SSv2's window, a small clip, a ragged one
    ("window", "grid", "used", "moved", "padded"),
    [
        ((8, 7, 7), (16, 56, 56), (8, 7, 7), (4, 3, 3), (16, 56, 56)),
        ((8, 7, 7), (16, 7, 7), (8, 7, 7), (4, 0, 0), (16, 7, 7)),
        ((16, 7, 7), (16, 14, 14), (16, 7, 7), (0, 3, 3), (16, 14, 14)),
        ((8, 7, 7), (8, 4, 4), (8, 4, 4), (0, 0, 0), (8, 4, 4)),
        ((8, 7, 7), (10, 32, 4), (8, 7, 4), (4, 3, 0), (16, 35, 4)),
    ],
)
def test_where_one_window_covers_an_axis_it_shrinks_and_does_not_shift_there(window, grid, used, moved, padded):
    scheme = ShiftedWindows(window, tuple(size // 2 for size in window))
    assert scheme.fit(grid) == (used, moved) and scheme.padded(grid) == padded


def test_class_token_over_joint_attention_is_a_plain_vit():
    net, x, cls = attention(JOINT), tokens(), torch.randn(2, 1, 8).double()
    y, out = net(x, cls)
    vit = MultiHeadAttention.forward(net, torch.cat([cls, x.flatten(1, 3)], dim=1))
    torch.testing.assert_close(torch.cat([out, y.flatten(1, 3)], dim=1), vit)


def test_timesformer_class_token_takes_the_mean_over_frames():
    net, x, cls = attention(SPACE), tokens(), torch.randn(2, 1, 8).double()
    _, out = net(x, cls)
    rows = [torch.cat([cls, x[:, t].flatten(1, 2)], dim=1) for t in range(GRID.t)]
    frames = [MultiHeadAttention.forward(net, row)[:, :1] for row in rows]
    torch.testing.assert_close(out, sum(frames) / GRID.t)


@each(FOLDS)
def test_groups_hold_every_token_once(scheme):
    members = scheme.members(GRID)
    assert torch.equal(members.flatten().sort().values, torch.arange(GRID.size))


def test_group_members_stand_in_the_order_of_the_fold():
    x = torch.arange(GRID.size).view(1, *GRID, 1).double()
    seen = []
    TIME.apply(lambda rows: seen.append(rows) or rows, x)
    assert torch.equal(rearrange(seen[0], "group member 1 -> group member").long(), TIME.members(GRID))


def test_a_window_that_does_not_fit_is_refused_by_axis_and_length():
    for call in (lambda: attention(windows(3, 2, 3))(tokens()), lambda: windows(3, 2, 3).mask(GRID)):
        with pytest.raises(ValueError, match=r"axis \(nt t\).*length 4, not a multiple of 3.*use 3 or 6"):
            call()


def test_tokens_without_a_grid_are_refused():
    with pytest.raises(ValueError, match="names 5 axes, the tokens have 3"):
        SPACE.apply(lambda x: x, torch.zeros(1, 6, 8))


@pytest.mark.parametrize(
    "scheme", [ShiftedWindows((2, 2, 3), (1, 1, 1)), SplitHeads(TIME, SPACE)], ids=lambda x: x.name
)
def test_schemes_without_a_place_for_a_class_token_say_so(scheme):
    with pytest.raises(ValueError, match="no class token"):
        attention(scheme)(tokens(), torch.zeros(2, 1, 8).double())


def test_wrong_numbers_in_a_scheme_are_refused():
    with pytest.raises(ValueError, match=r"along w it must lie in 0\.\.2, not 3"):
        ShiftedWindows((2, 2, 3), (0, 0, 3))
    with pytest.raises(ValueError, match="radius of 0 or more, not -1"):
        Band(-1)
    with pytest.raises(ValueError, match=r"h=7 of \(8, 7, 14\) is odd"):
        local_global(Grid(8, 7, 14))


def test_reach_refuses_a_computation_that_loses_tokens():
    with pytest.raises(ValueError, match="tokens in, tokens out"):
        reach(lambda x: x[:, :1], (2, 2, 2))
