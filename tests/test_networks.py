"""What every network of the course promises, whatever its paper."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.analysis.cost import cost
from course_lib.layers.attention import RecordableAttention, record_attention
from course_lib.layers.blocks import recompute
from course_lib.layers.nonlocal_block import AFFINITIES
from course_lib.models import NETWORKS, build, names
from course_lib.models.cvidtr import POOL
from course_lib.models.r2plus1d import CONVOLUTIONS
from course_lib.models.slowfast import JOINS
from course_lib.models.timesformer import ATTENTION
from course_lib.models.video_swin import ATTENTION as SWIN_ATTENTION
from course_lib.models.vtn import POSITIONS

THE_PAPERS = [
    "i3d_inception",
    "i3d_inception_flow",
    "c2d_r50_8x8",
    "c2d_r101",
    "c2d_nl_r50_8x8",
    "i3d_r50_8x8",
    "i3d_r101",
    "i3d_nl_r50_8x8",
    "r2d_18",
    "fr2d_18",
    "r3d_18",
    "mc2_18",
    "mc3_18",
    "mc4_18",
    "mc5_18",
    "rmc2_18",
    "rmc3_18",
    "rmc4_18",
    "rmc5_18",
    "r2plus1d_18",
    "r2d_34",
    "r3d_34",
    "r2plus1d_34",
    "r2plus1d_r50_16x4",
    "slow_r50_8x8",
    "fast_r50",
    "slowfast_r50_4x16",
    "slowfast_r50_8x8",
    "slowfast_r50_16x8_ssv2",
    "slowfast_r101_8x8_50_50",
    "slowfast_r101_8x8_101_101",
    "slowfast_r101_16x8_50_50",
    "slowfast_nl_r50_8x8",
    "slowfast_nl_r101_16x8_50_50",
    "timesformer_b_8x224",
    "timesformer_hr_16x448",
    "timesformer_l_96x224",
    "mvit_b_16x4",
    "mvit_b_32x3",
    "mvit_b24_32x3",
    "mvitv2_s_16x4",
    "mvitv2_b_32x3",
    "mvitv2_l_40x3",
    "vtn_vit_b",
    "vtn_r50",
    "vtn_r101",
    "vtn_deit_b",
    "vivit_b_16x2_model1",
    "vivit_b_16x2_model2",
    "vivit_b_16x2_model3",
    "vivit_b_16x2_model4",
    "vivit_l_16x2_model1",
    "vivit_l_16x2_model2",
    "video_swin_t_32x224",
    "video_swin_s_32x224",
    "video_swin_b_32x224",
    "video_swin_b_ssv2_32x224",
    "video_swin_l_32x224",
    "vidtr_joint_8x224",
    "vidtr_s_8x224",
    "vidtr_m_16x224",
    "vidtr_l_32x224",
    "cvidtr_s_8x224",
    "cvidtr_m_16x224",
]
SMALL = dict(size=32, dropout=0.0, head_dropout=0.0, drop_path=0.0, classes=2)  # as far as a network has them
IDLE = {  # what cannot change the logits, by the released design
    "vtn_tiny": ("blocks.1.attention.qkv",)  # of the last layer the class token alone is read
}
VARIANTS = [  # every form that a paper compares, small enough to train here
    *[("i3d_tiny", {"size": 64, **changes}) for changes in ({}, {"edges": "repeat"}, {"image": True})],
    *[("nonlocal_tiny", {"affinity": affinity}) for affinity in AFFINITIES],
    ("nonlocal_tiny", {"scope": "space"}),
    ("nonlocal_tiny", {"scope": "time", "pool_keys": False}),
    ("nonlocal_tiny", {"network": "i3d"}),
    *[("r2plus1d_tiny", {"convolutions": row, "width": 8}) for row in CONVOLUTIONS],
    ("r2plus1d_tiny", {"shared_middle": True, "width": 8}),
    ("r2plus1d_tiny", {"middle_relu": False, "width": 8}),
    *[("slowfast_tiny", {"join": join}) for join in JOINS],
    ("slowfast_tiny", {"paths": ("slow",)}),
    ("slowfast_tiny", {"paths": ("fast",)}),
    ("slowfast_tiny", {"nonlocal_after": ((), (0,), (0,), ())}),
    *[("mvit_tiny", {"positions": positions}) for positions in ("none", "space", "joint", "separate")],
    *[("mvit_tiny", {"pooling": pooling}) for pooling in ("max", "average")],
    ("mvit_tiny", {"kernel": None}),
    *[("vtn_tiny", {"positions": positions}) for positions in POSITIONS],
    *[("vivit_tiny", {"model": model, "pool": pool}) for model in (1, 2) for pool in ("cls", "gap")],
    *[("vivit_tiny", {"model": model, "pool": "gap"}) for model in (3, 4)],
    ("vivit_tiny", {"embed": "uniform"}),
    ("vivit_tiny", {"model": 2, "time_depth": 0}),
    *[("video_swin_tiny", {"attention": attention}) for attention in SWIN_ATTENTION],
    *[("vidtr_tiny", changes) for changes in ({}, {"separate": True}, {"attention": "joint"})],
    ("vidtr_tiny", {"pos_embed_in_every_block": True}),
    *[("cvidtr_tiny", {"pool": pool}) for pool in POOL],
]
each_variant = pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=lambda part: str(part).replace(" ", ""))


def clip_shape(net: nn.Module, batch: int) -> tuple[int, ...]:
    c = net.config
    return batch, getattr(c, "colours", 3), *c.clip


def small(name: str, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    settings = {field: value for field, value in SMALL.items() if hasattr(NETWORKS[name][1], field)}
    return build(name, **{**settings, **changes})


@functools.cache
def learnt(name: str, changes: tuple) -> tuple[nn.Module, torch.Tensor, float]:
    """A small network after 40 steps on two clips, in evaluation mode; the clips; its last training loss.

    A little noise keeps the two answers well apart.
    """
    net = small(name, **dict(changes))
    clips = torch.randn(clip_shape(net, 2), generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(40):
        loss = F.cross_entropy(net(clips + 0.1 * torch.randn(clips.shape)), torch.tensor([0, 1]))
        optimiser.zero_grad(), loss.backward(), optimiser.step()
    return net.eval(), clips, loss.item()


@pytest.mark.parametrize("name", THE_PAPERS)
def test_every_network_that_the_papers_compare_has_a_name(name):
    assert name in names()


@pytest.mark.parametrize("name", names())
def test_full_networks_are_built_and_run_on_the_meta_device(name):
    with torch.device("meta"):
        net = build(name).eval()
        logits = net(torch.empty(clip_shape(net, 2)))
    assert logits.is_meta and logits.shape == (2, net.config.classes)
    assert cost(net, clip_shape(net, 1)).macs > 0


@each_variant
def test_every_variant_learns_two_clips_by_heart(name, changes):
    net, clips, loss = learnt(name, tuple(changes.items()))
    assert loss < 0.1
    with torch.no_grad():
        assert net(clips).argmax(1).tolist() == [0, 1]


@each_variant
def test_every_parameter_gets_a_gradient(name, changes):
    net = small(name, **changes)
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.5)  # through what starts at zero nothing passes
    net(torch.randn(clip_shape(net, 2))).square().sum().backward()
    learning = {key: p for key, p in net.named_parameters() if p.requires_grad}
    idle = [key for key, p in learning.items() if p.grad is None or not p.grad.any()]
    assert [key for key in idle if not key.startswith(IDLE.get(name, ()))] == []


@each_variant
def test_recorded_attention_gives_the_same_logits(name, changes):
    net, clips, _ = learnt(name, tuple(changes.items()))
    if not any(isinstance(part, RecordableAttention) for part in net.modules()):
        with pytest.raises(ValueError, match="has no attention to record"), record_attention(net):
            pass
        return
    with torch.no_grad():
        logits = net(clips)
        with record_attention(net) as recorded:
            watched = net(clips)
    torch.testing.assert_close(watched, logits, rtol=1e-4, atol=1e-4)
    assert all(recorded.values())


@each_variant
def test_computing_blocks_twice_changes_no_gradient(name, changes):
    net = small(name, **changes)
    if any(isinstance(part, nn.BatchNorm3d) for part in net.modules()):
        with pytest.raises(ValueError, match="no blocks that can be computed twice: theirs have batch norm"):
            recompute(net)
        return
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.5)
    clip = torch.randn(clip_shape(net, 2))
    gradients = []
    for again in (net, recompute(copy.deepcopy(net))):
        again(clip).square().sum().backward()
        gradients.append([p.grad for p in again.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_computing_blocks_twice_holds_less():
    held = []
    for again in (small("timesformer_tiny"), recompute(small("timesformer_tiny"))):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x):
            again(torch.randn(clip_shape(again, 2)))
        held.append(sum(saved))
    assert held[1] < held[0] / 3


BREAKS = """
import sys, torch
from torch import _dynamo
from course_lib.layers.attention import attend_side_by_side
from course_lib.models import build
torch.compile(attend_side_by_side, fullgraph=True, backend="eager")(*torch.randn(3, 12, 2, 8, 4))  # a GPU's way
for name, changes in eval(sys.stdin.read()):
    _dynamo.reset()
    net = build(name, **changes).eval()
    explained = _dynamo.explain(net)(torch.randn(1, 3, *net.config.clip))
    if explained.graph_count != 1 or explained.graph_break_count:
        print(name, changes, explained.graph_count, explained.break_reasons)
