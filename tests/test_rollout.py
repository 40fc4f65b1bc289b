"""Rollout, gradients of a unit, and hiding: pictures of several layers, and whether they mean anything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.analysis.gradients import USED, used
from course_lib.analysis.hiding import drops, hide
from course_lib.analysis.layers import layer_masks
from course_lib.analysis.relations import Call, Relation, Weights
from course_lib.analysis.rollout import rollout, whole_block
from course_lib.analysis.tokens import shares
from course_lib.analysis.weights import KEPT, layer_weights
from course_lib.grid import Grid
from course_lib.models import build


def chain(name: str, seed: int = 0, **changes) -> list[Relation]:
    torch.manual_seed(seed)
    net = build(name, size=32, classes=3, **changes).eval()
    maps = layer_weights(net, torch.randn(1, 3, *net.config.clip))
    return [maps.get(layer.name, layer) for layer in layer_masks(net) if layer.name != "patch embed"]


def rows(part, queries: int) -> np.ndarray:
    return np.stack([part.row(query).mean(0) for query in range(queries)]).astype(float)


def of(found: Relation) -> np.ndarray:
    (part,) = found.parts.values()
    return rows(part, found.queries.size)


def means(reads, queries: int) -> np.ndarray:
    """Each row of a mask in equal parts."""
    mask = np.stack([reads.row(query) for query in range(queries)]).astype(float)
    return mask / mask.sum(1, keepdims=True)


def test_rollout_is_the_product_of_maps_with_the_skip():
    """Abnar and Zuidema's formula, every matrix written out: A' = (A + I) / 2, the later layer first."""
    layers = chain("timesformer_tiny", attention="joint", depth=3)
    product = np.eye(33)
    for layer in layers:
        product = (rows(layer.parts["joint"], 33) + np.eye(33)) / 2 @ product
    np.testing.assert_allclose(of(rollout(layers)), product, atol=1e-6)


def test_a_class_token_that_sits_a_layer_out_stays_what_it_is():
    time, space = (layer for layer in chain("timesformer_tiny", depth=1))
    t, s = rows(time.parts["time"], 33), rows(space.parts["space"], 33)
    t[32, 32] = 1
    want = (s + np.eye(33)) / 2 @ ((t + np.eye(33)) / 2)
    np.testing.assert_allclose(of(whole_block([time, space], "block 1")), want, atol=1e-6)


def test_vidtr_adds_nothing_between_time_and_space():
    layers = chain("vidtr_tiny", depth=1)
    time, space = (rows(next(iter(layer.parts.values())), layer.queries.size) for layer in layers)
    np.testing.assert_allclose(of(rollout(layers)), (space @ time + np.eye(len(time))) / 2, atol=1e-6)


def test_the_halves_of_the_heads_count_alike():
    (layer,) = chain("vivit_tiny", model=4, pool="gap", depth=1)
    both = sum(rows(part, 16) for part in layer.parts.values()) / 2
    np.testing.assert_allclose(of(rollout([layer])), (both + np.eye(16)) / 2, atol=1e-6)


def test_pooled_keys_and_queries_are_linear_maps():
    for layer in chain("mvit_tiny")[:2]:
        weights = rows(layer.parts["joint"], layer.queries.size)
        keys, queries = means(layer.of_keys, layer.keys.size), means(layer.of_queries, layer.queries.size)
        np.testing.assert_allclose(of(rollout([layer])), (weights @ keys + queries) / 2, atol=1e-6)


def test_merged_patches_are_the_mean_of_four():
    layers = chain("video_swin_tiny", depths=(1, 1), heads=(2, 4))
    before, merging, after = layers
    assert merging.name == "stage 2 merging"
    one, two = ((rows(x.parts["windows"], x.queries.size) + np.eye(x.queries.size)) / 2 for x in (before, after))
    merge = np.zeros((64, 256))
    for t, h, w, i, j in np.ndindex(4, 4, 4, 2, 2):
        merge[(t * 4 + h) * 4 + w, (t * 8 + 2 * h + i) * 8 + 2 * w + j] = 0.25
    np.testing.assert_allclose(of(rollout(layers)), two @ merge @ one, atol=1e-6)


def test_frames_that_were_kept_go_over_the_skip():
    layers = [layer for layer in chain("cvidtr_tiny") if layer.block == "block 2"]
    time, space = layers
    kept, t, s = (rows(time.parts[KEPT], 17), rows(time.parts["time"], 17), rows(space.parts["space"], 17))
    want = (s @ t + kept) / 2
    want[16] = np.eye(33)[32]  # the class token attends to nothing
    np.testing.assert_allclose(of(rollout(layers)), want, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("timesformer_tiny", {}), ("vidtr_tiny", {}), ("cvidtr_tiny", {}), ("cvidtr_tiny", {"pool": "conv"}),
     ("mvit_tiny", {}), ("mvitv2_tiny", {}), ("video_swin_tiny", {}), ("vivit_tiny", {"model": 2, "pool": "gap"})],
)  # fmt: skip
def test_rows_of_a_whole_network_add_up_to_one(name, changes):
    found = rollout(chain(name, **changes))
    (part,) = found.parts.values()
    for query in (0, found.queries.size // 2, found.queries.size - 1):
        assert part.row(query).shape == (1, found.keys.size) and (part.row(query) >= 0).all()
        assert part.row(query).sum() == pytest.approx(1, abs=1e-5)


def test_what_a_fresh_class_token_holds_comes_from_no_patch():
    """The class token of ViViT's second encoder is learned: what it keeps of itself is no clip's."""
    layers = chain("vivit_tiny", model=2, depth=1)
    frames, time = layers[1], layers[2]
    assert (frames.name, time.block) == ("frames", "time encoder block 1")
    paid = time.parts["time"].row(4).mean(0)
    assert of(rollout(layers))[4].sum() == pytest.approx(paid[:4].sum() / 2, abs=1e-6)


def test_rollout_follows_shares_and_no_gaps():
    layers = chain("video_swin_tiny")
    with pytest.raises(ValueError, match="'stage 2 block 1 windows' does not take the tokens that 'stage 1 block 2"):
        rollout([layer for layer in layers if "merging" not in layer.name])
    with pytest.raises(ValueError, match="follows shares of attention, not convolutions"):
        rollout(layer_masks(build("r2plus1d_tiny")))
    with pytest.raises(ValueError, match="follows shares of attention"):
        rollout([signed()])
    with pytest.raises(ValueError, match="at least one block"):
        rollout([])
    with pytest.raises(ValueError, match=r"no block 'block 1': there are \['stage 1 block 1'"):
        whole_block(layers, "block 1")


def signed() -> Relation:
    call = Call(np.array([[0, 1]]), np.array([[0, 1]]), np.array([[[[0.5, -0.5], [1, 0]]]]))
    tokens = shares(Grid(2, 1, 1), Grid(2, 1, 1))
    return Relation("affinity", "affinity", "attention", tokens, tokens, {"joint": Weights((call,), 2, 2)})


# ---- gradients


def test_what_a_unit_used_lies_in_its_reach_and_is_the_slope_of_a_small_change():
    torch.manual_seed(0)
    net = build("r2plus1d_tiny", size=32, width=8).double().eval()
    clip = torch.randn(1, 3, *net.config.clip).double()
    (found,) = used(net, clip, ["conv3 block 1 first time"]).values()
    (part,) = found.parts.values()
    query = int(np.ravel_multi_index((1, 3, 4), found.queries.grid))
    pixels = part.pixels(query)
    t, h, w = (axis[i] for axis, i in zip(found.queries.sees, (1, 3, 4), strict=True))
    outside = ~(t[:, None, None] & h[:, None] & w)
    assert not pixels[outside].any() and pixels[~outside].any()

    units = []
    net.conv3[0].first.conv.time.register_forward_hook(lambda part, args, out: units.append(out[0, :, 1, 3, 4].norm()))
    at, step = np.unravel_index(pixels.argmax(), pixels.shape), 1e-6
    slopes = []
    for colour in range(3):
        for sign in (1, -1):
            nudged = clip.clone()
            nudged[0, colour, *at] += sign * step
            with torch.no_grad():
                net(nudged)
        slopes.append(float(units[-2] - units[-1]) / (2 * step))
    assert np.linalg.norm(slopes) == pytest.approx(pixels.max(), rel=1e-4)


def test_shares_of_a_gradient_add_up_to_one_on_any_grid():
    net = build("slowfast_tiny", size=32, width=8, classes=3)
    clip = torch.randn(1, 3, *net.config.clip)
    for keys in (None, Grid(4, 2, 2)):
        (found,) = used(net, clip, ["slow res4 block 1 a"], keys).values()
        (part,) = found.parts.values()
        assert found.keys.grid == (keys or (16, 4, 4))
        row = part.row(5)
        assert row.shape == (1, found.keys.grid.size) and row.sum() == pytest.approx(1, rel=1e-5)
    assert net.training and not any(parameter.grad is not None for parameter in net.parameters())
    with pytest.raises(ValueError, match=r"no convolution is called \['res9'\]"):
        used(net, clip, ["res9"])
    with pytest.raises(ValueError, match="2 clips have as many gradients"):
        used(net, clip.expand(2, -1, -1, -1, -1))
    with pytest.raises(
        ValueError, match=r"the clip has \(8, 32, 32\) pixels, the network was built for \(16, 32, 32\)"
    ):
        used(net, clip[:, :, ::2])


@pytest.mark.parametrize("name", ["i3d_tiny", "nonlocal_tiny", "r2plus1d_tiny", "slowfast_tiny"])
def test_every_unit_of_a_network_of_convolutions_used_nothing_outside_its_reach(name):
    """Pools that are no module of their own, joins and what follows a non-local block among them."""
    torch.manual_seed(0)
    net = build(name, size=32)
    found = used(net, torch.randn(1, 3, *net.config.clip))
    masks = [layer for layer in layer_masks(net) if layer.kind != "attention"]
    assert [(layer.name, layer.queries.grid) for layer in masks] == [
        (layer.name, layer.queries.grid) for layer in found.values()
    ]
    for layer in found.values():
        query = layer.queries.size // 2
        pixels = layer.parts[USED].pixels(query)
        t, h, w = (
            axis[i] for axis, i in zip(layer.queries.sees, np.unravel_index(query, layer.queries.grid), strict=True)
        )
        assert not pixels[~(t[:, None, None] & h[:, None] & w)].any(), layer.name
        assert pixels.any(), layer.name


@pytest.mark.parametrize("name", ["timesformer_tiny", "vtn_tiny", "mvit_tiny", "video_swin_tiny"])
def test_a_network_that_convolves_only_to_make_patches_used_nothing_by_convolutions(name):
    net = build(name)
    assert used(net, torch.randn(1, 3, *net.config.clip)) == {}


def test_what_was_used_is_of_the_network_as_it_was():
    """Training on changes weights in place, between one click and the next."""
    net = build("r2plus1d_tiny", size=32, width=8)
    (found,) = used(net, torch.randn(1, 3, *net.config.clip), ["conv3 block 1 first time"]).values()
    part = found.parts[USED]
    first = part.row(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2).add_(0.1)
    np.testing.assert_array_equal(part.row(5), first)


# ---- hiding


class Corner(nn.Module):
    """Its score hangs on one patch of the first frame and on nothing else."""

    def forward(self, clip):
        seen = clip[:, :, 0, :4, 4:8].mean((1, 2, 3))
        return torch.stack([8 * seen, torch.zeros_like(seen)], dim=1)


def test_hiding_what_matters_costs_more_than_hiding_at_random():
    clip = torch.rand(1, 3, 4, 16, 16) * 0.1
    clip[:, :, 0, :4, 4:8] = 1
    tokens, share = shares(Grid(4, 16, 16), Grid(4, 4, 4)), np.zeros(64)
    share[1] = 1  # row 0, column 1 of the first frame
    (one,) = drops(Corner(), clip, 0, tokens, share, [1], draws=200)
    score, hidden = (torch.tensor([8 * x, 0.0]).softmax(0)[0].item() for x in (1, float(clip.mean())))
    assert one.most == pytest.approx(score - hidden, rel=1e-4) and one.most > 0.3
    assert np.mean(one.random) == pytest.approx(one.most / 64, abs=0.02)
    assert str(one).startswith("1 of 64 patches hidden: the score falls by 0.")
    (useless,) = drops(Corner(), clip, 0, tokens, np.arange(64.0), [32], draws=20)
    assert useless.most == 0 < np.mean(useless.random)
    assert drops(Corner(), clip, 0, tokens, share, [8], seed=3) == drops(Corner(), clip, 0, tokens, share, [8], seed=3)


def test_hidden_patches_take_the_mean_colour_and_the_rest_stays():
    clip = torch.rand(1, 3, 4, 16, 16)
    hidden = np.zeros(17, bool)  # four patches a step, two steps; the last is a class token
    hidden[[5, 16]] = True
    seen = hide(clip, shares(Grid(4, 16, 16), Grid(4, 2, 2)), hidden)
    assert torch.equal(seen[0, :, 1, :8, 8:], clip.mean((2, 3, 4)).T[:, :, None].expand(3, 8, 8))
    seen[0, :, 1, :8, 8:] = clip[0, :, 1, :8, 8:]
    assert torch.equal(seen, clip)


def test_more_patches_than_there_are_cannot_be_hidden():
    tokens = shares(Grid(4, 16, 16), Grid(4, 4, 4))
    with pytest.raises(ValueError, match=r"cannot hide \[8, 65\] of 64 patches: choose 1 to 64"):
        drops(Corner(), torch.rand(1, 3, 4, 16, 16), 0, tokens, np.zeros(64), [8, 65])
