"""What reading costs a core: clips from files, against decoding alone; in seconds of the processor, so that other work
on the machine hardly matters."""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    import psutil

    from course_lib.datasets.clips import ClipDataset
    from course_lib.datasets.manifest import VideoList

HEIGHT, WIDTH, LENGTH, RATE = 256, 340, 250, 25  # as Kinetics is usually kept: ten seconds
SAMPLINGS = ((8, 32), (16, 4))


def can_read() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def write_videos(
    folder: Path, count: int, height: int = HEIGHT, width: int = WIDTH, length: int = LENGTH
) -> list[Path]:
    """Textured pictures that pan and shake a little, about 0.3 Mbit a second."""
    import av

    rng, draw, paths = np.random.default_rng(0), torch.Generator().manual_seed(0), []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rows, columns = (height + 224) // 10, (width + length + 220) // 10
        large = F.interpolate(torch.rand(1, 3, rows, columns, generator=draw), scale_factor=10, mode="bicubic")[0]
        grain = 0.25 * torch.rand(large.shape, generator=draw)
        pixels = (large + grain).clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()
        paths.append(folder / f"{number}.mp4")
        with av.open(str(paths[-1]), "w") as container:
            stream = container.add_stream("libx264", rate=RATE, options={"crf": "23"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for i in range(length):
                top = 40 + int(20 * np.sin(i / 9)) + int(rng.integers(3))
                view = np.ascontiguousarray(pixels[top : top + height, i : i + width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
            container.mux(stream.encode())
    return paths


def decode_alone(path: Path, last: int) -> None:
    """Decode from the first frame to `last` and nothing else: what a reader that does not skip cannot beat."""
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        decoded = sum(1 for _ in islice(container.decode(video=0), last + 1))
    if decoded != last + 1:
        raise ValueError(f"{path}: {decoded} frames, but frame {last} was asked for")


def read_here(path: Path, indices: Sequence[int]) -> None:
    """Probe and read in this process, as the process that decodes does for a data set."""
    from course_lib.video import decode

    decode.probe(path)
    decode.read_frames(path, indices)


def forget() -> None:
    """Drop what was kept of files, so that each is met for the first time."""
    from course_lib.video import decode

    decode._index_once.cache_clear()
    decode._probe_once.cache_clear()


def seconds_a_clip(paths: Sequence[Path], frames: int, stride: int, rounds: int = 2) -> dict[str, float]:
    """Median processor seconds a clip: "bare" decoding, "read" in the same process (RGB frames), and all of a "dataset"
    with its second process and the transform for training. They take turns."""
    from course_lib.datasets.clips import ClipDataset
    from course_lib.video.decode import probe
    from course_lib.video.sampling import dense
    from course_lib.video.transforms import TrainTransform

    videos = _as_list(paths)
    sample = partial(dense, stride=stride)
    times: dict[str, list[float]] = {"bare": [], "read": [], "dataset": []}

    def spent(run: Callable[[], object], other: psutil.Process | None = None) -> float:
        before = sum(other.cpu_times()[:2]) if other else 0.0, time.process_time()
        run()
        return time.process_time() - before[1] + (sum(other.cpu_times()[:2]) - before[0] if other else 0.0)

    for epoch in range(1, rounds + 1):
        for number, path in enumerate(paths):
            forget()
            draw = torch.Generator().manual_seed(1000 * epoch + number)
            indices = dense(probe(path).frames, frames, stride, generator=draw).tolist()
            forget()
            turns = [("bare", partial(decode_alone, path, max(indices))), ("read", partial(read_here, path, indices))]
            for name, run in turns[:: 1 if number % 2 else -1]:
                times[name].append(spent(run))
        data = ClipDataset(videos, frames, sample, TrainTransform(colours=None))
        # The system counts another process's time in hundredths of a second: all files together.
        total = spent(partial(_read_all, data, epoch), _fresh_process())
        times["dataset"].append(total / len(data))
    return {name: statistics.median(values) for name, values in times.items()}


def _fresh_process() -> psutil.Process:
    """A new process that decodes, which has met none of the files yet and has loaded all that it needs."""
    import psutil

    from course_lib.video import worker

    with tempfile.TemporaryDirectory() as folder:
        other = write_videos(Path(folder), 1, 64, 64, 4)[0]
        if getattr(worker._kept, "worker", None) is not None:
            worker._kept.worker.close()
        worker.read_frames(other, [0])
    return psutil.Process(worker._kept.worker.process.pid)


def _read_all(data: ClipDataset, epoch: int) -> None:
    for i in range(len(data)):
        data[i, epoch]


def _as_list(paths: Sequence[Path]) -> VideoList:
    from course_lib.datasets.manifest import Video, VideoList

    rows = tuple(Video(str(path.absolute()), 0, "train") for path in paths)
    return VideoList(str(paths[0].parent), Path(), ("one",), rows)


def measure(folder: Path, frames: int, stride: int, files: int = 8) -> dict[str, Any]:
    """A part of the record: what a clip of `frames` frames, `stride` apart, costs a core."""
    paths = [folder / f"{number}.mp4" for number in range(files)]
    if not all(path.exists() for path in paths):
        paths = write_videos(folder, files)
    size = sum(path.stat().st_size for path in paths) / len(paths)
    return {
        "clip": f"{frames}x{stride}",
        "files": {"count": files, "height": HEIGHT, "width": WIDTH, "frames": LENGTH, "bytes": size},
        "seconds": seconds_a_clip(paths, frames, stride),
    }
