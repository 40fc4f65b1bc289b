"""MViT, both versions: what the papers and the released code say of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import test_networks as promises
import torch
from torch import nn

from course_lib.analysis.cost import cost
from course_lib.analysis.reach import reach
from course_lib.grid import Grid
from course_lib.layers.attention import record_attention
from course_lib.layers.relative import distances
from course_lib.layers.schemes import PooledKeys, Pooling
from course_lib.models import build
from course_lib.models.mvit import POSITIONS, V2, VARIANTS, VIT, MViTConfig, Pool, PooledAttention
from course_lib.official import SOURCES, load

RECORDS = Path(__file__).parent / "reference"
PUBLISHED = {  # million parameters, billion multiply-adds of one view
    "mvit_b_16x4": (36.6, 70.5),
    "mvit_b_32x3": (36.6, 170),
    "mvit_b24_32x3": (52.9, 236),
    "mvitv2_s_16x4": (34.5, 64),
    "mvitv2_b_32x3": (51.2, 225),
    "mvitv2_l_40x3": (213.4, 2828),  # printed: 217.6 M, which is not what the released config builds
}
BOTH = ("mvit_tiny", "mvitv2_tiny")
VERSION_2 = [
    ("mvitv2_tiny", {}),
    ("mvitv2_tiny", {"size": 40}),  # token grids of 10, 5 and 3: tables of 2 x 2 - 1 rows are stretched to 5
    ("mvitv2_tiny", {"positions": "relative_time"}),
    ("mvitv2_tiny", {"positions": "relative_space"}),
    ("mvitv2_tiny", {"positions": "separate"}),
    ("mvitv2_tiny", {"pooling": "max"}),
    ("mvitv2_tiny", {"pooling": "average"}),
    ("mvitv2_tiny", {"pool_residual": False}),
    ("mvitv2_tiny", {"pool_queries": False}),
    ("mvitv2_tiny", {"kernel": None}),
]
each_of_version_2 = pytest.mark.parametrize(("name", "changes"), VERSION_2, ids=str)
each_version = pytest.mark.parametrize("name", BOTH)


def on_paper(name: str, **changes: object) -> nn.Module:
    with torch.device("meta"):
        return build(name, **changes)


def counted(name: str, **changes: object) -> tuple[float, float]:
    net = on_paper(name, **changes)
    found = cost(net, (1, 3, *net.config.clip))
    return found.parameters / 1e6, found.macs / 1e9


def tiny(name: str = "mvitv2_tiny", **changes: object) -> nn.Module:
    """In double precision; all its numbers random, so that every part counts."""
    torch.manual_seed(0)
    net = build(name, **{"size": 32, **changes}).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.3)
    return net


def clip(net: nn.Module, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, *net.config.clip, generator=torch.Generator().manual_seed(3)).to(net.cls.dtype)


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_parameters_and_multiply_adds_are_the_published_ones(name, published):
    assert counted(name) == pytest.approx(published, rel=0.01)


def test_the_small_clip_of_version_2_costs_what_the_released_code_counts():
    millions, gmacs = counted("mvitv2_s_16x4", frames=8, size=104)
    assert (round(millions, 3), round(gmacs, 3)) == (34.464, 6.467)


@pytest.mark.parametrize(
    ("positions", "millions"), [("none", 36.2), ("space", 36.5), ("joint", 38.6), ("separate", 36.5)]
)
def test_codes_have_as_many_parameters_as_table_11_says(positions, millions):
    """There the pooling takes the maximum and has none of its own."""
    assert counted("mvit_b_16x4", positions=positions, pooling="max", kernel=None)[0] == pytest.approx(
        millions, abs=0.06
    )


@pytest.mark.parametrize(("pooling", "millions"), [("max", 36.5), ("average", 36.5), ("conv", 36.6)])
def test_poolings_have_as_many_parameters_as_table_15_says(pooling, millions):
    assert counted("mvit_b_16x4", pooling=pooling, kernel=None)[0] == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(
    ("positions", "millions"),
    [("none", 34.4), ("separate", 34.7), ("relative_time", 34.4), ("relative_space", 34.5), ("relative", 34.5)],
)
def test_relative_positions_have_as_many_parameters_as_table_a6_says(positions, millions):
    assert counted("mvitv2_s_16x4", positions=positions)[0] == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(
    ("queries", "residual", "gmacs"), [(False, False, 64), (True, False, 65), (False, True, 64), (True, True, 65)]
)
def test_pooling_queries_costs_what_table_a7_says(queries, residual, gmacs):
    assert counted("mvitv2_s_16x4", pool_queries=queries, pool_residual=residual)[1] == pytest.approx(gmacs, rel=0.015)


def test_the_plain_vit_of_the_paper_is_one_scale_without_pooling_and_with_a_code_for_every_token():
    """Table 2a and 4: 87.2 M, 179.6 G at 8 frames; codes for places and times apart would be a million fewer."""
    found = counted("mvit_b_16x4", frames=8, positions="joint", **VIT)
    assert (round(found[0], 1), round(found[1], 1)) == (87.2, 179.6)
    assert counted("mvit_b_16x4", frames=8, **VIT)[0] == pytest.approx(86.1, abs=0.05)
    net = on_paper("mvit_b_16x4", frames=8, **VIT)
    assert len(net.blocks) == 12 and not any(isinstance(part, Pool) for part in net.modules())
    assert net.patch_embed.padding == (0, 0, 0) and net.config.grid == (8, 14, 14)


@pytest.mark.parametrize(
    ("cube", "step", "seen"),
    [((3, 7, 7), (2, 4, 4), [3, 4, 5]), ((1, 7, 7), (2, 4, 4), [4]), ((3, 16, 16), (1, 16, 16), [1, 2, 3])],
)
def test_a_cube_holds_the_frames_around_its_own_and_no_other(cube, step, seen):
    net = tiny("mvit_tiny", cube=cube, cube_stride=step, size=64, depths=(1,))
    frames = clip(net).requires_grad_()
    tokens = net.patch_embed(frames)
    assert tokens.shape[2:] == net.config.grid
    tokens[:, :, 2].square().sum().backward()  # those of the third step
    assert frames.grad.abs().sum((0, 1, 3, 4)).nonzero().flatten().tolist() == seen


def test_the_mean_with_a_norm_is_the_mean_then_the_norm_of_conv():
    pooling = Pooling(Grid(1, 3, 3), Grid(1, 2, 2))
    plain, normed = (Pool(6, kind, Grid(2, 4, 4), pooling) for kind in ("average", "average_norm"))
    x = torch.randn(2, 3, 33, 6)
    torch.testing.assert_close(normed(x), nn.functional.layer_norm(plain(x), (6,), eps=1e-6))
    assert normed.norm.eps == Pool(6, "conv", Grid(2, 4, 4), pooling).norm.eps


# blocks, grid, width, heads, stride of the keys
SCALES = {
    "mvit_b_16x4": [
        (1, (8, 56, 56), 96, 1, 8),
        (2, (8, 28, 28), 192, 2, 4),
        (11, (8, 14, 14), 384, 4, 2),
        (2, (8, 7, 7), 768, 8, 1),
    ],
    "mvitv2_l_40x3": [
        (2, (20, 78, 78), 144, 2, 8),
        (6, (20, 39, 39), 288, 4, 4),
        (36, (20, 20, 20), 576, 8, 2),
        (4, (20, 10, 10), 1152, 16, 1),
    ],
}


@pytest.mark.parametrize(("name", "table"), SCALES.items())
def test_scales_are_those_of_the_tables(name, table):
    assert [tuple(scale) for scale in VARIANTS[name].scales] == table


def test_queries_and_keys_of_every_block_have_the_released_grids():
    blocks = on_paper("mvit_b_16x4").blocks
    grids = [(b.attention.scheme.queries.shrink(b.grid).h, b.attention.scheme.keys.shrink(b.grid).h) for b in blocks]
    assert grids == [(56, 7), (28, 14), (28, 7), (14, 14), *[(14, 7)] * 10, (7, 14), (7, 7)]


def widths(name: str) -> list[tuple[int, int, int]]:
    return [(b.attention.qkv.in_features, b.attention.out.out_features, b.mlp.down.out_features) for b in
            on_paper(name).blocks]  # fmt: skip


def test_version_1_widens_in_the_last_mlp_of_a_scale_and_version_2_in_the_first_attention_of_the_next():
    middle = [(384, 384, 384)] * 10
    assert widths("mvit_b_16x4") == [
        (96, 96, 192), (192, 192, 192), (192, 192, 384), *middle, (384, 384, 768), *[(768, 768, 768)] * 2]  # fmt: skip
    assert widths("mvitv2_s_16x4") == [
        (96, 96, 96), (96, 192, 192), (192, 192, 192), (192, 384, 384), *middle, (384, 768, 768), (768, 768, 768),
    ]  # fmt: skip


def test_version_1_pools_queries_where_a_scale_begins_and_version_2_everywhere():
    pooled = {name: [i for i, b in enumerate(on_paper(name).blocks) if "q" in b.attention.pools]
              for name in ("mvit_b_16x4", "mvitv2_s_16x4")}  # fmt: skip
    assert pooled == {"mvit_b_16x4": [1, 3, 14], "mvitv2_s_16x4": list(range(16))}


def test_keys_are_pooled_in_every_block_even_without_a_stride_but_not_by_the_older_rule_of_the_24_blocks():
    pools = [b.attention.pools for b in on_paper("mvit_b_16x4").blocks]
    assert all(p["k"].pool.kernel_size == p["v"].pool.kernel_size == (3, 3, 3) for p in pools)
    assert pools[15]["k"].pool.stride == (1, 1, 1)
    pools = [b.attention.pools for b in on_paper("mvit_b24_32x3").blocks]
    kernels = [p["k"].pool.kernel_size if "k" in p else None for p in pools]
    first = [(1, 9, 9)] * 2 + [(1, 5, 5)] * 3 + [(1, 3, 3)] * 16
    assert kernels == [*first, None, None, None]
    assert pools[2]["q"].pool.kernel_size == (1, 3, 3)


def test_version_2_is_version_1_with_four_other_settings():
    assert set(V2) == {"positions", "pool_queries", "pool_residual", "widen"}
    assert VARIANTS["mvitv2_s_16x4"] == MViTConfig(**V2) and VARIANTS["mvit_b_16x4"] == MViTConfig()


def test_version_2_has_no_absolute_positions_and_three_tables_in_every_block():
    names = on_paper("mvitv2_s_16x4").state_dict()
    assert not [name for name in names if "pos_embed" in name or "time_embed" in name]
    rows = {axis: [len(names[f"blocks.{i}.attention.relative.tables.{axis}"]) for i in range(16)] for axis in "thw"}
    assert rows["t"] == [15] * 16 and rows["h"] == rows["w"] == [111, *[55] * 2, *[27] * 11, 27, 13]


def test_tables_have_the_lengths_of_grids_rounded_down():
    """From block 8 on 39 rows would be needed, at the end 19: the released tables are stretched at every run."""
    names = on_paper("mvitv2_l_40x3").state_dict()
    rows = [len(names[f"blocks.{i}.attention.relative.tables.h"]) for i in range(48)]
    assert rows == [155] * 2 + [77] * 6 + [37] * 37 + [17] * 3


def test_every_norm_has_the_released_epsilon():
    for name in ("mvit_b_16x4", "mvitv2_s_16x4"):
        norms = [part for part in on_paper(name).modules() if isinstance(part, nn.LayerNorm)]
        assert len(norms) > 64 and {norm.eps for norm in norms} == {1e-6}


def test_the_released_start_has_small_weights_and_biases_that_are_not_zero():
    net = build("mvitv2_tiny", scratch=False)
    assert all((part.bias == 0.02).all() for part in net.modules() if isinstance(part, nn.Linear | nn.LayerNorm))
    assert all((part.weight == 1).all() for part in net.modules() if isinstance(part, nn.LayerNorm))
    assert net.blocks[3].mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert net.patch_embed.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("name", "rate"), [("mvit_b_16x4", 0.2), ("mvit_b24_32x3", 0.3), ("mvitv2_b_32x3", 0.3), ("mvitv2_l_40x3", 0.75)]
)
def test_drop_path_grows_to_the_released_rate(name, rate):
    net = on_paper(name)
    assert net.blocks[0].drop_path.rate == 0 and net.blocks[-1].drop_path.rate == pytest.approx(rate)
    assert net.dropout.p == 0.5


@each_version
def test_the_class_token_shares_the_norm_but_not_the_kernel(name):
    pool = tiny(name).blocks[1].attention.pools["q"]
    assert isinstance(pool, Pool)
    x = torch.randn(2, 2, 1 + pool.grid.size, 40).double()
    y = pool(x)
    torch.testing.assert_close(y[:, :, 0], pool.norm(x[:, :, 0]))
    assert not torch.allclose(y[:, :, 1], pool.norm(x[:, :, 1]))
    other = torch.cat([x[:, :, :1] + 1, x[:, :, 1:]], dim=2)
    assert torch.equal(pool(other)[:, :, 1:], y[:, :, 1:])


def test_all_heads_share_a_pooling_kernel():
    pool = tiny().blocks[3].attention.pools["k"]
    x = torch.randn(1, 1, 1 + pool.grid.size, 40).double().expand(-1, 4, -1, -1)
    y = pool(x)
    assert pool.pool.weight.shape == (40, 1, 3, 3, 3) and all(y[:, 0].allclose(y[:, head]) for head in range(4))


def test_the_residual_adds_the_pooled_query_to_all_but_the_class_token():
    attention = tiny().blocks[1].attention
    x = torch.randn(1, 1 + 4 * 8 * 8, 40).double()
    attention.out = nn.Identity()
    z = attention(x)
    attention.pool_residual = False
    q = attention.qkv(x).unflatten(-1, (3, 2, 40))[:, :, 0].transpose(1, 2)
    added = attention.pools["q"](q).transpose(1, 2).flatten(2)
    added[:, 0] = 0
    torch.testing.assert_close(z, attention(x) + added)


def test_a_skip_that_widens_starts_from_what_is_normed():
    """In version 1 before the MLP, in version 2 before the attention."""
    for name, block in (("mvit_tiny", 2), ("mvitv2_tiny", 1)):
        part = tiny(name).blocks[block]
        assert part.widen is not None and part.widen_first == (name == "mvitv2_tiny")
        seen = []
        part.widen.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0]))
        normed = []
        norm = part.norm if part.widen_first else part.norm_mlp
        norm.register_forward_hook(lambda module, inputs, output, normed=normed: normed.append(output))
        part(torch.randn(1, 1 + part.grid.size, part.norm.normalized_shape[0]).double())
        assert seen[0] is normed[0]


def test_the_skip_takes_the_greatest_of_3_by_3_neighbours_where_a_scale_begins():
    for name in ("mvit_b_16x4", "mvitv2_s_16x4"):
        pools = {i: b.pool for i, b in enumerate(on_paper(name).blocks) if b.pool is not None}
        assert list(pools) == [1, 3, 14]
        assert {(tuple(p.kernel_size), tuple(p.stride), tuple(p.padding)) for p in pools.values()} == {
            ((1, 3, 3), (1, 2, 2), (0, 1, 1))
        }


def test_distances_drawn_by_hand():
    assert distances(3, 3).tolist() == [[2, 1, 0], [3, 2, 1], [4, 3, 2]]
    assert distances(4, 2).tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]]
    assert distances(2, 4).tolist() == [[3, 2, 1, 0], [5, 4, 3, 2]]
    assert distances(3, 2).tolist() == [[1, 0], [2, 1], [3, 2]]  # steps of 1.5, cut off: 1.5 2.5 3.5


def relative_scores(attention: PooledAttention, q: torch.Tensor) -> torch.Tensor:
    """The bias, query by query and key by key."""
    grid, keys = attention.relative.queries, attention.scheme.keys.shrink((4, 8, 8))
    bias = torch.zeros(*q.shape[:2], q.shape[2], 1 + keys.size, dtype=q.dtype)
    for i in range(grid.size):
        for j in range(keys.size):
            at, to = (torch.unravel_index(torch.tensor(n), g) for n, g in ((i, grid), (j, keys)))
            for axis, a, b, n, m in zip("thw", at, to, grid, keys, strict=True):
                row = attention.relative.tables[axis][distances(n, m)[a, b]]
                bias[:, :, 1 + i, 1 + j] += q[:, :, 1 + i] @ row
    return bias


def test_the_bias_is_the_query_times_the_rows_of_its_three_distances():
    attention = tiny().blocks[1].attention
    q = torch.randn(2, 2, 1 + 4 * 4 * 4, 40).double()
    torch.testing.assert_close(attention.relative.bias(q), relative_scores(attention, q))


def test_longer_vectors_without_a_bias_are_attention_with_the_bias():
    attention = tiny().blocks[1].attention
    q, k, v = (torch.randn(2, 2, 1 + n, 40).double() for n in (64, 64, 64))
    longer = attention.relative.lengthen(q, k, v)
    assert {x.shape[-1] % 8 for x in longer} == {0}
    with_bias = attention.mix(q, k, v, bias=attention.relative.bias(q))
    torch.testing.assert_close(attention.mix(*longer)[..., :40], with_bias)


def test_a_table_of_another_length_is_stretched_linearly():
    attention = tiny(size=40).blocks[4].attention  # queries and keys on 3 x 3, tables for 2 x 2
    assert attention.relative.tables["h"].shape[0] == 3 and attention.relative.distances_h.max() == 4
    for table in attention.relative.tables.values():
        table.data.zero_()
    attention.relative.tables["h"].data[:] = torch.tensor([0.0, 1, 2])[:, None]
    q = torch.ones(1, 4, 1 + 4 * 3 * 3, 40).double()
    found = attention.relative(q)[0, 0, 1:].view(4, 3, 3, -1)[0, :, 0, 4:7] / 40
    rows = torch.tensor([0, 0.4, 1, 1.6, 2], dtype=torch.double)
    torch.testing.assert_close(found, rows[distances(3, 3)], atol=1e-12, rtol=0)


def test_the_last_blocks_tables_do_not_touch_the_logits():
    """Only the class token is read there, and it has no bias: a mistake in them would not show in any logit."""
    net = tiny()
    x = clip(net)
    before = net(x)
    for table in net.blocks[-1].attention.relative.tables.values():
        nn.init.normal_(table, std=5.0)
    assert torch.equal(net(x), before)
    nn.init.normal_(net.blocks[-2].attention.relative.tables["h"], std=5.0)
    assert (net(x) - before).abs().max() > 1e-6


@each_of_version_2
def test_every_parameter_gets_a_gradient_but_those_of_other_queries_than_the_class_tokens_in_the_last_block(
    name, changes
):
    net = promises.small(name, **changes)
    net(torch.randn(promises.clip_shape(net, 2))).square().sum().backward()
    dead = {key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    last = f"blocks.{len(net.blocks) - 1}.attention."
    silent = (last + "pools.q.pool.", last + "relative.")
    assert dead == {key for key, _ in net.named_parameters() if key.startswith(silent)}


@each_of_version_2
def test_version_2_learns_two_clips_by_heart_and_keeps_them_apart(name, changes):
    promises.test_every_variant_learns_two_clips_by_heart(name, changes)
    promises.test_evaluation_is_deterministic_and_does_not_mix_clips(name, changes)
    promises.test_bf16_and_channels_last_give_the_same_top_1_on_64_clips(name, changes)


@pytest.mark.parametrize("positions", POSITIONS)
@each_version
def test_recorded_attention_gives_the_same_logits(name, positions):
    net = tiny(name, positions=positions)
    x = clip(net)
    with torch.no_grad(), record_attention(net) as weights:
        recorded = net(x)
    torch.testing.assert_close(net(x), recorded)
    assert [w[0].shape for w in weights.values()] == [
        (1, b.attention.heads, 1 + b.attention.scheme.queries.shrink(b.grid).size,
         1 + b.attention.scheme.keys.shrink(b.grid).size) for b in net.blocks]  # fmt: skip
    for matrix in weights.values():
        torch.testing.assert_close(matrix[0].sum(-1), torch.ones_like(matrix[0][..., 0]))


@each_version
def test_training_drops_paths_and_activations(name):
    net = build(name, size=32, drop_path=0.5, dropout=0.5).train()
    x = clip(net, 2)
    assert not net(x).equal(net(x))
    assert net.eval()(x).equal(net(x))


@each_version
def test_the_order_of_frames_matters(name):
    net = tiny(name)
    x = clip(net)
    assert (net(x) - net(x.flip(2))).abs().max() > 1e-6


# -- the scheme


def picture(mask) -> list[str]:
    return ["".join("#" if seen else "." for seen in row) for row in mask.tolist()]


def row_of(kernel: int, stride: int) -> Pooling:
    return Pooling(Grid(1, 1, kernel), Grid(1, 1, stride))


DRAWINGS = [  # queries, keys, the mask of 8 tokens in a row
    (row_of(1, 1), row_of(3, 4), ["##.###..", "##.###..", "######..", *["##.###.."] * 3, "##.####.", "##.###.#"]),
    (row_of(3, 2), row_of(3, 4), ["##.###..", "######..", "##.###..", "##.#####"]),
    (row_of(1, 1), row_of(5, 4), ["#######."] * 7 + ["########"]),
    (row_of(3, 4), row_of(1, 1), ["########"] * 2),
]  # fmt: skip


@pytest.mark.parametrize(("queries", "keys", "drawn"), DRAWINGS)
def test_the_mask_is_the_one_drawn_by_hand(queries, keys, drawn):
    assert picture(PooledKeys(queries, keys).mask((1, 1, 8))) == drawn


def cube(kernel: int, stride: int) -> Pooling:
    return Pooling(Grid(*[kernel] * 3), Grid(1, stride, stride))


@pytest.mark.parametrize("changes", [{}, V2], ids=["version 1", "version 2"])
@pytest.mark.parametrize(
    "scheme",
    [
        PooledKeys(cube(1, 1), cube(3, 4)),
        PooledKeys(cube(3, 2), cube(3, 4)),
        PooledKeys(cube(3, 1), cube(1, 4)),
        PooledKeys(cube(3, 2), Pooling(Grid(1, 5, 5), Grid(1, 4, 4))),
        *[PooledKeys(queries, keys) for queries, keys, _ in DRAWINGS],
    ],
    ids=lambda scheme: scheme.name,
)
def test_the_mask_is_what_gradients_reach(scheme, changes):
    torch.manual_seed(0)
    grid = Grid(2, 6, 7)
    queries = scheme.queries.shrink(grid)
    table = Grid(*(max(n, m) for n, m in zip(queries, scheme.keys.shrink(grid), strict=True)))
    c = MViTConfig(**changes)
    plain = c.pooling, POSITIONS[c.positions], c.pool_residual
    attention = PooledAttention(8, 8, 2, grid, scheme, table, *plain).double().eval()
    places = scheme.queries.stride

    def layer(x: torch.Tensor) -> torch.Tensor:
        """Every query back at the token in the middle of its box, so that reach gets as many as it gave."""
        y = attention(torch.cat([torch.ones_like(x[:, :1, 0, 0]), x.flatten(1, 3)], dim=1))
        spread = torch.zeros_like(x)
        spread[:, :: places.t, :: places.h, :: places.w] = y[:, 1:].unflatten(1, queries)
        return spread

    found = reach(layer, grid).view(*grid, -1)[:: places.t, :: places.h, :: places.w].flatten(0, 2)
    assert torch.equal(found, scheme.mask(grid))


def test_at_the_first_scale_of_mvit_b_an_eighth_of_the_tokens_is_in_any_key():
    """A kernel of 3 at a stride of 8: 20 of 56 rows and columns."""
    scheme = on_paper("mvit_b_16x4").blocks[0].attention.scheme
    grid = Grid(8, 56, 56)
    assert scheme.keys.reads(grid).any(0).float().mean().item() == pytest.approx((20 / 56) ** 2)
    assert scheme.computed(grid) == 8 * 56 * 56 * 8 * 7 * 7


# -- released formats


def official(name: str, source: str, **changes: object) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A checkpoint under the names of `source`, and the network it was taken from."""
    net, state = tiny(name, **changes), {}
    ours = net.state_dict()
    for key, names, _ in SOURCES[source](net):
        if isinstance(names, tuple):
            state.update(zip(names, ours[key].chunk(len(names)), strict=True))
        else:
            state[names] = ours[key]
    return net, state


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("mvit_tiny", "pyslowfast"),
        ("mvit_tiny", "torchvision"),
        ("mvit_tiny", "pytorchvideo"),
        ("mvitv2_tiny", "pyslowfast"),
        ("mvitv2_tiny", "torchvision"),
    ],
)
def test_formats_are_strict_both_ways_and_change_nothing_when_they_refuse(name, source):
    net, state = official(name, source)
    fresh = build(name, size=32).double()
    load(fresh, state, source)
    assert all(a.equal(b) for a, b in zip(fresh.parameters(), net.parameters(), strict=True))
    before = {key: tensor.clone() for key, tensor in fresh.state_dict().items()}
    first = next(iter(state))
    second = next(key for key in state if "attn" in key)
    broken = {**state, "extra.weight": torch.zeros(2), second: torch.zeros(1, 2, 3)}
    del broken[first]
    with pytest.raises(ValueError) as caught:
        load(fresh, broken, source)
    for line in (f"missing: {first}", "unexpected: extra.weight", f"{second} (1, 2, 3)"):
        assert line in str(caught.value)
    assert all(tensor.equal(before[key]) for key, tensor in fresh.state_dict().items())


