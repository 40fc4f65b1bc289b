"""I3D as its paper and its ports describe it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lively import lively

from course_lib.analysis.cost import cost
from course_lib.layers.inflate import load_image_weights
from course_lib.models import build
from course_lib.models.i3d import TwoStream, pad, same_padding


def tiny(**changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    net = build("i3d_tiny", **changes)
    return lively(net, 4, net.config.colours, 8, 64, 64)


@pytest.mark.parametrize(  # drawn by hand from TensorFlow's rule: as many outputs as ceil(length / stride)
    ("length", "kernel", "stride", "before", "after"),
    [
        (224, 7, 2, 2, 3),  # the stem
        (225, 7, 2, 3, 3),
        (112, 3, 2, 0, 1),  # the pools
        (113, 3, 2, 1, 1),
        (7, 2, 2, 0, 1),
        (8, 2, 2, 0, 0),
        (28, 3, 1, 1, 1),
        (5, 1, 2, 0, 0),
    ],
)
def test_same_padding_is_tensorflows(length, kernel, stride, before, after):
    found = same_padding((length,) * 3, (kernel,) * 3, (stride,) * 3)
    assert found == [(before, after)] * 3
    outputs = F.max_pool1d(F.pad(torch.zeros(1, 1, length), found[0]), kernel, stride).shape[-1]
    assert outputs == -(-length // stride)


@pytest.mark.parametrize(("frames", "size", "gmacs"), [(64, 224, 111.15), (16, 224, 27.79), (17, 226, 34.19)])
def test_multiply_adds_are_the_released_ones_on_any_size(frames, size, gmacs):
    assert cost(build("i3d_inception"), (1, 3, frames, size, size)).macs / 1e9 == pytest.approx(gmacs, rel=0.001)


def test_two_streams_have_the_papers_25_million_parameters():
    with torch.device("meta"):
        both = TwoStream(build("i3d_inception"), build("i3d_inception_flow"))
    assert sum(p.numel() for p in both.parameters()) / 1e6 == pytest.approx(25.0, rel=0.02)


def test_two_streams_are_fused_at_the_very_end():
    rgb, flow = (tiny(colours=colours) for colours in (3, 2))
    clip, motion = torch.randn(2, 3, 8, 64, 64), torch.randn(2, 2, 8, 64, 64)
    with torch.inference_mode():
        assert TwoStream(rgb, flow)(clip, motion).equal(rgb(clip) + flow(motion))


def inflated(edges: str):
    image = tiny(image=True).double()  # 1/7 of a kernel, seven times, is the kernel but for rounding
    video = build("i3d_tiny", edges=edges).double().eval()
    report = load_image_weights(video, image.state_dict(), {})
    assert not report.fresh and not report.left_over
    return image, video


def test_what_lies_around_a_clip_is_zeros_or_its_end_frames():
    clip = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 4, 1, 1)
    kernel, stride = (7, 1, 1), (2, 1, 1)
    assert pad(clip, kernel, stride, "zeros").flatten().tolist() == [0, 0, 1, 2, 3, 4, 0, 0, 0]
    assert pad(clip, kernel, stride, "repeat").flatten().tolist() == [1, 1, 1, 2, 3, 4, 4, 4, 4]


def test_i3d_a_still_video_gives_the_answer_of_the_image_exactly():
    image, video = inflated("repeat")
    picture = torch.randn(1, 3, 1, 64, 64).double()
    with torch.inference_mode():
        wanted, found = image(picture), video(picture.expand(-1, -1, 16, -1, -1))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_with_the_released_zeros_around_the_clip_it_holds_only_far_from_its_ends():
    image, video = inflated("zeros")
    picture = torch.randn(1, 3, 1, 64, 64).double()
    still = picture.expand(-1, -1, 64, -1, -1)
    with torch.inference_mode():
        assert (video(still) - image(picture)).abs().max() > 1e-2 * image(picture).std()
        first = slice(0, 8)  # up to mixed_4b: seven kernels over time; the whole net sees every end of 64 frames
        wanted, found = image.layers[first](picture), video.layers[first](still)
    torch.testing.assert_close(found[:, :, 8:-8], wanted.expand_as(found[:, :, 8:-8]), rtol=1e-10, atol=1e-10)
    assert (found[:, :, :1] - wanted).abs().max() > 1e-3


def test_f1_the_image_network_is_blind_to_the_order_of_frames():
    image, clip = tiny(image=True), torch.randn(2, 3, 8, 64, 64)
    with torch.inference_mode():
        for order in (torch.arange(8).flip(0), torch.tensor([3, 1, 4, 0, 5, 2, 6, 7])):
            torch.testing.assert_close(image(clip[:, :, order]), image(clip))


def test_f5_inflated_i3d_still_tells_a_clip_from_its_reverse():
    """Its kernels are symmetric in time, its strides are not: SAME pads 2 before and 3 after."""
    _, video = inflated("zeros")
    clip = torch.randn(1, 3, 8, 64, 64).double()
    with torch.inference_mode():
        difference = (video(clip) - video(clip.flip(2))).abs().max() / video(clip).std()
    assert difference > 1e-2


def test_the_head_slides_over_larger_and_longer_clips():
    net = tiny()
    with torch.inference_mode():
        assert net(torch.randn(1, 3, 19, 70, 96)).shape == (1, 8)
    with pytest.raises(ValueError, match="this clip leaves 1x1x1"):
        net(torch.randn(1, 3, 8, 32, 32))


def test_unknown_edges_are_refused():
    with pytest.raises(ValueError, match=r"unknown edges 'wrap': .*There are zeros, repeat"):
        build("i3d_tiny", edges="wrap")
