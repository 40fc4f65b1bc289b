"""Slides as one file: what a cell becomes. How they look is measured in tests/browser/test_slides.py."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from PIL import Image
from typer.testing import CliRunner

from course_lib import cli
from course_lib.export.explorers import mathml
from course_lib.export.lessons import NO_STATE, ExportError
from course_lib.export.slides import Deck, NoSlides, write_handout, write_slides

LESSONS = Path(__file__).parents[1] / "notebooks"
QUIZ = """## Five questions

**1. Which way?**

<details name="99-1"><summary>to the left</summary>

Not so: it goes $x$ to the other side.
</details>

<details name="99-1"><summary>to the right</summary>

Right: because it does.
</details>
"""


def picture(width: int, height: int, alt: str = "a curve") -> nbformat.NotebookNode:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(file, "PNG")
    html = f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
    return nbformat.v4.new_output("display_data", {"text/html": html, "text/plain": alt})


def printed(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def slide(title: str, source: str = "# Prose", outputs: list | None = None, **entries) -> nbformat.NotebookNode:
    whole = {"title": title, "points": [], "code": False, "output": bool(outputs), "build": False, "minutes": 2}
    metadata = {"tags": ["slide"], "slide": whole | {"notes": "Say it."} | entries}
    if outputs is None and not entries.get("code"):
        return nbformat.v4.new_markdown_cell(source, metadata=metadata)
    return nbformat.v4.new_code_cell(source, outputs=outputs or [], metadata=metadata, id="c1")


def written(root: Path, *cells: nbformat.NotebookNode) -> str:
    path = root / "99_small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    return write_slides(root, path, root / "out").path.read_text()


def sections(page: str) -> list[str]:
    return re.findall(r"<section.*?</section>", page, re.S)


def test_a_slide_shows_title_points_and_output_and_no_prose(tmp_path):
    first = slide("A lesson", "# Prose of the cell", points=["*one*", "two `code`"], build=True)
    page = written(tmp_path, first, slide("Result", "secret()", [printed("loss 0.5\n")]))
    title, result = sections(page)
    assert '<h1 id="slide-1">A lesson</h1>' in title and "Lesson 99" in title
    assert title.count('<li class="fragment">') == 2 and "<em>one</em>" in title and "<code>code</code>" in title
    assert '<h2 id="slide-2">Result</h2>' in result and "loss 0.5" in result
    assert "Prose of the cell" not in page and "secret" not in page


def test_code_is_shown_where_it_is_asked_for_with_colours_and_as_text(tmp_path):
    page = written(tmp_path, slide("A", "x = '<b>'", points=["p"], code=True))
    (section,) = sections(page)
    assert '<div class="code">' in section and "&lt;b&gt;" in section and "<b>" not in section
    assert "[data-theme=light] .code" in page and "[data-theme=dark] .code" in page


def test_notes_tell_the_planned_minutes_and_those_that_have_passed(tmp_path):
    page = written(tmp_path, slide("A", minutes=3), slide("B", minutes=4, notes="**Ask.** $x^2$?"))
    first, second = sections(page)
    assert 'data-timing="180"' in first and "<strong>3 min</strong>; 3 of 7" in first
    assert 'data-timing="240"' in second and "<strong>4 min</strong>; 7 of 7" in second
    assert "<strong>Ask.</strong>" in second and "<msup>" in second
    assert 'data-total-time="420"' in page


def test_each_question_of_a_quiz_is_a_slide_whose_notes_name_the_right_option(tmp_path):
    quiz = nbformat.v4.new_markdown_cell(QUIZ, metadata={"tags": ["quiz"]})
    _, question, last = sections(written(tmp_path, slide("A"), quiz, slide("To go on")))
    assert ">1. Which way?</h2>" in question and question.count('<details name="99-1">') == 2
    assert "<mi>x</mi>" in question and "<strong>Right:</strong> to the right" in question
    assert "To go on" in last


def test_pictures_stand_where_they_have_most_room(tmp_path):
    def ways(*sizes: tuple[int, int]) -> str:
        page = written(tmp_path, slide("A", outputs=[picture(*size) for size in sizes]))
        (way,) = re.findall(r'class="figures (\w+)"', page)
        return way

    assert ways((100, 100), (100, 100)) == ways((200, 200), (100, 100), (100, 100)) == "beside"
    assert ways((900, 100), (900, 100)) == "below"
    page = written(tmp_path, slide("A", outputs=[picture(300, 100)]))
    assert "--ratio: 3.0000; flex-grow: 1.0000" in page and 'alt="a curve"' in page


def test_an_interval_stays_in_one_piece(tmp_path):
    table = "| arm | score |\n| --- | --- |\n| a | 91.3 (86.6 to 96.0) |"
    page = written(tmp_path, slide("A", outputs=[nbformat.v4.new_output("display_data", {"text/markdown": table})]))
    assert '<td>91.3 <span class="interval">(86.6 to 96.0)</span></td>' in page


def test_an_explorer_lives_where_its_state_was_kept_and_else_the_slide_says_that_it_is_a_still(tmp_path):
    still = picture(200, 100, "8 frames of a clip in 8 steps of 14 x 14 tokens. what")
    path = tmp_path / "data" / "explorers" / "99_small.json.gz"
    cells = [slide("A"), slide("B", outputs=[printed("x"), still])]
    page = written(tmp_path, *cells)
    assert NO_STATE in page and 'class="live-explorer"' not in page
    path.parent.mkdir(parents=True)
    kept = {"c1": [{"output": 1, "state": {"lacks": "No room for two."}}]}
    path.write_bytes(gzip.compress(json.dumps(kept).encode()))
    page = written(tmp_path, *cells)
    assert NO_STATE not in page and 'class="live-explorer" data-wide=' in page
    assert "<p>No room for two.</p>" in page  # in the notes, since a slide has no room for small print


def test_equations_are_mathml_with_the_letters_that_browsers_draw():
    words = "".join(ElementTree.fromstring(mathml(r"\mathbf z = \mathcal C \ln 2", display=True)).itertext())
    assert words == "\U0001d433=\U0001d49eln2"
    assert "mspace" in mathml(r"\ln 2", display=False) and "mspace" not in mathml(r"\ln", display=False)
    assert 'display="block"' in mathml("x", display=True) and 'display="inline"' in mathml("x", display=False)


def test_a_lesson_without_slides_is_told(tmp_path):
    path = tmp_path / "99_small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A")]), path)
    with pytest.raises(NoSlides, match="99_small: no cell is tagged slide"):
        write_slides(tmp_path, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_lesson_has_slides_and_nothing_in_them_asks_the_network(tmp_path):
    result = CliRunner().invoke(cli.app, ["export", "slides", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    pages = {path.stem.removesuffix("-slides"): path.read_text() for path in tmp_path.glob("*.html")}
    assert sorted(pages) == sorted(path.stem for path in LESSONS.glob("[0-9]*.ipynb"))
    for stem, page in pages.items():
        assert not re.findall(
            r'(?:<link|(?:src|href|poster)="(?!data:|https?://))[^>]{0,60}', page.split("<script>")[0]
        ), stem
        assert not re.findall(r"@import|url\((?!['\"]?data:)", page.split("<body>")[0]), stem
        assert len(sections(page)) >= 15, stem


def test_the_command_refuses_what_it_cannot_do_in_a_sentence(tmp_path, monkeypatch):
    result = CliRunner().invoke(cli.app, ["export", "slides", "12", "--out", str(tmp_path)])
    assert result.exit_code == 1 and "no lesson: choose from 00_clips" in result.output
    monkeypatch.setenv("COURSE_CHROMIUM", "no-such-browser")
    result = CliRunner().invoke(cli.app, ["export", "slides", "06", "--out", str(tmp_path), "--pdf"])
    assert result.exit_code == 1 and "no Chromium or Chrome found (no-such-browser)" in result.output
    assert "?print-pdf" in result.output and (tmp_path / "06_timesformer-slides.html").is_file()


def test_a_browser_that_prints_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CHROMIUM", "true")
    deck = tmp_path / "06-slides.html"
    deck.write_text("x")
    with pytest.raises(ExportError, match="did not print 06"):
        write_handout(deck)
    assert list(tmp_path.iterdir()) == [deck]


def test_a_browser_that_hangs_is_given_up_with_the_way_out(tmp_path, monkeypatch):
    browser, deck = tmp_path / "slow.sh", tmp_path / "06-slides.html"
    browser.write_text("#!/bin/sh\nexec sleep 60\n")
    browser.chmod(0o755)
    deck.write_text("x")
    monkeypatch.setenv("COURSE_CHROMIUM", str(browser))
    monkeypatch.setattr("course_lib.export.slides.PRINTING", 0.5)
    with pytest.raises(ExportError, match=r"did not print 06-slides.html within 0.5 s: open .* add \?print-pdf"):
        write_handout(deck)
    assert sorted(tmp_path.iterdir()) == [deck, browser]


def test_what_is_whole_when_one_stops_is_told(tmp_path, monkeypatch):
    """Lessons, then sessions of a plan: the second of them is interrupted."""

    def stopped(after: int, *args: str) -> str:
        calls = iter(range(after))

        def write(slides, path, stills):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            path.write_text("whole")
            return Deck(path, 1, 1, stills)

        monkeypatch.setattr("course_lib.export.slides._write", write)
        result = CliRunner().invoke(cli.app, ["export", "slides", *args, "--out", str(tmp_path)])
        assert result.exit_code == 130
        return result.output

    assert stopped(0, "05", "06") == "stopped; nothing was written\n"
    for first, args in (("05_vtn-slides.html", ("05", "06")), ("workshop-1-slides.html", ("--plan", "workshop"))):
        said = stopped(1, *args).splitlines()
        assert len(said) == 2 and said[0].startswith(f"{tmp_path / first}: 1 slides"), said
        assert said[1] == "stopped; what is named above is whole"
