"""Relations say what networks compute: by gradients, by drawings, and by attention planted on one pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.analysis.layers import layer_masks, layers
from course_lib.analysis.relations import EVERY, NONE, Bits, Reads, Relation, SameGroup, reach_of
from course_lib.analysis.tokens import Extra, Tokens, itself, pixels
from course_lib.analysis.weights import KEPT, layer_weights
from course_lib.grid import Grid
from course_lib.layers import attention
from course_lib.layers.blocks import Mlp
from course_lib.models import build, cvidtr, names

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
    ("i3d_tiny", dict(size=64, frames=16, width=0.0625 * 2)),
    ("i3d_tiny", dict(edges="repeat", width=0.0625 * 2, size=40)),
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
        rows = numbered(relation.queries, (out[0] if isinstance(out, tuple) else out).shape, reached.shape[0], len(args) > 1)
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


@pytest.mark.parametrize("affinity", ["softmax", "concatenation"])
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
