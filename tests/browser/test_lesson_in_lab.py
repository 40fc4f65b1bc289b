"""Lessons as a newcomer meets them: opened in JupyterLab, run from top to bottom, and a patch clicked."""

from __future__ import annotations

import os
import time
from pathlib import Path

import nbformat
import pytest
from lab import close_notebook, kernel_eval, lab_server, open_notebook, run_all, running_kernels, set_theme, watch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSON = "06_timesformer.ipynb"
COLOUR = """([canvas, x, y]) => {
    const scale = canvas.width / canvas.getBoundingClientRect().width;
    const [r, g, b] = canvas.getContext('2d').getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1).data;
    return [r, g, b];
}"""


@pytest.fixture(scope="module")
def server():
    with lab_server(
        NOTEBOOKS, env={"COURSE_PROFILE": "smoke", "COURSE_CLIPS": "", "COURSE_KINETICS": "", "COURSE_SSV2": ""}
    ) as found:
        yield found


@pytest.fixture(scope="module")
def lesson(browser, server):
    page = browser.new_page(viewport={"width": 1400, "height": 1100})
    seen = watch(page)
    open_notebook(page, server, LESSON)
    page.set_default_timeout(300_000)
    run_all(page)
    page.set_default_timeout(30_000)
    yield page, seen
    close_notebook(page)


def test_all_cells_run_and_the_explorer_answers_a_click(lesson):
    page, seen = lesson
    canvas = page.locator(".attention-explorer canvas").first
    page.wait_for_function("canvas => canvas.dataset.painted === '1'", arg=canvas.element_handle())
    t, h, w = 8, 14, 14
    place, query = [3, 24, 40], (3 * h + 1) * w + 2  # frame 3, row 1, column 2
    kernel_eval(page, "setattr(idea, 'layer', 'block 1 space')")
    page.wait_for_function("canvas => canvas.dataset.layer === 'block 1 space'", arg=canvas.element_handle())
    layout = canvas.evaluate("canvas => canvas.layouts[0]")

    def middle(token: int) -> tuple[float, float]:
        frame, inside = divmod(token, h * w)
        (x, y), (wide, high) = layout["corners"][frame], layout["panel"]
        return x + (inside % w + 0.5) * wide / w, y + (inside // w + 0.5) * high / h

    x, y = middle(query)
    canvas.scroll_into_view_if_needed()
    canvas.click(position={"x": x, "y": y})
    page.wait_for_function(
        "([canvas, query]) => canvas.dataset.query === query", arg=[canvas.element_handle(), str(query)]
    )
    until = time.monotonic() + 60
    while kernel_eval(page, "idea.pinned") != place and time.monotonic() < until:
        page.wait_for_timeout(50)
    assert kernel_eval(page, "idea.pinned") == place
    assert kernel_eval(page, "idea.source") == "divided"

    # Divided attention in space: the own frame is in colour, and the class token; everything else is grey.
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    for token in range(t * h * w):
        px, py = middle(token)
        r, g, b = page.evaluate(COLOUR, [canvas.element_handle(), px, py])
        coloured = max(r, g, b) - min(r, g, b) > 12
        assert coloured == (token // (h * w) == 3), (token, (r, g, b))
    (tile,) = layout["tiles"]
    r, g, b = page.evaluate(COLOUR, [canvas.element_handle(), tile["x"] + 12, tile["y"] + 12])
    assert max(r, g, b) - min(r, g, b) > 12
    assert not seen.errors and not seen.outside

    if folder := os.environ.get("COURSE_SCREENSHOTS"):
        canvas.scroll_into_view_if_needed()
        page.screenshot(path=str(Path(folder) / "lesson.png"))


OTHERS = [path for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")) if path.name not in ("00_clips.ipynb", LESSON)]


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_every_other_lesson_runs_and_its_first_picture_answers_a_click(browser, server, path):
    page = browser.new_page(viewport={"width": 1400, "height": 1100})
    seen = watch(page)
    open_notebook(page, server, path.name)
    page.set_default_timeout(300_000)
    run_all(page)
    page.set_default_timeout(30_000)
    canvas = page.locator(".attention-explorer canvas").first
    page.wait_for_function("canvas => canvas.dataset.painted === '1'", arg=canvas.element_handle())
    canvas.scroll_into_view_if_needed()
    layout = canvas.evaluate("canvas => canvas.layouts[0]")
    before, asked = kernel_eval(page, "idea.pinned"), canvas.evaluate("canvas => canvas.dataset.query")
    panels = layout["corners"]
    (x, y), (wide, high) = panels[0 if before[0] > 0 else -1], layout["panel"]
    canvas.click(position={"x": x + 0.2 * wide, "y": y + 0.8 * high})
    until, pinned = time.monotonic() + 60, before
    while pinned == before and time.monotonic() < until:
        page.wait_for_timeout(50)
        pinned = kernel_eval(page, "idea.pinned")
    assert pinned != before, "the kernel knows the patch that was clicked"
    assert canvas.evaluate("canvas => canvas.dataset.query") != asked
    assert not seen.errors and not seen.outside
    if folder := os.environ.get("COURSE_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{path.stem}-clicked.png"))
    close_notebook(page)
    assert running_kernels(server) <= 1, "that of the lesson which the module shares"


IMAGES = """() => [...document.querySelectorAll(".jp-OutputArea-output img")]
    .map(image => [image.alt, image.naturalWidth])"""
LOADED = """() => [...document.querySelectorAll(".jp-OutputArea-output img")]
    .every(image => image.complete && image.naturalWidth > 100)"""
WIDE = """() => [...document.querySelectorAll(".jp-CodeCell .cm-scroller, .jp-OutputArea-output pre")]
    .filter(code => code.scrollWidth > code.clientWidth + 1).map(code => code.innerText)"""
TABLES = """() => [...document.querySelectorAll(".jp-OutputArea-output table")]
    .map(table => getComputedStyle(table.parentElement).overflowX)"""


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_stored_pictures_have_words_and_code_does_not_scroll_sideways(browser, server, path):
    """As it is stored, without running a cell, in a window of 1280 pixels, in both themes."""
    stored = "".join(
        output.get("data", {}).get("text/html", "")
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
    ).count("<img ")
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        set_theme(server, theme)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        open_notebook(page, server, path.name)
        page.wait_for_function(f"() => document.querySelectorAll('.jp-OutputArea-output img').length === {stored}")
        page.wait_for_function(LOADED)
        images = page.evaluate(IMAGES)
        assert stored >= 8 and all(len(alt) > 20 and width > 100 for alt, width in images), images
        assert page.evaluate(WIDE) == []
        assert set(page.evaluate(TABLES)) == {"auto"}
        if path.name == LESSON:  # equations are typeset
            page.wait_for_function("() => document.querySelectorAll('mjx-container').length >= 4")
        if folder := os.environ.get("COURSE_SCREENSHOTS"):
            page.locator(".jp-OutputArea-output img").nth(1).scroll_into_view_if_needed()
            page.screenshot(path=str(Path(folder) / f"{path.stem}-{theme[11:].lower()}.png"))
        close_notebook(page)
    set_theme(server, "JupyterLab Light")


def test_pictures_made_in_a_run_have_words_too(lesson):
    page, _ = lesson
    page.wait_for_function(LOADED)
    images = page.evaluate(IMAGES)
    assert len(images) >= 8 and all(len(alt) > 20 and width > 100 for alt, width in images), images
