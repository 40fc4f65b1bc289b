"""The slides of a lesson as one HTML file that a lecturer opens anywhere: reveal.js, equations, explorers, all inside.

A slide is a cell with the tag `slide`; notebooks/README.md says what stands in its metadata. No kernel runs: outputs
are the stored ones. Sizes are CSS pixels of a slide of 1280 x 720, which the browser enlarges as a whole.
"""

from __future__ import annotations

import base64
import html
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from course_lib.export.explorers import PLAYER, STYLE, live, mathml, read_states
from course_lib.export.lessons import EXPLORER, NO_STATE, ExportError, without_empty_headers
from course_lib.export.plans import QUESTION, QUIZ_MINUTES, read_plans
from course_lib.files import atomic_path, atomic_write

HERE = Path(__file__).parent / "static"
REVEAL = files("sphinx_revealjs") / "_static" / "revealjs"
SLOT = (1168, 470)  # what a slide leaves for figures, about
EXPLORER_ROOM = (420, 292)  # pixels for the frames of an explorer, before slides.css enlarges them
OPTION = re.compile(r"<details[^>]*><summary>(.*)</summary>\s*(Right)?")
INTERVAL = re.compile(r"(\([^()<>]{,24}\))(?=</td>)")  # as one piece: 91.3 (86.6 to 96.0)
PNG = re.compile(r'src="data:image/png;base64,([^"]{44})')
PRINTING = 180  # seconds, after which a browser is taken to hang
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
COLOURS = {"light": "a11y-high-contrast-light", "dark": "a11y-high-contrast-dark"}


class Slide(NamedTuple):
    """What the template shows; all but `kind` and `minutes` is HTML."""

    kind: str  # title, points, shown or quiz
    lesson: str  # Lesson 06; empty for what a plan adds
    title: str
    points: list[str]
    build: bool
    shown: list[str]
    notes: str
    minutes: int


class Deck(NamedTuple):
    """What was written, and which of its explorers stay pictures."""

    path: Path
    slides: int
    minutes: int
    stills: list[str]


class NoSlides(ExportError):
    """The lesson carries none."""


def write_slides(root: Path, lesson: Path, out: Path) -> Deck:
    """Write the slides of the notebook at `lesson` as out/STEM-slides.html, whole or not at all.

    root: the folder of the course, where the states of explorers are kept. NoSlides if no cell carries one.
    """
    stills: list[str] = []
    slides = list(_slides(root, lesson, stills).values())
    if all(slide.kind == "quiz" for slide in slides):
        raise NoSlides(f"{lesson.stem}: no cell is tagged slide, so there is nothing to show (notebooks/README.md)")
    return _write(slides, out / f"{lesson.stem}-slides.html", stills)


def write_plan(root: Path, name: str, out: Path) -> Iterator[Deck]:
    """Write a file for each session with slides of a plan in notebooks/plans.toml: out/NAME-slides.html, or
    out/NAME-1-slides.html and so on if the plan has several sessions. Yields each when it is whole."""
    plans = read_plans(root)
    if name not in plans:
        raise ExportError(f"no plan {name!r} in {root / 'notebooks' / 'plans.toml'}: it has {', '.join(plans)}")
    sessions = plans[name].sessions
    for number, session in enumerate(sessions, 1):
        slides = [_opening(session.opening)] if session.opening else []
        stills: list[str] = []
        for part in session.parts:
            if part.lesson:
                found = _slides(root, part.lesson, stills, set(part.slides))
                slides += [found[title] for title in part.slides]
        if slides:
            end = f"-{number}" if len(sessions) > 1 else ""
            yield _write(slides, out / f"{name}{end}-slides.html", stills)


