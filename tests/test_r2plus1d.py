"""Where a ResNet convolves over time, and what that costs."""

from __future__ import annotations

import pytest
import torch
from lively import lively
from torch import nn

from course_lib.analysis.cost import cost
from course_lib.models import build
from course_lib.models.r2plus1d import CONVOLUTIONS, R2Plus1D, R2Plus1DConfig, convolution, middle

PAPER = {  # table 2: parameters in millions, ResNet-18, clips of 8 frames
    "r2d_18": 11.4,
    "fr2d_18": 11.4,
    "r3d_18": 33.4,
    "mc2_18": 11.4,
    "mc3_18": 11.7,
    "mc4_18": 12.7,
    "mc5_18": 16.9,
    "rmc2_18": 33.3,
    "rmc3_18": 33.0,
    "rmc4_18": 32.0,
    "rmc5_18": 27.9,
    "r2plus1d_18_paper": 33.3,
}


def parameters(name: str, **changes: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(name, **changes).parameters())


@pytest.mark.parametrize(("name", "millions"), PAPER.items())
def test_parameters_are_those_of_table_2(name, millions):
    assert parameters(name) / 1e6 == pytest.approx(millions, rel=0.01)


def test_the_trap_torchvisions_r2plus1d_is_smaller_than_the_papers():
    assert parameters("r2plus1d_18") == 31_505_325
    assert parameters("r2plus1d_18_paper") == pytest.approx(33.3e6, rel=0.01)
    assert parameters("r2plus1d_18", shared_middle=False) == parameters("r2plus1d_18_paper")


def test_r2plus1d_34_has_the_published_parameters():
    assert parameters("r2plus1d_34") / 1e6 == pytest.approx(63.6, rel=0.01)


@pytest.mark.parametrize(  # as SlowFast's table 2 cites it; the authors' zoo says 112 and counts at 128
    ("frames", "size", "gmacs"), [(32, 112, 152), (8, 128, 49.8), (32, 128, 199.0)]
)
def test_r2plus1d_34_has_the_published_multiply_adds(frames, size, gmacs):
    with torch.device("meta"):
        assert cost(build("r2plus1d_34"), (1, 3, frames, size, size)).macs / 1e9 == pytest.approx(gmacs, rel=0.005)


@pytest.mark.parametrize(  # by hand: 27 N N' / (9 N + 3 N')
    ("dim", "out", "width"), [(64, 64, 144), (64, 128, 230), (128, 128, 288), (128, 256, 460), (512, 512, 1152)]
)
def test_a_factored_convolution_has_the_parameters_of_the_one_it_replaces(dim, out, width):
    assert middle(dim, out) == width
    assert 9 * dim * width + 3 * width * out == pytest.approx(27 * dim * out, rel=0.005)


def test_without_a_middle_relu_a_factored_convolution_is_one_linear_map_and_with_it_is_not():
    torch.manual_seed(0)
    x, y = torch.randn(2, 1, 4, 5, 6, 6)
    for relu in (False, True):
        conv = convolution("2+1d", 4, 3, 7, relu=relu).eval()
        with torch.no_grad():
            bend = (conv(x + y) - conv(x) - conv(y)).abs().max()
        assert (bend > 0.01) == relu and (bend < 1e-5) != relu


def test_a_middle_relu_costs_two_parameters_a_channel_and_its_lack_is_no_other_network():
    bent, straight = build("r2plus1d_tiny"), build("r2plus1d_tiny", middle_relu=False)
    halves = [part for part in bent.modules() if isinstance(part, nn.Sequential) and hasattr(part, "time")]
    between = sum(part.space.out_channels for part in halves)
    sizes = [sum(weight.numel() for weight in net.parameters()) for net in (bent, straight)]
    assert len(halves) == 9 and sizes[0] - sizes[1] == 2 * between
    kept = {name for name, _ in straight.named_parameters()}
    left_out = {name for name, _ in bent.named_parameters()} - kept
    assert all(".conv.norm." in name for name in left_out) and len(left_out) == 18


REACH = {  # by hand, one block a group: how many frames a frame sees after conv1, conv2_x .. conv5_x
    "fr2d": [1, 1, 1, 1, 1],
    "r3d": [3, 7, 13, 25, 49],
    "mc2": [3, 3, 3, 3, 3],
    "mc3": [3, 7, 7, 7, 7],
    "mc4": [3, 7, 13, 13, 13],
    "mc5": [3, 7, 13, 25, 25],
    "rmc2": [1, 5, 11, 23, 47],
    "rmc3": [1, 1, 7, 19, 43],
    "rmc4": [1, 1, 1, 7, 19],
    "rmc5": [1, 1, 1, 1, 7],
    "r2plus1d": [3, 7, 13, 25, 49],
}


def small(row: str, **changes: object) -> R2Plus1D:
    torch.manual_seed(0)
    settings = dict(convolutions=row, frames=8, size=32, depths=(1, 1, 1, 1), width=8, dropout=0.0, classes=5)
    return lively(R2Plus1D(R2Plus1DConfig(**{**settings, **changes})).double(), 4, 3, 8, 32, 32)


