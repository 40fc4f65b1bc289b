"""Take the film of README.md anew, from the exported page of lesson 06: python tests/browser/readme_film.py"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

from lab import launch
from PIL import Image
from playwright.sync_api import sync_playwright

from course_lib.export.page import write_page

ROOT = Path(__file__).parents[2]
OUT = ROOT / "notebooks" / "images" / "explorer.gif"
SECONDS, COLOURS = 1.2, 96
# What is chosen by its label, or the patch that is clicked as (frame, row, column) of 8 x 14 x 14.
SCENES: list[list[dict[str, str] | tuple[int, int, int]]] = [
    [{"Layer": "block 1 time"}, (1, 5, 2)],
    [(3, 5, 6)],
    [(6, 9, 11)],
    [{"Layer": "block 1 space"}, (3, 5, 6)],
    [(5, 5, 7)],
    [{"View": "Whole block"}],
    [{"View": "One layer", "Scheme or network": "joint"}],
    [{"Scheme or network": "local_global"}],
    [{"Layer": "block 1 strides 2x2x2"}],
    [{"Scheme or network": "axial"}, {"Layer": "block 1 time"}],
    [{"Layer": "block 1 width"}],
    [{"View": "Whole block"}],
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path, _ = write_page(ROOT, "06", Path(folder))
        page = launch(playwright).new_page(viewport={"width": 1180, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(path.as_uri())
        page.add_style_tag(content=".attention-explorer :is(.keys, .check) { display: none !important }")
        box = page.locator(".live-explorer").first
        box.scroll_into_view_if_needed()
        pictures = [taken(page, box, scene) for scene in SCENES]
    film = [picture.quantize(COLOURS, dither=Image.Dither.NONE) for picture in one_size(pictures)]
    temporary = OUT.with_name(f".{OUT.stem}.{os.getpid()}.gif")
    milliseconds = [int(SECONDS * 1000)] * (len(film) - 1) + [int(2 * SECONDS * 1000)]
    # It is shown twice and then stands still: what moves for ever keeps people from reading.
    film[0].save(temporary, save_all=True, append_images=film[1:], duration=milliseconds, loop=1, optimize=True)
    os.replace(temporary, OUT)
    print(f"{OUT}: {len(film)} pictures of {film[0].size}, {OUT.stat().st_size / 1e6:.2f} MB")


def taken(page: Any, box: Any, scene: list[dict[str, str] | tuple[int, int, int]]) -> Image.Image:
    """The explorer after what is done in a scene."""
    canvas = box.locator('canvas[data-painted="1"]')
    canvas.wait_for()
    for step in scene:
        if isinstance(step, tuple):
            frame, place = step[0], step[1:]
            corner, panel = canvas.evaluate(
                "({ layouts: [{ corners, panel }] }, frame) => [corners[frame], panel]", frame
            )
            x, y = (corner[i] + (place[1 - i] + 0.5) * panel[i] / 14 for i in (0, 1))
            canvas.click(position={"x": x, "y": y})
            continue
        for label, value in step.items():
            if label == "View":
                box.get_by_role("radio", name=value).check()
            else:
                box.get_by_label(label, exact=True).select_option(value)
    page.mouse.move(1, 1)
    canvas.wait_for()
    return Image.open(io.BytesIO(box.screenshot())).convert("RGB")


def one_size(pictures: list[Image.Image]) -> list[Image.Image]:
    """Legends of one or two lines make some pictures higher: the others get white below."""
    wide, high = (max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    same = [Image.new("RGB", (wide, high), "white") for _ in pictures]
    for to, picture in zip(same, pictures, strict=True):
        to.paste(picture)
    return same


if __name__ == "__main__":
    main()
