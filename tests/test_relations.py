"""Relations say what networks compute: by gradients, by drawings, and by attention planted on one pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.analysis.layers import layer_masks, layers
from course_lib.analysis.relations import EVERY, NONE, Bits, Reads, Relation, SameGroup, reach_of
from course_lib.analysis.tokens import Extra, Tokens, pixels
from course_lib.analysis.weights import KEPT, layer_weights
from course_lib.grid import Grid
from course_lib.layers import attention
from course_lib.models import build, cvidtr, mvit, names, vidtr, vtn

SMALL = dict(size=32, classes=3)
ATTENTIVE = [  # network, changes that keep it small
    *[("timesformer_tiny", dict(attention=scheme, depth=2)) for scheme in ("divided", "joint", "axial")],
    ("timesformer_tiny", dict(attention="space", depth=1)),
    ("timesformer_tiny", dict(attention="local_global", depth=1, frames=4)),
    ("vivit_tiny", dict(depth=1)),
    ("vivit_tiny", dict(depth=1, embed="uniform")),
    ("vivit_tiny", dict(model=2, depth=1)),
    ("vivit_tiny", dict(model=2, depth=1, pool="gap")),
    ("vivit_tiny", dict(model=3, depth=1, pool="gap")),
    ("vivit_tiny", dict(model=4, depth=1, pool="gap")),
    ("vtn_tiny", dict(window=4)),
    ("vidtr_tiny", dict(depth=2)),
    ("vidtr_tiny", dict(depth=1, attention="joint")),
    ("cvidtr_tiny", {}),
    ("cvidtr_tiny", dict(pool="average")),
    ("cvidtr_tiny", dict(pool="conv")),
    ("mvit_tiny", {}),
    ("mvit_tiny", dict(kernel=None)),
    ("mvitv2_tiny", {}),
    ("video_swin_tiny", {}),
    ("video_swin_tiny", dict(size=40, frames=7)),  # grids that windows and merging do not tile
    ("video_swin_tiny", dict(attention="split")),
    ("video_swin_tiny", dict(attention="factorised")),
]
CONVOLUTIONAL = [
    ("i3d_tiny", dict(frames=16, width=0.125)),
    ("i3d_tiny", dict(edges="repeat", width=0.125, size=40)),
    ("r2plus1d_tiny", dict(width=4)),
    ("r2plus1d_tiny", dict(width=4, convolutions="r2d")),
    ("r2plus1d_tiny", dict(width=4, convolutions="mc3")),
    ("r2plus1d_tiny", dict(width=4, convolutions="r2plus1d_bottleneck")),
    ("nonlocal_tiny", dict(width=4, affinity="dot_product")),  # sums, which no softmax rounds to nothing
    ("nonlocal_tiny", dict(width=4, affinity="dot_product", network="i3d", scope="space")),
    ("nonlocal_tiny", dict(width=4, affinity="dot_product", scope="time", pool_keys=False)),
    *[
        ("slowfast_tiny", dict(width=4, join=join))
        for join in ("none", "ttoc_sum", "ttoc_concat", "t_sample", "t_conv")
    ],
]


def each(networks):
    return pytest.mark.parametrize(("name", "changes"), networks, ids=lambda x: x if isinstance(x, str) else _words(x))


def _words(changes: dict) -> str:
    return " ".join(map(str, changes.values())) or "plain"


def tiny(name: str, changes: dict) -> nn.Module:
    torch.manual_seed(0)
    net = build(name, **{**SMALL, **changes}).double().eval()
    for part in net.modules():  # nothing may hide behind a weight that starts at zero
        for parameter in part.parameters(recurse=False):
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return net


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def mask_of(relation: Relation) -> np.ndarray:
    return np.stack([relation.mask_row(query) for query in range(relation.queries.size)])


# ---- attention: every layer against the gradients of its module


def jacobian(compute, *inputs: torch.Tensor) -> torch.Tensor:
    """Which input vectors change an output vector: outputs one after another, inputs one after another."""
    inputs = tuple(x.detach().requires_grad_() for x in inputs)
    outputs = compute(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    rows = []
    for output in outputs:
        for vector in output.flatten(0, -2):
            found = torch.autograd.grad(
                (vector * noise(len(vector))).sum(), inputs, retain_graph=True, allow_unused=True
            )
            found = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
            rows.append(torch.cat([(g.abs().sum(-1) > 0).flatten() for g in found]))
    return torch.stack(rows)


def numbered(tokens: Tokens, shape: tuple[int, ...], count: int, beside: bool) -> list[int]:
    """By hand: the token number of every vector that goes in or comes out; class tokens count behind the grid."""
    n, (t, h, w) = tokens.grid.size, tokens.grid
    if shape[:-1] == (1, t + 1, h * w + 1):  # VidTr: row 0 and column 0 are class tokens; corner, frames, places
        corner, frames, places = n, n + 1, n + 1 + t
        grid = [[corner, *(places + p for p in range(h * w))]]
        grid += [[frames + f, *(f * h * w + p for p in range(h * w))] for f in range(t)]
        return [number for row in grid for number in row]
    return [n, *range(n)] if count == n + 1 and not beside else list(range(count))


@each(ATTENTIVE)
def test_every_attention_layer_joins_what_gradients_join(name, changes):
    """Each module by itself, on tokens of its own; pooled keys by the tokens that they are made of."""
    net, seen = tiny(name, changes), {}
    found = [layer for layer in layers(net) if layer.rows is not None]
    assert found
    for layer in found:
        part = net.get_submodule(layer.module)
        part.register_forward_hook(lambda part, args, out, at=layer.module: seen.update({at: (args, out)}))
    with torch.no_grad():
        net(noise(1, 3, *net.config.clip))
    for layer in found:
        relation, part, (args, out) = layer.relation, net.get_submodule(layer.module), seen[layer.module]
        keys = relation.inputs or relation.keys
        inputs = [noise(*x.shape) for x in args]
        if isinstance(part, cvidtr.TopTime):  # by values alone: who is kept is a choice, not a sum
            size = inputs[0].shape[-1] // 3
            fixed, values = inputs[0][..., : 2 * size], inputs[0][..., 2 * size :]
            reached = jacobian(lambda v: part(torch.cat([fixed, v], -1))[0][..., 2 * size :], values)  # noqa: B023
        else:
            reached = jacobian(part, *inputs)
        rows = numbered(
            relation.queries, (out[0] if isinstance(out, tuple) else out).shape, reached.shape[0], len(args) > 1
        )
        columns = numbered(keys, args[0].shape, reached.shape[1], len(args) > 1)
        for i, query in enumerate(rows):
            alone = np.arange(relation.queries.size) == query
            want = relation.reached(alone) if relation.inputs is not None else relation.mask_row(query)
            assert want[columns].tolist() == reached[i].tolist(), (relation.name, query)


@each(ATTENTIVE)
def test_patches_stand_for_the_pixels_that_they_are_computed_from(name, changes):
    net = tiny(name, changes)
    first = layer_masks(net)[0]
    part = net.backbone.patch_embed if name == "vtn_tiny" else net.patch_embed
    outputs = []
    part.register_forward_hook(lambda part, args, out: outputs.append(out))
    clip = noise(1, 3, *net.config.clip).requires_grad_()
    net(clip)
    channels = 1 if name.startswith("mvit") else -1
    vectors = outputs[0].movedim(channels, -1).flatten(0, -2)
    assert len(vectors) == first.queries.grid.size
    for query in {0, 1, len(vectors) // 2, len(vectors) - 1}:
        (gradient,) = torch.autograd.grad(vectors[query].sum(), clip, retain_graph=True)
        inside = (gradient[0].abs().sum(0) > 0).numpy()
        assert np.array_equal(inside.ravel(), first.mask_row(query))
        assert first.queries.box(query) == tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(inside))


@pytest.mark.parametrize("affinity", ["softmax", "concatenation", "uniform"])
@pytest.mark.parametrize(("scope", "pool"), [("joint", True), ("space", True), ("time", False), ("joint", False)])
def test_a_nonlocal_block_joins_what_gradients_join(monkeypatch, affinity, scope, pool):
    net = tiny("nonlocal_tiny", dict(width=4, size=64, affinity=affinity, scope=scope, pool_keys=pool))
    found = [layer for layer in layers(net) if layer.rows is not None]
    assert [layer.relation.block for layer in found] == [
        "res3 non-local block after block 2",
        "res4 non-local block after block 2",
    ]
    monkeypatch.setattr(F, "max_pool3d", lambda x, kernel: F.avg_pool3d(x, kernel))
    monkeypatch.setattr(F, "relu", F.softplus)
    layer = found[-1]
    part, relation = net.get_submodule(layer.module), layer.relation
    assert relation.keys.grid == ((4, 2, 2) if pool else (4, 4, 4))
    x = noise(1, 64, *relation.queries.grid)
    reached = jacobian(lambda x: part(x.movedim(-1, 1)).movedim(1, -1), x.movedim(1, -1))
    want = [relation.reached(np.arange(64) == query).tolist() for query in range(64)]
    assert reached.tolist() == want


# ---- convolutions: the whole way to the clip


@pytest.fixture
def smooth(monkeypatch):
    """A max-pool lets one gradient through; its mean lets all."""

    def mean(x, kernel_size, stride=None, padding=0, *args, **kwargs):
        return F.avg_pool3d(x, kernel_size, stride, padding)

    monkeypatch.setattr(F, "max_pool3d", mean)


@each(CONVOLUTIONAL)
def test_every_unit_of_a_convolution_sees_the_pixels_that_gradients_reach(smooth, name, changes):
    net = tiny(name, changes)
    for part in net.modules():  # positive everywhere: no ReLU closes, nothing cancels
        for parameter in part.parameters(recurse=False):
            parameter.data.abs_().add_(0.01)
    found, outputs = [layer for layer in layers(net) if layer.rows is None], {}
    assert len(found) >= 5
    for layer in found:
        if layer.module:
            net.get_submodule(layer.module).register_forward_hook(
                lambda part, args, out, at=layer.relation.name: outputs.update({at: out})
            )
    clip = noise(1, 3, *net.config.clip).abs().add(0.1).requires_grad_()
    net(clip)
    checked = 0
    for layer in found:
        out, queries = outputs.get(layer.relation.name), layer.relation.queries
        if out is None or tuple(out.shape[2:]) != tuple(queries.grid):
            continue  # pools that are calls, not modules: those behind them check them
        checked += 1
        for query in {0, queries.grid.size // 2, queries.grid.size - 1}:
            t, h, w = np.unravel_index(query, queries.grid)
            (gradient,) = torch.autograd.grad(out[0, :, t, h, w].sum(), clip, retain_graph=True)
            inside = (gradient[0].abs().sum(0) > 0).numpy()
            t, h, w = (axis[i] for axis, i in zip(queries.sees, (t, h, w), strict=True))
            assert np.array_equal(inside, t[:, None, None] & h[:, None] & w), (layer.relation.name, query)
    assert checked >= 5


# ---- drawn by hand


def drawn(part, grid: Grid, query: int) -> str:
    """A row, frame by frame and line by line; behind a bar the extra tokens."""
    row = ["#" if seen else "." for seen in part.row(query)]
    frames = [
        "/".join("".join(row[(t * grid.h + h) * grid.w :][: grid.w]) for h in range(grid.h)) for t in range(grid.t)
    ]
    return " ".join(frames) + ("|" + "".join(row[grid.size :]) if len(row) > grid.size else "")


def relation(name: str, layer: str, **changes) -> Relation:
    return {found.name: found for found in layer_masks(build(name, classes=3, **changes))}[layer]


def pictures(found: Relation, query: int) -> list[str]:
    return [drawn(part, found.keys.grid, query) for part in found.parts.values()]


SMALLEST = dict(frames=2, size=32, patch=16)
# fmt: off
HAND = [  # network, its changes, the layer, query -> a picture for each part
    ("timesformer_tiny", SMALLEST, "block 1 time", {0: ["#./.. #./..|."], 8: ["../.. ../..|."]}),
    ("timesformer_tiny", SMALLEST, "block 1 space", {0: ["##/## ../..|#"], 8: ["##/## ##/##|#"]}),
    ("timesformer_tiny", {**SMALLEST, "attention": "space"}, "block 1 space",
     {5: ["../.. ##/##|.#"], 8: ["##/## ../..|#."]}),
    (
        "vivit_tiny",
        dict(model=4, pool="gap", frames=4, size=32),
        "block 1 half time, half space",
        {1: [".#/.. .#/..", "##/## ../.."]},
    ),
    ("vivit_tiny", dict(model=2, frames=4, size=32), "frames",
     {0: ["../.. ../..|#."], 1: ["../.. ../..|.#"], 2: ["../.. ../..|.."]}),
    ("vivit_tiny", dict(model=2, frames=4, size=32, pool="gap"), "frames", {1: ["../.. ##/##"]}),
    ("vtn_tiny", dict(window=2, frames=4, size=32), "block 2 band of 3",
     {0: ["# # . .|#"], 2: [". # # #|#"], 4: ["# # # #|#"]}),
    # VidTr: behind the grid the corner, one class token a frame, one a place
    ("vidtr_tiny", SMALLEST, "block 1 time", {1: [".#/.. .#/..|....#.."], 8: ["../.. ../..|###...."]}),
    ("vidtr_tiny", SMALLEST, "block 1 space", {1: ["##/## ../..|.#....."], 8: ["../.. ../..|#..####"]}),
    ("mvit_tiny", dict(frames=2, size=16, stride=4), "block 1 pooled attention", {0: ["#|#"], 16: ["#|#"]}),
    ("mvit_tiny", dict(frames=2, size=16, stride=2), "block 1 pooled attention", {3: ["##/##|#"]}),
    (
        "video_swin_tiny",
        dict(frames=4, size=24, window=Grid(2, 4, 4), patch=Grid(2, 4, 4)),
        "stage 1 block 2 shifted windows",
        {0: ["##..../##..../....../....../....../......" + " ##..../##..../....../....../....../......"]},
    ),
    ("video_swin_tiny", dict(frames=2, size=20), "stage 2 merging",
     {0: ["##.../##.../...../...../....."], 8: ["...../...../...../...../....#"]}),
    ("nonlocal_tiny", dict(width=4, size=32, frames=4), "res4 non-local block after block 2 joint",
     {0: ["# #"], 3: ["# #"]}),
    ("nonlocal_tiny", dict(width=4, size=32, frames=4, scope="space"), "res4 non-local block after block 2 space",
     {5: [". #"]}),
    ("cvidtr_tiny", {**SMALLEST, "frames": 3, "pools": ((0, 2),)}, "block 1 time, 2 frames kept",
     {6: ["../#. ../#. ../#.|."]}),
    ("cvidtr_tiny", {**SMALLEST, "frames": 4, "pools": ((0, 2),), "pool": "average"}, "block 1 pooling of frames",
     {5: ["../.. ../.. .#/.. .#/..|."]}),
]
# fmt: on


@pytest.mark.parametrize(("name", "changes", "layer", "rows"), HAND, ids=lambda x: x if isinstance(x, str) else "")
def test_a_layer_is_the_one_drawn_by_hand(name, changes, layer, rows):
    found = relation(name, layer, **changes)
    assert {query: pictures(found, query) for query in rows} == rows


def test_pooled_keys_stand_for_boxes_that_overlap_and_pass_over_most_pixels():
    """Stride 8 and kernel 3: a key reads 3 of 8 tokens along an axis; a token reads 7 pixels, 4 apart."""
    found = relation("mvit_tiny", "block 1 pooled attention", frames=8, size=64, stride=8)
    assert found.keys.grid == (4, 2, 2) and found.queries.grid == (4, 16, 16)
    assert found.queries.box(5 * 16 + 2) == (slice(0, 2), slice(17, 24), slice(5, 12))
    assert found.keys.box(3) == (slice(0, 4), slice(25, 40), slice(25, 40))
    assert found.keys.box(found.keys.size - 1) is None, "the class token has no place"


def test_slow_frames_are_fed_by_the_fast_frames_that_the_join_reads():
    """Kernel 5, stride 4, padded by 2: slow frame k reads fast frames 4k-2 .. 4k+2 at its own place."""
    found = relation("slowfast_tiny", "join after res2", width=4, size=32)
    (part,) = found.parts.values()
    fed = [np.unique(np.nonzero(part.row(k * 64 + 9))[0] // 64).tolist() for k in range(4)]
    assert fed == [[0, 1, 2], [2, 3, 4, 5, 6], [6, 7, 8, 9, 10], [10, 11, 12, 13, 14]]
    assert set(np.nonzero(part.row(9))[0] % 64) == {9}
    sampled = relation("slowfast_tiny", "join after res2", width=4, size=32, join="t_sample")
    assert [np.nonzero(next(iter(sampled.parts.values())).row(k * 64))[0].tolist() for k in range(4)] == [
        [0], [256], [512], [768],
    ]  # fmt: skip


def test_the_slow_path_sees_the_frames_that_it_picked():
    first = relation("slowfast_tiny", "slow stem", width=4, join="none")
    assert [np.nonzero(axis)[0].tolist() for axis in first.queries.sees[0]] == [[0], [5], [10], [15]]


def test_the_halves_of_a_convolution_are_told_apart():
    found = [layer.name for layer in layer_masks(build("r2plus1d_tiny")) if layer.block == "conv3 block 1"]
    kinds = [next(iter(layer.parts)) for layer in layer_masks(build("r2plus1d_tiny")) if layer.block == "conv3 block 1"]
    assert found == [
        *(f"conv3 block 1 {half}" for half in ("first space", "first time", "second space", "second time", "shortcut"))
    ]
    assert kinds == ["space", "time", "space", "time", "time and space"]


def test_layers_are_named_by_block_in_the_order_in_which_they_run():
    assert [found.name for found in layer_masks(build("timesformer_tiny", depth=2))] == [
        "patch embed", "block 1 time", "block 1 space", "block 2 time", "block 2 space",
    ]  # fmt: skip
    assert [found.name for found in layer_masks(build("video_swin_tiny", depths=(1, 2), heads=(2, 4)))] == [
        "patch embed", "stage 1 block 1 windows", "stage 2 merging", "stage 2 block 1 windows",
        "stage 2 block 2 shifted windows",
    ]  # fmt: skip


# ---- several layers in a row


def test_layers_in_a_row_reach_what_gradients_of_the_network_reach():
    """Blocks of Video Swin: windows, shifted windows, merging, and windows again."""
    net = tiny("video_swin_tiny", dict(size=64, frames=8, depths=(2, 1), heads=(2, 4)))
    outputs = []
    net.norm_embed.register_forward_hook(lambda part, args, out: outputs.append(out))
    net.stages.register_forward_hook(lambda part, args, out: outputs.append(out))
    net(noise(1, 3, 8, 64, 64))
    chain = [found for found in layer_masks(net) if found.name != "patch embed"]
    vectors = outputs[1].flatten(0, -2)
    for query in (0, 91, 255):
        (gradient,) = torch.autograd.grad((vectors[query] * noise(64)).sum(), outputs[0], retain_graph=True)
        assert ((gradient.abs().sum(-1) > 0).flatten().numpy() == reach_of(chain, query)).all()
        assert not reach_of(chain, query).all()


# ---- attention planted on one pixel

PIXELS = [(0, 0, 0), (2, 13, 22), (5, 31, 17)]


class Planted:
    """Attention that goes to the key that has changed most since the clip before; where none has, to all alike."""

    def __init__(self):
        self.before, self.now = [], []

    def __call__(self, q, k, mask=None, bias=None):
        if not k.is_meta:
            self.now.append(k)
        alike = torch.full((*q.shape[:-1], k.shape[-2]), 1 / k.shape[-2], dtype=q.dtype, device=k.device)
        if not self.before or k.is_meta:
            return alike
        change = (k - self.before[len(self.now) - 1]).norm(dim=-1)[..., None, :].expand(*q.shape[:-1], k.shape[-2])
        change = change if mask is None else change.masked_fill(~mask, -1)
        return torch.where(change.amax(-1, keepdim=True) > 1e-9, F.one_hot(change.argmax(-1), k.shape[-2]), alike)


def stands_out(head: np.ndarray) -> bool:
    """Not so where a head of C-VidTr has dropped the frame; its second softmax leaves the others a third each."""
    second, first = np.sort(head)[-2:]
    return first > 1.5 * second


@each(ATTENTIVE)
def test_attention_planted_on_a_pixel_lands_on_tokens_that_hold_it(monkeypatch, name, changes):
    net, planted = tiny(name, changes), Planted()
    for module in (attention, cvidtr):
        monkeypatch.setattr(module, "attention_weights", planted)
    frames = name == "vtn_tiny" or changes.get("model") == 2  # which hear of the pixel by their class tokens
    for part in net.modules():
        silenced = attention.MultiHeadAttention | mvit.PooledAttention | vidtr.SeparableAttention
        if isinstance(part, vtn.LongformerAttention) or (isinstance(part, silenced) and not frames):
            nn.init.zeros_(part.out.weight)  # else attention would carry the change elsewhere
    masks = {found.name: found for found in layer_masks(net)}
    blank = noise(1, 3, *net.config.clip)
    layer_weights(net, blank)
    planted.before = planted.now
    for pixel in PIXELS:
        pixel = tuple(at % length for at, length in zip(pixel, net.config.clip, strict=True))
        if changes.get("embed") == "uniform":
            pixel = (pixel[0] // 2 * 2, *pixel[1:])  # frames between are not looked at
        clip, planted.now, checked = blank.clone(), [], 0
        clip[0, :, *pixel] += 100
        for label, layer in layer_weights(net, clip).items():
            t, h, w = (axis[:, at] for axis, at in zip(layer.keys.sees, pixel, strict=True))
            holding = np.flatnonzero(t[:, None, None] & h[:, None] & w)
            if name == "vtn_tiny" and label in ("backbone block 2 space", "backbone block 3 space"):
                continue  # by now the whole frame has heard
            for part_name, mask in masks[label].parts.items():
                asking = [query for query in range(layer.queries.grid.size) if mask.row(query)[holding].any()]
                rows = [layer.parts[part_name].row(query) for query in asking]
                landed = [{int(head.argmax()) for head in row if stands_out(head)} for row in rows]
                dropped = name == "cvidtr_tiny" and "pool" not in changes  # with the frame its keys are gone
                assert all(found <= set(holding) for found in landed), (pixel, label)
                assert not asking or any(landed) or dropped, (pixel, label)
                checked += len(asking) > 0
        assert checked, "a stride longer than its kernel passes over some pixels, but not in every layer"


def test_c_vidtr_marks_the_frames_that_each_head_kept():
    net = tiny("cvidtr_tiny", {})
    found = layer_weights(net, noise(1, 3, *net.config.clip))["block 2 time, 4 frames kept"]
    kept = []
    net.blocks[1].attention.time.register_forward_hook(lambda part, args, out: kept.append(out[1][0]))
    with torch.no_grad():
        net(noise(1, 3, *net.config.clip))
    for slot, place in [(0, 0), (3, 2), (1, 3)]:
        row = found.parts[KEPT].row(slot * 4 + place)
        frames = kept[0][place, :, slot].tolist()
        assert [np.flatnonzero(head).tolist() for head in row] == [[frame * 4 + place] for frame in frames]
        assert set(np.flatnonzero(found.parts["time"].row(slot * 4 + place)[0])) == {t * 4 + place for t in range(8)}


# ---- what is recorded


def test_a_patch_pays_the_rest_of_its_attention_to_the_class_token():
    net = tiny("timesformer_tiny", dict(depth=1))
    maps = layer_weights(net, noise(1, 3, *net.config.clip))
    space, cls = maps["block 1 space"].parts["space"], 32
    for query in range(33):
        np.testing.assert_allclose(space.row(query).sum(-1), 1, rtol=1e-5)
        assert (space.row(query)[:, cls] > 0).all()
    with attention.record_attention(net) as recorded, torch.no_grad():
        net(noise(1, 3, *net.config.clip))
    (weights,) = recorded["blocks.0.attention"]  # frame head 1+n 1+n, class token first
    np.testing.assert_allclose(space.row(cls)[:, cls], weights[:, :, 0, 0].mean(0), rtol=1e-5)
    np.testing.assert_allclose(space.row(cls)[:, 5 * 4 + 3], weights[5, :, 0, 1 + 3] / 8, rtol=1e-5)
    assert not maps["block 1 time"].parts["time"].row(cls).any(), "it sits this layer out"


def test_attention_maps_are_laid_out_on_the_grid():
    torch.manual_seed(0)
    net = build("timesformer_tiny", depth=2).train()
    clip = torch.randn(1, 3, *net.config.clip)
    maps = layer_weights(net, clip)
    assert list(maps) == ["block 1 time", "block 1 space", "block 2 time", "block 2 space"] and net.training
    time, space = (maps[f"block 1 {one}"].parts[one] for one in ("time", "space"))
    assert time.calls[0].weights.shape == (16, 4, 8, 8) and space.calls[0].weights.shape == (8, 4, 17, 17)
    query = 3 * 16 + 5  # frame 3, place 5
    row = time.row(query)
    assert row.sum(1) == pytest.approx(np.ones(4), abs=1e-5)  # no class token in the time attention
    assert set(np.nonzero(row[0])[0]) == {16 * t + 5 for t in range(8)}
    row = space.row(query)
    assert set(np.nonzero(row[0])[0]) == {*range(48, 64), 128}
    assert (row[:, :128].sum(1) < 1).all()  # the class token has its share
    with attention.record_attention(net.eval()) as recorded, torch.no_grad():
        net(clip)
    (weights,) = recorded["blocks.0.attention"]  # frame head 1+n 1+n, class token first
    np.testing.assert_allclose(row[:, 48:64], weights[3, :, 1 + 5, 1:], rtol=1e-6)


def test_a_space_only_network_has_a_map_for_each_frame():
    net = build("timesformer_tiny", attention="space", depth=1)
    (found,) = layer_weights(net, torch.randn(1, 3, *net.config.clip)).values()
    (call,) = found.parts["space"].calls
    assert call.queries.shape == (8, 17) and call.weights.shape[0] == 8


def test_what_zeros_around_a_clip_get_belongs_to_no_token():
    net = tiny("video_swin_tiny", dict(size=40, frames=7))
    windows = layer_weights(net, noise(1, 3, 7, 40, 40))["stage 1 block 1 windows"].parts["windows"]
    sums = np.array([windows.row(query).sum(-1) for query in range(400)])
    assert sums.min() < 0.9 and np.isclose(sums, 1, rtol=1e-4).any() and (sums < 1.0001).all()


def test_dot_products_are_affinities_with_a_sign():
    net = tiny("nonlocal_tiny", dict(width=4, size=64, affinity="dot_product"))
    found = layer_weights(net, noise(1, 3, 8, 64, 64))
    assert all(part.signed for layer in found.values() for part in layer.parts.values())
    with attention.record_attention(net) as recorded, torch.no_grad():
        net(noise(1, 3, 8, 64, 64))
    layer = found["res4 non-local block after block 2 joint"]
    np.testing.assert_allclose(
        layer.parts["joint"].row(9)[0], recorded["res4.nonlocal1"][0][0, 0, 9].float(), rtol=1e-5
    )


def test_a_row_without_those_that_cannot_be_taken_from_is_the_same_row():
    net = tiny("video_swin_tiny", dict(size=40, frames=7))
    for layer in [*layer_weights(net, noise(1, 3, 7, 40, 40)).values()][:2]:
        (part,) = layer.parts.values()
        for query in (0, 211, 399):
            keys, weights = part.sparse(query)
            row = np.zeros((part.heads, part.keys), np.float32)
            row[:, keys] = weights
            assert np.array_equal(row, part.row(query)) and len(keys) <= 32


def test_some_layers_by_name_and_the_others_left_out():
    net = tiny("timesformer_tiny", {})
    clip = noise(1, 3, *net.config.clip)
    assert list(layer_weights(net, clip, ["block 2 time"])) == ["block 2 time"]
    with pytest.raises(ValueError, match=r"no attention layer is called \['block 9'\]: there are \['block 1 time'"):
        layer_weights(net, clip, ["block 9"])


def test_weights_of_two_clips_or_of_another_size_are_refused():
    net = tiny("timesformer_tiny", {})
    with pytest.raises(ValueError, match=r"2 clips have as many maps a layer: give one, such as clips\[:1\]"):
        layer_weights(net, noise(2, 3, *net.config.clip))
    with pytest.raises(ValueError, match=r"the clip has \(8, 64, 64\) pixels, the network was built for \(8, 32, 32\)"):
        layer_weights(net, noise(1, 3, 8, 64, 64))
    with pytest.raises(ValueError, match="R2Plus1D has no attention to record"):
        layer_weights(tiny("r2plus1d_tiny", {}), noise(1, 3, 8, 32, 32))


def test_looking_changes_neither_modes_nor_gradients():
    net = build("timesformer_tiny", depth=2).train()
    net.blocks[0].eval()
    before = [module.training for module in net.modules()]
    layer_masks(net), layer_weights(net, torch.randn(1, 3, *net.config.clip))
    assert [module.training for module in net.modules()] == before
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in net.parameters())


# ---- four ways to say a mask


def test_group_numbers_with_those_for_all_and_none():
    part = SameGroup(np.array([0, 1, EVERY, NONE]), np.array([0, 1, 1, EVERY, NONE]))
    rows = [[1, 0, 0, 1, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0] * 5]
    assert [part.row(query).astype(int).tolist() for query in range(4)] == rows
    asking = np.array(rows, bool)
    for chosen in np.ndindex(2, 2, 2, 2):
        want = asking[np.array(chosen, bool)].any(0) if any(chosen) else np.zeros(5, bool)
        assert part.reached(np.array(chosen, bool)).tolist() == want.tolist()


def test_all_other_masks_give_the_union_of_their_rows():
    rng = np.random.default_rng(0)
    reads = Reads(tuple(rng.random((n, m)) < 0.5 for n, m in ((2, 3), (3, 2), (2, 4))), extra=2)
    bits = Bits.of(rng.random((14, 26)) < 0.3)
    for part in (reads, bits):
        rows = np.stack([part.row(query) for query in range(14)])
        for _ in range(20):
            chosen = rng.random(14) < 0.3
            assert part.reached(chosen).tolist() == rows[chosen].any(0).tolist()
    assert reads.row(13).nonzero()[0].tolist() == [25], "an extra token keeps to itself"


def test_tokens_are_found_by_pixel_and_extra_ones_by_name():
    tokens = Tokens(Grid(4, 8, 8), tuple(np.eye(2, dtype=bool).repeat(n, 1) for n in (2, 4, 4)), (
        Extra("class token", Grid(1, 1, 1)), Extra("class token of the frame", Grid(2, 1, 1)),
    ))  # fmt: skip
    assert tokens.grid == (2, 2, 2) and tokens.size == 11
    assert tokens.at(1, 3, 4) == 1 and tokens.at(2, 4, 0) == 6
    assert tokens.extra_numbers("class token of the frame").ravel().tolist() == [9, 10]
    with pytest.raises(ValueError, match=r"no extra token is called 'cls': there are \['class token', 'class token of"):
        tokens.extra_numbers("cls")
    with pytest.raises(ValueError, match=r"no pixel \(frame, row, column\) \(4, 0, 0\) in a clip of \(4, 8, 8\)"):
        tokens.at(4, 0, 0)
    assert pixels(Grid(1, 2, 2)).box(3) == (slice(0, 1), slice(1, 2), slice(1, 2))


# ---- every network

FULL = ["i3d_inception", "c2d_nl_r50_8x8", "r2plus1d_34", "slowfast_r50_8x8", "vtn_vit_b", "timesformer_b_8x224",
        "vivit_b_16x2_model2", "vidtr_s_8x224", "cvidtr_s_8x224", "mvit_b_16x4", "video_swin_t_32x224"]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in names() if name.endswith("_tiny")] + FULL)
def test_every_network_tells_its_layers(name):
    with torch.device("meta"):
        net = build(name)
    found = layer_masks(net)
    assert len({layer.name for layer in found}) == len(found) >= 4
    before = {layer.queries.size for layer in found} | {found[0].keys.size}
    for layer in found:
        assert (layer.inputs or layer.keys).size in before, f"{layer.name} takes tokens that no layer gives"
        assert layer.queries.clip == net.config.clip
        middle = layer.queries.grid.size // 2
        assert layer.mask_row(middle).any() and layer.mask_row(0).shape == (layer.keys.size,)


def test_what_is_no_network_of_the_course_is_refused():
    with pytest.raises(ValueError, match="Linear has no config that tells its clip"):
        layer_masks(nn.Linear(2, 2))
