"""SwinTransformer/Video-Swin-Transformer (mmaction/models/backbones/swin_transformer.py at db018fb8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from einops import rearrange
from torch import nn

from course_lib.layers.inflate import Entry
from course_lib.models.video_swin import VideoSwin
from course_lib.official.timesformer import TIMM_BLOCK

OUTSIDE = {"patch_embed.project": "backbone.patch_embed.proj", "norm_embed": "backbone.patch_embed.norm",
           "norm": "backbone.norm", "head": "cls_head.fc_cls"}  # fmt: skip


def entries(model: nn.Module) -> Iterator[Entry]:
    """ours, official, how. ValueError for another network, and for attention that was never released."""
    return named(model, "videoswin", OUTSIDE, TIMM_BLOCK, layer)


def layer(stage: int, block: str | None) -> str:
    """Where block `block` of stage `stage` stands, counted from 0, or (None) the merging after that stage."""
    return f"backbone.layers.{stage}.{'downsample' if block is None else f'blocks.{block}'}"


def named(
    model: nn.Module,
    source: str,
    outside: dict[str, str],
    block: dict[str, str],
    layer: Callable[[int, str | None], str],
) -> Iterator[Entry]:
    """The tensors under the names of one code base; both lay them out alike."""
    if not isinstance(model, VideoSwin):
        raise ValueError(f"no {source} format is known for this {type(model).__name__}")
    if model.config.attention != "joint":
        raise ValueError(f"no checkpoint with attention={model.config.attention!r} was released: there is joint")
    t = 2 * model.config.window.t - 1
    for name in model.state_dict():
        module, _, kind = name.rpartition(".")
        path = module.removeprefix("stages.").split(".")
        number = path[0][-1]
        if path[0].startswith("merge"):
            yield name, f"{layer(int(number) - 1, None)}.{path[1]}.{kind}", None
        elif not path[0].startswith("stage"):
            yield name, f"{outside[module]}.{kind}", None
        elif path[2:] == ["attention", "bias"]:
            table = partial(rearrange, pattern="(t place) head -> head t place", t=t)
            yield name, f"{layer(int(number) - 1, path[1])}.attn.relative_position_bias_table", table
        else:
            yield name, f"{layer(int(number) - 1, path[1])}.{block['.'.join(path[2:])]}.{kind}", None
