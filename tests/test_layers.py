"""Attention, blocks, positions, inflation, grid."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import nn

from course_lib.grid import Grid
from course_lib.layers.attention import (
    MultiHeadAttention,
    attend,
    attend_side_by_side,
    attention_weights,
    record_attention,
)
from course_lib.layers.blocks import DropPath, Mlp, PatchEmbed, drop_path_rates, recompute, vit_init, xavier_init
from course_lib.layers.inflate import inflate_conv, load_image_weights
from course_lib.layers.positions import SpaceEmbedding, TimeEmbedding, resize_space, resize_time, smooth_table
from course_lib.layers.settings import one_of


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_fused_attention_is_weights_times_values(with_mask, with_bias):
    q, k, v = random(2, 3, 5, 8), random(2, 3, 7, 8), random(2, 3, 7, 4)
    mask = (random(2, 1, 5, 7) > 0) | (torch.arange(7) == 0) if with_mask else None
    bias = random(1, 3, 5, 7) if with_bias else None
    torch.testing.assert_close(attend(q, k, v, mask, bias), attention_weights(q, k, mask, bias) @ v)


@pytest.mark.parametrize(
    ("k", "v"),
    [((2, 3, 7, 8), (2, 3, 5, 8)), ((2, 3, 7, 8), (2, 3, 33, 8)), ((2, 3, 7, 8), (1, 3, 7, 8)), ((1, 3, 7, 8),) * 2],
)
def test_keys_and_values_that_do_not_fit_are_refused_before_the_kernel_reads_past_their_end(k, v):
    unchecked = inspect.unwrap(attend)  # as in a notebook, where no test looks at the shapes
    with pytest.raises(ValueError, match="keys and values the same number of tokens") as refused:
        unchecked(random(2, 3, 5, 8), random(*k), random(*v))
    assert str(k) in str(refused.value) and str(v) in str(refused.value)


@pytest.mark.parametrize(  # together: the most of these rows that fit into 64 tokens and come out even
    ("rows", "n", "m", "together"),
    [(12, 8, 8, 6), (10, 16, 16, 2), (7, 8, 8, 7), (11, 20, 20, 1), (4, 64, 64, 1), (2, 80, 80, 1), (12, 3, 9, 6)],
)
def test_short_rows_side_by_side_give_the_same_numbers_and_are_not_copied(rows, n, m, together, monkeypatch):
    query, pair, fused, given = random(rows, n, 2, 4), random(rows, m, 2, 2, 4), F.scaled_dot_product_attention, []

    def kernel(q, k, v, **options):
        given.extend((q, k, v))
        return fused(q, k, v, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", kernel)
    q, (k, v) = query.transpose(1, 2), pair.permute(2, 0, 3, 1, 4)
    torch.testing.assert_close(attend_side_by_side(q, k, v), attention_weights(q, k) @ v)
    for x, length, source in zip(given, (n, m, m), (query, pair, pair), strict=True):
        assert x.shape == (rows // together, 2, together * length, 4)
        assert x.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()


def test_shapes_in_signatures_are_checked_while_the_tests_run():
    with pytest.raises(TypeCheckError, match="attention_weights"):
        attention_weights(random(2, 5, 8), random(2, 7, 9))


def test_attention_weights_are_a_softmax_over_allowed_keys():
    weights = attention_weights(torch.zeros(1, 1, 4), torch.zeros(1, 3, 4), torch.tensor([[[True, False, True]]]))
    assert weights.tolist() == [[[0.5, 0.0, 0.5]]]


def test_attention_is_torchs_multihead_attention():
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(12, 3).eval(), nn.MultiheadAttention(12, 3, batch_first=True).eval()
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = ours.out.weight.data, ours.out.bias.data
    x = random(2, 5, 12)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_dropout_sleeps_in_evaluation():
    torch.manual_seed(0)
    net, x = MultiHeadAttention(8, 2, dropout=0.5), random(1, 6, 8)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_recording_a_network_without_attention_is_an_error():
    with pytest.raises(ValueError, match="Linear has no attention to record"), record_attention(nn.Linear(2, 2)):
        pass


def test_recording_stops_when_the_block_ends_in_an_error():
    net = MultiHeadAttention(8, 2)
    with pytest.raises(RuntimeError), record_attention(net):
        raise RuntimeError
    assert net.recorder is None


def test_heads_that_do_not_split_the_features_are_refused():
    with pytest.raises(ValueError, match="dim=10 does not split into heads=4"):
        MultiHeadAttention(10, 4)


def test_patch_embedding_is_a_linear_map_of_each_tubelet():
    net, clip = PatchEmbed(5, Grid(2, 4, 4)), random(1, 3, 4, 8, 12)
    tubelet = clip[0, :, 2:4, 4:8, 8:12]  # token t=1, h=1, w=2
    by_hand = (net.project.weight * tubelet).sum((1, 2, 3, 4)) + net.project.bias
    torch.testing.assert_close(net(clip)[0, 1, 1, 2], by_hand)


def test_a_clip_that_does_not_tile_is_refused_with_the_sizes_that_do():
    with pytest.raises(ValueError, match=r"w=100 is not a multiple of 16; use w=96 or 112"):
        PatchEmbed(5, Grid(1, 16, 16))(random(1, 3, 2, 96, 100))
    with pytest.raises(ValueError, match=r"t=1 is not a multiple of 2; use t=2"):
        Grid(1, 4, 4).divide(Grid(2, 1, 1))


def test_mlp_is_two_linear_layers_with_the_exact_gelu():
    net, x = Mlp(4, 8), random(3, 4)
    gelu = net.up(x) * 0.5 * (1 + torch.erf(net.up(x) / 2**0.5))
    torch.testing.assert_close(net(x), net.down(gelu))


def test_drop_path_keeps_the_mean_and_sleeps_in_evaluation():
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(40_000, 1)
    kept = drop(x)
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert kept.mean().item() == pytest.approx(1, abs=0.02)
    assert drop(x.bfloat16()).dtype == torch.bfloat16  # autocast's branches stay small
    assert torch.equal(drop.eval()(x), x)


def test_drop_path_rates_rise_evenly_to_the_last_block():
    assert drop_path_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0]
    with pytest.raises(ValueError, match=r"\[0, 1\), not 1"):
        DropPath(1.0)


def test_vit_init_has_the_papers_spread():
    torch.manual_seed(0)
    layer = nn.Linear(400, 400)
    vit_init(layer)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02) and not layer.bias.any()


def test_xavier_init_keeps_the_variance_of_glorot_and_bengio():
    torch.manual_seed(0)
    layer = nn.Linear(300, 500)
    xavier_init(layer)
    assert layer.weight.var().item() == pytest.approx(2 / 800, rel=0.02) and not layer.bias.any()


def test_position_codes_tell_place_and_moment():
    space, time = SpaceEmbedding(2, 3, 4), TimeEmbedding(5, 4)
    nn.init.normal_(time.weight)
    x, cls = space(torch.zeros(1, 5, 2, 3, 4), torch.zeros(1, 1, 4))
    assert torch.equal(x[0, 4, 1, 2], space.weight[1, 2]) and torch.equal(cls[0, 0], space.cls)
    assert torch.equal((time(x) - x)[0, :, 1, 2], (x[0, :, 1, 2] + time.weight) - x[0, :, 1, 2])


def test_a_smooth_table_has_like_neighbours_and_distant_places_apart():
    """Against the correlation of the half cosines, summed by hand."""
    torch.manual_seed(0)
    table = smooth_table((8,), 4000, std=0.5)
    assert table.std().item() == pytest.approx(0.5) and torch.allclose(table.mean(dim=0), torch.zeros(4000), atol=1e-5)
    alike = torch.corrcoef(table)
    k, place = torch.arange(1, 8), torch.arange(8)[:, None] + 0.5
    waves = F.normalize(torch.cos(torch.pi * k * place / 8) / k, dim=1)
    torch.testing.assert_close(alike, waves @ waves.T, atol=0.06, rtol=0)
    assert alike.diagonal(1).min() > 0.3 and alike[0, 7] < -0.5


def test_a_smooth_table_adds_its_axes_and_one_place_alone_is_random():
    torch.manual_seed(0)
    table = smooth_table((2, 3, 4), 5)
    assert table.shape == (2, 3, 4, 5)
    rest = (
        table - table.mean((1, 2), keepdim=True) - table.mean((0, 2), keepdim=True) - table.mean((0, 1), keepdim=True)
    )
    assert rest.abs().max() < 1e-5  # mean 0, and nothing beside what each axis gives
    assert smooth_table((1, 1), 4000, std=0.5).std().item() == pytest.approx(0.5, rel=0.05)


def test_a_clip_of_another_length_or_size_is_refused_by_axis():
    with pytest.raises(ValueError, match="t=4 tokens, the network was built for t=5"):
        TimeEmbedding(5, 4)(torch.zeros(1, 4, 2, 3, 4))
    with pytest.raises(ValueError, match="h=3 tokens, the network was built for h=2"):
        SpaceEmbedding(2, 3, 4)(torch.zeros(1, 5, 3, 3, 4), torch.zeros(1, 1, 4))


def test_resized_codes_keep_their_course():
    ramp = torch.arange(4.0).view(4, 1)
    assert resize_time(ramp, 8, "nearest").flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert resize_time(ramp, 4).equal(ramp)
    place = torch.tensor([[0.0, 1.0], [2.0, 3.0]])[..., None]
    assert resize_space(place, Grid(1, 4, 4), "nearest")[0, :, 0].tolist() == [0, 0, 1, 1]
    assert resize_space(place, Grid(1, 1, 1)).item() == pytest.approx(1.5)


def test_i3d_a_still_video_gives_the_answer_of_the_image():
    flat, deep = nn.Conv2d(3, 5, 3, bias=False), nn.Conv3d(3, 5, 3, bias=False)
    deep.weight.data = inflate_conv(flat.weight.data, 3)
    image = random(1, 3, 8, 8)
    still = image[:, :, None].expand(-1, -1, 5, -1, -1)
    torch.testing.assert_close(deep(still)[:, :, 0], flat(image), atol=1e-6, rtol=1e-5)


def test_vivit_centre_inflation_reads_only_the_middle_frame():
    weight = inflate_conv(random(5, 3, 4, 4), 2, "centre")
    assert weight[:, :, 1].ne(0).all() and weight[:, :, 0].eq(0).all()


def test_wrong_inflation_is_refused():
    with pytest.raises(ValueError, match="at least one frame, not 0"):
        inflate_conv(random(1, 1, 2, 2), 0)


def test_image_weights_report_what_was_loaded_fresh_and_left_over():
    net = nn.ModuleDict({"a": nn.Conv3d(1, 2, (2, 3, 3)), "b": nn.Linear(2, 2)})
    kernel = random(2, 1, 3, 3)
    report = load_image_weights(
        net, {"stem": kernel, "a.bias": torch.ones(2), "head": torch.ones(1)}, [("a.weight", "stem", None)]
    )
    assert report.loaded == ("a.weight", "a.bias")
    assert report.fresh == ("b.weight", "b.bias") and report.left_over == ("head",)
    assert torch.equal(net["a"].weight[:, :, 0], kernel / 2)


def test_image_weights_that_do_not_fit_are_named_and_nothing_is_loaded():
    net = nn.Linear(2, 2)
    before = net.weight.clone()
    with pytest.raises(ValueError, match=r"bias: needs \(2,\), bias has \(3,\)"):
        load_image_weights(net, {"weight": torch.ones(2, 2), "bias": torch.ones(3)}, {})
    assert torch.equal(net.weight, before)


def test_a_setting_that_nobody_knows_gets_the_nearest_name_and_the_list():
    one_of("join", "t_conv", ("none", "t_conv"))
    with pytest.raises(ValueError, match=r"^unknown join 't_con': did you mean 't_conv'\? There are none, t_conv$"):
        one_of("join", "t_con", ("none", "t_conv"))
    with pytest.raises(ValueError, match=r"^unknown model 5: There are 1, 2$"):
        one_of("model", 5, {1: "a", 2: "b"})


def test_what_has_no_blocks_cannot_compute_them_twice():
    with pytest.raises(ValueError, match="Linear has no blocks that can be computed twice"):
        recompute(torch.nn.Linear(2, 2))
