"""Controlled runs: one network, one set, one seed, one record.

Notebooks show the same steps in the open; `course experiment` repeats them over seeds and writes data/results.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.experiments.data import Data, first_clips, load_set
from course_lib.experiments.inputs import load_flow
from course_lib.experiments.real import SETS, Kept, selection
from course_lib.experiments.recipes import Recipe, with_recipe
from course_lib.experiments.records import require_match
from course_lib.files import read_json, write_json
from course_lib.machine import machine
from course_lib.models import build, configure
from course_lib.paths import DATA
from course_lib.profiles import PROFILES, Profile
from course_lib.synthetic.difficulty import Difficulty
from course_lib.synthetic.write import VERSION
from course_lib.training.evaluate import accuracy, pair_accuracy, predict
from course_lib.training.loop import train
from course_lib.training.optim import TrainConfig
from course_lib.training.resume import Step, history


@dataclass(frozen=True)
class Arm:
    """One cell of an experiment. `changes` go to `models.build`; `difficulty` takes the place of the profile's,
    `recipe` that of the network's own in the cpu profile.

    Functions are named in the record. `start` is given the fresh network, the arm, its profile and the seed, and leaves
    it as it is to be trained: filled, or with parts that stay as they are. `shown` turns clips b 3 T H W into what the
    network is given, in training and in tests; `trained_on` does so in training alone, before it. `measure` gives more
    scores of the trained network, by name, or what scores are made of.

    `share` of a generated set's training clips are given, `data.first_clips`.
    """

    network: str
    set_name: str
    changes: tuple[tuple[str, object], ...] = ()
    difficulty: Difficulty | None = None
    recipe: Recipe | None = None
    start: Callable[[nn.Module, Arm, Profile, int], None] | None = None
    shown: Callable[[Tensor], Tensor] | None = None
    trained_on: Callable[[Tensor], Tensor] | None = None
    measure: Callable[[nn.Module, Data], dict[str, Any]] | None = None
    share: float = 1

    @property
    def functions(self) -> dict[str, str]:
        """Those that this arm has, by name."""
        given = {name: getattr(self, name) for name in ("start", "shown", "trained_on", "measure")}
        return {name: function.__name__ for name, function in given.items() if function is not None}

    @property
    def name(self) -> str:
        parts = [self.network, self.set_name, *(f"{key}={_plain(value)}" for key, value in self.changes)]
        if self.difficulty is not None:
            parts.append(self.difficulty.name or "full")
        if self.recipe is not None:
            parts.append(f"{self.recipe.steps}x{self.recipe.batch}")
        if self.share != 1:
            parts.append(f"share={self.share:g}")
        parts += [f"{name}={word}" for name, word in self.functions.items() if name != "measure"]
        return "-".join(parts)

    def settings(self, profile: Profile) -> Profile:
        """The profile as this arm runs: with a recipe, the arm's or the network's, and the arm's difficulty."""
        if self.recipe is not None and profile.name == "cpu":
            profile = replace(profile, **self.recipe._asdict())
        else:
            profile = with_recipe(profile, self.network, self.set_name)
        return profile if self.difficulty is None else replace(profile, difficulty=self.difficulty)

    def data(self, profile: Profile) -> Data:
        """The arm's set, with what its network is shown of it; its flow for a network of two colours."""
        two = getattr(configure(self.network, **dict(self.changes)), "colours", 3) == 2
        data = (load_flow if two else load_set)(self.set_name, profile, frames=self.frames)
        if self.share != 1:
            data = first_clips(data, self.share)
        return data._replace(shown=self.shown, trained_on=self.trained_on)

    @property
    def frames(self) -> int:
        """How many the network takes from a clip."""
        return configure(self.network, **dict(self.changes)).frames

    def build(self, classes: int, seed: int) -> nn.Module:
        """The same start for the same seed, whatever was drawn before."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build(self.network, classes=classes, **dict(self.changes))


def identity(arm: Arm, profile: Profile, seed: int) -> dict[str, Any]:
    """All that a record depends on but the machine; two runs with the same one are the same experiment.

    Of K and S it holds the sum of the list of clips, and not where they lie.
    """
    named: dict[str, Any] = {"network": arm.network, "set_name": arm.set_name}
    named["changes"] = {key: _plain(value) for key, value in arm.changes}
    named |= arm.functions
    if arm.share != 1:
        named["share"] = arm.share
    about = {"arm": named, "profile": profile.settings(), "seed": seed}
    if arm.set_name in SETS:
        about["clips"] = selection(arm.set_name, profile).sha256
    else:
        about["sets"] = VERSION
    return json.loads(json.dumps(about))


def profile_defaults() -> dict[str, Any]:
    """What a record was made with that has no word of a profile's setting: it was made before there was one."""
    kept = PROFILES["cpu"].settings()
    defaults = {f.name: f.default for f in fields(Profile) if f.name in kept and f.default is not MISSING}
    return json.loads(json.dumps({"profile": defaults}, default=asdict))


