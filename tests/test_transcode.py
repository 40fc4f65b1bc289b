"""The small copy of a video shows the same frames at the same times."""

from __future__ import annotations

import os
import signal
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from PIL import Image
from video_files import copy_packets, numbered, numbers, write

from course_lib.video import worker
from course_lib.video.transcode import check_side, small_size, transcode
from course_lib.video.worker import VideoError, probe, read_frames


def times(path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def smooth(frames: int = 12, height: int = 120, width: int = 180) -> np.ndarray:
    """Colours that change slowly over the picture and from frame to frame: no encoder has trouble with them."""
    t, y, x = np.ogrid[:frames, :height, :width]
    waves = [np.sin(x / 30 + t / 3), np.cos(y / 25 - t / 4), np.sin((x + y) / 40)]
    return np.stack([np.broadcast_to(110 + 90 * wave, (frames, height, width)) for wave in waves], -1).astype(np.uint8)


def near(source, target) -> bool:
    """Whether the small copy is what Pillow makes of the source, but for the noise of coding; both read as RGB.

    Rounding to YUV and back alone makes a mean difference of 1.6 of 255 and, between kinds of YUV, a bias of up to 1.6.
    """
    old, new = (read_frames(path, range(probe(path).frames)) for path in (source, target))
    size = new.shape[2], new.shape[1]
    expected = np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in old])
    difference = new - expected.astype(float)
    return np.abs(difference).mean() < 3 and np.abs(difference.mean(axis=(0, 1, 2))).max() < 2


def test_the_copy_shows_what_another_library_makes_of_the_frames(tmp_path):
    source, target = write(tmp_path / "a.mp4", smooth()), tmp_path / "b.mp4"
    assert transcode(source, target, 64)
    info = probe(target)
    assert (info.frames, info.height, info.width) == (12, 64, 96)
    assert near(source, target)
    assert times(target) == times(source)


def test_frames_keep_their_order_and_number(tmp_path):
    source, target = write(tmp_path / "a.mp4", numbered(height=96, width=128)), tmp_path / "b.mp4"
    transcode(source, target, 48)
    small = read_frames(target, range(40))
    assert numbers(small.repeat(2, axis=1).repeat(2, axis=2)) == list(range(40))


@pytest.mark.parametrize("start", [0, 7])
def test_uneven_times_stay_as_they_are(start, tmp_path):
    even = write(tmp_path / "even.mp4", smooth(), bf="0")

    def change(number, packet):
        packet.pts = packet.dts = (start + number * number) * 512
        return packet

    source, target = copy_packets(even, tmp_path / "a.mp4", change), tmp_path / "b.mp4"
    assert len(set(np.diff(times(source)))) > 3
    transcode(source, target, 64)
    assert times(target) == times(source)


@pytest.mark.parametrize("muxer", ["mkv", "mov"])
def test_other_containers_give_mp4_with_the_same_times(muxer, tmp_path):
    source, target = write(tmp_path / f"a.{muxer}", smooth()), tmp_path / "b.mp4"
    transcode(source, target, 64)
    assert times(target) == times(source)


@pytest.mark.parametrize(("pixels", "tags"), [("yuvj420p", {}), ("yuv444p", {}), ("yuv420p", {"colorspace": "bt709"})])
def test_colours_stay_whatever_way_they_are_stored(pixels, tags, tmp_path):
    source, target = write(tmp_path / "a.mp4", smooth(), pixels=pixels, **tags), tmp_path / "b.mp4"
    transcode(source, target, 64)
    assert near(source, target)
    with av.open(str(source)) as old, av.open(str(target)) as new:
        kinds = [next(file.decode(video=0)) for file in (old, new)]
    assert kinds[0].colorspace == kinds[1].colorspace == (1 if tags else 2) and kinds[1].format.name == "yuv420p"
    assert kinds[1].color_range in (ColorRange.MPEG, ColorRange.UNSPECIFIED)


