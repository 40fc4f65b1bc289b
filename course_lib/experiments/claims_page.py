"""data/results/README.md, written from the records: what papers claim, what our runs say of it, how to repeat them.

A verdict is worked out from the 95 % interval of a difference by seed, never typed. What a claim compares stands in
`paper_claims`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from course_lib.analysis.intervals import interval
from course_lib.experiments.records import Measure, matching, measured, paired, records
from course_lib.files import atomic_write
from course_lib.paths import DATA
from course_lib.words import count

Records = list[dict[str, Any]]
WITHIN = 5.0  # points: "the same" is not further apart, "no less" not further behind
FEW = 5  # seeds: with fewer a verdict says how many
HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told at this size"
EXPECTED = ("more", "less", "same", "no less")


@dataclass(frozen=True)
class Comparison:
    """What a claim lets us expect of a difference: `differences` gives it seed by seed, from the claim's records.

    `scale` makes of it the `unit` that the page prints; `within`, in that unit, is what "same" and "no less" allow. A
    `control` asks something beside the claim's sentence: the page shows it and leaves it out of the claim's verdict.
    ValueError for an expectation that is none of EXPECTED.
    """

    what: str
    expected: str
    differences: Callable[[Records], list[float]]
    unit: str = "points"
    scale: float = 100
    within: float = WITHIN
    control: bool = False

    def __post_init__(self) -> None:
        if self.expected not in EXPECTED:
            raise ValueError(f"expected={self.expected!r} is unknown: use one of {', '.join(EXPECTED)}")

    def values(self, found: Records) -> list[float]:
        """In the unit of the page, one a seed."""
        return [self.scale * value for value in self.differences(found)]


@dataclass(frozen=True)
class Claim:
    """A claim of a paper: `published` figures with their tables, and the `comparisons` that our records allow.

    sources: the experiments whose records are read, the first of which `course experiment` repeats; `counted` says
    what is settled without training. A claim with none of them has not been run. lesson: its notebook's number.
    """

    text: str
    published: str = ""
    lesson: str = ""
    comparisons: tuple[Comparison, ...] = ()
    sources: tuple[str, ...] = ()
    counted: str = ""


def compare(
    what: str,
    expected: str,
    set_name: str,
    measure: Measure,
    less: Mapping[str, object],
    more: Mapping[str, object],
    **about: Any,
) -> Comparison:
    """By how much the runs `more` measure more than the runs `less`, both named as `records.by_seed` takes them."""
    return Comparison(
        what, expected, partial(paired, set_name=set_name, measure=measure, one=less, other=more), **about
    )


def within_run(set_name: str, measure: Measure, less: Measure, **changes: object) -> Callable[[Records], list[float]]:
    """By how much one measure of a run is more than another one of the same run."""

    def gap(run: Mapping[str, Any]) -> float:
        return measured(run, measure) - measured(run, less)

    def differences(found: Records) -> list[float]:
        return [gap(run) for run in matching(found, set_name, **changes)]

    return differences


def verdict(values: list[float], expected: str, within: float = WITHIN) -> str:
    """Whether a difference is as expected, from its 95 % interval alone: HOLDS, FAILS or OPEN.

    "more" and "less" hold where the interval lies on that side of zero, "same" where it lies in -within..within, "no
    less" where it ends above -within. They fail where all of the interval contradicts them. One value has no interval.
    """
    if len(values) < 2:
        return OPEN
    _, low, high = interval(values)
    if expected == "less":
        expected, low, high = "more", -high, -low
    holds, fails = {
        "more": (low > 0, high < 0),
        "same": (-within <= low and high <= within, low > within or high < -within),
        "no less": (low >= -within, high < -within),
    }[expected]
    return HOLDS if holds else FAILS if fails else OPEN


def together(verdicts: list[str]) -> str:
    """One verdict from those of several comparisons: theirs if they agree, else how many there are of each."""
    counts = Counter(verdicts)
    if len(counts) == 1:
        return verdicts[0]
    return ", ".join(f"{word} in {counts[word]} of {len(verdicts)}" for word in (HOLDS, FAILS, OPEN) if counts[word])


def found_for(claim: Claim, folder: Path = DATA / "results", profile: str = "cpu") -> Records:
    """The records that a claim is judged by. ValueError where an experiment that it names has none."""
    return [run for name in claim.sources for run in records(name, profile, folder)]


def judged(claim: Claim, folder: Path = DATA / "results") -> list[tuple[Comparison, list[float], str]]:
    """Every comparison of a claim, its values by seed and its verdict; those without a run of both arms too."""
    found = found_for(claim, folder)
    each = [(comparison, comparison.values(found)) for comparison in claim.comparisons]
    return [(one, values, verdict(values, one.expected, one.within)) for one, values in each]


def verdict_of(claim: Claim, folder: Path = DATA / "results") -> str:
    """In a few words: of its comparisons but controls, or how else it is settled, or that it was not run."""
    if claim.comparisons:
        return together([word for one, _, word in judged(claim, folder) if not one.control])
    return claim.counted or "not run"


def said(values: list[float], unit: str = "points") -> str:
    """Mean and interval: "+3.1 (0.2 to 5.9)". An end that is not zero is not printed as zero."""
    digits = 1 if unit == "points" else 2
    if not values:
        return "not run with both"
    if len(values) == 1:
        return f"{values[0]:+.{digits}f} (one seed: no interval)"
    mean, *ends = interval(values)
    low, high = (_end(value, digits) for value in ends)
    return f"{round(mean, digits) + 0.0:+.{digits}f} ({low} to {high})"


def _end(value: float, digits: int) -> str:
    if round(value, digits) == 0 != round(value, digits + 1):
        digits += 1
    return f"{round(value, digits) + 0.0:.{digits}f}"


def so(values: list[float], verdict: str, control: bool = False) -> str:
    """The verdict, with the number of seeds where they are few, and marked where it is that of a control."""
    few = f", {count(len(values), 'seed')}" if 0 < len(values) < FEW else ""
    return f"{'control: ' if control else ''}{verdict}{few}"


def summary(claims: Mapping[str, Claim], folder: Path = DATA / "results") -> list[list[str]]:
    """Rows of a table of all claims that were run: name, claim, the first comparison and its difference, verdict.

    A difference that is not in points has its unit behind it. The verdict is that of all comparisons but controls.
    """
    rows = []
    for name, claim in claims.items():
        if claim.comparisons:
            first, values = next((one, values) for one, values, _ in judged(claim, folder) if not one.control)
            ours = said(values, first.unit) + ("" if first.unit == "points" else f" {first.unit}")
            rows.append([name, claim.text, first.what, ours, str(len(values)), verdict_of(claim, folder)])
    return rows


HEADER = ["claim", "what papers say", "first comparison", "ours, points (95 %)", "seeds", "verdict"]


def page(claims: Mapping[str, Claim], folder: Path = DATA / "results") -> str:
    """The text of data/results/README.md. ValueError where a claim names records that are not there."""
    run = {name: claim for name, claim in claims.items() if claim.comparisons}
    counted = {name: claim for name, claim in claims.items() if claim.counted and not claim.comparisons}
    others = {name: claim for name, claim in claims.items() if name not in run and name not in counted}
    lines = [
        "# Claims and what our runs say of them",
        "",
        "`course claims` writes this page from the records beside it. A difference is taken seed by seed, since runs",
        "of one seed share their clips and their order; beside its mean stands the 95 % t interval. **Holds**: the",
        "interval lies where the claim wants it. **Does not hold**: all of it contradicts. Else it **cannot be told**.",
        f'"The same" allows {WITHIN:g} points on both sides, "no less" as many below. All runs are of tiny networks on',
        "generated clips, profile `cpu`: a verdict is about them, and not about the paper's network. A **control**",
        "asks something beside the claim's sentence: it stands in the claim's table and is not counted in its verdict.",
        "",
        f"Claims with recorded runs: {len(run)}. Settled without training: {len(counted)}. Not run: {len(others)}.",
        "",
        *rows_of(HEADER, [[f"[{name}](#{name.lower()})", *rest] for name, *rest in summary(claims, folder)]),
    ]
    for name, claim in run.items():
        each = judged(claim, folder)
        lines += [
            "",
            f"## {name}",
            "",
            f"{claim.text} Lesson {claim.lesson}.",
            "",
            f"*Published.* {claim.published}",
            "",
            *([f"*Counted.* {claim.counted}", ""] if claim.counted else []),
        ]
        rows = [
            [one.what, one.expected, said(values, one.unit), one.unit, str(len(values)), so(values, word, one.control)]
            for one, values, word in each
        ]
        lines += rows_of(["difference", "expected", "ours (95 %)", "in", "seeds", "so"], rows)
        commands = " and ".join(
            f"`course experiment {source} --seeds {records(source, 'cpu', folder)[-1]['seed'] + 1}`"
            for source in claim.sources
        )
        lines += ["", f"**{verdict_of(claim, folder).capitalize()}.** Again by {commands}."]
    lines += ["", "## Settled without training", ""]
    lines += [f"- **{name}** {claim.text} {claim.published} {claim.counted}" for name, claim in counted.items()]
    lines += ["", "## Not run", ""]
    lines += [f"- **{name}** {claim.text}" for name, claim in others.items()]
    return "\n".join(lines) + "\n"


def rows_of(header: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]


def write_page(claims: Mapping[str, Claim], folder: Path = DATA / "results") -> Path:
    """Write the page into `folder`; where it is."""
    path = folder / "README.md"
    atomic_write(path, page(claims, folder).encode())
    return path
