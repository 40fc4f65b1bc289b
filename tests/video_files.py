"""Videos whose every frame shows its own number, as six blocks, dark or bright, and a white upper left corner."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from course_lib.video import check, probe, read_frames

FRAMES, HEIGHT, WIDTH, BITS = 40, 48, 64, 6
CORNER = slice(0, HEIGHT // 4), slice(0, WIDTH // 4)
X264 = "scenecut=0:b-adapt=0:keyint=10:min-keyint=10"


def numbered(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    clip = np.full((frames, height, width, 3), 60, np.uint8)
    for bit in range(BITS):
        block = slice(height // 2 - 6, height // 2 + 6), slice(width // 2 + 8 * (bit - 3), width // 2 + 8 * (bit - 2))
        clip[:, *block] = np.where(np.arange(frames) >> bit & 1, 230, 20)[:, None, None, None]
    clip[:, *CORNER] = 255
    return clip


def numbers(frames: np.ndarray) -> list[int]:
    row, middle = frames.shape[1] // 2, frames.shape[2] // 2
    blocks = [frames[:, row - 2 : row + 2, middle + 8 * (bit - 3) + 2 :][:, :, :4] for bit in range(BITS)]
    return sum((block.mean(axis=(1, 2, 3)) > 125).astype(int) << bit for bit, block in enumerate(blocks)).tolist()


@contextmanager
def usual_priority() -> Iterator[None]:
    """SVT-AV1, run by root, makes this whole process a real-time one, and so all that it starts: nobody else has a turn
    while it computes."""
    if not hasattr(os, "sched_getscheduler"):  # macOS
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


@usual_priority()
def write(
    path: Path,
    clip: np.ndarray | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    muxer: dict[str, str] | None = None,
    x264: str = "",
    **options: str,
) -> Path:
    """Encode a clip (frame numbers if none is given) at 25 frames a second, with PyAV and nothing of ours."""
    clip = numbered() if clip is None else clip
    if codec == "libx264":
        options |= {"x264-params": f"{X264}:{x264}".rstrip(":")}
    try:
        av.Codec(codec, "w")
    except av.error.FFmpegError:
        pytest.skip(f"this PyAV cannot write {codec}")
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *clip.shape[1:3], pixels
        stream.codec_context.time_base = Fraction(1, 25)
        for i, pixels_of_frame in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_of_frame), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def copy_packets(source: Path, target: Path, change) -> Path:
    """Remux without encoding; change(number, packet) returns the packet to write, or None."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            changed = packet.dts is not None and change(number, packet)
            if changed:
                changed.stream = stream
                new.mux(changed)
    return target


def witness(path: Path) -> Iterator[tuple[av.VideoFrame, np.ndarray]]:
    """Every picture from the first on, and its pixels as displayed: PyAV, and nothing of ours."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        aspect = stream.sample_aspect_ratio or 1
        for picture in container.decode(stream):
            size = {"width": round(picture.width * max(1, aspect)), "height": round(picture.height / min(1, aspect))}
            same = size == {"width": picture.width, "height": picture.height}
            how = {} if same else size | {"interpolation": "BICUBIC"}
            pixels = picture.to_ndarray(format="rgb24", **how)
            yield picture, np.rot90(pixels, picture.rotation // 90)


def waves(frames: int, height: int, width: int) -> np.ndarray:
    """Colours that change slowly over the picture and from frame to frame, other ones in each corner."""
    t, y, x = np.ogrid[:frames, :height, :width]
    parts = [np.sin(x / 30 + t / 3), np.cos(y / 25 - t / 4), np.sin((x + 2 * y) / 40)]
    return np.stack([np.broadcast_to(110 + 90 * part, (frames, height, width)) for part in parts], -1).astype(np.uint8)


TURNS = {  # display matrix (a, b, c, d) of x' = a x + c y, y' = b x + d y; and what it does to an array of pixels
    "as stored": ((1, 0, 0, 1), lambda p: p),
    "clockwise": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "half a turn": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "counter-clockwise": ((0, -1, 1, 0), lambda p: np.rot90(p)),
    "left for right": ((-1, 0, 0, 1), np.fliplr),
    "upside down": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
}


def set_matrix(path: Path, matrix: tuple[float, float, float, float]) -> Path:
    """Write a display matrix into the head of an MP4's track (tkhd)."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (round(65536 * number) for number in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@dataclass(frozen=True)
