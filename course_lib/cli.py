"""The `course` command."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from course_lib.paths import DATA
from course_lib.profiles import PROFILES, active
from course_lib.training import run as training
from course_lib.words import count

if TYPE_CHECKING:
    from tqdm import tqdm

    from course_lib.datasets.manifest import VideoList
    from course_lib.training.resume import Step

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
data = typer.Typer(no_args_is_help=True, help="Make and check the data.")
app.add_typer(data, name="data")
fetching = typer.Typer(no_args_is_help=True, help="Fetch Kinetics; say how to come by Something-Something v2.")
data.add_typer(fetching, name="fetch")
export = typer.Typer(no_args_is_help=True, help="Lessons for readers and lecturers without a kernel.")
app.add_typer(export, name="export")

for command in (training.train, training.evaluate, training.watch):
    app.command()(command)

NOTEBOOKS = DATA.parent / "notebooks"


def fail(message: object) -> typer.Exit:
    typer.secho(str(message), fg="red", err=True)
    return typer.Exit(1)


def show_first(lines: list[str], most: int, rest: str = "") -> None:
    """The first lines of a long list, and how many more there are; `rest` says where."""
    for line in lines[:most]:
        typer.echo(f"  {line}")
    if len(lines) > most:
        typer.echo(f"  and {len(lines) - most:,} more{rest}")


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
    workers: Annotated[int, typer.Option(help="Processes; 0 works in this one.")] = os.cpu_count() or 1,
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


@data.command("small")
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


@data.command("check")
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
    workers: Annotated[int, typer.Option(help="Processes that decode.")] = os.cpu_count() or 1,
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


@data.command("pack")
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


def advance(bar: tqdm, step: Step) -> None:
    bar.update()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def bench(context: typer.Context) -> None:
    """Time networks, their peers and reading on this device into a record (--help says how)."""
    from course_lib.bench.__main__ import main

    raise typer.Exit(main(context.args))


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="A claim, such as C1, or tiny: what every tiny network learns.")],
    seeds: int = 3,
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


@app.command()
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
        typer.echo(f"{path.name}: {(time.perf_counter() - start) / 60:.1f} minutes in profile {chosen.title}")


@app.command()
def release(
    source: Annotated[Path, typer.Argument(help="A source notebook, or its folder: notebooks/homework/NAME.")],
    out: Annotated[Path, typer.Option(help="The folder of the release; one of the same homework is replaced.")],
    draws: Annotated[int, typer.Option(help="So many times the hidden inputs are drawn for every wrong answer.")] = 20,
) -> None:
    """Make what students get of a homework and what its grader keeps, if right answers get every point, wrong ones lose
    some, and nothing hidden is in what students get."""
    from course_lib.grading.release import release as make
    from course_lib.grading.source import HomeworkError

    try:
        manifest = make(source, out, draws, typer.echo)
    except HomeworkError as error:
        raise fail(error) from None
    except OSError as error:
        raise fail(f"{error.filename or out}: {error.strerror or error}; nothing was released") from None
    except KeyboardInterrupt:
        typer.secho("stopped; nothing was released", fg="red", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{manifest.title}: {count(len(manifest.questions), 'question')}, {count(manifest.points, 'point')}")
    typer.echo(f"{out / 'student'} is for students, {out / 'private'} for the grader alone")


@app.command()
def grade(
    release: Annotated[Path, typer.Argument(help="A folder that `course release` wrote.")],
    submissions: Annotated[Path, typer.Argument(help="A folder a student, or what Canvas or Moodle packs, unpacked.")],
    out: Annotated[Path, typer.Option(help="The folder of results; goes on with what is there.")],
    profile: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "smoke",
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with one box.")] = max(
        1, (os.cpu_count() or 1) // 2
    ),
    scheduler: Annotated[
        str,
        typer.Option(help="The address of a dask cluster whose workers mark, in place of --workers: TLS or loopback."),
    ] = "",
    student: Annotated[list[str] | None, typer.Option(help="Only this one; several times.")] = None,
    question: Annotated[list[str] | None, typer.Option(help="Only this one; several times.")] = None,
    cell_seconds: Annotated[float | None, typer.Option(min=1, help="In place of the release's limit.")] = None,
    submission_seconds: Annotated[float | None, typer.Option(min=1, help="In place of the release's limit.")] = None,
    retries: Annotated[int, typer.Option(min=0, help="Of questions that ran out of time or memory, or died.")] = 1,
    again: Annotated[bool, typer.Option("--again", help="Mark anew what is marked already.")] = False,
    trust_submissions: Annotated[
        bool, typer.Option("--trust-submissions", help="Run them without a box, with all your rights.")
    ] = False,
) -> None:
    """Run every submission in a box, ask it, and write results/ and gradebook.csv.

    Exit status: 0 done, 1 could not, 2 wrong usage, 4 no safe box on this machine, 130 stopped.
    """
    from tqdm import tqdm

    from course_lib.grading import box, cluster, run
    from course_lib.grading.manifest import Release
    from course_lib.grading.source import HomeworkError

    try:
        active(profile)
        if trust_submissions:
            sandbox = box.NONE
        else:
            sandbox = cluster.find_sandbox(scheduler) if scheduler else box.find_sandbox()
        limits = run.limits_of(Release.read(release).manifest, cell_seconds, submission_seconds)
    except box.NoSafeBox as error:
        fail(f"{error}. Nothing was run. --trust-submissions runs the notebooks of people you trust without a box")
        raise typer.Exit(4) from None
    except ValueError as error:
        raise fail(error) from None
    if trust_submissions:
        typer.secho("not sandboxed: submissions run with all your rights", fg="red", err=True)
    else:
        typer.echo(f"box: {sandbox.name}")
    plan = run.Plan(release, submissions, out, sandbox, limits, profile, tuple(question or ()), retries, scheduler)
    try:
        with tqdm(desc=release.name, unit="submission") as bar:

            def tell(done: int, total: int, not_graded: int) -> None:
                bar.total, bar.n = total, done
                bar.initial = bar.initial or done
                bar.set_postfix_str(f"{count(not_graded, 'question')} not graded")

            summary = run.grade(plan, workers, student or (), again, tell)
    except HomeworkError as error:
        raise fail(error) from None
    except OSError as error:
        raise fail(f"{error.filename or out}: {error.strerror or error}; the same command goes on") from None
    except KeyboardInterrupt:
        fail("stopped; the same command goes on from here")
        raise typer.Exit(130) from None
    show_first([f"left aside, no submission: {name}" for name in summary.unread], 10)
    typer.secho(
        f"{summary.done} of {count(summary.students, 'submission')} marked in {summary.seconds:.0f} s, "
        f"{count(summary.not_graded, 'question')} not graded; {out / 'gradebook.csv'}"
        + (" (not sandboxed)" if trust_submissions else ""),
        fg="red" if trust_submissions else None,
    )
    for line in run.where_time_goes(out):
        typer.echo(f"  {line}")
    if summary.changed:
        changed = count(summary.changed, "mark is not what it was", "marks are not what they were")
        typer.echo(f"{changed}, {len(summary.fallen)} fell: {out / 'regrade.csv'}")
        typer.secho("\n".join(f"  {line}" for line in summary.fallen[:20]), fg="red")


@contextmanager
def in_sentences(out: Path) -> Iterator[None]:
    """What a command that writes to `out` and begins anew each time ends with: a sentence, not a traceback."""
    from course_lib.grading.source import HomeworkError

    try:
        yield
    except HomeworkError as error:
        raise fail(error) from None
    except OSError as error:
        raise fail(f"{error.filename or out}: {error.strerror or error}") from None
    except KeyboardInterrupt:
        fail("stopped; the same command begins again")
        raise typer.Exit(130) from None


@app.command()
def feedback(
    results: Annotated[Path, typer.Argument(help="A folder that `course grade` wrote.")],
    out: Annotated[Path, typer.Option(help="The folder of the pages, one a student.")],
    overrides: Annotated[
        Path | None, typer.Option(help="A csv with student,question,points,note: what a person settled.")
    ] = None,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="After the deadline: also right answers, and what was asked.")
    ] = False,
    release: Annotated[Path | None, typer.Option(help="For --reveal, if it is not where it was when graded.")] = None,
) -> None:
    """Write a page for every student that says what is right, what is not and why; nothing in it is hidden from him.

    Exit status: 0 done, 1 could not, 2 wrong usage, 130 stopped.
    """
    from course_lib.grading.feedback import write_feedback
    from course_lib.grading.manifest import Release
    from course_lib.grading.overrides import read_overrides
    from course_lib.grading.results import About, read_all

    if release and not reveal:
        raise typer.BadParameter("it is of use with --reveal alone", param_hint="--release")
    with in_sentences(out):
        about = About.read(results)
        settled = read_overrides(overrides, about, (result["student"] for _, result in read_all(results, about)))
        hidden = Release.read(release or about.release) if reveal else None
        written = write_feedback(results, out, settled, hidden)
    told = "with right answers" if reveal else "without anything hidden"
    typer.echo(f"{count(written.pages, 'page')} in {out}, {told}; {count(written.not_graded, 'question')} not graded")


@app.command()
def gradebook(
    results: Annotated[Path, typer.Argument(help="A folder that `course grade` wrote.")],
    out: Annotated[Path, typer.Option(help="The folder of the tables.")],
    roster: Annotated[
        Path | None, typer.Option(help="Canvas's export of its gradebook or Moodle's grading worksheet, as csv.")
    ] = None,
    overrides: Annotated[
        Path | None, typer.Option(help="A csv with student,question,points,note: what a person settled.")
    ] = None,
    policy: Annotated[str, typer.Option(help="Which of a student's tries counts: last or best.")] = "last",
) -> None:
    """Write gradebook.csv, wide.csv and gradebook.json, and with --roster the table that Canvas or Moodle imports.

    Exit status: 0 done, 1 could not, 2 wrong usage, 130 stopped.
    """
    from course_lib.grading.gradebook import POLICIES, write_books
    from course_lib.grading.overrides import read_overrides
    from course_lib.grading.results import About, read_all
    from course_lib.grading.roster import read_roster

    if policy not in POLICIES:
        raise typer.BadParameter(f"{policy!r} is none of {', '.join(POLICIES)}", param_hint="--policy")
    with in_sentences(out):
        about = About.read(results)
        settled = read_overrides(overrides, about, (result["student"] for _, result in read_all(results, about)))
        books = write_books(results, out, settled, read_roster(roster) if roster else None, policy)
    show_first(list(books.problems), 20)
    names = ", ".join(path.name for path in books.files)
    typer.echo(
        f"{count(books.students, 'student')}, {count(books.not_graded, 'question')} not graded; {names} in {out}"
    )


@app.command()
def similar(
    release: Annotated[Path, typer.Argument(help="A folder that `course release` wrote.")],
    submissions: Annotated[Path, typer.Argument(help="One folder a student, as for `course grade`.")],
    out: Annotated[Path, typer.Option(help="The page, FILE.html.")],
) -> None:
    """Show which submissions resemble each other, side by side: a reason to look, not a verdict. Nothing is executed.

    Exit status: 0 done, 1 could not, 2 wrong usage, 130 stopped.
    """
    from tqdm import tqdm

    from course_lib.grading.manifest import Release
    from course_lib.grading.similar import compare, write_similar

    with in_sentences(out):
        hidden = Release.read(release)
        with tqdm(desc=submissions.name, unit="submission", leave=False) as bar:

            def tell(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            found = compare(hidden, submissions, tell)
        write_similar(hidden, found, out)
    show_first([f"not compared: {problem}" for problem in found.problems], 20, f" in {out}")
    typer.echo(
        f"{count(len(found.works), 'submission')}, {len(found.pairs)} of {count(found.all_pairs, 'pair')} in {out}"
    )


@contextmanager
def exporting(out: Path) -> Iterator[None]:
    """What exports end with: a sentence, not a traceback."""
    try:
        from course_lib.export.lessons import ExportError

        try:
            yield
        except ExportError as error:
            raise fail(error) from None
        except OSError as error:
            raise fail(f"{error.filename or out}: {error.strerror or error}") from None
    except ModuleNotFoundError as error:
        raise fail(f"no module {error.name}: install what exports need, pip install 'course_lib[export]'") from None
    except KeyboardInterrupt:
        fail("stopped; nothing was written")
        raise typer.Exit(130) from None


@export.command("slides")
def export_slides(
    out: Annotated[Path, typer.Option(help="The folder of the slides, one file a lesson or a session.")],
    lessons: Annotated[list[str] | None, typer.Argument(help="Such as 06 or timesformer; all if none.")] = None,
    plan: Annotated[str, typer.Option(help="A plan of notebooks/plans.toml in place of lessons, such as hour.")] = "",
    pdf: Annotated[bool, typer.Option("--pdf", help="A handout with notes as well; needs Chromium or Chrome.")] = False,
) -> None:
    """Write slides with notes for a speaker as one HTML file: equations, live explorers, no kernel and no network."""
    if plan and lessons:
        raise fail(f"{' '.join(lessons)} and the plan {plan}: name lessons or a plan")
    with exporting(out):
        from course_lib.export.lessons import find_lessons
        from course_lib.export.slides import Deck, NoSlides, write_handout, write_plan, write_slides

        def tell(deck: Deck) -> None:
            show_first([f"not alive: {still}" for still in deck.stills], 20)
            size = deck.path.stat().st_size / 1e6
            typer.echo(f"{deck.path}: {deck.slides} slides, {deck.minutes} minutes, {size:.1f} MB")
            if pdf:
                typer.echo(write_handout(deck.path))

        if plan:
            for deck in write_plan(NOTEBOOKS.parent, plan, out):
                tell(deck)
            return
        paths = [path for name in lessons or [""] for path in find_lessons(NOTEBOOKS, name)]
        for path in dict.fromkeys(paths):
            try:
                tell(write_slides(NOTEBOOKS.parent, path, out))
            except NoSlides as error:
                if lessons:
                    raise
                typer.echo(error)


@app.command()
def plans() -> None:
    """Write notebooks/TEACHING.md from notebooks/plans.toml: what a teacher shows in each session, with its minutes."""
    with exporting(NOTEBOOKS):
        from course_lib.export.plans import write_plans_page

        typer.echo(write_plans_page(NOTEBOOKS.parent))


@export.command("page")
def export_page(
    lesson: Annotated[str, typer.Argument(help="Such as 06 or timesformer.")],
    out: Annotated[Path, typer.Option(help="The folder of the page.")],
) -> None:
    """Write a lesson as one HTML file: stored outputs, live explorers, no kernel and no network."""
    with exporting(out):
        from course_lib.export.page import write_page

        path, built = write_page(NOTEBOOKS.parent, lesson, out)
    show_first([f"not alive: {still}" for still in built.stills], 20)
    show_first(built.warnings, 20)
    typer.echo(f"{path}, {path.stat().st_size / 1e6:.1f} MB")


@export.command("site")
def export_site(
    out: Annotated[Path, typer.Option(help="The folder of the site; one that is there is replaced.")],
) -> None:
    """Write the whole course as a static site with search: open index.html, from a disk or from any web server."""
    with exporting(out):
        from course_lib.export.site import build_site

        typer.echo("making the site takes a minute or so")
        built = build_site(NOTEBOOKS.parent, out)
    show_first([f"not alive: {still}" for still in built.stills], 20)
    show_first(built.warnings, 20)
    typer.echo(f"{built.pages} pages; open {out / 'index.html'}")
