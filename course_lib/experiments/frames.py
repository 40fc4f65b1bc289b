"""Which frames of a clip VTN is trained on, and which it is tested on, for the claims of notebook 05."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.experiments.data import Data
from course_lib.experiments.runs import Arm
from course_lib.modes import evaluating
from course_lib.profiles import Profile
from course_lib.training.evaluate import accuracy, pair_accuracy, predict

VIEWS = (1, 2, 4)  # frames


def shuffled_frames(clips: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b 3 T H W"]:
    """Every clip with its frames in an order of its own, another in another batch."""
    return _taken(clips, torch.rand(len(clips), clips.shape[2], generator=_drawn_by(clips)).argsort(dim=1))


def in_any_order(net: nn.Module, data: Data) -> dict[str, float]:
    """Scores on test clips whose frames were shuffled, by the same shuffles for every network."""
    generator = torch.Generator().manual_seed(0)

    def batches():
        for clips, labels in data.test_batches():
            order = torch.rand(len(clips), clips.shape[2], generator=generator).argsort(dim=1)
            yield _taken(clips, order), labels

    return _scores("shuffled", *predict(net, batches()), data)


def views(
    clips: Float[Tensor, "b 3 T H W"], length: int
) -> tuple[Float[Tensor, "b views 3 t H W"], Int[Tensor, "views t"]]:
    """The short clips of `length` frames that follow each other in every clip, and the numbers of their frames in it.

    ValueError if the clip does not divide into them.
    """
    frames = clips.shape[2]
    if frames % length:
        raise ValueError(f"{frames} frames do not divide into views of {length}: use a length that divides them")
    numbers = torch.arange(frames, device=clips.device).view(-1, length)
    return clips.unflatten(2, (-1, length)).movedim(2, 1), numbers


def single_frames(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """Train VTN on single frames: of every clip one, another in each batch. It is told the frame's number."""
    _train_on_views(net, 1)


def pairs_of_frames(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """Train VTN on two frames that follow each other: of every clip one of the pairs, another in each batch."""
    _train_on_views(net, 2)


def _train_on_views(net: nn.Module, length: int) -> None:
    def one_view(net: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if not net.training:
            return given
        short, numbers = views(given[0], length)
        chosen = torch.randint(short.shape[1], (len(short),), generator=_drawn_by(given[0])).to(short.device)
        return short[torch.arange(len(short), device=short.device), chosen], numbers[chosen]

    net.register_forward_pre_hook(one_view)


def by_views(net: nn.Module, data: Data) -> dict[str, float]:
    """Scores of VTN on test clips cut into views of one, two and four frames, their probabilities averaged."""
    scores: dict[str, float] = {}
    for length in VIEWS:

        def averaged(clips: Tensor, length: int = length) -> Tensor:
            short, numbers = views(clips, length)
            found = [net(short[:, i], numbers[i].expand(len(short), -1)).softmax(1) for i in range(short.shape[1])]
            return torch.stack(found).mean(0)

        device, answers, labels = next(net.parameters()).device, [], []
        with evaluating(net), torch.inference_mode():
            for clips, theirs in data.test_batches():
                answers.append(averaged(clips.to(device)).cpu())
                labels.append(theirs)
        scores |= _scores(f"views_of_{length}", torch.cat(answers), torch.cat(labels), data)
    return scores


def _drawn_by(clips: Tensor) -> torch.Generator:
    """Seeded by what the clips show. The global generator goes on as without it, so that arms of one seed vary their
    clips alike; and a run that was interrupted draws what it would have drawn."""
    return torch.Generator().manual_seed(int((64 * clips).round().long().sum()) % 2**63)


def _taken(clips: Tensor, order: Int[Tensor, "b T"]) -> Tensor:
    return clips.gather(2, order.to(clips.device)[:, None, :, None, None].expand_as(clips))


def _scores(name: str, answers: Tensor, labels: Tensor, data: Data) -> dict[str, Any]:
    scores = {f"{name}_accuracy": accuracy(answers, labels)}
    if data.partner is not None:
        scores[f"{name}_pair_accuracy"] = pair_accuracy(answers, labels, data.partner)
    return scores
