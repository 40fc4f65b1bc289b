"""Kinetics (set K) and Something-Something v2 (set S) as lessons read them; in memory where they fit.

              frames of a clip                                   pixels, where the network sees 224
train, K      evenly through 7.5 seconds anywhere: 8 x 32        short side 256 to 320, a square anywhere in it,
              (of shorter films through up to three quarters)    mirrored every second time
train, S      one of each of equal parts, at random              the same, never mirrored
test, both    the same in the middle                             short side 224, the square in the middle

So TimeSformer trains; the scales of other sizes are in proportion. Time is counted in ticks of 30 a second, as in
PySlowFast. What is shorter than the frames asked shows some of them twice (S) or stands still at its end (K).

In memory, a clip to train on is the square in the middle at short side 320, with more frames than the network sees: K
those at half the stride in the ten seconds in the middle, S three of each part. Every epoch chooses anew from them, by
the same rules. That is the whole difference to reading the files as training goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from tqdm.auto import tqdm

from course_lib.datasets.clips import ClipDataset, draw
from course_lib.datasets.lessons import Selection, select
from course_lib.files import Problem
from course_lib.machine import free_memory
from course_lib.profiles import NAMED_BY, REMEDY, Profile
from course_lib.training.batches import Batch, read_by
from course_lib.training.sources import parts
from course_lib.video.errors import VideoError
from course_lib.video.sampling import dense, segments
from course_lib.video.transforms import EvalTransform, ToNetwork, TrainTransform

CLOCK = 30  # ticks a second
WINDOW = 300  # ticks: ten seconds, the length of a clip of Kinetics
SHARE = 0.5  # of the memory that is free, for clips; the rest is for training
QUICK = 128  # pixels up to which cropping a clip in memory (0.5 ms at 64, 4 ms at 224) is not worth a process
PREPARE = ToNetwork()


def moment(available: int, frames: int, generator: torch.Generator | None = None) -> Int[np.ndarray, "frames"]:
    """`dense`, through three quarters of a video or of ten seconds, less what whole strides leave: "8 x 32", 16 x 14,
    32 x 7 of 300."""
    return dense(available, frames, _stride(available, frames), hold=True, generator=generator)


def _stride(available: int, frames: int) -> int:
    reach = 3 * min(available, WINDOW) // 4
    return max(1, (reach - 1) // max(1, frames - 1))


def ten_seconds(available: int, frames: int, generator: torch.Generator | None = None) -> Int[np.ndarray, "frames"]:
    """Evenly through the ten seconds in the middle; nothing is random."""
    window = min(available, WINDOW)
    return (available - window) // 2 + np.arange(frames) * (window - 1) // max(1, frames - 1)


def every_part(available: int, frames: int, generator: torch.Generator | None = None) -> Int[np.ndarray, "frames"]:
    """The middle of each of equal parts; nothing is random."""
    return parts(available, frames)


class Rules(NamedTuple):
    """Which frames: of a file; of a file, to be kept in memory, and how many; of those that are kept."""

    sample: Callable[..., Int[np.ndarray, "T"]]
    keep: Callable[..., Int[np.ndarray, "T"]]
    kept: Callable[[int], int]
    again: Callable[..., Int[np.ndarray, "T"]]


def _at_half_the_stride(frames: int) -> int:
    """How many frames of ten seconds are kept, so that every second one of them is as far away as in `moment`: 20 of 8,
    44 of 16, 86 of 32."""
    return 1 + round(2 * (WINDOW - 1) / _stride(WINDOW, frames))


SETS = {
    "K": Rules(moment, ten_seconds, _at_half_the_stride, partial(dense, stride=2)),
    "S": Rules(parts, every_part, lambda frames: 3 * frames, segments),
}


class Kept:
    """Clips to train on, in memory. kept[i, epoch] is (bytes 3 T h w, label): other frames, another scale, square and
    side every time, which depend on (seed, i, epoch) alone."""

    def __init__(
        self,
        clips: UInt8[Tensor, "n T H W 3"],
        labels: Int[Tensor, " n"],
        frames: int,
        sample: Callable[..., Int[np.ndarray, "T"]],
        transform: TrainTransform,
        seed: int = 0,
    ):
        self.clips, self.labels, self.frames = clips, labels, frames
        self.sample, self.transform, self.seed = sample, transform, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: tuple[int, int]) -> tuple[UInt8[Tensor, "3 T h w"], int]:
        i, epoch = item
        generator = draw(self.seed, i, epoch)
        chosen = self.sample(self.clips.shape[1], self.frames, generator=generator)
        return self.transform(self.clips[i].numpy()[chosen], generator), int(self.labels[i])


def selection(set_name: str, profile: Profile) -> Selection:
    """What the profile's folder holds for set K or S; ValueError, with the way out, where no folder was named."""
    folder = profile.folder_of(set_name)
    if not folder:
        parameter, variable = NAMED_BY[set_name]
        raise ValueError(
            f"set {set_name} is read from a folder, and none was named: give active(..., {parameter}=...) or set "
            f"{variable}; {REMEDY[set_name]}"
        )
    return select(set_name, folder, None if profile.full else profile.clips)


