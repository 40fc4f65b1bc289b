"""What a training starts from: another run or a checkpoint of this library, or a released file of video or of images.

A checkpoint of ours is known by what its file says of itself, and tells which network it holds; for a released file
its source has to be named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from course_lib.files import read_json, sha256
from course_lib.layers.inflate import LoadReport
from course_lib.official import SOURCES, load
from course_lib.official.adapt import fit
from course_lib.official.images import start_from_images
from course_lib.training.checkpoint import Checkpoint, as_plain, is_checkpoint
from course_lib.training.checkpoint import load as load_checkpoint
from course_lib.training.folder import ABOUT, checkpoint_in, tested_weights

IMAGE_SOURCES = ("timm", "official", "torchvision")
MAY_DIFFER = {"classes", "frames", "size", "window", "dropout", "head_dropout", "drop_path", "scratch"}


class Start(NamedTuple):
    """A line for those who watch, and what run.json keeps of it."""

    line: str
    origin: dict[str, Any]


def start_from(net: nn.Module, start: str, source: str | None, classes: tuple[str, ...]) -> Start:
    """Fill `net` from a run folder, a checkpoint or a released file; what does not belong to `classes` stays fresh.

    Raises:
        ValueError: there is no such file, it does not fit, or nobody can tell what it is; with the way out.
    """
    path = Path(start)
    if path.is_dir():
        if not (path / ABOUT).is_file():
            raise ValueError(f"--start {start}: a folder without {ABOUT}, so no run of `course train`; name a file")
        path = checkpoint_in(path)
    if not path.is_file():
        raise ValueError(f"--start {start}: no such file")
    origin: dict[str, Any] = {"file": str(path.resolve()), "sha256": sha256(path)}
    if is_checkpoint(path):
        if source is not None:
            raise ValueError(f"--source {source}: {path} is a checkpoint of this library, so leave --source out")
        saved = load_checkpoint(path)
        about = read_json(path.parent / ABOUT) or {}
        report = fill(net, saved, path, about.get("classes"), classes)
        origin |= {"step": saved.step} | {name: about[name] for name in ("network", "data", "subset") if name in about}
    else:
        report = _fill_released(net, path, source)
        origin |= {"source": source}
    resized = f"; resized: {', '.join(report.resized)}" if report.resized else ""
    return Start(report.line(path) + resized, origin | {"fresh": report.fresh, "resized": report.resized})


def fill(
    net: nn.Module, saved: Checkpoint, path: Path, theirs: list[str] | None, classes: tuple[str, ...]
) -> LoadReport:
    """Fill `net` with the tested weights of a checkpoint of such a network: what lies on a grid is resized for other
    frames, pixels or windows, and the head stays fresh for other classes (`theirs`, if known; else their number)."""
    other = _network_of(net, saved, path)
    weights = tested_weights(saved)
    wrong = [name for name, x in other.state_dict().items() if name not in weights or weights[name].shape != x.shape]
    if wrong := [*wrong, *(name for name in weights if name not in other.state_dict())]:
        raise ValueError(
            f"--start {path}: {len(wrong)} of its weights are not those of the {type(net).__name__} that it describes, "
            f"{wrong[0]} first: it is damaged, or of another version of this library"
        )
    try:
        filled, resized = fit(net, other, weights)
    except ValueError as error:
        raise ValueError(f"--start {path}: {error}") from None
    if len(classes) != other.config.classes or (theirs is not None and tuple(theirs) != classes):
        filled = {name: x for name, x in filled.items() if not name.startswith("head.")}
    ours: dict[str, Tensor] = net.state_dict()
    net.load_state_dict(ours | filled)
    numbers = [name for name, x in ours.items() if x.is_floating_point()]
    fresh = tuple(name for name in numbers if name not in filled)
    return LoadReport(tuple(filled), fresh, tuple(name for name in weights if name in fresh), "", tuple(resized))


def _network_of(net: Any, saved: Checkpoint, path: Path) -> Any:
    """The network that a checkpoint holds, without numbers. ValueError if it is not like `net`."""
    there, here = dict(saved.settings.get("network", {})), as_plain(net.config)
    kind = there.pop("class", None)
    if kind != type(net).__name__:
        holds = "does not tell its network" if kind is None else f"holds a {kind}"
        raise ValueError(f"--start {path}: {holds}, this is a {type(net).__name__}: start one network from another")
    differ = {name: there[name] for name in here if name in there and there[name] != here[name]}
    if others := differ.keys() - MAY_DIFFER:
        lines = ", ".join(f"{name}={differ[name]!r} there, {here[name]!r} here" for name in sorted(others))
        raise ValueError(f"--start {path}: another {kind}, {lines}: train the network that it holds, or start anew")
    changes = {name: _as(value, getattr(net.config, name)) for name, value in differ.items()}
    with torch.device("meta"):
        return type(net)(replace(net.config, **changes))


def _as(value: Any, like: Any) -> Any:
    """A value that comes from JSON, in which tuples are lists."""
    if not isinstance(value, list):
        return value
    return type(like)(*value) if hasattr(like, "_fields") else tuple(value)


def _fill_released(net: nn.Module, file: Path, source: str | None) -> LoadReport:
    if source is None or not (source in IMAGE_SOURCES or source in SOURCES):
        known = ", ".join((*IMAGE_SOURCES, *(name for name in SOURCES if name not in IMAGE_SOURCES)))
        raise ValueError(f"--source {source}: say whose names the file of --start has: {known}")
    ways: list[Callable[..., Any]] = []
    ways += [load] if source in SOURCES else []
    ways += [start_from_images] if source in IMAGE_SOURCES else []
    problems = []
    for way in ways:
        try:
            return way(net, file, source, adapt=True)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError(f"--start {file} does not fit {type(net).__name__}: " + "\nor, as images: ".join(problems))