def _plain(value: object) -> Any:
    """A change as JSON keeps it: numbers and words as they are, the rest as Python writes it."""
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def recipe(profile: Profile, seed: int = 0) -> TrainConfig:
    """AdamW with a short climb, as long as the profile says."""
    return TrainConfig(steps=profile.steps, peak_lr=profile.peak_lr, warmup=min(50, profile.steps // 3), seed=seed)


def learn(
    net: nn.Module,
    data: Data,
    profile: Profile,
    seed: int = 0,
    checkpoint: Path | None = None,
    config: TrainConfig | None = None,
) -> Iterator[Step]:
    """Train `net` on `data` by the profile's recipe, or another `config`; one record a step, as `training.loop.train`
    gives them."""
    batches = data.train_batches(profile.batch, seed, next(net.parameters()).device)
    return train(net, batches, config or recipe(profile, seed), checkpoint)


def score(net: nn.Module, data: Data) -> dict[str, float]:
    """Test accuracy, and pair accuracy where classes have partners."""
    return _scores(*predict(net, data.test_batches()), data)


def _scores(logits: Float[Tensor, "n classes"], labels: Int[Tensor, "n"], data: Data) -> dict[str, float]:
    scores = {"accuracy": accuracy(logits, labels)}
    if data.partner is not None:
        scores["pair_accuracy"] = pair_accuracy(logits, labels, data.partner)
    return scores


def by_pair(logits: Float[Tensor, "n classes"], labels: Int[Tensor, "n"], data: Data) -> dict[str, float]:
    """Pair accuracy of each pair of classes, by the name of its first."""
    if data.partner is None:
        return {}
    ours = [(c, (labels == c) | (labels == data.partner[c])) for c in range(len(data.classes)) if c < data.partner[c]]
    return {data.classes[c]: pair_accuracy(logits[some], labels[some], data.partner) for c, some in ours}


def run(
    arm: Arm,
    profile: Profile,
    seed: int,
    folder: Path,
    each: Callable[[Step], None] = lambda step: None,
    again: bool = False,
) -> dict[str, Any]:
    """One arm, one seed: the record, read from `folder` if it is there, else made (and resumed) and written there.

    The profile's recipe gives way to the arm's own where `recipes` has one.
    `again` makes it anew whatever is there. ValueError for a record of other settings under the same name: it says what
    differs, and for a profile that replays.
    """
    if profile.replays:
        raise ValueError(f"profile {profile.title} trains nothing, so it makes no records: use {profile.name}")
    profile = arm.settings(profile)
    about = identity(arm, profile, seed)
    record = folder / f"{arm.name}-{profile.name}-s{seed}.json"
    if record.is_file() and not again:
        found = read_json(record)
        require_match(record, found, about, profile_defaults())
        return found
    data = arm.data(profile)
    net = arm.build(len(data.classes), seed)
    if arm.start is not None:
        arm.start(net, arm, profile, seed)
    net.to("cuda" if torch.cuda.is_available() else "cpu")
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    checkpoint = DATA / "runs" / f"{record.stem}-{digest}.safetensors"
    if again:
        checkpoint.unlink(missing_ok=True)
    done, start = len(history(checkpoint)), time.process_time()
    for step in learn(net, data, profile, seed, checkpoint):
        each(step)
    used = time.process_time() - start
    logits, labels = predict(net, data.test_batches())
    steps = history(checkpoint)  # those of before an interruption too
    result = about | {
        "train_clips": len(data.train_labels),
        "test_clips": len(data.test_labels),
        "parameters": sum(p.numel() for p in net.parameters()),
        "scores": _scores(logits, labels, data) | (arm.measure(net, data) if arm.measure else {}),
        "pairs": by_pair(logits, labels, data),
        "seconds": round(sum(step.seconds for step in steps), 1),
        "cpu_seconds": None if done else round(used, 1),  # of a run that was not interrupted
        "loss": [round(step.loss, 4) for step in steps],
        "batch_accuracy": [round(step.accuracy, 4) for step in steps],
        "machine": machine(),
    }
    if data.sha256:
        result["kept_in_memory"] = isinstance(data.train, Kept)
    if data.left_out:
        result["left_out"] = [problem._asdict() for problem in data.left_out]
    write_json(record, result)
    return result
