"""The attention explorer, used as a learner uses it: in JupyterLab, in a browser, with a mouse and with keys."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from lab import Lab, Seen, kernel_eval, lab_server, open_notebook, run_all, set_theme, watch
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

SET_UP = """
import os, time
import numpy as np, torch
from course_lib.grid import Grid
from course_lib.models import build
from course_lib.widgets.explore import explore

def film(t, h, w):
    y, x = np.mgrid[0:h, 0:w] / w
    frames = np.empty((t, h, w, 3), np.uint8)
    for k in range(t):
        disc = (x - (k + 0.5) / t) ** 2 + (y - 0.4 - 0.2 * np.sin(k)) ** 2 < 0.015
        frames[k] = np.where(disc[..., None], (250, 190, 40), np.stack([60 + 90 * x, 110 - 50 * y, 150 - 90 * x], -1))
    return frames

def opened(nets, clip=True, **more):
    torch.manual_seed(0)
    nets = {name: build(net, **changes) for name, (net, changes) in nets.items()}
    size = max(net.config.clip for net in nets.values())
    seen = torch.randn(1, 3, *size) if clip else None
    return explore(nets, seen, film(*size), **more)

def layer(widget, source, name):
    return next(one for one in widget.relations[source] if one.name == name)

def part(widget, source, name, part):
    return layer(widget, source, name).parts[part]

def until_there(path):
    last = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < last:
        time.sleep(0.02)

def row(widget, source, name, query):
    return "".join("#" if bit else "." for bit in layer(widget, source, name).mask_row(query))
"""
CELLS = {  # a cell for each explorer
    "masks": """masks = opened({
    "divided": ("timesformer_tiny", dict(frames=2, depth=1)),
    "split heads": ("vivit_tiny", dict(frames=4, model=4, pool="gap", depth=1)),
    "band": ("vtn_tiny", dict(frames=4, window=2)),
    "rows of class tokens": ("vidtr_tiny", dict(frames=4, depth=1)),
    "pooled": ("mvit_tiny", dict(frames=4)),
    "windows": ("video_swin_tiny", dict(frames=4)),
    "non-local": ("nonlocal_tiny", dict(frames=4, size=64)),
    "slow and fast": ("slowfast_tiny", dict(frames=8, size=64)),
    "two encoders": ("vivit_tiny", dict(frames=4, model=2, depth=1)),
    "convolutions": ("r2plus1d_tiny", dict(frames=4, size=64)),
}, clip=False)
masks""",
    "learned": """learned = opened({"TimeSformer": ("timesformer_tiny", dict(depth=2))}, label=1)
learned""",
    "asked": """asked = opened({"TimeSformer": ("timesformer_tiny", dict(depth=2))}, whole_rows_bytes=0)
asked""",
    "kept": """kept = opened({"C-VidTr": ("cvidtr_tiny", {})})
kept""",
    "signed": """signed = opened({"dot product": ("nonlocal_tiny", dict(affinity="dot_product"))})
signed""",
    "used": """used = opened({"R(2+1)D": ("r2plus1d_tiny", dict(size=32))})
