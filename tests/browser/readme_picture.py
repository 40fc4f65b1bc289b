"""Take the picture of README.md anew: python tests/browser/readme_picture.py"""

from __future__ import annotations

import os
from pathlib import Path

from lab import notebook

OUT = Path(__file__).parents[2] / "notebooks" / "images" / "explorer.png"
CELL = """from course_lib.lesson import explore_variants
from course_lib.models.timesformer import ATTENTION

explorer = explore_variants("timesformer_b_8x224", "attention", ATTENTION, "divided", depth=1)
explorer.layer = "block 1 time"
explorer"""


def main() -> None:
    with notebook([CELL], 1240, 1000) as page:
        page.wait_for_function("document.querySelector('.attention-explorer canvas')?.dataset.painted === '1'")
        page.mouse.move(1, 1)
        temporary = OUT.with_name(f".{OUT.stem}.{os.getpid()}.png")
        page.locator(".attention-explorer").screenshot(path=str(temporary))
        os.replace(temporary, OUT)


if __name__ == "__main__":
    main()
