"""What `course train` and `course evaluate` read: Kinetics (K), Something-Something v2 (S), a generated set or any
manifest, and how recipes sample, crop and colour it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Subset

from course_lib.datasets import kinetics
from course_lib.datasets.clips import ClipDataset
from course_lib.datasets.lessons import read_splits
from course_lib.datasets.manifest import VideoList, read_manifest
from course_lib.files import Problem
from course_lib.paths import DATA
from course_lib.synthetic.render import CLASSES
from course_lib.synthetic.write import make
from course_lib.training.augment import TrainAugment
from course_lib.training.batches import read_by
from course_lib.training.recipe import Recipe
from course_lib.video.sampling import dense, segments, spread, views
from course_lib.video.transforms import EvalTransform

SUBSETS = ("all", "mini10", "mini50", "mini200")
GENERATED = tuple(CLASSES)
GENERATED_CLIPS, GENERATED_SIZE = 2400, 64


class Source(NamedTuple):
    """The lists of both splits, that of train empty where it was not asked for. `kind` is K, S, "generated" or
    "manifest"; `left_out` are files that cannot be used."""

    train: VideoList
    test: VideoList
    kind: str
    left_out: tuple[Problem, ...] = ()


def read_source(
    data: str,
    root: str | Path | None = None,
    subset: str = "all",
    size: int = 0,
    workers: int = 0,
    test_only: bool = False,
) -> Source:
    """The videos of K, S, a generated set (made below `root`, if need be, for networks of `size` pixels) or a manifest.

    Of K and S, files that are missing, broken by check.csv or in both splits are left out.

    Raises:
        ValueError: the data cannot be read, with the way out.
    """
    if data != "K" and subset != "all":
        raise ValueError(f"--subset {subset} is one of Kinetics: use --data K, or leave it out")
    if data in ("K", "S"):
        if root is None:
            raise ValueError(
                f"--data {data} is read from a folder: give --root DIR, the one of `course data check DIR`"
            )
        if not Path(root).is_dir():
            raise ValueError(f"--root {root}: no such folder")
        if subset not in SUBSETS:
            raise ValueError(f"--subset {subset}: use {', '.join(SUBSETS)}")
        (train, test), left_out = read_splits(data, root, test_only)
        if subset != "all":
            train, test = (videos.keep(kinetics.subset(subset)) for videos in (train, test))
        return Source(train, test, data, left_out)
    if data in GENERATED:
        folder = DATA / "generated" if root is None else Path(root)
        manifest = make(folder, data, GENERATED_CLIPS, max(GENERATED_SIZE, size), workers=workers) / "manifest.csv"
    elif data.endswith(".csv"):
        manifest = Path(data) if root is None else Path(root) / data
        if not manifest.is_file():
            raise ValueError(f"--data {data}: no file {manifest}; give the path of a manifest.csv")
    else:
        raise ValueError(f"--data {data}: use K, S, one of {', '.join(GENERATED)}, or the path of a manifest.csv")
    videos = read_manifest(manifest)
    held = {video.split for video in videos.videos}
    test_split = next((name for name in ("val", "test") if name in held), "val")
    kind = "generated" if data in GENERATED else "manifest"
    train = replace(videos, videos=()) if test_only else videos.of("train")
    return Source(train, videos.of(test_split), kind)


def train_clips(
    source: Source, recipe: Recipe, frames: int, size: int, seed: int, numbered: bool = False
) -> ClipDataset:
    """The clips of training as bytes, by the recipe; with their frames' numbers, if wanted."""
    low, high = (max(size, round(side * size / 224)) for side in recipe.short_side)
    flips = recipe.flip and source.train.flips and source.kind != "generated"
    transform = TrainAugment(
        size,
        (low, high) if source.kind != "generated" else (size, high),
        recipe.area,
        flips,
        recipe.randaugment,
        recipe.randaugment_ops,
        recipe.colour,
        recipe.grey,
        recipe.erasing,
        recipe.colours,
    )
    sample = _sampler(source, recipe, frames)
    fps = _fps(source, recipe)
    return ClipDataset(source.train, frames, sample, transform, seed=seed, fps=fps, numbered=numbered)


def test_clips(
    source: Source,
    recipe: Recipe,
    frames: int,
    size: int,
    times: int = 1,
    crops: int = 1,
    numbered: bool = False,
) -> ClipDataset:
    """The clips of testing as bytes, `times` x `crops` views each; where there is one, it is in the middle.

    Something-Something is sampled one frame from each of equal parts, so that all clips in time are the same one.
    """
    frames = recipe.test_frames or frames
    crop = round((recipe.test_size or 224) * size / 224)
    sides = max(crop, round(recipe.test_short_side * size / 224))
    sample = _sampler(source, recipe, frames)
    if times > 1 and source.kind in ("K", "manifest"):
        sample = partial(views, stride=recipe.stride(frames), clips=times, hold=True)
    elif times > 1:
        raise ValueError(f"{times} clips in time: this data is sampled over whole videos, use 1x{crops} views")
    transform = EvalTransform(crop, sides, crops, colours=None)
    split = source.test.videos[0].split
    fps = _fps(source, recipe)
    return ClipDataset(source.test, frames, sample, transform, split=split, fps=fps, numbered=numbered)


def _sampler(source: Source, recipe: Recipe, frames: int) -> Callable[..., Int[np.ndarray, "T"]]:
    if source.kind == "S":
        return parts
    if source.kind == "generated":
        return spread
    return partial(dense, stride=recipe.stride(frames), hold=True)


def _fps(source: Source, recipe: Recipe) -> float | None:
    return recipe.fps if source.kind in ("K", "manifest") else None


def parts(available: int, frames: int, generator: torch.Generator | None = None) -> Int[np.ndarray, "frames"]:
    """`segments`, but a video that is too short shows some of its frames twice."""
    if available < frames:
        return np.arange(frames) * available // frames
    return segments(available, frames, generator)


def in_order(
    dataset: ClipDataset,
    chosen: list[int],
    batch: int,
    workers: int,
    prepare: Callable[[Tensor], Tensor],
    device: torch.device,
) -> Iterator[Any]:
    """The chosen clips once, first to last, the last batch as short as it comes."""
    some: Any = Subset(dataset, chosen)
    for clips, *rest in read_by(workers, some, batch_size=batch):
        yield prepare(clips.to(device, non_blocking=True)), *rest
