"""google-research/scenic (scenic/projects/vivit at 4a38d475ee): ViViT, models 1 to 4.

Names are those of flax, joined by slashes, with "weight" for kernel and scale and torch's layouts; `from_flax` brings
raw flax dictionaries into this form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from course_lib.layers.inflate import Entry
from course_lib.models.vivit import Block, Encoder, ViViT
from course_lib.official.read import flatten

WEIGHTS = ("optimizer/", "target/", "params/")  # where a training state keeps them, in older and newer releases


def entries(model: nn.Module) -> Iterator[Entry]:
    """ours, official, how. ValueError for another network."""
    if not isinstance(model, ViViT):
        raise ValueError(f"no scenic format is known for {type(model).__name__}")
    yield from pair("patch_embed.project", "embedding", first_frame if model.config.embed == "uniform" else None)
    yield from pair("head", "output_projection")
    if model.config.model == 2:
        yield from encoder(model.encoder, "encoder", "SpatialTransformer", "cls_SpatialTransformer")
        if model.time_encoder is not None:
            yield from encoder(model.time_encoder, "time_encoder", "TemporalTransformer", "cls_TemporalTransformer")
    else:
        yield from encoder(model.encoder, "encoder", "Transformer", "cls")


def first_frame(kernel: Tensor) -> Tensor:
    """A kernel over single frames has no time axis there, and one of length 1 here."""
    return kernel[:, :, None] if kernel.ndim == 4 else kernel


def pair(ours: str, official: str, how: Callable[..., Tensor] | None = None) -> Iterator[Entry]:
    yield f"{ours}.weight", f"{official}/weight", how
    yield f"{ours}.bias", f"{official}/bias", None


def encoder(net: Encoder, ours: str, official: str, cls: str) -> Iterator[Entry]:
    table = f"{official}/posembed_input/pos_embedding"  # 1 (t h w) d, the class token's code in front
    skip = 0 if net.cls is None else 1
    yield f"{ours}.pos_embed", table, lambda x: rearrange(x[0, skip:], "(t place) d -> t place d", t=net.grid.t)
    if net.cls is not None:
        yield f"{ours}.cls_pos_embed", table, lambda x: x[0, 0]
        yield f"{ours}.cls", cls, lambda x: x[0, 0]
    yield from pair(f"{ours}.norm", f"{official}/encoder_norm")
    for i, block in enumerate(net.blocks):
        us, them = f"{ours}.blocks.{i}", f"{official}/encoderblock_{i}"
        assert isinstance(block, Block)
        if len(block.attentions) == 2:  # model 3 names its parts, the others count them
            norms, attentions = ["LayerNorm_time", "LayerNorm_space"], ["time", "space"]
            norm_mlp, mlp = "LayerNorm_mlp", "MlpBlock"
        else:
            norms, attentions, norm_mlp, mlp = ["LayerNorm_0"], ["0"], "LayerNorm_1", "MlpBlock_0"
        for j, (norm, attention) in enumerate(zip(norms, attentions, strict=True)):
            yield from pair(f"{us}.norms.{j}", f"{them}/{norm}")
            layer = f"{them}/MultiHeadDotProductAttention_{attention}"
            for kind in ("weight", "bias"):
                parts = tuple(f"{layer}/{part}/{kind}" for part in ("query", "key", "value"))
                yield f"{us}.attentions.{j}.qkv.{kind}", parts, lambda *qkv: torch.cat(qkv)
            yield from pair(f"{us}.attentions.{j}.out", f"{layer}/out")
        yield from pair(f"{us}.norm_mlp", f"{them}/{norm_mlp}")
        yield from pair(f"{us}.mlp.up", f"{them}/{mlp}/Dense_0")
        yield from pair(f"{us}.mlp.down", f"{them}/{mlp}/Dense_1")


def from_flax(tree: Mapping[str, object]) -> dict[str, Tensor]:
    """A flax dictionary, nested or with slashes in its names, in the form above; such a form passes unchanged.

    Of a whole training state (step, optimiser, random state) the weights alone.
    """
    found = dict(flatten(tree))
    for place in WEIGHTS:
        inside = {name.removeprefix(place): value for name, value in found.items() if name.startswith(place)}
        found = inside or found
    flat = {name: x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x)) for name, x in found.items()}
    if not any(name.endswith(("/kernel", "/scale")) for name in flat):
        return flat
    return dict(torch_layout(name, x) for name, x in flat.items())


def torch_layout(name: str, x: Tensor) -> tuple[str, Tensor]:
    *path, kind = name.split("/")
    if kind == "kernel":
        if x.ndim == 3:  # attention keeps its heads apart
            pattern = "head d o -> o (head d)" if path[-1] == "out" else "i head d -> (head d) i"
        else:
            pattern = {2: "i o -> o i", 4: "h w i o -> o i h w", 5: "t h w i o -> o i t h w"}[x.ndim]
        x = rearrange(x, pattern)
    if kind == "bias":
        x = x.flatten()
    return "/".join([*path, "weight" if kind in ("kernel", "scale") else kind]), x
