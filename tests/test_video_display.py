"""Frames look as a player shows them, and their colours are those of the formula."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from video_files import FRAMES, HEIGHT, TURNS, WIDTH, Recipe, make, own_pixels, set_matrix, waves, write

from course_lib.video import VideoError, check, probe, read_frames
from course_lib.video.display import square_size


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_or_mirrored_video_is_shown_as_its_display_matrix_says(turn, tmp_path):
    whole = write(tmp_path / "whole.mp4", waves(FRAMES, HEIGHT, WIDTH))
    stored = read_frames(whole, [0, 7])
    matrix, displayed = TURNS[turn]
    path = tmp_path / "turned.mp4"
    path.write_bytes(whole.read_bytes())
    frames, info = read_frames(set_matrix(path, matrix), [0, 7]), probe(path)
    assert (info.height, info.width) == frames.shape[1:3]
    assert np.array_equal(frames, np.stack([displayed(frame) for frame in stored]))


@pytest.mark.parametrize("matrix", [(0.9, 0.42, -0.42, 0.9), (1, 0.3, 0, 1), (1, 1, -1, 1)])
def test_a_video_to_be_shown_askew_is_refused_by_name(matrix, tmp_path):
    path = set_matrix(write(tmp_path / "askew.mp4"), matrix)
    with pytest.raises(VideoError, match=r"turned by \d+ degrees or askew \(display matrix\)"):
        read_frames(path, [0])


def test_a_matrix_of_zeros_is_ignored_as_players_do(tmp_path):
    path = write(tmp_path / "whole.mp4")
    before = read_frames(path, [3])
    assert np.array_equal(read_frames(set_matrix(path, (0, 0, 0, 0)), [3]), before)


@pytest.mark.parametrize("muxer", ["mp4", "mkv", "ts", "mov"])
@pytest.mark.parametrize(("aspect", "size"), [("31/16", (48, 124)), ("8/9", (54, 64)), ("1/1", (48, 64))])
def test_pixels_that_are_not_square_are_made_so(muxer, aspect, size, tmp_path):
    recipe = Recipe("libx264", "yuv420p", muxer, 6, 48, 64, aspect=Fraction(aspect))
    path = make(recipe, tmp_path)
    frames, info = read_frames(path, [1, 4]), probe(path)
    assert (info.height, info.width) == frames.shape[1:3] == size
    with av.open(str(path)) as container:
        stored = [picture.to_image() for picture in container.decode(video=0)]
    for frame, number in zip(frames, (1, 4), strict=True):
        expected = np.asarray(stored[number].resize(size[::-1], Image.Resampling.BICUBIC)).astype(float)
        assert np.abs(frame - expected).mean() < 2
    assert check(path) is None


def test_pixels_of_an_absurd_shape_are_refused_by_name():
    with pytest.raises(VideoError, match="sample aspect ratio 60000 asks for"):
        square_size(Path("a.mp4"), 48, 64, Fraction(60000))


@pytest.mark.parametrize(
    ("pixels", "height", "width", "most", "mean"),
    [  # 4:2:0 of even height repeats chroma, and rounds down; else it is interpolated, which smooth colours show little
        ("yuv420p", 48, 64, 3, 1.2),
        ("yuv420p", 48, 65, 3, 1.2),
        ("yuv420p", 49, 64, 9, 1.8),
        ("yuv420p", 49, 65, 9, 1.2),
        ("yuv420p10le", 48, 64, 6, 1.5),
        ("yuv420p12le", 49, 65, 9, 1.2),
        ("yuv422p", 48, 64, 3, 1.2),
        ("yuv444p", 49, 65, 0.6, 0.3),
        ("yuv444p10le", 48, 64, 0.6, 0.2),
        ("yuv444p12le", 48, 64, 0.6, 0.1),
    ],
)
def test_colours_differ_from_the_formula_by_rounding_and_chroma_alone(pixels, height, width, most, mean, tmp_path):
    path = make(Recipe("ffv1", pixels, "mkv", 6, height, width), tmp_path)
    with av.open(str(path)) as container:
        expected = np.stack([own_pixels(picture) for picture in container.decode(video=0)])
    difference = np.abs(read_frames(path, range(6)) - expected)
    assert difference.max() <= most and difference.mean() < mean


def test_colours_do_not_depend_on_the_number_of_cores(tmp_path):
    for recipe in (
        Recipe("mpeg2video", "yuv420p", "mkv", 6, 49, 65),
        Recipe("ffv1", "yuv420p10le", "mkv", 6, 240, 320),
    ):
        path = make(recipe, tmp_path)
        with av.open(str(path)) as container:
            for picture, frame in zip(container.decode(video=0), read_frames(path, range(6)), strict=True):
                for threads in (1, 3, 8):
                    assert np.array_equal(frame, picture.to_ndarray(format="rgb24", threads=threads))
