"""Released checkpoints load strictly and give the released logits."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import recipe

from course_lib.analysis.cost import cost
from course_lib.models import build
from course_lib.official import SOURCES, load
from course_lib.official.pyslowfast import from_caffe2

RECORDS = Path(__file__).parent / "reference"
SLOW = pytest.mark.slow
GOLDEN = [  # record, network, changes, source
    ("i3d_inception", "i3d_inception", {}, "piergiaj"),
    ("i3d_inception_hassony", "i3d_inception", {}, "hassony2"),
    ("C2D_8x8_R50", "c2d_r50_8x8", {}, "pyslowfast"),
    ("C2D_NLN_8x8_R50", "c2d_nl_r50_8x8", {}, "pyslowfast"),
    ("I3D_8x8_R50", "i3d_r50_8x8", {}, "pyslowfast"),
    ("I3D_8x8_R101", "i3d_r101", {}, "pyslowfast"),
    ("I3D_NLN_8x8_R50", "i3d_nl_r50_8x8", {}, "pyslowfast"),
    ("ptv_c2d_r50", "c2d_r50_8x8", {}, "pytorchvideo"),
    ("ptv_i3d_r50", "i3d_r50_8x8", {}, "pytorchvideo"),
    ("r3d_18", "r3d_18", {}, "torchvision"),
    ("mc3_18", "mc3_18", {}, "torchvision"),
    ("r2plus1d_18", "r2plus1d_18", {}, "torchvision"),
    ("r2plus1d_18_9x120x101", "r2plus1d_18", {}, "torchvision"),
    ("vmz_r2plus1d_34", "r2plus1d_34", {}, "torchvision"),
    ("ptv_r2plus1d_r50", "r2plus1d_r50_16x4", {}, "pytorchvideo"),
    ("ptv_r2plus1d_r50_256x288", "r2plus1d_r50_16x4", {}, "pytorchvideo"),
    ("SLOW_8x8_R50", "slow_r50_8x8", {}, "pyslowfast"),
    ("SLOW_8x8_R50_256x320", "slow_r50_8x8", {}, "pyslowfast"),
    ("ptv_slow_r50", "slow_r50_8x8", {}, "pytorchvideo"),
    ("SLOWFAST_4x16_R50", "slowfast_r50_4x16", {}, "pyslowfast"),
    ("SLOWFAST_8x8_R50", "slowfast_r50_8x8", {}, "pyslowfast"),
    ("ptv_slowfast_r50", "slowfast_r50_8x8", {}, "pytorchvideo"),
    ("SLOWFAST_16x8_R50_SSv2", "slowfast_r50_16x8_ssv2", {}, "pyslowfast"),
    ("SLOWFAST_NLN_8x8_R50", "slowfast_nl_r50_8x8", {}, "pyslowfast"),
    ("SLOWFAST_NLN_8x8_R50_softmax", "slowfast_nl_r50_8x8", {"affinity": "softmax"}, "pyslowfast"),
    ("SLOWFAST_8x8_R101_50_50", "slowfast_r101_8x8_50_50", {}, "pyslowfast"),
    ("SLOWFAST_8x8_R101_50_101", "slowfast_r101_8x8_50_101", {}, "pyslowfast"),
    ("SLOWFAST_8x8_R101_101_101", "slowfast_r101_8x8_101_101", {}, "pyslowfast"),
    ("ptv_slowfast_r101_16x8", "slowfast_r101_16x8_50_50", {}, "pytorchvideo"),
    ("SLOWFAST_NLN_16x8_R101_50_50", "slowfast_nl_r101_16x8_50_50", {}, "pyslowfast"),
    ("vidtr_s_8x224", "vidtr_s_8x224", {}, "gluonmm"),
    ("cvidtr_s_8x224", "cvidtr_s_8x224", {}, "gluonmm"),
    ("pyslowfast_mvit_b_small_8x112", "mvit_b_16x4", {"frames": 8, "size": 112}, "pyslowfast"),
    ("pyslowfast_mvit_b_16x4", "mvit_b_16x4", {}, "pyslowfast"),
    ("pyslowfast_mvitv2_s_16x4", "mvitv2_s_16x4", {}, "pyslowfast"),
    ("pytorchvideo_mvit_base_16x4", "mvit_b_16x4", {}, "pytorchvideo"),
    ("torchvision_mvit_v1_b", "mvit_b_16x4", {}, "torchvision"),
    pytest.param("pyslowfast_mvitv2_l_40x3", "mvitv2_l_40x3", {}, "pyslowfast", marks=SLOW),
    ("videoswin_t_small_16x112", "video_swin_t_32x224", {}, "videoswin"),
    ("videoswin_t_k400", "video_swin_t_32x224", {}, "videoswin"),
    ("videoswin_b_k400", "video_swin_b_32x224", {}, "videoswin"),
    ("torchvision_swin3d_t", "video_swin_t_32x224", {}, "torchvision"),
    ("torchvision_swin3d_b", "video_swin_b_32x224", {}, "torchvision"),
    ("vtn_vit_b", "vtn_vit_b", {}, "vtn"),
    ("vtn_vit_b_window4", "vtn_vit_b", {"window": 4}, "vtn"),
    ("hf_vivit_b_16x2", "vivit_b_16x2_model1", {}, "huggingface"),
    ("scenic_vivit_model1_gap_b_16x2", "vivit_b_16x2_model1", {"pool": "gap"}, "scenic"),
    ("scenic_vivit_model2_fe_b_16x2", "vivit_b_16x2_model2", {}, "scenic"),
    ("scenic_vivit_model4_fdp_b_16x2", "vivit_b_16x2_model4", {}, "scenic"),
    ("timesformer_divided_8x224", "timesformer_b_8x224", {}, "timesformer"),
    ("timesformer_space_only_8x224", "timesformer_b_8x224", {"attention": "space"}, "timesformer"),
    ("hf_timesformer_divided", "timesformer_b_8x224", {}, "huggingface"),
    pytest.param("timesformer_hr_16x448", "timesformer_hr_16x448", {}, "timesformer", marks=SLOW),
    pytest.param("timesformer_l_96x224", "timesformer_l_96x224", {}, "timesformer", marks=SLOW),
]


@pytest.mark.parametrize(("record", "name", "changes", "source"), GOLDEN)
def test_official_weights_give_the_official_logits(record, name, changes, source, all_cores):
    golden = recipe.record(RECORDS / f"{record}.json")
    net = build(name, **changes).eval()
    report = load(net, recipe.state_dict(golden), source)
    assert set(report.loaded) == {key for key, tensor in net.state_dict().items() if tensor.is_floating_point()}
    assert not report.left_over
    clip, indices = recipe.clip(golden["input_shape"]), golden.get("config", {}).get("frame_indices")
    with torch.inference_mode():
        logits = net(clip) if indices is None else net(clip, torch.tensor([indices]))
    assert recipe.distance(logits, golden) <= 2e-5
    counted = cost(net, golden["input_shape"])
    gmacs = golden["gmacs"]["conv_linear_matmul"] if "gmacs" in golden else golden["cost"]["gmacs"]
    assert counted.parameters == golden["params"]
    assert counted.macs / 1e9 == pytest.approx(gmacs, rel=0.005)


def test_every_golden_check_fits_in_8_gb():
    """The largest: 64 frames through two paths of 101 layers with non-local blocks."""
    run = subprocess.run([sys.executable, "-c", MEMORY], cwd=RECORDS.parent, capture_output=True, text=True, check=True)
    assert int(run.stdout) / 2**20 < 8


MEMORY = """
import torch
from reference import recipe
from course_lib.models import build
net = build("slowfast_nl_r101_16x8_50_50").eval()
with torch.inference_mode():
    net(recipe.clip((1, 3, 64, 224, 224)))
