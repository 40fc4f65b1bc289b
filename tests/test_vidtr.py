"""VidTr and compact VidTr: what the paper says, what the released code does, and where they differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from einops import rearrange
from reference import recipe
from torch import nn

from course_lib.analysis.cost import cost
from course_lib.analysis.reach import reach, then
from course_lib.analysis.weights import layer_weights
from course_lib.layers.attention import record_attention
from course_lib.layers.inflate import LoadReport, load_image_weights
from course_lib.layers.schemes import FLAT_JOINT, FLAT_SPACE, FLAT_TIME, kept_mask, most_varied
from course_lib.models import build
from course_lib.models.cvidtr import POOL, Pool, TopTime, stay
from course_lib.models.cvidtr import VARIANTS as CVIDTR_VARIANTS
from course_lib.models.vidtr import (
    VARIANTS,
    Mix,
    SeparableAttention,
)
from course_lib.official import load

RECORDS = Path(__file__).parent / "reference"
FORMS = [  # every option of both networks
    ("vidtr_tiny", {}),
    ("vidtr_tiny", {"separate": True}),
    ("vidtr_tiny", {"pos_embed_in_every_block": True}),
    ("vidtr_tiny", {"attention": "joint"}),
    *[("cvidtr_tiny", {"pool": pool}) for pool in POOL],
]
each_form = pytest.mark.parametrize(("name", "changes"), FORMS, ids=lambda part: str(part).replace(" ", ""))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()


CLIPS = noise(2, 3, 8, 64, 64)


def on_paper(name: str, **changes: object) -> nn.Module:
    with torch.device("meta"):
        return build(name, **changes)


def tiny(name: str, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    return build(name, **changes).double().eval()


def millions(net: nn.Module) -> float:
    return sum(p.numel() for p in net.parameters()) / 1e6


def macs(net: nn.Module) -> float:
    c = net.config
    return cost(net, (1, 3, c.frames, c.size, c.size)).macs / 1e9


def picture(mask: torch.Tensor) -> list[str]:
    return ["".join("#" if seen else "." for seen in row) for row in mask.tolist()]


# The released weights and figures


FIGURES = {  # millions of parameters, multiply-adds in 10^9: the released code, counted
    "vidtr_s_8x224": (87.47, 158.25),
    "vidtr_m_16x224": (88.69, 299.51),
    "vidtr_l_32x224": (91.12, 583.42),
    "cvidtr_s_8x224": (87.16, 64.60),
    "cvidtr_m_16x224": (88.36, 77.19),
}


@pytest.mark.parametrize(("name", "figures"), FIGURES.items())
def test_parameters_and_multiply_adds_are_those_of_the_released_code(name, figures):
    net = on_paper(name)
    assert (millions(net), macs(net)) == (pytest.approx(figures[0], abs=0.006), pytest.approx(figures[1], rel=1e-3))


def printed_way(net: nn.Module) -> float:
    """Stem and MLPs over patch tokens alone: no attention at all, no class tokens."""
    c, tokens = net.config, []
    for block in net.blocks:
        block.mlp.register_forward_hook(lambda part, inputs, output: tokens.append(inputs[0][0, ..., 0].numel()))
    net(torch.empty(1, 3, c.frames, c.size, c.size, device="meta"))
    extra = sum(tokens) - sum(getattr(c, "frames_after", [c.frames] * c.depth)) * c.places
    rows = (c.frames + 1) + c.places  # class tokens of VidTr; C-VidTr has one
    assert extra == c.depth * (rows if hasattr(net, "row") else 1)
    return ((sum(tokens) - extra) * 8 * c.dim**2 + c.frames * c.places * c.dim * 3 * c.patch**2) / 1e9


@pytest.mark.parametrize(("name", "printed"), [("vidtr_s_8x224", 89), ("vidtr_m_16x224", 179), ("cvidtr_s_8x224", 39)])
def test_the_printed_gflops_leave_the_attention_out(name, printed):
    """Arithmetic that fits, not a statement of the paper. True costs are 1.6 to 1.8 times as high."""
    net = on_paper(name)
    assert int(printed_way(net)) == printed
    assert 1.6 < macs(net) / printed < 1.8


@pytest.mark.parametrize(("name", "printed"), [("vidtr_l_32x224", 351), ("cvidtr_m_16x224", 59)])
def test_two_printed_gflops_fit_no_convention_known(name, printed):
    assert abs(printed_way(on_paper(name)) - printed) > 7


def test_sharing_the_projections_costs_no_parameter_more_than_an_image_transformer():
    """VidTr-S is ViT-B/16 but for its class tokens and their positions."""
    vit = sum(p.numel() for p in on_paper("vidtr_joint_8x224", frames=1).parameters())
    assert vit == 86_567_656 - 600 * 769  # ViT-B/16 as everyone counts it, with 400 classes instead of 1000
    swapped = 197 * 768 + 8 * 768 - 768 + (9 - 1) * 197 * 768  # class row, class column; codes of 9 rows, not of one
    assert sum(p.numel() for p in on_paper("vidtr_s_8x224").parameters()) == vit + swapped


def test_projections_of_their_own_for_time_and_space_are_21_million_more():
    """What the paper writes; the released code has one for both."""
    more = millions(on_paper("vidtr_s_8x224", separate=True)) - millions(on_paper("vidtr_s_8x224"))
    assert more == pytest.approx(12 * 3 * 768 * 769 / 1e6)


def test_the_vanilla_transformer_costs_what_mvits_authors_print_for_the_same_network():
    net = on_paper("vidtr_joint_8x224")
    assert macs(net) == pytest.approx(179.6, rel=1e-3)
    assert millions(net) == pytest.approx(87.2, abs=0.15)


def test_dropping_frames_early_saves_three_fifths_and_separating_an_eighth():
    joint, separable, compact = (macs(on_paper(n)) for n in ("vidtr_joint_8x224", "vidtr_s_8x224", "cvidtr_s_8x224"))
    assert separable / joint == pytest.approx(0.88, abs=0.01)
    assert compact / separable == pytest.approx(0.41, abs=0.01)


# What logits cannot tell, or tell badly


@each_form
def test_norms_have_torchs_epsilon_and_mlps_a_relu(name, changes):
    net = tiny(name, **changes)
    assert {part.eps for part in net.modules() if isinstance(part, nn.LayerNorm)} == {1e-5}
    assert all(isinstance(block.mlp.activation[0], nn.ReLU) for block in net.blocks)
    assert not any(isinstance(part, nn.GELU) for part in net.modules())


@each_form
def test_dropout_is_a_tenth_in_the_blocks_and_a_half_before_the_head(name, changes):
    full = on_paper({"vidtr_tiny": "vidtr_s_8x224", "cvidtr_tiny": "cvidtr_s_8x224"}[name], **changes)
    assert full.dropout.p == 0.5
    for block in full.blocks:
        assert block.dropout.p == block.mlp.activation[1].p == 0.1
    mixes = [part for part in full.modules() if hasattr(part, "recorder") and not isinstance(part, TopTime)]
    assert mixes and all(part.dropout == 0.1 for part in mixes)


@each_form
@pytest.mark.parametrize("setting", ["dropout", "head_dropout"])
def test_dropout_acts_in_training_only(name, changes, setting):
    net = tiny(name, **changes, **{setting: 0.5})
    with torch.no_grad():
        assert net(CLIPS).equal(net(CLIPS))
        net.train()
        assert not net(CLIPS).equal(net(CLIPS))


@torch.no_grad()
def moved_by_codes(net: nn.Module, silent: int) -> bool:
    """Do other position codes change the logits, when the first `silent` blocks' attention says nothing?"""
    for block in net.blocks[:silent]:
        nn.init.zeros_(block.attention.out.weight)
    before = net(CLIPS)
    net.pos_embed.normal_()
    return bool((net(CLIPS) - before).abs().max() > 1e-6)


