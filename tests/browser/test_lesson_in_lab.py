"""Lesson 06 as a newcomer meets it: opened in JupyterLab, run from top to bottom, and a patch clicked."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from lab import kernel_eval, lab_server, open_notebook, run_all, watch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSON = "06_timesformer.ipynb"
COLOUR = """([canvas, x, y]) => {
    const scale = canvas.width / canvas.getBoundingClientRect().width;
    const [r, g, b] = canvas.getContext('2d').getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1).data;
    return [r, g, b];
}"""


@pytest.fixture(scope="module")
def lesson(browser):
    with lab_server(NOTEBOOKS, env={"COURSE_PROFILE": "smoke", "COURSE_CLIPS": ""}) as server:
        page = browser.new_page(viewport={"width": 1400, "height": 1100})
        seen = watch(page)
        open_notebook(page, server, LESSON)
        page.set_default_timeout(300_000)
        run_all(page)
        page.set_default_timeout(30_000)
        yield page, seen
        page.close()


def test_all_cells_run_and_the_explorer_answers_a_click(lesson):
    page, seen = lesson
    canvas = page.locator(".attention-explorer canvas").first
    page.wait_for_function("canvas => canvas.dataset.painted === '1'", arg=canvas.element_handle())
    t, h, w = kernel_eval(page, "explorer.grid")
    geometry = kernel_eval(page, "explorer.geometry")
    query = (3 * h + 1) * w + 2  # frame 3, row 1, column 2

    def middle(token: int) -> tuple[float, float]:
        frame, inside = divmod(token, h * w)
        x, y = geometry["corners"][frame]
        return x + (inside % w + 0.5) * geometry["patch"], y + (inside // w + 0.5) * geometry["patch"]

    x, y = middle(query)
    canvas.scroll_into_view_if_needed()
    canvas.click(position={"x": x, "y": y})
    page.wait_for_function(
        "([canvas, query]) => canvas.dataset.pinned === query", arg=[canvas.element_handle(), str(query)]
    )
    until = time.monotonic() + 10
    while kernel_eval(page, "explorer.pinned") != query and time.monotonic() < until:
        page.wait_for_timeout(50)
    assert kernel_eval(page, "explorer.pinned") == query
    assert kernel_eval(page, "explorer.scheme") == "divided (T+S)"

    # Divided attention, one layer: the own frame and the own place are in colour, everything else is grey.
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    for token in range(t * h * w):
        frame, inside = divmod(token, h * w)
        px, py = middle(token)
        r, g, b = page.evaluate(COLOUR, [canvas.element_handle(), px, py])
        coloured = max(r, g, b) - min(r, g, b) > 12
        assert coloured == (frame == 3 or inside == query % (h * w)), (token, (r, g, b))
    assert not seen.errors and not seen.outside

    if folder := os.environ.get("COURSE_SCREENSHOTS"):
        canvas.scroll_into_view_if_needed()
        page.screenshot(path=str(Path(folder) / "lesson.png"))
