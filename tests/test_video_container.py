"""What FFmpeg does not tell: files that end early, pictures of which a part is shown, what is no video at all."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image
from video_files import FRAMES, HEIGHT, WIDTH, numbered, numbers, write

from course_lib.video import VideoError, check, probe, read_frames
from course_lib.video.container import MATROSKA, shows_a_part


@pytest.fixture(scope="module")
def gif(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("gif") / "whole.gif"
    return write(path, numbered(20), codec="gif", pixels="rgb8").read_bytes()


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 600, b"written by a hasty program", b";"])
def test_bytes_behind_a_gif_are_no_damage(tail, gif, tmp_path):
    path = tmp_path / "long.gif"
    path.write_bytes(gif + tail)
    assert probe(path).frames == 20 and check(path) is None
    assert numbers(read_frames(path, [19, 3])) == [19, 3]


def test_a_gif_without_its_trailer_is_whole(gif, tmp_path):
    path = tmp_path / "short.gif"
    path.write_bytes(gif[:-1])
    assert gif[-1:] == b";" and probe(path).frames == 20 and check(path) is None
    assert numbers(read_frames(path, [19, 3])) == [19, 3]


def test_a_gif_cut_anywhere_else_is_refused_or_ends_with_a_whole_picture(gif, tmp_path):
    path, read = tmp_path / "cut.gif", 0
    for length in range(len(gif) - 400, len(gif) - 1):
        path.write_bytes(gif[:length])
        try:
            frames = probe(path).frames
        except VideoError as error:
            assert "cut short" in error.reason
        else:
            read += 1
            assert frames < 20
    assert read < 10


def insert_box(path, box: bytes, parents: tuple[bytes, ...]) -> None:
    """Append a box to the innermost of these parents, the boxes of an MP4 whose moov stands last."""
    data = bytearray(path.read_bytes())
    places: list[int] = []
    for name in parents:
        places.append(data.index(name, places[-1] + 8 if places else 0) - 4)
    end = places[-1] + int.from_bytes(data[places[-1] : places[-1] + 4])
    for at in places:
        data[at : at + 4] = (int.from_bytes(data[at : at + 4]) + len(box)).to_bytes(4)
    path.write_bytes(data[:end] + box + data[end:])


def clap(height: int, width: int, right: int = 0) -> bytes:
    numbers_of_it = (width, 1, height, 1, right, 1, 0, 1)
    return b"\0\0\0\x28clap" + b"".join(n.to_bytes(4) for n in numbers_of_it)


def test_a_clean_aperture_is_refused_by_name_unless_it_is_the_whole_picture(tmp_path):
    path = write(tmp_path / "a.mp4")
    whole, parents = path.read_bytes(), (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
    for box in (clap(HEIGHT, WIDTH - 8), clap(HEIGHT - 2, WIDTH), clap(HEIGHT, WIDTH, right=2)):
        path.write_bytes(whole)
        insert_box(path, box, parents)
        with pytest.raises(VideoError, match=r"only a part of each picture is to be shown \(clean aperture, clap\)"):
            read_frames(path, [3])
    path.write_bytes(whole)
    insert_box(path, clap(HEIGHT, WIDTH), parents)
    assert numbers(read_frames(path, [3, 30])) == [3, 30] and check(path) is None


def element(number: str, content: bytes) -> bytes:
    return bytes.fromhex(number) + (0x4000 | len(content)).to_bytes(2) + content


@pytest.mark.parametrize("crop", ["54AA", "54BB", "54CC", "54DD"])
def test_a_crop_in_matroska_is_refused_by_name(crop, tmp_path):
    for value, part in ((b"\x08", "PixelCrop"), (b"\0", None)):
        video = element("E0", element("B0", b"\x40") + element("BA", b"\x30") + element(crop, value))
        tracks = element("1654AE6B", element("AE", element("D7", b"\1") + video))
        path = tmp_path / "head.mkv"
        path.write_bytes(element("1A45DFA3", b"") + bytes.fromhex("18538067 01FFFFFFFFFFFFFF") + tracks)
        assert shows_a_part(path, MATROSKA, 48, 64) == part


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "tiff", "webp", "ppm"])
def test_a_still_picture_under_the_name_of_a_video_is_refused(kind, tmp_path):
    path = tmp_path / "still.mp4"
    Image.fromarray(numbered(1)[0]).save(path, kind)
    with pytest.raises(VideoError, match="not a video but a still picture"):
        probe(path)


@pytest.mark.parametrize("suffix", ["mp3", "flac"])
def test_music_with_a_cover_is_refused(suffix, tmp_path):
    Image.fromarray(np.full((90, 90, 3), 200, np.uint8)).save(tmp_path / "cover.jpg")
    codec = {"mp3": "libmp3lame", "flac": "flac"}[suffix]
    path = tmp_path / f"song.{suffix}"
    with (
        av.open(str(path), "w") as new,
        av.open(str(tmp_path / "cover.jpg")) as old,
    ):
        sound = new.add_stream(codec, rate=44100)
        cover = new.add_stream_from_template(old.streams.video[0])
        cover.disposition = av.stream.Disposition.attached_pic
        picture = next(old.demux(video=0))
        picture.stream = cover
        new.mux(picture)
        for i in range(20):
            shape, kind = ((1, 1152), "s16") if suffix == "flac" else ((1, 1024), "fltp")
            tone = np.zeros(shape, np.int16 if suffix == "flac" else np.float32)
            frame = av.AudioFrame.from_ndarray(tone, format=kind, layout="mono")
            frame.rate, frame.pts = 44100, shape[1] * i
            new.mux(sound.encode(frame))
        new.mux(sound.encode())
    with pytest.raises(VideoError, match="no video stream, only a cover picture, audio"):
        probe(path)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p"])
def test_pictures_of_one_pixel_are_read(pixels, tmp_path):
    path = write(tmp_path / "tiny.webm", numbered(5, 16, 16)[:, :1, :1], codec="libvpx-vp9", pixels=pixels)
    assert read_frames(path, [4, 0]).shape == (2, 1, 1, 3) and check(path) is None


def test_a_live_webm_without_a_duration_is_read(tmp_path):
    whole = write(tmp_path / "whole.webm", codec="libvpx-vp9", g="10")
    live = write(tmp_path / "live.webm", codec="libvpx-vp9", g="10", muxer={"live": "1"})
    with av.open(str(live)) as container:
        assert container.duration is None
    assert probe(live).frames == FRAMES and np.array_equal(read_frames(live, [31, 5]), read_frames(whole, [31, 5]))
    assert check(live) is None
