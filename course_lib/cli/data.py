"""`course data`: make, fetch, check and pack."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from course_lib.cli.say import fail, show_first
from course_lib.paths import DATA
from course_lib.profiles import PROFILES, active

if TYPE_CHECKING:
    from course_lib.datasets.manifest import VideoList

app = typer.Typer(no_args_is_help=True, help="Make and check the data.")
fetching = typer.Typer(no_args_is_help=True, help="Fetch Kinetics; say how to come by Something-Something v2.")
app.add_typer(fetching, name="fetch")


@app.command("make")
def data_make(
    set_name: Annotated[
        str,
        typer.Option(
            "--set",
            help="A (appearance), M (motion), V (speed), X (mixed), G (order over a gap), D (direction) or L (looks).",
        ),
    ],
    clips: Annotated[int, typer.Option(help="All splits together.")] = 2400,
    size: Annotated[int, typer.Option(help="Pixels along height and width.")] = 128,
    frames: Annotated[int, typer.Option(help="Frames a clip.")] = 32,
    seed: int = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 works in this one.")] = os.cpu_count() or 1,
    p: Annotated[float | None, typer.Option(help="X: share of looks that agree with the label; else 0.5.")] = None,
    gap: Annotated[int | None, typer.Option(help="G: frames between the two events; else 8.")] = None,
    easy: Annotated[bool, typer.Option("--easy", help="M, D: as easy as in the profile cpu.")] = False,
    root: Path = DATA / "generated",
) -> None:
    """Write a generated set as H.264 files with a manifest; goes on where it was stopped."""
    from course_lib.synthetic.difficulty import EASY, FULL
    from course_lib.synthetic.write import make

    difficulty = EASY if easy else FULL
    try:
        typer.echo(make(root, set_name, clips, size, frames, seed, workers, p=p, gap=gap, difficulty=difficulty))
    except ValueError as error:
        raise fail(error) from None


@app.command("small")
def data_small(
    profile: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}; else $COURSE_PROFILE or cpu.")] = "",
    root: Path = DATA / "generated",
) -> None:
    """The sets A, M, D and L as the notebooks read them in a profile: for smoke seconds, for cpu a few minutes. For a
    lecture their first clips are decoded, too."""
    from course_lib.experiments.data import load_set
    from course_lib.experiments.inputs import load_flow
    from course_lib.synthetic.write import make

    try:
        chosen = active(profile)
    except ValueError as error:
        raise fail(error) from None
    workers = 0 if chosen.clips < 500 else os.cpu_count() or 1
    for name in ("A", "M", "D", "L"):
        make(root, name, chosen.clips, chosen.size, workers=workers, difficulty=chosen.difficulty_of(name))
        if chosen.replays:
            for frames in (8, 16):
                load_set(name, chosen, workers, frames=frames)
    if chosen.replays:
        load_flow("D", chosen)


@fetching.command("kinetics")
def fetch_kinetics(
    root: Annotated[Path, typer.Option(help="The folder that gets train/, val/, annotations/ and replacement/.")],
    subset: Annotated[str | None, typer.Option(help="Only the classes of one, such as mini10.")] = None,
    version: Annotated[str, typer.Option(help="400, 600 (CVDF calls its csv incomplete) or 700.")] = "400",
    split: Annotated[list[str] | None, typer.Option(help="train, val or test, several times; train and val.")] = None,
    short_side: Annotated[int | None, typer.Option(help="Make the shorter side 256 or 320 pixels.")] = None,
    archives: Annotated[str | None, typer.Option(help="Of each split only these, such as 0-3.")] = None,
) -> None:
    """Fetch the wanted videos from CVDF's archives, one archive at a time; goes on where it was stopped."""
    from course_lib.datasets import kinetics
    from course_lib.datasets.download import cvdf
    from course_lib.datasets.download.archive import ArchiveError
    from course_lib.datasets.download.http import DownloadError
    from course_lib.datasets.download.kinetics import FetchError, fetch

    try:
        report = fetch(
            root,
            classes=subset and kinetics.subset(subset),
            version=version,
            splits=split or ("train", "val"),
            short_side=short_side,
            archives=cvdf.numbers(archives) if archives else None,
            say=typer.echo,
        )
    except (ValueError, OSError, FetchError, DownloadError, ArchiveError) as error:
        raise fail(error) from None
    except KeyboardInterrupt:
        raise fail("stopped; the same command goes on from here") from None
    typer.echo(f"{report.clips:,} clips, {report.bytes / 1e9:.2f} GB in {root}, listed in sums.csv")
    show_first([f"{path}: {reason}" for path, reason in report.problems], 20, f" in {root / 'problems.csv'}")


