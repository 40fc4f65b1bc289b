"""Optimisers and the course of their learning rate.

AdamW (Loshchilov and Hutter 2019) is what most video transformers train with, SGD with Nesterov's momentum what I3D,
Non-local, R(2+1)D and SlowFast train with.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run. `seed` fixes dropout and drop path; the order of the clips has a seed of its own."""

    steps: int = 1000
    peak_lr: float = 1e-3
    warmup: int = 50  # steps of the linear climb
    weight_decay: float = 0.05
    grad_clip: float = 1.0  # the longest gradient that is followed at full length
    seed: int = 0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9  # of SGD, in Nesterov's form

    def __post_init__(self) -> None:
        last = self.steps - 1
        for name, holds, remedy in (
            ("steps", self.steps >= 1, "train at least 1 step"),
            ("peak_lr", 0 < self.peak_lr < math.inf, "give a positive number; 1e-3 suits a tiny network"),
            ("warmup", 0 <= self.warmup <= last, f"climb for 0 to {last} of the {self.steps} steps"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "give 0, for none, or a small positive number"),
            ("grad_clip", 0 < self.grad_clip < math.inf, "give a positive number; 1e9 clips nothing"),
            ("seed", 0 <= self.seed < 2**32, "give a whole number from 0 to 4294967295"),
            ("optimizer", self.optimizer in OPTIMIZERS, f"use {' or '.join(OPTIMIZERS)}"),
            ("momentum", 0 < self.momentum < 1, "give a number between 0 and 1; 0.9 is usual"),
        ):
            if not holds:
                raise ValueError(f"{name}={getattr(self, name)!r}: {remedy}")


OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "steps")
SPARED = ("vectors and tables", "vectors", "tables", "batch norms", "nothing")


@dataclass(frozen=True)
class RecipeConfig(TrainConfig):
    """What recipes of papers set besides. As it stands it changes nothing."""

    nesterov: bool = True
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[int, ...] = ()  # steps after which the rate is a tenth of what it was
    first_lr: float = 0.0  # where the climb begins; its first step is one step above
    last_lr: float = 0.0  # where the cosine ends
    cosine_from: Literal["warmup", "start"] = "warmup"  # where it has its top; from the start, the climb ends below it
    spared: Literal["vectors and tables", "vectors", "tables", "batch norms", "nothing"] = "vectors and tables"
    backbone_lr: float = 1.0  # share of the rate, of all but the head and tables of relative positions
    label_smoothing: float = 0.0
    mixup: float = 0.0  # alpha of its Beta distribution; 0: none
    cutmix: float = 0.0  # likewise; with both, a coin is tossed every step
    ema: float = 0.0  # decay of the mean of weights over steps; 0: none
    bf16: bool = True  # autocast on a GPU

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, holds, remedy in (
            ("schedule", self.schedule in SCHEDULES, f"use {' or '.join(SCHEDULES)}"),
            ("spared", self.spared in SPARED, f"use {', '.join(SPARED)}"),
            ("first_lr", 0 <= self.first_lr <= self.peak_lr, f"begin between 0 and peak_lr={self.peak_lr:g}"),
            ("last_lr", 0 <= self.last_lr <= self.peak_lr, f"end between 0 and peak_lr={self.peak_lr:g}"),
            ("backbone_lr", 0 < self.backbone_lr < math.inf, "give a positive share; 1 treats all alike"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "give a share from 0 to below 1; 0.1 is usual"),
            ("mixup", 0 <= self.mixup < math.inf, "give 0, for none, or a positive alpha; 0.8 is usual"),
            ("cutmix", 0 <= self.cutmix < math.inf, "give 0, for none, or a positive alpha; 1 is usual"),
            ("ema", 0 <= self.ema < 1, "give 0, for none, or a decay below 1; 0.9999 is usual"),
        ):
            if not holds:
                raise ValueError(f"{name}={getattr(self, name)!r}: {remedy}")


def in_full(config: TrainConfig) -> RecipeConfig:
    """The same settings with all that recipes may set besides."""
    return config if isinstance(config, RecipeConfig) else RecipeConfig(**asdict(config))


def learning_rate(step: int, config: TrainConfig) -> float:
    """A linear climb over `warmup` steps, then half a cosine down to zero at `steps`, from `peak_lr`; recipes may begin
    and end elsewhere, or fall by steps."""
    c = in_full(config)
    if step < c.warmup:
        return c.first_lr + (_after_warmup(c.warmup, c) - c.first_lr) * (step + 1) / c.warmup
    return _after_warmup(step, c)


def _after_warmup(step: int, c: RecipeConfig) -> float:
    if c.schedule == "steps":
        return c.peak_lr * 0.1 ** sum(step >= milestone for milestone in c.milestones)
    top = c.warmup if c.cosine_from == "warmup" else 0
    done = (step - top) / (c.steps - top)
    return c.last_lr + (c.peak_lr - c.last_lr) * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(net: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """What decays and what does not, what learns at the full rate ("share" 1) and what at a share of it.

    Decay what multiplies the features: every `...weight` of two or more axes, the matrices and kernels. Spared are the
    vectors (biases, norms, scales) and the tables that are added, not multiplied: position embeddings, class tokens,
    relative biases. The number of axes cannot tell a table from a matrix, but the name can: torch calls `weight` what
    its layers multiply by, and a table is a plain parameter with a name of its own. The released MViT and Swin code
    spares its tables too, by lists of names; recipes may spare less.
    """
    c = in_full(config)
    norms = {id(p) for part in net.modules() if isinstance(part, _BatchNorm) for p in part.parameters(recurse=False)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {(c.weight_decay, 1.0): [], (0.0, 1.0): []}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            vector, table = parameter.ndim < 2, not name.endswith("weight") and parameter.ndim >= 2
            spared = {
                "vectors and tables": vector or table,
                "vectors": vector,
                "tables": table,
                "batch norms": id(parameter) in norms,
                "nothing": False,
            }[c.spared]
            share = 1.0 if name.startswith("head.") or table else c.backbone_lr
            groups.setdefault((0.0 if spared else c.weight_decay, share), []).append(parameter)
    return [{"params": some, "weight_decay": decay, "share": share} for (decay, share), some in groups.items()]


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over the parameters that are to be trained."""
    c = in_full(config)
    groups = [group for group in parameter_groups(net, c) if group["params"]]
    if c.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=c.peak_lr, momentum=c.momentum, nesterov=c.nesterov)
    return torch.optim.AdamW(groups)


def moving_mean(net: nn.Module, decay: float) -> AveragedModel:
    """The mean of the weights over steps (EMA), which `train` keeps up to date; buffers are those of the last step."""
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay))
