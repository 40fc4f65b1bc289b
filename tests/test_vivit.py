"""ViViT's four models, as the paper and the released code have them."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from course_lib.analysis.cost import cost
from course_lib.analysis.reach import reach
from course_lib.grid import Grid
from course_lib.layers.inflate import LoadReport, inflate_conv, load_image_weights
from course_lib.layers.schemes import SPACE, TIME, SplitHeads
from course_lib.models import build
from course_lib.models.vivit import Encoder, HalfHeads, ViViT
from course_lib.official import SOURCES, load
from course_lib.official.scenic import flatten

GAP = {"pool": "gap"}
MODELS = [(1, {}), (1, GAP), (2, {}), (2, GAP), (3, GAP), (4, GAP)]
each_model = pytest.mark.parametrize(("model", "changes"), MODELS)


def lively(**changes: object) -> ViViT:
    """The tiny network in double precision with a head that answers."""
    torch.manual_seed(0)
    net = build("vivit_tiny", **changes).double().eval()
    nn.init.normal_(net.head.weight)
    return net


CLIP = torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize(  # table 2, and figure 8 with table 5 for L
    ("name", "changes", "millions", "gmacs"),
    [
        ("vivit_b_16x2_model1", {}, 88.9, 455.2),
        ("vivit_b_16x2_model2", {}, 115.1, 284.4),
        ("vivit_b_16x2_model3", {}, 117.3, 372.3),
        ("vivit_b_16x2_model4", {}, 88.9, 277.1),
        ("vivit_l_16x2_model1", {"size": 320}, 310.8, 3992),
        ("vivit_l_16x2_model2", {}, None, 995.3),
        ("vivit_l_16x2_model2", {"frames": 128}, None, 3980.4),
    ],
)
def test_parameters_and_multiply_adds_are_the_published_ones(name, changes, millions, gmacs):
    with torch.device("meta"):
        net = build(name, **changes)
    counted = cost(net, (1, 3, net.config.frames, net.config.size, net.config.size))
    assert counted.macs / 1e9 == pytest.approx(gmacs, rel=0.01)
    if millions:
        assert counted.parameters / 1e6 == pytest.approx(millions, rel=0.01)


def plain_model_3(state: dict[str, torch.Tensor], clip: torch.Tensor, grid: Grid, heads: int) -> torch.Tensor:
    """Factorised self-attention from the released names, with flat rows and no library of ours."""

    def linear(x, name):
        return F.linear(x, state[f"{name}/weight"], state[f"{name}/bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}/weight"], state[f"{name}/bias"], 1e-6)

    def attention(x, name):
        q, k, v = (
            linear(x, f"{name}/{part}").unflatten(-1, (heads, -1)).transpose(1, 2) for part in ("query", "key", "value")
        )
        weights = (q / q.shape[-1] ** 0.5 @ k.transpose(-2, -1)).softmax(-1)
        return linear((weights @ v).transpose(1, 2).flatten(2), f"{name}/out")

    kernel = state["embedding/weight"]
    z = F.conv3d(clip, kernel, state["embedding/bias"], stride=kernel.shape[2:]).flatten(2).transpose(1, 2)
    z = z + state["Transformer/posembed_input/pos_embedding"]
    b, places, i = len(z), grid.h * grid.w, 0
    while f"Transformer/encoderblock_{i}/MlpBlock/Dense_0/bias" in state:
        block = f"Transformer/encoderblock_{i}"
        rows = rearrange(z, "b (t p) d -> (b p) t d", p=places)
        rows = rows + attention(norm(rows, f"{block}/LayerNorm_time"), f"{block}/MultiHeadDotProductAttention_time")
        rows = rearrange(rows, "(b p) t d -> (b t) p d", b=b)
        rows = rows + attention(norm(rows, f"{block}/LayerNorm_space"), f"{block}/MultiHeadDotProductAttention_space")
        z = rearrange(rows, "(b t) p d -> b (t p) d", b=b)
        hidden = F.gelu(linear(norm(z, f"{block}/LayerNorm_mlp"), f"{block}/MlpBlock/Dense_0"), approximate="tanh")
        z, i = z + linear(hidden, f"{block}/MlpBlock/Dense_1"), i + 1
    return linear(norm(z, "Transformer/encoder_norm").mean(1), "output_projection")


def official(net: ViViT) -> dict[str, torch.Tensor]:
    """The tensors of `net` as scenic would have them."""
    state = {}
    for ours, names, _ in SOURCES["scenic"](net):
        tensor = net.state_dict()[ours]
        if isinstance(names, tuple):
            state.update(zip(names, tensor.chunk(3), strict=True))
        elif ours.endswith(".pos_embed"):
            state[names] = torch.cat(
                [state.get(names, tensor.new_zeros(1, 0, tensor.shape[-1])), tensor.flatten(0, 1)[None]], 1
            )
        elif ours.endswith("cls_pos_embed"):
            state[names] = torch.cat([tensor[None, None], state[names]], 1)
        else:
            state[names] = tensor[None, None] if ours.endswith(".cls") else tensor
    return state


def test_model_3_is_the_released_code_written_out():
    net = lively(model=3, pool="gap")
    with torch.no_grad():
        torch.testing.assert_close(net(CLIP), plain_model_3(official(net), CLIP, net.config.grid, 4))


def flax(net: ViViT) -> dict:
    """The weights of `net` as scenic's raw dictionaries have them."""
    nested: dict = {}
    for name, tensor in official(net).items():
        *path, kind = name.split("/")
        if kind == "weight":
            kind = "scale" if tensor.ndim == 1 else "kernel"
        if path and path[-1] in ("query", "key", "value"):
            tensor = tensor.T.unflatten(-1, (4, -1)) if kind == "kernel" else tensor.unflatten(0, (4, -1))
        elif path and path[-1] == "out" and kind == "kernel":
            tensor = tensor.T.unflatten(0, (4, -1))
        elif kind == "kernel":
            tensor = tensor.permute(2, 3, 4, 1, 0) if tensor.ndim == 5 else tensor.T
        leaf = nested
        for step in path:
            leaf = leaf.setdefault(step, {})
        leaf[kind] = tensor.numpy()
    return nested


