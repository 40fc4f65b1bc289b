"""Frames to clips, against Pillow and against frames whose pixels know where they are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.video import transforms
from course_lib.video.transforms import IMAGENET, KINETICS, EvalTransform, ToNetwork, TrainTransform


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8)


def map_of_places(height: int, width: int, frames: int = 2) -> torch.Tensor:
    """Red is the row, green the column, in pixels."""
    rows = torch.arange(height).float()[:, None].expand(height, width)
    columns = torch.arange(width).float().expand(height, width)
    return torch.stack([rows, columns, 0 * rows])[:, None].expand(3, frames, height, width).contiguous()


def by_pillow(frames: np.ndarray, height: int, width: int) -> torch.Tensor:
    planes = np.moveaxis(frames, -1, 0).astype(np.float32) / 255
    scaled = [
        [np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR)) for plane in colour]
        for colour in planes
    ]
    return torch.from_numpy(np.array(scaled))


def test_a_clip_has_colours_first_and_values_from_0_to_1():
    frames = noise(4, 6, 5)
    clip = transforms.to_clip(frames)
    assert clip.dtype == torch.float32
    for colour, frame, row, column in [(0, 0, 0, 0), (2, 3, 5, 4), (1, 2, 3, 1)]:
        assert clip[colour, frame, row, column].item() == pytest.approx(frames[frame, row, column, colour] / 255)


def test_a_batch_a_reversed_and_a_read_only_clip_are_taken_too():
    frames = noise(4, 6, 5)
    clip = transforms.to_clip(frames)
    assert torch.equal(transforms.to_clip(torch.from_numpy(frames)[None])[0], clip)
    assert torch.equal(transforms.to_clip(frames[::-1]), clip.flip(1))
    frames.flags.writeable = False
    assert torch.equal(transforms.to_clip(frames), clip)


def test_normalised_numbers_are_those_of_the_papers():
    grey = torch.full((2, 3, 1, 1, 1), 0.45)
    assert torch.equal(transforms.normalise(grey, *KINETICS), torch.zeros_like(grey))
    assert transforms.normalise(grey + 0.225, *KINETICS) == pytest.approx(torch.ones_like(grey))
    red, green, blue = transforms.normalise(torch.ones(3, 1, 1, 1), *IMAGENET).flatten().tolist()
    assert (red, green, blue) == pytest.approx((2.2489, 2.4286, 2.6400), abs=1e-4)  # white, as for ImageNet's nets


@pytest.mark.parametrize("shape, size", [((48, 64), 24), ((64, 48), 24), ((50, 37), 23), ((20, 30), 35)])
def test_the_short_side_is_scaled_as_pillow_does_it(shape, size):
    frames = noise(2, *shape)
    clip = transforms.short_side(transforms.to_clip(frames), size)
    height, width = (size, shape[1] * size // shape[0]) if shape[0] <= shape[1] else (shape[0] * size // shape[1], size)
    assert clip.shape == (3, 2, height, width)
    assert (clip - by_pillow(frames, height, width)).abs().max() < 1e-5


@pytest.mark.parametrize("shape, size", [((48, 64), 24), ((64, 48), 24), ((50, 37), 23), ((20, 30), 35)])
def test_bytes_are_scaled_as_pillow_scales_bytes_to_one_level(shape, size):
    frames = noise(2, *shape)
    clip = transforms.short_side(transforms.bytes_first(frames), size)
    assert clip.dtype == torch.uint8
    for frame, scaled in zip(frames, clip.permute(1, 2, 3, 0).numpy(), strict=True):
        height, width = scaled.shape[:2]
        expected = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
        assert np.abs(scaled.astype(int) - expected).max() <= 1


def test_kinetics_frames_of_340_x_256_become_297_x_224():
    assert transforms.short_side(torch.zeros(3, 1, 256, 340), 224).shape == (3, 1, 224, 297)


def test_the_centre_crop_leaves_the_same_margin_on_both_sides():
    clip = transforms.centre_crop(map_of_places(20, 31), 10)
    assert (clip[0].min(), clip[0].max()) == (5, 14)
    assert (clip[1].min(), clip[1].max()) == (10, 19)  # 10 on the left, 11 on the right


@pytest.mark.parametrize("axis, shape, names", [(1, (16, 40), "left right"), (0, (40, 16), "top bottom")])
def test_three_crops_lie_at_both_ends_and_in_the_middle_of_the_long_side(axis, shape, names):
    crops = transforms.three_crops(map_of_places(*shape), 16)
    assert crops.shape == (3, 3, 2, 16, 16)
    assert crops[:, axis].amin(dim=(1, 2, 3)).tolist() == [0, 12, 24]
    assert crops[:, 1 - axis].amin(dim=(1, 2, 3)).tolist() == [0, 0, 0]


def test_a_random_crop_can_lie_anywhere_and_cuts_all_frames_alike():
    draw, corners = generator(), set()
    for _ in range(300):
        clip = transforms.random_crop(map_of_places(10, 12), 8, draw)
        assert clip.shape == (3, 2, 8, 8)
        assert torch.equal(clip[:, 0], clip[:, 1])
        corners.add((int(clip[0].min()), int(clip[1].min())))
    assert corners == {(row, column) for row in range(3) for column in range(5)}


def test_a_random_resized_crop_keeps_to_its_areas_and_aspects():
    draw, areas, aspects = generator(), [], []
    for _ in range(200):
        clip = transforms.random_resized_crop(map_of_places(100, 160), 32, draw, area=(0.2, 0.5), aspect=(0.8, 1.6))
        assert clip.shape == (3, 2, 32, 32)
        assert torch.equal(clip[:, 0], clip[:, 1])
        # From the middle of one pixel to that of another, 16 pixels on, is half the rectangle.
        height = (clip[0, 0, 24, 16] - clip[0, 0, 8, 16]).item() * 2
        width = (clip[1, 0, 16, 24] - clip[1, 0, 16, 8]).item() * 2
        areas.append(height * width / 16000)
        aspects.append(width / height)
    assert min(areas) > 0.19 and max(areas) < 0.51 and max(areas) - min(areas) > 0.25
    assert min(aspects) > 0.77 and max(aspects) < 1.65 and max(aspects) - min(aspects) > 0.7


def test_a_frame_too_long_for_the_aspects_gives_its_largest_middle():
    for shape, rows, columns in [((12, 90), (0, 11), (37, 52)), ((90, 12), (37, 52), (0, 11))]:
        clip = transforms.random_resized_crop(map_of_places(*shape), 64, generator(), area=(1.0, 1.0))
        assert (clip[0].min(), clip[0].max()) == pytest.approx(rows, abs=0.6)  # 16 x 12: 4 to 3
        assert (clip[1].min(), clip[1].max()) == pytest.approx(columns, abs=0.6)


def test_a_flip_mirrors_left_and_right_only():
    clip = map_of_places(4, 6)
    mirrored = transforms.flip(clip)
    assert torch.equal(mirrored[0], clip[0])
    assert torch.equal(mirrored[1], 5 - clip[1])


@pytest.mark.parametrize("flip", [True, False])
def test_training_mirrors_every_second_clip_unless_told_not_to(flip):
    frames = np.zeros((2, 20, 20, 3), np.uint8)
    frames[:, :, 10:] = 255
    train = TrainTransform(size=20, short_side=(20, 20), flip=flip)
    mirrored = sum(bool(train(frames, generator(seed))[0, 0, 0, 0] > 0) for seed in range(100))
    assert 30 < mirrored < 70 if flip else mirrored == 0


def test_training_draws_the_scale_from_the_whole_range():
    frames = np.zeros((1, 16, 16, 3), np.uint8)
    frames[:] = np.arange(16, dtype=np.uint8)[:, None, None] * 16
    spans = []
    for seed in range(60):  # the larger the scale, the less the brightness changes from top to bottom of the crop
        clip = TrainTransform(size=16, short_side=(16, 48))(frames, generator(seed))
        spans.append((clip[0, 0, 15, 0] - clip[0, 0, 0, 0]).item() * 0.225 * 255 / 16)
    assert max(spans) > 13.5 and min(spans) < 5.5  # 15 rows at scale 1, 5 at scale 3


def test_the_same_generator_state_gives_the_same_clip():
    train = TrainTransform(size=16, short_side=(20, 30))
    frames = noise(2, 40, 50)
    assert torch.equal(train(frames, generator(3)), train(frames, generator(3)))
    assert not torch.equal(train(frames, generator(3)), train(frames, generator(4)))


def test_testing_is_scaling_then_the_middle_then_normalising():
    frames = noise(2, 48, 64)
    clip = EvalTransform(size=20, short_side=24)(frames)
    by_hand = (by_pillow(frames, 24, 32)[..., 2:22, 6:26] - 0.45) / 0.225
    assert (clip - by_hand).abs().max() < 1.01 / 255 / 0.225  # bytes: one level


def test_testing_with_three_crops_gives_a_view_a_crop():
    frames = noise(2, 24, 40)
    views = EvalTransform(size=24, short_side=24, crops=3)(frames)
    assert views.shape == (3, 3, 2, 24, 24)
    assert torch.equal(views[1], EvalTransform(size=24, short_side=24)(frames))
    assert torch.equal(views[2], transforms.whole_frames(frames[:, :, 16:]))
    with pytest.raises(ValueError, match="crops=2"):
        EvalTransform(crops=2)


@pytest.mark.parametrize("make", [TrainTransform(16, (20, 30)), EvalTransform(16, 20)])
def test_bytes_made_numbers_by_the_batch_are_the_numbers_made_one_by_one(make):
    frames = noise(2, 40, 50)
    as_bytes = dataclasses.replace(make, colours=None)(frames, generator(3))
    assert as_bytes.dtype == torch.uint8 and as_bytes.is_contiguous()
    batch = torch.stack([as_bytes, as_bytes])
    assert (ToNetwork()(batch) - make(frames, generator(3))).abs().max() < 1e-6
    imagenet = dataclasses.replace(make, colours=IMAGENET)(frames, generator(3))
    assert (ToNetwork(IMAGENET)(batch[0]) - imagenet).abs().max() < 1e-6


def test_a_batch_is_mirrored_clip_by_clip_and_again_in_the_same_way_from_the_same_seed():
    batch = torch.from_numpy(noise(60, 4, 6)).movedim(-1, 1)[:, :, None]  # b 3 1 H W
    plain, mirroring = ToNetwork(), ToNetwork(flip=True)
    torch.manual_seed(0)
    once = mirroring(batch)
    torch.manual_seed(0)
    assert torch.equal(once, mirroring(batch))
    turned = [torch.equal(one, clip.flip(-1)) for one, clip in zip(once, plain(batch), strict=True)]
    kept = [torch.equal(one, clip) for one, clip in zip(once, plain(batch), strict=True)]
    assert sum(turned) + sum(kept) == 60 and 15 < sum(turned) < 45


def test_whole_frames_are_only_normalised():
    frames = noise(2, 5, 7)
    clip = transforms.whole_frames(frames)
    assert clip.shape == (3, 2, 5, 7)
    assert clip[2, 1, 4, 6].item() == pytest.approx((frames[1, 4, 6, 2] / 255 - 0.45) / 0.225, abs=1e-5)


def test_what_does_not_fit_is_refused_with_the_sizes():
    clip = torch.zeros(3, 2, 20, 30)
    for too_large in (transforms.centre_crop, transforms.three_crops):
        with pytest.raises(ValueError, match=r"24 x 24.*20 x 30"):
            too_large(clip, 24)
    with pytest.raises(ValueError, match=r"24 x 24.*20 x 30"):
        transforms.random_crop(clip, 24, generator())
    with pytest.raises(ValueError, match=r"at \(-1, 0\) leaves the frame of 20 x 30"):
        transforms.crop(clip, -1, 0, 8, 8)
    with pytest.raises(ValueError, match="size=224"):
        TrainTransform(224, (200, 320))
    with pytest.raises(ValueError, match="lowest <= highest"):
        TrainTransform(16, (30, 20))
    with pytest.raises(ValueError, match="short_side=112"):
        EvalTransform(224, 112)
    with pytest.raises(ValueError, match="needs a generator"):
        TrainTransform(8, (8, 8))(noise(2, 8, 8), None)
