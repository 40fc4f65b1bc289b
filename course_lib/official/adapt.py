"""From a released video checkpoint to a task of one's own: other classes, frames, sizes or windows.

First the checkpoint is read strictly, into the network that it belongs to: ours with those settings that its tensors
tell. Then every tensor of ours is copied from there, resized on its grid, or left fresh (the head of other classes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from course_lib import models
from course_lib.grid import Grid
from course_lib.models.cvidtr import CVidTr
from course_lib.models.timesformer import TimeSformer
from course_lib.models.video_swin import VideoSwin
from course_lib.models.vidtr import VidTr
from course_lib.models.vivit import ViViT
from course_lib.models.vtn import VTN

FRAMES = (8, 4, 16, 32, 64, 96, 24, 40)
SIZES = (224, 112, 448, 256, 288, 312, 320, 384, 128, 64, 96)
WINDOWS = [Grid(t, side, side) for t in (8, 16, 4, 2) for side in (7, 12, 14, 4)]


def relatives(net: nn.Module, rows: Mapping[str, int]) -> Iterator[nn.Module]:
    """Networks like `net` that a checkpoint may belong to, without numbers (on the meta device); the likeliest first.

    `rows` has the vectors in its position embeddings, by our names. A table of time or of space tells its length; for
    one over both the settings of released variants are tried, then the usual ones. Without a table `net` alone remains.
    """
    c: Any = net.config
    released: list[Any] = [other for network, other in models.NETWORKS.values() if network is type(net)]
    settings: dict[str, list[Any]] = {}
    if isinstance(net, VideoSwin):
        settings = {"window": [c.window, *(v.window for v in released), *WINDOWS]}
    elif has_table(net):
        told_frames: list[int] = []
        told_sizes: list[int] = []
        ours = _token_grid(net)
        for name, count in rows.items():
            if name.endswith("time_embed.weight"):
                told_frames.append(count * (c.clip.t // ours.t))
            elif name.endswith("pos_embed.weight"):  # the class token's is one of them
                told_sizes.append(isqrt(count - 1) * (c.clip.h // ours.h))
        # as many patches can lie in a square and in another rectangle: released tables are of squares
        own = [] if misleading(net) else [c.size]
        settings["frames"] = [*told_frames, c.frames, *(v.frames for v in released), *FRAMES]
        settings["size"] = [*told_sizes, *own, *(v.size for v in released), *SIZES]
        if isinstance(net, VTN):
            del settings["frames"]
    elif getattr(c, "positions", "").startswith("relative"):  # MViTv2
        settings["frames"] = [c.frames, *(v.frames for v in released), *FRAMES]
        settings["size"] = [c.size, *(v.size for v in released), *SIZES]
    choices = {name: list(dict.fromkeys(values)) for name, values in settings.items()}
    ordered = sorted(product(*(range(len(values)) for values in choices.values())), key=sum)
    for places in ordered:
        changes = {name: choices[name][at] for name, at in zip(choices, places, strict=True)}
        try:
            with torch.device("meta"):
                other = type(net)(replace(c, **changes))
        except ValueError:  # settings that do not go together
            continue
        yield other


def misleading(net: nn.Module) -> str:
    """Why a released table may have as many vectors as this network's and yet other places; "" if it cannot."""
    c: Any = net.config
    if not has_table(net):
        return ""
    h, w = _token_grid(net)[1:]
    if h != w and isqrt(h * w) ** 2 == h * w:
        return f"released position embeddings are of squares, this network is for {c.clip.h} x {c.clip.w} pixels"
    if isinstance(net, ViViT) and c.model != 2:  # one table over time and space
        released: list[Any] = [other for network, other in models.NETWORKS.values() if network is ViViT]
        for other in released:
            if other.grid != c.grid and other.grid.size == c.grid.size and other.dim == c.dim:
                there, here = tuple(other.grid), tuple(c.grid)
                return f"a released table of {there} tokens has as many vectors as this network's {here}"
    return ""


def has_table(net: nn.Module) -> bool:
    """Is there a position embedding for every place of a frame?"""
    return any(name.endswith(("pos_embed", "pos_embed.weight")) for name, _ in net.named_parameters())


