"""SlowFast: two paths, where they join, and what each of them sees."""

from __future__ import annotations

import pytest
import torch
from lively import lively
from torch import nn

from course_lib.analysis.cost import cost
from course_lib.layers.nonlocal_block import NonLocal
from course_lib.models import build
from course_lib.models.slowfast import JOINS, Join, slow_frames


def counted(name: str, shape: tuple[int, ...], **changes: object):
    with torch.device("meta"):
        return cost(build(name, **changes), shape)


def tiny(**changes: object) -> nn.Module:
    torch.manual_seed(0)
    net = build("slowfast_tiny", **changes).double()
    return lively(net, 4, 3, net.config.frames, 64, 64)


@pytest.mark.parametrize(  # from the released sampler
    ("frames", "alpha", "expected"),
    [
        (32, 8, [0, 10, 20, 31]),
        (32, 4, [0, 4, 8, 13, 17, 22, 26, 31]),
        (64, 4, [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]),
        (8, 1, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_slow_frames_run_evenly_from_the_first_to_the_last(frames, alpha, expected):
    assert slow_frames(frames, alpha).tolist() == expected


def test_frames_that_alpha_does_not_divide_are_refused():
    with pytest.raises(ValueError, match="30 frames are no multiple of alpha=4: use 28 or 32 frames"):
        slow_frames(30, 4)
    with pytest.raises(ValueError, match="30 frames"):
        build("slowfast_tiny", frames=30)
    with pytest.raises(ValueError, match="18 frames"):
        build("slowfast_tiny")(torch.zeros(1, 3, 18, 64, 64))


def seen(net: nn.Module, frames: int) -> list[int]:
    clip = torch.randn(1, 3, frames, 64, 64).double().requires_grad_()
    (gradient,) = torch.autograd.grad(net(clip).square().sum(), clip)
    return (gradient.abs().sum((0, 1, 3, 4)) > 0).nonzero().flatten().tolist()


def test_a_slow_path_is_blind_to_all_but_its_frames():
    assert seen(tiny(paths=("slow",), frames=32), 32) == [0, 4, 8, 13, 17, 22, 26, 31]


def test_with_the_fast_path_every_frame_is_seen():
    assert seen(tiny(frames=32), 32) == list(range(32))
    assert seen(tiny(paths=("fast",), frames=32), 32) == list(range(32))


@pytest.mark.parametrize(  # table 5a, at the 256 test crop
    ("changes", "gmacs"),
    [
        (dict(paths=("slow",)), 27.3),
        (dict(join="none"), 34.2),
        (dict(join="ttoc_sum"), 34.2),
        (dict(join="ttoc_concat"), 39.8),
        (dict(join="t_sample"), 34.9),
        (dict(join="t_conv"), 36.1),
    ],
)
def test_every_join_costs_what_table_5a_says(changes, gmacs):
    found = counted("slowfast_r50_4x16", (1, 3, 32, 256, 256), **changes).macs / 1e9
    assert found == pytest.approx(gmacs, rel=0.003)


def test_the_fast_path_alone_costs_more_than_table_5a_says():
    """0.62 M and 6.9 G here, 0.53 M and 6.4 G there; yet 34.2 - 27.3 of the same table is 6.9."""
    found = counted("fast_r50", (1, 3, 32, 256, 256))
    assert found.macs / 1e9 == pytest.approx(34.2 - 27.3, abs=0.05)
    assert found.parameters / 1e6 == pytest.approx(0.617, abs=0.001)


@pytest.mark.parametrize(("beta", "gmacs", "within"), [(8, 36.1, 0.003), (16, 30.6, 0.003), (32, 28.6, 0.003)])
def test_thinner_fast_paths_cost_what_table_5b_says(beta, gmacs, within):
    found = counted("slowfast_r50_4x16", (1, 3, 32, 256, 256), beta=beta).macs / 1e9
    assert found == pytest.approx(gmacs, rel=within)


@pytest.mark.parametrize(  # published at the 256 test crop
    ("name", "frames", "gmacs"),
    [
        ("slowfast_r50_8x8", 32, 65.7),
        ("slowfast_r101_8x8_50_50", 32, 106),
        ("slowfast_r101_16x8_50_50", 64, 213),
        ("slowfast_nl_r101_16x8_50_50", 64, 234),
    ],
)
def test_multiply_adds_are_the_published_ones(name, frames, gmacs):
    assert counted(name, (1, 3, frames, 256, 256)).macs / 1e9 == pytest.approx(gmacs, rel=0.04)


SLOW = [[10, 20], [30, 40], [50, 60], [70, 80]]  # channel, frame: C = 4, T = 2
FAST = [[1, 2, 3, 4], [5, 6, 7, 8]]  # beta C = 2, alpha T = 4
FIRST, SECOND = [[1, 3], [5, 7]], [[2, 4], [6, 8]]  # the channels of the first and of the second frame of each pair


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("none", SLOW),
        ("ttoc_sum", [[11, 23], [35, 47], [52, 64], [76, 88]]),
        ("ttoc_concat", SLOW + FIRST + SECOND),
        ("t_sample", SLOW + FIRST),
    ],
)
def test_joins_drawn_by_hand(kind, wanted):
    slow, fast = (torch.tensor(rows, dtype=torch.float)[None, :, :, None, None] for rows in (SLOW, FAST))
    join = Join(kind, slow=4, fast=2, alpha=2, kernel=5)
    assert join(slow, fast)[0, :, :, 0, 0].tolist() == wanted and join.out == len(wanted)


def test_t_conv_reads_a_window_of_frames_around_every_alpha_th():
    join = Join("t_conv", slow=2, fast=3, alpha=4, kernel=5).eval()
    nn.init.ones_(join.conv.conv.weight)
    slow, fast = torch.zeros(1, 2, 2, 1, 1), torch.zeros(1, 3, 8, 1, 1)
    reached = []
    for frame in range(8):
        fast.zero_()[:, :, frame] = 1
        reached.append((join(slow, fast)[0, 2, :, 0, 0] > 0).tolist())
    assert [f for f in range(8) if reached[f][0]] == [0, 1, 2]
    assert [f for f in range(8) if reached[f][1]] == [2, 3, 4, 5, 6]
    assert join.out == 2 + 2 * 3


@pytest.mark.parametrize("join", JOINS)
def test_information_flows_from_fast_to_slow_where_the_table_says_and_never_back(join):
    net = tiny(join=join)
    assert list(net.joins) == ["stem", "res2", "res3", "res4"]
    clip = torch.randn(1, 3, 16, 64, 64).double()
    with torch.no_grad():
        fast = net.paths["fast"]
        before = fast.res5(fast.res4(fast.res3(fast.res2(fast.stem(clip)))))
        for tensor in net.paths["slow"].state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(0.9)
        after = fast.res5(fast.res4(fast.res3(fast.res2(fast.stem(clip)))))
    assert after.equal(before)


@pytest.mark.parametrize(
    ("name", "slow", "fast"),
    [
        ("slowfast_r50_8x8", [1, [1] * 3, [1] * 4, [3] * 6, [3] * 3], [5, [3] * 3, [3] * 4, [3] * 6, [3] * 3]),
        (
            "slowfast_r101_8x8_50_101",
            [1, [1] * 3, [1] * 4, [3] * 6 + [1] * 17, [3] * 3],
            [5, [3] * 3, [3] * 4, [3] * 23, [3] * 3],
        ),
    ],
)
def test_which_blocks_convolve_over_time(name, slow, fast):
    with torch.device("meta"):
        net = build(name)
    for path, expected in (("slow", slow), ("fast", fast)):
        part = net.paths[path]
        stages = [[b.a.conv.kernel_size[0] for b in getattr(part, f"res{i}")] for i in (2, 3, 4, 5)]
        assert [part.stem.conv.kernel_size[0], *stages] == expected


def test_no_block_has_a_stride_in_time():
    with torch.device("meta"):
        net = build("slowfast_r50_8x8")
    strides = {name: m.stride[0] for name, m in net.named_modules() if isinstance(m, nn.Conv3d) and m.stride[0] != 1}
    assert set(strides) == {f"joins.{name}.conv.conv" for name in ("stem", "res2", "res3", "res4")}
    assert set(strides.values()) == {4}


def test_non_local_blocks_sit_in_the_slow_path_before_the_join():
    with torch.device("meta"):
        net = build("slowfast_nl_r50_8x8")
    blocks = [name for name, m in net.named_modules() if isinstance(m, NonLocal)]
    assert blocks == [f"paths.slow.{place}" for place in (
        "res3.nonlocal1", "res3.nonlocal3", "res4.nonlocal1", "res4.nonlocal3", "res4.nonlocal5")]  # fmt: skip
    assert net.paths["slow"].res3.nonlocal1.theta.in_channels == 512  # without the 128 that the join adds


def test_32_plus_5_norms_start_at_zero():
    net = build("slowfast_nl_r50_8x8", width=8)
    zeros = [m for m in net.modules() if isinstance(m, nn.BatchNorm3d) and not m.weight.any()]
    assert len(zeros) == 32 + 5


def test_the_released_test_averages_probabilities_over_places():
    net, clip = tiny(), torch.randn(1, 3, 16, 96, 128).double()
    with torch.no_grad():
        places = net.places(clip)
        assert places.shape == (1, 1, 2, 3, 8)
        torch.testing.assert_close(net(clip), places.mean((1, 2, 3)))
        assert (places.softmax(-1).mean((1, 2, 3)) - net(clip).softmax(-1)).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(join="bilinear"), "unknown join 'bilinear': .*There are none, ttoc_sum, ttoc_concat, t_sample, t_conv"),
        (dict(paths=("fast", "slow")), r"paths must be \('slow', 'fast'\)"),
        (dict(join="ttoc_sum", beta=8), "alpha=4 must equal beta=8"),
        (dict(beta=32), "width=16 over beta=32 leaves the fast path no channel"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build("slowfast_tiny", **changes)