def _write(slides: Sequence[Slide], path: Path, stills: list[str]) -> Deck:
    total = sum(slide.minutes for slide in slides)
    template = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("slides.html")
    page = template.render(
        slides=slides,
        total=total,
        sums=[sum(slide.minutes for slide in slides[: i + 1]) for i in range(len(slides))],
        styles=[
            (REVEAL / "dist" / "reveal.css").read_text(encoding="utf-8"),
            STYLE,
            *_code_styles(),
            _own("slides.css"),
        ],
        scripts=[
            *(
                _script((REVEAL / name).read_text(encoding="utf-8"))
                for name in ("dist/reveal.js", "plugin/notes/notes.js")
            ),
            PLAYER,
            _own("slides.js"),
        ],
    )
    atomic_write(path, page.encode())
    return Deck(path, len(slides), total, stills)


def write_handout(deck: Path) -> Path:
    """Print the slides with their notes beside them as a PDF, by Chromium or Chrome; ExportError if there is none, or
    if it prints nothing."""
    named = os.environ.get("COURSE_CHROMIUM")
    browsers = [named] if named else ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", MAC]
    browser = next((found for name in browsers if (found := shutil.which(name))), None)
    way_out = f"open {deck} in any browser, add ?print-pdf to its address and print"
    if browser is None:
        raise ExportError(
            f"no Chromium or Chrome found ({', '.join(browsers)}): name one in $COURSE_CHROMIUM, or {way_out}"
        )
    path = deck.with_suffix(".pdf")
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to sandbox itself for root
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, atomic_path(path) as part:
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            *root,
            f"--user-data-dir={profile}",
            "--no-pdf-header-footer",
        ]
        try:
            said = subprocess.run(
                [*command, f"--print-to-pdf={part}", f"{deck.resolve().as_uri()}?print-pdf"],
                capture_output=True, text=True, timeout=PRINTING,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ExportError(f"{browser} did not print {deck.name} within {PRINTING} s: {way_out}") from None
        if said.returncode or not part.is_file() or not part.stat().st_size:
            raise ExportError(f"{browser} did not print {deck.name}: {said.stderr.strip()[-300:]}")
    return path


def _slides(root: Path, lesson: Path, stills: list[str], chosen: Collection[str] | None = None) -> dict[str, Slide]:
    """Slides of a lesson by title, questions of its quiz by number; `chosen` says which, all if None."""
    notebook, states = nbformat.read(lesson, as_version=4), read_states(root, lesson.stem)
    label, found = f"Lesson {lesson.stem[:2]}", dict[str, Slide]()
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "quiz" in tags:
            found |= {slide.title[0]: slide for slide in _questions(cell.source, label)}
        if "slide" not in tags or (chosen is not None and cell.metadata["slide"]["title"] not in chosen):
            continue
        slide = dict(cell.metadata["slide"])
        shown = [_code(cell.source)] if slide["code"] else []
        if slide["output"]:
            kept: list[str] = []
            shown += _outputs(cell, states.get(cell.id, {}), kept)
            lacks = [state["lacks"] for state in states.get(cell.id, {}).values() if state.get("lacks")]
            slide["notes"] = "\n\n".join([slide["notes"], *lacks])
            stills += [f"{lesson.stem}, cell {one}: {NO_STATE}" for one in kept]
        if slide["title"] in found:
            raise ExportError(f"{lesson.stem}: two slides are called {slide['title']!r}")
        kind = "title" if cell is notebook.cells[0] else "shown" if shown else "points"
        found[slide["title"]] = _slide(kind, label, slide, shown)
    return found


def _opening(opening: dict[str, Any]) -> Slide:
    return _slide("title", "", {"build": False} | opening, [])


def _slide(kind: str, label: str, slide: dict[str, Any], shown: list[str]) -> Slide:
    return Slide(
        kind=kind,
        lesson=label,
        title=_line(slide["title"]),
        points=[_line(point) for point in slide["points"]],
        build=slide["build"],
        shown=shown,
        notes=MARKDOWN.render(slide["notes"]),
        minutes=slide["minutes"],
    )


def _questions(source: str, label: str) -> Iterator[Slide]:
    """A slide for each question of a quiz: the options as they are, their reasons folded."""
    _, *parts = QUESTION.split(source)
    for question, options in zip(parts[::2], parts[1::2], strict=True):
        right = [text for text, is_right in OPTION.findall(options) if is_right]
        notes = "<p>Let the class vote before you open an option: each says why it is right or not.</p>"
        notes += "".join(f"<p><strong>Right:</strong> {text}</p>" for text in right)
        yield Slide("quiz", label, _line(question), [], False, [MARKDOWN.render(options)], notes, QUIZ_MINUTES)


def _outputs(cell: NotebookNode, states: dict[int, Any], stills: list[str]) -> Iterator[str]:
    """What a cell shows: explorers, tables, pictures, which share the room that there is, and last what it printed."""
    pictures: list[str] = []
    tables: list[str] = []
    words: list[str] = []
    for number, output in enumerate(cell.get("outputs", [])):
        data = output.get("data", {})
        content = data.get("text/html", "")
        if number in states:
            yield live(states[number], content, EXPLORER_ROOM)
        elif "<img" in content:
            pictures.append(content)
            if EXPLORER.search(content):
                stills.append(cell.id)
        elif content:
            yield f'<div class="page">{without_empty_headers(content)}</div>'
        elif "text/markdown" in data:
            table = without_empty_headers(MARKDOWN.render(data["text/markdown"]))
            table = INTERVAL.sub(r'<span class="interval">\1</span>', table)
            tables.append(f'<div class="table">{table}</div>')
        elif text := output.get("text", data.get("text/plain", "")).strip():
            words.append(text)
    if tables:
        yield f'<div class="tables">{"".join(tables)}</div>'
    if pictures:
        yield _figures(pictures)
    if words:
        yield f'<pre class="text">{html.escape(chr(10).join(words))}</pre>'
    if cell.id in stills:
        yield f'<p class="missing">{NO_STATE}</p>'


def _figures(pictures: Sequence[str]) -> str:
    """Pictures as large as they go: side by side or below each other, whichever gives them more room."""
    ratios = [width / height for width, height in map(_png_size, pictures)]
    wide, high = SLOT
    beside = min(high, wide / sum(ratios)) ** 2 * sum(ratios)
    below = min(wide, high / sum(1 / ratio for ratio in ratios)) ** 2 * sum(1 / ratio for ratio in ratios)
    way = "beside" if beside >= below else "below"
    shares = [ratio if way == "beside" else 1 / ratio for ratio in ratios]
    shares = [share / min(shares) for share in shares]  # less than 1 together would leave room
    each = (
        f'<div class="figure" style="--ratio: {ratio:.4f}; flex-grow: {share:.4f}">{picture}</div>'
        for picture, ratio, share in zip(pictures, ratios, shares, strict=True)
    )
    return f'<div class="figures {way}">{"".join(each)}</div>'


def _png_size(picture: str) -> tuple[int, int]:
    found = PNG.search(picture)
    if found is None:
        raise ExportError(f"a stored picture is no PNG: {picture[:80]}")
    head = base64.b64decode(found[1])
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _line(text: str) -> str:
    """A line of Markdown without a paragraph around it; an equation alone stands on a line of its own."""
    if text.startswith("$$") and text.endswith("$$") and len(text) > 4:
        return f'<div class="equation">{mathml(text.strip("$"), display=True)}</div>'
    return str(MARKDOWN.renderInline(text))


def _code(source: str) -> str:
    return str(highlight(source, PythonLexer(), HtmlFormatter(cssclass="code", wrapcode=True)))


def _code_styles() -> list[str]:
    return [
        str(HtmlFormatter(style=style).get_style_defs(f"[data-theme={theme}] .code"))
        for theme, style in COLOURS.items()
    ]


def _script(text: str) -> str:
    """A script that does not end the element that it stands in."""
    return text.replace("</script", "<\\/script")


def _own(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


MARKDOWN = (
    MarkdownIt("commonmark", {"html": True})
    .enable("table")
    .use(
        dollarmath_plugin,
        renderer=lambda tex, options: mathml(tex, display=options["display_mode"]),
        allow_digits=False,
    )
)
