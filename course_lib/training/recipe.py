"""What a recipe lists: a training as data, whose values can be changed by text, as `--set` has them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_type_hints

from course_lib.training.optim import RecipeConfig
from course_lib.video.transforms import KINETICS, Colours


@dataclass(frozen=True)
class Recipe:
    """What a training does. Rates and epochs are those of `batch` clips a step; another batch scales the rate with it.

    Pixels are those of a network that sees 224 x 224, and are scaled for others.
    """

    source: str
    aims_at: str  # the published number, the network that has it, its views
    # the optimiser
    optimizer: Literal["adamw", "sgd"] = "sgd"
    lr: float = 0.1  # the highest, for lr_clips clips a step
    lr_clips: int = 64
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    spared: Literal["vectors and tables", "vectors", "tables", "batch norms", "nothing"] = "batch norms"  # of decay
    backbone_lr: float = 1.0  # share of the rate, of all but the head and tables of relative positions
    grad_clip: float = 1e9  # none
    # its course
    batch: int = 64  # clips a step, of all processes together
    epochs: float = 196
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[float, ...] = ()  # epochs after which the rate is a tenth of what it was
    warmup: float = 0  # epochs of the linear climb
    first_lr: float = 0  # where the climb begins, for lr_clips clips a step
    last_lr: float = 0  # where the cosine ends
    cosine_from: Literal["warmup", "start"] = "warmup"
    # against learning by heart
    dropout: float | None = None  # before the classifier; None: as the network has it
    drop_path: float | None = None  # likewise
    label_smoothing: float = 0
    mixup: float = 0  # alpha; 0: none
    cutmix: float = 0
    ema: float = 0  # decay of the mean of weights over steps, with which the network is tested; 0: none
    # the clips
    repeats: int = 1  # samples of each clip in a step (repeated augmentation), each drawn for itself
    strides: dict[int, int] = field(default_factory=lambda: {32: 2})  # by the frames that a network sees
    fps: float | None = 30  # of the clock that strides count; None: the file's own frames
    short_side: tuple[int, int] = (256, 320)  # of which one is drawn
    area: tuple[float, float] | None = None  # if given: a rectangle of such a share of the frame
    flip: bool = True  # never with Something-Something v2
    randaugment: int = 0  # magnitude, of 10; 0: none
    randaugment_ops: int = 4
    erasing: float = 0  # probability
    colour: float = 0  # probability of a change of brightness, contrast, saturation and hue
    grey: float = 0  # probability of no colour at all
    colours: Colours = KINETICS
    # batch norm
    frozen_bn: bool = False
    sync_bn: bool = False
    precise_bn: int = 0  # batches over which the statistics are taken anew before every test; 0: none
    # testing
    views: tuple[int, int] = (10, 3)  # clips in time, crops each
    test_short_side: int = 256
    test_size: int | None = None  # pixels of a crop; None: those of training
    test_frames: int | None = None  # None: those of training
    # how it is computed, which the result should not depend on
    bf16: bool = True  # on a GPU
    at_once: int = 0  # clips that a process computes at a time, gradients added up; 0: all of a step
    channels_last: bool = False
    recompute: bool = False
    compile: bool = False
    shard: bool = False  # FSDP2 in place of DDP

    def config(self, steps_an_epoch: int, seed: int = 0) -> RecipeConfig:
        """The settings of the engine, for an epoch of so many steps."""
        steps = max(1, round(self.epochs * steps_an_epoch))
        scale = self.batch / self.lr_clips
        return RecipeConfig(
            steps=steps,
            peak_lr=self.lr * scale,
            warmup=min(steps - 1, round(self.warmup * steps_an_epoch)),
            weight_decay=self.weight_decay,
            grad_clip=self.grad_clip,
            seed=seed,
            optimizer=self.optimizer,
            momentum=self.momentum,
            nesterov=self.nesterov,
            schedule=self.schedule,
            milestones=tuple(round(epoch * steps_an_epoch) for epoch in self.milestones),
            first_lr=self.first_lr * scale,
            last_lr=self.last_lr * scale,
            cosine_from=self.cosine_from,
            spared=self.spared,
            backbone_lr=self.backbone_lr,
            label_smoothing=self.label_smoothing,
            mixup=self.mixup,
            cutmix=self.cutmix,
            ema=self.ema,
            bf16=self.bf16,
        )

    def stride(self, frames: int) -> int:
        """Of a network that sees so many frames: the paper's, or the one that spans as much time."""
        if frames in self.strides:
            return self.strides[frames]
        known, stride = next(iter(self.strides.items()))
        return max(1, known * stride // frames)


def changed(recipe: Recipe, changes: dict[str, str]) -> Recipe:
    """The recipe with some values given as text: lr=0.01, views=4x3, milestones=10,20, compile=yes."""
    kinds = get_type_hints(Recipe)
    known = [f.name for f in fields(Recipe) if f.name not in ("source", "aims_at", "strides", "colours")]
    values = {}
    for name, text in changes.items():
        if name not in known:
            near = get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"a recipe has no setting {name!r}: {hint}It has {', '.join(known)}")
        values[name] = _value(name, text, kinds[name])
    made = replace(recipe, **values)
    require_sense(made)
    return made


