"""The non-local block and the networks around it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from reference import recipe
from torch import nn

from course_lib.analysis.cost import cost
from course_lib.analysis.reach import reach
from course_lib.grid import Grid
from course_lib.layers.attention import record_attention
from course_lib.layers.inflate import load_image_weights
from course_lib.layers.nonlocal_block import (
    AFFINITIES,
    FIVE_BLOCKS,
    FIVE_BLOCKS_R101,
    NO_BLOCKS,
    ONE_BLOCK,
    SCOPES,
    TEN_BLOCKS,
    NonLocal,
)
from course_lib.models import build
from course_lib.models.nonlocal_net import stamped

RECORDS = Path(__file__).parent / "reference"
OFFICIAL = {"theta": "conv_theta", "phi": "conv_phi", "g": "conv_g", "out": "conv_out", "norm": "bn"}


def awake(block: NonLocal) -> NonLocal:
    """A block that has left its start, in evaluation mode."""
    torch.manual_seed(0)
    nn.init.normal_(block.norm.weight, 1.0, 0.1)
    return block.eval()


@pytest.mark.parametrize(
    ("record", "affinity", "pool_keys"),
    [
        ("nonlocal_softmax", "softmax", False),
        ("nonlocal_softmax_pool", "softmax", True),
        ("nonlocal_dot_product", "dot_product", False),
    ],
)
def test_the_block_gives_the_released_blocks_output(record, affinity, pool_keys):
    golden = recipe.record(RECORDS / f"{record}.json")
    block, state = NonLocal(64, affinity, pool_keys=pool_keys).eval(), recipe.state_dict(golden)
    ours = {
        name: state.pop(f"{OFFICIAL[name.split('.')[0]]}.{name.split('.')[1]}")
        for name, tensor in block.state_dict().items()
        if tensor.is_floating_point()
    }
    assert not state
    block.load_state_dict(ours, strict=False)
    with torch.inference_mode():
        y = block(recipe.clip(golden["input_shape"]))
    assert recipe.distance(y.flatten()[:512], golden) <= 2e-5
    last = torch.tensor(golden["output_full"]["last"])
    torch.testing.assert_close(y.flatten()[-8:], last, rtol=1e-5, atol=1e-5)
    assert cost(block, golden["input_shape"]).macs / 1e9 == pytest.approx(
        golden["gmacs"]["conv_linear_matmul"], abs=5e-4
    )


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_the_block_is_its_equation_written_out_place_by_place(affinity):
    block, x = awake(NonLocal(6, affinity, pool_keys=False)).double(), torch.randn(1, 6, 2, 2, 3).double()
    with torch.no_grad():
        found = block(x)
        flat = x.flatten(2)[0].T  # place, channel

        def conv(part: nn.Conv3d, v: torch.Tensor) -> torch.Tensor:
            return part.weight[:, :, 0, 0, 0] @ v + part.bias

        rows = []
        for xi in flat:
            f = []
            for xj in flat:
                if affinity == "gaussian":
                    f.append((xi @ xj).exp())
                    continue
                if affinity == "uniform":
                    f.append(torch.tensor(1.0).double())
                    continue
                theta, phi = conv(block.theta, xi), conv(block.phi, xj)
                if affinity == "softmax":
                    f.append((theta @ phi / 3**0.5).exp())
                elif affinity == "dot_product":
                    f.append(theta @ phi)
                else:
                    f.append((torch.cat([block.w_f[0], block.w_f[1]]) @ torch.cat([theta, phi])).clamp(min=0))
            f = torch.stack(f)
            c = f.sum() if affinity in ("gaussian", "softmax") else len(flat)
            rows.append(sum(w * conv(block.g, xj) for w, xj in zip(f / c, flat, strict=True)))
        y = torch.stack(rows).T.view(1, 3, 2, 2, 3)
        torch.testing.assert_close(found, x + block.norm(block.out(y)))


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_a_fresh_block_is_the_identity(affinity):
    x = torch.randn(2, 8, 2, 4, 4)
    assert NonLocal(8, affinity).eval()(x).equal(x)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scopes_picture_is_what_the_block_connects(scope):
    grid, block = Grid(2, 3, 2), awake(NonLocal(8, "softmax", scope, pool_keys=False)).double()

    def compute(tokens: torch.Tensor) -> torch.Tensor:
        return block(tokens.movedim(-1, 1)).movedim(1, -1)

    assert reach(compute, grid).equal(SCOPES[scope].mask(grid))


def test_scopes_drawn_by_hand():
    x = torch.randn(1, 8, 2, 2, 2)
    for scope, groups in (("space", [[0, 1, 2, 3], [4, 5, 6, 7]]), ("time", [[0, 4], [1, 5], [2, 6], [3, 7]])):
        block = awake(NonLocal(8, "softmax", scope, pool_keys=False))
        with torch.no_grad():
            y = block(x).flatten(2)
            for group in groups:  # alone, a group gives what it gives among the others
                alone = torch.stack([x.flatten(2)[:, :, i] for i in group], dim=-1)[:, :, None, None]
                joint = awake(NonLocal(8, "softmax", pool_keys=False))
                joint.load_state_dict(block.state_dict())
                torch.testing.assert_close(joint(alone)[:, :, 0, 0], y[:, :, group])


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_f2_shuffled_frames_give_shuffled_output(affinity):
    block, x, order = awake(NonLocal(8, affinity)), torch.randn(2, 8, 5, 4, 4), [3, 0, 4, 1, 2]
    with torch.no_grad():
        torch.testing.assert_close(block(x[:, :, order]), block(x)[:, :, order])
        torch.testing.assert_close(block(x[:, :, order]).mean((2, 3, 4)), block(x).mean((2, 3, 4)))  # blind, pooled


def test_f2_on_c2d_order_gets_in_through_the_pool_of_time_alone():
    """Its pairs and the mean over them are symmetric: a reversed clip is the same, a shuffled one is not."""
    torch.manual_seed(0)
    net = build("nonlocal_tiny")
    for part in net.modules():
        if isinstance(part, NonLocal):
            nn.init.ones_(part.norm.weight)
    net, clip = net.double().eval(), torch.randn(2, 3, 8, 64, 64).double()
    with torch.no_grad():
        logits = net(clip)
        torch.testing.assert_close(net(clip.flip(2)), logits)
        pairs_swapped = clip[:, :, [6, 7, 1, 0, 2, 3, 5, 4]]
        torch.testing.assert_close(net(pairs_swapped), logits)
        assert (net(clip[:, :, [0, 2, 1, 3, 4, 5, 6, 7]]) - logits).abs().max() > 1e-4


def test_a_stamp_tells_every_frame_and_ends_the_blindness_of_c2d():
    clip = torch.randn(2, 3, 8, 64, 64).double()
    added = (stamped(clip) - clip).flatten(3)
    assert torch.pdist(added[0, 0]).min() > 1 and (added - added[:1, :1, :, :1]).abs().max() < 1e-6
    torch.manual_seed(0)
    net = build("nonlocal_tiny", nonlocal_after=NO_BLOCKS).double().eval()
    nn.init.normal_(net.head.weight)
    with torch.no_grad():
        assert (net(stamped(clip.flip(2))) - net(stamped(clip))).abs().max() > 1e-3


def test_f5_i3d_inflated_from_c2d_is_blind_to_reversal_at_the_start():
    """Its kernels over time are symmetric, and so are zeros and pairs around an even number of frames."""
    torch.manual_seed(0)
    plain = dict(nonlocal_after=NO_BLOCKS, depths=(2, 2, 2, 2))
    c2d, i3d = build("nonlocal_tiny", **plain), build("nonlocal_tiny", network="i3d", **plain)
    assert not load_image_weights(i3d, c2d.state_dict(), {}).fresh
    for block in i3d.modules():
        if isinstance(block, nn.BatchNorm3d):
            nn.init.ones_(block.weight)
    i3d, clip = i3d.double().eval(), torch.randn(1, 3, 8, 64, 64).double()
    with torch.no_grad():
        torch.testing.assert_close(i3d(clip.flip(2)), i3d(clip))
        i3d.res2.block0.a.conv.weight[:, :, 0] *= 1.1  # one kernel off its symmetry
        assert (i3d(clip.flip(2)) - i3d(clip)).abs().max() > 1e-6


def test_pooled_keys_are_a_quarter_and_weights_can_be_watched():
    net = build("nonlocal_tiny").eval()
    with record_attention(net) as recorded, torch.no_grad():
        net(torch.randn(1, 3, 8, 64, 64))
    shapes = {name: tuple(calls[0].shape) for name, calls in recorded.items()}
    assert shapes == {"res3.nonlocal1": (1, 1, 4 * 64, 4 * 16), "res4.nonlocal1": (1, 1, 4 * 16, 4 * 4)}
    assert all(torch.allclose(calls[0].sum(-1), torch.ones(())) for calls in recorded.values())


@pytest.mark.parametrize("affinity", ["dot_product", "concatenation", "uniform"])
def test_affinities_that_are_no_softmax_are_watched_too(affinity):
    block, x = awake(NonLocal(8, affinity)), torch.randn(1, 8, 2, 4, 4)
    with record_attention(nn.Sequential(block)) as recorded, torch.no_grad():
        watched = nn.Sequential(block)(x)
    assert recorded["0"][0].shape == (1, 1, 32, 8)
    with torch.no_grad():
        assert watched.equal(block(x))


@pytest.mark.parametrize(
    ("name", "places", "count"),
    [
        ("c2d_r50_8x8", ONE_BLOCK, 1),
        ("c2d_nl_r50_8x8", FIVE_BLOCKS, 5),
        ("c2d_r50_8x8", TEN_BLOCKS, 10),
        ("i3d_nl_r101", FIVE_BLOCKS_R101, 5),
    ],
)
def test_one_five_and_ten_blocks_of_the_papers_table(name, places, count):
    with torch.device("meta"):
        net = build(name, nonlocal_after=places)
    blocks = [part for part, module in net.named_modules() if isinstance(module, NonLocal)]
    assert len(blocks) == count
    if count == 1:
        order = list(net.res4._modules)
        assert order[-2:] == ["nonlocal4", "block5"]  # right before the last block of res4


def test_five_blocks_cost_what_the_paper_says():
    """Table 2e: NL C2D R101 with 5 blocks has 1.2 times the parameters and operations of C2D R101."""
    with torch.device("meta"):
        plain, blocks = (cost(build(name), (1, 3, 32, 224, 224)) for name in ("c2d_r101", "c2d_nl_r101"))
    assert plain.parameters / 1e6 == pytest.approx(43.2, rel=0.01)  # the paper's C2D R101
    assert round(blocks.parameters / plain.parameters, 1) == 1.2


@pytest.mark.parametrize(
    ("name", "network", "expected"),
    [
        ("c2d_r50_8x8", "c2d", [[1], [1] * 3, [1] * 4, [1] * 6, [1] * 3]),
        ("i3d_r50_8x8", "i3d", [[5], [3] * 3, [3, 1] * 2, [3, 1] * 3, [1, 3, 1]]),
    ],
)
def test_which_blocks_convolve_over_time(name, network, expected):
    with torch.device("meta"):
        net = build(name)
    stages = [[block.a.conv.kernel_size[0] for block in getattr(net, f"res{i}")] for i in (2, 3, 4, 5)]
    assert net.config.network == network and [[net.stem.conv.kernel_size[0]], *stages] == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(affinity="cosine"),
            "unknown affinity 'cosine': .*There are gaussian, softmax, dot_product",
        ),
        (dict(scope="frame"), "unknown scope 'frame': .*There are joint, space, time"),
        (dict(network="r3d"), "unknown network 'r3d': .*There are c2d, i3d"),
        (dict(frames=7), "frames=7 is odd: the pool after res2 takes frames in pairs"),
        (dict(scope="time"), "use pool_keys=False"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build("nonlocal_tiny", **changes)
