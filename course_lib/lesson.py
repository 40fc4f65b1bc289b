"""What every lesson does alike: it opens, asks before it shows, trains in sight, lays recorded runs side by side."""

from __future__ import annotations

import copy
import hashlib
import html
import json
import math
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, TypeVar, cast

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from course_lib.analysis.intervals import interval
from course_lib.datasets.lessons import KINDS
from course_lib.experiments import Data, by_seed, learn, paired, recipe, to_clips
from course_lib.experiments.data import LECTURE
from course_lib.experiments.trained import KEEPS, keep, recall
from course_lib.figures import show, table
from course_lib.figures.clips import strips
from course_lib.figures.curves import LiveCurve
from course_lib.files import read_json, write_json
from course_lib.grid import Grid
from course_lib.layers.schemes import Scheme
from course_lib.machine import machine
from course_lib.models import build, configure
from course_lib.modes import evaluating
from course_lib.paths import DATA
from course_lib.profiles import STANDS_FOR, Profile, forecast
from course_lib.synthetic.render import render
from course_lib.training.optim import TrainConfig
from course_lib.training.resume import Step, history, stopping
from course_lib.video.sampling import spread
from course_lib.widgets import AttentionExplorer
from course_lib.widgets.explore import explore
from course_lib.words import count

KEPT = DATA / "results" / "lessons"  # what lectures read in place of computing it
Answer = TypeVar("Answer")


def opening(notebook: str, profile: Profile) -> None:
    """Print the profile, what the notebook took where it was last measured, and which clips it will read."""
    print(forecast(notebook, profile))
    print(f"Clips: generated here, {profile.clips} a set, {profile.size} x {profile.size} pixels.")
    if profile.replays:
        print(f"Networks were trained before; scores are of the first {LECTURE} test clips of a set.")
        _load_early()
    for name in ("K", "S"):
        if folder := profile.folder_of(name):
            others = " and ".join(other for other, real in STANDS_FOR.items() if real == name)
            print(f"In place of {others}: {KINDS[name]}, in {folder}.")


def _load_early() -> None:
    """Load what torch loads at its first operation without numbers: a second that the opening has to spare."""
    with torch.device("meta"), torch.no_grad():
        nn.BatchNorm1d(1)(torch.empty(2, 1))


@dataclass(frozen=True)
class Revealed:
    """A result beside the learner's guess; folded away in the page while there is no guess."""

    guess: object
    result: str
    sentence: str  # what is said of the guess, or how to make one

    def __repr__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        sentence = html.escape(self.sentence)
        if self.guess is None:
            return f"<details><summary>{sentence}</summary>\n\n{html.escape(self.result)}\n</details>"
        return f"<p>{sentence}</p>"


def reveal(
    guess: object,
    measured: float | str,
    unit: str = "",
    tolerance: float | None = None,
    choices: Sequence[str] = (),
    profile: Profile | None = None,
) -> Revealed:
    """What was measured, and how far the guess was off; without a guess (None) the result is folded away.

    A number counts as right within `tolerance`, in its unit (a tenth of what was measured, if None). `choices` are the
    words that a guess may be. With the `profile` of a training, the result of smoke is said to mean nothing.
    """
    result = f"The answer: {measured}." if isinstance(measured, str) else f"It is {_said(measured, unit)}."
    if profile is not None and profile.name == "smoke":
        result += " (Profile smoke: a few steps on a few clips, so this number means nothing.)"
    if guess is None or guess is ...:
        kind = f"a choice first: {', '.join(choices)}" if choices else "a number first"
        return Revealed(None, result, f"Commit to {kind}")
    if isinstance(measured, str):
        if choices and _word(guess) not in map(_word, choices):
            return Revealed(guess, result, f"{guess!r} is none of the choices: {', '.join(choices)}.")
        right = _word(guess) == _word(measured)
        return Revealed(guess, result, f"You said {guess}{': right' if right else ''}. {result}")
    try:
        off = float(cast(Any, guess)) - measured  # also a tensor or array of one element
    except (TypeError, ValueError, RuntimeError):
        off = math.nan
    if math.isnan(off):
        return Revealed(guess, result, f"{guess!r} is no number: give one{f', in {unit}' if unit else ''}.")
    said = f"You said {_said(measured + off, unit)}"
    if abs(off) <= (abs(measured) / 10 if tolerance is None else tolerance):
        return Revealed(guess, result, f"{said}: right. {result}")
    how = f"{_said(abs(off), 'points' if unit == '%' else unit)} too {'high' if off > 0 else 'low'}"
    return Revealed(guess, result, f"{said}, {how}. {result}")


