"""Slides in a browser without a network, as a lecturer shows them: every slide of every lesson is measured."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from lab import chromium_path, watch
from playwright.sync_api import expect

from course_lib.export.plans import Plan, read_plans
from course_lib.export.slides import write_handout, write_plan, write_slides
from course_lib.lesson import explore_variants

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
SMALLEST = 24  # CSS pixels at 1280 x 720, 18 points; what is said in an explorer, too
SMALLEST_IN_FIGURE = 14  # by what a figure says of itself; figures.letters aims at 16
# Letters of the slide that is shown as [size, their words], what is cut off, and what lies outside. Letters in pictures
# and in an explorer's frames are not found as text.
MEASURE = r"""() => {
  const section = document.querySelector("section.present"), sheet = section.querySelector(".sheet");
  const frame = sheet.getBoundingClientRect(), letters = [], outside = [];
  const walker = document.createTreeWalker(document.querySelector(".reveal"), NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement, box = document.createRange();
    if (!node.data.trim() || !parent.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    if (parent.closest("aside.notes, .aria-status, option, script, .name, legend")) continue;
    let zoom = 1;
    for (let one = parent; one; one = one.parentElement) zoom *= Number(getComputedStyle(one).zoom || 1);
    const math = parent.closest("math"), of = math ?? parent; // indices are smaller than their letters
    letters.push([parseFloat(getComputedStyle(of).fontSize) * zoom, node.data.trim().slice(0, 40)]);
    box.selectNodeContents(node);
    for (const {left, right, top, bottom} of box.getClientRects())
      if (left < -1 || right > 1281 || top < -1 || bottom > 721) outside.push(node.data.trim().slice(0, 40));
  }
  for (const one of sheet.querySelectorAll("img, canvas, table, pre")) {
    const {left, right, top, bottom} = one.getBoundingClientRect();
    if (left < -1 || right > 1281 || top < -1 || bottom > 721) outside.push(one.tagName);
  }
  return { title: section.querySelector("h1, h2").textContent, letters, outside,
    down: sheet.scrollHeight - sheet.clientHeight, across: sheet.scrollWidth - sheet.clientWidth,
    pictures: [...sheet.querySelectorAll(".figure img")].map(one => {
      const said = /smallest letters\0([\d.]+)/.exec(atob(one.src.split(",")[1].slice(0, 4000))); // beside the pixels
      const width = one.getBoundingClientRect().width;
      return [width, said && Number(said[1]) * width / one.naturalWidth];
    }),
    minutes: section.dataset.timing / 60, notes: section.querySelector("aside.notes").textContent.trim().length };
}"""


# Chooses every source, some of its layers and each of their views in the explorer of the slide that is shown: how many
# choices there are, and those of which something lies outside the slide.
CHOICES = """async () => {
  const section = document.querySelector("section.present"), sheet = section.querySelector(".sheet"), outside = [];
  const drawn = () => new Promise(done => setTimeout(done, 25));
  const values = name => [...section.querySelector(`select[aria-label="${name}"]`).options].map(({ value }) => value);
  const choose = async (name, value) => {
    const select = section.querySelector(`select[aria-label="${name}"]`);
    select.value = value, select.onchange(), await drawn();
  };
  let choices = 0;
  for (const source of values("Scheme or network")) {
    await choose("Scheme or network", source);
    const layers = values("Layer"), each = Math.ceil(layers.length / 6);
    for (const layer of layers.filter((_, i) => i % each === 0 || i === layers.length - 1)) {
      await choose("Layer", layer);
      for (const radio of section.querySelectorAll("input[type=radio]:enabled")) {
        radio.checked = true, radio.onchange(), await drawn(), choices++;
        const boxes = [".readout", "canvas"].map(one => section.querySelector(one).getBoundingClientRect());
        const fits = sheet.scrollHeight <= sheet.clientHeight && sheet.scrollWidth <= sheet.clientWidth;
        if (!fits || boxes.some(({ bottom, right }) => bottom > 720 || right > 1280))
          outside.push([source, layer, radio.value, sheet.scrollHeight - sheet.clientHeight]);
      }
    }
  }
  return [choices, outside];
}"""


@pytest.fixture(scope="module")
def decks(tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("slides")
    (hour,) = write_plan(ROOT, "hour", out)
    return {path.stem: write_slides(ROOT, path, out).path for path in LESSONS} | {"hour": hour.path}


def shows(page, index: int) -> None:
    """Wait until a slide is shown: keys and clicks need not be heard at once."""
    page.wait_for_function("index => Reveal.getIndices().h === index", arg=index)


def opened(browser, deck: Path, query: str = ""):
    """The deck at 1280 x 720, every request but that for the file itself refused."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(60_000)
    seen = watch(page)
    allowed = ("file:", "data:", "blob:")
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith(allowed) else route.abort())
    page.goto(deck.as_uri() + query)
    if not query:
        page.wait_for_function("() => Reveal.isReady()")
    return page, seen


