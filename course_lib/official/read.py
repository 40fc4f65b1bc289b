"""From a checkpoint in any of the formats in use to one flat state dict; nothing in it is ever run.

The format is told by the content, never by the name: PyTorch's two formats, safetensors, flax's msgpack, NumPy's npz,
pickles of arrays (Caffe2). What lies beside the tensors (epochs, optimisers, the objects of other people's programs)
is left out.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from io import BufferedIOBase, BytesIO
from pathlib import Path
from types import ModuleType
from typing import IO, Any, ClassVar, cast
from zipfile import ZipFile, is_zipfile

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

State = dict[str, Tensor]
Checkpoint = str | Path | BufferedIOBase | Mapping[str, object]


def read(checkpoint: Checkpoint, part: str | None = None) -> State:
    """The state dict of a checkpoint: a path, a file open in binary mode, or what such a file holds, as a dict.

    `part` chooses where a file holds several state dicts, as "model_ema" beside "model"; a dot leads into a dict.

    Raises:
        ValueError: it cannot be read, holds no state dict or several; the message lists them.
    """
    if isinstance(checkpoint, Mapping):
        name = "this dict"
        content: object = dict(checkpoint)
    else:
        name, content = _open(checkpoint)
    if isinstance(content, Mapping) and any(leaf.endswith("/kernel") for leaf, _ in flatten(content)):
        content = dict(flatten(content))  # of flax
    found = dict(_state_dicts(content))
    if not found:
        raise ValueError(f"{name} holds no state dict of tensors{_whole_network(content)}")
    if part is None and len(found) > 1:
        listed = "\n  ".join(f"part={key!r}: {len(state)} tensors" for key, state in found.items())
        raise ValueError(f"{name} holds {len(found)} state dicts; choose one of them:\n  {listed}")
    if part is not None and part not in found:
        raise ValueError(f"{name} has no part {part!r}: there is {', '.join(map(repr, found))}")
    return found[part] if part is not None else next(iter(found.values()))


WRAPPERS = {  # prefixes that programs put before the names of a network
    "module.": "DataParallel, DistributedDataParallel or AveragedModel",
    "_orig_mod.": "torch.compile",
    "model.": "Lightning",
    "backbone.": "mmaction2",
}
COUNTERS = {"n_averaged"}  # of AveragedModel, beside its prefix


def without_wrappers(state: Mapping[str, Tensor]) -> Iterator[tuple[str, State]]:
    """The state dict as it is, then without the prefixes of wrappers that all its names share; each with what was cut.

    The same letters can belong to the names of a release ("backbone." of mmaction2), so that only the network which
    is to be filled can tell how much is to be cut.
    """
    prefix, bare = "", dict(state)
    while True:
        yield prefix, bare
        names = bare.keys() - COUNTERS
        cut = next((cut for cut in WRAPPERS if names and all(name.startswith(cut) for name in names)), None)
        if cut is None:
            return
        prefix, bare = prefix + cut, {name.removeprefix(cut): bare[name] for name in bare if name in names}


def flatten(tree: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dicts, their names joined by slashes; flax keeps parameters so."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{above}{key}/")
        else:
            yield f"{above}{key}", value


def _open(checkpoint: str | Path | BufferedIOBase) -> tuple[str, object]:
    if isinstance(checkpoint, str | Path):
        name, path = str(checkpoint), Path(checkpoint)
        if not path.is_file():
            raise ValueError(f"no checkpoint at {path}")
        content: BufferedIOBase = path.open("rb")
    else:
        name, content = str(getattr(checkpoint, "name", "this file")), BytesIO(checkpoint.read())
    with content as file:
        try:
            return name, _parse(file)
        except Exception as error:
            reason = re.sub(r"\x1b\[[0-9;]*m", "", str(error) or type(error).__name__)
            raise ValueError(f"{name} is not a checkpoint that can be read: {reason}") from error


def _parse(file: BufferedIOBase) -> object:
    head = file.read(16)
    file.seek(0)
    if head[:4] == b"PK\x03\x04" and is_zipfile(file):
        file.seek(0)
        with ZipFile(file) as archive:
            names = archive.namelist()
        file.seek(0)
        if any(name.endswith("/data.pkl") for name in names):
            if any(name.endswith("/constants.pkl") for name in names):
                raise ValueError("it is a TorchScript program; save the state dict of the network")
            return _torch(file)
        with np.load(file) as arrays:  # pickled objects are refused
            return {name: arrays[name] for name in arrays}
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**30:
        return safetensors.torch.load(file.read())
    if head[:1] in (b"(", b"}") or (head[:1] == b"\x80" and head[1:2] <= b"\x05"):
        first = ArraysOnly(file, encoding="latin1").load()
        file.seek(0)
        return _torch(file) if first == torch.serialization.MAGIC_NUMBER else first
    if head and (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)):
        return dict(flatten(_flax(file.read())))
    raise ValueError("it is none of PyTorch's formats, safetensors, msgpack, npz or a pickle of arrays")


def _torch(file: BufferedIOBase) -> object:
    """torch.load without foreign code; torch's own unpickler refuses a whole file for one object it does not know."""
    unpickling = ModuleType("unpickling")  # torch asks for a module like `pickle`
    vars(unpickling).update(Unpickler=ArraysOnly, load=_load, UnpicklingError=pickle.UnpicklingError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old files warn about their storage format
        return torch.load(cast(IO[bytes], file), map_location="cpu", pickle_module=unpickling, weights_only=False)


def _load(file: BufferedIOBase, **settings: Any) -> object:
    return ArraysOnly(file, **settings).load()


class Foreign:
    """Stands for an object of a class that is not on the list: takes whatever it is given and does nothing with it."""

    def __new__(cls, *args: object, **kwargs: object) -> Foreign:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> Foreign:
        return self

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


class ArraysOnly(pickle.Unpickler):
    """Builds tensors, arrays and plain containers; every other object becomes a `Foreign`, its code is never looked up.

    Parts of NumPy moved to numpy._core in its version 2.
    """

    ALLOWED: ClassVar[dict[str, set[str]]] = {
        "collections": {"OrderedDict"},
        "_codecs": {"encode"},  # bytes, in pickles of Python 2
        "numpy": {"ndarray", "dtype"},
        "numpy._core.multiarray": {"_reconstruct", "scalar"},
        "numpy.dtypes": {"Float16DType", "Float32DType", "Float64DType", "Int32DType", "Int64DType", "UInt8DType"},
        "torch": {"Size", "device", "float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32",
                  "int64", "bool"},
        "torch._utils": {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"},
        "torch.storage": {"TypedStorage", "UntypedStorage"},
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")
        if name in self.ALLOWED.get(module, ()):
            return super().find_class(module, name)
        return type(f"{module}.{name}", (Foreign,), {})


def _flax(content: bytes) -> Mapping[str, Any]:
    """The tree of arrays of a checkpoint that flax saved; arrays of over 1 GiB lie there in pieces.

    https://flax.readthedocs.io/en/latest/api_reference/flax.serialization.html
    """
    import msgpack  # here, so that networks train where it is not installed

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

    return msgpack.unpackb(content, ext_hook=array, object_hook=whole, strict_map_key=False)


def _state_dicts(content: object, above: str = "") -> Iterator[tuple[str, State]]:
    """Every innermost dict of tensors; "" is the whole content. Tensors beside such a dict (losses, random states) are
    no weights, and what optimisers keep is numbered, not named."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    inner = [found for key, value in content.items() for found in _state_dicts(value, f"{above}{key}.")]
    tensors = {key: x for key, value in content.items() if (x := _tensor(value)) is not None}
    if inner:
        yield from inner
    elif tensors:
        yield above.rstrip("."), tensors


def _tensor(value: object) -> Tensor | None:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in "fiub" else None
    return value.detach() if isinstance(value, Tensor) else None


def _whole_network(content: object) -> str:
    """A hint, where a network was pickled in place of its state dict."""
    for value in content.values() if isinstance(content, Mapping) else [content]:
        if isinstance(value, Foreign):
            return (
                f", but an object of {type(value).__name__}: where that class is installed, load the file "
                "and save its state_dict()"
            )
    return ""
