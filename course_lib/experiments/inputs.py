"""What a network may be given in place of colours: grey, the change from frame to frame, exact optical flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from course_lib.experiments.data import FRAMES, LECTURE, Data, generated
from course_lib.profiles import Profile
from course_lib.synthetic.plan import Item, plan
from course_lib.synthetic.render import CLASSES, flow, scene
from course_lib.training.evaluate import accuracy, predict
from course_lib.video.sampling import spread

LENGTH = 32  # frames of a generated clip
REACH = 20 / 224  # of the width: I3D cuts flow off at 20 pixels of its 224


def grey(clips: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b 3 T H W"]:
    """The mean of the colours, in each of the three."""
    return clips.mean(1, keepdim=True).expand_as(clips)


def difference(clips: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b 3 T H W"]:
    """What changes from each frame to the next one; nothing after the last."""
    return torch.cat([clips[:, :, 1:] - clips[:, :, :-1], torch.zeros_like(clips[:, :, :1])], dim=2)


def two_stills(clips: Float[Tensor, "b 3 8 H W"]) -> Float[Tensor, "b 3 8 H W"]:
    """Frames 3 and 6 of eight, each for half of the clip: the picture changes once, between frames 4 and 5."""
    return clips[:, :, [2] * 4 + [5] * 4]


def load_flow(name: str, profile: Profile, frames: int = FRAMES) -> Data:
    """A generated set as its exact optical flow, from the motion that drew it; the clips of `load_set`, in their order.

    For each frame that a network sees, the step to the next of the clip's 32 (for the last frame, the step to it):
    rightwards and downwards, cut off at 20/224 of the width and kept in bytes, as I3D does. ValueError for a set that
    was not drawn.
    """
    if name not in CLASSES:
        raise ValueError(f"set {name!r} was not drawn, so its exact flow is not known: use one of {', '.join(CLASSES)}")
    items, steps = plan(name, profile.clips, seed=0), np.minimum(spread(LENGTH, frames), LENGTH - 2)
    difficulty = profile.difficulty_of(name)

    def read(item: Item) -> UInt8[np.ndarray, "T H W 2"]:
        drawn = scene(name, item.label, item.seed, LENGTH, profile.size, item.split, item.look, None, difficulty)
        moved = flow(drawn)[steps] / (REACH * profile.size)
        return np.round(127.5 * (1 + moved.clip(-1, 1))).astype(np.uint8)

    def split(part: str) -> tuple[Tensor, Tensor]:
        chosen = [item for item in items if item.split == part][: LECTURE if profile.replays else None]
        return torch.from_numpy(np.stack(list(map(read, chosen)))), torch.tensor([item.label for item in chosen])

    return generated(name, profile, frames, split, seen_as="flow")


def logits_of(net: nn.Module, data: Data) -> dict[str, Any]:
    """What late fusion needs: the logits of every test clip, and its class."""
    logits, labels = predict(net, data.test_batches())
    return {"logits": [[round(value, 3) for value in row] for row in logits.tolist()], "labels": labels.tolist()}


def late_fusion(
    labels: Sequence[int],
    one: Sequence[Sequence[float]],
    other: Sequence[Sequence[float]],
    fuse: Callable[[Tensor, Tensor], Tensor] = torch.add,
) -> float:
    """Accuracy of two networks that were trained apart, from what `logits_of` recorded of each; I3D adds logits."""
    logits = fuse(torch.tensor(one), torch.tensor(other))
    return accuracy(logits, torch.tensor(labels))
