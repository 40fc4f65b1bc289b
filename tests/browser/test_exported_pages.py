"""Exported pages in Chromium with the network switched off: what a learner on a train and a lecturer without a network
have. The site is made once, of the real lessons; the first explorer of lesson 10 is a small one, made here, and the
second its own."""

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
from playwright.sync_api import expect
from test_explorer import explorer

from course_lib.export.explorers import PLAYER, STYLE, live
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
    for path in (ROOT / "data/README.md", *ROOT.glob("data/results/**/README.md")):
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
    states = {cell: [{"output": number, "state": explorer().page_state()}], **kept("10_video_swin", "c107")}
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


def kept(stem: str, cell: str) -> dict[str, Any]:
    """What the repository keeps of the explorers of a cell."""
    states = json.loads(gzip.decompress((ROOT / "data" / "explorers" / f"{stem}.json.gz").read_bytes()))
    return {cell: states[cell]}


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
    expect(page.locator("h1")).to_contain_text("ViViT")


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
        expect(box.locator(".readout")).not_to_have_text(before)
        canvas.focus()
        page.keyboard.press("ArrowRight")
        expect(canvas).to_have_attribute("data-query", "1")
        assert page.locator("math").count() > 10


def test_the_trained_network_of_a_lesson_answers_a_click_in_its_page_head_by_head_and_through_the_whole_network(
    tab, made
):
    page = tab(made.page)
    box = page.locator(".live-explorer").nth(1)
    box.scroll_into_view_if_needed()
    canvas, said = box.locator('canvas[data-painted="1"]'), box.locator(".readout")
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    corner, panel = canvas.evaluate("({ layouts: [{ corners, panel }] }) => [corners[2], panel]")
    canvas.click(
        position={axis: corner[i] + 0.9 * panel[i] for i, axis in enumerate("xy")}
    )  # step 2, row 14, column 14
    expect(canvas).to_have_attribute("data-query", str((2 * 16 + 14) * 16 + 14))
    expect(said).to_contain_text("Strongest in stage 1 block 1 windows, mean of")
    canvas.press("h")
    expect(said).to_contain_text("Strongest in stage 1 block 1 windows, head 1")
    canvas.press("l")
    canvas.press("v")
    canvas.press("v")
    expect(said).to_contain_text("the network up to stage 1 block 2 shifted windows, rollout")
    expect(canvas).to_have_attribute("data-waiting", "0")


def test_a_page_offers_the_layers_that_it_holds_alone_and_says_how_many_it_does_not(browser, tmp_path):
    ((one,),) = kept("01_i3d", "cell-085").values()
    layers = {layer["name"]: layer["absent"] for layer in one["state"]["sources"][1]["layers"]}
    there = [name for name, absent in layers.items() if not absent]
    assert 10 < len(there) < len(layers) == 34
    box = live(one["state"], "<p>a still</p>")
    page_file = tmp_path / "page.html"
    page_file.write_text(
        f"<meta charset='utf-8'><style>{STYLE}</style>{box}<script>{PLAYER}</script>", encoding="utf-8"
    )
    page = browser.new_page(viewport=SIZES["wide"])
    seen = watch(page)
    page.context.set_offline(True)
    page.goto(page_file.as_uri())
    canvas, said = page.locator('canvas[data-painted="1"]'), page.locator(".readout")
    canvas.wait_for()
    assert canvas.get_attribute("data-layer") == "mixed 3c middle"
    assert f"room for {len(there)} of 34 in 'I3D, used'" in page.locator(".keys").first.inner_text()
    choice = page.get_by_label("Layer", exact=True)
    assert choice.locator("option").all_inner_texts() == there
    for name in there:
        choice.select_option(name)
        canvas.and_(page.locator(f'canvas[data-layer="{name}"][data-waiting="0"]')).wait_for()
        expect(said).to_contain_text(f"In {name} it used most: ")
    canvas.press("l")  # from the last to the first that is there
    canvas.and_(page.locator(f'canvas[data-layer="{there[0]}"]')).wait_for()
    page.get_by_label("Scheme or network").select_option("I3D")  # masks have all
    expect(choice.locator("option")).to_have_count(len(layers))
    assert not seen.errors and not seen.outside
    page.close()


OUTSIDE_BOXES = """() => [...document.querySelectorAll("table, pre, math, .live-explorer canvas")].filter(one => {
  let box = one;
  while (box && getComputedStyle(box).overflowX === "visible") box = box.parentElement;
  return one.checkVisibility() && (box ?? document.documentElement) === document.documentElement
    && one.getBoundingClientRect().right > innerWidth;
}).map(one => one.outerHTML.slice(0, 100))"""


# CSS pixels of the smallest letters of each figure, by what its PNG says of itself.
LETTERS = r"""() => [...document.querySelectorAll(".cell_output img")].map(one => {
  const [, said] = /smallest letters\0([\d.]+)/.exec(atob(one.src.split(",")[1].slice(0, 4000)));
  return Number(said) * one.getBoundingClientRect().width / one.naturalWidth;
})"""


