"""The course itself: is everything in place, experiments, their page, notebooks."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from course_lib.cli.say import fail
from course_lib.paths import DATA, NOTEBOOKS
from course_lib.profiles import NAMED_BY, PROFILES, REMEDY, STANDS_FOR, active

if TYPE_CHECKING:
    from tqdm import tqdm

    from course_lib.training.resume import Step


def doctor() -> None:
    """Is everything in place? Exit status 1 if something is wrong, with a remedy each."""
    from course_lib.doctor import examine

    wrong = 0
    for finding in examine():
        wrong += not finding.ok
        typer.secho(
            f"{'ok   ' if finding.ok else 'WRONG'} {finding.name:8} {finding.found}", fg=None if finding.ok else "red"
        )
        if not finding.ok:
            typer.echo(f"               remedy: {finding.remedy}")
    if wrong:
        raise typer.Exit(1)


def bench(context: typer.Context) -> None:
    """Time networks, their peers and reading on this device into a record (--help says how)."""
    from course_lib.bench.__main__ import main

    raise typer.Exit(main(context.args))


def experiment(
    name: Annotated[str, typer.Argument(help="A claim, such as C1, or tiny: what every tiny network learns.")],
    seeds: Annotated[int, typer.Option(min=1, help="So many, from 0 on.")] = 3,
    profile: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "cpu",
    set_name: Annotated[
        str,
        typer.Option(
            "--set", help="Only on this one; K: Kinetics in place of A, L; S: Something-Something v2 of M, D."
        ),
    ] = "",
    kinetics: Annotated[str, typer.Option(help="The folder of set K; else $COURSE_KINETICS.")] = "",
    ssv2: Annotated[str, typer.Option(help="The folder of set S; else $COURSE_SSV2.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="The folder of the records; else data/results/NAME, for K and S NAME-K, NAME-S.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Make records anew that are there already.")] = False,
) -> None:
    """Run every arm of an experiment over several seeds into data/results; goes on where it was stopped."""
    from tqdm import tqdm

    from course_lib.experiments import run
    from course_lib.experiments.claims import CLAIMS, on_set
    from course_lib.video import VideoError

    if name not in CLAIMS:
        raise fail(f"unknown experiment {name!r}: there are {', '.join(CLAIMS)}")
    try:
        chosen = active(profile, kinetics, ssv2)
        if set_name in STANDS_FOR.values() and not chosen.folder_of(set_name):
            raise ValueError(
                f"--set {set_name}: nothing to run it on. {REMEDY[set_name]}; then name the folder by "
                f"--{NAMED_BY[set_name][0]} DIR"
            )
        arms = on_set(CLAIMS[name](chosen), set_name) if set_name else CLAIMS[name](chosen)
    except ValueError as error:
        raise fail(error) from None
    folder = out or DATA / "results" / (f"{name}-{set_name}" if set_name in ("K", "S") else name)
    for seed in range(seeds):
        for arm in arms:
            total = arm.settings(chosen).steps
            with tqdm(total=total, desc=f"{arm.name} seed {seed}", unit="step") as bar:
                try:
                    result = run(arm, chosen, seed, folder, partial(advance, bar), again)
                except (ValueError, VideoError) as error:
                    raise fail(error) from None
            scores = ", ".join(f"{key} {value:.3f}" for key, value in result["scores"].items())
            typer.echo(f"{arm.name} seed {seed}: {scores}, {result['seconds']:.0f} s")


def claims(
    out: Annotated[
        Path | None, typer.Option(help="The folder of the records and of the page; else data/results.")
    ] = None,
) -> None:
    """Write data/results/README.md from the records: every claim that was run, with its interval and its verdict."""
    from course_lib.experiments.claims_page import write_page
    from course_lib.experiments.paper_claims import PAPER_CLAIMS

    try:
        typer.echo(write_page(PAPER_CLAIMS, out or DATA / "results"))
    except (ValueError, OSError) as error:
        raise fail(error) from None


def notebooks(
    names: Annotated[list[str] | None, typer.Argument(help="Parts of names; all if none.")] = None,
    profile: str = "cpu",
) -> None:
    """Execute notebooks from top to bottom and store them with their outputs and the minutes they took."""
    from course_lib.notebooks import execute

    try:
        chosen = active(profile)
    except ValueError as error:
        raise fail(error) from None
    paths = [p for p in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")) if not names or any(name in p.name for name in names)]
    if not paths:
        raise fail(f"no notebook in {NOTEBOOKS} has {' or '.join(names or [])} in its name")
    for path in paths:
        start = time.perf_counter()
        execute(path, chosen)
        typer.echo(f"{path.name}: {(time.perf_counter() - start) / 60:.1f} minutes in profile {chosen.title}")


def advance(bar: tqdm, step: Step) -> None:
    bar.update()
