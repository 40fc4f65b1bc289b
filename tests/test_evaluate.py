"""How networks are judged, against counts made by hand and printed tables."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from course_lib.analysis.intervals import interval, t_quantile
from course_lib.models import build
from course_lib.training.batches import in_order
from course_lib.training.evaluate import (
    accuracy,
    pair_accuracy,
    predict,
    predict_views,
    reversal_flip_rate,
    top_k,
)

PARTNER = torch.tensor([1, 0, 3, 2])


class FrameByFrame(nn.Module):
    """Looks at each frame alone and takes the mean, so it cannot know their order; four classes."""

    def __init__(self):
        super().__init__()
        self.frame = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, clips):
        frames = clips.transpose(1, 2)
        # sorted, since a sum of rounded numbers does depend on their order
        return self.frame(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).sort(dim=1).values.mean(dim=1)


def closed_under_reversal(count=20):
    torch.manual_seed(0)
    clips, labels = torch.rand(count, 3, 4, 4, 4), torch.arange(count) % 4
    return torch.cat([clips, clips.flip(2)]), torch.cat([labels, PARTNER[labels]])


def test_predict_gives_every_clip_in_order_and_leaves_the_network_as_it_was():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 4))
    net[2].eval()  # a frozen norm within a network in training
    clips, labels = torch.rand(7, 3, 2, 1, 1), torch.arange(7) % 4
    logits, same_labels = predict(net, in_order(clips, labels, batch=3, prepare=torch.clone))
    assert [module.training for module in net] == [True, True, False, True, True] and net.training
    assert torch.equal(same_labels, labels)
    net.eval()
    torch.testing.assert_close(logits, net(clips))
    assert not logits.requires_grad and not logits.is_inference()


@pytest.mark.parametrize(("name", "logits"), [("timesformer_tiny", True), ("vivit_tiny", True), ("vtn_tiny", True),
    ("vidtr_tiny", False), ("mvit_tiny", False), ("video_swin_tiny", False)])  # fmt: skip
def test_views_are_averaged_before_or_after_softmax_as_each_released_test_does(name, logits):
    """Logits: facebookresearch/TimeSformer (its network ends in `head`, its meter sums), Scenic (softmax_logits=False),
    bomri/SlowFast. Probabilities: gluonmm (`postprocess`), PySlowFast's head in evaluation, mmaction2's "prob"."""
    torch.manual_seed(0)
    net = build(name, classes=5).eval()
    answers = 3 * torch.randn(3, 5)  # views that differ, so that the order matters
    net.forward = lambda views: answers
    found, _ = predict_views(net, [(torch.randn(1, 3, 3, *net.config.clip), torch.zeros(1, dtype=torch.long))])
    ways = answers.mean(0).softmax(0), answers.softmax(1).mean(0)
    assert not torch.allclose(*ways, atol=1e-3)
    torch.testing.assert_close(found[0], ways[0 if logits else 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_views_of_a_clip_are_answered_one_by_one_and_their_probabilities_averaged(at_once):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    seen = []
    net.register_forward_hook(lambda net, given, answer: seen.append(len(answer)))
    clips, labels = torch.randn(5, 3, 3, 2, 1, 1), torch.arange(5) % 4  # b views 3 T H W
    batches = iter([(clips[:2], labels[:2]), (clips[2:], labels[2:])])
    chances, same = predict_views(net, batches, at_once)
    assert sum(seen) == 15 and max(seen) == min(at_once, 9), seen
    for clip, chance in zip(clips, chances, strict=True):
        torch.testing.assert_close(chance, sum(net(view[None]).softmax(1)[0] for view in clip) / 3)
    assert torch.equal(same, labels) and net.training


def test_clips_without_views_and_no_view_at_once_are_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    with pytest.raises(ValueError, match="clips of 5 axes have no views"):
        predict_views(net, iter([(torch.rand(2, 3, 2, 1, 1), torch.zeros(2, dtype=torch.long))]))
    with pytest.raises(ValueError, match="at_once=0"):
        predict_views(net, [], at_once=0)


def test_predict_puts_the_mode_back_when_the_batches_fail():
    def broken():
        yield torch.rand(2, 3, 1, 1, 1), torch.zeros(2, dtype=torch.long)
        raise OSError("no such clip")

    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(OSError, match="no such clip"):
        predict(net, broken())
    assert net.training
    with pytest.raises(ValueError, match="no batches"):
        predict(net, [])
    net[1].bias.data[0] = torch.nan
    with pytest.raises(FloatingPointError, match="2 of 2 clips are not finite, clip 0 first"):
        predict(net, [(torch.rand(2, 3, 1, 1, 1), torch.zeros(2, dtype=torch.long))])


def test_accuracy_and_top_k_count_as_one_counts_by_hand():
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 1.0]])
    labels = torch.tensor([0, 2, 0, 1])
    assert accuracy(logits, labels) == 2 / 4  # rows 0 and 3
    assert [top_k(logits, labels, k) for k in (1, 2, 3)] == [2 / 4, 3 / 4, 1]  # row 1 joins, then row 2
    with pytest.raises(ValueError, match="k=4 of 3 classes"):
        top_k(logits, labels, 4)


def test_pair_accuracy_asks_only_which_of_the_two_partners_and_gives_a_tie_one_half():
    logits = torch.tensor([[2.0, 1.0, 9.0, 9.0], [2.0, 1.0, 9.0, 9.0], [0.0, 0.0, 5.0, 5.0]])
    assert pair_accuracy(logits[:1], torch.tensor([0]), PARTNER) == 1  # right in the pair, though 2 and 3 are larger
    assert pair_accuracy(logits[:2], torch.tensor([0, 1]), PARTNER) == 1 / 2
    assert pair_accuracy(logits, torch.tensor([0, 0, 3]), PARTNER) == pytest.approx(2.5 / 3)


def test_a_network_blind_to_order_has_exactly_half_the_pairs_right_on_a_set_closed_under_reversal():
    clips, labels = closed_under_reversal()
    logits, labels = predict(FrameByFrame(), in_order(clips, labels, batch=8, prepare=torch.clone))
    assert pair_accuracy(logits, labels, PARTNER) == 0.5
    forwards, backwards = logits.chunk(2)
    assert torch.equal(forwards, backwards) and reversal_flip_rate(forwards, backwards, PARTNER) == 0


def test_the_flip_rate_counts_predictions_that_turn_into_the_partners():
    rows = torch.eye(4)
    forwards, backwards = rows[[0, 1, 2, 3]], rows[[1, 0, 0, 3]]  # the third turns into another pair's class
    assert reversal_flip_rate(forwards, backwards, PARTNER) == 2 / 4


@pytest.mark.parametrize(
    ("partner", "said"),
    [([1, 0, 2], "2 -> 2"), ([1, 2, 0], "0 -> 1, 1 -> 2, 2 -> 0"), ([1, 0, 5, 2], "2 -> 5, 3 -> 2")],
)
def test_partners_that_are_no_pairs_are_refused_by_name(partner, said):
    logits = torch.zeros(1, len(partner))
    with pytest.raises(ValueError, match=said):
        pair_accuracy(logits, torch.tensor([0]), torch.tensor(partner))
    with pytest.raises(ValueError, match=said):
        reversal_flip_rate(logits, logits, torch.tensor(partner))


def window_means(net: nn.Module, views: torch.Tensor) -> torch.Tensor:
    """What reaches the linear layer: views t h w features."""
    grabbed = []
    hook = net.dropout.register_forward_hook(lambda module, inputs, output: grabbed.append(inputs[0]))
    with torch.no_grad():
        net(views)
    hook.remove()
    return grabbed[0]


def released_test(net: nn.Module, views: torch.Tensor) -> torch.Tensor:
    """PySlowFast's ResNetBasicHead in evaluation, and pytorchvideo's with its softmax, written out: the average pool of
    every window, linear layer, softmax, the mean over windows; then the mean over views, as test_net.py sums them."""
    windows = (window_means(net, views) @ net.head.weight.T + net.head.bias).flatten(1, 3)
    return torch.stack([torch.stack([w.softmax(0) for w in view]).mean(0) for view in windows]).mean(0)


LARGER = [  # network, changes, a clip larger or longer than it was built for
    ("slowfast_tiny", {}, (16, 96, 128)),
    ("slowfast_tiny", {"paths": ("slow",)}, (32, 64, 64)),
    ("nonlocal_tiny", {}, (8, 96, 128)),
    ("nonlocal_tiny", {}, (12, 64, 64)),
    ("r2plus1d_tiny", {"convolutions": "r2plus1d_bottleneck"}, (12, 96, 128)),
]


@pytest.mark.parametrize(("name", "changes", "size"), LARGER)
def test_probabilities_are_averaged_over_windows_where_the_released_test_does(name, changes, size):
    torch.manual_seed(0)
    net = build(name, **changes).eval()
    views = torch.randn(3, 3, *size)
    means = window_means(net, views).flatten(0, 3)  # a head that tells windows apart: the order then matters
    net.head.weight.data.normal_().div_((means - means.mean(0)).norm(dim=1).mean()).mul_(3)
    net.head.bias.data = -net.head.weight.data @ means.mean(0)
    found, _ = predict_views(net, [(views[None], torch.zeros(1, dtype=torch.long))])
    torch.testing.assert_close(found[0], released_test(net, views), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert (net(views).softmax(1).mean(0) - found[0]).abs().max() > 1e-3, "the other order is another answer"


def test_a_slowfast_says_what_to_do_with_longer_clips_and_it_helps():
    clip = torch.randn(1, 3, 32, 64, 64)
    with pytest.raises(ValueError, match=r"32 frames give the two paths unequal windows.* with frames=32"):
        build("slowfast_tiny").eval()(clip)
    assert build("slowfast_tiny", frames=32).eval()(clip).shape == (1, 8)


def test_i3d_averages_logits_over_time_as_its_release_does():
    torch.manual_seed(0)
    net = build("i3d_tiny").eval()
    views = torch.randn(2, 3, 24, 64, 64)
    found, _ = predict_views(net, [(views[None], torch.zeros(1, dtype=torch.long))])
    with torch.no_grad():
        torch.testing.assert_close(found[0], net(views).softmax(1).mean(0))


def test_t_is_that_of_the_printed_tables():
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042, 120: 1.980}
    assert {freedom: round(t_quantile(freedom), 3) for freedom in table} == table
    assert round(t_quantile(5, 0.99), 3) == 4.032 and round(t_quantile(10, 0.90), 3) == 1.812
    assert t_quantile(100_000) == pytest.approx(1.95996, abs=1e-4)  # the normal distribution's


def test_the_interval_of_four_seeds_is_that_worked_out_by_hand():
    mean, low, high = interval([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * 1.290994 / 2  # t of 3 degrees, standard deviation, root of 4
    assert (mean, low, high) == (2.5, pytest.approx(2.5 - half, abs=1e-5), pytest.approx(2.5 + half, abs=1e-5))


def test_the_interval_holds_the_true_mean_95_times_in_100():
    torch.manual_seed(0)
    draws = torch.randn(4000, 3, dtype=torch.float64)
    held = sum(low <= 0 <= high for _, low, high in map(interval, draws.tolist())) / len(draws)
    assert abs(held - 0.95) < 0.011  # three standard errors


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError, match="at least 2 seeds"):
        interval([0.5])
