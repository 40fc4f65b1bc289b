"""Exported pages in Chromium with the network switched off: what a learner on a train and a lecturer without a network
have. The site is made once, of the real lessons; the first explorer of lesson 10 is a small one, made here."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import nbformat
import pytest
from lab import watch
from test_explorer import explorer

from course_lib.export.lessons import EXPLORER

ROOT = Path(__file__).parents[2]
LESSON = "notebooks/10_video_swin.html"
PAGES = ("index.html", LESSON, "data/results/README.html", "api/layers.html")
SIZES = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 390, "height": 844}}

pytestmark = pytest.mark.browser


class Made(NamedTuple):
    site: Path
    page: Path
    said: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The site and the page of lesson 10, by the commands of the README."""
    course = tmp_path_factory.mktemp("course")
    shutil.copy(ROOT / "README.md", course)
    shutil.copytree(ROOT / "notebooks", course / "notebooks", ignore=shutil.ignore_patterns(".*", "mutants"))
    for path in ROOT.glob("data/results/**/README.md"):
        to = course / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    lesson = nbformat.read(course / "notebooks" / "10_video_swin.ipynb", as_version=4)
    cell, number = next(
        (cell.id, number)
        for cell in lesson.cells
        for number, output in enumerate(cell.get("outputs", []))
        if EXPLORER.search(output.get("data", {}).get("text/html", ""))
    )
    states = {cell: [{"output": number, "state": explorer().page_state()}]}
    (course / "data" / "explorers").mkdir()
    (course / "data" / "explorers" / "10_video_swin.json.gz").write_bytes(gzip.compress(json.dumps(states).encode()))

    environment = os.environ | {"COURSE_DATA": str(course / "data"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    said = ""
    for what in (["site", "--out", "site"], ["page", "10", "--out", "page"]):
        command = [sys.executable, "-c", "from course_lib.cli import app; app()", "export", *what]
        run = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        said += run.stdout
    return Made(course / "site", course / "page" / "10_video_swin.html", said)


@pytest.fixture
def tab(browser: Any, made: Made) -> Iterator[Any]:
    """tab(path, size="wide", scheme="light"): a page of the site without a network; what fails or leaves fails the
    test."""
    opened = []

    def open_page(path: str | Path, size: str = "wide", scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport=SIZES[size], color_scheme=scheme, has_touch=size == "narrow", offline=True
        )
        page = context.new_page()
        page.set_default_timeout(120_000)
        opened.append((context, watch(page)))
        page.goto((made.site / path).as_uri())
        return page

    yield open_page
    for context, seen in opened:
        context.close()
        errors = [error for error in seen.errors if "Got invalid theme mode" not in error]  # the theme's first visit
        assert not errors and not seen.outside


def test_sphinx_had_nothing_to_say_and_every_link_leads_to_a_page_that_is_there(made):
    assert "WARNING" not in made.said and "ERROR" not in made.said
    assert {path.name for path in made.site.parent.iterdir()} == {"README.md", "notebooks", "data", "site", "page"}
    pages = {path: path.read_text(encoding="utf-8") for path in made.site.rglob("*.html")}
    assert len([path for path in pages if path.parent.name == "notebooks" and path.name[0].isdigit()]) == 12
    names = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    checked, lost = 0, []
    for path, text in pages.items():
        assert not re.findall(r'<(?:link|script|img)\b[^>]*?\s(?:href|src)="https?:[^"]+"', text), path
        for link in re.findall(r'<(?:a|link|script|img)\b[^>]*?\s(?:href|src)="([^"]+)"', text):
            if re.match(r"\w+:", link):
                continue
            name, _, anchor = unquote(link).partition("#")
            to = (path.parent / name.partition("?")[0]).resolve() if name else path
            checked += 1
            if not to.is_file() or (anchor and to in names and anchor not in names[to]):
                lost.append(f"{path.relative_to(made.site)}: {link}")
    assert checked > 1000 and not lost


def test_notes_for_teachers_are_in_no_page(made):
    """They are in the notebooks' metadata; neither pages nor the search index has them."""
    lesson = nbformat.read(ROOT / "notebooks" / "10_video_swin.ipynb", as_version=4)
    notes = [cell.metadata.slide.notes for cell in lesson.cells if cell.metadata.get("slide", {}).get("notes")]
    assert notes
    for path in (made.site / LESSON, made.page):
        assert not [note for note in notes if note[:40] in path.read_text(encoding="utf-8")]


def test_search_finds_a_word_and_leads_to_the_lesson(tab):
    page = tab("index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("tubelets")
    page.keyboard.press("Enter")
    found = page.locator("ul.search a", has_text="ViViT").first
    found.click()
    page.wait_for_url("**/07_vivit.html*")
    assert "ViViT" in page.locator("h1").inner_text()


@pytest.mark.parametrize("size", SIZES)
def test_an_explorer_answers_without_a_kernel(tab, made, size):
    for path in (LESSON, made.page):
        page = tab(path, size)
        box = page.locator(".live-explorer").first
        box.scroll_into_view_if_needed()
        canvas = box.locator('canvas[data-painted="1"]')
        canvas.wait_for()
        canvas.scroll_into_view_if_needed()
        before = box.locator(".readout").inner_text()
        left = canvas.bounding_box()
        assert left["x"] >= 0 and left["x"] + left["width"] <= SIZES[size]["width"]
        corner, panel = canvas.evaluate("({ layouts: [{ corners, panel }] }) => [corners[0], panel]")
        scale = left["width"] / canvas.evaluate("canvas => parseFloat(canvas.style.width)")
        at = [left[axis] + (corner[i] + panel[i] / 12) * scale for i, axis in enumerate("xy")]  # the first patch
        (page.touchscreen.tap if size == "narrow" else page.mouse.click)(*at)
        page.wait_for_function("([canvas]) => canvas.dataset.query === '0'", arg=[canvas.element_handle()])
        assert box.locator(".readout").inner_text() != before
        canvas.focus()
        page.keyboard.press("ArrowRight")
        assert canvas.get_attribute("data-query") == "1"
        assert page.locator("math").count() > 10


@pytest.mark.parametrize("path", [*PAGES, "README.html", "notebooks/GLOSSARY.html", "notebooks/homework/README.html"])
def test_a_narrow_page_never_scrolls_sideways(tab, path):
    page = tab(path, "narrow")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    scrolled = page.evaluate("scrollTo(200, 0), scrollX")
    assert scrolled == 0


def test_a_page_is_light_or_dark_as_the_reader_likes(tab):
    def brightness(page):
        red, green, blue = map(
            int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
        )
        return red + green + blue

    assert brightness(tab(LESSON, scheme="light")) > 700
    page = tab(LESSON, scheme="dark")
    assert brightness(page) < 150
    page.locator(".theme-switch-button:visible").click()
    page.locator('.theme-change-button[data-mode="light"]:visible').click()
    assert brightness(page) > 700


@pytest.mark.parametrize(
    ("path", "scheme"), [*((path, scheme) for path in PAGES for scheme in ("light", "dark")), ("page", "dark")]
)
def test_axe_finds_nothing_that_keeps_anyone_out(tab, made, path, scheme):
    page = tab(made.page if path == "page" else path, scheme=scheme)
    if path in (LESSON, "page"):
        page.locator(".live-explorer").first.scroll_into_view_if_needed()
        page.locator('.live-explorer canvas[data-painted="1"]').first.wait_for()
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { preload: false, resultTypes: ['violations'] })")
    told = [
        f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes'][:3]]}" for one in found["violations"]
    ]
    assert not told, "\n".join(told)