@fetching.command("verify")
def fetch_verify(root: Annotated[Path, typer.Option(help="A folder that `fetch kinetics` filled.")]) -> None:
    """Compare every fetched file with its SHA-256 in sums.csv."""
    from course_lib.datasets.download.kinetics import verify

    try:
        problems = verify(root)
    except (ValueError, OSError) as error:
        raise fail(error) from None
    for problem in problems:
        typer.echo(f"  {problem.path}: {problem.reason}")
    if problems:
        raise fail(f"{len(problems)} problems: delete what has changed and run `course data fetch kinetics` again")
    typer.echo(f"{root}: every file as listed")


@fetching.command("ssv2")
def fetch_ssv2(root: Annotated[Path, typer.Option(help="The folder for the labels and the videos.")]) -> None:
    """Say how to come by Something-Something v2 and what of it is there. Exit status 1 if it is not all."""
    from course_lib.datasets.ssv2 import ADVICE, missing

    try:
        found = missing(root)
    except (ValueError, OSError) as error:
        typer.echo(ADVICE.format(root=root))
        raise fail(error) from None
    for name, listed, lost in found:
        typer.echo(f"{name}: {listed - len(lost):,} of {listed:,} videos are there")
        show_first([f"missing: {path}" for path in lost], 10)
    if any(lost for _, _, lost in found):
        typer.echo(ADVICE.format(root=root))
        raise typer.Exit(1)


