"""Homework: release it, mark it, tell students and the gradebook, see who wrote alike."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from course_lib.cli.say import fail, show_first
from course_lib.profiles import PROFILES, active
from course_lib.words import count


@contextmanager
def in_sentences(out: Path, lost: str = "", stopped: str = "the same command begins again") -> Iterator[None]:
    """What a command that writes to `out` ends with: a sentence, not a traceback. `lost` follows what is wrong with a
    file, `stopped` says how things stand after Ctrl-C or SIGTERM, which ends it in the same way."""
    from course_lib.grading.source import HomeworkError

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except HomeworkError as error:
        raise fail(error) from None
    except OSError as error:
        raise fail(f"{error.filename or out}: {error.strerror or error}{lost}") from None
    except KeyboardInterrupt:
        fail(f"stopped; {stopped}")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def release(
    source: Annotated[Path, typer.Argument(help="A source notebook, or its folder: notebooks/homework/NAME.")],
    out: Annotated[Path, typer.Option(help="The folder of the release; one of the same homework is replaced.")],
    draws: Annotated[int, typer.Option(help="So many times the hidden inputs are drawn for every wrong answer.")] = 20,
) -> None:
    """Make what students get of a homework and what its grader keeps, if right answers get every point, wrong ones lose
    some, and nothing hidden is in what students get."""
    from course_lib.grading.release import release as make

    with in_sentences(out, "; nothing was released", "nothing was released"):
        manifest = make(source, out, draws, typer.echo)
    typer.echo(f"{manifest.title}: {count(len(manifest.questions), 'question')}, {count(manifest.points, 'point')}")
    typer.echo(f"{out / 'student'} is for students, {out / 'private'} for the grader alone")


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

    try:
        active(profile)
        with in_sentences(out, "; nothing was run", "nothing was run"):
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
    with (
        in_sentences(out, "; the same command goes on", "the same command goes on from here"),
        tqdm(desc=release.name, unit="submission") as bar,
    ):

        def tell(done: int, total: int, not_graded: int) -> None:
            bar.total, bar.n = total, done
            bar.initial = bar.initial or done
            bar.set_postfix_str(f"{count(not_graded, 'question')} not graded")

        summary = run.grade(plan, workers, student or (), again, tell)
    show_first([f"left aside, no submission: {name}" for name in summary.unread], 10)
    typer.secho(
        f"{summary.done} of {count(summary.students, 'submission')} marked in {summary.seconds:.0f} s, "
        f"{count(summary.not_graded, 'question')} not graded; {out / 'gradebook.csv'}"
        + (" (not sandboxed)" if trust_submissions else ""),
        fg="red" if trust_submissions else None,
    )
    for line in run.where_time_goes(out):
        typer.echo(f"  {line}")
    if summary.own_faults:
        faults = count(summary.own_faults, "question")
        typer.secho(f"{faults} stopped by the grader's own fault: the same command tries them again", fg="red")
    if summary.changed:
        changed = count(summary.changed, "mark is not what it was", "marks are not what they were")
        typer.echo(f"{changed}, {len(summary.fallen)} fell: {out / 'regrade.csv'}")
        typer.secho("\n".join(f"  {line}" for line in summary.fallen[:20]), fg="red")


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
