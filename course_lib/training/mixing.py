"""mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019) for clips: two clips in one, and both their labels.

Neighbours in a batch are mixed, clips 2k and 2k + 1, by one draw a step that depends on the seed and the step alone:
however the batch is parted among processes, the same clips are mixed in the same way. Batches are shuffled, so any
other partner would do as well. A box is cut from all frames alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Mixed:
    """Clips, the labels of their larger or first part, those of the other part, and the share of the first."""

    clips: Float[Tensor, "b c T H W"]
    labels: Int[Tensor, "b"]
    others: Int[Tensor, "b"]
    share: float = 1.0

    def pieces(self, size: int) -> list[Mixed]:
        """The same clips, `size` at a time."""
        parts = zip(self.clips.split(size), self.labels.split(size), self.others.split(size), strict=True)
        return [Mixed(clips, labels, others, self.share) for clips, labels, others in parts]

    def loss(self, logits: Float[Tensor, "b classes"], smoothing: float) -> Float[Tensor, ""]:
        """Cross-entropy against both labels by their shares, each smoothed."""
        loss = F.cross_entropy(logits, self.labels, label_smoothing=smoothing)
        if self.share == 1:
            return loss
        return self.share * loss + (1 - self.share) * F.cross_entropy(logits, self.others, label_smoothing=smoothing)


def mix(
    clips: Float[Tensor, "b c T H W"], labels: Int[Tensor, "b"], mixup: float, cutmix: float, seed: int, step: int
) -> Mixed:
    """The batch of a step, mixed by mixup or CutMix with shares from Beta(alpha, alpha); where both have an alpha, by
    either with equal chance. ValueError for an odd number of clips."""
    if not (mixup or cutmix):
        return Mixed(clips, labels, labels)
    if len(clips) % 2:
        raise ValueError(
            f"{len(clips)} clips a process cannot be mixed two by two: use a batch that gives each an even number, or "
            f"mixup=0 and cutmix=0"
        )
    draw = np.random.default_rng((seed, step, 7))  # 7: none of the streams of the clips
    cut = bool(cutmix) and (not mixup or draw.random() < 0.5)
    alpha = cutmix if cut else mixup
    share = float(draw.beta(alpha, alpha))
    partners = clips.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    others = labels.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    if not cut:
        return Mixed(clips * share + partners * (1 - share), labels, others, share)
    height, width = clips.shape[-2:]
    side = (1 - share) ** 0.5
    y, x = int(draw.integers(height)), int(draw.integers(width))
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    top, bottom = max(0, y - half_height), min(height, y + half_height)
    left, right = max(0, x - half_width), min(width, x + half_width)
    cut_clips = clips.clone()
    cut_clips[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
    return Mixed(cut_clips, labels, others, 1 - (bottom - top) * (right - left) / (height * width))
