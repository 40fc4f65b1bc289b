"""The full networks of the gpu profile: which weights they start from, and how their papers train them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from course_lib.experiments.runs import recipe
from course_lib.official import load
from course_lib.official.images import start_from_images
from course_lib.paths import DATA
from course_lib.profiles import Profile
from course_lib.training.optim import TrainConfig, in_full
from course_lib.training.recipes import FROM_IMAGES, PAPERS, RECIPES


def start(
    net: nn.Module,
    profile: Profile,
    video: tuple[str, str] | None = None,
    images: tuple[str, str] | None = None,
    folder: Path = DATA / "checkpoints",
    seed: int = 0,
) -> TrainConfig:
    """Give a full network the weights of a released one; the recipe to train it by, for `learn(..., config=)`.

    video, images: the name of a file and its source, as `official.load` and `official.images.start_from_images` know
    it; the first that lies in `folder` is taken, for any classes, frames and size. A printed line says which, or that
    the network starts from nothing.

    The recipe has the paper's optimiser, weight decay and learning rate (`training.recipes`), in proportion to the
    profile's batch; steps, climb and fall of the rate are the course's. Where the paper supposes images and there were
    none, it is the profile's. A tiny network (not `profile.full`) stays as it is and has the profile's, too.
    """
    ours = recipe(profile, seed)
    if not profile.full:
        return ours
    given: list[tuple[str, Any, Callable[..., Any]]] = [
        (*file, fill) for file, fill in ((video, load), (images, start_from_images)) if file
    ]
    found = next((one for one in given if (folder / one[0]).is_file()), None)
    if found is None:
        missed = f"; {folder} has none of: {', '.join(name for name, *_ in given)}" if given else ""
        print(f"start: from nothing{missed}")
    else:
        name, source, fill = found
        report = fill(net, folder / name, source, adapt=True)
        print(report.line(name))
    paper = PAPERS[type(net).__name__]
    if paper in FROM_IMAGES and found is None:
        return ours
    theirs = RECIPES[paper]
    return replace(
        in_full(ours),
        optimizer=theirs.optimizer,
        peak_lr=theirs.lr * profile.batch / theirs.lr_clips,
        momentum=theirs.momentum,
        nesterov=theirs.nesterov,
        weight_decay=theirs.weight_decay,
        spared=theirs.spared,
        backbone_lr=theirs.backbone_lr,
        grad_clip=theirs.grad_clip,
    )