class Recipe:
    """A small file; the frames are `waves`."""

    codec: str
    pixels: str
    muxer: str
    frames: int = 14
    height: int = 36
    width: int = 44
    rate: Fraction = Fraction(25)
    interlaced: bool = False
    between: int = 0  # frames predicted from both sides (B)
    group: int = 5
    turn: str = "as stored"
    aspect: Fraction = Fraction(1)
    cut: int = 0  # frames hidden by an edit list


YUV = ("yuv420p", "yuv422p", "yuv444p")
TEN, TWELVE = tuple(f"{name}10le" for name in YUV), tuple(f"{name}12le" for name in YUV)
ENCODERS = {  # pixel formats, muxers, whether it interlaces, whether it predicts from both sides
    "libx264": ((*YUV, *TEN, "yuvj420p", "gray", "nv12"), ("mp4", "mov", "mkv", "ts", "avi", "flv"), True, True),
    "libx264rgb": (("rgb24",), ("mp4", "mkv"), False, True),
    "libx265": ((*YUV, *TEN), ("mp4", "mov", "mkv", "ts"), False, True),
    "libvpx-vp9": (YUV, ("webm", "mkv", "mp4"), False, False),
    "libvpx": (("yuv420p",), ("webm", "mkv"), False, False),
    "libsvtav1": (("yuv420p", "yuv420p10le"), ("mp4", "webm"), False, False),
    "mpeg2video": (("yuv420p", "yuv422p"), ("mpg", "ts", "mkv", "mov"), True, True),
    "mpeg4": (("yuv420p",), ("avi", "mp4", "mkv"), True, True),
    "mjpeg": (("yuvj420p", "yuvj422p", "yuvj444p"), ("avi", "mov", "mkv"), False, False),
    "prores_ks": (("yuv422p10le", "yuv444p10le"), ("mov", "mkv"), True, False),
    "ffv1": ((*YUV, *TEN, *TWELVE, "bgr0", "gray"), ("mkv", "avi"), False, False),
    "huffyuv": (("yuv422p", "rgb24"), ("avi",), False, False),
    "wmv2": (("yuv420p",), ("wmv", "avi"), False, False),
    "gif": (("rgb8", "bgr8", "gray"), ("gif",), False, False),
    "qtrle": (("rgb24",), ("mov",), False, False),
    "flv": (("yuv420p",), ("flv",), False, False),
}
RATES = tuple(Fraction(*rate) for rate in ((25, 1), (30000, 1001), (50, 1), (24, 1), (25, 2)))
SAY_ASPECT = ("libx264", "libx265", "mpeg4")  # in the stream itself
ASPECTS = tuple(Fraction(*aspect) for aspect in ((1, 1), (1, 1), (4, 3), (8, 9), (64, 51)))


def recipes(count: int, seed: int) -> list[Recipe]:
    """Every encoder in turn; the rest at random."""
    draw, made = random.Random(seed), []
    for number in range(count):
        codec = list(ENCODERS)[number % len(ENCODERS)]
        pixels, muxers, interlaces, between = ENCODERS[codec]
        muxer, pixel = draw.choice(muxers), draw.choice(pixels)
        odd = codec not in ("prores_ks", "huffyuv", "mpeg4", "wmv2", "flv", "mjpeg")
        interlaced = interlaces and draw.random() < 0.25
        even = (
            not odd
            or interlaced
            or pixel == "yuv422p"
            or (codec == "libx264" and pixel != "yuv444p")
            or codec in ("libx265", "libsvtav1")
        )
        height, width = (n if even else n + draw.randrange(2) for n in (draw.choice((36, 48)), draw.choice((44, 66))))
        if codec in ("libsvtav1", "libx265"):  # crash or refuse below
            height, width = 64 + 2 * draw.randrange(2), 66
        cut = draw.choice((0, 0, 3)) if muxer == "mp4" and codec in ("libx264", "libx265", "libvpx-vp9") else 0
        says_aspect = codec in SAY_ASPECT or (muxer in ("mp4", "mov") and codec != "mpeg2video" and not cut)
        made.append(
            Recipe(
                codec,
                pixel,
                muxer,
                draw.randrange(6, 20),
                height,
                width,
                Fraction(25) if codec in ("mpeg2video", "gif") else draw.choice(RATES),
                interlaced,
                draw.choice((0, 2)) if between else 0,
                draw.choice((1, 4, 5, 250)),
                draw.choice(list(TURNS)) if muxer in ("mp4", "mov") else "as stored",
                draw.choice(ASPECTS) if says_aspect else Fraction(1),
                cut,
            )
        )
    return made