@app.command("check")
def data_check(
    folder: Annotated[
        Path, typer.Argument(help="A generated set, the folder of all, Kinetics or Something-Something v2.")
    ] = DATA / "generated",
    version: Annotated[str, typer.Option(help="Kinetics: 400, 600 or 700.")] = "400",
    split: Annotated[
        list[str] | None, typer.Option(help="train, val or test, several times; all that are there.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="Kinetics: only the classes of the subset NAME.")] = None,
    report: Annotated[Path | None, typer.Option(help="Where a row a file goes; else check.csv in the folder.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode.")] = os.cpu_count() or 1,
    seconds: Annotated[float, typer.Option(help="For one file at most.")] = 60.0,
) -> None:
    """Compare generated files with their SHA-256; decode every frame of Kinetics or Something-Something v2, going on
    where it was stopped. Exit status 1 if anything is missing, changed, broken, unchecked or in two splits."""
    from course_lib.datasets import kinetics, ssv2
    from course_lib.datasets.manifest import find_leaks
    from course_lib.synthetic.write import verify

    problems = 0
    generated = sorted({path.parent for path in [*folder.glob("manifest.*"), *folder.glob("*/manifest.*")]})
    for one in generated:
        try:
            found = verify(one)
        except (ValueError, OSError) as error:
            raise fail(error) from None
        problems += len(found)
        typer.echo(f"{one.name}: {'every file as listed' if not found else f'{len(found)} problems'}")
        for problem in found:
            typer.echo(f"  {problem.path}: {problem.reason}")
    official = ssv2.splits(folder)
    splits = [] if generated else split or official or kinetics.splits(folder, version)
    if not generated and not splits:
        raise fail(
            f"no generated set in {folder}, nor Kinetics or Something-Something v2: "
            "`course data make --set M` makes a set, `course data fetch` fetches videos"
        )
    lists = []
    for name in splits:
        try:
            videos = ssv2.read(folder, name) if official else kinetics.read(folder, version, name)
            videos = videos.keep(kinetics.subset(subset)) if subset else videos
            summed, wrong = show_audit(videos, report or folder / "check.csv", workers, seconds)
            lists.append(summed)
            problems += wrong
        except (ValueError, OSError) as error:
            problems += 1
            typer.secho(f"{name}: {error}", fg="red", err=True)
        except KeyboardInterrupt:
            raise fail("stopped; the same command goes on from here") from None
    leaks = find_leaks(*lists)
    show_first([f"{a.path} of {a.split} and {b.path} of {b.split} are one file" for a, b in leaks], 20)
    if problems or leaks:
        raise typer.Exit(1)


@app.command("pack")
def data_pack(
    source: Annotated[Path, typer.Argument(help="A manifest.csv, or a folder of Kinetics or Something-Something v2.")],
    out: Annotated[Path, typer.Option(help="The folder of the copy; goes on with what is there.")],
    short_side: Annotated[int, typer.Option(help="Pixels of the shorter side: 256 or 320.")] = 256,
    keys: Annotated[int, typer.Option(help="At most so many frames from one key frame to the next.")] = 250,
    crf: Annotated[int, typer.Option(help="x264's quality: 18 can hardly be told from the original.")] = 23,
    version: Annotated[str, typer.Option(help="Kinetics: 400, 600 or 700.")] = "400",
    split: Annotated[
        list[str] | None, typer.Option(help="train, val or test, several times; all that are there.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="Kinetics: only the classes of the subset NAME.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode and encode.")] = os.cpu_count() or 1,
    measured: Annotated[int, typer.Option(help="So many videos tell the loss in pixels and the speed.")] = 8,
) -> None:
    """Write a smaller copy of videos with a manifest, resumable, and say what it costs in pixels and saves in decoding.
    Exit status 1 if a video could not be packed."""
    from dataclasses import replace

    from course_lib.bench import packing
    from course_lib.datasets import kinetics, pack, ssv2
    from course_lib.datasets.manifest import read_manifest
    from course_lib.files import write_json
    from course_lib.video import VideoError

    try:
        if source.is_file():
            videos = read_manifest(source)
        else:
            official = ssv2.splits(source)
            names = split or official or kinetics.splits(source, version)
            if not names:
                raise fail(f"{source}: neither a manifest nor a folder of Kinetics or Something-Something v2")
            lists = [ssv2.read(source, name) if official else kinetics.read(source, version, name) for name in names]
            if len({(one.root, one.classes) for one in lists}) > 1:
                raise fail(f"{source}: its splits have other classes or folders; pack one at a time (--split)")
            videos = replace(lists[0], videos=tuple(video for one in lists for video in one.videos))
            videos = videos.keep(kinetics.subset(subset)) if subset else videos
        rows = pack.pack(videos, out, short_side, keys, crf, workers)
        typer.echo(", ".join(f"{count:,} {status}" for status, count in pack.count(rows).items()) + f"; {out}")
        smaller = [row for row in rows.values() if row.status == "smaller"]
        chosen = smaller[:: max(1, len(smaller) // max(1, measured))][:measured]
        if chosen:
            pairs = [(videos.root / row.path, out / row.packed) for row in chosen]
            told = packing.compare([old for old, _ in pairs], [new for _, new in pairs])
            write_json(out / "loss.json", told)
            typer.echo(packing.sentence(told))
    except (ValueError, OSError, VideoError) as error:
        raise fail(error) from None
    except KeyboardInterrupt:
        raise fail("stopped; the same command goes on from here") from None
    failed = [row for row in rows.values() if row.status == "failed"]
    show_first([f"{row.path}: {row.reason}" for row in failed], 20, f" in {out / 'packed.csv'}")
    if failed:
        raise typer.Exit(1)


def show_audit(videos: VideoList, report: Path, workers: int, seconds: float) -> tuple[VideoList, int]:
    """Say what of a list is there and whole; the list with the sums of its files, and how much is not."""
    from course_lib.datasets import audit

    found = audit.coverage(videos)
    typer.echo(videos.source)
    typer.echo(f"  {found.present:,} of {found.listed:,} files, {found.classes} of {len(videos.classes)} classes")
    rows = audit.audit_videos(videos, report, workers, seconds)
    typer.echo("  " + ", ".join(f"{count:,} {status}" for status, count in audit.count(rows).items()))
    wrong = [row for row in rows.values() if row.status != "ok"]
    show_first([f"{row.path}: {row.reason}" for row in wrong], 20, f" in {report}")
    return audit.with_sums(videos, rows), len(wrong)