def _said(value: float, unit: str) -> str:
    return f"{value:.4g} {unit}".rstrip()


def _word(value: object) -> str:
    return str(value).strip().casefold()


def answered(answer: Answer, verdict: object, library: Answer, what: str) -> Answer:
    """The learner's answer if its check passed, else the library's; a printed line says which it is.

    `verdict` is what the check of the exercise gave, a `grading.checks.Verdict`.
    """
    print(f"{what}: " + ("yours" if verdict else "the library's, until your answer is right"))
    return answer if verdict else library


def as_stored(name: str, compute: Callable[[], Any], profile: Profile) -> Any:
    """What `compute` gives, as JSON has it: numbers, words, lists, and dicts whose keys are words.

    A lecture does not compute it but reads what the stored run in the profile cpu kept, and a line says of when that
    is. Where nothing was kept, it says so and computes. TypeError for anything that JSON does not have.
    """
    path = KEPT / f"{name}.json"
    if profile.replays and path.is_file():
        record = read_json(path)
        print(f"{name}: kept from the {profile.name} run of {record['date']} ({record['machine']['device']})")
        return record["value"]
    if profile.replays:
        print(f"{name}: not kept yet, so computed now; `course notebooks {name[:2]}` keeps it")
    try:
        value = json.loads(json.dumps(compute()))
    except TypeError as error:
        raise TypeError(f"{name}: {error}; keep numbers, words, lists and dicts, and make the rest from them") from None
    if os.environ.get(KEEPS):
        write_json(path, {"value": value, "date": date.today().isoformat(), "machine": machine()})
    return value


def study(
    net: nn.Module, data: Data, profile: Profile, name: str, seed: int = 0, config: TrainConfig | None = None
) -> list[Step]:
    """Train `net` where it is, with a live curve, and print what a step took; the records of all steps.

    Stopped, it has saved; called again with such a network it goes on, and a finished run is read back. A run is known
    by its name, its set, its profile, its seed and by what the network computes: other code is another run. So is one
    by another `config` than the profile's recipe (`experiments.full.start` gives a paper's). In a lecture nothing is
    trained: the network is filled with what was kept (`experiments.trained`).
    """
    config = config or recipe(profile, seed)
    steps = config.steps
    if profile.replays:
        done = recall(name, net, data, config)
        with LiveCurve(steps, f"{name} on set {data.name}", [(step.loss, step.accuracy) for step in done]):
            pass
        _say(f"trained before: {name}", data, done)
        return done
    shapes = {part: tuple(weight.shape) for part, weight in net.state_dict().items()}
    kind = [type(net).__name__, shapes, computes(net, data)]
    about = json.dumps([profile.settings(), asdict(config), data.classes, *kind])
    digest = hashlib.sha256(about.encode()).hexdigest()[:8]
    checkpoint = DATA / "runs" / f"{name}-{data.key}-{profile.name}-s{seed}-{digest}.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    past = [(step.loss, step.accuracy) for step in history(checkpoint)]
    with (
        stopping(checkpoint, steps),
        LiveCurve(steps, f"{name} on set {data.name}", past) as live,
        closing(cast(Any, learn(net, data, profile, seed, checkpoint, config))) as records,
    ):
        for step in records:
            live.add(step.loss, step.accuracy)
    done = history(checkpoint)
    keep(name, net, data, config, done)
    _say(name, data, done)
    return done


def _say(name: str, data: Data, done: list[Step]) -> None:
    seconds = sum(step.seconds for step in done)
    print(
        f"{name} on set {data.name}: {count(len(done), 'step')} in {seconds:.0f} s, {seconds / len(done):.2f} s a step"
    )


def computes(net: nn.Module, data: Data) -> list[str]:
    """What `net` makes of one clip with weights that are drawn anew: alike for two networks that compute the same,
    however far either has been trained. Rounded, since other processors add in another order."""
    net = copy.deepcopy(net).eval()
    generator = torch.Generator().manual_seed(0)
    for part in net.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.reset_running_stats()
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
        logits = net(to_clips(data.clip(0)[None]).to(next(net.parameters()).device))
    return [f"{value:.3g}" for value in logits.flatten().tolist()]


def turned(net: nn.Module, clips: Sequence[UInt8[Tensor, "T H W 3"]]) -> float:
    """Share of clips for which `net` gives another class when they are played backwards, 0 to 1."""
    changed = [there.argmax() != back.argmax() for there, back in zip(*_both(net, clips), strict=True)]
    return sum(map(bool, changed)) / len(changed)


