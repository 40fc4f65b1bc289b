"""What networks are given in place of colours, and the weights that they start from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from course_lib.experiments import Arm, by_seed, load_set, run, to_clips, varied
from course_lib.experiments.claims import c7, c11
from course_lib.experiments.inputs import (
    difference,
    grey,
    late_fusion,
    load_flow,
    logits_of,
    two_stills,
)
from course_lib.experiments.starts import (
    averaged_tubelets,
    central_tubelets,
    inflated,
    learned_stills,
    random_tubelets,
    slices,
    symmetric_in_time,
    time_as_strong,
)
from course_lib.grid import Grid
from course_lib.models import build
from course_lib.profiles import PROFILES

TINY = replace(PROFILES["smoke"], steps=2, batch=4)
SMALL = (("size", 32), ("width", 0.125))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    here = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("course_lib.experiments.data.DATA", here)
        patch.setattr("course_lib.experiments.runs.DATA", here)
        yield {name: load_set(name, TINY, workers=1, progress=False) for name in ("D", "L")}


def test_grey_is_the_same_in_all_colours_and_difference_is_what_must_be_added_to_a_frame():
    clips = torch.randn(2, 3, 4, 5, 6)
    assert torch.equal(grey(clips)[:, 0], grey(clips)[:, 2]) and grey(clips).shape == clips.shape
    torch.testing.assert_close(grey(clips)[:, 1], (clips[:, 0] + clips[:, 1] + clips[:, 2]) / 3)
    torch.testing.assert_close(clips[:, :, :1] + difference(clips)[:, :, :-1].cumsum(2), clips[:, :, 1:])
    assert not difference(clips)[:, :, -1].any() and difference(clips).shape == clips.shape


def test_two_stills_change_once_and_the_reverse_of_a_clip_shows_them_in_the_other_order():
    clips = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(2, 3, 8, 4, 4)
    assert two_stills(clips)[1, 2, :, 3, 0].tolist() == [2, 2, 2, 2, 5, 5, 5, 5]
    assert two_stills(clips).shape == clips.shape
    assert torch.equal(two_stills(clips.flip(2)), two_stills(clips).roll(4, 2))


def test_attention_over_time_starts_as_strong_as_that_in_space_and_nothing_else_changes():
    arm = Arm("video_swin_tiny", "D", (("attention", "factorised"),), start=time_as_strong)
    net, before = (arm.build(6, 3) for _ in range(2))
    time_as_strong(net, arm, TINY, 3)
    weights = {name: weight for name, weight in net.state_dict().items() if name.endswith(".time.weight")}
    assert len(weights) == 6 and all(weight == 1 for weight in weights.values())
    after = net.state_dict()
    assert all(torch.equal(after[name], old) for name, old in before.state_dict().items() if name not in weights)


def test_tables_symmetric_in_time_stay_so_in_training():
    arm = Arm("video_swin_tiny", "D", (("patch", Grid(1, 16, 16)), ("depths", (2,)), ("heads", (2,))))
    net, clips = arm.build(6, 3), torch.randn(2, 3, 8, 64, 64)
    symmetric_in_time(net, arm, TINY, 3)
    optimiser = torch.optim.SGD(net.parameters(), lr=10.0)
    for _ in range(2):
        table = net.get_submodule("stages.stage1.1.attention.bias").table
        assert torch.equal(table, table.flip(1)) and not torch.equal(table, table.flip(2))
        net(clips)[:, 0].sum().backward()
        before = table.detach().clone()
        optimiser.step()
    assert not torch.equal(before, net.get_submodule("stages.stage1.1.attention.bias").table)


@pytest.mark.parametrize("name", ["D", "L"])
def test_exact_flow_is_that_of_the_clips_that_a_network_sees_in_their_order(sets, name):
    """Witness: pictures. What changes between two frames lies where something moves, in the clip's own flow alone."""
    seen, flow = sets[name], load_flow(name, TINY)
    for split in ("train", "test"):
        pictures, moves = getattr(seen, split), to_clips(getattr(flow, split))
        assert torch.equal(getattr(flow, f"{split}_labels"), getattr(seen, f"{split}_labels"))
        assert moves.shape == (len(pictures), 2, *pictures.shape[1:4])
        changed = (pictures[:, 1].float() - pictures[:, 0].float()).abs().mean(-1) > 40  # n H W
        moving = (moves[:, :, :2].abs() > 0.02).any(1).any(1)
        own = (changed & moving).sum() / changed.sum()
        other = (changed & moving.roll(7, 0)).sum() / changed.sum()
        assert own > 0.9 and own > other + 0.1, (split, own, other)
    assert (flow.classes, seen.partner is None) == (seen.classes, flow.partner is None)


def test_exact_flow_points_where_the_classes_say_by_the_pixels_that_pictures_move(sets):
    flow = load_flow("D", TINY)
    moves = 64 * 20 / 224 * to_clips(flow.test)  # pixels to the next of 32 frames
    moves[moves.abs() < 0.1] = 0  # a byte cannot say 0
    total = moves.sum((2, 3, 4))
    for label, axis, sign in ((0, 0, 1), (1, 0, -1), (2, 1, 1), (3, 1, -1)):
        ours = total[flow.test_labels == label]
        assert (sign * ours[:, axis] > 0).all() and (ours[:, 1 - axis].abs() < 0.1 * ours[:, axis].abs()).all()
    assert flow.classes[:4] == ("push right", "push left", "lower", "lift")
    pushed = moves[flow.test_labels == 0][0, 0]  # T H W
    speed = torch.stack([frame[frame != 0].median() for frame in pushed])
    way = 31 * speed.mean() / 64  # in picture widths
    assert 0.7 * 0.95 * 0.8 < way < 0.7 * 1.25 * 1.2, way