@usual_priority()
def make(recipe: Recipe, folder: Path) -> Path:
    """Write a recipe's file, with PyAV and nothing of ours."""
    r, path = recipe, folder / f"file.{recipe.muxer}"
    options = {"g": str(r.group), "threads": "1"}
    if r.codec in ("libx264", "libx264rgb"):
        options["x264-params"] = f"scenecut=0:keyint={r.group}:min-keyint=1:bframes={r.between}:b-adapt=0"
        options["x264-params"] += ":interlaced=1" * r.interlaced
    elif r.codec == "libx265":
        options["x265-params"] = f"keyint={r.group}:min-keyint=1:scenecut=0:bframes={r.between}:log-level=none:pools=1"
        options["x265-params"] += ":frame-threads=1:open-gop=0"
    elif r.codec == "libsvtav1":
        options["svtav1-params"] = "lp=1"
    elif r.codec == "libvpx-vp9":
        options |= {"cpu-used": "8", "deadline": "realtime"}
    elif r.between:
        options["bf"] = str(r.between)
    if r.interlaced and r.codec != "libx264":
        options["flags"] = "+ildct" if r.codec == "prores_ks" else "+ildct+ilme"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(r.codec, rate=r.rate, options=options)
        stream.height, stream.width, stream.pix_fmt = r.height, r.width, r.pixels
        stream.codec_context.time_base = 1 / r.rate
        if r.aspect != 1:
            stream.codec_context.sample_aspect_ratio = r.aspect
        for i, pixels in enumerate(waves(r.frames, r.height, r.width)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, 1 / r.rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if r.cut:
        shift = r.cut / r.rate

        def earlier(_, packet):
            by = int(shift / packet.time_base)
            packet.pts, packet.dts = packet.pts - by, packet.dts - by
            return packet

        path = copy_packets(path, folder / f"cut.{r.muxer}", earlier)
    return path if r.turn == "as stored" else set_matrix(path, TURNS[r.turn][0])


def own_pixels(picture: av.VideoFrame) -> np.ndarray:
    """RGB by the formula of BT.601, from the picture's own planes, chroma repeated; numbers from 0 to 255."""
    name = picture.format.name
    if not name.startswith(("yuv", "nv12", "gray")):
        return picture.to_ndarray(format="rgb24").astype(float)
    bits, full = picture.format.components[0].bits, name.startswith(("yuvj", "gray"))
    kind = np.uint8 if bits == 8 else np.dtype("<u2")
    full = full and not (name.startswith("gray") and picture.color_range == 1)
    planes = []
    for plane in list(picture.planes)[:3]:
        rows = np.frombuffer(plane, kind).reshape(plane.height, -1)
        planes.append(rows[:, : plane.width * (2 if name == "nv12" and planes else 1)].astype(float) / 2 ** (bits - 8))
    if name == "nv12":
        planes[1:] = [planes[1][:, ::2], planes[1][:, 1::2]]
    luma = planes[0] if full else (planes[0] - 16) * 255 / 219
    if len(planes) == 1:
        return np.clip(np.stack([luma] * 3, -1), 0, 255)
    rows, columns = (-(-n // m) for n, m in zip(luma.shape, planes[1].shape, strict=True))
    blue, red = (
        (p.repeat(rows, 0).repeat(columns, 1)[: luma.shape[0], : luma.shape[1]] - 128) * (1 if full else 255 / 224)
        for p in planes[1:]
    )
    return np.clip(
        np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], -1), 0, 255
    )


def differences(recipe: Recipe, path: Path, frames: np.ndarray) -> list[float]:
    """Mean differences, frame by frame, between what was read and an independent decode in the file's own pixels."""
    found = []
    with av.open(str(path)) as container:
        for number, picture in enumerate(container.decode(video=0)):
            pixels = own_pixels(picture).round().astype(np.uint8)
            if recipe.aspect != 1:
                height, width = picture.height, picture.width
                size = round(width * max(1, recipe.aspect)), round(height / min(1, recipe.aspect))
                pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
            pixels = TURNS[recipe.turn][1](pixels)
            assert pixels.shape == frames[number].shape, (pixels.shape, frames[number].shape)
            found.append(float(np.abs(pixels.astype(float) - frames[number]).mean()))
    assert len(found) == len(frames), (len(found), len(frames))
    return found


def assert_read_rightly(recipe: Recipe, folder: Path, seed: int) -> None:
    """The property that every file has: counted, whole, as an independent decode shows it, however it is asked for."""
    path = make(recipe, folder)
    info = probe(path)
    frames = read_frames(path, range(info.frames))
    assert info.frames == recipe.frames - recipe.cut
    assert frames.shape == (info.frames, info.height, info.width, 3)
    assert max(differences(recipe, path, frames)) < 4  # of 255: rounding, and chroma between the samples
    if recipe.muxer in ("mp4", "mov", "mkv", "webm"):  # others leave times out, or round them to the claimed rate
        assert abs(info.fps / recipe.rate - 1) < 1e-3
    draw = np.random.default_rng(seed)
    for count in (1, 2, 5):
        asked = draw.integers(0, info.frames, count)
        assert np.array_equal(read_frames(path, asked), frames[asked]), asked
    assert check(path) is None


# Files whose key frames are no fresh starts


def by_an_old_x264(path: Path) -> Path:
    """4:4:4 by x264 of build 148, as its first packet says, and only that: FFmpeg undoes an old fault of it."""
    clip = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    data = write(path, clip, pixels="yuv444p", crf="18").read_bytes()
    assert data.count(b"x264 - core 165") == 1
    path.write_bytes(data.replace(b"x264 - core 165", b"x264 - core 148"))
    return path


def with_parameter_sets_sent_once(path: Path) -> Path:
    """Two encodes in one stream; the second one's parameter sets stand in front of its first picture only."""
    clip = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    first = write(path.with_name("first.mp4"), clip[:20], bf="0", x264="cabac=1")
    second = write(path.with_name("second.mp4"), clip[20:], bf="0", x264="cabac=0:8x8dct=0")
    with av.open(str(first)) as one, av.open(str(second)) as two, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(one.streams.video[0])
        number = 0
        for old in (one, two):
            head = old.streams.video[0].codec_context.extradata
            size = int.from_bytes(head[6:8])
            sps, pps = head[8 : 8 + size], head[11 + size : 11 + size + int.from_bytes(head[9 + size : 11 + size])]
            for packet in old.demux(video=0):
                if packet.dts is None:
                    continue
                begin = b"".join(len(unit).to_bytes(4) + unit for unit in (sps, pps)) if number == 20 else b""
                copy = av.Packet(begin + bytes(packet))
                copy.pts = copy.dts = number * 512
                copy.time_base, copy.stream, copy.is_keyframe = Fraction(1, 12800), stream, packet.is_keyframe
                new.mux(copy)
                number += 1
    return path


def with_a_turn_sent(path: Path, packets: range) -> Path:
    """H.264 whose packets of these numbers say (SEI display orientation) that pictures are to be turned by 90 degrees,
    counter-clockwise."""
    bits = f"000{1 << 14:016b}0101"  # not cancelled, no flips, 2**14 / 2**16 of a turn, persistent
    unit = bytes([6, 47, 3]) + int(bits + "1", 2).to_bytes(3) + b"\x80"

    def turned(number, packet):
        if number not in packets:
            return packet
        copy = av.Packet(len(unit).to_bytes(4) + unit + bytes(packet))
        copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
        copy.is_keyframe = packet.is_keyframe
        return copy

    return copy_packets(write(path.with_name("upright.mp4"), waves(FRAMES, HEIGHT, WIDTH), bf="0"), path, turned)