"""
TRANSFORMERS = [  # MViT and Video Swin are compiled in tests of their own
    ("timesformer_tiny", {}),
    ("vtn_tiny", {}),
    ("vidtr_tiny", {}),
    ("cvidtr_tiny", {}),
    *[("vivit_tiny", {"model": model, "pool": "gap"}) for model in (1, 2, 3, 4)],
]


def test_transformers_compile_into_one_graph_without_breaks():
    """In a process of its own: the checks of shapes, here woven into every function, would break the graph."""
    run = subprocess.run([sys.executable, "-c", BREAKS], input=repr(TRANSFORMERS), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout == ""


RECORD = """
import warnings, sys, torch
from course_lib.layers.attention import attend_side_by_side
from course_lib.models import build
warnings.simplefilter("ignore")
torch.set_num_threads(1)
class Rows(torch.nn.Module):  # a GPU's way, which shares rows between as many clips as divide evenly
    def forward(self, x):
        return attend_side_by_side(x, x, x)
def record(what, net, *shape):
    def clips(batch):
        return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(net, (clips(2),), dynamic_shapes=({0: batch},)).module()
    traced = torch.jit.trace(net, clips(2), check_trace=False)
    for many in (1, 3):
        for recorded in (exported, traced):
            torch.testing.assert_close(recorded(clips(many)), net(clips(many)), rtol=1e-4, atol=1e-5)
    print(what, flush=True)
