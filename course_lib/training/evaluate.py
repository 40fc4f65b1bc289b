"""How a trained network is judged: accuracy, pairs of a clip and its reverse, views.

Pair accuracy and reversal flip rate need a set in which every class has a partner, made of its clips played
backwards (set M). On a set closed under reversal a network blind to order has a pair accuracy of exactly 50
%.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from course_lib.modes import evaluating
from course_lib.training.batches import Batch, NumberedBatch
from course_lib.training.resume import unwrapped


def predict(
    net: nn.Module, batches: Iterable[Batch | NumberedBatch]
) -> tuple[Float[Tensor, "n classes"], Int[Tensor, "n"]]:
    """Logits and labels of every clip, in order, on the CPU; in evaluation mode, the old mode put back after.

    `batches` has to end: `batches.in_order`, or torch's DataLoader without shuffling. No autocast, since coarse
    numbers make ties. Raises ValueError for no batches, FloatingPointError for logits that are not finite.
    """
    return _predict(net, net, batches)


def predict_views(
    net: nn.Module,
    batches: Iterable[
        tuple[Float[Tensor, "b views 3 T H W"], Int[Tensor, "b"]]
        | tuple[Float[Tensor, "b views 3 T H W"], Int[Tensor, "b"], Int[Tensor, "b views T"]]
    ],
    at_once: int = 8,
) -> tuple[Float[Tensor, "n classes"], Int[Tensor, "n"]]:
    """As `predict`, for batches of clips b views 3 T H W: probabilities, averaged over the views of each clip; of a
    network whose released test averages logits (`averages_logits`), those of the mean logits.

    A network whose head slides over clips that are larger or longer than those it was built for averages probabilities
    over its windows too, where its released test does (its method `probabilities`); else logits.

    The network sees `at_once` views at a time, so that 10 x 3 of them need no more memory than a small batch.
    """
    if at_once < 1:
        raise ValueError(f"at_once={at_once}: show the network at least 1 view at a time")

    def by_views(clips: Tensor, *numbers: Tensor) -> Float[Tensor, "b classes"]:
        if clips.ndim != 6:
            raise ValueError(
                f"clips of {clips.ndim} axes have no views: predict_views wants b views 3 T H W, as a data set gives "
                f"them with the sampler `views` or three crops; use predict"
            )
        views = zip(*(part.flatten(0, 1).split(at_once) for part in (clips, *numbers)), strict=True)
        if getattr(unwrapped(net), "averages_logits", False):
            logits = torch.cat([net(*some).float() for some in views])
            return logits.unflatten(0, clips.shape[:2]).mean(dim=1).softmax(dim=1)
        found = torch.cat([probabilities(net, *some) for some in views])
        return found.unflatten(0, clips.shape[:2]).mean(dim=1)

    return _predict(net, by_views, batches)


def _predict(
    net: nn.Module, answer: Callable[..., Tensor], batches: Iterable[tuple[Tensor, ...]]
) -> tuple[Float[Tensor, "n classes"], Int[Tensor, "n"]]:
    device = next(net.parameters()).device
    # FSDP2's buffers are used again in training, where tensors of inference mode cannot be
    without_gradients = torch.no_grad() if isinstance(net, FSDPModule) else torch.inference_mode()
    with evaluating(net), without_gradients:
        results = [
            (answer(clips.to(device), *(part.to(device) for part in numbers)).float().cpu(), labels.cpu())
            for clips, labels, *numbers in batches
        ]
    if not results:
        raise ValueError("no batches: give at least one clip")
    logits, labels = (torch.cat(parts) for parts in zip(*results, strict=True))
    if len(broken := (~logits.isfinite()).any(dim=1).nonzero()):
        raise FloatingPointError(
            f"logits of {len(broken)} of {len(logits)} clips are not finite, clip {broken[0].item()} first; "
            "look for inf and nan in the weights and in that clip"
        )
    return logits, labels


def accuracy(logits: Float[Tensor, "n classes"], labels: Int[Tensor, "n"]) -> float:
    """Share of clips whose largest logit is that of their class (top-1), 0 to 1."""
    return (logits.argmax(dim=1) == labels).double().mean().item()


def top_k(logits: Float[Tensor, "n classes"], labels: Int[Tensor, "n"], k: int = 5) -> float:
    """Share of clips whose class is among the k largest logits, 0 to 1."""
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"k={k} of {logits.shape[1]} classes: choose k from 1 to {logits.shape[1]}")
    return (logits.topk(k, dim=1).indices == labels[:, None]).any(dim=1).double().mean().item()


def pair_accuracy(
    logits: Float[Tensor, "n classes"], labels: Int[Tensor, "n"], partner: Int[Tensor, "classes"]
) -> float:
    """Share of clips for which the logit of their class exceeds that of its partner, 0 to 1.

    `partner[c]` is the class of c's clips played backwards. An exact tie counts one half: the network has no
    opinion, and tossing a coin would get half of such clips right. Counting ties as wrong (or right) would
    move a network that cannot tell the two apart off the 50 % that is its due.
    """
    _require_pairs(partner)
    theirs = torch.stack([labels, partner.to(labels.device)[labels]], dim=1)  # n 2: own class, partner
    own, other = logits.double().gather(1, theirs).unbind(dim=1)
    return ((own > other).double() + 0.5 * (own == other).double()).mean().item()


def reversal_flip_rate(
    logits: Float[Tensor, "n classes"],
    logits_reversed: Float[Tensor, "n classes"],
    partner: Int[Tensor, "classes"],
) -> float:
    """Share of clips whose predicted class turns into its partner when the clip is played backwards, 0 to 1.

    Row i of `logits_reversed` belongs to the reverse of the clip of row i of `logits`.
    """
    _require_pairs(partner)
    forwards, backwards = logits.argmax(dim=1), logits_reversed.argmax(dim=1)
    return (backwards == partner.to(forwards.device)[forwards]).double().mean().item()


def probabilities(
    net: nn.Module, clips: Float[Tensor, "b 3 T H W"], *numbers: Int[Tensor, "b T"]
) -> Float[Tensor, "b classes"]:
    """Of each clip, by the order of softmax and mean that the network's released test has; `numbers` are its frames'.

    Over views it is softmax first, mean second, as in the released test code of SlowFast and MViT.
    """
    released = getattr(unwrapped(net), "probabilities", None)
    return net(clips, *numbers).float().softmax(dim=1) if released is None else released(clips, *numbers).float()


def _require_pairs(partner: Int[Tensor, "classes"]) -> None:
    classes = torch.arange(len(partner), device=partner.device)
    inside = (partner >= 0) & (partner < len(partner))
    wrong = ~inside | (partner == classes) | (partner[partner.clamp(0, len(partner) - 1)] != classes)
    if wrong.any():
        named = ", ".join(f"{c} -> {partner[c].item()}" for c in classes[wrong].tolist())
        raise ValueError(
            f"partner must swap the classes in pairs, but has {named}; make partner[partner[c]] == c != partner[c]"
        )
