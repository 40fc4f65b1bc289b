"""The networks by name: build("timesformer_b_8x224", classes=174)."""

from __future__ import annotations

from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from torch import nn

from course_lib.models import (
    cvidtr,
    i3d,
    mvit,
    nonlocal_net,
    r2plus1d,
    slowfast,
    timesformer,
    video_swin,
    vidtr,
    vivit,
    vtn,
)

NETWORKS = {
    name: (network, config)
    for network, variants in (
        (i3d.I3D, i3d.VARIANTS),
        (mvit.MViT, mvit.VARIANTS),
        (nonlocal_net.NonLocalNet, nonlocal_net.VARIANTS),
        (r2plus1d.R2Plus1D, r2plus1d.VARIANTS),
        (slowfast.SlowFast, slowfast.VARIANTS),
        (vtn.VTN, vtn.VARIANTS),
        (timesformer.TimeSformer, timesformer.VARIANTS),
        (video_swin.VideoSwin, video_swin.VARIANTS),
        (vidtr.VidTr, vidtr.VARIANTS),
        (cvidtr.CVidTr, cvidtr.VARIANTS),
        (vivit.ViViT, vivit.VARIANTS),
    )
    for name, config in variants.items()
}


def names() -> list[str]:
    """Every network that `build` knows."""
    return list(NETWORKS)


def build(name: str, **changes: object) -> nn.Module:
    """A freshly started network, its config changed by keyword; the network's `.config` tells what was built.

    ValueError lists the near names, or the fields that the config has.
    """
    config = configure(name, **changes)
    return NETWORKS[name][0](config)


def configure(name: str, **changes: object) -> Any:
    """The config that `build` would build from."""
    if name not in NETWORKS:
        near = get_close_matches(name, NETWORKS, 3, 0.3)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(NETWORKS)}."
        raise ValueError(f"unknown network {name!r}. {hint}")
    config: Any = NETWORKS[name][1]
    known = [field.name for field in fields(config)]
    for field in changes:
        if field not in known:
            near = get_close_matches(field, known, 1, 0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"{name} has no setting {field!r}: {hint}It has {', '.join(known)}")
    return replace(config, **changes)