@each_form
def test_positions_enter_the_first_block_only_and_never_what_stays(name, changes):
    everywhere = changes.get("pos_embed_in_every_block", False)
    assert moved_by_codes(tiny(name, **changes), silent=0)
    assert moved_by_codes(tiny(name, **changes), silent=1) == everywhere
    assert not moved_by_codes(tiny(name, **changes), silent=5)


def test_only_the_network_of_16_frames_adds_its_positions_in_every_block():
    assert [name for name, c in VARIANTS.items() if c.pos_embed_in_every_block] == ["vidtr_m_16x224"]


# Rows and columns of class tokens

GRID = (2, 3)  # one frame and two patches, framed: row 0 and column 0 are class tokens
DRAWINGS = [
    (FLAT_TIME, GRID, ["#..#..", ".#..#.", "..#..#", "#..#..", ".#..#.", "..#..#"]),
    (FLAT_SPACE, GRID, ["###...", "###...", "###...", "...###", "...###", "...###"]),
    (FLAT_JOINT, (3,), ["###", "###", "###"]),
]


@pytest.mark.parametrize(("scheme", "grid", "drawn"), DRAWINGS, ids=lambda x: getattr(x, "name", ""))
def test_the_mask_is_the_one_drawn_by_hand(scheme, grid, drawn):
    assert picture(scheme.mask(grid)) == drawn


