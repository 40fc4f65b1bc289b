"""A list of videos as a map-style data set: manifest + sample + decode + transform."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from course_lib.video.decode import VideoError, VideoInfo, probe, read_frames
from course_lib.video.sample import spread
from course_lib.video.transforms import whole_frames

COLUMNS = ("path", "label", "name", "split")


class Explanation(NamedTuple):
    """What one item shows: these frames of this file, filmed at these seconds (at the file's mean rate)."""

    path: Path
    label: int
    name: str
    available: int
    indices: Int[np.ndarray, "T"]
    seconds: Float[np.ndarray, "T"]
    decoder: str


class ClipDataset(Dataset):
    """The clips of one split of a manifest.

    dataset[i] is (clip 3 T H W, label); dataset[i, epoch] is the same item with that epoch's randomness, which depends
    on (seed, i, epoch) alone and so not on the workers. Only the split "train" is random: elsewhere samplers and
    transforms get no generator.

    manifest.csv has a header and one row a clip: path (relative to the manifest), label (0, 1, ...), name (of the
    class), split; optional: pair (shared by a clip and its exact reverse), sha256 (checked at every reading). A
    manifest.json beside it may list all "classes"; otherwise they are those of the manifest, in the order of labels.

    Args:
        sample: sampler(available, frames, generator=...) -> indices, see course_lib.video.sample.
        transform: transform(frames, generator) -> clip, see course_lib.video.transforms.

    Attributes:
        classes: names, in the order of labels. paths, labels, pairs: one a clip; a pair is "" where there is none.

    Raises:
        ValueError: what is wrong with the manifest, and where.
        VideoError: (on reading an item) the file and the reason. No other clip is ever shown in its place.
    """

    def __init__(
        self,
        manifest: str | Path,
        frames: int = 8,
        sample: Callable[..., Int[np.ndarray, "T"]] = spread,
        transform: Callable[..., Float[Tensor, "3 T H W"]] = whole_frames,
        split: str = "train",
        seed: int = 0,
    ):
        manifest = Path(manifest)
        rows = _read_manifest(manifest)
        self.classes = _class_names(manifest, rows)
        splits = Counter(row["split"] for row in rows)
        if split not in splits:
            held = ", ".join(f"{name} ({count})" for name, count in splits.items())
            raise ValueError(f"{manifest}: no clip of split {split!r}; there are {held}")
        rows = [row for row in rows if row["split"] == split]
        self.paths = tuple(manifest.parent / row["path"] for row in rows)
        self.labels = tuple(int(row["label"]) for row in rows)
        self.pairs = tuple(row.get("pair") or "" for row in rows)
        self._sums = tuple(row.get("sha256") or "" for row in rows)
        self.frames, self.sample, self.transform, self.split, self.seed = frames, sample, transform, split, seed
        missing = [path for path in self.paths if not path.is_file()]
        if missing:
            raise ValueError(
                f"{manifest}: {len(missing)} of {len(rows)} files are missing, first {missing[0]}; "
                f"make or fetch the data again"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Float[Tensor, "3 T H W"], int]:
        i, generator = self._locate(item)
        return self.transform(self._read(i, generator), generator), self.labels[i]

    def read(self, item: int | tuple[int, int]) -> UInt8[np.ndarray, "T H W 3"]:
        """The chosen frames of an item as filmed, before the transform."""
        return self._read(*self._locate(item))

    def explain(self, item: int | tuple[int, int]) -> Explanation:
        """Which frames dataset[item] shows, and where they come from."""
        i, generator = self._locate(item)
        info, indices = self._choose(i, generator)
        label = self.labels[i]
        return Explanation(
            info.path, label, self.classes[label], info.frames, indices, indices / info.fps, info.decoder
        )

    def _locate(self, item: int | tuple[int, int]) -> tuple[int, torch.Generator | None]:
        i, epoch = item if isinstance(item, tuple) else (item, 0)
        if not 0 <= i < len(self):
            raise IndexError(f"item {i} of a data set of {len(self)} clips: use 0 to {len(self) - 1}")
        if self.split != "train":
            return i, None
        seed = np.random.SeedSequence((self.seed, i, epoch)).generate_state(1, np.uint64)[0]
        return i, torch.Generator().manual_seed(int(seed))

    def _choose(self, i: int, generator: torch.Generator | None) -> tuple[VideoInfo, Int[np.ndarray, "T"]]:
        info = probe(self.paths[i])
        try:
            return info, self.sample(info.frames, self.frames, generator=generator)
        except ValueError as error:
            raise ValueError(f"{info.path}: {error}") from error

    def _read(self, i: int, generator: torch.Generator | None) -> UInt8[np.ndarray, "T H W 3"]:
        path = self.paths[i]
        if self._sums[i] and path.is_file() and _sha256(path) != self._sums[i]:
            raise VideoError(path, "its SHA-256 sum is not that of the manifest; fetch or make it again")
        return read_frames(path, self._choose(i, generator)[1])


def preload(
    dataset: ClipDataset, workers: int = 1, limit: int = 4 * 2**30, progress: bool = True
) -> tuple[UInt8[Tensor, "n T H W 3"], Int[Tensor, "n"]]:
    """Decode every clip once (as epoch 0 shows it, before the transform): all frames and all labels, in memory.

    `workers` are threads: decoders release Python's lock. More than `limit` bytes are refused with a ValueError.
    """
    first = dataset.read(0)
    size = len(dataset) * first.nbytes
    each = " x ".join(str(n) for n in first.shape)
    summary = f"{len(dataset)} clips of {each} bytes, {size / 1e6:.0f} MB"
    if size > limit:
        raise ValueError(
            f"{summary}, are more than limit={limit / 1e6:.0f} MB: use fewer clips or frames, generate smaller ones, "
            f"or read them as you go with a DataLoader"
        )
    clips = torch.empty((len(dataset), *first.shape), dtype=torch.uint8)
    with ThreadPoolExecutor(workers) as pool:
        try:
            reading = pool.map(dataset.read, range(len(dataset)))
            for i, frames in enumerate(tqdm(reading, summary, len(dataset), disable=not progress)):
                if frames.shape != first.shape:
                    found = " x ".join(str(n) for n in frames.shape)
                    raise ValueError(
                        f"{dataset.paths[i]}: {found}, but the first clip is {each}; preload needs clips of one size"
                    )
                clips[i] = torch.from_numpy(frames)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # an interrupt or a bad file should not wait for the rest
            raise
    return clips, torch.tensor(dataset.labels)


def _read_manifest(manifest: Path) -> list[dict[str, str]]:
    if not manifest.is_file():
        raise ValueError(f"{manifest}: no such manifest; `course data make` writes one")
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    absent = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if absent:
        raise ValueError(f"{manifest}: no column {', '.join(absent)}; it needs {', '.join(COLUMNS)}")
    if not rows:
        raise ValueError(f"{manifest}: lists no clip")
    for number, row in enumerate(rows, 1):
        if not all(row[column] for column in COLUMNS):
            raise ValueError(f"{manifest}: row {number} lacks one of {', '.join(COLUMNS)}")
        if not row["label"].isdecimal():
            raise ValueError(f"{manifest}: row {number} has label {row['label']!r}, not a whole number from 0 up")
        path = PurePath(row["path"])
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(
                f"{manifest}: row {number} leaves the manifest's folder: {path}; "
                f"put the videos (or a link to them) inside it"
            )
    return rows


def _class_names(manifest: Path, rows: list[dict[str, str]]) -> tuple[str, ...]:
    about = manifest.with_suffix(".json")
    if about.is_file():
        try:
            source, names = about, tuple(json.loads(about.read_text(encoding="utf-8"))["classes"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{about}: no list of "classes" in it ({error!r}); make the data again') from error
    else:
        by_label = {int(row["label"]): row["name"] for row in rows}
        source, names = manifest, tuple(by_label[label] for label in sorted(by_label))
        gap = next((place for place, label in enumerate(sorted(by_label)) if place != label), None)
        if gap is not None:
            raise ValueError(f"{manifest}: no clip has label {gap}, but a higher one occurs; number classes from 0 on")
    for number, row in enumerate(rows, 1):
        label = int(row["label"])
        if label >= len(names):
            raise ValueError(f"{manifest}: row {number} has label {label}, but {source} knows 0 to {len(names) - 1}")
        if names[label] != row["name"]:
            raise ValueError(
                f"{manifest}: row {number} calls label {label} {row['name']!r}, but {source} calls it {names[label]!r}"
            )
    return names


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