def _both(net: nn.Module, clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Probabilities of clips, and of the same clips backwards; a few at a time."""
    device, found = next(net.parameters()).device, []
    with evaluating(net), torch.inference_mode():
        for some in torch.stack(list(clips)).split(16):
            found.append([net(to_clips(one).to(device)).float().softmax(1).cpu() for one in (some, some.flip(1))])
    there, back = zip(*found, strict=True)
    return torch.cat(there), torch.cat(back)


def interval_table(
    found: list[dict[str, Any]],
    arms: Mapping[str, Mapping[str, Any]],
    measures: Mapping[str, tuple[str, str]],
    published: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Display recorded runs: mean and 95 % interval of every arm, then by how much each differs from the first. One run
    has no interval, and is said to be one seed.

    arms: title -> the changes its network was built with. measures: title -> set and score. Differences are taken seed
    by seed, since runs of one seed share their clips, and of the seeds that both have. `published`: more columns,
    title -> arm -> number.
    """
    first, *others = arms
    values = {
        arm: [by_seed(found, set_name, score, **changes) for set_name, score in measures.values()]
        for arm, changes in arms.items()
    }
    published = published or {}
    rows = [
        [arm, *(_spread(each, 0, 100) for each in values[arm]), *(column.get(arm, "") for column in published.values())]
        for arm in arms
    ]
    for arm in others:
        differences = [paired(found, set_name, score, arms[first], arms[arm]) for set_name, score in measures.values()]
        beside = [
            f"{column[arm] - column[first]:+.1f}" if {arm, first} <= set(column) else ""
            for column in published.values()
        ]
        rows.append([f"{arm} minus {first}", *map(_spread, differences), *beside])
    table(["mean (95 % interval), %", *measures, *published], rows)


def _spread(values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> str:
    if len(values) == 1:
        return f"{round(100 * values[0], 1) + 0.0} (one seed)"
    mean, low, high = (round(min(max(100 * value, least), most), 1) + 0.0 for value in interval(values))
    return f"{mean} ({low} to {high})"


def both_ways(net: nn.Module, clips: Sequence[UInt8[Tensor, "T H W 3"]], classes: Sequence[str]) -> None:
    """Display each clip and its reverse, with the class that `net` gives each and the probability it gives it."""
    rows = [clip.numpy() for forwards in clips for clip in (forwards, forwards.flip(0))]
    chances = [row for pair in zip(*_both(net, clips), strict=True) for row in pair]
    said = [f"{classes[int(row.argmax())]} {row.max():.2f}" for row in chances]
    titles = [
        textwrap.fill(f"{way}: {words}", 24)
        for way, words in zip(("forwards", "backwards") * len(clips), said, strict=True)
    ]
    told = "; ".join(f"{there}, backwards {back}" for there, back in zip(said[::2], said[1::2], strict=True))
    show(strips(rows, titles, side=0.9), f"{len(clips)} clips, each followed by its reverse. The network says: {told}.")


def masks(schemes: Mapping[str, Sequence[Scheme]], grid: Grid) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Title -> the name and the mask of each attention layer of a block: what `schemes_picture` draws."""
    return {title: [(step.name, step.mask(grid).numpy()) for step in steps] for title, steps in schemes.items()}


def most_moving(film: UInt8[Tensor, "T H W 3"], patch: int = 16) -> list[int]:
    """[frame, row, column] of the pixel in the middle of the square that differs most from the clip's median frame."""
    change = (film.float() - film.float().median(0).values).abs().mean(-1)
    squares = avg_pool2d(change, patch)
    t, row, column = (int(at) for at in np.unravel_index(int(squares.argmax()), squares.shape))
    return [t, row * patch + patch // 2, column * patch + patch // 2]


def explore_variants(
    name: str, setting: str, values: Iterable[Any], source: Any, only: str = "", **changes: Any
) -> AttentionExplorer:
    """The masks of a network under each of some `values` of one setting, on a generated clip; `source` is shown first.

    Nothing is computed: the networks lie on the meta device. only: what the names of the layers shown begin with.
    """
    with torch.device("meta"):
        nets = {str(value): build(name, **{setting: value}, **changes) for value in values}
    clip: Grid = configure(name, **changes).clip
    length = max(32, clip.t)
    film = render("M", label=0, seed=31, frames=length, size=max(clip[1:]))[spread(length, clip.t)]
    frames = np.ascontiguousarray(film[:, : clip.h, : clip.w])
    return explore(nets, frames=frames, only=only, source=str(source), pinned=most_moving(torch.from_numpy(frames)))
