"""A lesson as it is shown without a kernel: the stored notebook, with its explorers alive."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course_lib.export.explorers import live, read_states

# the words with which every still of an explorer begins (AttentionExplorer)
EXPLORER = re.compile(r'<img alt="\d+ frames of a clip in \d+ steps of')
EMPTY_HEADER = re.compile(r"<th\b[^>]*>(?:<p></p>)?</th>")
NO_STATE = "A still of an explorer: to click it, run the notebook."


class ExportError(Exception):
    """What cannot be exported, and the way out."""


def find_lessons(folder: Path, name: str = "") -> list[Path]:
    """The notebooks of the lessons, or the one that `name` begins or names, such as 06 or timesformer."""
    paths = sorted(folder.glob("[0-9]*.ipynb"))
    if not paths:
        raise ExportError(f"no lessons in {folder}: run the command in a checkout of the course")
    if not name:
        return paths
    found = [path for path in paths if path.stem.startswith(name)] or [path for path in paths if name in path.stem]
    if len(found) != 1:
        these = ", ".join(path.stem for path in found or paths)
        raise ExportError(f"{name!r} is {'several lessons' if found else 'no lesson'}: choose from {these}")
    return found


def exported(root: Path, path: Path, link: Callable[[str], str]) -> tuple[NotebookNode, list[str]]:
    """The notebook of a lesson, and which of its explorers stay pictures.

    Metadata stays behind, since slides keep notes for teachers there.
    """
    notebook, states = nbformat.read(path, as_version=4), read_states(root, path.stem)
    stills = []
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        if cell.cell_type == "markdown":
            cell.source = link(cell.source)
        for number, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = link(data["text/markdown"])
            if (state := states.get(cell.id, {}).get(number)) is not None:
                data["text/html"] = live(state, data["text/html"])
            elif EXPLORER.search(data.get("text/html", "")):
                stills.append(f"{path.stem}, cell {cell.id}: {NO_STATE}")
                data["text/html"] += f"<p><em>{NO_STATE}</em></p>"
    return notebook, stills


def without_empty_headers(page: str) -> str:
    """The corner of a table above its names heads nothing, so that it is no header to a screen reader either."""
    return EMPTY_HEADER.sub("<td></td>", page)
