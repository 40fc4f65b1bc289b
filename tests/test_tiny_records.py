"""What tiny networks learn, as recorded: the tables in the READMEs, and whether the recipes still ask for it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from course_lib.experiments.claims import BLIND, DIALS, SEES, TURNED, dials, tiny
from course_lib.experiments.records import by_dial, by_seed, left_plateau, records, require_match, right_in_pair
from course_lib.experiments.runs import Arm, identity, profile_defaults
from course_lib.figures.curves import plateau, smooth
from course_lib.files import read_json
from course_lib.paths import DATA
from course_lib.profiles import PROFILES
from course_lib.synthetic.difficulty import FULL

CPU = PROFILES["cpu"]
FOLDER = DATA / "results" / "tiny"
ARMS = tiny(CPU)
BLIND_ARMS = [Arm(network, "D", changes) for network, changes in BLIND]
PAIRS = ("push right", "lower", "turn clockwise")


def of(arm: Arm) -> list[dict[str, Any]]:
    """The records of an arm, by seed."""
    return [read_json(path) for path in sorted(FOLDER.glob(f"{arm.name}-cpu-s*.json"))]


def spread(values: list[float], unit: float = 100) -> str:
    """Mean over the seeds, and the range where they differ: "98 (97-100)"."""
    mean, low, high = (round(unit * value) for value in (sum(values) / len(values), min(values), max(values)))
    return f"{mean} ({low}-{high})" if low != high else f"{mean}"


def called(arm: Arm) -> str:
    return f"`{arm.network}`" + "".join(f", {key}={value}" for key, value in arm.changes)


def cost(found: list[dict[str, Any]]) -> list[str]:
    used = [record["cpu_seconds"] for record in found if record["cpu_seconds"] is not None]
    profile = found[0]["profile"]
    return [f"{profile['steps']} x {profile['batch']}", spread(used, 1) if used else "-", str(len(found))]


def row(arm: Arm) -> str:
    """A line of the table in data/results/tiny/README.md."""
    found = of(arm)
    if not found:
        return f"| {called(arm)} | not recorded |"
    scores = [spread([record["scores"]["accuracy"] for record in found])]
    if arm.set_name == "D":
        scores += [spread([record["pairs"][pair] for record in found]) for pair in PAIRS]
    return f"| {' | '.join([called(arm), *scores, *cost(found)])} |"


def short(arm: Arm) -> str:
    """A line of the table in the README: the pair it does worst on D, and beside it the network's looks, on L."""
    found, looks = of(arm), of(Arm(arm.network, "L")) if arm.changes == SEES.get(arm.network, ()) else []
    worst = [spread([min(record["pairs"].values()) for record in found]), cost(found)[1]] if found else ["-", "-"]
    top = [spread([record["scores"]["accuracy"] for record in looks]), cost(looks)[1]] if looks else ["-", "-"]
    return f"| {' | '.join([called(arm), *worst, *top])} |"


def course(arm: Arm) -> str:
    """A line of the table of losses against seconds: that of the last 20 batches, of the first seed timed."""
    timed = [record for record in of(arm) if record["cpu_seconds"] is not None]
    if not timed:
        return f"| {called(arm)} | not recorded |"
    loss, seconds = timed[0]["loss"], timed[0]["cpu_seconds"]
    step = seconds / len(loss)
    found = []
    for after in AFTER:
        done = round(after / step)
        found.append(f"{sum(loss[done - 20 : done]) / 20:.2f}" if 20 <= done <= len(loss) else "-")
    return f"| {' | '.join([called(arm), f'{1000 * step:.0f}', *found, f'{sum(loss[-20:]) / 20:.2f}'])} |"


AFTER = (10, 20, 30, 40, 60)  # seconds
SEEING = [arm for arm in ARMS if arm.set_name == "D" and arm not in BLIND_ARMS]


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_the_table_of_tiny_networks_says_what_is_recorded(arm):
    assert row(arm) in (FOLDER / "README.md").read_text()
    assert arm in BLIND_ARMS or course(arm) in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("arm", SEEING, ids=lambda arm: arm.name)
def test_the_short_table_says_what_is_recorded(arm):
    assert short(arm) in (Path(DATA).parent / "README.md").read_text()


def test_every_record_is_of_the_recipe_as_it_stands():
    """And no record is left over from an arm that is no longer asked for."""
    known = {path for arm in ARMS for path in FOLDER.glob(f"{arm.name}-cpu-s*.json")}
    assert known and known == {*FOLDER.glob("*.json")}
    for arm in ARMS:
        for record in of(arm):
            require_match(FOLDER, record, identity(arm, arm.settings(CPU), record["seed"]), profile_defaults())
            assert len(record["loss"]) == record["profile"]["steps"] and record["machine"]["commit"] != "unknown"


