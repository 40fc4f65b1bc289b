"""Which frames a C-VidTr keeps: other rules in place of topK_std, clips with filler frames, and what the rows of its
attention tell, for the claims of notebook 08."""

from __future__ import annotations

from typing import cast

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from course_lib.experiments.data import Data
from course_lib.experiments.runs import Arm
from course_lib.models.cvidtr import CVidTr, TopTime
from course_lib.modes import evaluating
from course_lib.profiles import Profile

SHOWN = 4  # frames of a clip that `among_filler` leaves


def among_filler(clips: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b 3 T H W"]:
    """Every clip with SHOWN of its frames left, at random moments; the others show its mean colour and no more."""
    generator = _drawn_by(clips)
    stays = torch.rand(len(clips), clips.shape[2], generator=generator).argsort(dim=1) < SHOWN
    filler = clips.mean((2, 3, 4), keepdim=True).expand_as(clips)
    return torch.where(stays.to(clips.device)[:, None, :, None, None], clips, filler)


def eventful(clips: Float[Tensor, "b 3 T H W"], patch: int) -> Bool[Tensor, "b T n"]:
    """Patches that do not show what most frames show at their place. Of filler frames there must be more than half."""
    differs = (clips != clips.median(2, keepdim=True).values).any(1)
    return reduce(differs.byte(), "b t (h p) (w q) -> b t (h w)", "max", p=patch, q=patch).bool()


def random_rows(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """Frames stay by lot in place of by their rows' deviation: in every head and place others, as with topK_std."""

    def by_lot(attn: Float[Tensor, "b n head t t"], keep: int) -> Int[Tensor, "b n head keep"]:
        return _highest(torch.rand(attn.shape[:-1], generator=_drawn_by(attn)), keep).to(attn.device)

    for time in _pooled(net):
        time.choose = by_lot


def event_frames(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """The frames stay in which most happens, whole: an oracle, which is told by the pixels. For one pooling only."""
    net = _compact(net)
    if len(net.config.pools) != 1:
        raise ValueError(f"pools={net.config.pools}: which frames have events is known before one pooling: use one")
    seen: list[Tensor] = []

    def look(net: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen[:] = [eventful(given[0], cast(CVidTr, net).config.patch).sum(-1)]

    def oracle(attn: Float[Tensor, "b n head t t"], keep: int) -> Int[Tensor, "b n head keep"]:
        kept = _highest(seen[0], keep)
        return kept[:, None, None].expand(*attn.shape[:3], keep)

    net.register_forward_pre_hook(look)
    for time in _pooled(net):
        time.choose = oracle


def rows_by_kind(net: nn.Module, data: Data) -> dict[str, float]:
    """Before the first pooling, on the test clips: standard deviations of attention rows along time, of patches where
    something happens and of filler at the same places; how often the first is the larger; and which share of each
    stays. Nothing for a network that pools otherwise."""
    if not _pooled(net):
        return {}
    events, fillers, more, pairs, kept_events, kept_fillers = [0.0] * 6
    count_events = count_fillers = 0
    device, net = next(net.parameters()).device, _compact(net)
    with torch.inference_mode():
        for clips, _ in data.test_batches():
            attn, kept = watched(net, clips.to(device))
            deviation = attn.std(-1)
            happens = rearrange(eventful(clips, net.config.patch).to(device), "b t n -> b n 1 t").expand_as(deviation)
            here = happens.any(-1, keepdim=True) & ~happens.all(-1, keepdim=True)  # both kinds are there
            event, filler = here & happens, here & ~happens
            both = event[..., :, None] & filler[..., None, :]
            events += deviation[event].sum().item()
            fillers += deviation[filler].sum().item()
            more += (both & (deviation[..., :, None] > deviation[..., None, :])).sum().item()
            pairs += both.sum().item()
            stays = torch.zeros_like(happens).scatter(-1, kept, True)
            kept_events += (stays & event).sum().item()
            kept_fillers += (stays & filler).sum().item()
            count_events += int(event.sum())
            count_fillers += int(filler.sum())
    return {
        "deviation_of_events": events / max(1, count_events),
        "deviation_of_filler": fillers / max(1, count_fillers),
        "events_vary_more": more / max(1, pairs),
        "events_kept": kept_events / max(1, count_events),
        "filler_kept": kept_fillers / max(1, count_fillers),
    }


def watched(
    net: nn.Module, clips: Float[Tensor, "b 3 T H W"]
) -> tuple[Float[Tensor, "b n head t t"], Int[Tensor, "b n head keep"]]:
    """The attention along time where a C-VidTr first drops frames, and which of its rows stay."""
    time, found = _pooled(net)[0], []
    rule = time.choose

    def watching(attn: Tensor, keep: int) -> Tensor:
        kept = rule(attn, keep)
        found.append((attn.detach().float(), kept))
        return kept

    time.choose = watching
    try:
        with evaluating(net):
            net(clips)
    finally:
        time.choose = rule
    return found[0]


def _compact(net: nn.Module) -> CVidTr:
    if not isinstance(net, CVidTr):
        raise ValueError(f"{type(net).__name__} drops no frames: build a C-VidTr")
    return net


def _pooled(net: nn.Module) -> list[TopTime]:
    return [part for part in _compact(net).modules() if isinstance(part, TopTime)]


def _highest(score: Shaped[Tensor, "*rows t"], keep: int) -> Int[Tensor, "*rows keep"]:
    return score.topk(keep, dim=-1).indices.sort(dim=-1).values


def _drawn_by(x: Tensor) -> torch.Generator:
    """Seeded by content: the global generator goes on as without it, and a run that goes on draws as before."""
    return torch.Generator().manual_seed(int((64 * x.detach().double() ** 2).sum().round().item()) % 2**63)
