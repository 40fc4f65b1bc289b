"""The record of a device: parts, each written at once, so that a run can be stopped anywhere and goes on."""

from __future__ import annotations

import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from course_lib.bench import packing, reading
from course_lib.bench.measure import PHASES, SUBJECTS, Peak, compare, peak, share_of_peak
from course_lib.files import read_json, write_json
from course_lib.machine import machine
from course_lib.paths import DATA

RECORDS = DATA / "results" / "bench"
PACKINGS = ((256, 250), (256, 25), (320, 250))  # shorter side in pixels, frames from key frame to key frame at most
SAME = ("device", "torch", "python")  # in all parts of a record


def parts(device: torch.device, videos: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name and measurement of every part; on a CPU those of the short form.

    Eager ones come first: compiling takes a minute or so a network.
    """
    gpu = device.type == "cuda"
    if reading.can_read():
        for frames, stride in reading.SAMPLINGS:
            yield f"reading/{frames}x{stride}", partial(reading.measure, videos, frames, stride)
        for short_side, keys in PACKINGS:
            yield f"packing/{short_side}/{keys}", partial(packing.measure, videos, short_side, keys)
    for compiled in (False, True) if gpu else (False,):
        for subject in (one for one in SUBJECTS if gpu or one.short):
            for phase in PHASES:
                name = f"{subject.name}/{phase}/{'compiled' if compiled else 'eager'}"
                yield name, partial(compare, subject, phase, compiled, device, 10 if gpu else 3, not gpu)


def run(out: Path, only: str = "", minutes: float = 8.0, say: Callable[[str], None] = print) -> bool:
    """Measure what `out` lacks, for `minutes`; whether nothing is left. A part that fails is kept with its error, and
    is tried again by the next call.

    Raises:
        ValueError: `out` is another device's record or of other versions, or `only` names no part.
    """
    until, device = time.monotonic() + 60 * minutes, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    here = machine() | {"threads": str(torch.get_num_threads()), "processor": _processor()}
    record = read_json(out) or {"machine": here, "peak": Peak(0.0, "")._asdict(), "parts": {}}
    for key in SAME:
        if record["machine"][key] != here[key]:
            raise ValueError(
                f"{out}: made with {key} {record['machine'][key]}, this is {here[key]}; choose another --out"
            )
    top = max(Peak(**record["peak"]), peak(device))  # the best that was seen: a busy machine shows less
    record["peak"], found, left = top._asdict(), False, 0
    with tempfile.TemporaryDirectory() as folder:
        for name, measure in parts(device, Path(folder)):
            if not re.search(only, name):
                continue
            found = True
            if name in record["parts"] and "error" not in record["parts"][name]:
                continue
            if time.monotonic() > until:
                left += 1
                continue
            start = time.perf_counter()
            try:
                part = measure()
            except Exception as error:  # out of memory, a compiler that is not there: no other part should be lost
                part = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            took = {"took": time.perf_counter() - start, "load": os.getloadavg()[0], "commit": here["commit"]}
            record["parts"][name] = part | took
            write_json(out, record)
            if name.endswith("compiled"):
                torch.compiler.reset()
            if device.type == "cuda":
                torch.cuda.empty_cache()
            say(f"{name}: {part.get('error') or _short(part, top)} ({took['took']:.0f} s)")
    if not found:
        raise ValueError(f"--only {only!r} fits no part; parts are called like timesformer_b_8x224/training/eager")
    if left:
        say(f"{left} parts are left; the same command goes on")
    return not left


def _short(part: dict[str, Any], top: Peak) -> str:
    if "psnr" in part:
        before, after = (part["seconds"][side]["read"] for side in ("before", "after"))
        return f"{part['psnr']:.1f} dB, {1000 * before:.0f} ms a clip before, {1000 * after:.0f} after"
    if "clip" in part:
        bare, read, data = (part["seconds"][name] for name in ("bare", "read", "dataset"))
        return f"{1000 * bare:.0f} ms a clip bare, {1000 * read:.0f} read, {1000 * data:.0f} with the transform"
    ours, theirs = part["ours"]["clips_per_second"], part.get("theirs", {}).get("clips_per_second")
    beside = f", {theirs:.2f} by {part['peer']}" if theirs else ""
    return f"{ours:.2f} clips/s{beside}, {share_of_peak(part, top.flops):.0%} of peak"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def records(folder: Path = RECORDS) -> dict[str, dict[str, Any]]:
    """Every record of a folder, by the name of its file."""
    return {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}