@pytest.mark.parametrize("arm", BLIND_ARMS, ids=lambda arm: arm.name)
def test_recorded_a_network_blind_to_order_is_right_half_of_the_time(arm):
    for record in of(arm):
        assert record["scores"]["pair_accuracy"] == 0.5 and set(record["pairs"].values()) == {0.5}


def divided_on_the_hard_sets() -> tuple[list[float], list[float]]:
    """Of divided attention in C1, per cent by seed: A's clips named, right within the pair on M."""
    hard = records("C1", "cpu")
    named, way = (
        [100 * value for value in by_seed(hard, name, measure, attention="divided")]
        for name, measure in (("A", "accuracy"), ("M", "pair_accuracy"))
    )
    return named, way


def test_what_the_page_says_of_ninety_per_cent_stands_in_the_records():
    told = " ".join((FOLDER / "README.md").read_text().split())
    seeing = [record for arm in ARMS if arm not in BLIND_ARMS for record in of(arm)]
    assert min(record["scores"]["accuracy"] for record in seeing) > 0.9
    assert min(min(record["pairs"].values()) for record in seeing if record["arm"]["set_name"] == "D") > 0.9
    assert "Every network that is not blind to order passes 90 % with every seed on D and L" in told
    looks, ways = divided_on_the_hard_sets()
    assert f"names {min(looks):.0f} to {max(looks):.0f} % of A's clips" in told
    assert f"within the pair in {min(ways):.0f} to {max(ways):.0f} % of M's" in told


def dial_rows() -> list[str]:
    """Lines of the table of dials: right within the pair, the plateau's end; the last column all dials at once."""
    turned = [read_json(path) for path in sorted((DATA / "results" / "dials").glob("*.json"))]
    easy = [record for record in records("tiny", "cpu") if record["seed"] == 0]
    told = by_dial([*easy, *turned], DIALS, TURNED, pair_and_plateau)
    full = {
        record["arm"]["network"]: pair_and_plateau(record)
        for record in turned
        if record["profile"]["difficulty"] == asdict(FULL)
    }
    return [
        f"| `{network}` | "
        + " | ".join(", ".join(f"{at:g}: {text}" for at, text in sorted(told[dial][network])) for dial in DIALS)
        + f" | {full[network]} |"
        for network in TURNED
    ]


def pair_and_plateau(record: dict) -> str:
    left = left_plateau(record)
    return (
        f"{100 * right_in_pair(record):.0f} / {left:.0f}"
        if left < len(record["loss"])
        else f"{100 * right_in_pair(record):.0f} / -"
    )


@pytest.mark.parametrize("line", dial_rows(), ids=TURNED)
def test_the_table_of_dials_says_what_is_recorded(line):
    assert line in (FOLDER / "README.md").read_text()


def test_every_record_of_a_dial_is_of_an_arm_and_of_the_recipe_as_it_stands():
    folder = DATA / "results" / "dials"
    arms = {folder / f"{arm.name}-cpu-s0.json": arm for arm in dials(CPU)}
    assert {*folder.glob("*.json")} <= {*arms}
    for path in folder.glob("*.json"):
        require_match(path, read_json(path), identity(arms[path], arms[path].settings(CPU), 0), profile_defaults())


SINGLE_FRAMES = ("timesformer_tiny", "vtn_tiny", "vidtr_tiny", "cvidtr_tiny")  # whose tokens see no motion


@pytest.mark.parametrize("arm", SEEING, ids=lambda arm: arm.name)
def test_recorded_directions_are_learnt_in_every_pair(arm):
    least = 0.8 if arm.network in SINGLE_FRAMES else 0.9
    assert of(arm) and min(record["pairs"][pair] for record in of(arm) for pair in PAIRS) >= least


def test_recorded_the_network_that_compares_all_tokens_first_knows_the_pair_and_then_the_way():
    """The plateau that the figure shows, and its end."""
    (record,) = (r for r in of(Arm("timesformer_tiny", "D", (("attention", "joint"),))) if r["seed"] == 0)
    accuracy = smooth(record["batch_accuracy"], 25)
    assert all(0.4 < one < 0.65 for one in accuracy[200:300]) and accuracy[-1] > 0.95
    loss = plateau(record["loss"], record["batch_accuracy"], 6).axes[0].lines[0].get_ydata()
    assert loss[-1] < 0.1 < np.log(2) < loss[250]


def test_recorded_looks_are_learnt_by_every_network():
    found = [record for record in records("tiny", "cpu") if record["arm"]["set_name"] == "L"]
    assert found and min(record["scores"]["accuracy"] for record in found) >= 0.9


if __name__ == "__main__":  # the lines for the two READMEs
    print(*map(row, ARMS), "", *map(short, SEEING), "", *map(course, ARMS), sep="\n")
