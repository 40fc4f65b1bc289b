"""The full networks of the gpu profile: which weights they start from, and how their papers train them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn

from course_lib.experiments.runs import recipe
from course_lib.official import load
from course_lib.official.images import start_from_images
from course_lib.paths import DATA
from course_lib.profiles import Profile
from course_lib.training.optim import TrainConfig


class Paper(NamedTuple):
    """How the released code trains on Kinetics: its learning rate is for so many clips a step, and may suppose a
    network that starts from images."""

    optimizer: Literal["adamw", "sgd"]
    peak_lr: float
    clips: int
    weight_decay: float
    grad_clip: float = 1e9  # none
    from_images: bool = False


PAPERS = {  # class of network: from the configs of facebookresearch/TimeSformer and facebookresearch/SlowFast
    "TimeSformer": Paper("sgd", 0.005, 8, 1e-4, from_images=True),  # TimeSformer_divST_8x32_224.yaml, also on SSv2
    "SlowFast": Paper("sgd", 0.1, 64, 1e-4),  # SLOWFAST_8x8_R50.yaml
    "NonLocalNet": Paper("sgd", 0.1, 64, 1e-4),  # I3D_8x8_R50.yaml
    "MViT": Paper("adamw", 1e-4, 16, 0.05, grad_clip=1.0),  # MVIT_B_16x4_CONV.yaml, MVITv2_B_32x3.yaml
}


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

    The recipe has the paper's optimiser, weight decay and learning rate, in proportion to the profile's batch; steps,
    climb and fall of the rate are the course's. Where no paper's recipe is known here, or it supposes images and there
    were none, it is the profile's. A tiny network (not `profile.full`) stays as it is and has the profile's, too.
    """
    ours = recipe(profile, seed)
    if not profile.full:
        return ours
    given: list[tuple[str, Any, Callable[..., Any]]] = [
        (*file, fill) for file, fill in ((video, load), (images, start_from_images)) if file
    ]
    found = next((one for one in given if (folder / one[0]).is_file()), None)
    if found is None:
        print(f"start: from nothing; {folder} has none of: {', '.join(name for name, *_ in given) or 'none is known'}")
    else:
        name, source, fill = found
        report = fill(net, folder / name, source, adapt=True)
        print(f"start: {name}, {len(report.loaded)} tensors; fresh: {', '.join(report.fresh) or 'none'}")
    paper = PAPERS.get(type(net).__name__)
    if paper is None or (paper.from_images and found is None):
        return ours
    return replace(
        ours,
        optimizer=paper.optimizer,
        peak_lr=paper.peak_lr * profile.batch / paper.clips,
        weight_decay=paper.weight_decay,
        grad_clip=paper.grad_clip,
    )