def at(page, index: int) -> None:
    """Show a slide with all of its points, and wait until an explorer on it is drawn."""
    page.evaluate("index => Reveal.slide(index, 0, 99)", index)
    if page.locator("section.present .live-explorer").count():
        page.wait_for_selector("section.present canvas[data-painted='1']")


def unfolded(page) -> list[dict]:
    """The measures of a slide, and those with each option of a quiz unfolded."""
    found = [page.evaluate(MEASURE)]
    for one in page.locator("section.present details").all():
        one.evaluate("one => (one.open = true)")
        found.append(page.evaluate(MEASURE))
    return found


@pytest.mark.parametrize("stem", [*(path.stem for path in LESSONS), "hour"])
def test_every_slide_can_be_read_from_the_last_row_and_none_overflows(stem, browser, decks):
    page, seen = opened(browser, decks[stem])
    wrong = [
        fault for index in range(page.evaluate("Reveal.getTotalSlides()")) for fault in faults_of_a_slide(page, index)
    ]
    assert not wrong
    assert not seen.errors and not seen.outside
    page.close()


def faults_of_a_slide(page, index: int) -> list[tuple]:
    """What cannot be read from the last row, in text and in figures, and what does not fit."""
    at(page, index)
    wrong: list[tuple] = []
    for slide in unfolded(page):
        small = [letters for letters in slide["letters"] if letters[0] < SMALLEST - 0.01]
        if small or slide["outside"] or slide["down"] > 0 or slide["across"] > 0:
            wrong.append((slide["title"], small, slide["outside"], slide["down"], slide["across"]))
        assert len(slide["letters"]) > 1 and slide["minutes"] >= 1 and slide["notes"] > 40, slide["title"]
        assert all(width >= 300 for width, _ in slide["pictures"]), slide["title"]
        if tiny := [size for _, size in slide["pictures"] if size is None or size < SMALLEST_IN_FIGURE]:
            wrong.append((slide["title"], tiny))
    return wrong


def test_whatever_is_chosen_in_an_explorer_it_stays_within_the_slide(browser, decks):
    wrong, choices = [], 0
    for stem, deck in decks.items():
        page, seen = opened(browser, deck)
        live = "Reveal.getSlides().flatMap((slide, i) => (slide.querySelector('.live-explorer') ? [i] : []))"
        for index in page.evaluate(live):
            at(page, index)
            many, outside = page.evaluate(CHOICES)
            choices += many
            wrong += [(stem, index, *one) for one in outside]
        assert not seen.errors, stem
        page.close()
    assert choices > 700 and not wrong


def test_what_plans_open_with_is_read_from_the_last_row_and_does_not_overflow(browser, tmp_path, monkeypatch):
    """Without what follows, which are slides of the lessons."""
    openings = [session._replace(parts=[]) for plan in read_plans(ROOT).values() for session in plan.sessions]
    openings = [session for session in openings if session.opening]
    monkeypatch.setattr("course_lib.export.slides.read_plans", lambda root: {"all": Plan("", "", openings)})
    wrong = []
    for session, deck in zip(openings, write_plan(ROOT, "all", tmp_path), strict=True):
        page, _ = opened(browser, deck.path)
        assert page.locator("section.present h1").text_content() == session.opening["title"]
        wrong += faults_of_a_slide(page, 0)
        page.close()
    assert len(openings) >= 11 and not wrong


