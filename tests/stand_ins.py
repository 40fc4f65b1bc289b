"""Folders in the layouts of Kinetics and of Something-Something v2, filled with generated clips (or others)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np

from course_lib.datasets import kinetics, ssv2
from course_lib.datasets.annotations import CLASS_LISTS
from course_lib.datasets.lessons import opposites_in_order
from course_lib.synthetic.render import CLASSES, render
from course_lib.synthetic.write import encode

LABELS = json.loads((CLASS_LISTS / "ssv2" / "labels.json").read_text())
Film = Callable[[int, str, int], np.ndarray]  # label, split, number: frames T H W 3


def appearance(label: int, split: str, number: int) -> np.ndarray:
    """A clip of set A, wider than high as real ones are."""
    clip = render("A", label % len(CLASSES["A"]), 2 * number + (split == "val"), 24, 48)
    return np.concatenate([clip, clip[:, :, :16]], axis=2)


def motion(label: int, split: str, number: int) -> np.ndarray:
    """A clip of set M; label 2k + 1 is the reverse of 2k."""
    clip = render("M", label % len(CLASSES["M"]), 2 * number + (split == "val"), 24, 48)
    return np.concatenate([clip, clip[:, :, :16]], axis=2)


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_kinetics(
    root: Path,
    layout: str = "csv",
    classes: Sequence[str] = kinetics.subset("mini10"),
    each: tuple[int, int] = (3, 2),
    film: Film = appearance,
) -> Path:
    """`each` clips of every class in train and in val. Layouts: "csv" as CVDF publishes it, "folders" of classes."""
    for split, count in zip(("train", "val"), each, strict=True):
        lines = ["label,youtube_id,time_start,time_end,split"]
        for label, name in enumerate(classes):
            for number in range(count):
                video = f"{split[0]}{label:05d}_{number:04d}"
                lines.append(f"{name},{video},0,10,{split}")
                folder = root / split / (name.replace(" ", "_") if layout == "folders" else "")
                put(folder / f"{video}_000000_000010.mp4", encode(film(label, split, number)))
        if layout == "csv":
            put(root / "annotations" / f"{split}.csv", "\n".join(lines) + "\n")
    return root


def write_ssv2(
    root: Path,
    suffix: str = ".webm",
    classes: Sequence[str] = opposites_in_order()[:8],
    each: tuple[int, int] = (3, 2),
    film: Film = motion,
) -> Path:
    """`each` clips of every class in train and in validation, as the release names them."""
    put(root / "labels" / "labels.json", json.dumps(LABELS))
    for split, count in zip(("train", "val"), each, strict=True):
        rows = []
        for label, name in enumerate(classes):
            for number in range(count):
                video = f"{1 + (split == 'val')}{label:02d}{number:03d}"
                template = name.replace("something", "[something]").replace("Something", "[Something]")
                rows.append({"id": video, "label": name, "template": template, "placeholders": ["a cup"]})
                content = webm(film(label, split, number)) if suffix == ".webm" else encode(film(label, split, number))
                put(root / ssv2.FOLDERS[0] / f"{video}{suffix}", content)
        put(root / "labels" / f"{ssv2.NAMES[split]}.json", json.dumps(rows))
    return root


def webm(frames: np.ndarray) -> bytes:
    """VP9 at 12 frames a second, as Something-Something v2 has."""
    with tempfile.NamedTemporaryFile(suffix=".webm") as file:
        with av.open(file.name, "w") as container:
            stream = container.add_stream("libvpx-vp9", rate=12)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
            stream.options = {"deadline": "realtime", "cpu-used": "8"}
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        return Path(file.name).read_bytes()
