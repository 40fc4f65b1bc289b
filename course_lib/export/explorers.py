"""Explorers that answer in a page without a kernel, from the states that were kept when the notebook was stored."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

from course_lib.widgets.explorer import SCRIPT, STATIC

HERE = Path(__file__).parent / "static"
ONE_LETTER = re.compile(r"\\(math[a-z]+) +(\w)")  # with braces it becomes a bold or script letter, which browsers draw
FUNCTION = re.compile(r"(\\(?:ln|log|exp|max|min)) +(?=[\w\\])")  # TeX puts a thin space behind the names of functions


def read_states(root: Path, stem: str) -> dict[str, dict[int, Any]]:
    """Cell id -> number of the output -> the state of the explorer that it shows; empty if none were kept."""
    path = root / "data" / "explorers" / f"{stem}.json.gz"
    if not path.is_file():
        return {}
    kept = json.loads(gzip.decompress(path.read_bytes()))
    return {cell: {one["output"]: one["state"] for one in found} for cell, found in kept.items()}


def _in_script(value: Any) -> str:
    """JSON that does not end the <script> that it stands in."""
    return json.dumps(value).replace("</", "<\\/")


def live(state: Any, still: str, room: tuple[int, int] | None = None) -> str:
    """An explorer as HTML; `still` is the picture that stands there until `PLAYER`, and where it cannot run.

    room: width and height in pixels that its frames may take; as wide as the page if None. A page with explorers needs
    `STYLE` and `PLAYER` once.
    """
    packed = base64.b64encode(gzip.compress(json.dumps(state).encode(), mtime=0)).decode()
    at = f' data-wide="{room[0]}" data-high="{room[1]}"' if room else ""
    inside = f'<script type="text/plain">{packed}</script><div class="still">{still}</div>'
    return f'<div class="live-explorer"{at}>{inside}</div>'


STYLE = (STATIC / "explorer.css").read_text(encoding="utf-8")
PLAYER = (HERE / "live.js").read_text(encoding="utf-8").replace("EXPLORER_SCRIPT", _in_script(SCRIPT))


def mathml(tex: str, display: bool) -> str:
    """An equation as MathML, which browsers draw and screen readers read without a library."""
    tex = FUNCTION.sub(r"\1\\,", ONE_LETTER.sub(r"\\\1{\2}", tex))
    return str(convert(tex, display="block" if display else "inline"))
