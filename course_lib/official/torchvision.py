"""torchvision (torchvision/models/video/resnet.py, 0.28): r3d_18, mc3_18, r2plus1d_18.

The authors' PyTorch release (facebookresearch/VMZ, pt/vmz) gives R(2+1)D-34 the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from course_lib.models.r2plus1d import R2Plus1D

HALVES = {"space": "0", "norm": "1", "time": "3"}  # of a (2+1)D convolution; 2 is its ReLU


def entries(model: nn.Module) -> Iterator[tuple[str, str, Callable[[Tensor], Tensor] | None]]:
    """ours, official, how. ValueError for a network that this code base does not have."""
    if not isinstance(model, R2Plus1D) or model.config.bottleneck:
        raise ValueError(f"no torchvision format is known for this {type(model).__name__}")
    factored = model.config.convolutions == "r2plus1d"
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            yield name, official_name(name, factored), None


def official_name(ours: str, factored: bool) -> str:
    """conv2.0.first.conv.space.weight -> layer1.0.conv1.0.0.weight"""
    *path, kind = ours.split(".")
    match path:
        case ["head"]:
            return f"fc.{kind}"
        case ["conv1", "conv", half]:
            return f"stem.{HALVES[half]}.{kind}"
        case ["conv1", part]:
            return f"stem.{(0 if part == 'conv' else 1) + (3 if factored else 0)}.{kind}"
        case [group, block, "shortcut", part]:
            return f"layer{int(group[-1]) - 1}.{block}.downsample.{0 if part == 'conv' else 1}.{kind}"
        case [group, block, which, "norm"]:
            return f"layer{int(group[-1]) - 1}.{block}.{'conv1' if which == 'first' else 'conv2'}.1.{kind}"
        case [group, block, which, "conv", *half]:
            half = "".join(f".{HALVES[h]}" for h in half)
            return f"layer{int(group[-1]) - 1}.{block}.{'conv1' if which == 'first' else 'conv2'}.0{half}.{kind}"
    raise AssertionError(f"course_lib.official.torchvision does not know {ours}")
