"""A list of videos as a map-style data set: listing + sample + decode + transform."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from course_lib.datasets.manifest import VideoList, read_manifest
from course_lib.files import sha256
from course_lib.video.sampling import spread
from course_lib.video.transforms import whole_frames
from course_lib.video.worker import VideoError, VideoInfo, probe, read_frames

MOST_FRAMES = 1_000_000  # whose times a data set keeps in memory: some 32 MB, nine hours of film


class Explanation(NamedTuple):
    """What one item shows: these frames of this file, filmed at these seconds. `available` is what the sampler chose
    from: the file's frames, or the ticks of the data set's clock."""

    path: Path
    label: int
    name: str
    available: int
    indices: Int[np.ndarray, "*views T"]
    seconds: Float[np.ndarray, "*views T"]


class ClipDataset(Dataset):
    """The clips of one split of a list of videos.

    dataset[i] is (clip 3 T H W, label), or (clip views 3 T H W, label) where the sampler or the transform gives several
    views; the transform decides whether the clip holds normalised numbers or bytes. dataset[i, epoch] is the same item
    with that epoch's randomness, which depends on (seed, i, epoch) alone and so not on the workers. Only the split
    "train" is random: elsewhere samplers and transforms get no generator.

    Samplers choose ticks of a clock that runs at the file's mean rate, or at `fps`, and each tick shows the frame that
    a player would show then. So "8 x 32" at fps=30 spans 7.5 seconds whatever the camera did (as in PySlowFast), and a
    file whose rate changes is not shown faster where it is sparse. At a steady rate ticks are frames.

    Args:
        videos: a list (course_lib.datasets.manifest) or the path of a manifest.csv of the course.
        sample: sampler(available, frames, generator=...) -> indices, see course_lib.video.sampling.
        transform: transform(frames, generator) -> clip, see course_lib.video.transforms.
        seconds: for reading one item at most; raise it for long files.
        numbered: items are (clip, label, ticks), the number of each frame on the clock: T, or views T.

    Attributes:
        classes: names, in the order of labels. paths, labels, pairs: one a clip; a pair is "" where there is none.
        flips: whether a mirrored clip still belongs to its class.

    Raises:
        ValueError: what is wrong with the list, and where.
        VideoError: (on reading an item) the file and the reason. No other clip is ever shown in its place.
    """

    def __init__(
        self,
        videos: VideoList | str | Path,
        frames: int = 8,
        sample: Callable[..., Int[np.ndarray, "*views T"]] = spread,
        transform: Callable[..., Shaped[Tensor, "*views 3 T H W"]] = whole_frames,
        split: str = "train",
        seed: int = 0,
        fps: float | None = None,
        seconds: float = 60.0,
        numbered: bool = False,
    ):
        every = videos if isinstance(videos, VideoList) else read_manifest(videos)
        chosen = every.of(split)
        self.classes, self.flips = chosen.classes, chosen.flips
        self.paths = tuple(chosen.root / video.path for video in chosen.videos)
        self.labels = tuple(video.label for video in chosen.videos)
        self.pairs = tuple(video.pair for video in chosen.videos)
        self._sums = tuple(video.sha256 for video in chosen.videos)
        self.frames, self.sample, self.transform, self.split, self.seed = frames, sample, transform, split, seed
        self.fps, self.seconds, self.numbered = fps, seconds, numbered
        self._probed: dict[int, tuple[tuple[int, ...], VideoInfo]] = {}  # by item, the youngest last
        if fps is not None and not 0 < fps < float("inf"):
            raise ValueError(
                f"fps={fps}: give the clock's ticks a second, such as 30, or None for each file's own rate"
            )
        if getattr(transform, "flip", False) and not self.flips:
            raise ValueError(
                f"{chosen.source}: a mirrored clip may belong to another class here (left becomes right): "
                f"give the transform flip=False"
            )
        missing = [path for path in self.paths if not path.is_file()]
        if missing:
            raise ValueError(
                f"{chosen.source}: {len(missing)} of {len(self.paths)} files are missing, first {missing[0]}; make or "
                f"fetch the data again, or let `course data check` list what is there"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(
        self, item: int | tuple[int, int]
    ) -> (
        tuple[Shaped[Tensor, "*views 3 T H W"], int]
        | tuple[Shaped[Tensor, "*views 3 T H W"], int, Int[Tensor, "*views T"]]
    ):
        i, generator = self._locate(item)
        ticks, frames = self._read(i, generator)
        if frames.ndim == 4:
            clip = self.transform(frames, generator)
        else:
            clip = torch.stack([self.transform(view, generator) for view in frames]).flatten(0, -5)
        if not self.numbered:
            return clip, self.labels[i]
        numbers = torch.from_numpy(np.asarray(ticks, np.int64))
        if clip.ndim == 5:  # each clip in time as often as there are crops of it
            several = numbers.reshape(-1, numbers.shape[-1])
            numbers = several.repeat_interleave(len(clip) // len(several), dim=0)
        return clip, self.labels[i], numbers

    def read(self, item: int | tuple[int, int]) -> UInt8[np.ndarray, "*views T H W 3"]:
        """The chosen frames of an item as filmed, before the transform."""
        return self._read(*self._locate(item))[1]

    def explain(self, item: int | tuple[int, int]) -> Explanation:
        """Which frames dataset[item] shows, and where they come from."""
        i, generator = self._locate(item)
        info, available, _, indices = self._choose(i, generator)
        label, seconds = self.labels[i], np.array(info.times)[indices]
        return Explanation(info.path, label, self.classes[label], available, indices, seconds)

    def _locate(self, item: int | tuple[int, int]) -> tuple[int, torch.Generator | None]:
        i, epoch = item if isinstance(item, tuple) else (item, 0)
        if not 0 <= i < len(self):
            raise IndexError(f"item {i} of a data set of {len(self)} clips: use 0 to {len(self) - 1}")
        if self.split != "train":
            return i, None
        return i, draw(self.seed, i, epoch)

    def _choose(
        self, i: int, generator: torch.Generator | None
    ) -> tuple[VideoInfo, int, Int[np.ndarray, "*views T"], Int[np.ndarray, "*views T"]]:
        """The file, the ticks that there are, those that were chosen, and the frames that they show."""
        info = self._probe(i)
        rate = info.fps if self.fps is None else self.fps
        available = info.frames if self.fps is None else max(1, round(info.frames / info.fps * rate))
        try:
            ticks = self.sample(available, self.frames, generator=generator)
        except ValueError as error:
            raise ValueError(f"{info.path}: {error}") from error
        return info, available, ticks, info.at((ticks + 0.5) / rate)

    def _probe(self, i: int) -> VideoInfo:
        """`probe`, kept from one item to the next: in some formats it has to decode the whole file."""
        path = self.paths[i]
        try:
            stamp = _stamp(path)
        except OSError:  # whatever it is, `probe` says it
            return probe(path, self.seconds)
        held, info = self._probed.pop(i, (None, None))
        if info is None or held != stamp:
            info = probe(path, self.seconds)
        self._probed[i] = stamp, info
        while len(self._probed) > 1 and sum(kept.frames for _, kept in list(self._probed.values())) > MOST_FRAMES:
            self._probed.pop(next(iter(list(self._probed))), None)
        return info

    def _read(
        self, i: int, generator: torch.Generator | None
    ) -> tuple[Int[np.ndarray, "*views T"], UInt8[np.ndarray, "*views T H W 3"]]:
        path = self.paths[i]
        if self._sums[i] and path.is_file() and sha256(path) != self._sums[i]:
            raise VideoError(path, "its SHA-256 sum is not the one on the list: it has changed; fetch or make it again")
        *_, ticks, indices = self._choose(i, generator)
        frames = read_frames(path, indices.ravel(), self.seconds)
        return ticks, frames.reshape(*indices.shape, *frames.shape[1:])


def draw(seed: int, i: int, epoch: int) -> torch.Generator:
    """The randomness of item i in an epoch."""
    state = np.random.SeedSequence((seed, i, epoch)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def _stamp(path: Path) -> tuple[int, ...]:
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def preload(
    dataset: ClipDataset, workers: int = 1, limit: int = 4 * 2**30, progress: bool = True, most: int | None = None
) -> tuple[UInt8[Tensor, "n T H W 3"], Int[Tensor, "n"]]:
    """Decode every clip once (as epoch 0 shows it, before the transform): all frames and all labels, in memory.

    `workers` are threads: decoders release Python's lock. More than `limit` bytes are refused with a ValueError. With
    `most`, only so many, from the first on.
    """
    count = min(len(dataset), most or len(dataset))
    first = dataset.read(0)
    size = count * first.nbytes
    each = " x ".join(str(n) for n in first.shape)
    summary = f"{count} clips of {each} bytes, {size / 1e6:.0f} MB"
    if size > limit:
        raise ValueError(
            f"{summary}, are more than limit={limit / 1e6:.0f} MB: use fewer clips or frames, generate smaller ones, "
            f"or read them as you go with a DataLoader"
        )
    clips = torch.empty((count, *first.shape), dtype=torch.uint8)
    with ThreadPoolExecutor(workers) as pool:
        try:
            reading = pool.map(dataset.read, range(count))
            for i, frames in enumerate(tqdm(reading, summary, count, disable=not progress)):
                if frames.shape != first.shape:
                    found = " x ".join(str(n) for n in frames.shape)
                    raise ValueError(
                        f"{dataset.paths[i]}: {found}, but the first clip is {each}; preload needs clips of one size"
                    )
                clips[i] = torch.from_numpy(frames)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # an interrupt or a bad file should not wait for the rest
            raise
    return clips, torch.tensor(dataset.labels[:count])
