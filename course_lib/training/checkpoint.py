"""One file that a training run goes on from: weights, optimiser, generators, curve and settings.

The file is safetensors, so that reading one cannot run code. Every save is an atomic write: whenever the process dies,
the path holds the old file or the new.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from course_lib.files import atomic_write

FORMAT = "course_lib checkpoint 1"
GROUPS = ("weights", "optimizer", "generators", "history", "mean")  # a Checkpoint's tensors; their prefixes in the file


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` updates. To hand out a trained network, step, settings and weights are enough.

    Attributes:
        step: updates done.
        settings: nested dict of plain values, see `as_plain`; a run goes on only with the same ones.
        weights: the network's state dict.
        optimizer: the optimiser's tensors by "key/parameter name", such as "exp_avg/head.weight".
        generators: states of torch's global generators, "cpu" and perhaps "cuda", uint8.
        history: a float64 column of length `step` for each field of a training record.
        mean: the state of the moving mean of the weights, where a run keeps one.
    """

    step: int
    settings: dict[str, Any]
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    generators: dict[str, Tensor] = field(default_factory=dict)
    history: dict[str, Tensor] = field(default_factory=dict)
    mean: dict[str, Tensor] = field(default_factory=dict)


def as_plain(config: Any) -> dict[str, Any]:
    """A dataclass as the dict that comes back from JSON: tuples are lists; functions, classes their names."""
    text = json.dumps(dataclasses.asdict(config), default=lambda it: getattr(it, "__qualname__", repr(it)))
    return json.loads(text)


def save(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path`, folder included; a crash leaves the old file or the new."""
    tensors = {
        # a copy of its own for every name: safetensors refuses tied weights, which share their memory
        f"{group}/{name}": tensor.detach().to("cpu", copy=True).contiguous()
        for group in GROUPS
        for name, tensor in getattr(checkpoint, group).items()
    }
    about = {"format": FORMAT, "step": str(checkpoint.step), "settings": json.dumps(checkpoint.settings)}
    # not safetensors' save_file, which makes up names and leaves them lying when killed
    atomic_write(path, safetensors.torch.save(tensors, about | {"torch": torch.__version__}))


def load(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`, on the CPU.

    Raises ValueError, with path and reason, for a file that is cut short or no checkpoint; FileNotFoundError.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no checkpoint there")
    groups: dict[str, dict[str, Tensor]] = {group: {} for group in GROUPS}
    with _opened(path) as (file, about):
        step, settings = int(about["step"]), json.loads(about["settings"])
        for key in file.keys():  # noqa: SIM118 (the file is no dict)
            group, name = key.split("/", 1)
            groups[group][name] = file.get_tensor(key).clone()  # else a view into the file
    return Checkpoint(step, settings, **groups)


def steps_done(path: Path) -> int:
    """Of the checkpoint at `path`, without its tensors; 0 if there is none. ValueError as for `load`."""
    if not path.exists():
        return 0
    with _opened(path) as (_, about):
        return int(about["step"])


def is_checkpoint(path: Path) -> bool:
    """Whether the file says so of itself; it may yet be another training's."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """The file and what its header says; ValueError, with path and reason, if it is no checkpoint."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(f"its format is {about.get('format')!r}, not {FORMAT!r}")
            yield file, about
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"{path} is not a whole checkpoint: {error}. Delete it to start again, or put a copy in its place"
        ) from error