def test_keys_drive_the_slides_and_points_come_one_after_another(browser, decks):
    page, _ = opened(browser, decks["06_timesformer"])
    build = page.evaluate("Reveal.getSlides().findIndex(slide => slide.querySelectorAll('.fragment').length > 2)")
    page.evaluate("index => Reveal.slide(index)", build)
    for points in (1, 2):
        page.keyboard.press("Space")
        expect(page.locator("section.present .fragment.visible")).to_have_count(points)
    page.keyboard.press("Home")
    shows(page, 0)
    page.keyboard.press("PageDown")
    shows(page, 1)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.keyboard.press("d")
    expect(page.locator("body")).not_to_have_css("background-color", light)
    page.close()


def test_an_option_unfolds_by_keyboard_alone_and_the_slide_stays(browser, decks):
    page, _ = opened(browser, decks["06_timesformer"])
    quiz = page.evaluate("Reveal.getSlides().findIndex(slide => slide.className.includes('quiz'))")
    at(page, quiz)
    page.keyboard.press("Tab")
    for _ in range(40):
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("section.present details[open]")).to_have_count(1)
    shows(page, quiz)
    page.close()


@pytest.fixture(scope="module")
def lively(tmp_path_factory) -> Path:
    """A lesson of two slides, the second an explorer of masks whose state was kept."""
    root = tmp_path_factory.mktemp("course")
    explorer = explore_variants("timesformer_tiny", "attention", ["divided", "joint"], "divided")
    output = nbformat.v4.new_output("display_data", explorer._repr_mimebundle_()[0])
    slide = {"points": [], "code": False, "build": False, "minutes": 2, "notes": "Say it."}
    first = {"tags": ["slide"], "slide": slide | {"title": "A lesson", "output": False}}
    second = {"tags": ["slide"], "slide": slide | {"title": "Click", "output": True}}
    cells = [
        nbformat.v4.new_markdown_cell("#", metadata=first),
        nbformat.v4.new_code_cell("explore", metadata=second, outputs=[output], id="c1"),
    ]
    path = root / "99_small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    states = root / "data" / "explorers" / "99_small.json.gz"
    states.parent.mkdir(parents=True)
    kept = {"c1": [{"output": 0, "state": explorer.page_state()}]}
    states.write_bytes(gzip.compress(json.dumps(kept).encode()))
    return write_slides(root, path, root).path


def test_an_explorer_answers_a_click_and_keys_and_lets_the_slides_go_on(browser, lively):
    page, seen = opened(browser, lively)
    at(page, 1)
    canvas = page.locator("section.present canvas")
    assert page.evaluate(MEASURE)["outside"] == []
    before = page.locator(".readout").text_content()
    page.evaluate("addEventListener('click', () => (window.focused = document.activeElement.tagName))")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.9, "y": box["height"] * 0.3})
    page.wait_for_function("before => document.querySelector('.readout').textContent !== before", arg=before)
    assert page.evaluate("window.focused") == "BODY"  # however soon a key follows
    page.keyboard.press("ArrowLeft")  # after a click keys drive the slides
    shows(page, 0)
    at(page, 1)
    canvas.focus()
    clicked = page.locator(".readout").text_content()
    page.keyboard.press("ArrowLeft")  # reached by Tab, they drive the explorer
    page.wait_for_function("before => document.querySelector('.readout').textContent !== before", arg=clicked)
    assert page.evaluate("Reveal.getIndices().h") == 1
    assert not seen.errors and not seen.outside
    page.close()


def test_a_click_opens_a_menu_of_an_explorer_and_after_a_choice_keys_drive_the_slides(browser, lively):
    page, seen = opened(browser, lively)
    at(page, 1)
    menu, canvas = page.get_by_label("Layer", exact=True), page.locator(".attention-explorer canvas")
    is_open, box = "menu => menu.matches(':open')", menu.bounding_box()

    def click_opens() -> None:
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.up()
        page.wait_for_timeout(200)  # what would close it comes with the click
        assert menu.evaluate(is_open)

    click_opens()
    before = canvas.get_attribute("data-layer")
    page.keyboard.press("ArrowDown")  # it lies in the open menu
    page.keyboard.press("Enter")
    expect(canvas).not_to_have_attribute("data-layer", before)
    shows(page, 1)
    page.keyboard.press("ArrowLeft")
    shows(page, 0)
    at(page, 1)
    chosen = canvas.get_attribute("data-layer")
    click_opens()
    page.keyboard.press("Escape")  # closed without a choice
    page.wait_for_function(f"menu => !({is_open})(menu)", arg=menu.element_handle())
    page.keyboard.press("ArrowLeft")
    shows(page, 0)
    assert canvas.get_attribute("data-layer") == chosen
    at(page, 1)
    menu.focus()
    page.keyboard.press("ArrowUp")  # reached by Tab, keys choose in it
    expect(canvas).not_to_have_attribute("data-layer", chosen)
    shows(page, 1)
    assert not seen.errors and not seen.outside
    page.close()


