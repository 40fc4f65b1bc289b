"""SlowFast's starts: a fast path that stays as it is does, and a head that hears the slow path alone hears no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from course_lib.experiments import Arm, by_seed, learn, same_seeds
from course_lib.experiments.starts import fast_after_d, fast_as_drawn, slow_answers
from course_lib.profiles import PROFILES

TINY = replace(PROFILES["smoke"], clips=60, size=32, steps=3, batch=4)
SMALL = (("frames", 8), ("size", 32), ("width", 8))
ARM = Arm("slowfast_tiny", "D", SMALL)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("course_lib.experiments.data.DATA", folder)
        patch.setattr("course_lib.experiments.runs.DATA", folder)
        yield folder


def trained(start, arm: Arm = ARM) -> tuple[nn.Module, dict[str, torch.Tensor], nn.Module]:
    """The network after three steps, its state when they began, and a fresh one."""
    data = arm.data(TINY)
    net = arm.build(len(data.classes), seed=3)
    start(net, arm, TINY, 3)
    begun = {name: value.clone() for name, value in net.state_dict().items()}
    for _ in learn(net, data, TINY, seed=3):
        pass
    return net, begun, arm.build(len(data.classes), seed=3)


def same(net: nn.Module, state: dict[str, torch.Tensor], *, part: str, buffers: bool) -> bool:
    names = dict(net.named_buffers() if buffers else net.named_parameters())
    return all(torch.equal(value, state[name]) for name, value in names.items() if name.startswith(part))


def test_a_fast_path_as_drawn_keeps_its_weights_acts_in_its_blocks_and_goes_on_measuring(here):
    net, begun, fresh = trained(fast_as_drawn)
    assert same(net, begun, part="paths.fast", buffers=False) and not same(net, begun, part="paths.slow", buffers=False)
    assert not same(net, begun, part="paths.fast", buffers=True)
    drawn = fresh.state_dict()
    changed = {name for name, value in begun.items() if not torch.equal(value, drawn[name])}
    assert len(changed) == 4 and all(name.endswith("c.norm.weight") for name in changed)
    assert all((begun[name] == 1).all() and "fast" in name for name in changed)


def test_a_fast_path_after_d_is_that_of_a_network_that_learned_d_with_it_alone(here):
    net, begun, fresh = trained(fast_after_d)
    alone = replace(ARM, changes=(*SMALL, ("paths", ("fast",))))
    data = alone.data(TINY)
    teacher = alone.build(len(data.classes), seed=3)
    for _ in learn(teacher, data, TINY, seed=3):
        pass
    for state in (begun, net.state_dict()):
        assert same(teacher, state, part="paths.fast", buffers=False)
        assert same(teacher, state, part="paths.fast", buffers=True)
    assert not same(fresh, begun, part="paths.fast", buffers=False)
    assert same(fresh, begun, part="paths.slow", buffers=False)


@pytest.mark.parametrize("join", ["none", "t_conv"])
def test_where_the_slow_path_answers_the_fast_one_is_heard_through_the_joins_alone(here, join):
    net, begun, _ = trained(slow_answers, replace(ARM, changes=(*SMALL, ("join", join))))
    heard = 32 * 8
    assert net.head.weight.shape == (6, heard + heard // 4)
    assert (net.head.weight[:, heard:] == 0).all() and not torch.equal(net.head.weight, begun["head.weight"])
    net.eval()
    clip = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        before = net(clip)
        for weight in net.paths["fast"].parameters():
            weight.mul_(1.5)
        assert torch.equal(net(clip), before) == (join == "none")


def test_a_network_without_a_fast_path_says_so():
    slow = Arm("slowfast_tiny", "D", (*SMALL, ("paths", ("slow",))))
    with pytest.raises(ValueError, match="SlowFast has no fast path here: build a SlowFast with paths="):
        fast_as_drawn(slow.build(6, seed=0), slow, TINY, 0)
    other = Arm("vivit_tiny", "D")
    with pytest.raises(ValueError, match="ViViT has no fast path here"):
        slow_answers(other.build(6, seed=0), other, TINY, 0)


def test_runs_of_seeds_that_an_arm_lacks_are_left_out():
    def record(seed: int, set_name: str = "D", **changes: object) -> dict:
        arm = {"set_name": set_name, "changes": changes}
        return {"arm": arm, "seed": seed, "profile": {"steps": 5}, "scores": {"accuracy": seed}}

    found = [record(0, paths="slow"), record(0), record(1), record(2, paths="slow"), record(2), record(1, "L")]
    arms = ({"paths": "slow"}, {"paths": None})
    left = same_seeds(found, "D", arms)
    assert [by_seed(left, "D", "accuracy", **arm) for arm in arms] == [[0, 2], [0, 2]]
    assert same_seeds(found, "L", arms) == [] and len(same_seeds(found, "D", arms[1:])) == 5