def require_sense(recipe: Recipe) -> None:
    """ValueError for values that no training could obey; those of the optimiser are asked by RecipeConfig."""
    for name, holds, remedy in (
        ("batch", recipe.batch >= 1, "give at least 1 clip a step"),
        ("lr_clips", recipe.lr_clips >= 1, "give the clips a step that the rate is for"),
        ("epochs", recipe.epochs > 0, "give a positive number"),
        ("warmup", 0 <= recipe.warmup <= recipe.epochs, f"climb for 0 to {recipe.epochs:g} epochs"),
        ("repeats", recipe.repeats >= 1, "show each clip at least once"),
        ("at_once", recipe.at_once >= 0, "give 0, for all clips of a step, or a positive number"),
        ("views", min(recipe.views) >= 1 and recipe.views[1] in (1, 3), "give clips x crops, 1 or 3 crops: 10x3"),
        ("short_side", 1 <= recipe.short_side[0] <= recipe.short_side[1], "give the least and the most: 256,320"),
        ("area", recipe.area is None or 0 < recipe.area[0] <= recipe.area[1] <= 1, "give shares: 0.08,1"),
        ("erasing", 0 <= recipe.erasing <= 1, "give a probability from 0 to 1"),
        ("colour", 0 <= recipe.colour <= 1, "give a probability from 0 to 1"),
        ("grey", 0 <= recipe.grey <= 1, "give a probability from 0 to 1"),
        ("randaugment", 0 <= recipe.randaugment <= 10, "give a magnitude from 0 to 10"),
        ("precise_bn", recipe.precise_bn >= 0, "give a number of batches, 0 for none"),
        ("fps", recipe.fps is None or recipe.fps > 0, "give ticks a second, or none for the file's own frames"),
    ):
        if not holds:
            raise ValueError(f"{name}={getattr(recipe, name)!r}: {remedy}")


def _value(name: str, text: str, kind: Any) -> Any:
    words = {"yes": True, "true": True, "no": False, "false": False, "none": None}
    try:
        if "tuple" in str(kind) and text != "none":
            parts = [_number(part, "int" in str(kind)) for part in text.replace("x", ",").split(",") if part]
            if "..." not in str(kind) and len(parts) != 2:
                raise ValueError(
                    "give two numbers, such as " + {"views": "10x3", "area": "0.08,1"}.get(name, "256,320")
                )
            return tuple(parts)
        if "Literal" in str(kind):
            if text not in kind.__args__:
                raise ValueError(f"use {' or '.join(map(repr, kind.__args__))}")
            return text
        word = words.get(text.lower(), ...)
        if kind is bool:
            if not isinstance(word, bool):
                raise ValueError("say yes or no")
            return word
        if word is None and "None" in str(kind):
            return None
        return _number(text, "float" not in str(kind))
    except ValueError as error:
        raise ValueError(f"{name}={text!r}: {error}") from None


def _number(text: str, whole: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError("give a finite number")
    if not whole:
        return value
    if value != int(value):
        raise ValueError(f"{text!r} is not a whole number")
    return int(value)