def test_the_speaker_view_has_notes_and_clocks(browser, lively):
    page, seen = opened(browser, lively)
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    notes = popup.value
    notes.locator(".speaker-controls-notes .value", has_text="Say it.").wait_for()
    assert "2 of 4 when this slide ends" in notes.locator(".speaker-controls-notes .value").text_content()
    notes.locator(".speaker-controls-time .timer").wait_for()
    notes.locator(".speaker-controls-time .pacing").wait_for()
    assert not seen.outside
    page.close()


def test_the_handout_has_every_slide_with_its_notes(browser, lively, monkeypatch):
    page, _ = opened(browser, lively, "?print-pdf")
    assert page.locator("aside.notes:visible").count() == page.locator(".sheet:visible").count() == 2
    page.close()
    monkeypatch.setenv("COURSE_CHROMIUM", str(chromium_path()))
    printed = write_handout(lively).read_bytes()
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") >= 2


def test_on_paper_sheets_keep_their_form_and_figures_their_size(browser, decks):
    page, _ = opened(browser, decks["hour"], "?print-pdf")
    figures = "[...document.querySelectorAll('.figure img')].map(one => one.getBoundingClientRect().height)"
    on_screen = page.evaluate(figures)
    page.emulate_media(media="print")
    forms = page.evaluate(
        "[...document.querySelectorAll('.sheet')].map(one => one.getBoundingClientRect()).map(b => b.width / b.height)"
    )
    assert forms == pytest.approx([16 / 9] * 16, rel=0.01)
    assert len(on_screen) >= 6 and page.evaluate(figures) == pytest.approx(
        [high * 0.54 for high in on_screen], rel=0.02
    )
    page.close()


def test_axe_finds_nothing_to_stumble_over_in_light_and_nothing_too_faint_in_dark(browser, decks):
    """On the sheets of the handouts, where all slides and notes are there at once, and on two slides as shown."""
    axe, found = Axe(), []
    faint = {"runOnly": ["color-contrast"], "resultTypes": ["violations"]}
    first = "what => Reveal.getSlides().findIndex(slide => slide.querySelector(what))"
    sheets = [(stem, "?print-pdf", "") for stem in decks]
    for stem, query, what in [*sheets, *(("06_timesformer", "", what) for what in ("details", ".live-explorer"))]:
        page, _ = opened(browser, decks[stem], query)
        if what:
            at(page, page.evaluate(first, what))
            expect(page.locator(f"section.present {what}").first).to_be_visible()
        for theme, options in (("light", {"resultTypes": ["violations"]}), ("dark", faint)):
            page.evaluate("theme => (document.documentElement.dataset.theme = theme)", theme)
            for one in axe.run(page, options=options).response["violations"]:
                found.append((stem, theme, one["id"], one["nodes"][0]["html"][:200], len(one["nodes"])))
        page.close()
    assert not found


def test_keys_alone_go_on_back_and_over_all_slides_into_an_explorer_and_out_of_it(browser, lively):
    page, seen = opened(browser, lively)
    page.keyboard.press("ArrowRight")
    shows(page, 1)
    page.keyboard.press("ArrowLeft")
    shows(page, 0)
    page.keyboard.press("o")
    page.wait_for_function("Reveal.isOverview()")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("o")
    page.wait_for_function("!Reveal.isOverview()")
    shows(page, 1)
    page.wait_for_selector("section.present canvas[data-painted='1']")
    canvas = page.locator("section.present canvas")
    inside = "document.activeElement.closest('.attention-explorer') !== null"
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "CANVAS":
            break
    before = canvas.get_attribute("data-query")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "([canvas, before]) => canvas.dataset.query !== before", arg=[canvas.element_handle(), before]
    )
    shows(page, 1)
    for _ in range(12):
        page.keyboard.press("Tab")
        if not page.evaluate(inside):
            break
    page.keyboard.press("ArrowLeft")
    shows(page, 0)
    assert not seen.errors and not seen.outside
    page.close()
