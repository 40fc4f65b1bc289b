"""Five hundred spoilt files: refused or read, in bounded time and memory, and never wrongly where a sum is known.
Three hundred good ones of every kind: read rightly, however they are asked for."""

from __future__ import annotations

import csv
import hashlib
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from video_files import ENCODERS, FRAMES, HEIGHT, WIDTH, assert_read_rightly, recipes, write

from course_lib.datasets import ClipDataset
from course_lib.video import VideoError, probe, read_frames, worker
from course_lib.video.sampling import spread

SOURCES = {
    "plain.mp4": {"bf": "3"},
    "fragments.mp4": {"bf": "3", "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "plain.mkv": {"bf": "3"},
    "vp9.webm": {"codec": "libvpx-vp9", "g": "10"},
    "mpeg4.avi": {"codec": "mpeg4", "bf": "2", "g": "10"},
}


def cut(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(len(data))) :]


def flip_bits(data: bytearray, rng: np.random.Generator) -> None:
    for at in rng.integers(len(data), size=int(rng.integers(1, 9))):
        data[at] ^= 1 << int(rng.integers(8))


def spoil_header(data: bytearray, rng: np.random.Generator) -> None:
    at, length = int(rng.integers(64)), int(rng.integers(4, 64))
    data[at : at + length] = rng.bytes(length)


def lose_a_piece(data: bytearray, rng: np.random.Generator) -> None:
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 2000))
    del data[at : at + length]


def blank_a_piece(data: bytearray, rng: np.random.Generator) -> None:
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 2000))
    data[at : at + length] = bytes(len(data[at : at + length]))


def claim_huge_pictures(data: bytearray, rng: np.random.Generator) -> None:
    """Wherever the file says how wide and high it is, in any of the ways of these formats."""
    for kind in (">HH", "<HH", ">II", "<II", "<HxxH"):
        said, huge = (struct.pack(kind, *size) for size in ((WIDTH, HEIGHT), (65535, 65500)))
        while (at := data.find(said)) >= 0:
            data[at : at + len(said)] = huge
    for number, large in ((b"\xb0\x81\x40", b"\xb0\x82\xff"), (b"\xba\x81\x30", b"\xba\x82\xff")):  # Matroska, RFC 9559
        if (at := data.find(number)) >= 0:
            data[at : at + 3] = large


def empty(data: bytearray, rng: np.random.Generator) -> None:
    data.clear()


SPOIL = (cut, flip_bits, flip_bits, spoil_header, lose_a_piece, blank_a_piece, claim_huge_pictures, empty)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    """A set of 500 files with the sums of what they were made from, and the right frames of each."""
    folder, rng = tmp_path_factory.mktemp("spoilt"), np.random.default_rng(0)
    moving = rng.integers(0, 60, (FRAMES, HEIGHT, WIDTH, 3)) + 4 * np.arange(FRAMES)[:, None, None, None]
    chosen, whole, right, rows = spread(FRAMES, 8), {}, {}, []
    for name, options in SOURCES.items():
        path = write(folder / name, moving.astype(np.uint8), **options)
        whole[name] = path.read_bytes(), read_frames(path, chosen)
    for number in range(500):
        name = list(SOURCES)[number % len(SOURCES)]
        path, data = folder / f"{number:03d} {name}", bytearray(whole[name][0])
        if number % 25 < 24:  # the others stay as they are
            SPOIL[number // len(SOURCES) % len(SPOIL)](data, rng)
        path.write_bytes(data)
        right[path.name] = whole[name][1]
        total = hashlib.sha256(whole[name][0]).hexdigest()
        rows.append({"path": path.name, "label": 0, "name": "one", "split": "test", "sha256": total})
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return folder / "manifest.csv", right


def peak_memory() -> int:
    """Bytes, the most that the decoding process has held; 0 where none is running or the system does not say."""
    status = Path(f"/proc/{worker._kept.worker.process.pid}/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def test_a_spoilt_file_is_refused_or_read_in_bounded_time_and_memory(files):
    manifest, _ = files
    outcomes, slowest, largest = {"read": 0, "refused": 0}, 0.0, 0
    probe(manifest.parent / "plain.mp4")
    at_rest = peak_memory()
    for path in sorted(manifest.parent.glob("[0-9]* *")):
        began = time.perf_counter()
        try:
            info = probe(path, seconds=20)
            frames = read_frames(path, np.linspace(0, info.frames - 1, 8).astype(int), seconds=20)
            assert frames.shape == (8, info.height, info.width, 3)
            outcomes["read"] += 1
        except VideoError as error:
            assert error.path == path and error.reason
            outcomes["refused"] += 1
        slowest = max(slowest, time.perf_counter() - began)
        largest = max(largest, peak_memory())
    assert outcomes["read"] > 50 and outcomes["refused"] > 200, outcomes
    assert slowest < 100  # each call has 20, beside what a process takes to start
    assert largest - at_rest < 512 * 2**20


def test_a_file_with_a_known_sum_gives_the_right_frames_or_a_video_error(files):
    manifest, right = files
    dataset, outcomes = ClipDataset(manifest, split="test"), {"read": 0, "refused": 0}
    for i, path in enumerate(dataset.paths):
        try:
            frames = dataset.read(i)
        except VideoError as error:
            assert error.path == path
            outcomes["refused"] += 1
        else:
            assert np.array_equal(frames, right[path.name]), path
            outcomes["read"] += 1
    assert outcomes["read"] >= 20 and outcomes["refused"] > 450, outcomes


@pytest.mark.parametrize("part", range(len(ENCODERS)), ids=list(ENCODERS))
def test_any_frames_of_many_files_are_those_of_an_independent_decode(part, tmp_path):
    for number, recipe in enumerate(recipes(20 * len(ENCODERS), seed=1)[part :: len(ENCODERS)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            assert_read_rightly(recipe, folder, number)
        except (AssertionError, VideoError) as fault:
            raise AssertionError(f"{recipe}: {fault}") from fault
