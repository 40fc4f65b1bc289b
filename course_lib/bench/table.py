"""The table of speeds, made from the records and kept between two marks of a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from course_lib.bench import scale
from course_lib.bench.measure import share_of_peak
from course_lib.bench.packing import sentence
from course_lib.bench.record import records
from course_lib.files import atomic_write, read_text

BEGIN, END = "<!-- made by `course bench --table` -->", "<!-- end of what `course bench --table` makes -->"
NO_GPU = "No figure from a GPU has been recorded yet."


def table(records: dict[str, dict[str, Any]]) -> str:
    """Markdown: a table a device, and a sentence as long as no GPU is among them."""
    blocks = [_device(record) for record in records.values()]
    if not any(_is_gpu(record) for record in records.values()):
        blocks.insert(0, NO_GPU)
    return "\n\n".join(blocks)


def _is_gpu(record: dict[str, Any]) -> bool:
    return not record["machine"]["device"].startswith("CPU")


def _device(record: dict[str, Any]) -> str:
    about, top, parts = record["machine"], record["peak"], list(record["parts"].values())
    name = about["device"] if _is_gpu(record) else f"{about['processor']}, {about['threads']} threads"
    loads = [part["load"] for part in parts]
    # a machine that does other work says little about itself, but still which of two is faster
    busy = f", load {min(loads):.0f} to {max(loads):.0f} while it ran" if loads and not _is_gpu(record) else ""
    lines = [
        f"**{name}**, torch {about['torch']}{busy}; peak {top['flops'] / 1e12:.3g} TFLOP/s ({top['source']}).",
        "",
        "| network | clips | step | clips/s | of peak | GB | beside | its clips/s | its GB | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for part in parts:
        if "ours" not in part:
            continue
        ours, theirs, shape = part["ours"], part.get("theirs"), part["shape"]
        clips = f"{shape[0]} of {shape[2]} x {shape[3]} x {shape[4]}"
        cells = [
            f"`{part['network']}`", clips, f"{part['phase']}, {part['mode']}", f"{ours['clips_per_second']:.3g}",
            f"{share_of_peak(part, top['flops']):.0%}", _gigabytes(ours), part["peer"] if theirs else "-",
            f"{theirs['clips_per_second']:.3g}" if theirs else "-", _gigabytes(theirs),
            f"{ours['clips_per_second'] / theirs['clips_per_second']:.2f}" if theirs else "-",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    for part in parts:
        if "psnr" in part:
            lines += [
                "",
                f"Packing {part['height']} x {part['width']} to a shorter side of {part['short_side']}, a key frame "
                f"every {part['keys']} frames, crf {part['crf']}: {sentence(part)}.",
            ]
        elif "clip" in part:
            bare, read, data = (part["seconds"][key] for key in ("bare", "read", "dataset"))
            files = part["files"]
            lines += [
                "",
                f"Reading {part['clip'].replace('x', ' x ')} from {files['height']} x {files['width']} H.264: "
                f"{1000 * bare:.0f} ms of a core a clip for decoding alone, {1000 * read:.0f} for RGB frames in the "
                f"same process ({bare / read:.2f} of its rate), {1000 * data:.0f} for `ClipDataset` with the transform "
                f"for training ({bare / data:.2f}).",
            ]
    lines += [
        "",
        *(f"Not measured: {name} ({part['error']})." for name, part in record["parts"].items() if "error" in part),
    ]
    return "\n".join(lines).rstrip()


def _gigabytes(side: dict[str, Any] | None) -> str:
    return f"{side['bytes'] / 1e9:.1f}" if side and side["bytes"] is not None else "-"


def between(page: str, begin: str, end: str) -> str:
    """What a page has between two marks; ValueError if it lacks one of them."""
    _, first, rest = page.partition(begin)
    inside, last, _ = rest.partition(end)
    if not first or not last:
        raise ValueError(f"the page lacks the marks {begin} and {end}: put them where the text should be")
    return inside.strip()


def made() -> dict[str, tuple[str, str, str]]:
    """For each page: its two marks, and the text that belongs between them."""
    found = records()
    return {"README.md": (BEGIN, END, table(found)), "data/README.md": (scale.BEGIN, scale.END, scale.scale(found))}


def write_tables(root: Path) -> None:
    """Put the tables where they belong in a checkout."""
    for name, (begin, end, text) in made().items():
        page = read_text(root / name)
        between(page, begin, end)
        head, _, rest = page.partition(begin)
        atomic_write(root / name, f"{head}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}".encode())
