"""Does a picture of attention mean anything? Hide what is attended to most, or as much at random: what is it worth?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from course_lib.analysis.relations import Reads
from course_lib.analysis.tokens import Tokens, shares
from course_lib.grid import Grid
from course_lib.modes import evaluating


class Drop(NamedTuple):
    """How far the probability of the class falls when so many patches are hidden."""

    hidden: int
    of: int
    most: float
    random: tuple[float, ...]  # one a draw

    def __str__(self) -> str:
        return (
            f"{self.hidden} of {self.of} patches hidden: the score falls by {self.most:.3f} without those attended to "
            f"most, by {np.mean(self.random):.3f} without as many at random ({len(self.random)} draws)"
        )


def hide(
    clip: Float[Tensor, "1 c T H W"], tokens: Tokens, hidden: Bool[np.ndarray, " n"]
) -> Float[Tensor, "1 c T H W"]:
    """The clip with the patches of `hidden` in its mean colour; every patch covers its share of the clip."""
    part = shares(Grid(*clip.shape[2:]), tokens.grid)
    pixels = Reads(part.sees).reached(hidden[: tokens.grid.size]).reshape(clip.shape[2:])
    mask = torch.as_tensor(pixels, device=clip.device)
    return torch.where(mask, clip.mean(dim=(2, 3, 4), keepdim=True), clip)


def drops(
    net: nn.Module,
    clip: Float[Tensor, "1 c T H W"],
    label: int,
    tokens: Tokens,
    share: Float[np.ndarray, " n"],
    hidden: Sequence[int],
    draws: int = 20,
    seed: int = 0,
) -> list[Drop]:
    """For each number of `hidden` patches: the `share`s that are largest, against `draws` random choices.

    tokens: what `share` counts in; what extra tokens get is left out. ValueError if there are not so many patches.
    """
    patches = tokens.grid.size
    if min(hidden) < 1 or max(hidden) > patches:
        raise ValueError(f"cannot hide {list(hidden)} of {patches} patches: choose 1 to {patches}")
    order, generator = np.argsort(-share[:patches], kind="stable"), np.random.default_rng(seed)

    def score(chosen: np.ndarray) -> float:
        mask = np.zeros(patches, dtype=bool)
        mask[chosen] = True
        return float(net(hide(clip, tokens, mask)).softmax(-1)[0, label])

    with evaluating(net), torch.inference_mode():
        whole = score(np.zeros(0, int))
        return [
            Drop(
                many,
                patches,
                whole - score(order[:many]),
                tuple(whole - score(generator.choice(patches, many, replace=False)) for _ in range(draws)),
            )
            for many in hidden
        ]
