"""Execute a notebook and store it as the repository keeps it: with outputs, without what changes from run to run.

What its explorers can show is kept beside it, so that exported pages have them live without a kernel.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from tqdm import tqdm

from course_lib.experiments.trained import KEEPS
from course_lib.files import atomic_path, atomic_write, read_json, write_json
from course_lib.machine import machine
from course_lib.paths import DATA
from course_lib.profiles import Profile, forecast

MINUTES = DATA / "results" / "minutes.json"
EXPLORERS = DATA / "explorers"
VIEW = "application/vnd.jupyter.widget-view+json"
PEAK = """
import os, resource
if os.path.exists("/proc/self/status"):  # ru_maxrss begins with the peak of the process that started this one
    (peak,) = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(peak / 2**20)
else:  # macOS, in bytes
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30)
"""
WATCH = """
def _watch():
    import psutil
    from IPython import get_ipython

    kernel, seconds, begun = psutil.Process(), [], []

    def used():  # of the kernel, of what it started and of what that was
        return sum(kernel.cpu_times()[:4]) + sum(sum(one.cpu_times()[:2]) for one in kernel.children(recursive=True))

    def after(result):
        if begun:
            seconds.append(round(used() - begun.pop(), 2))

    get_ipython().events.register("pre_run_cell", lambda info: begun.append(used()))
    get_ipython().events.register("post_run_cell", after)
    return seconds


_processor_seconds = _watch()
"""
STATES = """
from course_lib.widgets.explorer import write_states
write_states({path!r})
"""


def execute(path: Path, profile: Profile) -> None:
    """Run every cell of the notebook at `path` in `profile`, then write it back whole; an error leaves it untouched.

    A lecture shows what is stored: it is run to be measured, and the notebook stays as it is.

    Real clips are left out (the variables that name their folders are set to nothing): no frame of them is stored.
    The minutes and the memory of the kernel's process are recorded for `profiles.forecast`. The states of its explorers
    go to data/explorers, for `export`; in the profile cpu, what it trained to data/checkpoints/lessons, for lectures.
    """
    notebook = nbformat.read(path, as_version=4)
    if profile.replays:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(WATCH))
        notebook.cells.append(nbformat.v4.new_code_cell("print(_processor_seconds)"))
    notebook.cells.append(nbformat.v4.new_code_cell(PEAK))  # asked of this kernel alone, not of all that ran before
    with tempfile.NamedTemporaryFile(suffix=".json") as states:
        keep = STATES.format(path=states.name) if not profile.replays else ""  # a lecture stores nothing
        notebook.cells.append(nbformat.v4.new_code_cell(keep))
        began = datetime.now(UTC)
        minutes = _run(notebook, path, profile) - took(notebook.cells[-1]) / 60
        explorers = shown(notebook, json.load(states)) if keep else {}
    said = forecast(path.stem, profile)
    notebook.cells.pop()
    memory = float(notebook.cells.pop().outputs[0].text)
    record = read_json(MINUTES) or {}
    run = {"minutes": round(minutes, 2), "memory_gb": round(memory, 2), **machine()}
    if profile.replays:
        processor = json.loads(notebook.cells.pop().outputs[0].text)
        run |= answers(notebook.cells[1:], processor, began)
    record.setdefault(path.stem, {})[profile.title] = run
    write_json(MINUTES, record)
    if profile.replays:
        return
    if explorers:
        packed = gzip.compress(json.dumps(explorers).encode(), mtime=0)
        atomic_write(EXPLORERS / f"{path.stem}.json.gz", packed)
    with atomic_path(path) as part:
        nbformat.write(with_forecast(tidy(notebook), said, forecast(path.stem, profile)), part)


def _run(notebook: NotebookNode, path: Path, profile: Profile) -> float:
    """Execute all cells where they are; how many minutes it took."""
    os.environ |= {"COURSE_PROFILE": profile.title, "COURSE_CLIPS": "", "COURSE_KINETICS": "", "COURSE_SSV2": ""}
    os.environ[KEEPS] = "yes" if profile.title == "cpu" else ""
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
    return (time.monotonic() - start) / 60


def shown(notebook: NotebookNode, states: dict[str, dict]) -> dict[str, list[dict]]:
    """Cell id -> the explorers that its outputs show, each as {"output": its index once stored, "state": ...}."""
    found: dict[str, list[dict]] = {}
    for cell in notebook.cells:
        kept = [output for output in cell.get("outputs", []) if stays(output)]
        for index, output in enumerate(kept):
            model = output.get("data", {}).get(VIEW, {}).get("model_id")
            if model in states:
                found.setdefault(cell.id, []).append({"output": index, "state": states[model]})
    return found


def answers(cells: list[NotebookNode], processor: list[float], began: datetime) -> dict[str, object]:
    """How long a lecture lets a room wait: seconds until it has opened, and the cells after that which took more than
    one, by the clock and of the processor (which depends little on what else the machine has to do); the most of both.

    processor: of every cell of code that is not empty."""
    cells = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    first = next(i for i, cell in enumerate(cells) if "opening(" in cell.source)
    opened = datetime.fromisoformat(cells[first].metadata["execution"]["shell.execute_reply"])
    after = list(zip(cells, processor, strict=True))[first + 1 :]
    return {
        "opening_seconds": round((opened - began).total_seconds(), 1),
        "slowest_cell": {
            "by_the_clock": max(took(cell) for cell, _ in after),
            "of_the_processor": max(seconds for _, seconds in after),
        },
        "cell_seconds": {cell.id: seconds for cell, _ in after if (seconds := took(cell)) > 1},
        "processor_seconds": {cell.id: seconds for cell, seconds in after if seconds > 1},
    }


def took(cell: NotebookNode) -> float:
    """Seconds that a cell was executing."""
    times = cell.metadata.get("execution", {})
    if "shell.execute_reply" not in times:
        return 0.0
    start, end = (datetime.fromisoformat(times[at]) for at in ("iopub.execute_input", "shell.execute_reply"))
    return round((end - start).total_seconds(), 2)


def stays(output: NotebookNode) -> bool:
    """Whether an output is stored: a widget that left no picture of itself is not (progress bars)."""
    data = output.get("data", {})
    return VIEW not in data or "text/html" in data


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
    for cell in notebook.cells:
        for key in ("execution", "papermill"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if stays(output)]
            for output in cell.outputs:
                output.get("data", {}).pop(VIEW, None)
    return notebook