def same_weights(a: ViViT, b: ViViT) -> bool:
    return all(x.equal(y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@each_model
def test_raw_flax_dictionaries_and_their_npz_files_load_like_the_torch_layout(model, changes, tmp_path):
    net, same = lively(model=model, **changes), build("vivit_tiny", model=model, **changes).double()
    nested = {"params": flax(net)}
    load(same, nested, "scenic")
    assert same_weights(net, same)
    np.savez(tmp_path / "vivit.npz", **dict(flatten(nested)))
    load(fresh := build("vivit_tiny", model=model, **changes).double(), tmp_path / "vivit.npz", "scenic")
    assert same_weights(net, fresh)


def packed(tree: object, limit: int) -> object:
    """As flax.serialization writes arrays: extension 1 holds shape, type and bytes; long ones are cut to pieces."""
    if isinstance(tree, dict):
        return {name: packed(value, limit) for name, value in tree.items()}
    if isinstance(tree, np.ndarray) and tree.size > limit:
        pieces = [tree.ravel()[i : i + limit] for i in range(0, tree.size, limit)]
        shape = {str(i): n for i, n in enumerate(tree.shape)}
        pieces = {str(i): packed(piece, limit) for i, piece in enumerate(pieces)}
        return {"__msgpack_chunked_array__": True, "shape": shape, "chunks": pieces}
    if isinstance(tree, np.ndarray):
        return msgpack.ExtType(1, msgpack.packb((tree.shape, tree.dtype.name, tree.tobytes())))
    return tree


@pytest.mark.parametrize("name", ["checkpoint", "vivit.msgpack"])
@pytest.mark.parametrize("older", [True, False])
def test_the_training_state_that_scenic_saves_gives_its_weights(name, older, tmp_path):
    net, same = lively(), build("vivit_tiny").double()
    weights, momentum = flax(net), {"momentum": np.ones(3), "nothing": np.ones(0)}
    rest = {"global_step": 7, "rng": np.zeros(2, np.uint32), "model_state": None}
    state = {"optimizer": {"target": weights, "state": momentum}} if older else {"params": weights, "state": momentum}
    path = tmp_path / name
    path.write_bytes(msgpack.packb(packed(rest | state, limit=1000)))
    load(same, path, "scenic")
    assert same_weights(net, same)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{name} is not a checkpoint that can be read"):
        load(same, path, "scenic")


OLD_PARTS = {
    "q_proj": "attention.query",
    "k_proj": "attention.key",
    "v_proj": "attention.value",
    "o_proj": "output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def test_old_names_of_hugging_face_load_like_the_new():
    net, same = lively(), build("vivit_tiny").double()
    state = {}
    for ours, names, _ in SOURCES["huggingface"](net):
        tensor = net.state_dict()[ours]
        names = [names] if isinstance(names, str) else names
        for name, part in zip(names, tensor.chunk(len(names)), strict=True):
            old = name.replace("vivit.layers.", "vivit.encoder.layer.")
            for new_part, old_part in OLD_PARTS.items():
                old = old.replace(new_part, old_part)
            if ours.endswith("cls_pos_embed"):
                state[old] = torch.cat([part[None, None], net.encoder.pos_embed.detach().flatten(0, 1)[None]], 1)
            elif ours != "encoder.pos_embed":
                state[old] = part[None, None] if ours == "encoder.cls" else part
    assert "vivit.encoder.layer.0.attention.attention.query.weight" in state
    load(same, state, "huggingface")
    assert same_weights(net, same)


def test_formats_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="huggingface's ViViT is model 1 with a class token and tubelets"):
        load(build("vivit_tiny", model=2), {}, "huggingface")
    with pytest.raises(ValueError, match="no scenic format is known for TimeSformer"):
        load(build("timesformer_tiny"), {}, "scenic")


def test_split_heads_drawn_by_hand():
    """2 x 1 x 2 tokens: half the heads join 0-2 and 1-3 (time), half 0-1 and 2-3 (space)."""
    assert SplitHeads(TIME, SPACE).mask((2, 1, 2)).int().tolist() == [
        [1, 1, 1, 0],
        [1, 1, 0, 1],
        [1, 0, 1, 1],
        [0, 1, 1, 1],
    ]


def test_split_heads_picture_is_their_computation():
    grid, scheme = Grid(2, 2, 3), SplitHeads(TIME, SPACE)
    layer = HalfHeads(8, 4, scheme).double()
    assert reach(layer, grid).equal(scheme.mask(grid))
    assert scheme.computed(grid) == (12 * 2 + 12 * 6) // 2


def test_the_first_half_of_the_heads_attends_along_time():
    layer, x = HalfHeads(8, 2, SplitHeads(TIME, SPACE)).double(), torch.randn(1, 3, 2, 2, 8).double()
    nn.init.eye_(layer.out.weight)
    moved = x.clone()
    moved[:, 1, 0, 1] += 1
    with torch.no_grad():
        change = (layer(moved) - layer(x))[0]
    assert change[0, 0, 1, :4].abs().max() > 0 and change[1, 0, 0, :4].abs().max() == 0  # time: same place
    assert change[0, 0, 1, 4:].abs().max() == 0 and change[1, 0, 0, 4:].abs().max() > 0  # space: same step


@each_model
def test_one_layer_reaches_what_the_model_says(model, changes):
    grid = Grid(2, 2, 2)
    net = lively(model=model, frames=4, size=32, **changes)
    block = net.encoder.blocks[0]
    if model == 2:
        picture = SPACE.mask(grid)

        def compute(z):
            return rearrange(block(rearrange(z, "b t h w d -> (b t) 1 h w d"))[0], "(b t) 1 h w d -> b t h w d", t=2)
    else:
        picture = SplitHeads(TIME, SPACE).mask(grid) if model == 4 else torch.ones(8, 8, dtype=torch.bool)

        def compute(z):
            return block(z)[0]

    assert reach(compute, grid, dim=64).equal(picture)


def start_from_images(net: nn.Module, weights: dict[str, torch.Tensor], how: str | None = None) -> LoadReport:
    start = net.image_start()
    return load_image_weights(net, weights, start.entries, how or start.how)


def test_f6_central_frame_tubelets_at_the_start_embed_the_central_frames_alone():
    """Of each pair of frames the second: time index t // 2."""
    image = build("vivit_tiny", frames=1, tubelet=(1, 16, 16)).double()
    net = lively()
    report = start_from_images(net, image.state_dict())
    assert not report.left_over
    with torch.no_grad():
        torch.testing.assert_close(net.patch_embed(CLIP), image.patch_embed(CLIP[:, :, 1::2]))
        other = CLIP.clone()
        other[:, :, 0::2] = 0
        torch.testing.assert_close(net(CLIP), net(other))


@each_model
def test_a_net_inflated_from_an_image_net_starts_with_its_weights(model, changes):
    image = lively(frames=1, tubelet=(1, 16, 16), depth=3, **changes)
    net = build("vivit_tiny", model=model, **changes).double()
    report = start_from_images(net, image.state_dict(), "average")
    fresh = {name.split(".")[0] for name in report.fresh}
    assert fresh == ({"time_encoder"} if model == 2 else set()) and not report.left_over
    kernel = inflate_conv(image.patch_embed.project.weight[:, :, 0], 2)
    assert net.patch_embed.project.weight.equal(kernel)
    steps = net.encoder.pos_embed
    assert all(step.equal(image.encoder.pos_embed[0]) for step in steps)
    if model == 3:
        assert net.encoder.blocks[1].attentions[0].qkv.weight.equal(net.encoder.blocks[1].attentions[1].qkv.weight)


def test_a_still_video_gives_the_image_nets_answer_after_inflation():
    """Model 1, mean pooled: attention over copies of a token is attention over one."""
    image = lively(frames=1, tubelet=(1, 16, 16), pool="gap")
    net = build("vivit_tiny", pool="gap").double().eval()
    start_from_images(net, image.state_dict(), "average")
    still = CLIP[:, :, :1]
    with torch.no_grad():
        torch.testing.assert_close(net(still.expand(-1, -1, 8, -1, -1)), image(still))


@each_model
def test_without_a_time_code_and_with_one_frame_patches_reversal_changes_nothing(model, changes):
    net = lively(model=model, frames=4, tubelet=(1, 16, 16), **changes)
    for encoder in (part for part in net.modules() if isinstance(part, Encoder)):
        encoder.pos_embed.data = encoder.pos_embed.data[:1].expand_as(encoder.pos_embed).clone()
    clip = CLIP[:, :, :4]
    with torch.no_grad():
        torch.testing.assert_close(net(clip.flip(2)), net(clip))
        torch.testing.assert_close(net(clip[:, :, [2, 0, 3, 1]]), net(clip))


def test_f7_averaging_steps_is_not_blind_when_a_tubelet_holds_two_frames():
    """The paper's pooling baseline: model 2 without its second encoder. Motion inside a tubelet is visible."""
    one, two = (lively(model=2, pool="gap", frames=n, tubelet=(n // 4, 16, 16), time_depth=0) for n in (4, 8))
    clip = CLIP[:, :, :4]
    with torch.no_grad():
        torch.testing.assert_close(one(clip.flip(2)), one(clip))
        torch.testing.assert_close(one(clip[:, :, [2, 0, 3, 1]]), one(clip))
        assert (two(CLIP.flip(2)) - two(CLIP)).abs().max() > 1e-3


def test_uniform_frames_are_the_first_of_each_tubelet():
    net = lively(embed="uniform")
    assert net.patch_embed.project.weight.shape[2] == 1
    other = CLIP.clone()
    other[:, :, 1::2] = 0
    with torch.no_grad():
        torch.testing.assert_close(net(CLIP), net(other))
        assert (net(CLIP) - net(CLIP.roll(1, 2))).abs().max() > 1e-3


def test_norms_activation_and_head_are_the_released_ones():
    net = build("vivit_tiny", model=2)
    assert {m.eps for m in net.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    assert {m.approximate for m in net.modules() if isinstance(m, nn.GELU)} == {"tanh"}
    assert not net.head.weight.any() and not net.encoder.cls.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model=5), "unknown model 5: .*There are 1, 2, 3, 4"),
        (dict(model=4), "model 4 has no class token"),
        (dict(embed="patches"), "unknown embed 'patches'"),
        (dict(pool="max"), "unknown pool 'max'"),
        (dict(frames=7), "t=7 is not a multiple of 2"),
        (dict(model=4, pool="gap", heads=1), "heads=1 do not split into halves"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build("vivit_tiny", **changes)


def test_a_clip_of_another_length_is_refused():
    with pytest.raises(ValueError, match="the clip gives t=8 tokens, the network was built for t=4"):
        build("vivit_tiny")(torch.zeros(1, 3, 16, 64, 64))
