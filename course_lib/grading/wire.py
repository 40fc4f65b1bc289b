"""What goes into a box and what comes out of it: numbers and texts as data, never as something that could run.

A file out of a box was written by somebody who may wish to deceive. It is read without following a link, only if it is
a regular file with one name and small enough, and taken apart by hand: no pickle, no archive.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from course_lib.grading import probe
from course_lib.grading.probe import pack

MB = 1 << 20
MOST_PARTS, DEEPEST, LONGEST, HEADER = 100_000, 20, 10_000, 4 * MB


class Unreadable(ValueError):
    """What came out of a box cannot be read; the sentence quotes nothing of it."""


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a regular file with one name, opened without following a link. Unreadable if it is anything else."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
    except OSError as error:
        raise Unreadable("it is a link" if path.is_symlink() else f"it cannot be opened: {error.strerror}") from error
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise Unreadable("it is no regular file")
        if state.st_nlink != 1:
            raise Unreadable("it has more than one name")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            content = file.read(most + 1)  # its size may change while it is read
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise Unreadable(f"it is larger than {most / MB:g} MB")
    return content


def read(content: bytes) -> Any:
    """The value in a file that somebody else packed. Unreadable if anything in it is not as `pack` writes it."""
    try:
        size = int.from_bytes(content[:8], "little")
        if not content or size > min(len(content) - 8, HEADER):
            raise Unreadable("nothing came back" if not content else "it is no safetensors file")
        header = json.loads(content[8 : 8 + size])
        tree = json.loads(header["__metadata__"]["tree"])
        tensors = load(content)
    except Unreadable:
        raise
    except Exception as error:  # also RecursionError: the JSON of a stranger
        raise Unreadable("it is no safetensors file with a tree") from error
    if any(tensor.dtype not in probe.DTYPES for tensor in tensors.values()):
        raise Unreadable("it has numbers of a kind that is not compared")
    return _value(tree, tensors, [0], 0)


def _value(part: Any, tensors: dict[str, torch.Tensor], seen: list[int], depth: int) -> Any:
    seen[0] += 1
    if seen[0] > MOST_PARTS or depth > DEEPEST:
        raise Unreadable("it has too many parts")
    if part is None or isinstance(part, bool | float):
        return part
    if isinstance(part, int) and abs(part) < 1 << 200:
        return part
    if isinstance(part, str) and len(part) <= LONGEST:
        return part
    if isinstance(part, list):
        return [_value(one, tensors, seen, depth + 1) for one in part]
    if isinstance(part, dict) and list(part) == ["tensor"] and isinstance(part["tensor"], str):
        if part["tensor"] in tensors:
            tensor = tensors[part["tensor"]]
            # a truth value is one byte in the file, and a stranger may put any byte there
            return tensor.view(torch.uint8) != 0 if tensor.dtype == torch.bool else tensor
    elif isinstance(part, dict) and list(part) == ["dict"] and isinstance(part["dict"], list):
        found = {}
        for pair in part["dict"]:
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str | int):
                raise Unreadable("a dictionary in it has odd keys")
            found[pair[0]] = _value(pair[1], tensors, seen, depth + 1)
        return found
    raise Unreadable("it holds something that is no data")


def plain(value: Any) -> Any:
    """A value as it looks after it went over the wire."""
    return read(pack(value))


def probe_cell(call_source: str, names: list[str], asked: str, answer: str) -> str:
    """The cell that asks one question: `probe`'s text with what it needs, in a namespace of its own."""
    source = f"{inspect.getsource(probe)}\nprobe(_user, {call_source!r}, {names!r}, {asked!r}, {answer!r})\n"
    # whatever names the student has taken, that of a builtin too, these lines still mean the same
    return (
        "__import__('builtins').exec(__import__('builtins').compile("
        f"{source!r}, '<probe>', 'exec'), {{'__name__': '__probe__', '_user': __import__('builtins').globals()}})"
    )


def finite(value: Any) -> bool:
    """Whether every number in a value is finite."""
    if isinstance(value, torch.Tensor):
        return bool(value.isfinite().all()) if value.is_floating_point() else True
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(map(finite, value))
    return all(map(finite, value.values())) if isinstance(value, dict) else True
