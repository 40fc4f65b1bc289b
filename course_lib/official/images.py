"""Image checkpoints as the start of video networks: ViT, DeiT, Swin, ResNet and Inception (GoogLeNet).

    start_from_images(build("vivit_b_16x2_model2"), "vit_base_patch16_224.safetensors", "timm")

The checkpoint first fills the image network that the video network grew from, its twin, whose kernels see one frame;
then the video network's own paper says how its tensors start from those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from course_lib.layers.inflate import Entry, How, ImageStart, LoadReport, load_image_weights
from course_lib.models.i3d import I3D
from course_lib.models.timesformer import TimeSformer
from course_lib.models.video_swin import VideoSwin
from course_lib.models.vidtr import VidTr
from course_lib.models.vivit import ViViT
from course_lib.official import gather, unwrap, wanted
from course_lib.official.adapt import resize_image
from course_lib.official.read import Checkpoint, read
from course_lib.official.scenic import from_flax
from course_lib.official.timesformer import TIMM_BLOCK
from course_lib.official.torchvision import SWIN_BLOCK, SWIN_OUTSIDE
from course_lib.official.videoswin import named as named_swin

Entries = Iterator[Entry]


def start_from_images(
    net: nn.Module,
    checkpoint: Checkpoint,
    source: Literal["timm", "official", "torchvision"] = "timm",
    how: How | None = None,
    part: str | None = None,
    adapt: bool = False,
) -> LoadReport:
    """Start `net` from an image checkpoint, in any form that `official.load` takes; the report says what stays fresh.

    `source` names the checkpoint's naming: timm's, the authors' own ("official"; ViT, DeiT and ResNet have timm's
    names there), torchvision's. `how` a kernel grows its time axis: as in the network's paper, unless given. The
    classifier is left over. With `adapt` the checkpoint may be of another size (384 pixels for 224) or a distilled
    DeiT: position embeddings and relative tables are resized. ValueError names what is missing or misshapen; nothing is
    loaded then.
    """
    start = image_start(net)
    weights, left, prefix, resized = fill(start.image, read(checkpoint, part), source, adapt)
    report = load_image_weights(net, weights, start.entries, how or start.how, start.part)
    return replace(report, left_over=(*report.left_over, *left), stripped=prefix, resized=tuple(resized))


def image_start(net: nn.Module) -> ImageStart:
    """What the network's own file says. ValueError where no released image checkpoint fits."""
    start = getattr(net, "image_start", None)
    if start is None:
        raise ValueError(
            f"no way from an image checkpoint to {type(net).__name__} is known here: train it from nothing, or load a "
            f"released video checkpoint by course_lib.official.load"
        )
    return start()


def fill(
    twin: nn.Module, state: Mapping[str, Tensor], source: str, adapt: bool = False
) -> tuple[dict[str, Tensor], list[str], str, list[str]]:
    """The tensors of `twin` out of an image checkpoint, but for its head; the official tensors left over; the prefix of
    a wrapper that was cut off; what was resized."""
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
    if isinstance(twin, TimeSformer | ViViT | VidTr):
        plan, rename = list(vit(twin)), partial(vit_in_timms_names, source=source)
    elif isinstance(twin, VideoSwin):
        plan = list(swin(twin, source))
    else:
        plan = list(inception(twin) if isinstance(twin, I3D) else resnet(twin))
    prefix, state = unwrap(state, wanted(plan), rename)
    state, resized = resize_image(state, twin) if adapt else (state, [])
    filled, used, problems = gather(twin.state_dict(), state, plan)
    left = [name for name in state if name not in used]
    spare = [name for name in left if NOT_USED.match(name) or (adapt and name in DISTILLED)]
    problems += [f"unexpected: {name}" for name in left if state[name].is_floating_point() and name not in spare]
    if problems:
        raise ValueError(
            f"this {source} checkpoint is not the image network that {type(twin).__name__} starts from, or has another "
            f"size (build with size=..., or adapt=True):\n  " + "\n  ".join(problems[:40])
        )
    return filled, left, prefix, resized


DISTILLED = ("dist_token", "head_dist.weight", "head_dist.bias")  # DeiT's second token and its head
NOT_USED = re.compile(r"heads?\.|head$|fc\.|fc_norm\.|classifier\.|pre_logits|aux\d\.|output_projection|.*attn_mask")
VIVIT = {"norm": "norms.0", "attention.qkv": "attentions.0.qkv", "attention.out": "attentions.0.out"}


def vit(twin: TimeSformer | ViViT | VidTr) -> Entries:
    blocks, codes = "blocks", "pos_embed"
    norm = "norm"
    if isinstance(twin, ViViT):
        blocks, norm = "encoder.blocks", "encoder.norm"
        yield "encoder.cls", "cls_token", lambda x: x[0, 0]
        yield "encoder.cls_pos_embed", codes, lambda x: x[0, 0]
        yield "encoder.pos_embed", codes, lambda x: x[:, 1:]
    elif isinstance(twin, VidTr):
        yield "cls", "cls_token", lambda x: x[0, 0]
        yield "pos_embed", codes, lambda x: x[0]
    else:
        yield "cls", "cls_token", None
        yield "pos_embed.cls", codes, lambda x: x[0, 0]
        yield "pos_embed.weight", codes, lambda x: rearrange(x[0, 1:], "(h w) d -> h w d", h=twin.config.grid.h)
    for kind in ("weight", "bias"):
        for ours, official in (("patch_embed.project", "patch_embed.proj"), (norm, "norm")):
            yield f"{ours}.{kind}", f"{official}.{kind}", one_frame
        for i in range(twin.config.depth):
            for ours, official in TIMM_BLOCK.items():
                ours = VIVIT.get(ours, ours) if isinstance(twin, ViViT) else ours
                yield f"{blocks}.{i}.{ours}.{kind}", f"blocks.{i}.{official}.{kind}", None


