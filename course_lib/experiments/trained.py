"""Trained networks of the lessons, kept small: what the profile `lecture` shows in place of a training.

`course notebooks` keeps them from its run in the profile `cpu`: data/checkpoints/lessons/NAME-SET-sSEED.safetensors,
the weights in half precision, every loss and accuracy, and the recipe.
"""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from course_lib.experiments.data import Data
from course_lib.paths import DATA
from course_lib.training.checkpoint import Checkpoint, as_plain, load, save
from course_lib.training.optim import TrainConfig
from course_lib.training.resume import Step, step_columns, step_records, unwrapped

FOLDER = DATA / "checkpoints" / "lessons"
KEEPS = "COURSE_KEEPS_TRAINED"  # in the environment of a notebook whose networks are to be kept
MAKE = "`course notebooks NN` trains and keeps those of lesson NN"


def kept_at(name: str, data: Data, seed: int) -> Path:
    return FOLDER / f"{name.replace(' ', '-')}-{data.name}-s{seed}.safetensors"


def keep(name: str, net: nn.Module, data: Data, config: TrainConfig, steps: list[Step]) -> None:
    """Keep a network as it was just trained, if this notebook's are to be kept."""
    if not os.environ.get(KEEPS):
        return
    weights = {
        part: weight.half() if weight.is_floating_point() else weight
        for part, weight in unwrapped(net).state_dict().items()
    }
    about = Checkpoint(len(steps), {"training": as_plain(config)}, weights, history=step_columns(steps))
    save(kept_at(name, data, config.seed), about)


def recall(name: str, net: nn.Module, data: Data, config: TrainConfig) -> list[Step]:
    """Fill `net` with the weights kept under this name, on the device where it is; the records of their training.

    ValueError if there are none, of another recipe, or of another network.
    """
    path = kept_at(name, data, config.seed)
    if not path.exists():
        raise ValueError(f"{path}: this training has not been kept, and a lecture trains nothing; {MAKE}")
    saved, asked = load(path), as_plain(config)
    if saved.settings["training"] != asked:
        there = saved.settings["training"]
        changed = [f"{key} {there.get(key)} there, {asked[key]} here" for key in asked if there.get(key) != asked[key]]
        raise ValueError(f"{path} was trained by another recipe ({'; '.join(changed)}); {MAKE}")
    try:
        unwrapped(net).load_state_dict(saved.weights)
    except RuntimeError as error:
        raise ValueError(f"{path} is of another network: {error}; {MAKE}") from None
    return step_records(saved)
