"""A lesson as it is shown without a kernel: the stored notebook, with its explorers alive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode


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


def exported(path: Path, link: Callable[[str], str]) -> tuple[NotebookNode, list[str]]:
    """The notebook of a lesson, and which of its explorers stay pictures.

    Metadata stays behind, since slides keep notes for teachers there.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        if cell.cell_type == "markdown":
            cell.source = link(cell.source)
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = link(output.data["text/markdown"])
    return notebook, []