def one_frame(kernel: Tensor) -> Tensor:
    """A 2-D kernel with a time axis of length 1; other tensors pass unchanged."""
    return kernel[:, :, None] if kernel.ndim == 4 else kernel


VIT_TORCHVISION = [  # torchvision's, timm's
    (r"class_token", "cls_token"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"conv_proj", "patch_embed.proj"),
    (r"encoder\.layers\.encoder_layer_", "blocks."),
    (r"encoder\.ln\.", "norm."),
    (r"\.ln_", ".norm"),
    (r"self_attention\.in_proj_", "attn.qkv."),
    (r"self_attention\.out_proj", "attn.proj"),
    (r"mlp\.(0|linear_1)", "mlp.fc1"),
    (r"mlp\.(3|linear_2)", "mlp.fc2"),
]
VIT_FLAX = [  # google-research/vision_transformer's, timm's; each block counts its parts from 0 to 3
    (r"cls$", "cls_token"),
    (r"Transformer/posembed_input/pos_embedding", "pos_embed"),
    (r"embedding/", "patch_embed/proj/"),
    (r"Transformer/encoder_norm", "norm"),
    (r"Transformer/encoderblock_", "blocks/"),
    (r"LayerNorm_0", "norm1"),
    (r"LayerNorm_[12]", "norm2"),
    (r"MlpBlock_\d/Dense_0", "mlp/fc1"),
    (r"MlpBlock_\d/Dense_1", "mlp/fc2"),
    (r"MultiHeadDotProductAttention_\d", "attn"),
    (r"attn/out", "attn/proj"),
    (r"/", "."),
]


def vit_in_timms_names(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    rules, renamed = {"torchvision": VIT_TORCHVISION, "official": VIT_FLAX}.get(source, []), {}
    if source == "official" and "cls_token" in state:  # DeiT, whose authors use timm
        rules = []
    for name, tensor in (from_flax(state) if rules is VIT_FLAX else state).items():
        for rule, timms in rules:
            name = re.sub(rule, timms, name)
        renamed[name] = tensor
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [renamed.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        renamed[name.replace("query", "qkv")] = torch.cat(parts)
    return renamed


def swin(twin: VideoSwin, source: str) -> Entries:
    """The authors' names; timm counts a merging with the stage after it, torchvision counts it as a stage."""

    def layer(stage: int, block: str | None) -> str:
        if source == "torchvision":
            return f"features.{2 * stage + 2}" if block is None else f"features.{2 * stage + 1}.{block}"
        if block is None:
            return f"layers.{stage + (source == 'timm')}.downsample"
        return f"layers.{stage}.blocks.{block}"

    outside, block = SWIN_OUTSIDE, TIMM_BLOCK
    if source == "torchvision":
        outside = {**outside, "patch_embed.project": "features.0.0", "norm_embed": "features.0.2"}
        block = SWIN_BLOCK
    for ours, official, how in named_swin(twin, source, outside, block, layer):
        if not ours.startswith("head."):
            yield ours, official, one_frame if ours == "patch_embed.project.weight" else how


def resnet(twin: nn.Module) -> Entries:
    """torchvision's names, which timm and most others share."""
    for name, tensor in twin.state_dict().items():
        *path, part, kind = name.split(".")
        if not tensor.is_floating_point() or name.startswith("head."):
            continue
        conv = part == "conv"
        if path == ["stem"]:
            yield name, f"{'conv1' if conv else 'bn1'}.{kind}", one_frame
            continue
        stage, block, branch = path
        official = f"layer{int(stage[-1]) - 1}.{block.removeprefix('block')}"
        if branch == "shortcut":
            yield name, f"{official}.downsample.{0 if conv else 1}.{kind}", one_frame
        else:
            yield name, f"{official}.{'conv' if conv else 'bn'}{'abc'.index(branch) + 1}.{kind}", one_frame


INCEPTION = {"conv_1a": "conv1", "conv_2b": "conv2", "conv_2c": "conv3", "single": "branch1", "middle": "branch2",
             "small": "branch3", "pooled": "branch4"}  # fmt: skip


def inception(twin: I3D) -> Entries:
    """torchvision's GoogLeNet, whose modules are lettered from a, not b; it pads its strides otherwise than I3D."""
    for name, tensor in twin.state_dict().items():
        if not tensor.is_floating_point() or name.startswith("head."):
            continue
        *path, part, kind = name.removeprefix("layers.").split(".")
        if path[0].startswith("mixed_"):
            path[0] = f"inception{path[0][-2]}{chr(ord(path[0][-1]) - 1)}"
        path = [INCEPTION.get(step, step) for step in path]
        yield name, ".".join([*path, "conv" if part == "conv" else "bn", kind]), one_frame
