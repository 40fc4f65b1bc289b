"""Recorded runs: found again, compared with what is asked for, laid side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from course_lib.files import read_json
from course_lib.paths import DATA
from course_lib.synthetic.difficulty import EASY, Difficulty

Measured = TypeVar("Measured")
DIALS = {part.name for part in fields(Difficulty)}


def require_match(
    path: Path, record: Mapping[str, Any], asked: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> None:
    """ValueError if a record is of another experiment than the one asked for; every difference in a line.

    `defaults` are of settings that may be younger than the record: one that it lacks had this value.
    """
    there = _flat(defaults or {}) | _flat({key: record.get(key) for key in asked})
    here = _flat(asked)
    lines = [
        f"{name}: {there.get(name, 'nothing')!r} in the record, {here.get(name, 'nothing')!r} asked for"
        for name in here | there
        if there.get(name, "nothing") != here.get(name, "nothing")
    ]
    if lines:
        raise ValueError(
            f"{path} is the record of another run:\n  " + "\n  ".join(lines) + "\n"
            "Make it anew (course experiment ... --again), or write to another folder (--out)"
        )


def records(name: str, profile: str, folder: Path = DATA / "results") -> list[dict[str, Any]]:
    """The recorded runs of an experiment, by seed. ValueError if there are none."""
    found = [read_json(path) for path in sorted((folder / name).glob(f"*-{profile}-s*.json"))]
    if not found:
        raise ValueError(f"no recorded runs in {folder / name}: make them with `course experiment {name}`")
    return sorted(found, key=lambda record: record["seed"])


def matching(found: list[dict[str, Any]], set_name: str, **changes: object) -> list[dict[str, Any]]:
    """The runs on a set whose network was built with `changes`, in the order of their seeds.

    `changes` may also name what else an arm has, `start="inflated"`, the steps of its recipe, `steps=200`, and a dial
    of its difficulty, `way=0.7`; None is for arms without.
    """
    return [
        record
        for record in found
        if record["arm"]["set_name"] == set_name and all(_of(record, key) == value for key, value in changes.items())
    ]


Measure = str | Callable[[Mapping[str, Any]], float]  # of a record: a score or a pair of classes by name, or a function


def by_seed(found: list[dict[str, Any]], set_name: str, measure: Measure, **changes: object) -> list[Any]:
    """One measure of the runs that are `matching`."""
    return [measured(record, measure) for record in matching(found, set_name, **changes)]


def paired(
    found: list[dict[str, Any]],
    set_name: str,
    measure: Measure,
    one: Mapping[str, object],
    other: Mapping[str, object],
) -> list[float]:
    """By how much `other` runs measure more than `one`, for every seed that both have been run with."""
    less, more = ({run["seed"]: run for run in matching(found, set_name, **changes)} for changes in (one, other))
    return [measured(more[seed], measure) - measured(less[seed], measure) for seed in less if seed in more]


def measured(record: Mapping[str, Any], measure: Measure) -> Any:
    if callable(measure):
        return measure(record)
    return (record.get("pairs", {}) | record["scores"])[measure]


def training_loss(record: Mapping[str, Any], steps: int = 30) -> float:
    """Of the batches, the mean of the last `steps`."""
    return sum(record["loss"][-steps:]) / len(record["loss"][-steps:])


def same_seeds(
    found: list[dict[str, Any]], set_name: str, arms: Iterable[Mapping[str, object]]
) -> list[dict[str, Any]]:
    """The runs on a set with those seeds that every one of `arms` has, each given as `by_seed` is given it."""
    common = set.intersection(*({run["seed"] for run in matching(found, set_name, **arm)} for arm in arms))
    return [run for run in found if run["arm"]["set_name"] == set_name and run["seed"] in common]


def _of(record: Mapping[str, Any], key: str) -> object:
    arm = record["arm"]
    if key == "steps":
        return record["profile"]["steps"]
    if key in DIALS:
        return record["profile"]["difficulty"][key]
    return arm["changes"].get(key, arm.get(key))


def right_in_pair(record: Mapping[str, Any]) -> float:
    """The share of the test clips that a recorded run knows from their reverse."""
    return record["scores"]["pair_accuracy"]


def left_plateau(record: Mapping[str, Any], window: int = 25) -> float:
    """The step at which the mean of the last `window` losses first falls below half of ln 2; the number of all steps if
    it never does. ln 2 is what a run on pairs of classes costs while it knows the pair and not the way."""
    total = np.cumsum([0.0, *record["loss"]])
    low = (total[window:] - total[:-window]) / window < np.log(2) / 2
    return float(low.argmax() + window if low.any() else len(record["loss"]))


def by_dial(
    found: list[dict[str, Any]],
    dials: Iterable[str],
    networks: Iterable[str],
    measure: Callable[[Mapping[str, Any]], Measured],
) -> dict[str, dict[str, list[tuple[float, Measured]]]]:
    """Per dial of set D's difficulty and network: (setting, measure) of the runs that differ from EASY in it alone.

    For `figures.curves.by_dial`. A run at EASY itself belongs to every dial.
    """
    easy = asdict(EASY)
    networks = tuple(networks)
    table: dict[str, dict[str, list[tuple[float, Any]]]] = {dial: {n: [] for n in networks} for dial in dials}
    for record in found:
        network, settings = record["arm"]["network"], record["profile"]["difficulty"]
        turned = [name for name, value in settings.items() if value != easy[name]]
        if record["arm"]["set_name"] != "D" or record["arm"]["changes"] or len(turned) > 1:
            continue
        for dial, runs in table.items():
            if network in runs and turned in ([], [dial]):
                runs[network].append((settings[dial], measure(record)))
    return table


def _flat(tree: object, above: str = "") -> dict[str, object]:
    """{"arm": {"network": "x"}} as {"arm.network": "x"}."""
    if not isinstance(tree, Mapping):
        return {above.rstrip("."): tree}
    return {name: leaf for key, value in tree.items() for name, leaf in _flat(value, f"{above}{key}.").items()}