def test_a_turned_video_stands_upright_in_the_copy(real_clips, tmp_path):
    source, target = real_clips / "decord_video_90.mov", tmp_path / "b.mp4"
    transcode(source, target, 128)
    info = probe(target)
    assert (info.frames, info.height, info.width) == (3, 228, 128) and near(source, target)


def test_a_real_clip_with_sound_loses_the_sound_and_nothing_else(real_clips, tmp_path):
    source, target = real_clips / "mma_demo.mp4", tmp_path / "b.mp4"
    transcode(source, target, 128)
    assert times(target) == times(source) and near(source, target)
    with av.open(str(source)) as old, av.open(str(target)) as new:
        assert [stream.type for stream in new.streams] == ["video"]
        assert old.streams.video[0].sample_aspect_ratio == Fraction(64, 51)  # 340 x 256 is shown as 427 x 256
        assert (new.streams.video[0].width, new.streams.video[0].height) == (214, 128)
        assert new.streams.video[0].sample_aspect_ratio in (None, 1)


@pytest.mark.parametrize("side", [48, 50, 256])
def test_nothing_is_made_larger(side, tmp_path):
    assert not transcode(write(tmp_path / "a.mp4"), tmp_path / "b.mp4", side)
    assert not (tmp_path / "b.mp4").exists()


def test_sizes_are_even_and_in_proportion():
    assert small_size(1080, 1920, 256) == (256, 456) and small_size(1920, 1080, 256) == (456, 256)
    assert small_size(360, 480, 320) == (320, 426) and small_size(300, 300, 256) == (256, 256)
    for side in (0, 255, -2):
        with pytest.raises(ValueError, match=f"short_side={side}"):
            check_side(side)


def test_a_damaged_video_gives_an_error_and_no_patched_copy(tmp_path):
    source = write(tmp_path / "a.mp4", smooth())
    with av.open(str(source)) as container:
        place, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][6]
    data = bytearray(source.read_bytes())
    data[place : place + size] = b"\x99" * size
    source.write_bytes(data)
    with pytest.raises(VideoError, match="damaged"):
        transcode(source, tmp_path / "b.mp4", 64)


def test_a_video_whose_times_cannot_be_kept_is_refused(real_clips, tmp_path):
    with pytest.raises(VideoError, match="has no time, or none after that of frame"):
        transcode(real_clips / "mma_test.avi", tmp_path / "b.mp4", 128)


def test_in_a_process_of_its_own_it_makes_the_same_copy(tmp_path):
    source = write(tmp_path / "large.mp4", numbered(8, 96, 128))
    assert transcode(source, tmp_path / "here.mp4", 64) and worker.transcode(
        source, tmp_path / "there.mp4", 64, seconds=60
    )
    here, there = (read_frames(tmp_path / name, range(8)) for name in ("here.mp4", "there.mp4"))
    assert here.shape == (8, 64, 86, 3) and np.array_equal(here, there)
    assert not worker.transcode(tmp_path / "here.mp4", tmp_path / "again.mp4", 64, seconds=60)
    source.write_bytes(source.read_bytes()[:900])
    with pytest.raises(VideoError, match=r"cut short|not a video"):
        worker.transcode(source, tmp_path / "broken.mp4", 64, seconds=60)


def test_a_decoder_that_hangs_while_a_copy_is_made_costs_that_video_only(tmp_path):
    source = write(tmp_path / "large.mp4", numbered(8, 96, 128))
    worker._kept.__dict__.clear()  # the process of earlier tests may be due to be renewed
    probe(source)
    os.kill(worker._kept.worker.process.pid, signal.SIGSTOP)
    with pytest.raises(VideoError, match=r"no answer within 0\.3 s"):
        worker.transcode(source, tmp_path / "small.mp4", 64, seconds=0.3)
    assert worker.transcode(source, tmp_path / "small.mp4", 64, seconds=60)
