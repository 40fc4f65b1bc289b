"""The data of an experiment: a generated set or a real one, and what a network sees of it.

Generated sets lie in memory whole. `real` reads Kinetics (set K) and Something-Something v2 (set S).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import copy
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file, save
from torch import Tensor

from course_lib.datasets.clips import ClipDataset, preload
from course_lib.experiments import real
from course_lib.files import Problem, atomic_write
from course_lib.paths import DATA
from course_lib.profiles import Profile
from course_lib.synthetic.render import CLASSES, PARTNER
from course_lib.synthetic.write import VERSION, make
from course_lib.training.batches import Batch, in_order, loader, shuffled, unit_range
from course_lib.video.transforms import KINETICS, normalise, to_clip

LECTURE = 96  # clips of each split that a lecture loads
DECODED = DATA / "generated" / "lecture"  # where they lie decoded after the first time
FRAMES = 8  # of 32, spread so that a clip and its reverse show the same pictures


class Data(NamedTuple):
    """A set. `partner[c]` is the class of c's clips played backwards; None without such pairs.

    `train` and `test` are clips in memory or data sets that read them (`real`); `train_batches`, `test_batches` and
    `clip` serve both. `left_out` are files that could not be read; `sha256` is the sum of the list of clips of a real
    set, "" for a generated one. `shown` turns every clip b 3 T H W into what a network is given of it,
    `trained_on` those of training alone, before that.
    """

    name: str
    train: UInt8[Tensor, "n T H W c"] | real.Kept | ClipDataset
    train_labels: Int[Tensor, " n"]
    test: UInt8[Tensor, "m T H W c"] | ClipDataset
    test_labels: Int[Tensor, " m"]
    classes: tuple[str, ...]
    partner: Int[Tensor, " classes"] | None
    left_out: tuple[Problem, ...] = ()
    sha256: str = ""
    workers: int = 0  # processes that read ahead
    shown: Callable[[Tensor], Tensor] | None = None
    trained_on: Callable[[Tensor], Tensor] | None = None

    @property
    def key(self) -> str:
        """What the files of a run on this set are to be named by: another version or other clips have another key."""
        return f"{self.name}-{self.sha256[:8]}" if self.sha256 else f"{self.name}{VERSION}"

    def clip(self, i: int) -> UInt8[Tensor, "T H W 3"]:
        """Test clip i as a network sees it, but for `to_clips`."""
        return self.test[i] if isinstance(self.test, Tensor) else self.test[i][0].movedim(0, -1)

    def label(self, i: int) -> int:
        """The class of test clip i."""
        return int(self.test_labels[i])

    def train_batches(
        self, batch: int, seed: int, device: torch.device | str = "cpu"
    ) -> Callable[[int], Iterator[Batch]]:
        """Endless batches for `training.loop.train`, varied anew in every epoch; of all clips where those are fewer.

        In set D a clip and its reverse come in one batch: what is left to tell them apart is motion.
        """
        if isinstance(self.train, Tensor):
            together = 2 if self.name == "D" else 1
            batches = shuffled(self.train, self.train_labels, batch, seed, varied, together=together)
        else:
            dataset = copy(self.train)
            dataset.seed = seed
            batches = real.told(loader(dataset, min(batch, len(dataset)), seed, self.workers, real.PREPARE, device))
        return lambda step: _through(batches(step), self.trained_on, self.shown)

    def test_batches(self, batch: int = 64) -> Iterator[Batch]:
        """Every test clip once, in order, for `training.evaluate.predict`."""
        if isinstance(self.test, Tensor):
            return _through(in_order(self.test, self.test_labels, batch, to_clips), self.shown)
        return _through(real.in_order(self.test, batch, self.workers), self.shown)


def _through(batches: Iterator[Batch], *changes: Callable[[Tensor], Tensor] | None) -> Iterator[Batch]:
    with closing(cast(Any, batches)):  # workers that read ahead end with it
        for clips, labels in batches:
            for change in changes:
                clips = clips if change is None else change(clips)
            yield clips, labels


def load_set(
    name: str, profile: Profile, workers: int | None = None, progress: bool = True, frames: int = FRAMES
) -> Data:
    """The set `name` at the size of the profile: a generated one (made once, as hard as the profile says), or K or S.

    K and S are read from the profile's folders; one line says what of them. In a profile without the full network
    `profile.clips` clips of them are used at most. `workers` decode, as many as there are cores if None.
    """
    workers = os.cpu_count() or 1 if workers is None else workers
    if name in real.SETS:
        chosen = real.selection(name, profile)
        read = real.read(name, chosen, frames, profile.size, workers, progress)
        return Data(
            name,
            read.train,
            read.train_labels,
            read.test,
            read.test_labels,
            chosen.train.classes,
            None if chosen.partner is None else torch.tensor(chosen.partner),
            read.left_out,
            chosen.sha256,
            read.workers,
        )

    def decoded(split: str) -> tuple[Tensor, Tensor]:
        folder = make(
            DATA / "generated",
            name,
            profile.clips,
            size=profile.size,
            workers=workers,
            progress=progress,
            difficulty=profile.difficulty_of(name),
        )
        clips = ClipDataset(folder / "manifest.csv", frames=frames, split=split)
        return preload(clips, workers, progress=progress, most=LECTURE if profile.replays else None)

    return generated(name, profile, frames, decoded)


def generated(
    name: str, profile: Profile, frames: int, read: Callable[[str], tuple[Tensor, Tensor]], seen_as: str = "clips"
) -> Data:
    """A generated set of the clips and labels that `read` gives of "train" and of "test".

    In a lecture it is read once and kept decoded (`DECODED`): to check and decode it takes seconds each time.
    """
    hidden = profile.difficulty_of(name).name
    size = f"{profile.clips}-{profile.size}px-{frames}f-first{LECTURE}"
    path = DECODED / ("-".join(filter(None, (f"{name}{VERSION}", hidden, seen_as, size))) + ".safetensors")
    if profile.replays and path.is_file():
        held = load_file(path)
    else:
        held = {}
        for split in ("train", "test"):
            held[split], held[f"{split}_labels"] = read(split)
        if profile.replays:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, save(held))
    partner = None if PARTNER[name] is None else torch.tensor(PARTNER[name])
    train, train_labels, test, test_labels = (held[part] for part in ("train", "train_labels", "test", "test_labels"))
    return Data(name, train, train_labels, test, test_labels, CLASSES[name], partner)


def first_clips(data: Data, share: float) -> Data:
    """The set with its first training clips alone, so many that they are `share` of them: of each class as many, and
    with their reverses. A smaller share lies within a larger one. All test clips stay.

    ValueError for a share that leaves a class without clips, and for clips that are read from files as training goes.
    """
    if not isinstance(data.train, Tensor):
        raise ValueError(f"share={share:g} of set {data.name}: only generated sets can be cut, train on share=1 of it")
    rounds = len(data.train_labels) // len(data.classes)  # each has one clip of every class
    if not 0 < share <= 1 or round(share * rounds) < 1:
        raise ValueError(f"share={share:g} of {rounds} clips a class: use a share from {1 / rounds:.4f} to 1")
    count = round(share * rounds) * len(data.classes)
    return data._replace(train=data.train[:count], train_labels=data.train_labels[:count])


def to_clips(frames: UInt8[Tensor, "b T H W c"]) -> Float[Tensor, "b c T H W"]:
    """Bytes to TimeSformer's numbers: mean 0.45, standard deviation 0.225; the two of optical flow to -1 to 1."""
    if frames.shape[-1] == 2:
        return unit_range(frames).movedim(-1, 1).contiguous()
    return normalise(to_clip(frames), *KINETICS)


def varied(frames: UInt8[Tensor, "b T H W c"], shift: int = 4) -> Float[Tensor, "b c T H W"]:
    """`to_clips` for training: each clip moved by up to `shift` pixels and its colours swapped, all frames alike.

    Both leave the label and the order of frames as they are. A left-right flip would not: it turns "moves right" into
    "moves left". So would a swap of the two directions of optical flow, which stay.
    """
    clips = F.pad(to_clips(frames), (shift, shift, shift, shift, 0, 0), mode="replicate")
    height, width = frames.shape[2:4]
    corners = torch.randint(0, 2 * shift + 1, (len(clips), 2)).tolist()
    moved = [clip[:, :, y : y + height, x : x + width] for clip, (y, x) in zip(clips, corners, strict=True)]
    return torch.stack(moved if frames.shape[-1] == 2 else [clip[torch.randperm(3)] for clip in moved])
