"""Where data lie (generated clips, runs, checkpoints, recorded results), and the notebooks beside them."""

from __future__ import annotations

import os
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]


def data_folder() -> Path:
    """$COURSE_DATA; else the checkout's `data`; else, for an installed wheel, `data` in the working directory."""
    if named := os.environ.get("COURSE_DATA"):
        return Path(named).expanduser().resolve()
    return (_CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path.cwd()) / "data"


DATA = data_folder()
NOTEBOOKS = DATA.parent / "notebooks"
