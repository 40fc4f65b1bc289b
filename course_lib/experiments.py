"""Controlled runs: one network, one generated set, one seed, one record.

Notebooks show the same steps in the open; `course experiment` repeats them over seeds and writes data/results.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from course_lib.datasets import ClipDataset
from course_lib.datasets.clips import preload
from course_lib.files import write_json
from course_lib.machine import machine
from course_lib.models import build
from course_lib.paths import DATA
from course_lib.profiles import Profile
from course_lib.synthetic.write import VERSION, make
from course_lib.training.batches import in_order, shuffled
from course_lib.training.evaluate import accuracy, pair_accuracy, predict
from course_lib.training.loop import Step, TrainConfig, history, train
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


def load_set(name: str, profile: Profile, workers: int | None = None, progress: bool = True) -> Data:
    """Make (once) and decode the generated set `name` at the size of the profile."""
    workers = os.cpu_count() or 1 if workers is None else workers
    folder = make(DATA / "generated", name, profile.clips, size=profile.size, workers=workers, progress=progress)
    parts: list[Tensor] = []
    for split in ("train", "test"):
        dataset = ClipDataset(folder / "manifest.csv", frames=FRAMES, split=split)
        parts += preload(dataset, workers, progress=progress)
    partner = json.loads((folder / "manifest.json").read_text())["partner"]
    return Data(name, *parts, dataset.classes, None if partner is None else torch.tensor(partner))


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


def recipe(profile: Profile, seed: int = 0) -> TrainConfig:
    return TrainConfig(steps=profile.steps, peak_rate=profile.peak_rate, warmup=min(50, profile.steps // 3), seed=seed)


@dataclass(frozen=True)
class Arm:
    """One cell of an experiment. `changes` go to `models.build`."""

    network: str
    set: str
    changes: tuple[tuple[str, object], ...] = ()

    @property
    def name(self) -> str:
        return "-".join([self.network, self.set, *(value for _, value in self.changes if isinstance(value, str))])

    def build(self, classes: int, seed: int) -> nn.Module:
        """The same start for the same seed, whatever was drawn before."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build(self.network, classes=classes, **dict(self.changes))


def learn(
    net: nn.Module, data: Data, profile: Profile, seed: int = 0, checkpoint: Path | None = None
) -> Iterator[Step]:
    """Train `net` on `data` by the profile's recipe; one record a step, as `training.loop.train` gives them."""
    batches = shuffled(data.train, data.train_labels, profile.batch, seed, varied)
    return train(net, batches, recipe(profile, seed), checkpoint)


def score(net: nn.Module, data: Data) -> dict[str, float]:
    """Test accuracy, and pair accuracy where classes have partners."""
    logits, labels = predict(net, in_order(data.test, data.test_labels, 64, to_clips))
    scores = {"accuracy": accuracy(logits, labels)}
    if data.partner is not None:
        scores["pair_accuracy"] = pair_accuracy(logits, labels, data.partner)
    return scores


def run(
    arm: Arm, profile: Profile, seed: int, folder: Path, each: Callable[[Step], None] = lambda step: None
) -> dict[str, object]:
    """One arm, one seed: the record, read from `folder` if it is there, else made (and resumed) and written there."""
    record = folder / f"{arm.name}-{profile.name}-s{seed}.json"
    if record.is_file():
        return json.loads(record.read_text())
    data = load_set(arm.set, profile)
    net = arm.build(len(data.classes), seed)
    net.to("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = DATA / "runs" / f"{record.stem}-set{VERSION}.safetensors"  # a new version is other clips
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    for step in learn(net, data, profile, seed, checkpoint):
        each(step)
    steps = history(checkpoint)  # those of before an interruption too
    result = {
        "arm": asdict(arm) | {"changes": dict(arm.changes)},
        "profile": asdict(profile),
        "seed": seed,
        "train_clips": len(data.train),
        "test_clips": len(data.test),
        "parameters": sum(p.numel() for p in net.parameters()),
        "scores": score(net, data),
        "seconds": round(sum(step.seconds for step in steps), 1),
        "loss": [round(step.loss, 4) for step in steps],
        "machine": machine(),
    }
    write_json(record, result)
    return result


def c1(profile: Profile) -> tuple[Arm, ...]:
    """Attention inside single frames is enough where looks decide, and not where motion does."""
    network = "timesformer_b_8x224" if profile.full else "timesformer_tiny"
    return tuple(
        Arm(network, set, (("attention", attention), ("scratch", True)))
        for set in ("A", "M")
        for attention in ("space", "divided", "joint")
    )


EXPERIMENTS: dict[str, Callable[[Profile], tuple[Arm, ...]]] = {"C1": c1}


def records(name: str, profile: str, folder: Path = DATA / "results") -> list[dict]:
    """The recorded runs of an experiment, by seed. ValueError if there are none."""
    found = [json.loads(path.read_text()) for path in sorted((folder / name).glob(f"*-{profile}-s*.json"))]
    if not found:
        raise ValueError(f"no recorded runs in {folder / name}: make them with `course experiment {name}`")
    return sorted(found, key=lambda record: record["seed"])


def by_seed(found: list[dict], set: str, measure: str, **changes: object) -> list[float]:
    """One measure of the runs on `set` whose network was built with `changes`, in the order of their seeds."""
    return [
        record["scores"][measure]
        for record in found
        if record["arm"]["set"] == set and changes.items() <= record["arm"]["changes"].items()
    ]
