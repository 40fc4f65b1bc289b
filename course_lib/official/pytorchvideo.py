"""facebookresearch/pytorchvideo (pytorchvideo/models at f3142bb05c): MViT; C2D, I3D, Slow, SlowFast and R(2+1)D, R50.

It numbers everything: blocks.0 is the stem, the last one the head, and a max-pool between stages counts as a block.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from course_lib.layers.inflate import Entry
from course_lib.models.mvit import MViT
from course_lib.models.nonlocal_net import NonLocalNet
from course_lib.models.r2plus1d import R2Plus1D
from course_lib.models.slowfast import SlowFast
from course_lib.official import mvit

BOTTLENECK = {"a": ("conv_a", "norm_a"), "b": ("conv_b", "norm_b"), "c": ("conv_c", "norm_c")}
FACTORED = {"time": "conv_t", "norm": "norm", "space": "conv_xy"}  # the halves of R(2+1)D's conv_b


def entries(model: nn.Module) -> Iterator[Entry]:
    """ours, official, how. ValueError for a network that this code base does not have."""
    if isinstance(model, MViT):
        yield from mvit.pytorchvideo(model)
        return
    if isinstance(model, NonLocalNet):
        if any(model.config.nonlocal_after):
            raise ValueError("no pytorchvideo checkpoint has non-local blocks")
        number = {"stem": 0, "res2": 1, "res3": 3, "res4": 4, "res5": 5, "head": 6}  # 2 is the pool of time
    elif isinstance(model, SlowFast):
        c = model.config
        if any(c.nonlocal_after) or c.paths == ("fast",) or (len(c.paths) == 2 and c.join != "t_conv"):
            raise ValueError(
                "pytorchvideo released Slow, and SlowFast with join='t_conv', both without non-local blocks"
            )
        number = {"stem": 0, "res2": 1, "res3": 2, "res4": 3, "res5": 4, "head": 5 if len(c.paths) == 1 else 6}
    elif isinstance(model, R2Plus1D) and model.config.bottleneck:
        number = {"conv1": 0, "conv2": 1, "conv3": 2, "conv4": 3, "conv5": 4, "head": 5}
    else:
        raise ValueError(f"no pytorchvideo format is known for this {type(model).__name__}")
    single = not isinstance(model, SlowFast) or len(model.config.paths) == 1
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            yield name, official_name(name, number, single), None


def official_name(ours: str, number: dict[str, int], single: bool) -> str:
    """slow.res2.block0.a.conv.weight -> blocks.1.multipathway_blocks.0.res_blocks.0.branch2.conv_a.weight"""
    *path, kind = ours.removeprefix("paths.").split(".")
    pathway = "" if single else f".multipathway_blocks.{1 if path[0] == 'fast' else 0}"
    path = [step for step in path if step not in ("slow", "fast")]
    match path:
        case ["head"]:
            return f"blocks.{number['head']}.proj.{kind}"
        case ["joins", stage, "conv", part]:
            official = "conv_fast_to_slow" if part == "conv" else "norm"
            return f"blocks.{number[stage]}.multipathway_fusion.{official}.{kind}"
        case ["stem" | "conv1" as stage, part]:
            return f"blocks.{number[stage]}{pathway}.{part}.{kind}"
        case [stage, block, "shortcut", part]:
            return f"blocks.{number[stage]}{pathway}.res_blocks.{block.removeprefix('block')}.branch1_{part}.{kind}"
        case [stage, block, branch, *part]:
            conv, norm = BOTTLENECK[branch]
            official = norm if part == ["norm"] else ".".join([conv, *(FACTORED[half] for half in part[1:])])
            return f"blocks.{number[stage]}{pathway}.res_blocks.{block.removeprefix('block')}.branch2.{official}.{kind}"
    raise AssertionError(f"course_lib.official.pytorchvideo does not know {ours}")
