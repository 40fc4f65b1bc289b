"""How fast clips come from files, against the usual recipes and against decoding alone, all in one run on all cores.

Clips of 8 frames, 32 apart, at 224 pixels, from ten-second H.264 files of 340 x 256 at 25 frames a second, the size in
which Kinetics is usually kept. `make bench` prints clips and frames a second; nothing is asserted.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from course_lib.bench.reading import HEIGHT, LENGTH, WIDTH, decode_alone, write_videos
from course_lib.datasets import ClipDataset
from course_lib.datasets.manifest import Video, VideoList
from course_lib.training.batches import loader
from course_lib.video import read_frames, worker
from course_lib.video.sampling import dense
from course_lib.video.transforms import KINETICS, TrainTransform

CORES = os.cpu_count() or 1
FILES, FRAMES, STRIDE = 16, 8, 32
BATCH, BATCHES, ROUNDS = 8, 5, 3
LAST = (FRAMES - 1) * STRIDE + (LENGTH - (FRAMES - 1) * STRIDE) // 2  # the last frame of a clip, on average


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> VideoList:
    """Textured pictures that pan and shake a little, about 0.3 Mbit a second."""
    folder = tmp_path_factory.mktemp("ten seconds")
    write_videos(folder, FILES, HEIGHT, WIDTH, LENGTH)
    rows = tuple(Video(f"{number}.mp4", 0, "train") for number in range(FILES))
    return VideoList("ten seconds", folder, ("one",), rows)


class Recipe(Dataset):
    """What most training code does: read, scale numbers without antialiasing, crop, mirror, normalise."""

    def __init__(self, paths: tuple[Path, ...], read: Callable[[Path, np.ndarray], np.ndarray]):
        self.paths, self.read = paths, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, int]:
        i, epoch = item
        draw = torch.Generator().manual_seed(1000 * epoch + i)
        frames = self.read(self.paths[i], dense(LENGTH, FRAMES, STRIDE, generator=draw))
        clip = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2).float() / 255
        short = int(torch.randint(256, 321, (), generator=draw))
        clip = F.interpolate(clip, (short, WIDTH * short // HEIGHT), mode="bilinear", align_corners=False)
        top, left = (int(torch.randint(extent - 223, (), generator=draw)) for extent in clip.shape[2:])
        clip = clip[..., top : top + 224, left : left + 224]
        if torch.rand((), generator=draw) < 0.5:
            clip = clip.flip(-1)
        mean, std = (torch.tensor(part)[:, None, None, None] for part in KINETICS)
        return (clip - mean) / std, 0


class Bare(Dataset):
    """Decoding from the first frame to the last one needed, and nothing else: what no reader of such files can beat."""

    def __init__(self, paths: tuple[Path, ...]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, int]:
        i, epoch = item
        draw = torch.Generator().manual_seed(1000 * epoch + i)
        last = int(dense(LENGTH, FRAMES, STRIDE, generator=draw)[-1])
        decode_alone(self.paths[i], last)
        return torch.zeros(3, 1, 1, 1), 0


def with_decord(path: Path, indices: np.ndarray) -> np.ndarray:
    import decord

    return decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1).get_batch(indices).asnumpy()


def with_pyav(path: Path, indices: np.ndarray) -> np.ndarray:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        frames = islice(container.decode(video=0), int(indices[-1]) + 1)
        return np.stack([frame.to_ndarray(format="rgb24") for i, frame in enumerate(frames) if i in indices])


def with_torchcodec(path: Path, indices: np.ndarray) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC")
    return decoder.get_frames_at(indices.tolist()).data.numpy()


def recipes(videos: VideoList) -> dict[str, Dataset]:
    sample, paths = partial(dense, stride=STRIDE), tuple(videos.root / video.path for video in videos.videos)
    as_bytes = TrainTransform(colours=None)
    found = {
        "bare decoding": Bare(paths),
        "ClipDataset, bytes": ClipDataset(videos, FRAMES, sample, as_bytes),
        "ClipDataset, numbers": ClipDataset(videos, FRAMES, sample, TrainTransform()),
        "PyAV recipe": Recipe(paths, with_pyav),
    }
    for name, package, read in (
        ("decord recipe", "decord", with_decord),
        ("torchcodec recipe", "torchcodec.decoders", with_torchcodec),
    ):
        try:
            __import__(package)
            found[name] = Recipe(paths, read)
        except (ImportError, RuntimeError) as missing:
            print(f"  {name}: not measured ({str(missing).splitlines()[0]})")
    return found


def seconds_a_clip(dataset: Dataset, seed: int) -> float:
    """With a worker a core, or two: the faster. (A worker of ClipDataset waits while its decoding process works.)"""
    times = []
    for workers in (CORES, 2 * CORES):
        batches = loader(dataset, BATCH, seed, workers)(0)
        next(batches), next(batches)  # the workers start, and fill what they read ahead
        start = time.perf_counter()
        for _ in range(BATCHES):
            next(batches)
        times.append((time.perf_counter() - start) / (BATCH * BATCHES))
        del batches
    return min(times)


def by_ffmpeg(videos: VideoList) -> float:
    """Seconds a clip of the program itself, one thread a process, as many processes as cores."""
    base = ["ffmpeg", "-nostdin", "-v", "error", "-threads", "1"]
    out = ["-frames:v", str(LAST + 1), "-f", "null", "-"]
    commands = [[*base, "-i", str(videos.root / video.path), *out] for video in videos.videos] * 3
    start = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(partial(subprocess.run, check=True), commands))
    return (time.perf_counter() - start) / len(commands)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores: on purpose
def test_clips_a_second(videos, capsys):
    with capsys.disabled():
        size = sum(path.stat().st_size for path in videos.root.glob("*.mp4")) / FILES
        print(f"\n  {CORES} cores, files of {size / 1e3:.0f} kB, medians of {ROUNDS} rounds")
        found = recipes(videos)
        times: dict[str, list[float]] = {name: [] for name in found}
        for number in range(ROUNDS):
            for name, dataset in found.items():
                times[name].append(seconds_a_clip(dataset, number))
            if shutil.which("ffmpeg"):
                times.setdefault("ffmpeg -f null", []).append(by_ffmpeg(videos))
        limit = statistics.median(times["bare decoding"])
        for name, measured in times.items():
            middle = statistics.median(measured)
            print(
                f"  {name:22} {1 / middle:6.1f} clips/s {FRAMES / middle:7.0f} frames/s, {limit / middle:.2f} of bare "
                f"decoding (rounds: {', '.join(f'{1 / one:.1f}' for one in measured)})"
            )


def resident(pid: int) -> float:
    """MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1e3


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_ten_thousand_files_opened_leak_nothing(videos, capsys):
    path = videos.root / "0.mp4"
    with capsys.disabled():
        for opened in range(10_001):
            read_frames(path, [opened % 5])
            if opened in (100, 1000, 10_000):
                child = worker._kept.worker.process.pid
                files = len(list(Path(f"/proc/{child}/fd").iterdir()))
                print(
                    f"\n  after {opened} files: {resident(os.getpid()):.0f} MB here, {resident(child):.0f} MB and "
                    f"{files} open files in the decoding process",
                    end="",
                )
        print()
