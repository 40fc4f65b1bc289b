"""The attention explorer, used as a learner uses it: in JupyterLab, in a browser, with a mouse and with keys."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from lab import Lab, Seen, kernel_eval, lab_server, open_notebook, run_all, watch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

# A clip and weights made up for the purpose: a disc that crosses the frames; tokens attend to what is near them.
MADE_UP = """
from typing import NamedTuple
import numpy as np
from course_lib.widgets import AttentionExplorer

class Map(NamedTuple):
    members: np.ndarray
    weights: np.ndarray

def clip(t, h, w, patch):
    y, x = np.mgrid[0 : h * patch, 0 : w * patch] / (w * patch)
    frames = np.empty((t, h * patch, w * patch, 3), np.uint8)
    for k in range(t):
        disc = (x - (k + 0.5) / t) ** 2 + (y - 0.4 - 0.2 * np.sin(k)) ** 2 < 0.015
        frames[k] = np.where(disc[..., None], (250, 190, 40), np.stack([60 + 90 * x, 110 - 50 * y, 150 - 90 * x], -1))
    return frames

def near(members, grid, heads):
    at = np.stack(np.unravel_index(members, grid), -1).astype(np.float32)
    apart = ((at[:, :, None] - at[:, None]) ** 2).sum(-1)
    weights = np.stack([np.exp(-apart / (2 * 4.0**head)) for head in range(heads)], 1)
    return Map(members, 0.9 * weights / weights.sum(-1, keepdims=True))

