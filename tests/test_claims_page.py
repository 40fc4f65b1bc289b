"""The page of claims: its verdicts follow from intervals, its arms exist, and it is what the records say today."""

from __future__ import annotations

import json
import random
import re

import pytest
from typer.testing import CliRunner

from course_lib.cli import app
from course_lib.experiments.claims import CLAIMS
from course_lib.experiments.claims_page import (
    FAILS,
    HOLDS,
    OPEN,
    Claim,
    Comparison,
    compare,
    found_for,
    page,
    said,
    summary,
    together,
    verdict,
)
from course_lib.experiments.paper_claims import PAPER_CLAIMS
from course_lib.experiments.records import records
from course_lib.experiments.runs import identity
from course_lib.paths import DATA
from course_lib.profiles import PROFILES

RUN = {name: claim for name, claim in PAPER_CLAIMS.items() if claim.comparisons}
CPU = PROFILES["cpu"]


@pytest.mark.parametrize(
    ("low", "high", "expected", "so"),
    [
        (1, 3, "more", HOLDS),
        (-1, 3, "more", OPEN),
        (-3, -1, "more", FAILS),
        (-3, -1, "less", HOLDS),
        (1, 3, "less", FAILS),
        (-4, 4, "same", HOLDS),
        (1, 4, "same", HOLDS),
        (-4, 6, "same", OPEN),
        (6, 9, "same", FAILS),
        (-9, -6, "same", FAILS),
        (-4, 20, "no less", HOLDS),
        (-6, 20, "no less", OPEN),
        (-9, -6, "no less", FAILS),
    ],
)
def test_a_verdict_is_no_stronger_than_its_interval(low, high, expected, so):
    """Two seeds whose 95 % interval ends at `low` and `high`: half its width is 12.706 times half their distance."""
    middle, off = (low + high) / 2, (high - low) / 2 / 12.7062
    assert verdict([middle - off, middle + off], expected) == so


def test_one_seed_or_none_tells_nothing():
    assert verdict([50.0], "more") == verdict([], "more") == OPEN
    assert "one seed: no interval" in said([50.0]) and "not run" in said([])


def test_claims_of_several_comparisons_say_how_many_hold():
    assert together([HOLDS, HOLDS]) == HOLDS and together([FAILS]) == FAILS
    assert together([HOLDS, OPEN, HOLDS]) == "holds in 2 of 3, cannot be told at this size in 1 of 3"
    assert together([FAILS, HOLDS]) == "holds in 1 of 2, does not hold in 1 of 2"


def test_an_end_that_is_not_zero_is_not_printed_as_zero():
    def between(low: float, high: float) -> list[float]:
        middle, off = (low + high) / 2, (high - low) / 2 / 12.7062
        return [middle - off, middle + off]

    assert said(between(-5.8, -0.04)) == "-2.9 (-5.8 to -0.04)"
    assert said(between(0.004, 2), "nats") == "+1.00 (0.004 to 2.00)"
    assert said([2.0, 2.0]) == "+2.0 (2.0 to 2.0)" and said([0.0, 0.0]) == "+0.0 (0.0 to 0.0)"


def test_an_expectation_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="expected='bigger' is unknown: use one of more, less, same, no less"):
        Comparison("", "bigger", lambda found: [])


def recorded(network: str, seed: int, accuracy: float) -> dict:
    return {"arm": {"network": network, "set_name": "D", "changes": {}}, "seed": seed, "scores": {"accuracy": accuracy}}


