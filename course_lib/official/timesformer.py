"""facebookresearch/TimeSformer (timesformer/models/vit.py at a5ef29a7): space-only, joint and divided attention.

Its rows of tokens run class token first, then (h w t) with t fastest; its kernels are 2-D, over single frames.
"""

from __future__ import annotations

from collections.abc import Iterator

from einops import rearrange
from torch import nn

from course_lib.layers.inflate import Entry
from course_lib.models.timesformer import TimeSformer

TIMM_BLOCK = {  # ours: the names that timm gave, and most others took over
    "norm": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "norm_mlp": "norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
BLOCK = {  # ours: official
    **TIMM_BLOCK,
    "first.0.norm": "temporal_norm1",
    "first.0.attention.qkv": "temporal_attn.qkv",
    "first.0.attention.out": "temporal_attn.proj",
    "first.0.project": "temporal_fc",
}


def entries(model: nn.Module) -> Iterator[Entry]:
    """ours, official, how. ValueError for another network, and for attention that was never released."""
    if not isinstance(model, TimeSformer):
        raise ValueError(f"no timesformer format is known for {type(model).__name__}")
    return named(model, embed="model.", patches="model.patch_embed.proj", blocks="model.blocks", head="model.head",
                 norm="model.norm", codes=("pos_embed", "time_embed"), block=BLOCK)  # fmt: skip


def named(
    model: TimeSformer,
    *,
    embed: str,
    patches: str,
    blocks: str,
    norm: str,
    head: str,
    codes: tuple[str, str],
    block: dict[str, str],
) -> Iterator[Entry]:
    """The tensors under the names of one code base; all of them lay them out alike."""
    c = model.config
    if c.attention not in ("space", "joint", "divided"):
        raise ValueError(f"no checkpoint with attention={c.attention!r} was released: there are space, joint, divided")
    place, moment = codes
    height = c.grid.h
    yield "cls", f"{embed}cls_token", None
    yield "pos_embed.cls", f"{embed}{place}", lambda x: x[0, 0]
    yield "pos_embed.weight", f"{embed}{place}", lambda x: rearrange(x[:, 1:], "1 (h w) d -> h w d", h=height)
    if c.attention != "space":
        yield "time_embed.weight", f"{embed}{moment}", lambda x: rearrange(x, "1 t d -> t d")
    yield "patch_embed.project.weight", f"{patches}.weight", lambda x: rearrange(x, "o i h w -> o i 1 h w")
    yield "patch_embed.project.bias", f"{patches}.bias", None
    for i, part in enumerate(model.blocks):
        for name in part.state_dict():
            module, _, kind = name.rpartition(".")
            yield f"blocks.{i}.{name}", f"{blocks}.{i}.{block[module]}.{kind}", None
    for ours, official in (("norm", norm), ("head", head)):
        for kind in ("weight", "bias"):
            yield f"{ours}.{kind}", f"{official}.{kind}", None
