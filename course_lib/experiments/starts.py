"""Where a network's weights come from before its training: stills first, then inflation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from course_lib.experiments.data import load_set
from course_lib.experiments.recipes import Recipe
from course_lib.experiments.runs import Arm, learn
from course_lib.layers.inflate import load_image_weights
from course_lib.profiles import Profile

STILLS = Recipe(100, 32, 1e-3)


def learned_stills(net: nn.Module, profile: Profile, seed: int) -> nn.Module:
    """The image network that `net` is inflated from (its `image_start`), trained to name the looks of single frames:
    those of set L's training clips. In the cpu profile for as long as STILLS says."""
    data = load_set("L", profile, progress=False)
    clips = cast(Tensor, data.train)  # n T H W 3
    stills = data._replace(
        train=clips.flatten(0, 1)[:, None],  # every frame is a clip of one
        train_labels=data.train_labels.repeat_interleave(clips.shape[1]),
    )
    if profile.name == "cpu":
        profile = replace(profile, **STILLS._asdict())
    with torch.random.fork_rng():
        blank: Any = cast(Any, net).image_start().image
        torch.manual_seed(seed)
        image = type(blank)(replace(blank.config, classes=len(data.classes)))
        image.to("cuda" if torch.cuda.is_available() else "cpu")
        for _ in learn(image, stills, profile, seed):
            pass
    return image.cpu().eval()


def inflated(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """Fill `net` from `learned_stills`, but for its head."""
    image = learned_stills(net, profile, seed)
    weights = {name: weight for name, weight in image.state_dict().items() if not name.startswith("head.")}
    with torch.random.fork_rng():  # the blank image network draws its weights
        _, entries, how, part = cast(Any, net).image_start()
    load_image_weights(net, weights, entries, how, part)