def test_on_a_phone_no_page_scrolls_sideways_and_what_is_wide_scrolls_in_its_own_box(tab, made):
    page = tab("index.html", "narrow")
    wrong, figures = [], 0
    for path in every_page(made):
        page.goto(path.as_uri())
        width, scrolled = page.evaluate("[document.documentElement.scrollWidth, (scrollTo(200, 0), scrollX)]")
        outside = page.evaluate(OUTSIDE_BOXES)
        if width > 390 or scrolled or outside:
            wrong.append((path.relative_to(made.site), width, scrolled, outside))
        letters = page.evaluate(LETTERS)
        figures += len(letters)
        if min(letters, default=8) < 8:
            wrong.append((path.name, letters))
    assert not wrong and figures > 80


def test_the_keyboard_alone_chooses_patch_frame_and_source_and_opens_an_option(tab, made):
    page = tab(made.page)

    def press_until(condition: str, key: str = "Tab", times: int = 400) -> None:
        for _ in range(times):
            page.keyboard.press(key)
            if page.evaluate(f"(one => {condition})(document.activeElement)"):
                return
        raise AssertionError(f"{times} times {key}, and never {condition}")

    press_until("one.ariaLabel === 'Scheme or network'")
    first = page.locator(".live-explorer canvas").first
    before = first.get_attribute("data-source")
    page.keyboard.press("ArrowDown")
    first.and_(page.locator(f'canvas:not([data-source="{before}"])')).wait_for()
    press_until("one.tagName === 'CANVAS'", times=20)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    for key, name in (
        ("ArrowRight", "data-query"),
        ("PageDown", "data-query"),
        ("s", "data-source"),
    ):
        before = first.get_attribute(name)
        page.keyboard.press(key)
        first.and_(page.locator(f'canvas:not([{name}="{before}"])')).wait_for()
    press_until("!one.closest('.attention-explorer')", times=5)
    press_until("one.tagName === 'SUMMARY' && one.parentElement.name === '10-1'")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.parentElement.open")


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
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert brightness(page) > 700


def test_icons_are_drawn_in_the_site_and_in_a_page_that_is_one_file(tab, made):
    for path in ("index.html", made.page):
        page = tab(path)
        icon = page.locator("i.fa-solid:visible").first
        font = icon.evaluate(
            "one => { const s = getComputedStyle(one, '::before'); return `${s.fontWeight} 16px ${s.fontFamily}`; }"
        )
        assert page.evaluate("font => document.fonts.load(font).then(found => found.length)", font) == 1


# Thousands of words of code in a few colours, and long lists, are looked at once of each kind.
THIN = """() => {
  const seen = new Set(), style = document.createElement("style");
  style.textContent = "* { transition: none !important }"; // colours on their way from light to dark
  document.head.append(style);
  const again = [...document.querySelectorAll(".highlight span, dt.sig span, code span")].filter(one => {
    const { color, fontSize, fontWeight } = getComputedStyle(one), box = one.closest(".highlight, .sig, code");
    const kind = [one.className, color, fontSize, fontWeight, getComputedStyle(box).backgroundColor].join();
    return seen.size === seen.add(kind).size;
  });
  again.forEach(one => one.replaceWith(...one.childNodes));
  for (const list of document.querySelectorAll("tbody, ul, dl, .cell_output pre"))
    [...list.children].slice(30).forEach(one => one.remove());
  document.querySelectorAll("details").forEach(one => (one.open = true));
}"""
IN_LIGHT = "axe.run(document, { preload: false, resultTypes: ['violations'] })"
IN_DARK = "axe.run(document, { preload: false, resultTypes: ['violations'], runOnly: ['color-contrast'] })"


def every_page(made: Made) -> list[Path]:
    return [*sorted(made.site.rglob("*.html")), made.page]


def test_axe_finds_nothing_that_keeps_anyone_out_in_light_and_nothing_too_faint_in_dark(tab, made):
    """Every page of the site, and the lesson as one file. Dark differs from light in its colours alone."""
    axe = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    page = tab("index.html")
    told = []
    for path in every_page(made):
        page.goto(path.as_uri())
        for canvas in page.locator(".live-explorer").all():
            canvas.scroll_into_view_if_needed()
            canvas.locator('canvas[data-painted="1"]').wait_for()
        page.evaluate(THIN)
        page.evaluate(axe)
        looks = {"light": IN_LIGHT, "dark": IN_DARK}
        if path.parent.name == "api" and path.name != "layers.html":  # they have the colours of each other
            del looks["dark"]
        for theme, look in looks.items():
            page.evaluate("theme => (document.documentElement.dataset.theme = theme)", theme)
            for one in page.evaluate(look)["violations"]:
                where = [node["target"] for node in one["nodes"][:3]]
                told.append(f"{path.name}, {theme}: {one['id']}: {one['help']}: {where}")
    assert not told, "\n".join(told)
