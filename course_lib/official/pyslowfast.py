"""facebookresearch/SlowFast (slowfast/models at 287ec00768): MViT; C2D, I3D, Slow and SlowFast, also with non-local.

Checkpoints are .pyth files, or .pkl files from Caffe2, whose names `from_caffe2` turns into these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from course_lib.layers.inflate import Entry
from course_lib.models.mvit import MViT
from course_lib.models.nonlocal_net import NonLocalNet
from course_lib.models.slowfast import SlowFast
from course_lib.official import mvit

STAGE = {"stem": 1, "res2": 2, "res3": 3, "res4": 4, "res5": 5}
BLOCK = {"shortcut": "branch1", "a": "branch2.a", "b": "branch2.b", "c": "branch2.c"}  # their norm: the same and _bn


def entries(model: nn.Module) -> Iterator[Entry]:
    """ours, official, how. ValueError for a network that this code base does not have."""
    if isinstance(model, MViT):
        yield from mvit.pyslowfast(model)
        return
    if not isinstance(model, NonLocalNet | SlowFast):
        raise ValueError(f"no pyslowfast format is known for {type(model).__name__}")
    if isinstance(model, SlowFast):
        if len(model.config.paths) == 2 and model.config.join != "t_conv":
            raise ValueError(f"no checkpoint with join={model.config.join!r} was released: there is t_conv")
        if model.config.paths == ("fast",):
            raise ValueError("no checkpoint of the fast path alone was released")
    blocks = [part.affinity for part in model.modules() if hasattr(part, "affinity")]
    if any(affinity not in ("softmax", "dot_product") for affinity in blocks):
        raise ValueError(f"no checkpoint with affinity={blocks[0]!r} was released: there are softmax and dot_product")
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            yield name, official_name(name), None


def official_name(ours: str) -> str:
    """slow.res2.block0.a.conv.weight -> s2.pathway0_res0.branch2.a.weight"""
    *path, kind = ours.removeprefix("paths.").split(".")
    pathway = 1 if path[0] == "fast" else 0
    path = [step for step in path if step not in ("slow", "fast")]
    match path:
        case ["head"]:
            return f"head.projection.{kind}"
        case ["joins", stage, "conv", part]:
            return f"s{STAGE[stage]}_fuse.{'conv_f2s' if part == 'conv' else 'bn'}.{kind}"
        case ["stem", part]:
            return f"s1.pathway{pathway}_stem.{'conv' if part == 'conv' else 'bn'}.{kind}"
        case [stage, block, part] if block.startswith("nonlocal"):
            return f"s{STAGE[stage]}.pathway{pathway}_{block}.{'bn' if part == 'norm' else f'conv_{part}'}.{kind}"
        case [stage, block, branch, part]:
            norm = "_bn" if part == "norm" else ""
            block = block.replace("block", "res")
            return f"s{STAGE[stage]}.pathway{pathway}_{block}.{BLOCK[branch]}{norm}.{kind}"
    raise AssertionError(f"course_lib.official.pyslowfast does not know {ours}")


KIND = {"w": "weight", "b": "bias", "s": "weight", "rm": "running_mean", "riv": "running_var"}
NOT_WEIGHTS = ("momentum", "lr", "model_iter")  # what Caffe2's optimiser left in the file
CAFFE2 = [  # blob, without its last word; t_ marks the fast path. Rules of slowfast/utils/c2_model_loading.py
    (r"nonlocal_conv(\d)_(\d+)_(theta|phi|g|out)", r"s\1.pathway0_nonlocal\2.conv_\3"),
    (r"nonlocal_conv(\d)_(\d+)_bn", r"s\1.pathway0_nonlocal\2.bn"),
    (r"t_pool1_subsample", "s1_fuse.conv_f2s"),
    (r"t_pool1_subsample_bn", "s1_fuse.bn"),
    (r"t_res(\d)_\d+_branch2c_bn_subsample", r"s\1_fuse.conv_f2s"),
    (r"t_res(\d)_\d+_branch2c_bn_subsample_bn", r"s\1_fuse.bn"),
    (r"conv1", "s1.pathway0_stem.conv"),
    (r"res_conv1_bn", "s1.pathway0_stem.bn"),
    (r"t_conv1", "s1.pathway1_stem.conv"),
    (r"t_res_conv1_bn", "s1.pathway1_stem.bn"),
    (r"res(\d)_(\d+)_branch1(_bn)?", r"s\1.pathway0_res\2.branch1\3"),
    (r"res(\d)_(\d+)_branch2([abc])(_bn)?", r"s\1.pathway0_res\2.branch2.\3\4"),
    (r"t_res(\d)_(\d+)_branch1(_bn)?", r"s\1.pathway1_res\2.branch1\3"),
    (r"t_res(\d)_(\d+)_branch2([abc])(_bn)?", r"s\1.pathway1_res\2.branch2.\3\4"),
    (r"pred", "head.projection"),
]


def from_caffe2(blobs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a Caffe2 checkpoint under the names of the .pyth files; other state dicts pass unchanged.

    Blobs that no rule knows keep their names, so that loading reports them.
    """
    if "conv1_w" not in blobs:
        return dict(blobs)
    state = {}
    for blob, tensor in blobs.items():
        if any(word in blob for word in NOT_WEIGHTS):
            continue
        stem, _, kind = blob.rpartition("_")
        name = next((f"{re.sub(rule, official, stem)}.{KIND[kind]}" for rule, official in CAFFE2
                     if kind in KIND and re.fullmatch(rule, stem)), blob)  # fmt: skip
        if kind == "w" and not name.startswith("head"):  # 1x1x1 kernels may come as matrices
            tensor = tensor.reshape(*tensor.shape, *[1] * (5 - tensor.ndim))
        state[name] = tensor
    return state
