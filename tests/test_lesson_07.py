"""What lesson 07 says of ViViT, its numbers and its records; and what the library has for it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import nbformat
import pytest
import torch

from course_lib.analysis.cost import cost
from course_lib.analysis.intervals import interval
from course_lib.experiments import by_seed, matching, paired, records
from course_lib.experiments.claims import c2, c30
from course_lib.models import build
from course_lib.profiles import PROFILES

SMALL = dict(dim=16, depth=1, heads=2, size=32)


@pytest.fixture(scope="module")
def prose() -> str:
    path = Path(__file__).parents[1] / "notebooks" / "07_vivit.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    return re.sub(r"\s+", " ", " ".join(cell.source for cell in cells if cell.cell_type == "markdown"))


# The library


@pytest.mark.parametrize("pool", ["cls", "gap"])
def test_without_a_second_encoder_the_head_reads_the_mean_of_what_single_steps_give(pool):
    net = build("vivit_tiny", model=2, time_depth=0, pool=pool, **SMALL).double().eval()
    torch.nn.init.normal_(net.head.weight)
    clip = torch.randn(2, 3, 8, 32, 32).double()
    steps = [net.encoder(net.patch_embed(clip[:, :, 2 * i : 2 * i + 2])) for i in range(4)]
    torch.testing.assert_close(net(clip), net.head(sum(steps) / 4))
    assert not [name for name in net.state_dict() if name.startswith("time_encoder")]
    shuffled = torch.cat([clip[:, :, 2 * i : 2 * i + 2] for i in (2, 0, 3, 1)], dim=2)
    torch.testing.assert_close(net(shuffled), net(clip))
    assert (net(clip.flip(2)) - net(clip)).abs().max() > 1e-3, "a tubelet of two frames has a direction"


def test_f7_of_all_means_over_steps_that_of_single_frames_alone_is_blind_to_reversal():
    clip = torch.randn(2, 3, 8, 32, 32).double()
    for t, embed, depth, blind in (
        (1, "tubelet", 0, True),
        (2, "tubelet", 0, False),
        (2, "uniform", 0, False),
        (1, "tubelet", 1, False),
    ):
        kind = dict(tubelet=(t, 16, 16), embed=embed, time_depth=depth)
        net = build("vivit_tiny", model=2, pool="gap", **kind, **SMALL).double().eval()
        torch.nn.init.normal_(net.head.weight)
        assert ((net(clip.flip(2)) - net(clip)).abs().max() < 1e-9) == blind, (t, embed, depth)


def test_a_second_encoder_of_fewer_than_no_blocks_is_refused():
    with pytest.raises(ValueError, match="time_depth=-1: use 0 for a mean over steps"):
        build("vivit_tiny", model=2, time_depth=-1)


def test_zeroed_slices_get_a_gradient_as_soon_as_the_head_is_not_zero():
    net = build("vivit_tiny", tubelet=(4, 16, 16), **SMALL)
    net.patch_embed.project.weight.data[:, :, [0, 1, 3]] = 0
    clip, labels = torch.randn(4, 3, 8, 32, 32), torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    found = []
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(clip), labels).backward()
        found.append(net.patch_embed.project.weight.grad.transpose(0, 2).flatten(1).norm(dim=1))
        optimizer.step()
    assert not found[0].any() and (found[1] > 0).all()
    assert found[1].max() < 3 * found[1].min()


def test_the_arms_of_c2_and_c30_differ_and_are_built_in_every_profile():
    for profile in (PROFILES["cpu"], PROFILES["gpu"]):
        for claim in (c2, c30):
            arms = claim(profile)
            assert len({arm.name for arm in arms}) == len(arms) == 8
            with torch.device("meta"):
                for arm in arms:
                    arm.build(8, 0)


# Its numbers

PAPER = {  # table 2: M parameters, G multiply-adds, ms, K400, Epic Kitchens
    "1": (88.9, 455.2, 58.9, 80.0, 43.1),
    "2": (115.1, 284.4, 17.4, 78.8, 43.7),
    "3": (117.3, 372.3, 31.7, 77.4, 39.1),
    "4": (88.9, 277.1, 22.9, 76.3, 39.5),
    "mean": (86.7, 283.9, 17.3, 75.8, 38.8),
}


def test_what_the_full_network_costs_is_what_the_lesson_says(prose):
    for name, (millions, giga, *_) in PAPER.items():
        kind = dict(model=2, time_depth=0) if name == "mean" else dict(model=int(name))
        with torch.device("meta"):
            net = build("vivit_b_16x2_model1", pool="gap" if name in "34" else "cls", **kind)
        found = cost(net, (1, 3, 32, 224, 224))
        assert found.parameters / 1e6 == pytest.approx(millions, abs=0.1)
        assert 0 < giga - found.macs / 1e9 < 0.01 * giga
    assert "Our parameters are the paper's to within 0.1 M, for all five rows" in prose
    assert "less than one per cent above ours" in prose
    assert PAPER["1"][1] / PAPER["2"][1] == pytest.approx(1.6, abs=0.05)
    assert "1.6 times the multiply-adds of model 2" in prose
    k400, epic = (PAPER["2"][i] - PAPER["mean"][i] for i in (3, 4))
    assert f"worth {k400:.1f} and {epic:.1f} points" in prose
    assert f"{PAPER['1'][3] - PAPER['3'][3]:.1f} points *behind* joint attention" in prose
    assert f"{100 * (PAPER['3'][1] / PAPER['2'][1] - 1):.0f} % more multiply-adds" in prose
    assert f"{100 * (PAPER['3'][2] / PAPER['2'][2] - 1):.0f} % more time" in prose
    assert "for 5.3 points on Epic Kitchens" in prose and round(43.7 - 38.4, 1) == 5.3
    assert 0.3 < PAPER["3"][0] / PAPER["1"][0] - 1 < 0.35 and "a third more parameters" in prose
    tiny = build("vivit_tiny").config
    assert (tiny.depth, tiny.dim, tiny.frames, tiny.size, tiny.tubelet) == (3, 64, 8, 64, (2, 16, 16))
    assert "3 blocks of 64 features, on 8 frames of 64 pixels, in tubelets of 2 x 16 x 16" in prose


# Its records: C30. What is asserted holds for any further seed.

ARMS = {
    "central frame": dict(start="central_tubelets", embed="tubelet"),
    "inflation": dict(start="averaged_tubelets", embed="tubelet"),
    "random": dict(start="random_tubelets", embed="tubelet"),
    "uniform frames": dict(start="central_tubelets", embed="uniform"),
}


def test_the_verdict_on_starts_says_what_the_runs_say(prose):
    found = records("C30", "cpu")
    gaps = paired(found, "L", "accuracy", ARMS["random"], ARMS["central frame"])
    assert gaps and min(gaps) > 0.24 and "is dozens of points behind" in prose
    against = paired(found, "L", "accuracy", ARMS["inflation"], ARMS["central frame"])
    assert len(against) >= 5 and min(against) > 0 and interval(against).low > 0
    assert "The central frame is ahead with every seed, by an interval above zero" in prose
    assert 0.005 < interval(against).mean < 0.05 and "the gap is of the size of the paper's 1.6 points" in prose
    uniform = paired(found, "L", "accuracy", ARMS["central frame"], ARMS["uniform frames"])
    assert len(uniform) >= 3 and min(uniform) > 0 and "they are ahead of the central frame with every seed" in prose
    for way in ("central frame", "inflation", "random"):
        assert min(by_seed(found, "D", "pair_accuracy", **ARMS[way])) > 0.98
    assert "right within nearly every pair, the random one too" in prose
    # of one run each, so these words end with a further seed
    on_d = [by_seed(found, "D", "pair_accuracy", **ARMS[way]) for way in ("central frame", "inflation", "random")]
    assert on_d == [[1.0]] * 3 and "how they start did not show, with one run each, all at 100 %" in prose
    assert all(0.42 < right < 0.58 for right in by_seed(found, "D", "pair_accuracy", **ARMS["uniform frames"]))
    assert "which see two of the eight frames, are at chance" in prose


def test_zeroed_slices_have_grown_as_the_lesson_says(prose):
    found = records("C30", "cpu")
    for set_name, least, most in (("L", 0.1, 0.16), ("D", 0.45, 0.6)):
        sizes = [by_seed(found, set_name, f"slice_{i}", **ARMS["central frame"]) for i in range(4)]
        for i in (0, 1, 3):
            assert all(least < size / centre < most for size, centre in zip(sizes[i], sizes[2], strict=True))
    assert "a little more than a tenth of the central one; on D, where they are needed, to half of it" in prose


# C2


def test_the_verdict_on_the_second_encoder_says_what_the_runs_say(prose):
    found = records("C2", "cpu")
    one_frame = by_seed(found, "D", "pair_accuracy", time_depth=0, tubelet="(1, 16, 16)")
    assert one_frame and set(one_frame) == {0.5}
    assert "The mean over steps is right within exactly half of the pairs" in prose
    two_frames = by_seed(found, "D", "pair_accuracy", model=2, time_depth=0, tubelet=None, pool=None)
    assert min(two_frames) > 0.99 and "it is right within every pair after 1000 steps" in prose
    encoder = dict(model=2, time_depth=None, pool=None)
    assert all(0.42 < right < 0.58 for right in by_seed(found, "D", "pair_accuracy", **encoder))
    assert "The second encoder, read by its class token, is by then still at chance" in prose
    runs = matching(found, "D", model=2, time_depth=None, pool=None)
    losses = [sum(run["loss"][-50:]) / 50 for run in runs]
    assert all(math.log(6) - loss < loss - math.log(2) for loss in losses), "nearer to that of a guess"
    assert len(runs) == 1 and "In this one run the second encoder with class tokens was slower to learn" in prose
    over_steps, second = (dict(model=2, time_depth=depth, tubelet=None, pool="gap") for depth in (0, None))
    gained = interval(paired(found, "D", "pair_accuracy", over_steps, second))
    assert gained.low < 0 < gained.high and "The interval of the difference holds zero" in prose
    left = [[right > 0.6 for right in by_seed(found, "D", "pair_accuracy", **arm)] for arm in (over_steps, second)]
    assert any(left[0]) and not all(left[0]) and any(left[1]) and not all(left[1]), "some runs have left chance"
    assert sum(a == b for a, b in zip(*left, strict=True)) >= 3 and "mostly it is the same seeds in both arms" in prose
    assert min(by_seed(found, "D", "pair_accuracy", model=1)) > 0.99
    for model in (3, 4):
        assert all(0.6 < right < 0.75 for right in by_seed(found, "D", "pair_accuracy", model=model))
    assert "model 1 is right within every pair, models 3 and 4 in two thirds of them" in prose
    assert f"{PAPER['2'][0] - PAPER['mean'][0]:.0f} M parameters" in prose
