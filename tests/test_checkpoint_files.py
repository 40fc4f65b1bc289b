"""One checkpoint gives one result, however it is handed over; and nothing in it is ever run."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from reference import recipe
from test_images import timm_vit
from torch import nn

from course_lib.models import build
from course_lib.official import load
from course_lib.official.images import start_from_images
from course_lib.official.read import read

SHAPES = {"conv.weight": (2, 3, 1, 1), "conv.bias": (2,), "norm.running_mean": (2,)}
STATE = {name: recipe.tensor(name, shape) for name, shape in SHAPES.items()}


def legacy(content: object, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, _use_new_zipfile_serialization=False)


def npz(content: dict) -> bytes:
    file = io.BytesIO()
    np.savez(file, **content)
    return file.getvalue()


def arrays(content: dict) -> dict:
    return {name: tensor.numpy() for name, tensor in content.items()}


WRITERS = {
    "torch": lambda path: torch.save(STATE, path),
    "torch, ordered": lambda path: torch.save(OrderedDict(STATE), path),
    "torch, a training state": lambda path: torch.save({"epoch": 3, "model_state": STATE, "best": torch.ones(1)}, path),
    "torch before zip": lambda path: legacy({"state_dict": STATE}, path),
    "safetensors": lambda path: safetensors.torch.save_file(STATE, path),
    "npz": lambda path: path.write_bytes(npz(arrays(STATE))),
    "caffe2": lambda path: path.write_bytes(pickle.dumps({"blobs": arrays(STATE), "cfg": "x: 1"}, protocol=2)),
    "pickle of python 2": lambda path: path.write_bytes(pickle.dumps({"blobs": arrays(STATE)}, protocol=0)),
}


@pytest.mark.parametrize("suffix", ["", ".pth", ".pkl", ".pyth", ".bin", ".npz", ".safetensors"])
@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_is_known_by_its_content_whatever_its_name(kind, suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    WRITERS[kind](path)
    with path.open("rb") as file:
        given = {"path": path, "string": str(path), "open file": file, "bytes": io.BytesIO(path.read_bytes())}
        for how, checkpoint in given.items():
            found = read(checkpoint)
            assert set(found) == set(STATE), how
            assert all(torch.equal(found[name], STATE[name]) for name in STATE), how
        assert not file.closed, "it is the caller's"


def test_a_dict_gives_what_the_same_content_gives_as_a_file(tmp_path):
    net = build("timesformer_tiny")
    official = {name: x for name, x in _timesformer_names(net).items()}
    for content in (
        official,
        {"model_state": official, "epoch": 3},
        {"model": official, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}},
    ):
        torch.save(content, tmp_path / "file")
        for checkpoint in (content, tmp_path / "file"):
            other = build("timesformer_tiny")
            assert load(other, checkpoint, "timesformer").stripped == ""
            assert _equal(net, other)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.", "model.module."]
)
def test_the_prefix_of_a_wrapper_is_cut_off_and_named(prefix):
    net, other = build("timesformer_tiny"), build("timesformer_tiny")
    wrapped = {prefix + name: x for name, x in _timesformer_names(net).items()}
    report = load(other, wrapped, "timesformer")
    assert report.stripped == prefix and repr(prefix) in str(report) and _equal(net, other)
    image = build("timesformer_tiny", frames=1, attention="space")
    report = start_from_images(image, {prefix + name: x for name, x in timm_vit().items()})
    assert report.stripped == prefix and report.fresh == ("head.weight", "head.bias")


def test_an_averaged_model_of_torch_loads_as_it_was_saved():
    net, other = build("timesformer_tiny"), build("timesformer_tiny")
    averaged = {f"module.{name}": x for name, x in _timesformer_names(net).items()} | {"n_averaged": torch.tensor(7)}
    assert load(other, averaged, "timesformer").stripped == "module." and _equal(net, other)


def test_what_is_missing_behind_a_prefix_is_named_alone():
    names = _timesformer_names(build("timesformer_tiny"))
    names.pop("model.head.weight")
    with pytest.raises(ValueError, match=r"(?s)^1 tensors of this.*missing: model\.head\.weight$"):
        load(build("timesformer_tiny"), {"module." + name: x for name, x in names.items()}, "timesformer")


def test_of_several_state_dicts_in_a_file_one_must_be_chosen(tmp_path):
    path = tmp_path / "both.pth"
    averaged = {name: 2 * x for name, x in STATE.items()}
    torch.save({"model": STATE, "model_ema": averaged, "ema": {"decay": 0.9, "state": averaged}}, path)
    with pytest.raises(ValueError, match=r"(?s)holds 3 state dicts.*part='model': 3 tensors.*part='ema.state'"):
        read(path)
    assert torch.equal(read(path, "model_ema")["conv.bias"], averaged["conv.bias"])
    assert torch.equal(read(path, "ema.state")["conv.bias"], averaged["conv.bias"])
    with pytest.raises(ValueError, match=r"no part 'teacher': there is 'model', 'model_ema', 'ema\.state'"):
        read(path, "teacher")


class Settings(dict):
    """As fvcore's CfgNode or omegaconf keep them: a dict with a class of its own."""


def foreign() -> dict:
    settings = Settings(lr=0.1)
    settings.note = "kept in __dict__"
    return {"args": argparse.Namespace(lr=0.1, root=Path("x")), "cfg": settings, "list": [settings, np.float64(0.5)]}


@pytest.mark.parametrize("write", [torch.save, legacy], ids=["zip", "before zip"])
def test_objects_of_other_programs_are_left_out(write, tmp_path):
    write({"model": STATE, **foreign()}, tmp_path / "x")
    found = read(tmp_path / "x")
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


class Harm:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("kind", ["zip", "before zip", "pickle"])
def test_no_code_in_a_file_is_run(kind, tmp_path):
    content = {"model": STATE, "args": Harm(tmp_path / "harm")}
    path = tmp_path / "x"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"blobs": arrays(STATE), "args": Harm(tmp_path / "harm")}))
    else:
        (torch.save if kind == "zip" else legacy)(content, path)
    assert set(read(path)) == set(STATE)
    assert not (tmp_path / "harm").exists()


def test_a_whole_pickled_network_is_refused_with_the_way_out(tmp_path):
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "x")
    with pytest.raises(ValueError, match=r"an object of torch.nn.modules.linear.Linear.*save its state_dict\(\)"):
        read(tmp_path / "x")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"PK\x03\x04 cut short", b"\x80\x02cos\nsystem\n."])
def test_what_is_no_checkpoint_is_refused_in_plain_words(content, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError) as refusal:
        read(tmp_path / "x.pth")
    words = str(refusal.value)
    assert str(tmp_path / "x.pth") in words and "\x1b" not in words and "weights_only" not in words


def _equal(net: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(x, theirs[name]) for name, x in net.state_dict().items())


def _timesformer_names(net: nn.Module) -> dict:
    """The tensors of a small network under the names and in the layout of facebookresearch/TimeSformer."""
    from course_lib.official.timesformer import entries

    ours, found = net.state_dict(), {}
    for name, official, _ in entries(net):
        x = ours[name]
        if official == "model.pos_embed":
            continue
        if official == "model.time_embed":
            x = x[None]
        if official.endswith("patch_embed.proj.weight"):
            x = x[:, :, 0]
        found[official] = x
    cls, place = ours["pos_embed.cls"], ours["pos_embed.weight"]
    found["model.pos_embed"] = torch.cat([cls[None], place.flatten(0, 1)])[None]
    return found