def test_pools_that_pytorchvideo_registers_twice_are_left_over_if_equal_and_refused_if_not():
    _, state = official("mvit_tiny", "pytorchvideo")
    second = {}
    for key, tensor in state.items():
        for part in ("pool", "norm"):
            for z in "qkv":
                if f".attn.{part}_{z}." in key:
                    second[key.replace(f"{part}_{z}.", f"_attention_pool_{z}.{part}.")] = tensor.clone()
    assert "blocks.0.attn._attention_pool_k.pool.weight" in second and len(second) == 36
    fresh = build("mvit_tiny", size=32).double()
    report = load(fresh, {**state, **second}, "pytorchvideo")
    assert set(report.left_over) == set(second)
    second["blocks.0.attn._attention_pool_k.norm.bias"] += 1e-6
    with pytest.raises(ValueError, match=r"unexpected: blocks\.0\.attn\._attention_pool_k\.norm\.bias"):
        load(fresh, {**state, **second}, "pytorchvideo")
    with pytest.raises(ValueError, match=r"unexpected: blocks\.9\.attn\._attention_pool_q\.pool\.weight"):
        load(fresh, {**state, "blocks.9.attn._attention_pool_q.pool.weight": torch.ones(1)}, "pytorchvideo")


def test_three_linear_layers_of_unequal_size_are_not_joined():
    net, state = official("mvit_tiny", "pytorchvideo")
    q, k = "blocks.0.attn.q.weight", "blocks.0.attn.k.weight"
    state[q], state[k] = state[q][:-1], torch.cat([state[k], state[k][:1]])
    with pytest.raises(ValueError, match=r"misshapen: blocks\.0\.attn\.q\.weight \(39, 40\)"):
        load(net, state, "pytorchvideo")


