"""Released checkpoints: their names and layouts, and how they become ours.

One file a code base. Each gives `entries(model)`: for every tensor of ours, the official tensor that it is made from
and how (None: as it is), or the several that `how` puts together.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgpack
import numpy as np
import torch
from torch import Tensor, nn

from course_lib.layers.inflate import LoadReport
from course_lib.official import (
    gluonmm,
    huggingface,
    i3d,
    mvit,
    pyslowfast,
    pytorchvideo,
    scenic,
    timesformer,
    torchvision,
    videoswin,
    vtn,
)

Entry = tuple[str, str | tuple[str, ...], Callable[..., Tensor] | None]  # ours, official, how
SOURCES: dict[str, Callable[[nn.Module], Iterator[Entry]]] = {
    "piergiaj": i3d.piergiaj,
    "hassony2": i3d.hassony2,
    "pyslowfast": pyslowfast.entries,
    "pytorchvideo": pytorchvideo.entries,
    "torchvision": torchvision.entries,
    "vtn": vtn.entries,
    "timesformer": timesformer.entries,
    "videoswin": videoswin.entries,
    "scenic": scenic.entries,
    "gluonmm": gluonmm.entries,
    "huggingface": huggingface.entries,
}
OLDER = {  # other layouts of the same release, and what brings them into the form that its entries name
    "pyslowfast": pyslowfast.from_caffe2,
    "scenic": scenic.from_flax,
    "huggingface": huggingface.from_v4,
}
COPIES = {"pytorchvideo": mvit.first_name}  # the first name of a tensor that a release holds under two


def load(model: nn.Module, checkpoint: str | Path | Mapping[str, object], source: str) -> LoadReport:
    """Fill `model` from an official checkpoint: a file (.pyth, .pt, .bin, .pkl, .npz, .safetensors; flax's .msgpack,
    or without a suffix as flax saves it) or its state dict.

    Strict both ways: ValueError names every official tensor that is missing, unexpected or misshapen, and then nothing
    is loaded. Integer buffers (counters, index tables) may be left over, and so may second copies of a tensor, if they
    equal the first; the report names them. Ours stay as built.
    """
    if source not in SOURCES:
        raise ValueError(f"unknown checkpoint format {source!r}: there are {', '.join(SOURCES)}")
    state = dict(checkpoint) if isinstance(checkpoint, Mapping) else read(Path(checkpoint))
    state = OLDER.get(source, dict)(state)
    ours = model.state_dict()
    filled, used, problems = gather(ours, state, SOURCES[source](model))
    left = [name for name in state if name not in used]
    first = COPIES.get(source, lambda name: None)
    copies = {name for name in left if first(name) in state and same(state[name], state[first(name)])}
    problems += [f"unexpected: {name}" for name in left if name not in copies and state[name].is_floating_point()]
    if problems:
        problems = list(dict.fromkeys(problems))
        shown = problems[:40] + ([f"... and {len(problems) - 40} more"] if len(problems) > 40 else [])
        raise ValueError(
            f"{len(problems)} tensors of this {source} checkpoint do not fit {type(model).__name__}; build the model "
            f"with the checkpoint's classes, frames, size and attention:\n  " + "\n  ".join(shown)
        )
    unfilled = [name for name, tensor in ours.items() if name not in filled and tensor.is_floating_point()]
    assert not unfilled, f"course_lib.official.{source} forgets {unfilled}"
    model.load_state_dict({**ours, **filled})
    return LoadReport(tuple(filled), left_over=tuple(left))


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.equal(b)


def gather(
    ours: Mapping[str, Tensor], state: Mapping[str, Tensor], entries: Iterator[Entry]
) -> tuple[dict[str, Tensor], set[str], list[str]]:
    """Our tensors made from official ones, the names of those, and what is missing or misshapen, in words."""
    filled, used, problems = {}, set(), []
    for name, official, how in entries:
        parts = (official,) if isinstance(official, str) else official
        used.update(parts)
        missing = [part for part in parts if part not in state]
        if missing:
            problems += [f"missing: {part}" for part in missing]
            continue
        wanted, given = ours[name].shape, [state[part] for part in parts]
        try:
            filled[name] = given[0] if how is None else how(*given)
            found = filled[name].shape
        except (RuntimeError, ValueError, IndexError):  # the official tensor does not even have the right axes
            found = given[0].shape
        if found != wanted:
            shapes = ", ".join(f"{part} {tuple(state[part].shape)}" for part in parts)
            problems.append(f"misshapen: {shapes} for {name} {tuple(wanted)}")
    return filled, used, problems


def read(path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint file; code in it is never run. ValueError says why a file cannot be read."""
    if not path.is_file():
        raise ValueError(f"no checkpoint at {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".pkl":
            return read_caffe2(path)
        if path.suffix in (".msgpack", ""):
            return read_flax(path)
        if path.suffix == ".npz":
            with np.load(path) as arrays:  # pickled objects are refused
                return {name: torch.from_numpy(arrays[name]) for name in arrays}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files warn about their storage format
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not a checkpoint that can be read: {error}") from error
    for wrapper in ("model_state", "state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict of tensors")
    return state


class OnlyArrays(pickle.Unpickler):
    """Reads numpy arrays and plain containers; any other object is refused."""

    ALLOWED = (
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("_codecs", "encode"),
        ("collections", "OrderedDict"),
    )

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, and a checkpoint holds arrays only")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_caffe2(path: Path) -> dict[str, Tensor]:
    """The blobs of a Caffe2 checkpoint, a pickle of {"blobs": {name: array}}; other entries are no weights."""
    with path.open("rb") as file:
        blobs = OnlyArrays(file, encoding="latin1").load()["blobs"]
    return {name: torch.from_numpy(blob.copy()) for name, blob in blobs.items() if isinstance(blob, np.ndarray)}


def read_flax(path: Path) -> dict[str, Tensor]:
    """The arrays of a checkpoint that flax saved; their names are joined by slashes, and what is no array is left out.

    Arrays of over 1 GiB lie there in pieces. https://flax.readthedocs.io/en/latest/api_reference/flax.serialization.html
    """

    def array(code: int, data: bytes) -> Tensor | None:
        if code != 1:  # complex numbers and counters, none of which are weights
            return None
        shape, kind, numbers = msgpack.unpackb(data)
        flat = torch.frombuffer(bytearray(numbers), dtype=getattr(torch, kind)) if numbers else torch.empty(0)
        return flat.reshape(shape)

    def whole(tree: dict) -> dict | Tensor:
        if "__msgpack_chunked_array__" not in tree:
            return tree
        shape, pieces = (list(tree[part].values()) for part in ("shape", "chunks"))
        return torch.cat(pieces).reshape(shape)

    tree = msgpack.unpackb(path.read_bytes(), ext_hook=array, object_hook=whole, strict_map_key=False)
    return {name: x for name, x in scenic.flatten(tree) if isinstance(x, Tensor)}