def resize_image(state: Mapping[str, Tensor], twin: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """An image checkpoint by timm's names (ViT) or any (Swin) at the size of `twin`, and what was resized, in words.

    A distilled DeiT's second token goes, with its position embedding; so does its second head.
    """
    found = dict(state)
    resized: list[str] = []
    if "dist_token" in found:
        found["pos_embed"] = torch.cat([found["pos_embed"][:, :1], found["pos_embed"][:, 2:]], dim=1)
    for name, x in found.items():
        if name == "pos_embed":
            _, h, w = _token_grid(twin)
            cls, table = x[:, :1], x[0, 1:]
        elif name.endswith("relative_position_bias_table") and isinstance(twin, VideoSwin):
            _, h, w = (2 * n - 1 for n in twin.config.block_window)
            cls, table = None, x
        else:
            continue
        side = isqrt(len(table))
        if (h, w) == (side, side):
            continue
        square = rearrange(table, "(h w) d -> 1 d h w", h=side)
        square = F.interpolate(square, size=(h, w), mode="bicubic", align_corners=False, antialias=cls is not None)
        table = rearrange(square, "1 d h w -> (h w) d")
        found[name] = table if cls is None else torch.cat([cls, table[None]], dim=1)
        resized.append(f"{name} {side}x{side} -> {h}x{w}, bicubic")
    return found, resized


def fit(net: nn.Module, other: nn.Module, theirs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of `other` in the shapes of `net`, and in words how those were resized that had other ones.

    What has no place there, as the head of other classes, is left out.
    """
    filled: dict[str, Tensor] = {}
    resized: list[str] = []
    for name, ours in net.state_dict().items():
        tensor = theirs.get(name)
        if tensor is None or not ours.is_floating_point():
            continue
        if tensor.shape != ours.shape and not name.startswith("head."):
            found = _resize(net, other, name, tensor)
            if found is None:
                raise ValueError(
                    f"{name}: {tuple(tensor.shape)} in the checkpoint, {tuple(ours.shape)} here, and no rule to resize "
                    "it: build the network with the checkpoint's settings"
                )
            resized.append(f"{name} {_by(tensor)} -> {_by(ours)}, {found[1]}")
            tensor = found[0]
        if tensor.shape == ours.shape:
            filled[name] = tensor
    return filled, resized


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _resize(net: Any, other: Any, name: str, x: Tensor) -> tuple[Tensor, str] | None:
    """The tensor on the network's own grid and how; None where no rule is known."""
    if name.endswith("bias.table") and isinstance(net, VideoSwin):  # heads, times, places
        small, large = (Grid(*(2 * n - 1 for n in each.config.block_window)) for each in (other, net))
        table = _grid(rearrange(x, "head t hw -> (t hw) head"), small, large, "bicubic")
        return rearrange(table, "t h w head -> head t (h w)"), "bicubic in space, linear in time"
    if not (hasattr(net.config, "grid") or isinstance(net, VidTr | CVidTr | VTN)):
        return None
    if ".relative.tables." in name:  # MViTv2: rows
        rows = net.state_dict()[name].shape[0]
        return F.interpolate(x.T[None], size=rows, mode="linear", align_corners=False)[0].T, "linear, as released"
    mode = "nearest" if isinstance(net, TimeSformer) or name.startswith("backbone.") else "bilinear"
    old, new = _token_grid(other), _token_grid(net)
    ways = [f"{mode} in space"] if old[1:] != new[1:] else []
    ways += [f"{'nearest' if mode == 'nearest' else 'linear'} in time"] if old.t != new.t else []
    words = " and ".join(ways)
    if name.endswith("time_embed.weight"):  # t d
        return _time(x, old, new, mode), words
    if name.endswith("pos_embed.weight") and x.shape[:2] == (old.t, old.h * old.w):  # t (h w) d: all tokens
        return _grid(x.flatten(0, 1), old, new, mode).flatten(1, 2), words
    if name.endswith("pos_embed.weight"):  # h w d
        return _space(x.flatten(0, 1), old, new, mode).unflatten(0, new[1:]), words
    if isinstance(net, ViViT) and name.endswith("pos_embed") and x.ndim == 3:  # t (h w) d, of one of two encoders
        small, large = _encoder_grid(other, name, old), _encoder_grid(net, name, new)
        return _grid(x.flatten(0, 1), small, large, mode).flatten(1, 2), words
    if isinstance(net, VidTr | CVidTr):
        return _vidtr(net, name, x, old, new, mode), words
    return None


def _vidtr(net: VidTr | CVidTr, name: str, x: Tensor, old: Grid, new: Grid, mode: str) -> Tensor:
    """Class tokens keep their own embeddings: the first row, the first column, or the first token."""
    if name == "column":  # t d
        return _time(x, old, new, mode)
    if name == "row":  # 1+n d
        return torch.cat([x[:1], _space(x[1:], old, new, mode)])
    if isinstance(net, CVidTr):  # t n d
        return _grid(x.flatten(0, 1), old, new, mode).flatten(1, 2)
    if net.config.attention == "joint":  # 1+tn d
        return torch.cat([x[:1], _grid(x[1:], old, new, mode).flatten(0, 2)])
    inner = _grid(x[1:, 1:].flatten(0, 1), old, new, mode).flatten(1, 2)  # of 1+t 1+n d
    top = torch.cat([x[0, :1], _space(x[0, 1:], old, new, mode)])
    return torch.cat([top[None], torch.cat([_time(x[1:, 0], old, new, mode)[:, None], inner], dim=1)])


def _token_grid(net: Any) -> Grid:
    if isinstance(net, VidTr | CVidTr):
        return net.config.patches
    return _token_grid(net.backbone) if isinstance(net, VTN) else net.config.grid


def _encoder_grid(net: Any, name: str, grid: Grid) -> Grid:
    if net.config.model != 2:
        return grid
    return Grid(grid.t, 1, 1) if name.startswith("time_encoder.") else grid._replace(t=1)


def _time(x: Tensor, old: Grid, new: Grid, mode: str) -> Tensor:
    return _grid(x, Grid(old.t, 1, 1), Grid(new.t, 1, 1), mode)[:, 0, 0]


def _space(x: Tensor, old: Grid, new: Grid, mode: str) -> Tensor:
    return _grid(x, old._replace(t=1), new._replace(t=1), mode)[0].flatten(0, 1)


def _grid(x: Tensor, old: Grid, new: Grid, mode: str) -> Tensor:
    """Rows (t h w) d on another grid, as t h w d: in space by `mode`, in time nearest with it, else linear."""
    x = rearrange(x, "(t h w) d -> t d h w", t=old.t, h=old.h, w=old.w)
    if old[1:] != new[1:]:
        x = F.interpolate(x, size=new[1:], mode=mode, align_corners=None if mode == "nearest" else False)
    if old.t != new.t:
        x = rearrange(x, "t d h w -> (h w) d t")
        how, corners = ("nearest", None) if mode == "nearest" else ("linear", False)
        x = rearrange(F.interpolate(x, size=new.t, mode=how, align_corners=corners), "(h w) d t -> t d h w", h=new.h)
    return rearrange(x, "t d h w -> t h w d")