def test_flow_is_moved_but_its_directions_are_never_swapped():
    flow = torch.full((16, 4, 16, 16, 2), 128, dtype=torch.uint8)
    flow[:, :, 7, 8] = torch.tensor([255, 0], dtype=torch.uint8)  # one dot that moves right and up
    torch.manual_seed(0)
    clips = varied(flow, shift=2)
    torch.testing.assert_close(clips.amax((2, 3, 4)), torch.tensor([1.0, 1 / 255]).expand(16, 2))
    torch.testing.assert_close(clips.amin((2, 3, 4)), torch.tensor([1 / 255, -1.0]).expand(16, 2))
    places = {tuple(int(at) for at in clip[0, 0].flatten().argmax(0, keepdim=True)) for clip in clips}
    assert len(places) > 5 and all(torch.equal(clip[0] > 0.5, clip[1] < -0.5) for clip in clips)


def test_the_flow_of_clips_that_were_filmed_is_not_made_up():
    with pytest.raises(ValueError, match=r"set 'K' was not drawn.*use one of A, M"):
        load_flow("K", TINY)


def test_a_network_of_two_colours_is_given_flow_and_its_logits_are_recorded(sets, tmp_path):
    arm = Arm("i3d_tiny", "D", (("colours", 2), ("width", 0.125)), measure=logits_of)
    record = run(arm, TINY, 0, tmp_path)
    (logits,), (labels,) = (by_seed([record], "D", what, colours=2) for what in ("logits", "labels"))
    assert torch.equal(torch.tensor(labels), sets["D"].test_labels)
    right = (torch.tensor(logits).argmax(1) == sets["D"].test_labels).float().mean()
    assert float(right) == pytest.approx(record["scores"]["accuracy"])


def test_late_fusion_adds_the_logits_of_the_same_clip():
    one, other = [[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [[0.0, 3.0], [0.0, 0.0], [0.0, 0.5]]
    assert late_fusion([1, 1, 0], one, other) == 1.0 and late_fusion([0, 0, 1], one, other) == 0.0
    assert late_fusion([0, 1, 0], one, other, fuse=lambda a, b: a) == 1.0


def test_an_inflated_start_is_the_image_network_that_learned_stills_with_a_fresh_head(sets):
    arm = Arm("i3d_tiny", "D", SMALL)
    before, net = arm.build(6, 0), arm.build(6, 0)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    inflated(net, arm, TINY, seed=0)
    assert torch.equal(torch.rand(3), expected), "nobody else's draws are disturbed"
    image = learned_stills(arm.build(6, 3), TINY, seed=0)
    for name, weight in image.state_dict().items():
        ours = net.state_dict()[name]
        if name.startswith("head."):
            assert torch.equal(ours, before.state_dict()[name]) and len(weight) == 8
        elif ours.ndim == 5:
            torch.testing.assert_close(ours.sum(2), weight[:, :, 0])
            assert torch.equal(ours[:, :, 0], ours[:, :, -1])
        else:
            assert torch.equal(ours, weight)
    assert not torch.equal(learned_stills(before, TINY, seed=1).state_dict()[name], weight), "another seed"
    blank = build("i3d_tiny", image=True, **dict(SMALL)).layers.conv_1a.norm.running_mean
    assert not torch.equal(image.layers.conv_1a.norm.running_mean, blank), "it was trained"


def test_three_starts_differ_in_the_kernel_alone(sets, monkeypatch):
    monkeypatch.setattr("course_lib.experiments.starts.load_set", lambda name, *_, **how: sets[name])
    arm = Arm("vivit_tiny", "L", (("tubelet", (4, 16, 16)), ("dim", 16), ("depth", 1), ("heads", 2)))
    before = arm.build(8, 0).state_dict()
    nets = {}
    for start in (central_tubelets, averaged_tubelets, random_tubelets):
        nets[start] = arm.build(8, 0)
        start(nets[start], arm, TINY, 0)
    image = learned_stills(arm.build(8, 0), TINY, 0, data=sets["L"])
    kernel = image.patch_embed.project.weight.detach()[:, :, 0]
    central, averaged, drawn = (net.patch_embed.project.weight.detach() for net in nets.values())
    assert torch.equal(central[:, :, 2], kernel) and not central[:, :, [0, 1, 3]].any()
    torch.testing.assert_close(averaged, (kernel / 4)[:, :, None].expand_as(averaged))
    assert torch.equal(drawn, before["patch_embed.project.weight"])
    for name in before.keys() - {"patch_embed.project.weight"}:
        ours = [net.state_dict()[name] for net in nets.values()]
        assert torch.equal(ours[0], ours[1])
        if not name.startswith("patch_embed."):
            assert torch.equal(ours[0], ours[2])
        if name.startswith("head."):
            assert torch.equal(ours[0], before[name])
    norms = slices(nets[central_tubelets], sets["L"])
    assert list(norms) == ["slice_0", "slice_1", "slice_2", "slice_3"]
    assert norms["slice_2"] == pytest.approx(float(kernel.square().sum()) ** 0.5, abs=1e-3)
    assert norms["slice_0"] == norms["slice_1"] == norms["slice_3"] == 0


def test_the_arms_of_c7_and_c11_differ_in_one_thing_at_a_time():
    cpu = PROFILES["cpu"]
    assert len({arm.name for arm in c7(cpu)}) == 8 and len({arm.name for arm in c11(cpu)}) == 6
    assert {arm.recipe for arm in c7(cpu)} == {c7(cpu)[0].recipe}
    assert [arm.frames for arm in c7(cpu) + c11(cpu)] == [8] * 14