@pytest.mark.parametrize(("scheme", "grid"), [(FLAT_TIME, (3, 4)), (FLAT_SPACE, (3, 4)), (FLAT_JOINT, (12,))])
def test_the_mask_is_what_gradients_reach_and_the_fold_is_masked_attention(scheme, grid):
    mix, whole = Mix(2, scheme, 0.0).eval(), Mix(2, FLAT_JOINT, 0.0).eval()
    assert torch.equal(reach(lambda x: mix(x.repeat_interleave(3, -1)), grid), scheme.mask(grid))
    qkv = noise(2, *grid, 24)
    q, k, v = rearrange(qkv.flatten(1, -2), "b n (qkv head d) -> qkv b head n d", qkv=3, head=2)
    dense = rearrange(whole.mix(q, k, v, mask=scheme.mask(grid)), "b head n d -> b n (head d)")
    torch.testing.assert_close(mix(qkv), dense.view(2, *grid, 8))


@pytest.mark.parametrize("separate", [False, True])
def test_time_then_space_reaches_every_token_in_one_layer(separate):
    """The corner that answers hears of class tokens alone along time, and of all patches once space has followed."""
    torch.manual_seed(0)
    attention = SeparableAttention(8, 2, 0.0, separate).double()
    time, space = FLAT_TIME.mask((3, 4)), FLAT_SPACE.mask((3, 4))
    assert torch.equal(reach(attention, (3, 4)), then(time, space))
    assert then(time, space).all()
    assert time[0].view(3, 4).nonzero().tolist() == [[0, 0], [1, 0], [2, 0]]


def test_space_attends_by_the_queries_and_keys_that_time_used():
    torch.manual_seed(0)
    attention = SeparableAttention(8, 1, 0.0).double()
    x = noise(1, 3, 4, 8)
    q, k, v = attention.qkv(x)[0].chunk(3, dim=-1)  # t n d
    along_time = torch.einsum("tnd,und->ntu", q, k).div(8**0.5).softmax(-1)
    along_space = torch.einsum("tnd,tmd->tnm", q, k).div(8**0.5).softmax(-1)
    mixed = torch.einsum("tnm,mtu,umd->tnd", along_space, along_time, v)
    torch.testing.assert_close(attention(x)[0], attention.out(mixed))


def test_class_tokens_stand_in_front_of_frames_and_of_patches():
    net = tiny("vidtr_tiny")
    z = net.tokens(CLIPS)
    assert z.shape == (2, *net.config.grid, net.config.dim) == (2, 9, 17, 64)
    assert z[1, 0].equal(net.row) and z[1, 1:, 0].equal(net.column)
    assert z[:, 1:, 1:].equal(net.patch_embed(CLIPS).flatten(2, 3))


@pytest.mark.parametrize("changes", [{}, {"separate": True}, {"attention": "joint"}])
def test_attention_maps_lie_on_the_grid_of_all_tokens(changes):
    net = tiny("vidtr_tiny", **changes)
    maps = layer_weights(net, CLIPS[:1])
    steps = ["joint"] if changes.get("attention") else ["time", "space"]
    assert set(maps) == {f"block {i} {step}" for i in range(1, net.config.depth + 1) for step in steps}
    row = maps[f"block 1 {steps[0]}"].parts[steps[0]].row(0)
    assert row.shape[1] == torch.Size(net.config.grid).numel() and row.sum(1) == pytest.approx(1)


@each_form
def test_recorded_attention_gives_the_same_logits_and_rows_that_sum_to_one(name, changes):
    net = tiny(name, **changes)
    with torch.no_grad(), record_attention(net) as recorded:
        torch.testing.assert_close(net(CLIPS), tiny(name, **changes)(CLIPS))
    assert all(len(calls) == 1 for calls in recorded.values())
    for (weights,) in recorded.values():
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1], dtype=torch.double))


# Dropping frames

FLAT, SLIGHT, CLEAR, SHARP = [0.25] * 4, [0.4, 0.2, 0.2, 0.2], [0.1, 0.7, 0.1, 0.1], [0.01, 0.01, 0.01, 0.97]
HERE, THERE = [SHARP, FLAT, SLIGHT, CLEAR], [FLAT, CLEAR, SHARP, SLIGHT]


