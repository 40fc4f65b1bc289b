"""The two common ports of I3D: piergiaj/pytorch-i3d (at 05783d11f9) and hassony2/kinetics_i3d_pytorch (786fbae06a)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from course_lib.layers.inflate import Entry
from course_lib.models.i3d import I3D

LAYER = {"conv_1a": "Conv3d_1a_7x7", "conv_2b": "Conv3d_2b_1x1", "conv_2c": "Conv3d_2c_3x3"}
PIERGIAJ = {"single": "b0", "middle.0": "b1a", "middle.1": "b1b", "small.0": "b2a", "small.1": "b2b", "pooled.1": "b3b"}
HASSONY2 = {"single": "branch_0", "middle.0": "branch_1.0", "middle.1": "branch_1.1",
            "small.0": "branch_2.0", "small.1": "branch_2.1", "pooled.1": "branch_3.1"}  # fmt: skip


def piergiaj(model: nn.Module) -> Iterator[Entry]:
    """ours, official, how: Mixed_3b.b1a.conv3d.weight, Mixed_3b.b1a.bn.weight. ValueError for another network."""
    for ours, layer, branch, part, kind in parts(model, "piergiaj"):
        layer = "logits" if layer == "head" else LAYER.get(layer, layer.capitalize())
        yield (
            ours,
            ".".join(filter(None, [layer, PIERGIAJ.get(branch), "conv3d" if part == "conv" else "bn", kind])),
            None,
        )


def hassony2(model: nn.Module) -> Iterator[Entry]:
    """ours, official, how: mixed_3b.branch_1.0.conv3d.weight, ....batch3d.weight. ValueError for another network."""
    for ours, layer, branch, part, kind in parts(model, "hassony2"):
        layer = "conv3d_0c_1x1" if layer == "head" else LAYER.get(layer, layer).lower()
        part = "conv3d" if part == "conv" else "batch3d"
        yield ours, ".".join(filter(None, [layer, HASSONY2.get(branch), part, kind])), None


def parts(model: nn.Module, source: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Every name of ours, and its layer, branch, part and kind: layers.mixed_3b.middle.0.conv.weight."""
    if not isinstance(model, I3D) or model.config.image:
        raise ValueError(f"no {source} format is known for this {type(model).__name__}")
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            *path, kind = name.removeprefix("layers.").split(".")
            if path == ["head"]:
                path.append("conv")
            layer, *branch, part = path
            yield name, layer, ".".join(branch), part, kind
