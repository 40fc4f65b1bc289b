"""Optimisers and the course of their learning rate.

AdamW (Loshchilov and Hutter 2019) is what most video transformers train with, SGD with Nesterov's momentum what I3D,
Non-local, R(2+1)D and SlowFast train with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn


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


def learning_rate(step: int, config: TrainConfig) -> float:
    """A linear climb to `peak_lr` over `warmup` steps, then half a cosine down to zero at `steps`."""
    if step < config.warmup:
        return config.peak_lr * (step + 1) / config.warmup
    done = (step - config.warmup) / (config.steps - config.warmup)
    return config.peak_lr * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay what multiplies the features: every `...weight` of two or more axes, the matrices and kernels.

    Spared are the vectors (biases, norms, scales) and the tables that are added, not multiplied: position embeddings,
    class tokens, relative biases. The number of axes cannot tell a table from a matrix, but the name can:
    torch calls `weight` what its layers multiply by, and a table is a plain parameter with a name of its own.
    The released MViT and Swin code spares its tables too, by lists of names.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            (decayed if name.endswith("weight") and parameter.ndim >= 2 else spared).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over the parameters that are to be trained."""
    groups = parameter_groups(net, config.weight_decay)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum, nesterov=True)
    return torch.optim.AdamW(groups)