@pytest.mark.parametrize(("keep", "here", "there"), [(1, [0], [2]), (2, [0, 3], [1, 2]), (3, [0, 2, 3], [1, 2, 3])])
def test_the_rows_that_vary_most_stay_in_the_order_of_time(keep, here, there):
    assert most_varied(torch.tensor([HERE, THERE]), keep).tolist() == [here, there]


def packed(*attention: list[list[float]]) -> torch.Tensor:
    """qkv "1 t places 3*4" of one head whose attention along time is exactly `attention`, place by place."""
    weights = torch.tensor(attention, dtype=torch.double)  # n t u
    q, k = 2 * weights.log(), torch.eye(4).double().expand_as(weights)
    v = noise(*weights.shape)
    return rearrange(torch.cat([q, k, v], dim=-1), "n t d -> 1 t n d")


def test_kept_rows_pass_a_second_softmax_and_still_mix_all_frames():
    qkv = packed(HERE, THERE)
    pooled, kept = TopTime(heads=1, keep=2)(qkv)
    assert kept.tolist() == [[[[0, 3]], [[1, 2]]]]
    v = qkv[0, :, 0, 8:]
    torch.testing.assert_close(pooled[0, :, 0, 8:], torch.tensor([SHARP, CLEAR]).double().softmax(-1) @ v)
    assert pooled[0, :, 1, :8].equal(qkv[0, [1, 2], 1, :8]), "queries and keys go on as they are"


def test_recorded_weights_are_almost_flat_after_the_second_softmax():
    net = tiny("cvidtr_tiny")
    with torch.no_grad(), record_attention(net) as recorded:
        net(CLIPS)
    (weights,) = recorded["blocks.1.attention.time"]
    assert weights.shape == (2 * 16, 4, 4, 8)  # clips and places, heads, frames kept, frames
    assert 1 < (weights.amax(-1) / weights.amin(-1)).max() < torch.e


def jacobian(compute, x: torch.Tensor) -> torch.Tensor:
    """reach for outputs "1 t n d" of fewer frames."""
    jacobian = torch.autograd.functional.jacobian(compute, x)
    return rearrange(jacobian[0, :, :, :, 0].abs(), "k m e t n d -> (k m) (t n) e d").sum((-1, -2)) > 0


def test_the_picture_of_kept_frames_is_the_one_drawn_by_hand():
    kept = most_varied(torch.tensor([HERE, THERE]), 2)  # place, keep
    assert picture(kept_mask(kept, 4)) == ["#.......", "...#....", "......#.", ".....#.."]


def test_the_picture_of_kept_frames_is_what_gradients_reach():
    """What stays continues one frame, place by place; the values that attention adds come from all frames there."""
    qkv, z = packed(HERE, THERE), noise(1, 4, 2, 4)
    kept = TopTime(heads=1, keep=2)(qkv)[1]
    assert torch.equal(jacobian(lambda z: stay(z, kept), z), kept_mask(kept[0, :, 0], 4))
    values = jacobian(lambda v: TopTime(1, 2)(torch.cat([qkv[..., :8], v], -1))[0][..., 8:], z)
    assert torch.equal(values, FLAT_TIME.mask((4, 2))[:4])
    assert not torch.equal(values, kept_mask(kept[0, :, 0], 4))


def test_every_head_keeps_its_own_frames():
    z = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, 2, 6)  # every feature tells its frame
    kept = torch.tensor([[[[0, 3], [1, 2], [0, 1]], [[2, 3], [0, 2], [1, 3]]]])  # 2 places, 3 heads of 2 features
    assert stay(z, kept)[0, :, 0].tolist() == [[0, 0, 1, 1, 0, 0], [3, 3, 2, 2, 1, 1]]
    assert stay(z, kept)[0, :, 1].tolist() == [[2, 2, 0, 0, 1, 1], [3, 3, 2, 2, 3, 3]]


