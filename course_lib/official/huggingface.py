"""Hugging Face transformers: TimesformerForVideoClassification with divided attention, VivitForVideoClassification.

Names are those of transformers 5.x; `from_v4` brings older ViViT checkpoints into this form. Their clips are laid out
b T 3 H W; ours, b 3 T H W, like all clips of the course.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from course_lib.layers.inflate import Entry
from course_lib.models.timesformer import TimeSformer
from course_lib.models.vivit import ViViT
from course_lib.official.timesformer import named

BLOCK = {  # ours: official
    "first.0.norm": "temporal_layernorm",
    "first.0.attention.qkv": "temporal_attention.attention.qkv",
    "first.0.attention.out": "temporal_attention.output.dense",
    "first.0.project": "temporal_dense",
    "norm": "layernorm_before",
    "attention.qkv": "attention.attention.qkv",
    "attention.out": "attention.output.dense",
    "norm_mlp": "layernorm_after",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
}


VIVIT = {  # ours: official
    "norms.0": "layernorm_before",
    "attentions.0.out": "attention.o_proj",
    "norm_mlp": "layernorm_after",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
VIVIT_V4 = [  # 5.x: 4.x
    ("vivit.layers.", "vivit.encoder.layer."),
    ("attention.q_proj", "attention.attention.query"),
    ("attention.k_proj", "attention.attention.key"),
    ("attention.v_proj", "attention.attention.value"),
    ("attention.o_proj", "attention.output.dense"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
]


def entries(model: nn.Module) -> Iterator[Entry]:
    """ours, official, how. ValueError for a network or an attention that this code base computes otherwise."""
    if isinstance(model, ViViT):
        return vivit(model)
    if not isinstance(model, TimeSformer):
        raise ValueError(f"no huggingface format is known for {type(model).__name__}")
    if model.config.attention == "space":
        raise ValueError("huggingface's space-only TimeSformer does not average over frames: it is another network")
    return named(model, embed="timesformer.embeddings.", patches="timesformer.embeddings.patch_embeddings.projection",
                 blocks="timesformer.encoder.layer", norm="timesformer.layernorm", head="classifier",
                 codes=("position_embeddings", "time_embeddings"), block=BLOCK)  # fmt: skip


def vivit(model: ViViT) -> Iterator[Entry]:
    c = model.config
    if (c.model, c.pool, c.embed) != (1, "cls", "tubelet"):
        raise ValueError("huggingface's ViViT is model 1 with a class token and tubelets")
    codes = "vivit.embeddings.position_embeddings"
    yield "encoder.cls", "vivit.embeddings.cls_token", lambda x: x[0, 0]
    yield "encoder.cls_pos_embed", codes, lambda x: x[0, 0]
    yield "encoder.pos_embed", codes, lambda x: rearrange(x[0, 1:], "(t place) d -> t place d", t=c.grid.t)
    for i in range(c.depth):
        us, them = f"encoder.blocks.{i}", f"vivit.layers.{i}"
        for kind in ("weight", "bias"):
            parts = tuple(f"{them}.attention.{part}_proj.{kind}" for part in "qkv")
            yield f"{us}.attentions.0.qkv.{kind}", parts, lambda *qkv: torch.cat(qkv)
            for ours, official in VIVIT.items():
                yield f"{us}.{ours}.{kind}", f"{them}.{official}.{kind}", None
    for kind in ("weight", "bias"):
        yield f"patch_embed.project.{kind}", f"vivit.embeddings.patch_embeddings.projection.{kind}", None
        yield f"encoder.norm.{kind}", f"vivit.layernorm.{kind}", None
        yield f"head.{kind}", f"classifier.{kind}", None


def from_v4(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ViViT's tensors under the names of transformers 5.x; other state dicts pass unchanged."""
    renamed = {}
    for name, tensor in state.items():
        if name.startswith("vivit.encoder.layer."):
            for new, old in VIVIT_V4:
                name = name.replace(old, new)
        renamed[name] = tensor
    return renamed
