"""What the grader puts into a student's kernel, as text: read what is asked, call the functions, write what they give.

It stands alone, because course_lib is not in there. Nothing it says is believed: a forged answer is only a wrong one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import types
import warnings
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

DTYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16,
    torch.int32, torch.int64,
)  # fmt: skip


UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # sent as int64: torch computes little with them


class NotData(TypeError):
    """Neither a tensor, a number, a text nor a list or dictionary of them."""


class TooLarge(NotData):
    """Whole numbers that int64 does not hold."""


def from_numpy(part: Any) -> Any:
    """An array as a tensor, whatever its byte order, strides and precision; a number of NumPy's as Python's."""
    if isinstance(part, np.generic):
        return float(part) if part.dtype.kind == "f" else part.item()
    dtype = np.dtype(np.float64) if part.dtype.char == "g" else part.dtype.newbyteorder("=")
    with np.errstate(all="ignore"):
        return torch.from_numpy(np.array(part, dtype=dtype, copy=True))


def signed(part: torch.Tensor) -> torch.Tensor:
    """TooLarge if int64 does not hold its numbers."""
    found = part.to(torch.int64)
    if bool((found < 0).any()):
        raise TooLarge(str(part.dtype))
    return found


def pack(value: Any) -> bytes:
    """Tensors, numbers, texts, None, lists and dictionaries as one safetensors file, its tree as JSON in there."""
    tensors: dict[str, torch.Tensor] = {}

    def tree(part: Any) -> Any:
        if isinstance(part, np.ndarray | np.generic) and part.dtype.kind in "biuf":
            part = from_numpy(part)
        if isinstance(part, torch.Tensor):
            if part.dtype in UNSIGNED:
                part = signed(part)
            if part.dtype not in DTYPES:
                raise NotData(str(part.dtype))
            plain = part.detach().to_dense() if part.layout != torch.strided else part.detach()
            name = str(len(tensors))
            tensors[name] = plain.cpu().resolve_neg().clone(memory_format=torch.contiguous_format)
            return {"tensor": name}
        if part is None or isinstance(part, bool):
            return part
        for kind in (int, float, str):  # a subclass may write itself as it likes
            if isinstance(part, kind):
                return kind(part)
        if isinstance(part, list | tuple | range):
            return [tree(one) for one in part]
        if isinstance(part, dict):
            return {"dict": [[tree(key), tree(one)] for key, one in part.items()]}
        raise NotData(type(part).__name__)

    content = json.dumps(tree(value))
    return save(tensors, metadata={"tree": content})


def unpack(content: bytes) -> Any:
    """What `pack` packed. Only for what the grader wrote: see `wire.read` for what comes out of a box."""
    size = int.from_bytes(content[:8], "little")
    tensors = load(content)

    def value(part: Any) -> Any:
        if isinstance(part, list):
            return [value(one) for one in part]
        if isinstance(part, dict):
            if "tensor" in part:
                return tensors[part["tensor"]].clone()
            return {value(key): value(one) for key, one in part["dict"]}
        return part

    return value(json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["tree"]))


class Silent:
    """A stream that forgets: what functions print costs nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def nearest_builtin(error: BaseException) -> str:
    """The name of the class of an error that Python itself has."""
    for kind in type(error).__mro__:
        if kind.__module__ == "builtins":
            return kind.__name__
    return "Exception"


def place(error: BaseException) -> tuple[str, int]:
    """File and line of the last line of a notebook's cell that an error came through; else ("", 0)."""
    found, trace = ("", 0), error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "ipykernel" in file and re.search(r"[\\/](\d+)\.py$", file):
            found = (os.path.basename(file)[:-3], trace.tb_lineno)
        trace = trace.tb_next
    return found


def one_case(call: Any, answers: Any, given: dict[str, Any], number: int) -> dict[str, Any]:
    """What `call` gives, or how it stopped."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
    torch.set_default_dtype(torch.float32)
    with contextlib.redirect_stdout(Silent()), contextlib.redirect_stderr(Silent()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.enable_grad():
                return {"gives": call(answers, **given)}
        except BaseException as error:
            memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
            file, line = place(error)
            return {"stops": "MemoryError" if memory else nearest_builtin(error), "cell": file, "line": line}


def probe(user: dict[str, Any], call_source: str, names: list[str], asked: str, answer: str) -> None:
    """Answer every case in the file `asked` with the functions called `names` in `user`; write to the file `answer`."""
    found: dict[str, Any] = {}
    if missing := [name for name in names if name not in user]:
        found = {"missing": missing}
    else:
        space: dict[str, Any] = {"__name__": "call"}
        exec(compile(call_source, "<call>", "exec"), space)
        with open(asked, "rb") as file:
            cases = unpack(file.read())
        answers = types.SimpleNamespace(**{name: user[name] for name in names})
        found = {"cases": [one_case(space["call"], answers, given, i) for i, given in enumerate(cases)]}
    try:
        content = pack(found)
    except BaseException as error:
        kind = type(error).__name__ if isinstance(error, NotData) else nearest_builtin(error)
        content = pack({"unsent": kind})
    with open(answer, "r+b") as file:
        file.truncate(0)
        try:
            file.write(content)
            file.flush()
        except OSError:  # larger than a file may be
            file.truncate(0)
            file.seek(0)
            file.write(pack({"unsent": "OSError"}))
