"""Image checkpoints start video networks: right names, right answers, an honest report."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import recipe
from safetensors.torch import save_file
from torch import Tensor, nn

from course_lib.layers.inflate import inflate_conv
from course_lib.models import build
from course_lib.official import load, timesformer
from course_lib.official.images import fill, image_start, inception, one_frame, resnet, start_from_images, swin

DIM, DEPTH, HEADS = 64, 3, 4  # of the tiny ViTs


def random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: recipe.tensor(name, shape) for name, shape in shapes.items()}


def timm_vit(size: int = 64) -> dict[str, Tensor]:
    """A ViT by timm's names, with patches of 16 pixels and 1000 classes."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, DIM),
        "pos_embed": (1, 1 + (size // 16) ** 2, DIM),
        "patch_embed.proj.weight": (DIM, 3, 16, 16),
        "patch_embed.proj.bias": (DIM,),
        "norm.weight": (DIM,),
        "norm.bias": (DIM,),
        "head.weight": (1000, DIM),
        "head.bias": (1000,),
    }
    for i in range(DEPTH):
        for part, out, into in (
            ("attn.qkv", 3 * DIM, DIM),
            ("attn.proj", DIM, DIM),
            ("mlp.fc1", 4 * DIM, DIM),
            ("mlp.fc2", DIM, 4 * DIM),
        ):
            shapes |= {f"blocks.{i}.{part}.weight": (out, into), f"blocks.{i}.{part}.bias": (out,)}
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{norm}.weight": (DIM,), f"blocks.{i}.{norm}.bias": (DIM,)}
    return random(shapes)


def plain_vit(state: dict[str, Tensor], image: Tensor, approximate: str = "none") -> Tensor:
    """The class token after the last norm, without our library."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (DIM,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    x = F.conv2d(image, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + state["pos_embed"]
    for i in range(DEPTH):
        qkv = linear(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv").unflatten(-1, (3, HEADS, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) / (DIM // HEADS) ** 0.5).softmax(-1) @ v
        x = x + linear(y.transpose(1, 2).flatten(2), f"blocks.{i}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1"), approximate=approximate)
        x = x + linear(hidden, f"blocks.{i}.mlp.fc2")
    return norm(x, "norm")[:, 0]


CLIP = torch.randn(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(3))


def test_timesformer_starts_as_the_image_vit():
    net = build("timesformer_tiny", attention="space", frames=1, drop_path=0.0).eval()
    report = start_from_images(net, timm_vit())
    assert set(report.fresh) == {"head.weight", "head.bias"} and report.left_over == ("head.weight", "head.bias")
    net.head = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(net(CLIP[:, :, :1]), plain_vit(timm_vit(), CLIP[:, :, 0]), rtol=1e-4, atol=1e-4)


def test_every_attention_of_divided_timesformer_starts_from_the_images():
    net, state = build("timesformer_tiny"), timm_vit()
    report = start_from_images(net, state)
    block = net.blocks[1]
    assert block.attention.qkv.weight.equal(state["blocks.1.attn.qkv.weight"])
    assert block.first[0].attention.qkv.weight.equal(state["blocks.1.attn.qkv.weight"])
    assert {name.rsplit(".", 2)[-2] for name in report.fresh} == {"time_embed", "project", "head"}


def test_vtns_backbone_is_the_image_vit_frame_by_frame():
    net = build("vtn_tiny").eval()
    report = start_from_images(net, timm_vit())
    with torch.no_grad():
        for t in range(4):
            wanted = plain_vit(timm_vit(), CLIP[:, :, t])
            torch.testing.assert_close(net.backbone(CLIP)[:, t], wanted, rtol=1e-4, atol=1e-4)
    assert all(name.startswith("backbone.") for name in report.loaded)
    assert report.fresh and not any(name.startswith("backbone.") for name in report.fresh)


@pytest.mark.parametrize("model", [1, 2, 3, 4])
def test_vivit_starts_from_the_image_vit_its_kernel_in_the_central_frame(model):
    net, state = build("vivit_tiny", model=model, pool="cls" if model < 3 else "gap"), timm_vit()
    report = start_from_images(net, state)
    kernel = state["patch_embed.proj.weight"]
    assert net.patch_embed.project.weight.equal(inflate_conv(kernel, 2, "centre"))
    assert net.encoder.blocks[2].mlp.up.weight.equal(state["blocks.2.mlp.fc1.weight"])
    assert net.encoder.pos_embed[-1].equal(state["pos_embed"][0, 1:])
    start_from_images(net, state, how="average")
    assert net.patch_embed.project.weight.equal(inflate_conv(kernel, 2, "average"))
    assert {name.split(".")[0] for name in report.fresh} == {"head", *(["time_encoder"] if model == 2 else [])}


def test_vivits_image_twin_gives_the_image_vits_answer():
    twin = image_start(build("vivit_tiny")).image.eval()
    weights, *_ = fill(twin, timm_vit(), "timm")
    twin.load_state_dict(weights, strict=False)
    with torch.no_grad():
        found, wanted = twin.encoder(twin.patch_embed(CLIP[:, :, :1])), plain_vit(timm_vit(), CLIP[:, :, 0], "tanh")
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


TINY_VIDTR = dict(dim=DIM, depth=DEPTH, heads=HEADS)


@pytest.mark.parametrize(("name", "changes"), [("vidtr_tiny", {}), ("cvidtr_tiny", {"pools": ((1, 4),)})])
def test_vidtr_starts_from_the_image_vit(name, changes):
    net, state = build(name, **TINY_VIDTR, **changes), timm_vit()
    report = start_from_images(net, state)
    assert net.blocks[2].mlp.down.weight.equal(state["blocks.2.mlp.fc2.weight"])
    assert {key.split(".")[0] for key in report.fresh} == {"head"}


def torchvision_vit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names, written from its side."""
    parts = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv.weight": "self_attention.in_proj_weight",
        "attn.qkv.bias": "self_attention.in_proj_bias",
        "attn.proj": "self_attention.out_proj",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
    }
    whole = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed.proj": "conv_proj",
        "head": "heads.head",
    }
    renamed = {}
    for name, tensor in state.items():
        if name.startswith("blocks."):
            _, i, part = name.split(".", 2)
            for timms, theirs in parts.items():
                part = part.replace(timms, theirs) if part.startswith(timms) else part
            renamed[f"encoder.layers.encoder_layer_{i}.{part}"] = tensor
        elif name.startswith("norm."):
            renamed[name.replace("norm", "encoder.ln")] = tensor
        else:
            for timms, theirs in whole.items():
                name = name.replace(timms, theirs) if name.startswith(timms) else name
            renamed[name] = tensor
    return renamed