class Read(NamedTuple):
    """The clips of both splits with their labels, the files that could not be read, the processes to read with."""

    train: Kept | ClipDataset
    train_labels: Int[Tensor, " n"]
    test: UInt8[Tensor, "m T H W 3"] | ClipDataset
    test_labels: Int[Tensor, " m"]
    left_out: tuple[Problem, ...]
    workers: int


def read(set_name: str, chosen: Selection, frames: int, size: int, workers: int, progress: bool) -> Read:
    """The clips of a selection, in memory if they fill no more than half of what is free; a line says what is done."""
    rules, low, high = SETS[set_name], size * 256 // 224, size * 320 // 224
    transform = TrainTransform(size, (low, high), flip=chosen.train.flips, colours=None)
    train = ClipDataset(chosen.train, frames, rules.sample, transform, fps=CLOCK)
    middle = EvalTransform(size, size, colours=None)
    test = ClipDataset(chosen.test, frames, rules.sample, middle, split="val", fps=CLOCK)
    kept = rules.kept(frames)
    needed = 3 * (len(train) * kept * high**2 + len(test) * frames * size**2) / 1e9
    free = free_memory() / 1e9
    fits = needed <= SHARE * free
    how = f"kept in memory, {needed:.2g} GB" if fits else f"read as they are needed: {needed:.3g} GB are too many"
    print(
        f"{set_name}: {chosen.which}; {len(train):,} clips to train on, {len(test):,} to test on, {how} "
        f"of the {free:.3g} GB that are free{_named(chosen.left_out)}"
    )
    if not fits:
        return Read(train, torch.tensor(train.labels), test, torch.tensor(test.labels), chosen.left_out, workers)
    whole = ClipDataset(chosen.train, kept, rules.keep, EvalTransform(high, high, colours=None), fps=CLOCK)
    (clips, labels, lost), (tests, test_labels, lost_too) = (
        keep(each, chosen.train.root, workers, progress, f"{set_name}, {each.split}") for each in (whole, test)
    )
    if lost or lost_too:
        print(f"{set_name}: what cannot be read is not used{_named(lost + lost_too)}")
    left_out = (*chosen.left_out, *lost, *lost_too)
    helpers = workers if size > QUICK else 0
    return Read(Kept(clips, labels, frames, rules.again, transform), labels, tests, test_labels, left_out, helpers)


def keep(
    dataset: ClipDataset, root: Path, workers: int, progress: bool = True, title: str = ""
) -> tuple[UInt8[Tensor, "n T H W 3"], Int[Tensor, " n"], tuple[Problem, ...]]:
    """Every clip of a data set that gives bytes, decoded once: those that can be read, their labels, and the others by
    their path below `root`.

    `workers` are threads. VideoError if no clip can be read.
    """

    def one(i: int) -> Tensor | VideoError:
        try:
            return dataset[i][0].movedim(0, -1)
        except VideoError as error:
            return error

    clips: Any = None
    labels: list[int] = []
    lost: list[VideoError] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            found = pool.map(one, range(len(dataset)))
            for i, clip in enumerate(tqdm(found, title, len(dataset), unit="clip", disable=not progress)):
                if isinstance(clip, VideoError):
                    lost.append(clip)
                    continue
                if clips is None:
                    clips = torch.empty((len(dataset), *clip.shape), dtype=torch.uint8)
                clips[len(labels)] = clip
                labels.append(dataset.labels[i])
        except BaseException:
            pool.shutdown(cancel_futures=True)  # an interrupt should not wait for the rest
            raise
    if clips is None:
        raise _with_a_way_out(lost[0])
    return (
        clips[: len(labels)],
        torch.tensor(labels),
        tuple(Problem(error.path.relative_to(root).as_posix(), error.reason) for error in lost),
    )


def in_order(dataset: ClipDataset, batch: int, workers: int) -> Iterator[Batch]:
    """Every clip once, first to last, read by `workers` processes."""
    batches = read_by(workers, dataset, batch_size=batch)
    yield from told(lambda: ((PREPARE(clips), labels) for clips, labels in batches))()


def told(batches_from: Callable[..., Iterator[Batch]]) -> Callable[..., Iterator[Batch]]:
    """The same batches; the error of a file that cannot be read says how to go on without it."""

    def walk(*step: int) -> Iterator[Batch]:
        try:
            yield from batches_from(*step)
        except VideoError as error:
            raise _with_a_way_out(error) from error

    return walk


def _with_a_way_out(error: VideoError) -> VideoError:
    remedy = "`course data check FOLDER` finds all such files once, and then they are left out"
    return type(error)(error.path, f"{error.reason}; {remedy}")


def _named(problems: tuple[Problem, ...], most: int = 3) -> str:
    """How many files are left out, and the first of them."""
    if not problems:
        return ""
    first = "; ".join(f"{problem.path} ({' '.join(problem.reason.split())})" for problem in problems[:most])
    rest = f" and {len(problems) - most:,} more" if len(problems) > most else ""
    return f". Left out, {len(problems):,}: {first}{rest}"
