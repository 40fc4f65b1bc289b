"""The `course` command."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from course_lib.profiles import DATA, PROFILES, active

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
data = typer.Typer(no_args_is_help=True, help="Make and check the data.")
app.add_typer(data, name="data")

NOTEBOOKS = DATA.parent / "notebooks"


def fail(message: object) -> typer.Exit:
    typer.secho(str(message), fg="red", err=True)
    return typer.Exit(1)


@app.command()
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


@data.command("make")
def data_make(
    set: Annotated[str, typer.Option(help="A (appearance) or M (motion).")],
    clips: Annotated[int, typer.Option(help="Training and test together.")] = 2000,
    size: Annotated[int, typer.Option(help="Pixels along height and width.")] = 128,
    frames: Annotated[int, typer.Option(help="Frames a clip.")] = 32,
    seed: int = 0,
    workers: Annotated[int, typer.Option(help="Processes; 0 works in this one.")] = os.cpu_count() or 1,
    root: Path = DATA / "generated",
) -> None:
    """Write a generated set as H.264 files with a manifest; goes on where it was stopped."""
    from course_lib.video.generate import make

    try:
        typer.echo(make(root, set, clips, size, frames, seed, workers))
    except ValueError as error:
        raise fail(error) from None


@data.command("small")
def data_small(
    profile: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "smoke",
    root: Path = DATA / "generated",
) -> None:
    """The sets A and M as the notebooks read them in a profile: for smoke seconds, for cpu a minute or two."""
    from course_lib.video.generate import make

    try:
        chosen = active(profile)
    except ValueError as error:
        raise fail(error) from None
    workers = 0 if chosen.clips < 500 else os.cpu_count() or 1
    for name in ("A", "M"):
        make(root, name, chosen.clips, size=chosen.size, workers=workers)


@data.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="A generated set, or the folder of all.")] = DATA / "generated",
) -> None:
    """Compare every file with the SHA-256 in its manifest."""
    from course_lib.video.generate import verify

    folders = sorted({path.parent for path in [*folder.glob("manifest.*"), *folder.glob("*/manifest.*")]})
    if not folders:
        raise fail(f"no generated set in {folder}: make one with `course data make --set M`")
    problems = 0
    for one in folders:
        found = verify(one)
        problems += len(found)
        typer.echo(f"{one.name}: {'every file as listed' if not found else f'{len(found)} problems'}")
        for problem in found:
            typer.echo(f"  {problem.path}: {problem.reason}")
    if problems:
        raise typer.Exit(1)


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="A claim, such as C1.")],
    seeds: int = 3,
    profile: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "cpu",
) -> None:
    """Run every arm of an experiment over several seeds into data/results; goes on where it was stopped."""
    from tqdm import tqdm

    from course_lib.experiments import EXPERIMENTS, run

    if name not in EXPERIMENTS:
        raise fail(f"unknown experiment {name!r}: there are {', '.join(EXPERIMENTS)}")
    try:
        chosen = active(profile)
    except ValueError as error:
        raise fail(error) from None
    for seed in range(seeds):
        for arm in EXPERIMENTS[name](chosen):
            with tqdm(total=chosen.steps, desc=f"{arm.name} seed {seed}", unit="step") as bar:
                result = run(arm, chosen, seed, DATA / "results" / name, each=lambda step, bar=bar: bar.update())
            scores = ", ".join(f"{key} {value:.3f}" for key, value in result["scores"].items())
            typer.echo(f"{arm.name} seed {seed}: {scores}, {result['seconds']:.0f} s")


@app.command()
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
        typer.echo(f"{path.name}: {(time.perf_counter() - start) / 60:.1f} minutes in profile {chosen.name}")
