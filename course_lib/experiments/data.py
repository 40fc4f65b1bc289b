"""The data of an experiment: a generated set in memory, and what a network sees of it."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from course_lib.datasets.clips import ClipDataset, preload
from course_lib.files import read_json
from course_lib.paths import DATA
from course_lib.profiles import Profile
from course_lib.synthetic.write import make
from course_lib.video.transforms import KINETICS, normalise, to_clip

FRAMES = 8  # of 32, spread so that a clip and its reverse show the same pictures


class Data(NamedTuple):
    """A generated set in memory. `partner[c]` is the class of c's clips played backwards; None without such pairs."""

    name: str
    train: UInt8[Tensor, "n T H W 3"]
    train_labels: Int[Tensor, " n"]
    test: UInt8[Tensor, "m T H W 3"]
    test_labels: Int[Tensor, " m"]
    classes: tuple[str, ...]
    partner: Int[Tensor, " classes"] | None


def load_set(
    name: str, profile: Profile, workers: int | None = None, progress: bool = True, frames: int = FRAMES
) -> Data:
    """Make (once) and decode the generated set `name` at the size and the difficulty of the profile."""
    workers = os.cpu_count() or 1 if workers is None else workers
    folder = make(
        DATA / "generated",
        name,
        profile.clips,
        size=profile.size,
        workers=workers,
        progress=progress,
        difficulty=profile.difficulty_of(name),
    )
    sets = [ClipDataset(folder / "manifest.csv", frames=frames, split=split) for split in ("train", "test")]
    (train, train_labels), (test, test_labels) = (preload(each, workers, progress=progress) for each in sets)
    partner = read_json(folder / "manifest.json")["partner"]
    pairs = None if partner is None else torch.tensor(partner)
    return Data(name, train, train_labels, test, test_labels, sets[0].classes, pairs)


def to_clips(frames: UInt8[Tensor, "b T H W 3"]) -> Float[Tensor, "b 3 T H W"]:
    """Bytes to TimeSformer's numbers: mean 0.45, standard deviation 0.225."""
    return normalise(to_clip(frames), *KINETICS)


def varied(frames: UInt8[Tensor, "b T H W 3"], shift: int = 4) -> Float[Tensor, "b 3 T H W"]:
    """`to_clips` for training: each clip moved by up to `shift` pixels and its colours swapped, all frames alike.

    Both leave the label and the order of frames as they are. A left-right flip would not: it turns "moves right" into
    "moves left".
    """
    clips = F.pad(to_clips(frames), (shift, shift, shift, shift, 0, 0), mode="replicate")
    height, width = frames.shape[2:4]
    corners = torch.randint(0, 2 * shift + 1, (len(clips), 2)).tolist()
    moved = [clip[:, :, y : y + height, x : x + width] for clip, (y, x) in zip(clips, corners, strict=True)]
    return torch.stack([clip[torch.randperm(3)] for clip in moved])
