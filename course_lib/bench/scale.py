"""What an epoch of Kinetics-400 needs, computed from what was measured: cores that decode, bytes, hours of a GPU."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from course_lib.analysis.cost import cost
from course_lib.bench.measure import PUBLISHED_PEAKS, SUBJECTS
from course_lib.models import build

BEGIN, END = "<!-- scale, by `course bench --table` -->", "<!-- end of scale -->"
CLIPS = 240_000  # videos of the split for training, rounded: some are gone, and nobody has quite the same
ASSUMED_DEVICE, ASSUMED_SHARE = "H100", 0.4


def scale(records: dict[str, dict[str, Any]]) -> str:
    """Markdown: what reading takes, then what each network takes."""
    reading = [
        (record, part)
        for record in records.values()
        for name, part in record["parts"].items()
        if name.startswith("reading/") and "seconds" in part
    ]
    if not reading:
        return "Nothing about reading has been measured yet: `course bench --only reading --out ...`."
    return "\n\n".join([_reading_table(reading), _network_table(records, {part["clip"]: part for _, part in reading})])


def _reading_table(reading: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    lines = [
        "| clips | core s a clip | cores for 100 clips/s | core hours an epoch | disk | network at 100 clips/s | on |",
        "|---|---|---|---|---|---|---|",
    ]
    for record, part in reading:
        seconds, size, clip = part["seconds"]["dataset"], part["files"]["bytes"], part["clip"].replace("x", " x ")
        lines.append(
            f"| {clip} | {seconds:.3f} | {100 * seconds:.1f} | {CLIPS * seconds / 3600:.1f} | {CLIPS * size / 1e9:.0f} "
            f"GB | {100 * size / 1e6:.0f} MB/s | {record['machine']['processor']} |"
        )
    files = reading[0][1]["files"]
    lines += [
        "",
        f"Measured with {files['count']} files of {files['height']} x {files['width']}, {files['frames']} frames and "
        f"{files['bytes'] / 1e6:.2f} MB, textured pictures that pan and shake a little; an epoch is {CLIPS:,} clips, "
        "each from its own file, read whole. Real copies may hold more bytes: look at the size of your own, since disk "
        "and network grow with bytes, cores with pixels.",
    ]
    return "\n".join(lines)


def _network_table(records: dict[str, dict[str, Any]], reading: dict[str, dict[str, Any]]) -> str:
    measured = _fastest_on_gpus(records)
    flops = PUBLISHED_PEAKS[ASSUMED_DEVICE] * ASSUMED_SHARE
    clips = list(reading)
    lines = [
        "| network | G multiply-adds a clip | clips/s, measured | hours an epoch, measured | hours an epoch, assumed | "
        + " | ".join(f"cores for one GPU at {clip.replace('x', ' x ')}, assumed" for clip in clips)
        + " |",
        "|---|---|---|---|---|" + "---|" * len(clips),
    ]
    for subject in SUBJECTS:
        products = multiply_adds(subject.name)
        rate = flops / (2 * 3 * products)
        found = measured.get(subject.name)
        cores = " | ".join(f"{rate * reading[clip]['seconds']['dataset']:.0f}" for clip in clips)
        hours = f"{found[0]:.0f} ({found[1]}) | {_hours(found[0])}" if found else "not measured | not measured"
        lines.append(f"| `{subject.name}` | {products / 1e9:.0f} | {hours} | {_hours(rate)} | {cores} |")
    lines += [
        "",
        f"Hours of one GPU an epoch are {CLIPS:,} / (clips/s) / 3600, cores (clips/s) x (core s a clip). *Assumed* "
        f"is no measurement: {ASSUMED_SHARE:.0%} of the published peak of an {ASSUMED_DEVICE} "
        f"({PUBLISHED_PEAKS[ASSUMED_DEVICE] / 1e12:.0f} TFLOP/s), six products and sums for each multiply-add counted.",
    ]
    return "\n".join(lines)


def _hours(rate: float) -> str:
    return f"{CLIPS / rate / 3600:.2g}"


def _fastest_on_gpus(records: dict[str, dict[str, Any]]) -> dict[str, tuple[float, str]]:
    """The highest rate of training measured for each network, and on which device."""
    best: dict[str, tuple[float, str]] = {}
    for record in records.values():
        device = record["machine"]["device"]
        for part in record["parts"].values() if not device.startswith("CPU") else ():
            if part.get("phase") == "training" and "ours" in part:
                rate = part["ours"]["clips_per_second"], device
                best[part["network"]] = max(best.get(part["network"], rate), rate)
    return best


@lru_cache
def multiply_adds(name: str) -> int:
    """Of one clip forwards, at the network's own size."""
    with torch.device("meta"):
        net: Any = build(name)
    return cost(net, (1, 3, net.config.frames, net.config.size, net.config.size)).macs
