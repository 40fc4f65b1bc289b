"""Released checkpoints load strictly and give the released logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from reference import recipe

from course_lib.analysis.cost import cost
from course_lib.models import build
from course_lib.official import load

RECORDS = Path(__file__).parent / "reference"
GOLDEN = [  # record, network, attention, source
    ("timesformer_divided_8x224", "timesformer_b_8x224", "divided", "timesformer"),
    ("timesformer_space_only_8x224", "timesformer_b_8x224", "space", "timesformer"),
    ("hf_timesformer_divided", "timesformer_b_8x224", "divided", "huggingface"),
    pytest.param("timesformer_hr_16x448", "timesformer_hr_16x448", "divided", "timesformer", marks=pytest.mark.slow),
    pytest.param("timesformer_l_96x224", "timesformer_l_96x224", "divided", "timesformer", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("record", "name", "attention", "source"), GOLDEN)
def test_official_weights_give_the_official_logits(record, name, attention, source, all_cores):
    golden = recipe.record(RECORDS / f"{record}.json")
    net = build(name, attention=attention).eval()
    report = load(net, recipe.state_dict(golden), source)
    assert len(report.loaded) == len(net.state_dict()) and not report.left_over
    with torch.inference_mode():
        logits = net(recipe.clip(golden["input_shape"]))
    assert recipe.distance(logits, golden) <= 2e-5
    counted = cost(net, golden["input_shape"])
    assert counted.parameters == golden["params"]
    assert counted.macs / 1e9 == pytest.approx(golden["cost"]["gmacs"], rel=0.005)


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
    assert net.state_dict()["space_code.place"][1, 0].equal(
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
    with pytest.raises(ValueError, match="not a checkpoint that can be read"):
        load(build("timesformer_tiny"), tmp_path / "trap.pyth", "timesformer")
    assert not (tmp_path / "sprung").exists()


def test_records_hold_what_the_recipe_needs():
    for path in RECORDS.glob("*.json"):
        golden = json.loads(path.read_text())
        assert len(golden["logits"]) == 400 and golden["keys"] and golden["params"]