@torch.no_grad()
def seen(net: nn.Module, clip: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """After every block: patch tokens a place, and the class token."""
    found = []
    for block in net.blocks:
        block.register_forward_hook(
            lambda part, inputs, out: found.append(
                (out[0].shape[1], out[1][:, 0]) if isinstance(out, tuple) else ((out.shape[1] - 1) // 16, out[:, 0])
            )
        )
    net(clip)
    return found


@pytest.mark.parametrize("pool", POOL)
def test_the_class_token_learns_nothing_of_the_clip_until_the_last_frames_are_dropped(pool):
    net = tiny("cvidtr_tiny", pool=pool)
    steps = seen(net, CLIPS)
    assert [frames for frames, _ in steps] == [8, 4, 2, 2, 2] == list(net.config.frames_after)
    assert [bool(cls[0].equal(cls[1])) for _, cls in steps] == [True, True, True, False, False]


def test_released_pooling_starts_in_other_blocks_than_the_papers():
    """Released: S in blocks 1, 3, 5. The paper's table 1 says 1, 2, 4, as M has it."""
    assert CVIDTR_VARIANTS["cvidtr_s_8x224"].frames_after == (8, 6, 6, 4, 4, 2, 2, 2, 2, 2, 2, 2)
    assert CVIDTR_VARIANTS["cvidtr_m_16x224"].frames_after == (16, 8, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2)


@pytest.mark.parametrize(("before", "after", "windows"), [(4, 2, [[0, 1], [2, 3]]), (4, 3, [[0, 1], [1, 2], [2, 3]]),
                                                          (8, 6, [[i, i + 1, i + 2] for i in range(6)])])  # fmt: skip
def test_average_pooling_takes_neighbours_and_the_convolution_starts_as_the_average(before, after, windows):
    z = noise(2, before, 3, 4)
    wanted = torch.stack([z[:, window].mean(1) for window in windows], 1)
    for kind in ("average", "conv"):
        torch.testing.assert_close(Pool(kind, 4, before, after).double()(z), wanted)


def test_the_baselines_for_pooling_cost_what_topk_costs_but_for_the_convolution():
    """Apart from attention on the dropped frames: it runs before they are averaged."""
    topk, average, conv = (on_paper("cvidtr_s_8x224", pool=pool) for pool in POOL)
    assert millions(average) == millions(topk)
    assert millions(conv) - millions(topk) == pytest.approx((3 + 3 + 2) * 768**2 / 1e6, rel=0.001)
    assert printed_way(average) == printed_way(topk)
    assert macs(average) == pytest.approx(macs(topk), rel=0.05)


# The start from an image transformer


def start_from_images(net: nn.Module, weights: dict[str, torch.Tensor], how: str | None = None) -> LoadReport:
    start = net.image_start()
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}
    return load_image_weights(net, weights, start.entries, how or start.how)


def started(name: str) -> tuple[nn.Module, nn.Module]:
    net = tiny(name)
    image = tiny("vidtr_tiny", attention="joint", frames=1, depth=net.config.depth)
    report = start_from_images(net, image.state_dict())
    assert report.fresh == ("head.weight", "head.bias") and not report.left_over
    return image, net


def test_every_frame_and_every_class_token_starts_as_the_images():
    image, net = started("vidtr_tiny")
    assert all(row.equal(image.pos_embed) for row in net.pos_embed)
    assert all(cls.equal(image.cls) for cls in (*net.row, *net.column))
    assert net.blocks[3].attention.qkv.weight.equal(image.blocks[3].attention.qkv.weight)
    image, net = started("cvidtr_tiny")
    assert all(frame.equal(image.pos_embed[1:]) for frame in net.pos_embed) and net.cls_pos_embed.equal(
        image.pos_embed[0]
    )
    joint = tiny("vidtr_tiny", attention="joint", depth=5)
    start_from_images(joint, image.state_dict())
    assert joint.pos_embed[1:].view(8, 16, 64)[5].equal(image.pos_embed[1:]) and joint.cls.equal(image.cls)


def moved(net: nn.Module, order: torch.Tensor) -> float:
    with torch.no_grad():
        return float((net(CLIPS[:, :, order]) - net(CLIPS)).abs().max())


def test_at_that_start_the_order_of_frames_cannot_matter_unless_frames_are_dropped_place_by_place():
    """The j-th frame kept here meets the j-th kept there: a shuffle changes who meets whom, a reverse does not."""
    shuffle, reverse = torch.tensor([3, 0, 7, 1, 5, 2, 6, 4]), torch.arange(7, -1, -1)
    _, net = started("vidtr_tiny")
    assert moved(net, shuffle) < 1e-10 and moved(net, reverse) < 1e-10
    _, net = started("cvidtr_tiny")
    assert moved(net, reverse) < 1e-10 < 1e-6 < moved(net, shuffle)
    assert moved(tiny("vidtr_tiny"), reverse) > 1e-6 and moved(tiny("cvidtr_tiny"), reverse) > 1e-6


# What is refused


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vidtr_tiny", {"attention": "seperable"}, "unknown attention 'seperable': did you mean 'separable'"),
        ("vidtr_tiny", {"attention": "joint", "separate": True}, "joint attention has no two"),
        ("vidtr_tiny", {"heads": 5}, "dim=64 does not split into heads=5"),
        ("vidtr_tiny", {"size": 60}, "h=60 is not a multiple of 16"),
        ("cvidtr_tiny", {"pool": "avrage"}, "unknown pool 'avrage': did you mean 'average'"),
        ("cvidtr_tiny", {"pools": ((1, 4), (4, 2))}, r"rising blocks of 0\.\.3: the class token sees the clip"),
        ("cvidtr_tiny", {"pools": ((2, 4), (1, 2))}, "rising blocks"),
        ("cvidtr_tiny", {"pools": ()}, "rising blocks"),
        ("cvidtr_tiny", {"pools": ((1, 4), (2, 4))}, "fewer frames each time, and at least 1, of 8"),
        ("cvidtr_tiny", {"pools": ((1, 9),)}, "fewer frames each time"),
        ("cvidtr_tiny", {"pools": ((1, 0),)}, "fewer frames each time"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        build(name, **changes)


@each_form
def test_a_clip_longer_or_larger_than_built_for_is_refused(name, changes):
    net = build(name, **changes)
    with pytest.raises(ValueError, match="t=4 tokens, the network was built for t=8"):
        net(torch.zeros(1, 3, 4, 64, 64))
    with pytest.raises(ValueError, match="h=5 tokens, the network was built for h=4"):
        net(torch.zeros(1, 3, 8, 80, 64))
    with pytest.raises(ValueError, match="w=60 is not a multiple of 16"):
        net(torch.zeros(1, 3, 8, 64, 60))


def test_no_more_rows_can_be_kept_than_there_are():
    with pytest.raises(ValueError, match="cannot keep 5 of 4 rows"):
        most_varied(torch.zeros(2, 4, 4), 5)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vidtr_tiny", {"attention": "joint"}, "released VidTr with attention='separable' and separate=False"),
        ("vidtr_tiny", {"separate": True}, "released VidTr with attention='separable' and separate=False"),
        ("cvidtr_tiny", {"pool": "conv"}, "no checkpoint with pool='conv' was released"),
        ("timesformer_tiny", {}, "no gluonmm format is known for TimeSformer"),
    ],
)
def test_what_was_never_released_is_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        load(on_paper(name, **changes), {}, "gluonmm")


