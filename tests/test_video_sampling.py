"""Which frames a network sees, against the papers' numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from course_lib.video.sampling import dense, segments, spread, views, whole


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_8_x_32_is_eight_frames_thirty_two_apart_in_the_middle():
    assert dense(300, 8, 32).tolist() == [37, 69, 101, 133, 165, 197, 229, 261]  # 37 frames before, 38 after
    assert dense(300, 8, 32, start=75).tolist() == [75, 107, 139, 171, 203, 235, 267, 299]
    assert dense(225, 8, 32).tolist() == [0, 32, 64, 96, 128, 160, 192, 224]  # TimeSformer's exactly fits 225


def test_a_random_start_reaches_every_place_equally_often_and_no_other():
    draw = generator()
    starts = [int(dense(60, 8, 8, generator=draw)[0]) for _ in range(400)]
    counts = np.bincount(starts, minlength=4)
    assert len(counts) == 4  # 57 frames fit at 0, 1, 2, 3
    assert (abs(counts - 100) < 40).all()


def test_a_video_too_short_for_dense_sampling_is_refused_with_a_way_out():
    with pytest.raises(
        ValueError, match=r"8 frames, 32 apart, span 225, but the video has 224: use stride=31 or fewer"
    ):
        dense(224, 8, 32)
    dense(224, 8, 31)  # the way out works
    with pytest.raises(ValueError, match="8 frames asked of a video that has 5: use frames=5 or fewer"):
        dense(5, 8, 1)
    with pytest.raises(ValueError, match="can start at 0 to 75"):
        dense(300, 8, 32, start=76)
    with pytest.raises(ValueError, match="stride=0"):
        dense(300, 8, 0)


def test_holding_the_last_frame_is_a_choice_and_changes_nothing_where_the_video_is_long_enough():
    assert dense(100, 8, 32, hold=True).tolist() == [0, 32, 64, 96, 99, 99, 99, 99]
    assert dense(3, 8, 1, hold=True).tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert np.array_equal(dense(300, 8, 32, hold=True), dense(300, 8, 32))


def test_segments_without_chance_are_the_middles_of_tsn():
    assert segments(90, 3).tolist() == [15, 45, 75]
    assert segments(40, 8).tolist() == [2, 7, 12, 17, 22, 27, 32, 37]


@pytest.mark.parametrize("available, frames", [(8, 8), (9, 8), (31, 8), (100, 7), (300, 16), (13, 12), (6, 5)])
def test_segments_take_one_frame_from_each_equal_part_and_any_frame_can_be_taken(available, frames):
    lengths = np.diff([int(available * k / frames + 1e-9) for k in range(frames + 1)])
    assert lengths.max() - lengths.min() <= 1
    part = np.repeat(np.arange(frames), lengths)  # which part each frame of the video is in
    assert part[segments(available, frames)].tolist() == list(range(frames))
    draw, seen = generator(), set()
    for _ in range(60 * int(lengths.max())):
        chosen = segments(available, frames, draw)
        assert part[chosen].tolist() == list(range(frames))
        seen |= set(chosen.tolist())
    if available < 50:
        assert seen == set(range(available))


def test_spread_is_the_same_backwards_for_every_length():
    for available in range(1, 121):
        for frames in range(1, available + 1):
            if frames % 2 and available % 2 == 0:
                with pytest.raises(ValueError, match="cannot be the same backwards"):
                    spread(available, frames)
                continue
            chosen = spread(available, frames)
            assert set((available - 1 - chosen).tolist()) == set(chosen.tolist())
            assert len(chosen) == frames
            assert (np.diff(chosen) > 0).all()
            even = np.linspace(0, available - 1, frames) if frames > 1 else [(available - 1) / 2]
            assert abs(chosen - even).max() < 0.5001


def test_spread_takes_first_and_last_and_ignores_chance():
    assert spread(32, 8).tolist() == [0, 4, 9, 13, 18, 22, 27, 31]
    assert np.array_equal(spread(32, 8, generator()), spread(32, 8))


def test_the_way_out_that_spread_offers_works():
    with pytest.raises(ValueError, match="use frames=8, or segments"):
        spread(32, 7)
    with pytest.raises(ValueError, match="use frames=2, or segments"):
        spread(32, 1)
    with pytest.raises(ValueError, match="9 frames asked of a video that has 8"):
        spread(8, 9)
    with pytest.raises(ValueError, match="frames=0"):
        spread(8, 0)


def test_ten_views_lie_evenly_from_the_first_frame_to_the_last():
    ten = views(300, 8, 8, 10)
    assert ten.shape == (10, 8)
    assert (np.diff(ten, axis=1) == 8).all()
    assert (ten[0, 0], ten[-1, -1]) == (0, 299)
    assert set(np.diff(ten[:, 0])) == {27}  # 243 free places in 9 steps
    gaps = np.diff(views(300, 16, 4, 7)[:, 0])
    assert gaps.max() - gaps.min() <= 1


def test_one_view_is_the_clip_in_the_middle():
    assert np.array_equal(views(300, 8, 32, 1), dense(300, 8, 32)[None])


def test_views_of_a_short_video_are_held_on_request():
    assert np.array_equal(views(300, 8, 8, 10, hold=True), views(300, 8, 8, 10))
    assert views(60, 8, 8, 5, hold=True)[:, 0].tolist() == [0, 1, 2, 2, 3]  # 4 places
    assert views(30, 8, 8, 2, hold=True).tolist() == [[0, 8, 16, 24, 29, 29, 29, 29]] * 2
    assert np.array_equal(views(30, 8, 8, 1, hold=True)[0], dense(30, 8, 8, hold=True))
    with pytest.raises(ValueError, match="or hold=True"):
        views(60, 8, 8, 5)


def test_more_views_than_places_are_refused():
    assert views(60, 8, 8, 4)[:, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="use clips=4 instead of 5"):
        views(60, 8, 8, 5)
    with pytest.raises(ValueError, match="use stride=4"):
        views(30, 8, 8, 2)
    with pytest.raises(ValueError, match="clips=0"):
        views(60, 8, 8, 0)


def test_the_whole_video_is_every_frame_or_every_second_one():
    assert whole(7, 100).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert whole(7, 4, stride=2, generator=generator()).tolist() == [0, 2, 4, 6]
    assert whole(8, 4, stride=2).tolist() == [0, 2, 4, 6]


def test_a_video_longer_than_allowed_is_refused_with_a_stride_that_fits():
    with pytest.raises(ValueError, match=r"every 2\. of 250 frames makes 125, more than the 100 allowed: use stride=3"):
        whole(250, 100, stride=2)
    assert len(whole(250, 100, stride=3)) == 84
    with pytest.raises(ValueError, match="stride=0"):
        whole(250, 100, stride=0)
