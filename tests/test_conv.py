"""Layers that the convolutional networks share."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.layers.conv import DepthwiseConv, conv_bn, conv_init, sliding_mean, with_norm
from course_lib.layers.resnet import Bottleneck, stage


@pytest.mark.parametrize("kernel", [(1, 1, 1), (3, 1, 1), (1, 3, 3), (5, 7, 7)])
def test_odd_kernels_keep_every_length(kernel):
    assert conv_bn(2, 3, kernel)(torch.randn(1, 2, 5, 9, 8)).shape == (1, 3, 5, 9, 8)


def test_padding_is_symmetric_zeros():
    unit = conv_bn(1, 1, (1, 3, 3), (1, 2, 2)).eval()
    nn.init.ones_(unit.conv.weight)
    found = unit.conv(torch.ones(1, 1, 1, 6, 6))[0, 0, 0]
    assert found.tolist() == [[4, 6, 6], [6, 9, 9], [6, 9, 9]]  # zeros before, none reached after


def test_convolution_has_no_bias_and_relu_can_be_left_out():
    assert conv_bn(2, 2, (1, 1, 1)).conv.bias is None
    assert [type(part) for part in conv_bn(2, 2, (1, 1, 1), relu=False)] == [nn.Conv3d, nn.BatchNorm3d]
    assert with_norm(nn.Identity(), 4, eps=1e-3).norm.eps == 1e-3


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("stride", [1, 2, 8])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (5, 3, 3), (2, 3, 3), (4, 5, 5)])
def test_depthwise_is_torchs_grouped_convolution_and_so_are_its_gradients(kernel, stride, frames):
    padding = [size // 2 for size in kernel]
    conv = DepthwiseConv(4, kernel, (1, stride, stride)).double()
    x = torch.randn(2, 4, frames, 9, 8, dtype=torch.double, requires_grad=True)
    theirs = F.conv3d(x, conv.weight, None, (1, stride, stride), padding, groups=4)
    torch.testing.assert_close(conv(x), theirs)
    change = torch.randn_like(theirs)
    for ours, other in zip(*(torch.autograd.grad(y, (x, conv.weight), change) for y in (conv(x), theirs)), strict=True):
        torch.testing.assert_close(ours, other)


def test_depthwise_leaves_channels_last_in_memory_where_they_were():
    conv, tokens = DepthwiseConv(4, (3, 3, 3), (1, 2, 2)), torch.randn(2, 4, 8, 8, 4)[:, 1:]
    y = conv(tokens.movedim(-1, 1))
    assert y.shape == (2, 4, 3, 4, 4) and y.movedim(1, -1).is_contiguous()


def test_depthwise_has_no_stride_in_time():
    with pytest.raises(ValueError, match="goes through time frame by frame, not by 2 frames"):
        DepthwiseConv(4, (3, 3, 3), (2, 1, 1))


def test_a_bottleneck_convolves_over_time_first_and_strides_in_its_3x3():
    block = Bottleneck(8, 4, 16, time_kernel=3, stride=2)
    found = [(part.conv.kernel_size, part.conv.stride) for part in (block.a, block.b, block.c)]
    assert found == [((3, 1, 1), (1, 1, 1)), ((1, 3, 3), (1, 2, 2)), ((1, 1, 1), (1, 1, 1))]
    assert block.shortcut.conv.stride == (1, 2, 2)
    assert isinstance(Bottleneck(16, 4, 16).shortcut, nn.Identity)
    assert Bottleneck(16, 4, 16, stride=2)(torch.randn(1, 16, 2, 8, 8)).shape == (1, 16, 2, 4, 4)


def test_a_fresh_bottleneck_is_its_shortcut():
    block, x = Bottleneck(6, 2, 6, time_kernel=3).eval(), torch.randn(2, 6, 3, 4, 4)
    assert block(x).equal(x.relu())


def test_sliding_mean_weighs_middle_places_more_than_border_ones():
    x = torch.arange(3.0).view(1, 1, 1, 1, 3)
    assert sliding_mean(x, (1, 1, 2)).flatten().tolist() == [0.5, 1.5]
    x = torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 1, 1, 3)
    assert sliding_mean(x, (1, 1, 2)).mean() == 0.5 > x.mean()
    assert sliding_mean(torch.ones(2, 3, 4, 7, 7), (4, 7, 7)).shape == (2, 3, 1, 1, 1)


def test_a_clip_too_small_for_the_head_is_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"averages over 8x7x7 places .* leaves 4x7x7: give a longer"):
        sliding_mean(torch.ones(1, 1, 4, 7, 7), (8, 7, 7))
    with pytest.raises(ValueError, match="nothing is left for the head: a window of 8x0x0 places"):
        sliding_mean(torch.ones(1, 1, 8, 1, 1), (8, 0, 0))


def test_a_non_local_block_needs_a_block_to_follow():
    with pytest.raises(ValueError, match="no block 3 for a non-local block to follow: this stage has blocks 0 to 1"):
        stage(4, 2, 8, [1, 1], 1, {3: nn.Identity()})
    assert list(stage(4, 2, 8, [1, 3], 2, {0: nn.Identity()})._modules) == ["block0", "nonlocal0", "block1"]


def test_the_start_is_he_normal_by_fan_out():
    conv, linear = nn.Conv3d(64, 32, (1, 3, 3)), nn.Linear(512, 400)
    conv_init(conv), conv_init(linear)
    assert conv.weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not conv.bias.any() and not linear.bias.any()
