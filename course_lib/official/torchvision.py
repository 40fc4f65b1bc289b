"""torchvision (torchvision/models/video, 0.28): r3d_18, mc3_18, r2plus1d_18, swin3d_t, swin3d_s, swin3d_b,
mvit_v1_b, mvit_v2_s.

The authors' PyTorch release (facebookresearch/VMZ, pt/vmz) gives R(2+1)D-34 the same names.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from course_lib.layers.inflate import Entry
from course_lib.models.mvit import MViT
from course_lib.models.r2plus1d import R2Plus1D
from course_lib.models.video_swin import VideoSwin
from course_lib.official import mvit, videoswin
from course_lib.official.timesformer import TIMM_BLOCK

HALVES = {"space": "0", "norm": "1", "time": "3"}  # of a (2+1)D convolution; 2 is its ReLU
SWIN_BLOCK = {**TIMM_BLOCK, "mlp.up": "mlp.0", "mlp.down": "mlp.3"}
SWIN_OUTSIDE = {"patch_embed.project": "patch_embed.proj", "norm_embed": "patch_embed.norm", "norm": "norm",
                "head": "head"}  # fmt: skip


def entries(model: nn.Module) -> Iterator[Entry]:
    """ours, official, how. ValueError for a network that this code base does not have."""
    if isinstance(model, VideoSwin):
        yield from videoswin.named(model, "torchvision", SWIN_OUTSIDE, SWIN_BLOCK, swin_layer)
        return
    if isinstance(model, MViT):
        yield from mvit.torchvision(model)
        return
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


def swin_layer(stage: int, block: str | None) -> str:
    """Where block `block` of stage `stage` stands, counted from 0, or (None) the merging after that stage."""
    return f"features.{2 * stage + 1}" if block is None else f"features.{2 * stage}.{block}"
