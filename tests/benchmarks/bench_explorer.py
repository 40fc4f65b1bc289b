"""How long the attention explorer takes from the pointer to the picture, in JupyterLab in headless Chromium.

python tests/benchmarks/bench_explorer.py [moves]     prints medians; needs Playwright and Chromium
Masks answer in the page; weights of these sizes come from the kernel, for a patch and its neighbours at once.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))
from lab import kernel_eval, notebook

SET_UP = """
import numpy as np, torch
from course_lib.models import build
from course_lib.widgets.explore import explore

def opened(name, layer, **changes):
    torch.manual_seed(0)
    net = build(name, **changes)
    size = net.config.clip
    frames = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    shown = dict(source=type(net).__name__, layer=layer, whole_rows_bytes=0)
    return explore(net, torch.randn(1, 3, *size), frames, layers=[layer], **shown)
"""
GRIDS = {  # one block at full size, few features: what a row costs hangs on tokens and heads
    "8x14x14, TimeSformer": 'opened("timesformer_b_8x224", "block 1 space", depth=1, dim=192)',
    "16x28x28, TimeSformer": 'opened("timesformer_hr_16x448", "block 1 space", depth=1, dim=96, heads=4)',
    "8x56x56, MViT's first stage": 'opened("mvit_b_16x4", "block 1 pooled attention", depths=(1,))',
    "16x56x56, Swin's first stage": 'opened("video_swin_t_32x224", "stage 1 block 1 windows", depths=(1,), heads=(3,))',
}
LISTEN = """number => {
  window.measured = [];
  window.listening?.abort();
  window.listening = new AbortController();
  document.querySelectorAll(".attention-explorer")[number].addEventListener("explorer-drawn", ({ detail }) => {
    if (detail.complete && detail.cause !== "again") requestAnimationFrame(() => requestAnimationFrame(() => // shown
      window.measured.push([detail.milliseconds, performance.now() - detail.since])));
  }, window.listening);
}"""


def measure(page: Any, number: int, moves: int, far: bool) -> tuple[float, float]:
    """Medians in milliseconds: drawing alone, and from the pointer to the screen."""
    canvas = page.locator(".attention-explorer canvas").nth(number)
    canvas.scroll_into_view_if_needed()
    box, layout = canvas.bounding_box(), canvas.evaluate("canvas => canvas.layouts[0]")
    (wide, high), corners = layout["panel"], layout["corners"]
    page.mouse.move(1, 1)
    page.wait_for_timeout(500)
    page.evaluate(LISTEN, number)
    steps = 14  # places along a side, in any grid
    for i in range(moves):
        # Near: along a snake of patches in one frame. Far: another frame and another place every time.
        row, column = divmod(i, 12)
        x, y = corners[i * 5 % len(corners)] if far else corners[-1]
        across, down = ((i * 7 % 13 + 0.5) / 14, (i * 3 % 11 + 0.5) / 14) if far else (
            ((11 - column if row % 2 else column) + 1.5) / steps, (row % 12 + 1.5) / steps
        )  # fmt: skip
        page.mouse.move(box["x"] + x + across * wide, box["y"] + y + down * high)
        page.wait_for_function("many => window.measured.length >= many", arg=i + 1, timeout=20_000)
        page.wait_for_timeout(40 + i * 7 % 17)  # so that moves fall anywhere between two screen refreshes
    draw, shown = zip(*page.evaluate("() => window.measured"), strict=True)
    return statistics.median(draw), statistics.median(shown)


def main(moves: int) -> None:
    cells = [SET_UP, *(f"x{i} = {call}\nx{i}" for i, call in enumerate(GRIDS.values()))]
    with notebook(cells, 1400, 1100) as page:
        print(f"{moves} moves each; medians in ms: drawing, then from the pointer to the screen")
        for number, grid in enumerate(GRIDS):
            for source in ("masks", "weights"):
                name = kernel_eval(page, f"x{number}.sources[{int(source == 'masks')}]['name']")
                kernel_eval(page, f"setattr(x{number}, 'source', {name!r})")
                page.wait_for_timeout(1000)
                for far in (False, True):
                    draw, shown = measure(page, number, moves, far)
                    where = "another frame" if far else "the next patch"
                    print(f"{grid:30} {source:8} {where:15} {draw:6.2f} {shown:7.1f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
