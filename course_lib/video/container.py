"""What files say of themselves that FFmpeg does not pass on: where they end, which part of a picture is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"  # FFmpeg's names; Matroska includes WebM
BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"free", b"skip", b"wide")
SEGMENT, TRACKS, TRACK, VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0  # RFC 9559
PIXEL_CROP = (0x54AA, 0x54BB, 0x54CC, 0x54DD)  # bottom, top, left, right


def ends_early(path: Path, kind: str) -> bool:
    """Whether a file is shorter than its own parts announce, in the formats that do."""
    length = path.stat().st_size
    with path.open("rb") as file:
        if kind == "gif":
            return _ends_within_a_gif_block(file.read())
        if kind == MATROSKA:
            return _segment_end(file.read(4096)) > length
        return kind == MP4 and any(end > length for _, _, end in _boxes(file, length))


def shows_a_part(path: Path, kind: str, height: int, width: int) -> str | None:
    """The name of a rule by which players show only a part of each picture of this size, or None."""
    length = path.stat().st_size
    with path.open("rb") as file:
        if kind == MP4:
            for name, start, end in _boxes(file, length):
                if name == b"moov":
                    file.seek(start)
                    if _clean_apertures(file.read(end - start)) - {(height, width)}:
                        return "clean aperture, clap"
        if kind == MATROSKA:
            segment = dict(_elements(file.read(2**20))).get(SEGMENT, b"")
            tracks = dict(_elements(segment)).get(TRACKS, b"")
            for number, track in _elements(tracks):
                shown = dict(_elements(track)).get(VIDEO, b"") if number == TRACK else b""
                if any(name in PIXEL_CROP and any(value) for name, value in _elements(shown)):
                    return "PixelCrop"
    return None


def _boxes(file: BinaryIO, length: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start of the content and end of each box of an MP4 (ISO/IEC 14496-12, 4.2), up to the first unknown one."""
    at = 0
    while at < length:
        file.seek(at)
        head = file.read(16)
        size, name = int.from_bytes(head[:4]), head[4:8]
        if size == 0 or name not in BOXES:  # the rest of the file, or none of ours
            return
        start = at + (16 if size == 1 else 8)
        end = at + (int.from_bytes(head[8:16]) if size == 1 else size)
        yield name, start, end
        at = max(end, at + 8)


def _clean_apertures(moov: bytes) -> set[tuple[int, int]]:
    """Height and width of every clean aperture (ISO/IEC 14496-12, 12.1.4), (0, 0) if it is not in the middle."""
    found, at = set(), moov.find(b"\0\0\0\x28clap")
    while at >= 0:
        numbers = [int.from_bytes(moov[at + 8 + 4 * i : at + 12 + 4 * i], signed=True) for i in range(8)]
        width, height, right, down = (n / d if d else 0.0 for n, d in zip(numbers[::2], numbers[1::2], strict=True))
        found.add((0, 0) if right or down else (round(height), round(width)))
        at = moov.find(b"\0\0\0\x28clap", at + 8)
    return found


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of Matroska (RFC 8794, 4): number and content; one of unknown length has all that follows."""
    at = 0
    while at < len(data):
        wide = 9 - data[at].bit_length()
        number, at = int.from_bytes(data[at : at + wide]), at + wide
        if at >= len(data):
            return
        size, wide = _size(data, at)
        at += wide
        yield number, data[at:] if size is None else data[at : at + size]
        at += len(data) if size is None else size


def _size(data: bytes, at: int) -> tuple[int | None, int]:
    """An element's length, None if it is not known, and how many bytes that takes: the zeros in front tell."""
    wide = 9 - data[at].bit_length()
    unknown = (1 << 7 * wide) - 1
    length = int.from_bytes(data[at : at + wide]) & unknown
    return None if length == unknown else length, wide


def _segment_end(head: bytes) -> int:
    """Where a Matroska file's segment, which holds all else, ends; 0 if it does not say."""
    at = head.find(SEGMENT.to_bytes(4)) + 4
    if not 4 <= at < len(head):
        return 0
    size, wide = _size(head, at)
    return 0 if size is None else at + wide + size


def _ends_within_a_gif_block(data: bytes) -> bool:
    """Whether a GIF stops in the middle of a block (GIF89a, 12); bytes behind its trailer, or none, are no matter."""
    at = 13 + _table(data[10] if len(data) > 10 else 0)
    while at < len(data):
        kind = data[at]
        if kind == 0x3B:  # the trailer
            return False
        if kind == 0x21:  # an extension: a label, then sub-blocks
            at += 2
        elif kind == 0x2C and at + 9 < len(data):  # an image: place and size, colours, then sub-blocks
            at += 11 + _table(data[at + 9])
        else:
            return True
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return at != len(data)


def _table(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 * 2 ** (1 + (flags & 7)) if flags & 128 else 0
