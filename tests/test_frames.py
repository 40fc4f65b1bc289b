"""Which frames VTN is trained on and tested on in the claims of lesson 05."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from course_lib.experiments import Arm, Data
from course_lib.experiments.frames import (
    by_views,
    in_any_order,
    pairs_of_frames,
    shuffled_frames,
    single_frames,
    views,
)
from course_lib.models import build
from course_lib.profiles import PROFILES

NUMBERED = torch.arange(8.0)[None, None, :, None, None].expand(6, 3, 8, 2, 2)  # frame t is t all over


class Told(nn.Module):
    """Remembers what it is given, and answers by the brightness of the first frame it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.given = nn.Parameter(torch.ones(())), []

    def forward(self, clip: Tensor, frames: Tensor | None = None) -> Tensor:
        self.given.append((clip[:, 0, :, 0, 0].clone(), frames))
        first = self.weight * clip[:, :, 0].mean((1, 2, 3))
        return torch.stack([-first, first], dim=1)


def two_classes(frames: int = 8) -> Data:
    """Dark then bright is class 0, bright then dark class 1, its partner."""
    clip = torch.zeros(frames, 2, 2, 3, dtype=torch.uint8)
    clip[frames // 2 :] = 255
    test, labels = torch.stack([clip, clip.flip(0)] * 20), torch.tensor([0, 1] * 20)
    return Data("D", test, labels, test, labels, ("a", "b"), torch.tensor([1, 0]))


def test_every_clip_is_shuffled_in_an_order_of_its_own_that_hangs_on_the_batch():
    found = shuffled_frames(NUMBERED)
    rows = found[:, 0, :, 0, 0]
    assert rows.sort(dim=1).values.equal(NUMBERED[:, 0, :, 0, 0]) and len(rows.unique(dim=0)) == 6
    assert (found == found[:, :1, :, :1, :1]).all(), "whole frames move"
    torch.rand(3)
    assert shuffled_frames(NUMBERED).equal(found), "the same batch, whatever was drawn before"
    assert not shuffled_frames(NUMBERED + 1).equal(found + 1)


def test_shuffling_and_cutting_leave_what_is_drawn_after_them_as_it_was():
    net = Told().train()
    single_frames(net, Arm("vtn_tiny", "D"), PROFILES["smoke"], 0)
    torch.manual_seed(0)
    expected = torch.rand(3)
    for change in (shuffled_frames, net):
        torch.manual_seed(0)
        change(NUMBERED)
        assert torch.rand(3).equal(expected)


def test_shuffled_tests_see_all_frames_of_a_clip_and_the_same_shuffle_each_time():
    net, data = Told(), two_classes()
    assert in_any_order(net, data) == in_any_order(net, data)
    (first, _), (second, _) = net.given
    assert first.equal(second) and first.sort(dim=1).values.diff(dim=1).count_nonzero() == len(first)
    scores = in_any_order(net, data)
    assert 0.3 < scores["shuffled_accuracy"] < 0.7 and 0.3 < scores["shuffled_pair_accuracy"] < 0.7


def test_views_follow_each_other_and_know_their_frames():
    found, numbers = views(NUMBERED, 2)
    assert found.shape == (6, 4, 3, 2, 2, 2) and numbers.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert found[0, :, 0, :, 0, 0].equal(numbers.float())
    with pytest.raises(ValueError, match="8 frames do not divide into views of 3"):
        views(NUMBERED, 3)


@pytest.mark.parametrize(("start", "length"), [(single_frames, 1), (pairs_of_frames, 2)])
def test_a_network_trained_on_views_gets_one_with_its_numbers_and_is_tested_on_the_whole(start, length):
    net = Told()
    start(net, Arm("vtn_tiny", "D"), PROFILES["smoke"], 0)
    for step in range(20):
        net.train()(NUMBERED + step)
    for step, (seen, numbers) in enumerate(net.given):
        assert seen.shape == (6, length) and seen.equal(numbers.float() + step)
    firsts = torch.stack([numbers[:, 0] for _, numbers in net.given])
    assert set(firsts.flatten().tolist()) == set(range(0, 8, length)), "every view has its turn"
    assert all(len(row.unique()) > 1 for row in firsts), "clips are not cut alike"
    net.given.clear()
    net.eval()(NUMBERED)
    ((seen, numbers),) = net.given
    assert seen.equal(NUMBERED[:, 0, :, 0, 0]) and numbers is None


def test_views_are_averaged_as_probabilities_and_know_their_place():
    net, data = Told(), two_classes()
    scores = by_views(net, data)
    assert {name: scores[name] for name in scores if "views_of_4" in name} == {
        "views_of_4_accuracy": 0.5,  # the bright half speaks as loudly as the dark one: a tie
        "views_of_4_pair_accuracy": 0.5,
    }
    numbers = [frames[0].tolist() for _, frames in net.given]
    assert numbers[:8] == [[t] for t in range(8)] and numbers[-2:] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_without_codes_the_views_of_single_frames_are_right_in_exactly_half_of_the_pairs():
    torch.manual_seed(0)
    net = build("vtn_tiny", positions="none", classes=2, size=32)
    data = two_classes()
    data = data._replace(test=torch.randint(0, 256, (20, 8, 32, 32, 3), dtype=torch.uint8).repeat_interleave(2, 0))
    data.test[1::2] = data.test[1::2].flip(1)
    assert by_views(net, data)["views_of_1_pair_accuracy"] == 0.5


def test_one_loud_view_does_not_outvote_three_that_are_fairly_sure():
    class Loud(Told):
        def forward(self, clip: Tensor, frames: Tensor | None = None) -> Tensor:
            assert frames is not None
            first = (frames[:, :1] == 0).double()
            return torch.cat([100 * first, 2 * (1 - first)], dim=1)

    data = two_classes()._replace(test_labels=torch.ones(40, dtype=torch.long), partner=None)
    assert by_views(Loud(), data)["views_of_2_accuracy"] == 1.0