@pytest.mark.parametrize(
    ("name", "changes", "source", "message"),
    [
        ("mvitv2_tiny", {}, "pytorchvideo", "released version 1 of MViT"),
        ("mvit_tiny", {"pooling": "max"}, "pyslowfast", "no pyslowfast checkpoint with pooling='max'"),
        ("mvit_tiny", {"positions": "joint"}, "torchvision", "no torchvision checkpoint with positions='joint'"),
        ("mvitv2_tiny", {"positions": "relative_time"}, "pyslowfast", "there is separate and relative"),
        ("mvit_tiny", {}, "timesformer", "no timesformer format is known"),
    ],
)
def test_settings_that_were_never_released_have_no_format(name, changes, source, message):
    with pytest.raises(ValueError, match=message):
        load(on_paper(name, **changes), {}, source)


# -- limits


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "relativ"}, "unknown positions 'relativ': did you mean 'relative'"),
        ({"pooling": "avg"}, "unknown pooling 'avg'.*There are conv, max, average"),
        ({"widen": "norm"}, "unknown widen 'norm'.*mlp, attention"),
        ({"frames": 7}, "t=7 is not a multiple of 2; use t=6 or 8"),
        ({"size": 62}, "h=62 is not a multiple of 4"),
        ({"cube": (4, 7, 7)}, r"cubes that overlap need an odd length: t=4 of cube=\(4, 7, 7\), use 5"),
        ({"dim": 41, "heads": 2}, "dim=41 does not split into heads=2"),
        ({"depths": (1, 0, 2)}, r"every scale needs a block: depths=\(1, 0, 2\)"),
        ({"depth": 4}, "no setting 'depth': did you mean 'depths'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build("mvit_tiny", **changes)


@each_version
def test_a_clip_longer_or_larger_than_built_for_is_refused(name):
    net = build(name)
    with pytest.raises(ValueError, match="t=2 tokens, the network was built for t=4"):
        net(torch.zeros(1, 3, 4, 64, 64))
    with pytest.raises(ValueError, match="h=20 tokens, the network was built for h=16"):
        net(torch.zeros(1, 3, 8, 80, 64))


def alone(code: str) -> str:
    """Run in a process of its own, where no shapes are checked."""
    run = subprocess.run([sys.executable, "-c", code], cwd=RECORDS.parent, capture_output=True, text=True, check=True)
    return run.stdout


LARGEST = """
import torch
from course_lib.models import build
with torch.device("meta"):
    attention = build("mvitv2_l_40x3").blocks[2].attention
from course_lib.models.mvit import POSITIONS, VARIANTS, PooledAttention
c = VARIANTS["mvitv2_l_40x3"]
plain = c.pooling, POSITIONS[c.positions], c.pool_residual
attention = PooledAttention(144, 288, 4, c.grid, attention.scheme, c.grid, *plain)
with torch.inference_mode():
    attention(torch.randn(1, 1 + c.grid.size, 144))
# not ru_maxrss, which begins with the peak of the process that started this one
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak)
"""


def test_no_matrix_of_queries_and_keys_is_ever_held():
    """The largest attention of MViTv2-L: 4 heads x 30421 x 8001 scores would be 3.9 GB."""
    assert int(alone(LARGEST)) / 2**20 < 1.8


COMPILED = """
import torch
from course_lib.models import build
for name in ("mvit_tiny", "mvitv2_tiny"):
    net, clip = build(name).eval(), torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(net, backend="eager", fullgraph=True)(clip), net(clip))
print("whole")
"""


def test_the_networks_compile_into_one_graph():
    assert alone(COMPILED) == "whole\n"
