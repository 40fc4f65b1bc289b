"""MViT's names in PySlowFast (both versions), torchvision (both) and pytorchvideo (version 1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from einops import rearrange

from course_lib.layers.inflate import Entry
from course_lib.models.mvit import MViT
from course_lib.official.timesformer import TIMM_BLOCK

PYSLOWFAST = {  # ours: official
    "patch_embed": "patch_embed.proj",
    "cls": "cls_token",
    "pos_embed.weight": "pos_embed_spatial",
    "pos_embed.cls": "pos_embed_class",
    "time_embed.weight": "pos_embed_temporal",
    "norm": "norm",
    "head": "head.projection",
}
PYTORCHVIDEO = {
    "patch_embed": "patch_embed.patch_model",
    **{
        name: f"cls_positional_encoding.{PYSLOWFAST[name]}"
        for name in PYSLOWFAST
        if name == "cls" or name.startswith("pos_embed.")
    },
    "time_embed.weight": "cls_positional_encoding.pos_embed_temporal",
    "norm": "norm_embed",
    "head": "head.proj",
}
TORCHVISION = {
    "patch_embed": "conv_proj",
    "cls": "pos_encoding.class_token",
    "pos_embed.weight": "pos_encoding.spatial_pos",
    "pos_embed.cls": "pos_encoding.class_pos",
    "time_embed.weight": "pos_encoding.temporal_pos",
    "norm": "norm",
    "head": "head.1",
}
FACEBOOK_BLOCK = {
    **TIMM_BLOCK,
    **{f"attention.pools.{z}.pool": f"attn.pool_{z}" for z in "qkv"},
    **{f"attention.pools.{z}.norm": f"attn.norm_{z}" for z in "qkv"},
    **{f"attention.relative.tables.{axis}": f"attn.rel_pos_{axis}" for axis in "thw"},
    "widen": "proj",
}
TORCHVISION_BLOCK = {
    **FACEBOOK_BLOCK,
    "attention.out": "attn.project.0",
    **{f"attention.pools.{z}.pool": f"attn.pool_{z}.pool" for z in "qkv"},
    **{f"attention.pools.{z}.norm": f"attn.pool_{z}.norm_act.0" for z in "qkv"},
    "mlp.up": "mlp.0",
    "mlp.down": "mlp.3",
    "widen": "project",
}
Entries = Iterator[Entry]


def pyslowfast(model: MViT) -> Entries:
    return named(model, "pyslowfast", PYSLOWFAST, FACEBOOK_BLOCK, ("separate", "relative"))


def torchvision(model: MViT) -> Entries:
    return named(model, "torchvision", TORCHVISION, TORCHVISION_BLOCK, ("separate", "relative"))


def pytorchvideo(model: MViT) -> Entries:
    """Its q, k and v are three linear layers."""
    c = model.config
    if c.pool_queries or c.pool_residual or c.widen != "mlp":
        raise ValueError("pytorchvideo released version 1 of MViT, nothing of version 2")
    for ours, official, how in named(model, "pytorchvideo", PYTORCHVIDEO, FACEBOOK_BLOCK, ("separate",)):
        if isinstance(official, str) and ".qkv." in official:
            parts = tuple(official.replace(".qkv.", f".{z}.") for z in "qkv")
            yield ours, parts, lambda *qkv: torch.stack(qkv).flatten(0, 1)
        else:
            yield ours, official, how


def named(
    model: MViT, source: str, outside: Mapping[str, str], block: Mapping[str, str], positions: tuple[str, ...]
) -> Entries:
    """ours, official, how. ValueError for settings that were never released."""
    c = model.config
    if c.pooling != "conv":
        raise ValueError(f"no {source} checkpoint with pooling={c.pooling!r} was released: there is conv")
    if c.positions not in positions:
        known = " and ".join(positions)
        raise ValueError(f"no {source} checkpoint with positions={c.positions!r} was released: there is {known}")
    h, w = c.grid[1:]
    shapes = {  # whatever axes of length 1 the release has in front
        "cls": lambda x: x.reshape(1, 1, -1),
        "pos_embed.weight": lambda x: rearrange(x.reshape(-1, x.shape[-1]), "(h w) d -> h w d", h=h, w=w),
        "pos_embed.cls": lambda x: x.flatten(),
        "time_embed.weight": lambda x: x.reshape(-1, x.shape[-1]),
    }
    for ours, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if not ours.startswith("blocks."):
            path, _, kind = ours.rpartition(".")
            official = outside[ours] if ours in outside else f"{outside[path]}.{kind}"
            yield ours, official, shapes.get(ours)
            continue
        _, number, part = ours.split(".", 2)
        path, _, kind = part.rpartition(".")
        official = block[part] if part in block else f"{block[path]}.{kind}"
        yield ours, f"blocks.{number}.{official}", None


def first_name(name: str) -> str | None:
    """pytorchvideo registers every pool twice: the other name of a tensor that stands under its second one."""
    if "._attention_pool_" not in name:
        return None
    front, rest = name.split("._attention_pool_")
    which, part, *kind = rest.split(".")
    return ".".join([front, f"{part}_{which}", *kind])
