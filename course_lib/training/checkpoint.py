"""One file that a training run goes on from: weights, optimiser, generators, curve and settings.

The file is safetensors, so that reading one cannot run code. Every save is an atomic write: whenever the process dies,
the path holds the old file or the new.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from course_lib.files import atomic_write

FORMAT = "course_lib checkpoint 1"
GROUPS = (
    "weights",
    "optimizer",
    "generators",
    "history",
)  # a Checkpoint's tensors; their prefixes in the file


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
    """

    step: int
    settings: dict[str, Any]
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    generators: dict[str, Tensor] = field(default_factory=dict)
    history: dict[str, Tensor] = field(default_factory=dict)


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
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(f"its format is {about.get('format')!r}, not {FORMAT!r}")
            step, settings = int(about["step"]), json.loads(about["settings"])
            for key in file.keys():  # noqa: SIM118 (the file is no dict)
                group, name = key.split("/", 1)
                groups[group][name] = file.get_tensor(key).clone()  # else a view into the file
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"{path} is not a whole checkpoint: {error}. Delete it to start again, or put a copy in its place"
        ) from error
    return Checkpoint(step, settings, **groups)


def resume(path: str | Path, settings: dict[str, Any], net: nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint:
    """Put the run at `path` into `net` and `optimizer`; ValueError names everything that differs."""
    saved = load(path)
    lines = differences(saved, settings, net)
    if not saved.generators:
        lines.append("optimizer, generators, history: missing in the file, which holds a network and not a run")
    if lines:
        raise ValueError(
            f"{path} is of another run:\n  " + "\n  ".join(lines) + "\n"
            "Delete the file to start again, choose another name, or go back to its settings and network"
        )
    net.load_state_dict(saved.weights)
    parameters = dict(net.named_parameters())
    for entry, value in saved.optimizer.items():
        key, name = entry.split("/", 1)
        parameter = parameters[name]
        # torch counts an optimiser's steps on the CPU; the rest of its state lies beside the parameter
        optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
    return saved


def differences(checkpoint: Checkpoint, settings: dict[str, Any], net: nn.Module) -> list[str]:
    """Why a run of `net` with these settings cannot go on from `checkpoint`, line by line; [] if it can."""
    there = _flat(checkpoint.settings) | {name: _describe(t) for name, t in checkpoint.weights.items()}
    here = _flat(settings) | {name: _describe(t) for name, t in net.state_dict().items()}
    return [
        f"{name}: {there.get(name, 'missing')} in the file, {here.get(name, 'missing')} here"
        for name in there | here
        if there.get(name) != here.get(name)
    ]


def optimizer_state(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a Checkpoint keeps of the optimiser; by names, since torch's own numbers depend on the groups."""
    return {
        f"{key}/{name}": value
        for name, parameter in net.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def seeded_generators(seed: int, device: torch.device) -> dict[str, Tensor]:
    """What `torch.manual_seed(seed)` makes of the global generators that a network on `device` draws from."""
    kinds = ("cpu", "cuda") if device.type == "cuda" else ("cpu",)
    return {kind: torch.Generator(kind).manual_seed(seed).get_state() for kind in kinds}


def get_generators(device: torch.device) -> dict[str, Tensor]:
    """The present states of the global generators that a network on `device` draws from."""
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state()} | cuda


def set_generators(generators: dict[str, Tensor], device: torch.device) -> None:
    """Put the global generators into such states."""
    torch.set_rng_state(generators["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(generators["cuda"], device)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """{"training": {"steps": 5}} as {"training.steps": "5"}."""
    flat = {}
    for name, value in settings.items():
        inner = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{name}.") if inner else {prefix + name: repr(value)}
    return flat


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
