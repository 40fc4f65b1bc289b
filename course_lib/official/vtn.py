"""bomri/SlowFast (VTN at 00a68201eb): the ViT-B network; its backbone has timm's names, its encoder Longformer's."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from course_lib.layers.inflate import Entry
from course_lib.models.vtn import VTN, FrameViT
from course_lib.official.timesformer import TIMM_BLOCK, named

LAYER = {  # ours: official
    "attention.q_global": "attention.self.query_global",
    "attention.out": "attention.output.dense",
    "norm": "attention.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "norm_mlp": "output.LayerNorm",
}


def entries(model: nn.Module) -> Iterator[Entry]:
    """ours, official, how. ValueError for networks that were not released."""
    if not isinstance(model, VTN):
        raise ValueError(f"no vtn format is known for {type(model).__name__}")
    if not isinstance(model.backbone, FrameViT):
        raise ValueError(f"no VTN with backbone={model.config.backbone!r} was released: there is vit_b")
    if model.config.positions != "learned":
        raise ValueError(f"no VTN with positions={model.config.positions!r} was released: there is learned")
    backbone = named(model.backbone, embed="backbone.", patches="backbone.patch_embed.proj", blocks="backbone.blocks",
                     norm="backbone.norm", head="", codes=("pos_embed", ""), block=TIMM_BLOCK)  # fmt: skip
    for ours, official, how in backbone:
        if not ours.startswith("head"):
            yield f"backbone.{ours}", official, how
    embeddings = "temporal_encoder.embeddings"
    yield "cls", "cls_token", lambda x: x[0, 0]
    yield "time_embed", f"{embeddings}.position_embeddings.weight", None
    yield "type_embed", f"{embeddings}.token_type_embeddings.weight", None
    for kind in ("weight", "bias"):
        yield f"norm_embed.{kind}", f"{embeddings}.LayerNorm.{kind}", None
        for i in (0, 1, 4):
            yield f"head.{i}.{kind}", f"mlp_head.{i}.{kind}", None
        for i in range(model.config.depth):
            us, them = f"blocks.{i}", f"temporal_encoder.encoder.layer.{i}"
            own = tuple(f"{them}.attention.self.{part}.{kind}" for part in ("query", "key", "value"))
            kv_global = tuple(f"{them}.attention.self.{part}_global.{kind}" for part in ("key", "value"))
            yield f"{us}.attention.qkv.{kind}", own, lambda *qkv: torch.cat(qkv)
            yield f"{us}.attention.kv_global.{kind}", kv_global, lambda *kv: torch.cat(kv)
            for ours, official in LAYER.items():
                yield f"{us}.{ours}.{kind}", f"{them}.{official}.{kind}", None