def flax_vit(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The names and layouts of the authors' .npz files."""
    out = {
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for i in range(DEPTH):
        us, them = f"blocks.{i}", f"Transformer/encoderblock_{i}"
        for ours, theirs in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            out |= {
                f"{them}/{theirs}/scale": state[f"{us}.{ours}.weight"],
                f"{them}/{theirs}/bias": state[f"{us}.{ours}.bias"],
            }
        for ours, theirs in (("mlp.fc1", "MlpBlock_3/Dense_0"), ("mlp.fc2", "MlpBlock_3/Dense_1")):
            out |= {
                f"{them}/{theirs}/kernel": state[f"{us}.{ours}.weight"].T,
                f"{them}/{theirs}/bias": state[f"{us}.{ours}.bias"],
            }
        attention = f"{them}/MultiHeadDotProductAttention_1"
        weights, biases = (state[f"{us}.attn.qkv.{kind}"].chunk(3) for kind in ("weight", "bias"))
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            out |= {
                f"{attention}/{part}/kernel": weight.T.unflatten(1, (HEADS, -1)),
                f"{attention}/{part}/bias": bias.unflatten(0, (HEADS, -1)),
            }
        out |= {
            f"{attention}/out/kernel": state[f"{us}.attn.proj.weight"].T.unflatten(0, (HEADS, -1)),
            f"{attention}/out/bias": state[f"{us}.attn.proj.bias"],
        }
    return {name: tensor.contiguous().numpy() for name, tensor in out.items()}


def test_timms_torchvisions_and_the_authors_vit_start_the_same_network(tmp_path):
    state, nets = timm_vit(), [build("timesformer_tiny") for _ in range(4)]
    np.savez(tmp_path / "ViT-B_16.npz", **flax_vit(state))
    save_file(state, tmp_path / "vit.safetensors")
    for net, checkpoint, source in zip(
        nets,
        (state, torchvision_vit(state), tmp_path / "ViT-B_16.npz", tmp_path / "vit.safetensors"),
        ("timm", "torchvision", "official", "timm"),
        strict=True,
    ):
        report = start_from_images(net, checkpoint, source)
        assert all(net.state_dict()[name].equal(nets[0].state_dict()[name]) for name in report.loaded)


def official(twin: nn.Module, entries) -> dict[str, Tensor]:
    """An image checkpoint for `twin`: random tensors by the official names, 2-D kernels without a time axis."""
    shapes = {name: tuple(twin.state_dict()[ours].shape) for ours, name, _ in entries}
    return random({name: (*s[:2], *s[3:]) if len(s) == 5 else s for name, s in shapes.items()})


def plain_resnet(state: dict[str, Tensor], image: Tensor) -> Tensor:
    """Features of torchvision's ResNet with bottlenecks, averaged over places, without our library."""

    def conv_bn(x: Tensor, conv: str, bn: str, **how: int) -> Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"], **how)
        return F.batch_norm(x, *(state[f"{bn}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")))

    x = F.max_pool2d(conv_bn(image, "conv1", "bn1", stride=2, padding=3).relu(), 3, 2, 1)
    for stage in (1, 2, 3, 4):
        i = 0
        while (block := f"layer{stage}.{i}") + ".conv1.weight" in state:
            stride = 2 if stage > 1 and i == 0 else 1
            y = conv_bn(x, f"{block}.conv1", f"{block}.bn1").relu()
            y = conv_bn(y, f"{block}.conv2", f"{block}.bn2", stride=stride, padding=1).relu()
            y = conv_bn(y, f"{block}.conv3", f"{block}.bn3")
            if i == 0:
                x = conv_bn(x, f"{block}.downsample.0", f"{block}.downsample.1", stride=stride)
            x, i = (x + y).relu(), i + 1
    return x.mean((2, 3))


def resnet50() -> dict[str, Tensor]:
    twin = image_start(build("c2d_r50_8x8")).image
    state = official(twin, resnet(twin))
    return {
        **state,
        "fc.weight": torch.zeros(1000, 2048),
        "fc.bias": torch.zeros(1000),
        "bn1.num_batches_tracked": torch.tensor(1),
    }


def test_resnet_by_torchvisions_names_gives_its_features_frame_by_frame():
    net, state = build("vtn_tiny", backbone="r50").eval(), resnet50()
    report = start_from_images(net, state, "torchvision")
    assert report.left_over == ("fc.weight", "fc.bias", "bn1.num_batches_tracked")
    with torch.no_grad():
        found = net.backbone(CLIP[:1, :, :2])
        for t in range(2):
            wanted = plain_resnet(state, CLIP[:1, :, t])
            assert (found[:, t] - wanted).abs().max() < 1e-4 * wanted.std()


def test_i3d_resnet_starts_from_the_inflated_resnet_and_its_non_local_blocks_stay_fresh():
    net, state = build("i3d_nl_r50_8x8"), resnet50()
    report = start_from_images(net, state, "torchvision")
    kernel = inflate_conv(state["layer1.0.conv1.weight"], 3)
    assert net.res2.block0.a.conv.weight.equal(kernel)
    fresh = {name for name in report.fresh if "num_batches" not in name and "nonlocal" not in name}
    assert fresh == {"head.weight", "head.bias"}


def test_the_slow_path_alone_starts_from_a_resnet_and_slowfast_from_nothing():
    net, state = build("slow_r50_8x8"), resnet50()
    report = start_from_images(net, state, "torchvision")
    kernel = inflate_conv(state["layer3.2.conv1.weight"], 3)
    assert net.paths["slow"].res4.block2.a.conv.weight.equal(kernel)
    assert {name for name in report.fresh if "num_batches" not in name} == {"head.weight", "head.bias"}
    with pytest.raises(ValueError, match=r"SlowFast learns from nothing in its paper; .*paths=\('slow',\)"):
        start_from_images(build("slowfast_tiny"), state, "torchvision")


def test_googlenet_starts_inception_i3d():
    net = build("i3d_inception")
    twin = image_start(net).image
    state = official(twin, inception(twin))
    assert state["inception3a.branch2.1.conv.weight"].shape == (128, 96, 3, 3)  # as in torchvision's source
    assert state["inception5b.branch4.1.conv.weight"].shape == (128, 832, 1, 1)
    report = start_from_images(
        net, {**state, "aux1.fc2.bias": torch.zeros(2), "fc.bias": torch.zeros(2)}, "torchvision"
    )
    assert net.layers.conv_1a.conv.weight.equal(inflate_conv(state["conv1.conv.weight"], 7))
    assert net.layers.mixed_4f.small[1].conv.weight.equal(inflate_conv(state["inception4e.branch3.1.conv.weight"], 3))
    assert {name for name in report.fresh if "num_batches" not in name} == {"head.weight", "head.bias"}


@pytest.mark.parametrize("source", ["official", "timm", "torchvision"])
def test_swin_by_three_sets_of_names_starts_the_same_network(source):
    net, same = build("video_swin_tiny"), build("video_swin_tiny")
    twin = image_start(net).image
    state = official(twin, swin(twin, "official"))
    named = {ours: name for ours, name, _ in swin(twin, "official")}
    other = {name: state[named[ours]] for ours, name, _ in swin(twin, source)}
    table = next(name for name in state if name.endswith("bias_table"))
    assert state[table].ndim == 3  # ours: heads, times, places; below as released
    for names in (state, other):
        for name, tensor in names.items():
            if name.endswith("bias_table"):
                names[name] = tensor.flatten(1).T
    start_from_images(net, state, "official")
    report = start_from_images(same, other, source)
    assert all(net.state_dict()[name].equal(same.state_dict()[name]) for name in report.loaded)
    assert net.patch_embed.project.weight.equal(inflate_conv(state["patch_embed.proj.weight"], 2))


def test_timm_counts_a_merging_with_the_stage_after_it():
    twin = image_start(build("video_swin_tiny")).image
    assert "layers.1.downsample.norm.weight" in {name for _, name, _ in swin(twin, "timm")}
    assert "layers.0.downsample.norm.weight" in {name for _, name, _ in swin(twin, "official")}
    assert "layers.0.downsample.norm.weight" not in {name for _, name, _ in swin(twin, "timm")}
    assert "features.2.norm.weight" in {name for _, name, _ in swin(twin, "torchvision")}


def test_what_is_missing_misshapen_or_strange_is_named_and_nothing_is_loaded():
    net, state = build("timesformer_tiny"), timm_vit(size=96)
    del state["blocks.2.norm1.bias"]
    state["dist_token"] = torch.zeros(1, 1, DIM)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        start_from_images(net, state)
    for line in (
        "build with size=",
        "missing: blocks.2.norm1.bias",
        "unexpected: dist_token",
        "misshapen: pos_embed (1, 37, 64)",
    ):
        assert line in str(caught.value)
    assert all(tensor.equal(before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("name", ["r2plus1d_tiny", "mvit_tiny", "mvitv2_tiny"])  # MViTv2-L did start from images
def test_networks_without_a_way_from_images_say_so(name):
    with pytest.raises(ValueError, match=r"no way from an image .* load a released video checkpoint"):
        start_from_images(build(name), {})


@pytest.mark.parametrize(("prefix", "advice"), [("unknown.", "under a prefix?"), ("", "the checkpoint's classes")])
def test_a_video_checkpoint_that_does_not_fit_is_told_from_one_under_other_names(prefix, advice):
    net = build("timesformer_tiny")
    state = {prefix + name: torch.zeros(7) for _, name, _ in timesformer.entries(net)}
    with pytest.raises(ValueError, match="do not fit TimeSformer") as caught:
        load(net, state, "timesformer")
    assert advice in str(caught.value)


def test_a_kernel_without_a_time_axis_gets_one():
    assert one_frame(torch.zeros(4, 3, 2, 2)).shape == (4, 3, 1, 2, 2) and one_frame(torch.zeros(4)).shape == (4,)