@pytest.mark.parametrize(("row", "frames"), REACH.items())
def test_reach_in_time_grows_exactly_where_the_table_says_3d(row, frames):
    net, found = small(row), []
    clip = torch.randn(1, 3, 64, 32, 32).double().requires_grad_()
    x = clip
    for group in (net.conv1, net.conv2, net.conv3, net.conv4, net.conv5):
        x = group(x)
        middle_frame = x[:, :, x.shape[2] // 2].square().sum()
        (gradient,) = torch.autograd.grad(middle_frame, clip, retain_graph=True)
        found.append(int((gradient.abs().sum((0, 1, 3, 4)) > 0).sum()))
    assert found == frames


def test_r2d_loses_time_in_conv1():
    net = small("r2d")
    assert net.conv1(torch.randn(1, 3, 8, 32, 32).double()).shape[2] == 1
    with pytest.raises(ValueError, match="conv1 swallows 8 frames at once, this clip has 16"):
        net(torch.randn(1, 3, 16, 32, 32).double())


SHUFFLE = [3, 1, 4, 0, 5, 2, 6, 7]


def test_f1_frame_by_frame_r2d_is_blind_to_order():
    net, clip = small("fr2d"), torch.randn(3, 3, 8, 32, 32).double()
    with torch.no_grad():
        torch.testing.assert_close(net(clip[:, :, SHUFFLE]), net(clip))
        torch.testing.assert_close(net(clip.flip(2)), net(clip))


def test_f1_on_clips_and_their_reverses_it_is_right_within_the_pair_exactly_half_the_time():
    net, clips = small("fr2d", classes=2), torch.randn(40, 3, 8, 32, 32).double()
    with torch.no_grad():
        forward, backward = net(clips).argmax(1), net(clips.flip(2)).argmax(1)
    assert ((forward == 0).sum() + (backward == 1).sum()) / 80 == 0.5


@pytest.mark.parametrize("row", [row for row in CONVOLUTIONS if row != "fr2d"])
def test_every_other_network_of_the_table_sees_the_order(row):
    net, clip = small(row), torch.randn(1, 3, 8, 32, 32).double()
    with torch.no_grad():
        assert (net(clip[:, :, SHUFFLE]) - net(clip)).abs().max() > 1e-4 * net(clip).std()


@pytest.mark.parametrize(  # frames and pixels after conv1, conv2_x .. conv5_x, from 16 x 112: table 1 and the releases
    ("name", "sizes"),
    [
        ("r3d_18", [(16, 56), (16, 56), (8, 28), (4, 14), (2, 7)]),
        ("r2plus1d_18", [(16, 56), (16, 56), (8, 28), (4, 14), (2, 7)]),
        ("mc3_18", [(16, 56), (16, 56), (16, 28), (16, 14), (16, 7)]),
        ("rmc4_18", [(16, 56), (16, 56), (16, 28), (8, 14), (4, 7)]),
        ("r2plus1d_r50_16x4", [(16, 56), (16, 28), (16, 14), (8, 7), (4, 4)]),
    ],
)
def test_time_and_space_shrink_where_the_paper_says(name, sizes):
    with torch.device("meta"):
        net, x = build(name).eval(), torch.empty(1, 3, 16, 112, 112)
        for group, size in zip((net.conv1, net.conv2, net.conv3, net.conv4, net.conv5), sizes, strict=True):
            x = group(x)
            assert tuple(x.shape[2:]) == (size[0], size[1], size[1])


def test_the_r50_form_convolves_over_time_first_and_matches_no_parameters():
    with torch.device("meta"):
        block = build("r2plus1d_r50_16x4").conv4[0]
    assert list(block.b.conv._modules) == ["time", "norm", "relu", "space"]
    assert (block.b.conv.time.stride, block.b.conv.space.stride) == ((2, 1, 1), (1, 2, 2))
    assert block.b.conv.time.out_channels == block.b.conv.time.in_channels


def test_the_r50_forms_blocks_start_as_their_shortcuts_and_the_others_do_not():
    for name, count in (("r2plus1d_r50_16x4", 16), ("r2plus1d_18", 0)):
        norms = [m for m in build(name, width=8).modules() if isinstance(m, nn.BatchNorm3d)]
        assert sum(not m.weight.any() for m in norms) == count, name


def test_norms_have_the_epsilon_of_whoever_released_them():
    for name, eps in (("r2plus1d_18", 1e-5), ("r2plus1d_18_paper", 1e-3), ("r2plus1d_34", 1e-3), ("r3d_18", 1e-5)):
        with torch.device("meta"):
            assert {m.eps for m in build(name).modules() if isinstance(m, nn.BatchNorm3d)} == {eps}, name


def test_unknown_convolutions_are_refused():
    with pytest.raises(ValueError, match=r"unknown convolutions 'r4d': .*There are r2d, fr2d, r3d"):
        build("r2plus1d_tiny", convolutions="r4d")