used""",
}
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


class Open(NamedTuple):
    page: Any
    seen: Seen
    server: Lab
    folder: Path
    names: list[str]

    def canvas(self, name: str) -> Any:
        return self.page.locator(".attention-explorer canvas").nth(self.names.index(name))

    def root(self, name: str) -> Any:
        return self.page.locator(".attention-explorer").nth(self.names.index(name))

    def ask(self, expression: str) -> Any:
        return kernel_eval(self.page, expression)

    def set(self, name: str, **values: Any) -> None:
        """Set traits in the kernel and wait until the page has them."""
        self.page.mouse.move(1, 1)
        for trait, value in values.items():
            self.ask(f"setattr({name}, {trait!r}, {value!r})")
        shown = {trait: value for trait, value in values.items() if trait not in ("hover", "compared")}
        self.wait(name, **shown)

    def told(self, expression: str, value: Any) -> None:
        """Wait until the kernel has heard of it: the page answers first and tells the kernel after."""
        until = time.monotonic() + 60
        while (found := self.ask(expression)) != value and time.monotonic() < until:
            self.page.wait_for_timeout(50)
        assert found == value

    def wait(self, name: str, **values: Any) -> None:
        texts = {
            key: " ".join(map(str, value)) if isinstance(value, list) else str(value) for key, value in values.items()
        }
        self.page.wait_for_function(
            "([canvas, values]) => Object.entries(values).every(([name, value]) => canvas.dataset[name] === value)",
            arg=[self.canvas(name).element_handle(), texts],
            timeout=60_000,
        )

    def says(self, name: str, words: str) -> None:
        """Wait for words in the read-out of an explorer."""
        self.page.wait_for_function(
            "([n, words]) => document.querySelectorAll('.attention-explorer .readout')[n].innerText.includes(words)",
            arg=[self.names.index(name), words],
            timeout=60_000,
        )

    def layout(self, name: str, board: int = 0) -> dict:
        return self.canvas(name).evaluate("(canvas, board) => canvas.layouts[board]", board)

    def at(self, name: str, step: int, row: float, column: float) -> dict[str, float]:
        """A point of a panel: row and column as shares of it."""
        layout = self.layout(name)
        (x, y), (wide, high) = layout["corners"][step], layout["panel"]
        return {"x": x + column * wide, "y": y + row * high}

    def click(self, name: str, step: int, row: float, column: float) -> None:
        self.canvas(name).scroll_into_view_if_needed()
        self.canvas(name).click(position=self.at(name, step, row, column))

    def shot(self, name: str, picture: str) -> None:
        """Keep a picture where COURSE_SCREENSHOTS says, to be looked at."""
        if folder := os.environ.get("COURSE_SCREENSHOTS"):
            self.root(name).screenshot(path=str(Path(folder) / f"{picture}.png"))


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory) -> Iterator[Open]:
    folder = tmp_path_factory.mktemp("notebooks")
    cells = [nbformat.v4.new_code_cell(source) for source in (SET_UP, *CELLS.values())]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), folder / "explorer.ipynb")
    with lab_server(folder) as server:
        page = browser.new_page(viewport={"width": 1400, "height": 1100})
        opened = Open(page, watch(page), server, folder, list(CELLS))
        open_notebook(page, server, "explorer.ipynb")
        page.set_default_timeout(120_000)
        run_all(page)
        page.set_default_timeout(30_000)
        for name in CELLS:
            opened.wait(name, painted=1)
        yield opened
        page.close()


@pytest.fixture(autouse=True)
def no_errors_and_no_requests_elsewhere(lab) -> Iterator[None]:
    yield
    assert lab.seen.errors == []
    assert lab.seen.outside == []


# Is a token coloured? Read in its lower right part, where no outline and no mark lies.
READ = """([canvas, board, tokens]) => {
  const layout = canvas.layouts[board], pen = canvas.getContext("2d");
  const scale = canvas.width / parseFloat(canvas.style.width), found = [];
  const [T, H, W] = layout.grid;
  const read = (x, y) => {
    const [...pixel] = pen.getImageData(Math.floor(x * scale), Math.floor(y * scale), 1, 1).data.slice(0, 3);
    found.push(Math.max(...pixel) - Math.min(...pixel) < 22 ? "." : "#");
  };
  for (let t = 0; t < T; t++) for (let i = 0; i < H; i++) for (let j = 0; j < W; j++) {
    const [x, y] = layout.corners[t];
    read(x + (j + 0.7) * layout.panel[0] / W, y + (i + 0.7) * layout.panel[1] / H);
  }
  for (const { x, y, side, columns, count } of layout.tiles) for (let k = 0; k < count; k++)
    read(x + (k % columns + 0.6) * side, y + (Math.floor(k / columns) + 0.6) * side);
  return found.join("");
}"""


def picture(lab: Open, name: str, board: int = 0) -> str:
    return lab.page.evaluate(READ, [lab.canvas(name).element_handle(), board, 0])


# source, layer, where [frame, row, column] or a class token, and the panels drawn by hand: line by line, extra behind
KINDS = [
    ("divided", "block 1 time", [5, 24, 40], "..../..#./..../.... ..../..#./..../....|."),
    ("divided", "block 1 space", [5, 24, 40], "..../..../..../.... ####/####/####/####|#"),
    ("divided", "block 1 space", ["class token", 0], "####/####/####/#### ####/####/####/####|#"),
    ("split heads", "block 1 half time, half space", [1, 24, 40], "####/####/####/#### ..../..#./..../...."),
    ("band", "block 1 band of 3", [0, 0, 0], "# # . .|#"),
    ("band", "block 1 band of 3", ["class token", 0], "# # # #|#"),
    ("rows of class tokens", "block 1 time", ["class token of the place", 3], None),
    ("pooled", "block 2 pooled attention", [0, 5, 5], None),
    ("windows", "stage 1 block 2 shifted windows", [0, 20, 12], None),
    ("windows", "stage 2 merging", [0, 20, 12], None),
    ("non-local", "res4 non-local block after block 2 joint", [0, 20, 12], None),
    ("slow and fast", "join after stem", [5, 30, 30], None),
    ("two encoders", "frames", [2, 20, 12], None),
    ("two encoders", "time encoder block 1 time", [2, 20, 12], None),
    ("convolutions", "conv3 block 1 first time", [2, 30, 30], None),
]


@pytest.mark.parametrize(("source", "layer", "place", "drawn"), KINDS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_known_relation_of_each_kind_is_coloured_token_by_token(lab, source, layer, place, drawn):
    lab.set("masks", view="one layer", source=source)
    lab.set("masks", layer=layer, pinned=place)
    lab.says("masks", layer)
    query = int(lab.canvas("masks").get_attribute("data-query"))
    assert query == lab.ask(
        f"masks.token({place!r}, next(one for one in masks.relations[{source!r}] if one.name == {layer!r}))"
    )
    found = picture(lab, "masks")
    assert found == lab.ask(f"row(masks, {source!r}, {layer!r}, {query})")
    if drawn is not None:
        assert found == drawn.replace("/", "").replace(" ", "").replace("|", "")
    lab.shot("masks", f"{source}, {layer}".replace(" ", "_"))


def test_a_unit_of_a_convolution_shows_what_it_sees_of_the_clip(lab):
    lab.set("masks", view="one layer", source="convolutions")
    lab.set("masks", layer="conv2 block 1 first time", pinned=[2, 33, 33])
    lab.set("masks", view="whole network")
    sees = lab.ask(
        "[np.flatnonzero(axis[i]).tolist() for axis, i in zip(next(one for one in masks.relations['convolutions'] "
        "if one.name == 'conv2 block 1 first time').queries.sees, (1, 16, 16))]"
    )
    canvas, layout = lab.canvas("masks"), lab.layout("masks")
    assert layout["grid"] == [4, 64, 64]
    found = picture(lab, "masks")
    want = "".join(
        "#" if t in sees[0] and i in sees[1] and j in sees[2] else "."
        for t in range(4)
        for i in range(64)
        for j in range(64)
    )
    assert sum(a != b for a, b in zip(found, want, strict=True)) < 0.02 * len(want)  # but for the outline
    assert canvas.get_attribute("data-view") == "whole network"
    lab.says("masks", "of the clip through all layers up to conv2 block 1 first time")
    lab.shot("masks", "reach_of_a_unit")


def test_a_whole_block_shows_what_comes_in_through_all_its_layers(lab):
    lab.set("masks", source="divided", view="one layer")
    lab.set("masks", layer="block 1 time", pinned=[5, 24, 40])
    lab.set("masks", view="whole block")
    assert picture(lab, "masks") == "#" * 33
    lab.says(
        "masks",
        "Through all layers of block 1 it can depend on all 33 tokens: 17 in the last layer (space), 16 through time.",
    )
    lab.shot("masks", "whole_block")


def test_a_click_pins_and_the_pointer_previews(lab):
    lab.set("learned", source="TimeSformer", view="one layer", pinned=[])
    lab.set("learned", layer="block 1 space")
    lab.click("learned", 2, 0.6, 0.1)
    lab.wait("learned", pinned=[2, 40, 8], query=2 * 16 + 2 * 4)
    lab.told("learned.pinned", [2, 40, 8])
    lab.canvas("learned").hover(position=lab.at("learned", 7, 0.9, 0.9))
    lab.wait("learned", pinned=[2, 40, 8], query=127)
    lab.told("[learned.hover[0], learned.pinned]", [7, [2, 40, 8]])
    said = "Patch at time 7, row 3, column 3. In block 1 space it may take from 17 of 129 tokens (space)."
    lab.told("learned.readout", said)
    assert lab.root("learned").locator(".readout").inner_text() == said
    lab.page.mouse.move(1, 1)
    lab.wait("learned", query=40)
    lab.click("learned", 2, 0.6, 0.1)
    lab.wait("learned", pinned=[])


def test_the_class_token_is_a_tile_that_can_be_asked(lab):
    lab.set("learned", source="TimeSformer, learned", view="one layer")
    lab.set("learned", layer="block 2 space", pinned=[4, 32, 32], head=0)
    (tile,) = lab.layout("learned")["tiles"]
    assert tile["name"] == "class token"
    lab.canvas("learned").scroll_into_view_if_needed()
    lab.canvas("learned").click(position={"x": tile["x"] + 8, "y": tile["y"] + 8})
    lab.wait("learned", pinned=["class token", 0], query=128)
    lab.told("learned.pinned", ["class token", 0])
    row = lab.ask("part(learned, 'TimeSformer, learned', 'block 2 space', 'space').row(128).mean(0).tolist()")
    best = max(range(129), key=row.__getitem__)
    words = "class token" if best == 128 else f"time {best // 16}, row {best // 4 % 4}, column {best % 4}"
    decimals = 4 if max(row) < 0.0255 else 3 if max(row) < 0.255 else 2
    lab.says("learned", f"Class token. Strongest in block 2 space, mean of 4 heads: {max(row):.{decimals}f} at {words}")
    lab.says(
        "learned",
        "It takes from all 129 tokens, 0.0078 each if all were equal"
        if decimals == 4
        else "It takes from all 129 tokens",
    )
    assert "equal share" in lab.root("learned").locator(".legend").inner_text()
    lab.set("learned", layer="block 2 time")
    lab.says("learned", "It takes from nobody in block 2 time")
    lab.shot("learned", "class_token")


def test_keys_move_the_patch_and_choose_what_is_shown_and_the_notebook_stays_as_it_is(lab):
    lab.set("learned", source="TimeSformer, learned", view="one layer")
    lab.set("learned", layer="block 1 time", head=0, pinned=[4, 40, 8])
    cells = "() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.sharedModel.toJSON())"
    sources = [(cell["cell_type"], cell["source"]) for cell in lab.page.evaluate(cells)]
    lab.canvas("learned").focus()
    for press, (t, row, column) in [
        ("ArrowLeft", (4, 2, 0)),
        ("ArrowDown", (4, 3, 0)),
        ("ArrowRight", (4, 3, 1)),
        ("PageDown", (5, 3, 1)),
        ("Shift+ArrowLeft", (4, 3, 1)),
        ("ArrowUp", (4, 2, 1)),
        ("Home", (0, 2, 1)),
        ("End", (7, 2, 1)),
    ]:
        lab.page.keyboard.press(press)
        lab.wait("learned", pinned=[t, row * 16 + 8, column * 16 + 8])
    for press, shown in [
        ("l", {"layer": "block 1 space"}),
        ("h", {"head": 1}),
        ("Shift+H", {"head": 0}),
        ("v", {"view": "whole block"}),
        ("v", {"view": "whole network"}),
        ("s", {"source": "TimeSformer", "layer": "block 1 space"}),
        ("Shift+V", {"view": "whole block"}),
        ("Shift+S", {"source": "TimeSformer, learned"}),
        ("e", {"pinned": ["class token", 0]}),
        ("e", {"pinned": [4, 32, 32]}),
    ]:
        lab.page.keyboard.press(press)
        lab.wait("learned", **shown)
        lab.told(f"[{', '.join(f'learned.{name}' for name in shown)}]", list(shown.values()))
    lab.page.keyboard.press("1")  # JupyterLab would make a heading of it
    lab.page.keyboard.press("Escape")
    lab.wait("learned", pinned=[], query=-1)
    lab.told("learned.pinned", [])
    assert [(cell["cell_type"], cell["source"]) for cell in lab.page.evaluate(cells)] == sources


def test_the_controls_can_be_used_by_their_labels_and_sources_compared(lab):
    root = lab.root("masks")
    lab.set("masks", view="one layer", pinned=[0, 20, 20])
    root.get_by_label("Scheme or network").select_option("divided")
    root.get_by_label("Layer", exact=True).select_option("block 1 space")
    lab.wait("masks", source="divided", layer="block 1 space")
    root.get_by_label("Compare all").check()
    lab.told("masks.compared", lab.ask("list(masks.relations)"))
    assert lab.canvas("masks").evaluate("canvas => canvas.layouts.length") == 10
    lab.says("masks", "windows: Patch at time 0")
    lab.page.mouse.move(1, 1)
    lab.wait("masks", query=5)
    assert picture(lab, "masks", 0) == lab.ask("row(masks, 'divided', 'block 1 space', 5)")
    windows = (
        "row(masks, 'windows', 'stage 1 block 1 windows', masks.token([0, 20, 20], masks.relations['windows'][1]))"
    )
    differ = [a != b for a, b in zip(picture(lab, "masks", 5), lab.ask(windows), strict=True)]
    assert sum(differ) <= 2  # patches are so small here that the outline covers some
    lab.shot("masks", "compared")
    root.get_by_label("Compare all").uncheck()
    lab.told("masks.compared", [])


def test_weights_are_told_as_the_kernel_has_them_and_blocks_as_rollout(lab):
    lab.set("learned", source="TimeSformer, learned", view="one layer")
    lab.set("learned", layer="block 1 time", head=2, pinned=[3, 40, 40])
    layer = "next(one for one in learned.relations['TimeSformer, learned'] if one.name == 'block 1 time')"
    row = lab.ask(f"{layer}.parts['time'].row({3 * 16 + 10})[1].tolist()")
    best = max(row)
    lab.says(
        "learned",
        f"Strongest in block 1 time, head 2: {best:.3f}"[:-1]
        if best < 0.255
        else f"Strongest in block 1 time, head 2: {best:.2f}",
    )
    lab.says("learned", "It takes from 8 of 129 tokens")
    lab.set("learned", view="whole block")
    lab.says("learned", "Strongest in block 1, rollout (approximate)")
    lab.shot("learned", "rollout")


def test_hiding_what_it_takes_most_from_tells_the_drop_of_the_score(lab):
    lab.set("learned", source="TimeSformer, learned", view="one layer", pinned=["class token", 0])
    lab.set("learned", layer="block 2 space")
    lab.root("learned").get_by_role("button", name="Hide what it takes most from").click()
    words = lab.root("learned").locator(".hidden-words")
    lab.page.wait_for_function("words => words.innerText.includes('patches hidden')", arg=words.element_handle())
    assert words.inner_text().startswith("25 of 128 patches hidden: the score falls by")


def test_frames_that_were_kept_are_marked(lab):
    lab.set("kept", source="C-VidTr, learned", pinned=[0, 8, 8])
    lab.set("kept", layer="block 2 time, 4 frames kept", head=1)
    marks = "part(kept, 'C-VidTr, learned', 'block 2 time, 4 frames kept', 'kept').row(0)[0]"
    frames = lab.ask(f"({marks}.nonzero()[0] // 16).tolist()")
    lab.says("kept", f"Marked: what it goes on from ({', '.join(f'time {frame}' for frame in frames)}).")
    lab.shot("kept", "kept")


def test_affinities_have_a_sign(lab):
    layer = "res4 non-local block after block 2 joint"
    lab.set("signed", source="dot product, learned", pinned=[3, 30, 30])
    lab.set("signed", layer=layer)
    lab.says("signed", "These are affinities, which may be negative")
    assert "affinity below zero" in lab.root("signed").locator(".legend").inner_text()
    lab.shot("signed", "affinities")


def test_what_a_unit_of_a_convolution_used_is_worked_out_when_it_is_clicked(lab):
    name, source = "conv3 block 1 first time", "R(2+1)D, used"
    lab.ask("setattr(used, 'heard', [])")
    heard = "(used.heard.append(m['queries']), type(used)._answer(used, m))[-1]"
    lab.ask(f"setattr(used, '_answer', lambda m: {heard})")
    lab.set("used", source=source, view="one layer", pinned=[])
    lab.set("used", layer=name)
    lab.click("used", 4, 0.6, 0.3)
    lab.wait("used", waiting=0, pinned=[5, 18, 10])
    query = (2 * 8 + 4) * 8 + 2
    row = lab.ask(f"part(used, {source!r}, {name!r}, 'gradient norm').row({query})[0].tolist()")
    asked = lab.ask("used.heard")
    assert asked[-1] == [query] and {len(queries) for queries in asked} == {1}
    found, many = picture(lab, "used"), sum(value > 0 for value in row)
    nothing = [mark for value, mark in zip(row, found, strict=True) if value == 0]
    much = [mark for value, mark in zip(row, found, strict=True) if value > 1.5 / many]
    assert nothing.count("#") < 20 < 4000 < len(nothing)  # but for the outline
    assert much.count(".") < 20 < 400 < len(much)
    lab.page.mouse.move(1, 1)
    sees = lab.ask(
        "[np.flatnonzero(axis[i])[[0, -1]].tolist() for axis, i in "
        f"zip(layer(used, {source!r}, {name!r}).queries.sees, (2, 4, 2))]"
    )
    (first, _), (top, _), (_, right) = sees
    assert first == 0 and 0 < top < right < 31
    white = """([canvas, top, right]) => {
      const { corners: [[x, y]], panel: [wide, high] } = canvas.layouts[0], pen = canvas.getContext("2d");
      const scale = canvas.width / parseFloat(canvas.style.width);
      const at = (x, y) => [...pen.getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1).data.slice(0, 3)];
      return [at(x + 5, y + (top * high) / 32), at(x + ((right + 1) * wide) / 32 - 1, y + ((top + 2) * high) / 32)];
    }"""
    edge = lab.page.evaluate(white, [lab.canvas("used").element_handle(), top, right])
    assert edge == [[255, 255, 255]] * 2, "the box is as wide and as high as what the unit sees"
    best = max(range(len(row)), key=row.__getitem__)
    lab.says("used", f"at time {best // 1024}, row {best // 32 % 32}, column {best % 32};")
    lab.says("used", f"its gradient is not zero in {many} of 8192 places")
    assert "all that it sees" in lab.root("used").locator(".legend").inner_text()
    assert not lab.root("used").get_by_label("Head").is_visible()
    lab.shot("used", "used")
    lab.ask("delattr(used, '_answer')")


def test_rows_that_the_kernel_keeps_come_when_asked_and_the_last_patch_wins(lab):
    lab.set("asked", source="TimeSformer, learned", view="one layer", pinned=[])
    lab.set("asked", layer="block 1 space")
    lab.ask("setattr(asked, 'heard', [])")
    slow = "__import__('time').sleep(0.2), asked.heard.append(m['queries']), type(asked)._answer(asked, m)"
    lab.ask(f"setattr(asked, '_answer', lambda m: ({slow})[-1])")
    assert lab.ask("asked.rows") == {}
    canvas = lab.canvas("asked")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    places = [lab.at("asked", i % 8, 0.1 + 0.8 * (i % 4) / 3, 0.9 - 0.8 * (i % 3) / 2) for i in range(30)]
    passing = """([canvas, places]) => {
      for (const [clientX, clientY] of places)
        canvas.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY }));
      return Number(canvas.dataset.query);
    }"""  # at once, however fast the machine is
    to = [[box["x"] + place["x"], box["y"] + place["y"]] for place in places]
    last = lab.page.evaluate(passing, [canvas.element_handle(), to])
    lab.wait("asked", waiting=0)
    log = lab.ask("asked.heard")
    assert (
        len(log) == 2 and last in log[-1] and max(map(len, log)) <= 9
    )  # the first, and where the pointer came to rest
    lab.says("asked", "Strongest in block 1 space")
    canvas.dispatch_event("pointerleave")
    lab.ask("delattr(asked, '_answer')")


def test_a_kernel_that_does_not_answer_is_given_up_and_enter_asks_again(lab):
    lab.set("asked", source="TimeSformer, learned", view="one layer")
    lab.set("asked", layer="block 2 time")
    now = lab.folder / "now"
    slow = f"until_there({str(now)!r}), type(asked)._answer(asked, m)"
    lab.ask(f"setattr(asked, '_answer', lambda m: ({slow})[1])")
    lab.set("asked", pinned=[7, 60, 60])
    lab.says("asked", "did not answer within 0.5 s")
    now.touch()
    lab.says("asked", "Strongest in block 2 time")  # late, and still shown
    lab.ask("setattr(asked, '_answer', lambda m: ({'kind': 'lost'}, []))")
    lab.set("asked", pinned=[0, 0, 0])
    lab.says("asked", "did not answer within 0.5 s")
    lab.ask("delattr(asked, '_answer')")
    lab.canvas("asked").focus()
    lab.page.keyboard.press("Enter")
    lab.says("asked", "Strongest in block 2 time")


def test_the_lecture_page_works_from_a_file_without_kernel_and_network(lab, browser, tmp_path):
    lab.set("learned", source="TimeSformer, learned", view="one layer", pinned=[4, 32, 32])
    lab.ask(f"str(learned.save_html({str(tmp_path / 'lecture.html')!r}))")
    page = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme="dark")
    seen = watch(page)
    page.goto((tmp_path / "lecture.html").as_uri())
    canvas = page.locator("canvas[data-painted='1']")
    canvas.click(position=lab.at("learned", 1, 0.1, 0.1))
    page.keyboard.press("v")
    expect(canvas).to_have_attribute("data-pinned", "1 8 8")
    expect(canvas).to_have_attribute("data-view", "whole block")
    expect(page.locator(".readout")).to_contain_text("rollout (approximate)")
    assert not seen.errors and not seen.outside
    if folder := os.environ.get("COURSE_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / "lecture.png"))
    page.close()


def test_a_stored_notebook_shows_the_picture_and_its_alt_text_before_anything_has_run(lab, browser):
    data, metadata = lab.ask("masks._repr_mimebundle_()")
    output = nbformat.v4.new_output("execute_result", data, metadata=metadata, execution_count=1)
    cell = nbformat.v4.new_code_cell("drawn", outputs=[output], execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=KERNEL), lab.folder / "stored.ipynb")
    set_theme(lab.server, "JupyterLab Dark")
    page = browser.new_page()
    seen = watch(page)
    open_notebook(page, lab.server, "stored.ipynb")
    shown = page.locator(".jp-OutputArea-output img")
    shown.wait_for()
    assert shown.get_attribute("alt") == data["text/plain"]
    loaded = "picture => picture.complete && picture.naturalWidth > 100"
    page.wait_for_function(loaded, arg=shown.element_handle())
    assert not seen.errors and not seen.outside
    page.close()
    set_theme(lab.server, "JupyterLab Light")
