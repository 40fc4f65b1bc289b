"""Which tokens a layer gets, in which arrangement, and which of them meet in a row of its attention."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from course_lib.analysis.relations import EVERY, NONE, SameGroup
from course_lib.analysis.tokens import Extra, Tokens
from course_lib.grid import Grid
from course_lib.layers.schemes import SplitHeads
from course_lib.models import timesformer, video_swin, vidtr, vivit, vtn

CLASS, OF_FRAME, OF_PLACE = "class token", "class token of the frame", "class token of the place"


def extra_tokens(net: nn.Module, grid: Grid) -> tuple[Extra, ...]:
    """The class tokens that travel with the patches."""
    of_frame = Extra(OF_FRAME, Grid(grid.t, 1, 1))
    config: Any = net.config
    if isinstance(net, vidtr.VidTr) and config.attention == "separable":
        return Extra(CLASS, Grid(1, 1, 1)), of_frame, Extra(OF_PLACE, Grid(1, grid.h, grid.w))
    if isinstance(net, vtn.VTN) or (isinstance(net, timesformer.TimeSformer) and config.attention == "space"):
        return (of_frame,)
    if isinstance(net, vivit.ViViT):
        return () if config.pool == "gap" else (of_frame,) if config.model == 2 else (Extra(CLASS, Grid(1, 1, 1)),)
    return () if isinstance(net, video_swin.VideoSwin) else (Extra(CLASS, Grid(1, 1, 1)),)


def block_of(path: str) -> str:
    """'stages.stage1.0.attention' -> 'stage 1 block 1'"""
    found: list[str] = []
    for word in path.split("."):
        if word.isdigit():
            return " ".join([*found, f"block {int(word) + 1}"])
        if number := re.fullmatch(r"(block|nonlocal)(\d+)", word):
            found.append(
                {"block": "block", "nonlocal": "non-local block after block"}[number[1]] + f" {int(number[2]) + 1}"
            )
        elif word not in ("blocks", "encoder", "stages", "paths"):
            found.append(re.sub(r"^stage(?=\d)", "stage ", word).replace("_", " "))
    return " ".join(found)


def laid_out(tokens: Tokens, shape: tuple[int, ...]) -> Int[Tensor, "b ..."]:
    """Token numbers in the arrangement in which a layer gets its tokens. ValueError if they do not fit."""
    numbers, grid = tokens.numbers(), tokens.grid
    if np.prod(shape) == grid.size:
        return torch.as_tensor(numbers.reshape(shape))
    if shape == (1, grid.size + 1):
        return torch.as_tensor(in_one_row(tokens))
    if shape == (1, grid.t + 1, grid.h * grid.w + 1):  # VidTr's row and column of class tokens
        row = np.append(tokens.extra_numbers(CLASS), tokens.extra_numbers(OF_PLACE))
        frames = np.concatenate([tokens.extra_numbers(OF_FRAME).reshape(-1, 1), numbers.reshape(grid.t, -1)], axis=1)
        return torch.as_tensor(np.concatenate([row[None], frames])[None])
    raise ValueError(f"a layer gets tokens of shape {shape}, which are not those of the grid {tuple(grid)}")


def in_one_row(tokens: Tokens) -> Int[np.ndarray, "1 n"]:
    """The class token first."""
    return np.append(tokens.extra_numbers(CLASS), tokens.numbers())[None]


def class_numbers(tokens: Tokens, batch: int) -> Int[Tensor, "batch 1"]:
    """Of the class tokens that travel beside `batch` grids: one for the clip, or one for each frame."""
    name = next(extra.name for extra in tokens.extra if extra.shape.size == batch)
    return torch.as_tensor(tokens.extra_numbers(name).reshape(batch, 1))


def meet(scheme: Any, numbers: Int[Tensor, "b ..."], cls: Tensor | None = None) -> tuple[list[np.ndarray], list[Any]]:
    """The token numbers in every row that `scheme.apply` hands to its attention, call by call (-1: padding); masks."""
    rows: list[np.ndarray] = []
    masks: list[Any] = []

    def attend(x: Tensor, mask: Tensor | None = None) -> Tensor:
        rows.append(x[..., 0].long().numpy() - 1)  # 0 is what grids are filled up with
        masks.append(None if mask is None else mask[0].numpy())
        return x

    features = 2 if isinstance(scheme, SplitHeads) else 1
    x = (numbers + 1.0).double()[..., None]
    cls = None if cls is None else (cls + 1.0).double()[..., None]
    scheme.apply(attend, x.expand(*x.shape[:-1], features), cls)
    return rows, masks


def same_group(scheme: Any, tokens: Tokens, numbers: Int[Tensor, "b ..."], cls: Tensor | None) -> SameGroup:
    """A partition as group numbers; whoever takes no part in the layer has none."""
    group = np.full(tokens.size, NONE)
    inside = scheme.group_of(tuple(numbers.shape[1:])).numpy()
    many = int(inside.max()) + 1
    for i, row in enumerate(numbers.flatten(1).numpy()):
        group[row] = inside + i * many
    if cls is not None:  # it visits every group of its own grid
        group[cls.numpy().ravel()] = np.arange(len(cls)) if many == 1 else EVERY
    return SameGroup(group, group)