with torch.no_grad():
    record("rows", Rows(), 2, 8, 4)
    for name, changes in eval(sys.stdin.read()):
        net = build(name, **changes).eval()
        record(name, net, 3, *net.config.clip)
"""
RECORDED = [
    *[(name, {}) for name in names() if name.endswith("_tiny") and name != "vivit_tiny"],
    *[("vivit_tiny", {"model": model, "pool": "gap"}) for model in (1, 2, 3, 4)],
    ("vivit_tiny", {}),
    ("timesformer_tiny", {"attention": "space"}),
    ("cvidtr_tiny", {"pool": "conv"}),
    ("vidtr_tiny", {"attention": "joint"}),
]


def test_networks_are_exported_and_traced_for_batches_of_any_length():
    """In a process of its own, as above: checks of shapes would fix the length of the batch."""
    run = subprocess.run([sys.executable, "-c", RECORD], input=repr(RECORDED), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ["rows", *[name for name, _ in RECORDED]]


RECTANGLES = [*VARIANTS, *[("timesformer_tiny", {"attention": kind}) for kind in ATTENTION], ("mvitv2_tiny", {})]
each_rectangle = pytest.mark.parametrize(("name", "changes"), RECTANGLES, ids=lambda part: str(part).replace(" ", ""))


@each_rectangle
def test_a_network_is_built_for_rectangles(name, changes):
    net = small(name, **{**changes, "size": (64, 96)}).eval()
    assert net.config.clip == (net.config.frames, 64, 96)
    with torch.no_grad():
        logits = net(torch.randn(2, 3, net.config.frames, 64, 96))
    assert logits.shape == (2, 2) and logits.isfinite().all()


@pytest.mark.parametrize("name", ["timesformer_tiny", "mvit_tiny", "vivit_tiny", "vidtr_tiny", "cvidtr_tiny"])
def test_a_clip_that_lies_on_its_side_is_refused_with_the_way_out(name):
    net = small(name, size=(64, 96))
    with pytest.raises(ValueError, match=r"gives h=\d+ tokens, .* built for h=.*frames=..., size=\(height, width\)"):
        net(torch.randn(1, 3, net.config.frames, 96, 64))
    clip = torch.randn(1, 3, net.config.frames, 96, 64)
    assert small(name, size=(96, 64))(clip).shape == (1, 2)  # what the sentence advises


def test_position_tables_have_the_shape_of_the_rectangle():
    assert small("timesformer_tiny", size=(64, 96)).pos_embed.weight.shape[:2] == (4, 6)
    assert small("vtn_tiny", size=(64, 96)).backbone.pos_embed.weight.shape[:2] == (4, 6)
    assert small("mvit_tiny", size=(64, 96)).pos_embed.weight.shape[:2] == (16, 24)
    assert small("vivit_tiny", size=(64, 96)).encoder.pos_embed.shape[:2] == (4, 4 * 6)
    assert small("vidtr_tiny", size=(64, 96)).pos_embed.shape[:2] == (8 + 1, 4 * 6 + 1)
    assert small("cvidtr_tiny", size=(64, 96)).pos_embed.shape[:2] == (8, 4 * 6)
    relative = small("mvitv2_tiny", size=(64, 96)).blocks[0].attention.relative
    assert [len(relative.tables[axis]) for axis in "thw"] == [2 * n - 1 for n in (4, 16, 24)]


@pytest.mark.parametrize("size", [0, (64, 0), (-64, 64)])
def test_a_size_that_is_no_rectangle_is_refused(size):
    with pytest.raises(ValueError, match=r"size=.* is neither a side of a square nor \(height, width\)"):
        build("slowfast_tiny", size=size)


@each_rectangle
def test_no_clips_give_no_logits(name, changes):
    net = small(name, **{"size": 64, **changes}).eval()
    with torch.no_grad():
        assert net(torch.empty(clip_shape(net, 0))).shape == (0, 2)


@each_variant
def test_evaluation_is_deterministic_and_does_not_mix_clips(name, changes):
    net, clips, _ = learnt(name, tuple(changes.items()))
    with torch.no_grad():
        logits = net(clips)
        assert net(clips).equal(logits)
        torch.testing.assert_close(net(clips[1:]), logits[1:], rtol=1e-4, atol=1e-5)


def crowd(clips: torch.Tensor) -> torch.Tensor:
    """64 clips: each of the two 32 times, each time under other noise."""
    noise = torch.randn(64, *clips.shape[1:], generator=torch.Generator().manual_seed(2))
    return clips.repeat_interleave(32, 0) + 0.05 * noise


@each_variant
def test_bf16_and_channels_last_give_the_same_top_1_on_64_clips(name, changes):
    net, clips, _ = learnt(name, tuple(changes.items()))
    clips = crowd(clips)
    with torch.no_grad():
        wanted = net(clips).argmax(1)
        assert wanted.bincount().tolist() == [32, 32]  # a constant would prove nothing
        with torch.autocast("cpu", torch.bfloat16):
            assert net(clips).argmax(1).equal(wanted)
        last = copy.deepcopy(net).to(memory_format=torch.channels_last_3d)
        assert last(clips.contiguous(memory_format=torch.channels_last_3d)).argmax(1).equal(wanted)


@pytest.mark.parametrize(
    "name", ["slow_r50_8x8", "r2plus1d_r50_16x4", "nonlocal_tiny", "r2plus1d_tiny", "slowfast_tiny"]
)
def test_dropout_acts_in_training_only(name):
    torch.manual_seed(0)
    net = build(name, width=8, size=32, dropout=0.5, **({"depths": (1, 1, 1, 1)} if "r50" in name else {}))
    clip = torch.randn(clip_shape(net, 2))
    with torch.no_grad():
        assert not net.train()(clip).equal(net(clip))
        assert net.eval()(clip).equal(net(clip))


def test_every_config_is_frozen():
    for _, config in NETWORKS.values():
        with pytest.raises(AttributeError):
            config.classes = 3