@pytest.mark.parametrize("name", ["vidtr_s_8x224", "cvidtr_s_8x224"])
def test_the_released_format_is_strict_both_ways(name):
    golden = recipe.record(RECORDS / f"{name}.json")
    state = {key: torch.zeros(shape, device="meta") for key, shape in golden["keys"]}
    net = on_paper(name)
    with pytest.raises(ValueError, match=r"missing: fc\.weight"):
        load(net, {key: tensor for key, tensor in state.items() if key != "fc.weight"}, "gluonmm")
    with pytest.raises(ValueError, match=r"unexpected: encoder\.extra"):
        load(net, {**state, "encoder.extra": torch.zeros(1)}, "gluonmm")
    longer = torch.zeros(1, state["pos_embedding"].shape[1] + 197, 768, device="meta")
    with pytest.raises(ValueError, match=r"misshapen: pos_embedding .* for pos_embed"):
        load(net, {**state, "pos_embedding": longer}, "gluonmm")


@pytest.mark.parametrize(
    ("name", "changes"), [("vidtr_tiny", {}), ("vidtr_tiny", {"attention": "joint"}), ("cvidtr_tiny", {})]
)
def test_a_start_from_nothing_is_as_loud_as_a_norm_and_neighbours_are_alike(name, changes):
    torch.manual_seed(0)
    net, released = build(name, **changes), build(name, **changes, scratch=False)
    assert released.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    table = net.pos_embed.detach()
    patches = table[1:].view(8, 16, 64) if changes else table[-8:, -16:]
    assert patches.std().item() == pytest.approx(1, rel=0.1)

    def alike(one: torch.Tensor, other: torch.Tensor) -> float:
        return torch.cosine_similarity(one, other, dim=-1).mean().item()

    grid = patches.view(8, 4, 4, 64)
    for axis in range(3):
        first, last = grid.select(axis, 0), grid.select(axis, grid.shape[axis] - 1)
        assert alike(grid.select(axis, 1), first) > 0.2 + alike(last, first)
