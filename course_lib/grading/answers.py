"""What boxes gave, kept beside the results: a changed `judge` marks a class again without running anything.

OUT/answers/<file>.safetensors    one a student (0700): the bytes that came out of his boxes, as they came

An answer counts only for exactly what it was given to: the cells that were run, the inputs, `call`, the limits and the
packages; whatever of that has changed, the question is run again. Each has a seal made with the key of the release, so
one that was damaged, exchanged or made up is as good as none.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save

from course_lib.files import atomic_write
from course_lib.grading import wire
from course_lib.grading.results import file_of

FOLDER = "answers"
MOST = 16 * wire.MB  # of one student; what would be more is not kept, and is run again
CELLS = "cells"  # what the student's cells printed, for feedback; no question has this name, since it holds no answer
OWN, CARRIED = "own", "carried"


def basis_of(*parts: object) -> str:
    """The sum of all that an answer depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Kept:
    """One answer. `left_out`: what the box was run without and why, both "" if it was run with everything."""

    content: bytes
    basis: str
    seconds: float = 0.0
    left_out: tuple[str, str] = ("", "")


class Answers:
    """Those of one submission. `given`: what is the same for all, see `basis_of`; `anew`: none counts any more."""

    def __init__(self, key: bytes = b"", given: str = "", packed: bytes = b"", anew: bool = False) -> None:
        self.key, self.given, self.anew = key, given, anew
        self.kept = self._unpack(packed) if packed else {}
        self.changed = False

    def get(self, name: str, basis: str) -> Kept | None:
        found = None if self.anew else self.kept.get(name)
        return found if found is not None and found.basis == basis else None

    def put(self, name: str, kept: Kept) -> None:
        """Keep it, unless there is too much already."""
        others = sum(len(each.content) for other, each in self.kept.items() if other != name)
        if others + len(kept.content) > MOST:
            self.changed |= self.kept.pop(name, None) is not None
        elif self.kept.get(name) != kept:
            self.kept[name], self.changed = kept, True

    def pack(self) -> bytes:
        """One safetensors file: an array of bytes an answer, and its record."""
        tensors = {
            name: torch.frombuffer(bytearray(each.content), dtype=torch.uint8) for name, each in self.kept.items()
        }
        records = {name: json.dumps([*self._record(each), self._seal(name, each)]) for name, each in self.kept.items()}
        return save(tensors, metadata=records)

    def _unpack(self, packed: bytes) -> dict[str, Kept]:
        """Those whose seal holds; none of a file that cannot be read."""
        found = {}
        try:
            size = int.from_bytes(packed[:8], "little")
            records = json.loads(packed[8 : 8 + min(size, wire.HEADER)])["__metadata__"]
            tensors = load(packed)
            for name, record in records.items():
                basis, seconds, left_out, seal = json.loads(record)
                kept = Kept(tensors[name].numpy().tobytes(), basis, seconds, tuple(left_out))
                if hmac.compare_digest(seal, self._seal(name, kept)):
                    found[name] = kept
        except Exception:  # cut off, or not ours: it is run again
            return found
        return found

    @staticmethod
    def _record(kept: Kept) -> list[object]:
        return [kept.basis, kept.seconds, list(kept.left_out)]

    def _seal(self, name: str, kept: Kept) -> str:
        what = [FOLDER, name, *self._record(kept), hashlib.sha256(kept.content).hexdigest()]
        return hmac.digest(self.key, json.dumps(what).encode(), "sha256").hex()


def read(out: Path, student: str) -> bytes:
    """The kept answers of a student, packed; b"" if there are none."""
    try:
        return wire.read_file(out / FOLDER / f"{file_of(student)}.safetensors", MOST + wire.HEADER)
    except wire.Unreadable:
        return b""


def write(out: Path, student: str, packed: bytes) -> None:
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # they answer what is hidden: for nobody but the grader
    atomic_write(folder / f"{file_of(student)}.safetensors", packed)
