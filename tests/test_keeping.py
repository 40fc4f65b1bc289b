"""Clips among filler, other rules of keeping frames, what the rows of attention tell: against clips made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from course_lib.experiments import Arm, Data, to_clips
from course_lib.experiments.keeping import (
    SHOWN,
    among_filler,
    event_frames,
    eventful,
    random_rows,
    rows_by_kind,
    watched,
)
from course_lib.figures import BLUE
from course_lib.figures.keeping import deviations, deviations_words, kept_rows, kept_words
from course_lib.layers.schemes import most_varied
from course_lib.models import build
from course_lib.models.cvidtr import TopTime
from course_lib.profiles import PROFILES

SMALL = dict(frames=8, size=32, dim=16, heads=2, depth=3, pools=((1, 3),))
ARM = Arm("cvidtr_tiny", "L", tuple(SMALL.items()))
EVENTS = [1, 4, 6]  # frames


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def with_events(b: int = 2) -> torch.Tensor:
    """Still pictures but for EVENTS, in which the upper right patch shows something else."""
    clips = noise(b, 3, 1, 32, 32).repeat(1, 1, 8, 1, 1)
    clips[:, 1, EVENTS, 3:9, 20:30] += 1 + noise(b, 3, 6, 10).abs()  # in one colour
    return clips


def network(start=None):
    torch.manual_seed(0)
    net = build("cvidtr_tiny", classes=4, **SMALL).eval()
    if start is not None:
        start(net, ARM, PROFILES["smoke"], 0)
    return net


def test_among_filler_a_few_frames_stay_as_they_are_and_the_others_are_one_colour():
    clips = noise(5, 3, 16, 8, 8)
    global_state = torch.get_rng_state()
    found = among_filler(clips)
    assert torch.equal(torch.get_rng_state(), global_state) and torch.equal(found, among_filler(clips))
    stays = (found == clips).all(dim=(1, 3, 4))
    assert (stays.sum(1) == SHOWN).all() and len({tuple(row.tolist()) for row in stays}) > 1
    for clip, filled, left in zip(clips, found, stays, strict=True):
        mean = clip.mean(dim=(1, 2, 3))[:, None, None, None]
        assert torch.allclose(filled[:, ~left], mean.expand(3, 16 - SHOWN, 8, 8), atol=1e-6)


def test_what_happens_is_seen_in_its_patch_and_its_frame_and_nowhere_else():
    found = eventful(with_events(), patch=16)  # of 2 x 2 patches
    expected = torch.zeros(2, 8, 4, dtype=torch.bool)
    expected[:, EVENTS, 1] = True
    assert torch.equal(found, expected)
    assert eventful(among_filler(noise(3, 3, 16, 32, 32)), patch=16).all(-1).sum(1).tolist() == [SHOWN] * 3


def test_the_oracle_keeps_the_frames_in_which_something_happens_everywhere():
    net = network(event_frames)
    _, kept = watched(net, with_events())
    assert kept.shape == (2, 4, 2, 3) and (kept == torch.tensor(EVENTS)).all()
    with pytest.raises(ValueError, match="known before one pooling: use one"):
        event_frames(build("cvidtr_tiny"), ARM, PROFILES["smoke"], 0)


def test_by_lot_each_head_and_place_has_other_frames_each_as_often_whatever_its_row():
    net, clips = network(random_rows), noise(64, 3, 8, 32, 32)
    global_state = torch.get_rng_state()
    attn, kept = watched(net, clips)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert torch.equal(kept, watched(net, clips)[1]), "the same lot for the same clips"
    assert (kept.diff(dim=-1) > 0).all()
    often = torch.bincount(kept.flatten(), minlength=8) / (64 * 4 * 2)
    assert ((often - 3 / 8).abs() < 0.08).all()
    agree = (kept == most_varied(attn, 3)).all(-1).float().mean()
    assert agree < 0.1 and not torch.equal(kept[:, 0, 0], kept[:, 0, 1])


def test_topk_std_goes_on_when_no_other_rule_is_given_and_the_network_computes_by_the_rule_it_has():
    net, clips = network(), noise(2, 3, 8, 32, 32)
    attn, kept = watched(net, clips)
    assert torch.equal(kept, most_varied(attn, 3))
    logits = net(clips)
    (time,) = (part for part in net.modules() if isinstance(part, TopTime))
    assert time.choose is most_varied, "watching leaves the rule as it was"
    time.choose = lambda attn, keep: torch.arange(keep).expand(*attn.shape[:-2], keep)
    assert not torch.allclose(net(clips), logits)


def test_what_is_said_of_rows_is_what_the_attention_of_the_first_pooling_says():
    """With a rule that keeps known frames, and rows whose deviations are counted again by hand; two batches."""
    net, clips = network(event_frames), with_events(70)
    pictures = (40 * clips + 120).clamp(0, 255).byte().permute(0, 2, 3, 4, 1)
    data = Data("L", pictures[:0], torch.zeros(0).long(), pictures, torch.zeros(70).long(), ("a",), None)
    found = rows_by_kind(net, data)
    attn, _ = watched(net, to_clips(pictures))
    rows = attn[:, 1].std(-1)  # b head t, of the place at which something happens
    filler = [frame for frame in range(8) if frame not in EVENTS]
    assert found["deviation_of_events"] == pytest.approx(rows[..., EVENTS].mean().item(), rel=1e-4)
    assert found["deviation_of_filler"] == pytest.approx(rows[..., filler].mean().item(), rel=1e-4)
    more = (rows[..., EVENTS, None] > rows[..., None, filler]).float().mean().item()
    assert found["events_vary_more"] == pytest.approx(more, abs=1e-3)
    assert found["events_kept"] == 1 and found["filler_kept"] == 0
    lot = rows_by_kind(network(random_rows), data)
    assert lot["events_kept"] == pytest.approx(3 / 8, abs=0.05) == lot["filler_kept"]


def test_a_network_that_averages_has_no_rows_to_tell_of_and_another_network_drops_nothing():
    net = build("cvidtr_tiny", **SMALL, pool="average")
    assert (
        rows_by_kind(net, Data("L", *[torch.zeros(0, 8, 32, 32, 3).byte(), torch.zeros(0).long()] * 2, (), None)) == {}
    )
    with pytest.raises(ValueError, match="VidTr drops no frames: build a C-VidTr"):
        random_rows(build("vidtr_tiny"), ARM, PROFILES["smoke"], 0)


def test_arms_of_one_seed_start_alike_and_learn_by_their_own_rule():
    losses = {}
    for start in (None, random_rows, event_frames):
        arm = replace(ARM, start=start, shown=among_filler)
        net = arm.build(4, seed=1)
        if start is not None:
            start(net, arm, PROFILES["smoke"], 1)
        losses[start] = net.train()(among_filler(noise(2, 3, 8, 32, 32)))
        weights = [weight.clone() for weight in net.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(weights, arm.build(4, seed=1).parameters(), strict=True))
    (first, *others) = losses.values()
    assert all(not torch.allclose(first, other) for other in others)


def test_pictures_of_rows_mark_those_that_stay_and_their_words_say_it():
    film, rows = np.zeros((4, 8, 8, 3), np.uint8), np.eye(4) * 0.6 + 0.1
    rows[1] = 0.25
    words = kept_words(rows, [0, 2])
    assert "0 0.3000 stays" in words and "1 0.0000," in words and "3 0.3000." in words
    figure = kept_rows(film, rows, [0, 2])
    bars = [bar for axis in figure.axes for bar in axis.patches]
    assert [bar.get_facecolor() == to_rgba(BLUE) for bar in bars] == [True, False, True, False]
    assert bars[1].get_width() == 0 and bars[0].get_width() == pytest.approx(0.3)
    kinds = {"some": np.array([0.1, 0.2]), "others": np.array([0.3])}
    assert deviations_words(kinds).endswith("some: mean 0.150; others: mean 0.300.")
    assert len(deviations(kinds).axes[0].lines) == 2
