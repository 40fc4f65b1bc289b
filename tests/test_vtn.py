"""VTN: frames one by one, then a Longformer over them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from course_lib.analysis.cost import cost
from course_lib.analysis.reach import reach
from course_lib.layers.attention import record_attention
from course_lib.layers.schemes import Band
from course_lib.models import build
from course_lib.models.vtn import BACKBONES, VTN, LongformerAttention, sines
from course_lib.official import load


def lively(**changes: object) -> VTN:
    torch.manual_seed(0)
    net = build("vtn_tiny", **changes).double().eval()
    for layer in net.blocks:  # loud enough for the class token to hear single frames
        for part in (layer.attention.qkv, layer.attention.q_global, layer.attention.kv_global, layer.attention.out):
            nn.init.xavier_uniform_(part.weight)
    nn.init.normal_(net.time_embed, std=0.5)
    return net


CLIP = torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize(  # tables 2 and 6
    ("name", "changes", "millions"),
    [
        ("vtn_vit_b", {"depth": 1}, 96),
        ("vtn_vit_b", {}, 114),
        ("vtn_deit_b", {}, 114),
        ("vtn_r50", {}, 168),
        ("vtn_r101", {}, 187),
    ],
)
def test_parameters_are_the_published_ones(name, changes, millions):
    with torch.device("meta"):
        assert sum(p.numel() for p in build(name, **changes).parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(("name", "gmacs"), [("vtn_r50", 1059), ("vtn_r101", 1989)])
def test_multiply_adds_of_the_resnets_are_the_published_ones(name, gmacs):
    with torch.device("meta"):
        assert cost(build(name), (1, 3, 250, 224, 224)).macs / 1e9 == pytest.approx(gmacs, rel=0.01)


def test_the_published_4218_g_leaves_out_the_attention_products_of_the_vit():
    with torch.device("meta"):
        net = build("vtn_vit_b")
    counted = cost(net, (1, 3, 250, 224, 224)).macs / 1e9
    products = 250 * 12 * 2 * 197**2 * 768 / 1e9  # q k^T and weights v, in each block of each frame
    assert counted == pytest.approx(4397, rel=0.001)
    assert counted - products == pytest.approx(4218, rel=0.01)


def test_a_band_with_a_class_token_drawn_by_hand():
    """Three frames, one neighbour to each side; the class token comes first."""
    seen = []

    def attend(x, mask):
        seen.append(mask[0].int().tolist())
        return x

    x, cls = Band(1).apply(attend, torch.zeros(1, 3, 2), torch.ones(1, 1, 2))
    assert seen == [[[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 1, 1]]]
    assert x.shape == (1, 3, 2) and cls.eq(1).all()


def test_frames_reach_their_band_and_the_class_token_reaches_all():
    scheme = Band(2)
    layer, cls = LongformerAttention(8, 2, scheme, 0.0).double(), torch.randn(1, 1, 8).double()
    assert reach(lambda x: layer(x, cls)[0], (7,)).equal(scheme.mask((7,)))
    x = torch.randn(1, 7, 8).double().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x, cls)[1].sum(), x)
    assert (gradient.abs().sum(-1) > 0).all()


def test_the_attention_is_longformer_written_out_token_by_token():
    torch.manual_seed(0)
    layer = LongformerAttention(4, 1, Band(1), 0.0).double()
    x, cls = torch.randn(1, 4, 4).double(), torch.randn(1, 1, 4).double()
    with torch.no_grad():
        found, found_cls = layer(x, cls)
        row = torch.cat([cls, x], 1)[0]
        q, k, v = layer.qkv(row).chunk(3, -1)
        answers = []
        for i in range(1, 5):
            keys = [0, *(j for j in (i - 1, i, i + 1) if 1 <= j <= 4)]
            answers.append(((k[keys] @ q[i]) / 2).softmax(0) @ v[keys])
        torch.testing.assert_close(found[0], layer.out(torch.stack(answers)))
        k, v = layer.kv_global(row).chunk(2, -1)
        answer = ((k @ layer.q_global(row[0])) / 2).softmax(0) @ v
        torch.testing.assert_close(found_cls[0, 0], layer.out(answer))


def test_f3_without_a_position_code_and_with_a_wide_window_any_shuffle_is_the_same():
    net = lively(positions="none", window=16)
    nn.init.zeros_(net.time_embed)
    with torch.no_grad():
        torch.testing.assert_close(net(CLIP[:, :, [3, 1, 4, 0, 5, 2, 6, 7]]), net(CLIP))


def test_f3_with_a_narrow_window_a_shuffle_shows_and_a_reversal_does_not():
    net = lively(positions="none", window=2)
    nn.init.zeros_(net.time_embed)
    with torch.no_grad():
        torch.testing.assert_close(net(CLIP.flip(2)), net(CLIP))
        assert (net(CLIP[:, :, [3, 1, 4, 0, 5, 2, 6, 7]]) - net(CLIP)).abs().max() > 1e-4 * net(CLIP).std()


@pytest.mark.parametrize("positions", ["learned", "fixed"])
def test_with_a_position_code_reversal_shows(positions):
    net = lively(positions=positions)
    with torch.no_grad():
        assert (net(CLIP.flip(2)) - net(CLIP)).abs().max() > 1e-4 * net(CLIP).std()


def test_frame_numbers_choose_the_codes_and_start_again_after_286():
    net = lively()
    numbers = torch.arange(0, 64, 8).expand(2, -1)
    with torch.no_grad():
        torch.testing.assert_close(net(CLIP), net(CLIP, torch.arange(8).expand(2, -1)))
        torch.testing.assert_close(net(CLIP, numbers), net(CLIP, numbers + 286))
        assert (net(CLIP, numbers) - net(CLIP)).abs().max() > 1e-4 * net(CLIP).std()


def test_the_whole_video_goes_in_at_once():
    net = build("vtn_tiny").eval()
    with torch.inference_mode():
        assert net(torch.randn(1, 3, 300, 64, 64)).shape == (1, 8)


def test_only_learned_codes_learn():
    assert {c: build("vtn_tiny", positions=c).time_embed.requires_grad for c in ("learned", "fixed", "none")} == {
        "learned": True,
        "fixed": False,
        "none": False,
    }
    assert not build("vtn_tiny", positions="none").time_embed.any()


def test_a_start_from_nothing_has_a_loud_time_code_and_weights_that_suit_any_width():
    torch.manual_seed(0)
    loud, released = build("vtn_tiny"), build("vtn_tiny", scratch=False)
    near = loud.time_embed[:8].diff(dim=0).norm(dim=1).max()
    assert near < 0.5 * (loud.time_embed[7] - loud.time_embed[0]).norm()  # frames that follow each other begin alike
    assert 0.95 < loud.time_embed.std() < 1.05 and 0.019 < released.time_embed.std() < 0.021
    for net, std in ((loud, (2 / (64 + 192)) ** 0.5), (released, 0.02)):
        assert net.blocks[0].attention.qkv.weight.std().item() == pytest.approx(std, rel=0.15)
    assert not build("vtn_tiny", positions="none").time_embed.any()


def test_fixed_codes_are_sines_and_cosines():
    angles = torch.tensor([3.0, 0.03])
    found = sines(4, 4)[3]
    torch.testing.assert_close(found[0::2], angles.sin())
    torch.testing.assert_close(found[1::2], angles.cos())


def test_no_backbone_sees_two_frames():
    for name in ("vit_tiny", "r50"):
        net = build("vtn_tiny", backbone=name, size=32).eval()
        clip = torch.randn(1, 3, 4, 32, 32)
        other = clip.clone()
        other[:, :, 2] += 1
        with torch.inference_mode():
            change = (net.backbone(other) - net.backbone(clip)).abs().amax(-1)[0]
        assert (change > 0).tolist() == [False, False, True, False]


def test_in_the_last_layer_only_the_global_projections_matter():
    net = lively()
    net(CLIP).sum().backward()
    last = net.blocks[-1].attention
    assert last.qkv.weight.grad is None or not last.qkv.weight.grad.any()
    assert last.kv_global.weight.grad.any() and net.blocks[0].attention.qkv.weight.grad.any()


def test_norms_have_the_released_epsilons():
    net = build("vtn_tiny")
    assert net.norm_embed.eps == net.blocks[0].norm.eps == net.blocks[0].norm_mlp.eps == 1e-12
    assert net.head[0].eps == 1e-5 and net.backbone.norm.eps == 1e-6


def test_attention_can_be_recorded_and_rows_sum_to_one():
    net = lively()
    with torch.no_grad(), record_attention(net) as recorded:
        watched = net(CLIP)
    frames, cls = recorded["blocks.0.attention"]
    assert frames.shape == (2, 4, 8, 9) and cls.shape == (2, 4, 1, 9)
    torch.testing.assert_close(frames.sum(-1), torch.ones_like(frames[..., 0]))
    with torch.no_grad():
        torch.testing.assert_close(net(CLIP), watched)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(backbone="r18"), f"unknown backbone 'r18': .*There are {', '.join(BACKBONES)}"),
        (dict(positions="sine"), "unknown positions 'sine': .*There are learned, fixed, none"),
        (dict(heads=5), "dim=64 does not split into heads=5 equal parts"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build("vtn_tiny", **changes)


def test_what_was_never_released_has_no_format():
    with pytest.raises(ValueError, match="no VTN with backbone='r50' was released"):
        load(build("vtn_tiny", backbone="r50", size=32), {}, "vtn")
    with pytest.raises(ValueError, match="no VTN with positions='none' was released"):
        load(build("vtn_tiny", positions="none"), {}, "vtn")
    with pytest.raises(ValueError, match="no vtn format is known for ViViT"):
        load(build("vivit_tiny"), {}, "vtn")