# not ru_maxrss, which begins with the peak of the process that started this one
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak)
"""


SMALL = dict(dim=24, depth=2, heads=2, size=32, classes=5, frames=4)


def small_official(attention: str = "divided") -> dict[str, torch.Tensor]:
    """A checkpoint in the released format, by hand: names from the record, sizes of a small net."""
    golden = recipe.record(RECORDS / "timesformer_divided_8x224.json")
    sizes = {768: 24, 2304: 72, 3072: 96, 400: 5, 197: 5, 8: 4}
    keys = [(k, s) for k, s in golden["keys"] if "blocks." not in k or k.split(".")[2] in "01"]
    if attention == "joint":
        keys = [(k, s) for k, s in keys if "temporal" not in k]
    return {k: recipe.tensor(k, [sizes.get(n, n) for n in shape]) for k, shape in keys}


def test_every_official_tensor_lands_in_one_of_ours_unchanged():
    state = small_official()
    net = build("timesformer_tiny", **SMALL)
    load(net, state, "timesformer")
    assert sum(p.numel() for p in net.parameters()) == sum(t.numel() for t in state.values())
    assert net.state_dict()["pos_embed.weight"][1, 0].equal(
        state["model.pos_embed"][0, 3]
    )  # row 1 of 2, after the class token
    assert sorted(v.double().sum().item() for v in net.state_dict().values() if v.ndim == 2)[-1] == pytest.approx(
        sorted(v.double().sum().item() for v in state.values() if v.ndim == 2)[-1]
    )


def test_joint_attention_loads_from_its_own_release():
    net = build("timesformer_tiny", attention="joint", **SMALL)
    assert len(load(net, small_official("joint"), "timesformer").loaded) == len(net.state_dict())


@pytest.mark.parametrize("suffix", [".pyth", ".safetensors"])
def test_a_checkpoint_file_is_read_in_its_wrapper(tmp_path, suffix):
    path, state = tmp_path / f"weights{suffix}", small_official()
    if suffix == ".pyth":
        torch.save({"epoch": 14, "model_state": state, "cfg": "TRAIN: ..."}, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    net, same = build("timesformer_tiny", **SMALL), build("timesformer_tiny", **SMALL)
    load(net, path, "timesformer"), load(same, state, "timesformer")
    assert all(a.equal(b) for a, b in zip(net.parameters(), same.parameters(), strict=True))


def test_missing_unexpected_and_misshapen_tensors_are_all_named_and_nothing_is_loaded():
    state = small_official()
    del state["model.norm.bias"]
    state["model.extra"] = torch.zeros(3)
    state["model.head.weight"] = torch.zeros(7, 24)
    state["model.pos_embed"] = torch.zeros(24)
    net = build("timesformer_tiny", **SMALL)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load(net, state, "timesformer")
    text = str(caught.value)
    for line in (
        "missing: model.norm.bias",
        "unexpected: model.extra",
        "misshapen: model.head.weight (7, 24) for head.weight (5, 24)",
        "misshapen: model.pos_embed (24,)",
    ):
        assert line in text
    assert all(tensor.equal(before[name]) for name, tensor in net.state_dict().items())


def test_integer_buffers_may_be_left_over_and_are_named():
    state = {**small_official(), "model.steps": torch.tensor(3)}
    assert load(build("timesformer_tiny", **SMALL), state, "timesformer").left_over == ("model.steps",)


def test_formats_that_were_never_released_are_refused():
    with pytest.raises(ValueError, match="unknown checkpoint format 'timm'"):
        load(build("timesformer_tiny"), {}, "timm")
    with pytest.raises(ValueError, match="no checkpoint with attention='axial' was released"):
        load(build("timesformer_tiny", attention="axial"), {}, "timesformer")
    with pytest.raises(ValueError, match="does not average over frames"):
        load(build("timesformer_tiny", attention="space"), {}, "huggingface")


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    net = build("timesformer_tiny")
    with pytest.raises(ValueError, match="no checkpoint at"):
        load(net, tmp_path / "nowhere.pyth", "timesformer")
    (tmp_path / "text.pyth").write_text("not weights")
    with pytest.raises(ValueError, match="not a checkpoint that can be read"):
        load(net, tmp_path / "text.pyth", "timesformer")
    torch.save([1, 2], tmp_path / "list.pyth")
    with pytest.raises(ValueError, match="holds no state dict"):
        load(net, tmp_path / "list.pyth", "timesformer")


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    torch.save({"model_state": Trap()}, tmp_path / "trap.pyth")
    with pytest.raises(ValueError, match="holds no state dict of tensors"):
        load(build("timesformer_tiny"), tmp_path / "trap.pyth", "timesformer")
    assert not (tmp_path / "sprung").exists()


def test_records_hold_what_the_recipe_needs():
    for path in RECORDS.glob("*.json"):
        golden = json.loads(path.read_text())
        assert len(golden["logits"]) in (400, 174, 512) and golden["keys"] and golden["params"]


SMALL_NETS = [  # of every conv code base one network with all it has, made small
    ("i3d_tiny", {}, "piergiaj"),
    ("i3d_tiny", {}, "hassony2"),
    ("nonlocal_tiny", {}, "pyslowfast"),
    ("slowfast_tiny", dict(nonlocal_after=((), (0,), (), ())), "pyslowfast"),
    ("slowfast_tiny", {}, "pytorchvideo"),
    ("slowfast_tiny", dict(paths=("slow",)), "pytorchvideo"),
    ("r2plus1d_tiny", dict(convolutions="r2plus1d_bottleneck", width=8), "pytorchvideo"),
    ("r2plus1d_tiny", {}, "torchvision"),
    ("r2plus1d_tiny", dict(convolutions="mc3"), "torchvision"),
]


@pytest.mark.parametrize(("name", "changes", "source"), SMALL_NETS)
def test_conv_formats_are_strict_both_ways_and_change_nothing_when_they_refuse(name, changes, source):
    net, fresh = build(name, **changes), build(name, **changes)
    state = {official: net.state_dict()[ours] for ours, official, _ in SOURCES[source](net)}
    assert len(state) == sum(tensor.is_floating_point() for tensor in net.state_dict().values())
    load(fresh, state, source)
    assert all(a.equal(b) for a, b in zip(fresh.parameters(), net.parameters(), strict=True))
    first, second, third = list(state)[:3]
    broken = {**state, "extra.weight": torch.zeros(2), "steps": torch.tensor(7), second: torch.zeros(1, 2, 3)}
    del broken[first], broken[third]
    before = {key: tensor.clone() for key, tensor in fresh.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load(fresh, broken, source)
    for line in (
        f"missing: {first}",
        f"missing: {third}",
        "unexpected: extra.weight",
        f"misshapen: {second} (1, 2, 3)",
    ):
        assert line in str(caught.value)
    assert "steps" not in str(caught.value)
    assert all(tensor.equal(before[key]) for key, tensor in fresh.state_dict().items())


def test_counters_of_batch_norm_may_come_along_and_are_named():
    net = build("r2plus1d_tiny")
    state = {official: net.state_dict()[ours] for ours, official, _ in SOURCES["torchvision"](net)}
    report = load(net, {**state, "stem.1.num_batches_tracked": torch.tensor(9)}, "torchvision")
    assert report.left_over == ("stem.1.num_batches_tracked",)


@pytest.mark.parametrize(
    ("name", "changes", "source", "message"),
    [
        ("r3d_18", {}, "pyslowfast", "no pyslowfast format is known for R2Plus1D"),
        (
            "c2d_r50_8x8",
            {"nonlocal_after": ((0,), (), (), ()), "affinity": "gaussian"},
            "pyslowfast",
            "'gaussian' was rel",
        ),
        ("slowfast_tiny", {"join": "t_sample"}, "pyslowfast", "no checkpoint with join='t_sample' was released"),
        ("slowfast_tiny", {"paths": ("fast",)}, "pyslowfast", "no checkpoint of the fast path alone"),
        ("nonlocal_tiny", {}, "pytorchvideo", "no pytorchvideo checkpoint has non-local blocks"),
        (
            "slowfast_tiny",
            {"join": "none"},
            "pytorchvideo",
            "pytorchvideo released Slow, and SlowFast with join='t_conv'",
        ),
        ("r2plus1d_tiny", {}, "pytorchvideo", "no pytorchvideo format is known for this R2Plus1D"),
        ("timesformer_tiny", {}, "torchvision", "no torchvision format is known for this TimeSformer"),
        ("i3d_tiny", {"image": True}, "piergiaj", "no piergiaj format is known for this I3D"),
        ("i3d_tiny", {}, "timesformer", "no timesformer format is known for I3D"),
    ],
)
def test_networks_that_a_code_base_does_not_have_are_refused(name, changes, source, message):
    with torch.device("meta"):
        net = build(name, **changes)
    with pytest.raises(ValueError, match=message):
        load(net, {}, source)


CAFFE2 = {  # blob: name in the .pyth files, by hand from the published conversion
    "conv1_w": "s1.pathway0_stem.conv.weight",
    "res_conv1_bn_s": "s1.pathway0_stem.bn.weight",
    "t_conv1_w": "s1.pathway1_stem.conv.weight",
    "t_res_conv1_bn_riv": "s1.pathway1_stem.bn.running_var",
    "res2_0_branch1_w": "s2.pathway0_res0.branch1.weight",
    "t_res2_0_branch1_bn_b": "s2.pathway1_res0.branch1_bn.bias",
    "res4_5_branch2b_bn_rm": "s4.pathway0_res5.branch2.b_bn.running_mean",
    "t_res3_1_branch2a_w": "s3.pathway1_res1.branch2.a.weight",
    "res4_22_branch2c_bn_s": "s4.pathway0_res22.branch2.c_bn.weight",
    "nonlocal_conv3_1_theta_b": "s3.pathway0_nonlocal1.conv_theta.bias",
    "nonlocal_conv4_20_g_w": "s4.pathway0_nonlocal20.conv_g.weight",
    "nonlocal_conv4_5_bn_s": "s4.pathway0_nonlocal5.bn.weight",
    "t_pool1_subsample_w": "s1_fuse.conv_f2s.weight",
    "t_pool1_subsample_bn_rm": "s1_fuse.bn.running_mean",
    "t_res4_22_branch2c_bn_subsample_w": "s4_fuse.conv_f2s.weight",
    "t_res2_2_branch2c_bn_subsample_bn_s": "s2_fuse.bn.weight",
    "pred_w": "head.projection.weight",
    "pred_b": "head.projection.bias",
}


def test_caffe2_blobs_get_the_published_names():
    blobs = {blob: torch.full((1,), float(i)) for i, blob in enumerate(CAFFE2)}
    state = from_caffe2({**blobs, "lr": torch.ones(1), "conv1_w_momentum": torch.ones(1), "model_iter": torch.ones(1)})
    assert {name: tensor.item() for name, tensor in state.items()} == {
        name: float(i) for i, name in enumerate(CAFFE2.values())
    }


def caffe2_name(official: str) -> str:
    """The blob of a PySlowFast tensor, written from the Caffe2 side."""
    path, kind = official.rsplit(".", 1)
    bn = path.endswith("bn")
    kind = {"weight": "s" if bn else "w", "bias": "b", "running_mean": "rm", "running_var": "riv"}[kind]
    if path == "head.projection":
        return f"pred_{kind}"
    fast = "t_" if "pathway1" in path or "fuse" in path else ""
    stage, rest = path[1], path.split("_", 1)[1] if "pathway" in path else path
    if "fuse" in path:
        source = "pool1" if stage == "1" else f"res{stage}_0_branch2c_bn"  # one block a stage in the tiny network
        return f"t_{source}_subsample_{'bn_' if bn else ''}{kind}"
    if "stem" in path:
        return f"{fast}{'res_conv1_bn' if bn else 'conv1'}_{kind}"
    if "nonlocal" in path:
        block, part = rest.removeprefix("nonlocal").split(".")
        return f"nonlocal_conv{stage}_{block}_{part.removeprefix('conv_')}_{kind}"
    block, branch = rest.removeprefix("res").split(".", 1)
    return f"{fast}res{stage}_{block}_{branch.replace('.', '')}_{kind}"


def test_a_caffe2_pickle_loads_like_the_pyth_file_it_was_converted_from(tmp_path):
    changes = dict(nonlocal_after=((), (0,), (), ()))
    net, fresh = build("slowfast_tiny", **changes), build("slowfast_tiny", **changes)
    blobs = {caffe2_name(official): net.state_dict()[ours].numpy() for ours, official, _ in SOURCES["pyslowfast"](net)}
    blobs["nonlocal_conv3_0_theta_w"] = blobs["nonlocal_conv3_0_theta_w"][:, :, 0, 0, 0]  # 1x1x1 may come as a matrix
    blobs |= {"conv1_w_momentum": blobs["conv1_w"], "lr": np.float32([0.1]), "model_iter": np.int64([9])}
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({"blobs": blobs, "cfg": "TRAIN: ..."}, protocol=2))
    load(fresh, tmp_path / "net.pkl", "pyslowfast")
    assert all(a.equal(b) for a, b in zip(fresh.parameters(), net.parameters(), strict=True))
    (tmp_path / "more.pkl").write_bytes(pickle.dumps({"blobs": {**blobs, "res9_w": np.ones(2)}}, protocol=2))
    with pytest.raises(ValueError, match="unexpected: res9_w"):
        load(fresh, tmp_path / "more.pkl", "pyslowfast")


def test_a_caffe2_pickle_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    (tmp_path / "trap.pkl").write_bytes(pickle.dumps({"blobs": {"conv1_w": Trap()}}))
    with pytest.raises(ValueError, match=r"(?s)holds no state dict of tensors"):
        load(build("slowfast_tiny"), tmp_path / "trap.pkl", "pyslowfast")
    assert not (tmp_path / "sprung").exists()
    (tmp_path / "other.pkl").write_bytes(pickle.dumps(["no", "blobs"]))
    with pytest.raises(ValueError, match="holds no state dict of tensors"):
        load(build("slowfast_tiny"), tmp_path / "other.pkl", "pyslowfast")
