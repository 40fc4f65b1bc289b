"""Take the picture of README.md anew: python tests/browser/readme_picture.py"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from lab import lab_server, launch, open_notebook, run_all
from playwright.sync_api import sync_playwright

OUT = Path(__file__).parents[2] / "notebooks" / "images" / "explorer.png"
CELL = """from course_lib.lesson import explore_variants
from course_lib.models.timesformer import ATTENTION

explorer = explore_variants("timesformer_b_8x224", "attention", ATTENTION, "divided", depth=1)
explorer.layer, explorer.view = "block 1 space", "whole block"
explorer"""


def main() -> None:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata=kernel)
    with tempfile.TemporaryDirectory() as folder, lab_server(Path(folder)) as server, sync_playwright() as playwright:
        nbformat.write(notebook, Path(folder) / "explorer.ipynb")
        page = launch(playwright).new_page(viewport={"width": 1240, "height": 1000})
        open_notebook(page, server, "explorer.ipynb")
        page.set_default_timeout(120_000)
        run_all(page)
        page.wait_for_function(
            "() => document.querySelector('.attention-explorer canvas')?.dataset.view === 'whole block'"
        )
        page.mouse.move(1, 1)
        temporary = OUT.with_name(f".{OUT.stem}.{os.getpid()}.png")
        page.locator(".attention-explorer").screenshot(path=str(temporary))
        os.replace(temporary, OUT)


if __name__ == "__main__":
    main()
