"""amazon-science/gluonmm (src/transformers/models/vidtr at 29d63b3a): VidTr and compact VidTr.

Tokens run class tokens first, then frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterator

from einops import rearrange
from torch import nn

from course_lib.layers.inflate import Entry
from course_lib.models.cvidtr import CVidTr
from course_lib.models.vidtr import VidTr

BLOCK = {  # ours: official
    "attention.qkv.": "self_attn.in_proj_",
    "attention.out.": "self_attn.out_proj.",
    "mlp.up.": "linear1.",
    "mlp.down.": "linear2.",
    "norm.": "norm1.",
    "norm_mlp.": "norm2.",
}


def entries(model: nn.Module) -> Iterator[Entry]:
    """ours, official, how. ValueError for another network, and for settings that were never released."""
    if isinstance(model, VidTr):
        if model.config.attention != "separable" or model.config.separate:
            raise ValueError("gluonmm released VidTr with attention='separable' and separate=False")
    elif not isinstance(model, CVidTr):
        raise ValueError(f"no gluonmm format is known for {type(model).__name__}")
    elif model.config.pool != "topk":
        raise ValueError(f"no checkpoint with pool={model.config.pool!r} was released: there is topk")
    return named(model)


def named(model: VidTr | CVidTr) -> Iterator[Entry]:
    if isinstance(model, VidTr):
        yield "row", "cls_t", lambda x: rearrange(x, "1 n d -> n d")
        yield "column", "cls_s", lambda x: rearrange(x, "t 1 d -> t d")
        yield "pos_embed", "pos_embedding", lambda x: rearrange(x, "1 (t n) d -> t n d", n=model.config.places + 1)
    else:
        yield "cls", "cls", lambda x: rearrange(x, "1 1 d -> d")
        yield "cls_pos_embed", "pos_embedding", lambda x: x[0, 0]
        yield "pos_embed", "pos_embedding", lambda x: rearrange(x[:, 1:], "1 (t n) d -> t n d", n=model.config.places)
    for kind in ("weight", "bias"):
        yield f"patch_embed.project.{kind}", f"conv_stem.{kind}", None
        yield f"norm.{kind}", f"encoder.norm.{kind}", None
        yield f"head.{kind}", f"fc.{kind}", None
        for i in range(model.config.depth):
            for ours, official in BLOCK.items():
                yield f"blocks.{i}.{ours}{kind}", f"encoder.layers.{i}.{official}{kind}", None