def test_a_verdict_turns_with_the_records(tmp_path):
    claim = Claim(
        "One is better.",
        "99 and 98.",
        "00",
        (compare("one minus other", "more", "D", "accuracy", dict(network="other"), dict(network="one")),),
        ("C1",),
    )
    folder = tmp_path / "C1"
    folder.mkdir()

    def says(ahead: float) -> str:
        for seed in range(3):
            for network, accuracy in (("one", 0.5 + ahead + seed / 100), ("other", 0.5)):
                record = recorded(network, seed, accuracy)
                (folder / f"{network}-cpu-s{seed}.json").write_text(json.dumps(record))
        return page({"C1": claim}, tmp_path)

    assert "+21.0 (18.5 to 23.5)" in says(0.2) and "**Holds.** Again by `course experiment C1 --seeds 3`" in says(0.2)
    assert "holds, 3 seeds" in says(0.2) and "99 and 98." in says(0.2)
    assert "**Does not hold.**" in says(-0.2) and "**Cannot be told at this size.**" in says(-0.01)


def test_a_control_stands_on_the_page_and_not_in_the_verdict(tmp_path):
    """One is better by 20 points; a control expects them to be the same, and does not hold."""
    arms = "D", "accuracy", dict(network="other"), dict(network="one")
    control = compare("as a control", "same", *arms, control=True)
    test = compare("one minus other", "more", *arms, unit="nats", scale=1)
    claim = Claim("One is better.", "99 and 98.", "00", (control, test), ("C1",))
    (tmp_path / "C1").mkdir()
    for seed in range(3):
        for network, accuracy in (("one", 0.7 + seed / 100), ("other", 0.5)):
            path = tmp_path / "C1" / f"{network}-cpu-s{seed}.json"
            path.write_text(json.dumps(recorded(network, seed, accuracy)))
    told = page({"C1": claim}, tmp_path)
    assert "| as a control | same | +21.0 (18.5 to 23.5) | points | 3 | control: does not hold, 3 seeds |" in told
    assert "| one minus other | more | +0.21 (0.19 to 0.23) | nats | 3 | holds, 3 seeds |" in told
    assert "**Holds.** Again by" in told
    row = ["C1", "One is better.", "one minus other", "+0.21 (0.19 to 0.23) nats", "3", "holds"]
    assert summary({"C1": claim}, tmp_path) == [row]


def test_controls_are_those_that_test_another_sentence():
    """C28 is of little data, C13 of the form, C34 of conv, max and mean; no claim is left without a test."""
    controls = {name: [one.what for one in claim.comparisons if one.control] for name, claim in RUN.items()}
    assert {name for name, found in controls.items() if found} == {"C3", "C7", "C13", "C18", "C28", "C34", "C36"}
    assert all("all clips" in what or "400 steps" in what for what in controls["C28"]) and len(controls["C28"]) == 4
    assert controls["C13"] == ["V, top-1: plain mean minus no block"]
    assert controls["C34"] == ["D, in the pair: average with conv's norm minus average"]
    for name, claim in RUN.items():
        assert len(controls[name]) < len(claim.comparisons), name


def test_controls_ask_what_their_lessons_say_would_be_seen():
    """C3: whoever has a kernel over time loses. C36: factorised attention leads where a window is the whole clip, so
    that a clear lead of joint attention there would be against the story that reconciles two papers."""
    asked = {name: {one.what: one for one in RUN[name].comparisons if one.control} for name in ("C3", "C36")}
    assert [one.expected for one in asked["C3"].values()] == ["more", "more"]
    ((what, large),) = asked["C36"].items()
    assert "windows of the whole clip: joint minus factorised" in what and large.expected == "less"
    assert verdict([20.0, 21.0, 22.0], large.expected) == FAILS and verdict([-22.0, -21.0, -20.0], "less") == HOLDS
    assert large.values(found_for(RUN["C36"])), what
    page_of = (DATA / "results" / "README.md").read_text()
    row = next(line for line in page_of.splitlines() if "ViT on cubes of 3 frames: in order minus shuffled" in line)
    low = float(re.search(r"\(([-\d.]+) to", row)[1])
    assert low > 0 and "| more |" in row and row.endswith("| control: holds |")