def explorer(t, h, w, patch, heads=3, **more):
    grid = (t, h, w)
    T, H, W = (axis.ravel() for axis in np.indices(grid))
    schemes = {
        "divided": [("time", H * w + W), ("space", T)],
        "space": [("space", T)],
        "joint": [("joint", 0 * T)],
        "windows": [("window", H // 2 * w + W // 2), ("shifted window", (H + 1) // 2 * w + (W + 1) // 2)],
    }
    tokens = np.arange(t * h * w).reshape(t, -1)
    maps = {"block 1 time": near(tokens.T, grid, heads), "block 1 space": near(tokens, grid, heads)}
    return AttentionExplorer(clip(*grid, patch), grid, schemes, maps, maps_scheme="divided", **more)
"""
CELLS = [
    MADE_UP,
    "drawn = explorer(2, 3, 4, 16)\ndrawn",
    "base = explorer(8, 14, 14, 16)\nbase",
    "large = explorer(16, 28, 28, 8)\nlarge",
]
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


class Open(NamedTuple):
    page: Any
    seen: Seen
    server: Lab
    folder: Path

    def canvas(self, number: int) -> Any:
        return self.page.locator(".attention-explorer canvas").nth(number)

    def ask(self, expression: str) -> Any:
        return kernel_eval(self.page, expression)

    def set(self, name: str, **values: Any) -> None:
        """Set traits in the kernel and wait until the page has them."""
        for trait, value in values.items():
            self.ask(f"setattr({name}, {trait!r}, {value!r})")
        canvas = self.canvas(["drawn", "base", "large"].index(name))
        self.wait(canvas, **{trait: value for trait, value in values.items() if trait != "hover"})

    def told(self, expression: str, value: Any) -> None:
        """Wait until the kernel has heard of it: the page answers first and tells the kernel after."""
        until = time.monotonic() + 10
        while (found := self.ask(expression)) != value and time.monotonic() < until:
            self.page.wait_for_timeout(50)
        assert found == value

    def wait(self, canvas: Any, **values: Any) -> None:
        self.page.wait_for_function(
            "([canvas, values]) => Object.entries(values).every(([name, value]) => canvas.dataset[name] === value)",
            arg=[canvas.element_handle(), {name: str(value) for name, value in values.items()}],
            timeout=10_000,
        )

    def says(self, number: int, words: str) -> None:
        """Wait for words in the read-out of an explorer."""
        self.page.wait_for_function(
            "([n, words]) => document.querySelectorAll('.attention-explorer .readout')[n].innerText.includes(words)",
            arg=[number, words],
            timeout=10_000,
        )

    def at(self, name: str, token: int) -> dict[str, float]:
        """Where the middle of a patch lies in the canvas, from the geometry that the widget publishes."""
        grid, geometry = self.ask(f"{name}.grid"), self.ask(f"{name}.geometry")
        frame, inside = divmod(token, grid[1] * grid[2])
        row, column = divmod(inside, grid[2])
        x, y = geometry["corners"][frame]
        return {"x": x + (column + 0.5) * geometry["patch"], "y": y + (row + 0.5) * geometry["patch"]}


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory) -> Iterator[Open]:
    folder = tmp_path_factory.mktemp("notebooks")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in CELLS],
        metadata=KERNEL,
    )
    nbformat.write(notebook, folder / "explorer.ipynb")
    with lab_server(folder) as server:
        page = browser.new_page(viewport={"width": 1400, "height": 1100})
        opened = Open(page, watch(page), server, folder)
        open_notebook(page, server, "explorer.ipynb")
        run_all(page)
        for number in range(len(CELLS) - 1):
            opened.wait(opened.canvas(number), painted=1)
        yield opened
        page.close()


@pytest.fixture(autouse=True)
def no_errors_and_no_requests_elsewhere(lab) -> Iterator[None]:
    yield
    assert lab.seen.errors == []
    assert lab.seen.outside == []


# One letter a patch, read from the pixel in its middle.
LETTERS = {"Q": "#0072B2", "t": "#D55E00", "s": "#56B4E9", "j": "#009E73", "w": "#CC79A7", "x": "#E69F00"}
READ = """([canvas, letters, tint, width, points]) => {
  const pen = canvas.getContext("2d"), scale = canvas.width / width;
  const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
  return points.map(([x, y]) => {
    const [...pixel] = pen.getImageData(Math.floor(x * scale), Math.floor(y * scale), 1, 1).data.slice(0, 3);
    if (Math.max(...pixel) - Math.min(...pixel) < 6) return ".";
    for (const [letter, hex] of Object.entries(letters)) {
      const cover = letter === "Q" ? 1 : tint, rest = pixel.map((level, i) => level - cover * rgb(hex)[i]);
      if (Math.max(...rest) - Math.min(...rest) < 6) return letter; // what is left is the grey picture beneath
    }
    return "?";
  });
}"""


def letters(lab: Open, number: int, name: str) -> str:
    grid, geometry = lab.ask(f"{name}.grid"), lab.ask(f"{name}.geometry")
    half, side = geometry["patch"] / 2, geometry["patch"]
    points = [
        (x + j * side + half, y + i * side + half)
        for x, y in geometry["corners"]
        for i in range(grid[1])
        for j in range(grid[2])
    ]
    tint = lab.ask(f"{name}.colours['tint']")
    canvas = lab.canvas(number).element_handle()
    return "".join(lab.page.evaluate(READ, [canvas, LETTERS, tint, geometry["size"][0], points]))


def drawing(text: str) -> str:
    """Two frames side by side, as drawn below, in the order of the tokens."""
    lines = [line.split() for line in text.strip().splitlines()]
    return "".join(line[frame] for frame in range(2) for line in lines)


@pytest.mark.parametrize(
    ("scheme", "view", "step", "drawn"),
    [
        (
            "divided",
            "one layer",
            "",
            """
            ....  ssss
            ..t.  ssQs
            ....  ssss
            """,
        ),
        (
            "divided",
            "one layer",
            "time",
            """
            ....  ....
            ..t.  ..Q.
            ....  ....
            """,
        ),
        (
            "divided",
            "two layers",
            "",
            """
            tttt  ssss
            tttt  ssQs
            tttt  ssss
            """,
        ),
        (
            "space",
            "two layers",
            "",
            """
            ....  ssss
            ....  ssQs
            ....  ssss
            """,
        ),
        (
            "joint",
            "one layer",
            "",
            """
            jjjj  jjjj
            jjjj  jjQj
            jjjj  jjjj
            """,
        ),
        (
            "windows",
            "one layer",
            "shifted window",
            """
            ....  ....
            .xx.  .xQ.
            .xx.  .xx.
            """,
        ),
        (
            "windows",
            "two layers",
            "",
            """
            wwww  wwww
            wxxw  wxQw
            wxxw  wxxw
            """,
        ),
    ],
)
def test_the_picture_colours_exactly_the_mask_drawn_by_hand(lab, scheme, view, step, drawn):
    lab.page.mouse.move(1, 1)
    lab.set("drawn", scheme=scheme, view=view, pinned=12 + 4 + 2)
    lab.set("drawn", step=step)
    assert letters(lab, 0, "drawn") == drawing(drawn)


def test_every_patch_of_the_full_grid_has_the_right_colour(lab):
    lab.page.mouse.move(1, 1)
    t, row, column = 5, 3, 11
    lab.set("base", scheme="divided", view="one layer", step="", pinned=(t * 14 + row) * 14 + column)

    def expected(elsewhere):
        for k in range(8):
            for i in range(14):
                for j in range(14):
                    same = (i, j) == (row, column)
                    yield ("Q" if same else "s") if k == t else "t" if same else elsewhere

    assert letters(lab, 1, "base") == "".join(expected("."))
    lab.set("base", view="two layers")
    assert letters(lab, 1, "base") == "".join(expected("t"))


def test_a_click_pins_and_the_pointer_previews(lab):
    lab.set("base", scheme="divided", view="one layer", step="", pinned=-1)
    canvas = lab.canvas(1)
    canvas.scroll_into_view_if_needed()
    clicked, hovered = (2 * 14 + 6) * 14 + 1, (7 * 14 + 13) * 14 + 13
    canvas.click(position=lab.at("base", clicked))
    lab.wait(canvas, pinned=clicked, query=clicked)
    lab.told("base.pinned", clicked)
    canvas.hover(position=lab.at("base", hovered))
    lab.wait(canvas, pinned=clicked, query=hovered)
    lab.told("[base.hover, base.pinned]", [hovered, clicked])
    said = "Patch at time 7, row 13, column 13. In one layer it may attend: 8 of 1568 tokens (time), 196 of 1568"
    assert lab.ask("base.readout").startswith(said)
    assert lab.page.locator(".attention-explorer .readout").nth(1).inner_text() == lab.ask("base.readout")
    lab.page.mouse.move(1, 1)
    lab.wait(canvas, query=clicked)
    canvas.click(position=lab.at("base", clicked))
    lab.wait(canvas, pinned=-1)


def test_keys_move_the_patch_and_choose_what_is_shown_and_the_notebook_stays_as_it_is(lab):
    lab.page.mouse.move(1, 1)
    lab.set(
        "base", scheme="divided", view="one layer", step="", layer="block 1 time", head=-1, pinned=(4 * 14 + 7) * 14
    )
    canvas = lab.canvas(1)
    cells = "() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.sharedModel.toJSON())"
    sources = [(cell["cell_type"], cell["source"]) for cell in lab.page.evaluate(cells)]
    canvas.click(position=lab.at("base", (4 * 14 + 7) * 14 + 1))
    lab.page.mouse.move(1, 1)
    # Left at the border stays; then down, right, next frame by page and by shift.
    for press, (t, row, column) in [
        ("ArrowLeft", (4, 7, 0)),
        ("ArrowLeft", (4, 7, 0)),
        ("ArrowDown", (4, 8, 0)),
        ("ArrowRight", (4, 8, 1)),
        ("PageDown", (5, 8, 1)),
        ("Shift+ArrowLeft", (4, 8, 1)),
        ("ArrowUp", (4, 7, 1)),
        ("Home", (0, 7, 1)),
        ("End", (7, 7, 1)),
    ]:
        lab.page.keyboard.press(press)
        lab.wait(canvas, pinned=(t * 14 + row) * 14 + column)
    for press, shown in [
        ("l", {"step": "time"}),
        ("s", {"scheme": "space", "step": ""}),
        ("Shift+S", {"scheme": "divided"}),
        ("v", {"view": "two layers"}),
        ("v", {"view": "learned"}),
        ("l", {"layer": "block 1 space"}),
        ("h", {"head": 0}),
        ("Shift+H", {"head": -1}),
        ("Shift+V", {"view": "two layers"}),
    ]:
        lab.page.keyboard.press(press)
        lab.wait(canvas, **shown)
        lab.told(f"[{', '.join(f'base.{name}' for name in shown)}]", list(shown.values()))
    lab.page.keyboard.press("1")  # JupyterLab would make a heading of it
    lab.page.keyboard.press("Escape")
    lab.wait(canvas, pinned=-1, query=-1)
    lab.told("base.pinned", -1)
    assert [(cell["cell_type"], cell["source"]) for cell in lab.page.evaluate(cells)] == sources


def test_the_controls_can_be_used_by_their_labels(lab):
    explorer = lab.page.locator(".attention-explorer").nth(1)
    lab.set("base", scheme="divided", view="one layer", pinned=100)
    explorer.get_by_label("Scheme").select_option("windows")
    explorer.get_by_label("Layer of the block").select_option("window")
    lab.wait(lab.canvas(1), scheme="windows", step="window")
    explorer.get_by_label("Learned weights").check()
    explorer.get_by_label("Head").select_option("2")
    lab.wait(lab.canvas(1), view="learned", head=2)
    lab.told("[base.scheme, base.step, base.view, base.head]", ["windows", "window", "learned", 2])


def test_learned_weights_are_told_as_the_kernel_has_them(lab):
    query = (3 * 14 + 7) * 14 + 7
    lab.page.mouse.move(1, 1)
    lab.set("base", view="learned", layer="block 1 time", head=0, pinned=query)
    lab.told("base.readout.startswith('Patch at time 3, row 7, column 7. Strongest in block 1 time, head 0')", True)
    weights = lab.ask(f"base._maps['block 1 time'].row({query})[1][0].tolist()")
    best = sorted(weights, reverse=True)[:3]
    told = lab.ask("base.readout")
    assert f"head 0: {best[0]:.2f} at time 3, row 7, column 7;" in told
    assert told.count(f"{best[1]:.2f} at time") == 2  # one frame before and one after, equally
    assert "add up to 0.90." in told


def test_weights_too_large_for_the_page_come_by_row_and_the_last_patch_wins(lab):
    lab.set("large", view="learned", layer="block 1 space", head=-1)
    lab.ask("setattr(large, 'asked', [])")
    slow = "__import__('time').sleep(0.2), large.asked.append(m['queries']), type(large)._answer(large, m)"
    lab.ask(f"setattr(large, '_answer', lambda m: ({slow})[-1])")
    assert lab.ask("large.weights") == []
    canvas = lab.canvas(2)
    canvas.scroll_into_view_if_needed()
    box, last = canvas.bounding_box(), (9 * 28 + 20) * 28 + 5
    to = lab.at("large", last)
    lab.page.mouse.move(box["x"] + to["x"] - 110, box["y"] + to["y"])
    lab.page.mouse.move(box["x"] + to["x"], box["y"] + to["y"], steps=40)
    lab.wait(canvas, query=last, waiting=0)
    asked = lab.ask("large.asked")
    assert last in asked[-1]
    assert len(asked) < 18  # the pointer crossed 23 patches
    assert max(map(len, asked)) <= 9 and len({query for queries in asked for query in queries}) == sum(map(len, asked))
    lab.says(2, "Patch at time 9, row 20, column 5. Strongest in block 1 space, mean of 3")
    lab.ask("delattr(large, '_answer')")


def test_a_kernel_that_does_not_answer_is_given_up_and_its_late_answer_still_shown(lab):
    lab.page.mouse.move(1, 1)
    lab.set("large", view="learned", layer="block 1 space")
    lab.ask("setattr(large, '_answer', lambda m: (__import__('time').sleep(1.2), type(large)._answer(large, m))[1])")
    lab.ask("setattr(large, 'pinned', 77)")
    lab.says(2, "Waiting for the kernel")
    lab.says(2, "did not answer within 0.5 s")
    lab.says(2, "Strongest in block 1 space")
    lab.wait(lab.canvas(2), waiting=0, query=77)
    lab.ask("delattr(large, '_answer')")


def test_after_an_answer_that_never_came_the_next_patch_is_asked_for_and_enter_asks_again(lab):
    lab.page.mouse.move(1, 1)
    lab.set("large", view="learned", layer="block 1 space")
    lose, answer = "setattr(large, '_answer', lambda m: ({'kind': 'lost'}, []))", "delattr(large, '_answer')"
    lab.ask(lose)
    lab.ask("setattr(large, 'pinned', 12000)")
    lab.says(2, "did not answer within 0.5 s")
    lab.ask(answer)
    lab.canvas(2).focus()
    lab.page.keyboard.press("Enter")
    lab.says(2, "Strongest in block 1 space")
    lab.ask(lose)
    lab.ask("setattr(large, 'pinned', 9000)")
    lab.says(2, "did not answer within 0.5 s")
    lab.ask(answer)
    lab.ask("setattr(large, 'pinned', 6000)")
    lab.wait(lab.canvas(2), waiting=0, query=6000)
    lab.says(2, "Strongest in block 1 space")


def test_the_lecture_page_works_from_a_file_without_kernel_and_network(lab, browser, tmp_path):
    lab.set("base", scheme="divided", view="one layer", step="", pinned=100)
    lab.ask(f"str(base.save_html({str(tmp_path / 'lecture.html')!r}))")
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    seen = watch(page)
    page.goto((tmp_path / "lecture.html").as_uri())
    canvas = page.locator("canvas[data-painted='1']")
    canvas.click(position=lab.at("base", 1000))
    page.keyboard.press("v")
    page.keyboard.press("v")
    assert canvas.get_attribute("data-pinned") == "1000" and canvas.get_attribute("data-view") == "learned"
    assert "Strongest in block 1 time" in page.locator(".readout").inner_text()
    assert not seen.errors and not seen.outside
    page.close()


def test_a_stored_notebook_shows_the_picture_and_its_alt_text_before_anything_has_run(lab, browser):
    data, metadata = lab.ask("drawn._repr_mimebundle_()")
    output = nbformat.v4.new_output("execute_result", data, metadata=metadata, execution_count=1)
    cell = nbformat.v4.new_code_cell("drawn", outputs=[output], execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=KERNEL), lab.folder / "stored.ipynb")
    page = browser.new_page()
    seen = watch(page)
    open_notebook(page, lab.server, "stored.ipynb")
    picture = page.locator(".jp-OutputArea-output img")
    picture.wait_for()
    assert picture.get_attribute("alt") == data["text/plain"]
    assert picture.evaluate("picture => picture.complete && picture.naturalWidth > 100")
    assert not seen.errors and not seen.outside
    page.close()


LISTEN = """number => {
  window.measured = [];
  window.listening?.abort();
  window.listening = new AbortController();
  document.querySelectorAll(".attention-explorer")[number].addEventListener("explorer-drawn", ({ detail }) => {
    if (detail.complete) requestAnimationFrame(() => requestAnimationFrame(() => // then the first has been shown
      window.measured.push([detail.milliseconds, performance.now() - detail.since])));
  }, window.listening);
}"""


@pytest.mark.parametrize("far", [False, True], ids=["to the next patch", "to another frame"])
@pytest.mark.parametrize("view", ["one layer", "two layers", "learned"])
@pytest.mark.parametrize("name", ["base", "large"])
def test_the_time_from_pointer_to_picture_is_measured(lab, figures, name, view, far):
    lab.page.mouse.move(1, 1)
    lab.set(name, scheme="divided", view=view, layer="block 1 space", head=-1)
    number = ["drawn", "base", "large"].index(name)
    canvas = lab.canvas(number)
    canvas.scroll_into_view_if_needed()
    box, grid, geometry = canvas.bounding_box(), lab.ask(f"{name}.grid"), lab.ask(f"{name}.geometry")
    corners, side = geometry["corners"], geometry["patch"]
    lab.page.evaluate(LISTEN, number)
    for i in range(48):
        # Near: along a snake of 12 x 4 patches in one frame. Far: another frame and another patch every time.
        row, column = divmod(i, 12)
        x, y = corners[i * 5 % len(corners)] if far else corners[-1]
        at = (i % 10 + 2, i % 10 + 2) if far else ((11 - column if row % 2 else column) + 1, row + 4)
        lab.page.mouse.move(box["x"] + x + (at[0] + 0.5) * side, box["y"] + y + (at[1] + 0.5) * side)
        lab.page.wait_for_function("many => window.measured.length >= many", arg=i + 1, timeout=10_000)
        lab.page.wait_for_timeout(40 + i * 7 % 17)  # so that moves fall anywhere between two screen refreshes
    draw, paint = (sorted(values) for values in zip(*lab.page.evaluate("() => window.measured"), strict=True))
    figures(
        f"explorer {'x'.join(map(str, grid))}, {view}, pointer to {'another frame' if far else 'the next patch'}",
        {
            "moves": len(draw),
            "draw_ms_median": round(statistics.median(draw), 2),
            "draw_ms_p95": round(draw[int(0.95 * len(draw))], 2),
            "hover_to_paint_ms_median": round(statistics.median(paint), 1),
            "hover_to_paint_ms_p95": round(paint[int(0.95 * len(paint))], 1),
        },
    )
