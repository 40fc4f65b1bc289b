"""Execute a notebook and store it as the repository keeps it: with outputs, without what changes from run to run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from tqdm import tqdm

from course_lib.files import atomic_path, read_json, write_json
from course_lib.machine import machine
from course_lib.paths import DATA
from course_lib.profiles import Profile, forecast

MINUTES = DATA / "results" / "minutes.json"
PEAK = """
import os, resource
if os.path.exists("/proc/self/status"):  # ru_maxrss begins with the peak of the process that started this one
    (peak,) = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(peak / 2**20)
else:  # macOS, in bytes
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30)
"""


def execute(path: Path, profile: Profile) -> None:
    """Run every cell of the notebook at `path` in `profile`, then write it back whole; an error leaves it untouched.

    Real clips are left out (the variables that name their folders are set to nothing): no frame of them is stored.
    The minutes and the memory of the kernel's process are recorded for `profiles.forecast`.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PEAK))  # asked of this kernel alone, not of all that ran before
    os.environ |= {"COURSE_PROFILE": profile.name, "COURSE_CLIPS": "", "COURSE_KINETICS": "", "COURSE_SSV2": ""}
    start = time.monotonic()
    with tqdm(total=len(notebook.cells), desc=path.name, unit="cell") as bar:
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_complete=lambda cell, cell_index: bar.update(cell_index + 1 - bar.n),
        )
        client.execute()
    minutes = (time.monotonic() - start) / 60
    said = forecast(path.stem, profile)
    memory = float(notebook.cells.pop().outputs[0].text)
    record = read_json(MINUTES) or {}
    run = {"minutes": round(minutes, 2), "memory_gb": round(memory, 2), **machine()}
    record.setdefault(path.stem, {})[profile.name] = run
    write_json(MINUTES, record)
    with atomic_path(path) as part:
        nbformat.write(with_forecast(tidy(notebook), said, forecast(path.stem, profile)), part)


def with_forecast(notebook: NotebookNode, before: str, after: str) -> NotebookNode:
    """What the first cell said of the run before this one becomes what has now been measured."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = output.text.replace(before, after)
    return notebook


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Drop widget state, run times and widgets that left no picture of themselves (progress bars)."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("papermill", None)
    view = "application/vnd.jupyter.widget-view+json"
    for cell in notebook.cells:
        for key in ("execution", "papermill"):
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            data = output.get("data", {})
            if data.pop(view, None) is None or "text/html" in data:
                kept.append(output)
        cell.outputs = kept
    return notebook
