"""Hugging Face transformers 5.x: TimesformerForVideoClassification with divided attention.

Their clips are laid out b T 3 H W; ours, b 3 T H W, like all clips of the course.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from course_lib.models.timesformer import TimeSformer
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


def entries(model: nn.Module) -> Iterator[tuple[str, str, Callable[[Tensor], Tensor] | None]]:
    """ours, official, how. ValueError for a network or an attention that this code base computes otherwise."""
    if not isinstance(model, TimeSformer):
        raise ValueError(f"no huggingface format is known for {type(model).__name__}")
    if model.config.attention == "space":
        raise ValueError("huggingface's space-only TimeSformer does not average over frames: it is another network")
    return named(model, embed="timesformer.embeddings.", patches="timesformer.embeddings.patch_embeddings.projection",
                 blocks="timesformer.encoder.layer", norm="timesformer.layernorm", head="classifier",
                 codes=("position_embeddings", "time_embeddings"), block=BLOCK)  # fmt: skip
