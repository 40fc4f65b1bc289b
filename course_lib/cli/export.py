"""`course export` and `course plans`: lessons for readers and lecturers without a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from course_lib.cli.say import fail, show_first
from course_lib.paths import NOTEBOOKS

app = typer.Typer(no_args_is_help=True, help="Lessons for readers and lecturers without a kernel.")


@contextmanager
def exporting(out: Path) -> Iterator[list[Path]]:
    """What exports end with: a sentence, not a traceback. Takes down the files that are whole and have been told."""
    whole: list[Path] = []
    try:
        from course_lib.export.lessons import ExportError

        try:
            yield whole
        except ExportError as error:
            raise fail(error) from None
        except OSError as error:
            raise fail(f"{error.filename or out}: {error.strerror or error}") from None
    except ModuleNotFoundError as error:
        raise fail(f"no module {error.name}: install what exports need, pip install 'course_lib[export]'") from None
    except KeyboardInterrupt:
        fail("stopped; what is named above is whole" if whole else "stopped; nothing was written")
        raise typer.Exit(130) from None


@app.command("slides")
def export_slides(
    out: Annotated[Path, typer.Option(help="The folder of the slides, one file a lesson or a session.")],
    lessons: Annotated[list[str] | None, typer.Argument(help="Such as 06 or timesformer; all if none.")] = None,
    plan: Annotated[str, typer.Option(help="A plan of notebooks/plans.toml in place of lessons, such as hour.")] = "",
    pdf: Annotated[bool, typer.Option("--pdf", help="A handout with notes as well; needs Chromium or Chrome.")] = False,
) -> None:
    """Write slides with notes for a speaker as one HTML file: equations, live explorers, no kernel and no network."""
    if plan and lessons:
        raise fail(f"{' '.join(lessons)} and the plan {plan}: name lessons or a plan")
    with exporting(out) as whole:
        from course_lib.export.lessons import find_lessons
        from course_lib.export.slides import Deck, NoSlides, write_handout, write_plan, write_slides

        def tell(deck: Deck) -> None:
            show_first([f"not alive: {still}" for still in deck.stills], 20)
            size = deck.path.stat().st_size / 1e6
            typer.echo(f"{deck.path}: {deck.slides} slides, {deck.minutes} minutes, {size:.1f} MB")
            whole.append(deck.path)
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


def plans() -> None:
    """Write notebooks/TEACHING.md from notebooks/plans.toml: what a teacher shows in each session, with its minutes."""
    with exporting(NOTEBOOKS):
        from course_lib.export.plans import write_plans_page

        typer.echo(write_plans_page(NOTEBOOKS.parent))


@app.command("page")
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


@app.command("site")
def export_site(
    out: Annotated[Path, typer.Option(help="The folder of the site; one that is there is replaced.")],
) -> None:
    """Write the whole course as a static site with search: open index.html, from a disk or from any web server."""
    with exporting(out):
        from course_lib.export.site import build_site

        out = out.resolve()  # while it is there: what replaces `.` leaves this process nowhere
        typer.echo("making the site takes a minute or so")
        built = build_site(NOTEBOOKS.parent, out)
    show_first([f"not alive: {still}" for still in built.stills], 20)
    show_first(built.warnings, 20)
    typer.echo(f"{built.pages} pages; open {out / 'index.html'}")
