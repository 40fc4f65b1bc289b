"""Which network `course evaluate` tests: that of a run folder, of a checkpoint in one, or a released file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import typer
from torch import nn

from course_lib.files import read_json
from course_lib.models import build, configure
from course_lib.official import SOURCES, load
from course_lib.training.checkpoint import load as load_checkpoint
from course_lib.training.distributed import started
from course_lib.training.fit import to_network
from course_lib.training.folder import ABOUT, checkpoint_in, tested_weights
from course_lib.training.recipe import Recipe, changed
from course_lib.training.recipes import recipe
from course_lib.training.report import judge, write_report
from course_lib.training.sources import GENERATED, read_source
from course_lib.video.transforms import Colours


class Candidate(NamedTuple):
    """A network to test, and on what."""

    net: nn.Module
    recipe: Recipe
    data: str
    root: str | None
    subset: str
    classes: tuple[str, ...] | None
    file: Path


def evaluate_run(
    run: Path,
    views: str | None = None,
    out: Path | None = None,
    root: str | None = None,
    network: str | None = None,
    source: str | None = None,
    data: str | None = None,
    workers: int = 0,
) -> dict[str, Any]:
    """Test, print and write the scores; ValueError, with the way out, for what cannot be tested."""
    found = candidate(run, network, source, data, root)
    chosen = changed(found.recipe, {"views": views}) if views else found.recipe
    config: Any = found.net.config
    frames, size = config.clip[:2]
    with started() as (ranks, device):
        videos = read_source(found.data, found.root, found.subset, size, workers, test_only=True)
        if found.classes is not None and videos.test.classes != found.classes:
            raise ValueError(
                f"{videos.test.source}: {len(videos.test.classes)} classes, but {found.file} was trained on "
                f"{len(found.classes)}, or on others: test it on the data that it was trained on"
            )
        if config.classes != len(videos.test.classes):
            raise ValueError(
                f"{videos.test.source}: {len(videos.test.classes)} classes, but {found.file} tells {config.classes} "
                f"apart: give the data that it was trained on"
            )
        net = found.net.to(device)
        judged = judge(
            net,
            videos,
            chosen,
            frames,
            size,
            chosen.views,
            to_network(chosen, device),
            device,
            ranks,
            workers,
            True,
        )
        if not ranks.first:
            return {}
    times, crops = chosen.views
    folder = out or found.file.with_name(f"{found.file.stem}-{times}x{crops}")
    about = {"file": str(found.file), "data": found.data, "views": f"{times}x{crops}", "aims_at": chosen.aims_at}
    result = write_report(folder, *judged, videos.test.classes, about)
    typer.echo(
        f"top-1 {result['top1']:.2%}, top-5 {result['top5']:.2%}, mean of classes {result['mean_class']:.2%} of "
        f"{result['clips']:,} clips, {times}x{crops} views; {folder}"
    )
    return result


def candidate(
    run: Path, network: str | None = None, source: str | None = None, data: str | None = None, root: str | None = None
) -> Candidate:
    """The network of a run (the best, else the last checkpoint), of one of its checkpoints, or a released one."""
    folder = run if run.is_dir() else run.parent
    about = read_json(folder / ABOUT)
    if about is None or network is not None:
        return _released(run, network, source, data, root)
    file = run if run.is_file() else checkpoint_in(folder)
    classes = tuple(about["classes"])
    net = build(about["network"], classes=len(classes), **about["changes"])
    net.load_state_dict(tested_weights(load_checkpoint(file)))
    place = root or about["now"]["root"]
    return Candidate(net, _recipe(about["recipe"]), about["data"], place, about["subset"], classes, file)


def _recipe(stored: dict[str, Any]) -> Recipe:
    """A recipe as run.json holds it."""
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(Recipe)):
        if name in stored:
            value = stored[name]
            values[name] = tuple(value) if isinstance(value, list) else value
    values["strides"] = {int(frames): stride for frames, stride in stored["strides"].items()}
    values["colours"] = Colours(*(tuple(part) for part in stored["colours"]))
    return Recipe(**values)


def _released(run: Path, network: str | None, source: str | None, data: str | None, root: str | None) -> Candidate:
    if not run.is_file():
        raise ValueError(f"{run}: neither a run of `course train` nor a file: it has no {ABOUT}")
    if network is None or source is None or data is None:
        raise ValueError(
            f"{run}: no {ABOUT} beside it, so it is not of a run; for a released file say --network, --source "
            f"({', '.join(SOURCES)}) and --data"
        )
    if data in GENERATED:
        raise ValueError(
            f"--data {data}: {run} knows the classes of Kinetics (K) or of Something-Something v2 (S); use one of "
            "them, or a manifest.csv with their numbers"
        )
    chosen = recipe(network, data)
    net = build(network, classes=174 if data == "S" else configure(network).classes)
    load(net, run, source)
    return Candidate(net, chosen, data, root, "all", None, run)
