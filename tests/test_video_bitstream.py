"""A group of pictures is decoded alone only where nothing that an earlier packet says is missing then."""

from __future__ import annotations

import av
import numpy as np
import pytest
from video_files import (
    FRAMES,
    Recipe,
    by_an_old_x264,
    make,
    with_a_turn_sent,
    with_parameter_sets_sent_once,
    write,
)

from course_lib.video import VideoError, check, decode, probe, read_frames
from course_lib.video.bitstream import GroupProof
from course_lib.video.demux import index_packets


@pytest.mark.parametrize("make", [by_an_old_x264, with_parameter_sets_sent_once])
def test_what_an_earlier_packet_says_is_not_missed(make, tmp_path):
    path = make(tmp_path / "file.mp4")
    with av.open(str(path)) as container:
        expected = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    index = index_packets(path)
    assert index.exact and not index.jumps and len(expected) == index.packets == FRAMES
    try:
        alone = decode._decode_groups(index, np.array([35]))[0]
        assert np.abs(alone.astype(float) - expected[35]).mean() > 20, "this file does not need its first packets"
    except VideoError:
        pass
    for asked in ([35], [25, 3], list(range(FRAMES))):
        assert np.array_equal(read_frames(path, asked), np.stack([expected[i] for i in asked]))
    assert check(path) is None


def test_files_of_a_newer_x264_or_in_other_profiles_are_read_by_groups(tmp_path):
    clip = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3), np.uint8)
    for build, pixels, jumps in ((151, "yuv444p", True), (150, "yuv444p", False), (148, "yuv420p", True)):
        path = write(tmp_path / "file.mp4", clip, pixels=pixels)
        path.write_bytes(path.read_bytes().replace(b"x264 - core 165", b"x264 - core %d" % build))
        assert index_packets(path).jumps == jumps


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_packets_of_interlaced_h264_are_not_taken_for_frames(pixels, tmp_path):
    for interlaced in (False, True):
        path = make(Recipe("libx264", pixels, "mp4", interlaced=interlaced), tmp_path)
        assert index_packets(path).exact is not interlaced


def test_parameter_sets_that_every_key_frame_brings_are_no_obstacle(tmp_path):
    codec = {"codec": "libx265", "x265-params": "keyint=10:min-keyint=10:repeat-headers=1:open-gop=0:log-level=none"}
    assert index_packets(write(tmp_path / "a.mp4", **codec)).jumps


def test_a_check_compares_what_jumping_gives_with_reading_from_the_start(tmp_path, monkeypatch):
    path = by_an_old_x264(tmp_path / "file.mp4")
    monkeypatch.setattr("course_lib.video.bitstream.GroupProof._harmless_user_data", lambda self, content: True)
    decode._index_once.cache_clear()
    assert "another one when read from its key frame" in decode.check(path)
    decode._index_once.cache_clear()


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9", "libx265"])
def test_a_packet_that_is_called_a_key_frame_and_is_none_is_no_start(codec, tmp_path):
    with av.open(str(write(tmp_path / "whole.mp4", codec=codec, g="10", bf="0"))) as container:
        context = container.streams.video[0].codec_context
        proof = GroupProof(context.codec.canonical_name, context.extradata)
        for packet in container.demux(video=0):
            if packet.size:
                assert proof.add(bytes(packet), True) == packet.is_keyframe


def test_a_turn_that_every_frame_says_is_made_and_one_that_some_say_is_refused_by_name(tmp_path):
    path = with_a_turn_sent(tmp_path / "all.mp4", range(FRAMES))
    upright = read_frames(tmp_path / "upright.mp4", [3, 30])
    assert np.array_equal(read_frames(path, [3, 30]), np.rot90(upright, axes=(1, 2)))
    assert (probe(path).height, probe(path).width) == (64, 48) and check(path) is None
    for some in (range(1), range(0, FRAMES, 10), range(3, 4)):
        path = with_a_turn_sent(tmp_path / "some.mp4", some)
        for asked in ([5], [5, 30]):
            with pytest.raises(VideoError, match=r"some frames only how they are turned \(SEI display orientation\)"):
                read_frames(path, asked)
        assert "SEI display orientation" in check(path)