def test_what_c37_says_of_set_g_stands_in_its_records():
    told = PAPER_CLAIMS["C37"].counted
    on_g = [run for run in records("C37", "cpu") if run["arm"]["set_name"] == "G"]
    right = {run["arm"]["changes"]["shifted"]: f"{run['scores']['pair_accuracy']:.1%}"[:-1] + " %" for run in on_g}
    assert len(on_g) == len(right) == 2 and {run["seed"] for run in on_g} == {0}
    assert f"with a shift and without were at chance, {right['thw']} and {right['hw']} in the pair" in told


def test_a_claim_whose_records_are_gone_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no recorded runs in .*C1: make them with `course experiment C1`"):
        page(PAPER_CLAIMS, tmp_path)
    result = CliRunner().invoke(app, ["claims", "--out", str(tmp_path)])
    assert result.exit_code == 1 and not (tmp_path / "README.md").exists()


def made_up(name: str) -> list[dict]:
    """Records of all arms of an experiment, two seeds, scores by chance."""
    draw = random.Random(0)
    found = []
    for arm in CLAIMS[name](CPU):
        for seed in (0, 1):
            about = identity(arm, arm.settings(CPU), seed)
            scores = {measure: draw.random() for measure in ("accuracy", "pair_accuracy")}
            scores |= {f"shuffled_{measure}": draw.random() for measure in list(scores)[:2]}
            scores |= {f"views_of_{n}_{measure}": draw.random() for n in (1, 2, 4) for measure in list(scores)[:2]}
            scores |= {"events_vary_more": draw.random()}
            scores |= {"labels": [0, 1], "logits": [[1.0, 0.0], [draw.random(), 0.5]]}
            found.append(about | {"scores": scores, "loss": [draw.random()], "pairs": {}})
    return found


@pytest.mark.parametrize("name", RUN)
def test_every_arm_that_a_claim_names_is_one_of_its_experiments(name):
    """Else a word that is misspelt would look like runs that are missing."""
    claim = PAPER_CLAIMS[name]
    found = [run for source in claim.sources for run in made_up(source)]
    for comparison in claim.comparisons:
        assert len(comparison.values(found)) == 2, comparison.what


def test_every_claim_with_recorded_runs_is_on_the_page_and_40_are_named():
    assert list(PAPER_CLAIMS) == [f"C{i}" for i in range(1, 41)]
    for name in {path.name for path in (DATA / "results").iterdir()} & set(PAPER_CLAIMS):
        assert PAPER_CLAIMS[name].comparisons, f"say in paper_claims.py what {name} compares"
        assert PAPER_CLAIMS[name].sources[0] == name
    for name, claim in RUN.items():
        assert claim.published and claim.lesson, name
        assert len(found_for(claim)) >= 2, name


def test_the_page_is_what_the_records_say():
    assert (DATA / "results" / "README.md").read_text() == page(PAPER_CLAIMS), "run `course claims`"


def test_what_was_counted_stands_beside_what_was_run():
    told = (DATA / "results" / "README.md").read_text()
    for name, claim in PAPER_CLAIMS.items():
        if claim.counted:
            said_of_it = told.split(f"**{name}**" if not claim.comparisons else f"## {name}\n")[1]
            assert claim.counted in said_of_it.split("## ")[0], name


def test_the_page_agrees_with_a_count_by_hand():
    """C17 on D, both paths minus the slow one alone, from the three files of each by plain arithmetic."""
    found = [run for run in records("C17", "cpu") if run["arm"]["set_name"] == "D" and "start" not in run["arm"]]
    two, one = (
        {
            run["seed"]: run["scores"]["accuracy"]
            for run in found
            if run["arm"]["changes"] == {"alpha": 8, "beta": 8} | way
        }
        for way in ({}, {"paths": "('slow',)"})
    )
    gaps = [100 * (two[seed] - one[seed]) for seed in two if seed in one]
    row = f"| D, top-1: both paths minus slow alone | more | +{sum(gaps) / len(gaps):.1f} ("
    assert row in (DATA / "results" / "README.md").read_text()
