"""What is asked, and what the right answer is: drawn and computed by the grader itself, from the teacher's code."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from course_lib.grading import wire
from course_lib.grading.manifest import Manifest, Release
from course_lib.grading.probe import one_case
from course_lib.grading.source import Hidden, HomeworkError, drawing


@dataclass(frozen=True)
class Asked:
    """The cases of one question for one submission: packed as they go into the box, and as `judge` gets them."""

    packed: bytes
    cases: list[dict[str, Any]]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.packed).hexdigest()


def ask(hidden: Hidden, key: bytes, homework: str, student: str, submission_sha256: str) -> Asked:
    """Draw every case. The same submission of the same student is always asked the same."""
    drawn = [
        hidden.inputs(drawing(key, homework, student, submission_sha256, hidden.question, case))
        for case in range(hidden.cases)
    ]
    packed = wire.pack(drawn)
    return Asked(packed, wire.read(packed))


@dataclass
class Reference:
    """The teacher's notebook, executed once in this process."""

    names: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest, answers: Mapping[str, str]) -> Reference:
        """`answers`: {id of an answer cell: its source}. HomeworkError names the cell that stops."""
        names: dict[str, Any] = {"__name__": "reference"}
        for cell in manifest.cells:
            if cell.kind not in ("setup", "answer") or not cell.code:
                continue
            source = cell.source if cell.kind == "setup" else answers.get(cell.id, "")
            try:
                exec(compile(source, f"<cell {cell.id} of the reference>", "exec"), names)
            except Exception as error:
                raise HomeworkError(f"{cell.id} of the reference stops with {type(error).__name__}: {error}") from error
            if "parameters" in cell.tags:
                names.update(manifest.parameters)
        return cls(names)

    @classmethod
    def of_release(cls, release: Release) -> Reference:
        return cls.of(release.manifest, release.reference)

    def answer(self, hidden: Hidden, asked: Asked) -> list[Any]:
        """What `call` gives on every case, as it looks after the wire. HomeworkError if it stops."""
        answers = SimpleNamespace(**{name: self.names[name] for name in hidden.names if name in self.names})
        threads, kept = torch.get_num_threads(), (random.getstate(), np.random.get_state(), torch.get_rng_state())
        try:
            found = [one_case(hidden.call, answers, given, i) for i, given in enumerate(wire.read(asked.packed))]
        finally:
            torch.set_num_threads(threads)
            random.setstate(kept[0])
            np.random.set_state(kept[1])
            torch.set_rng_state(kept[2])
        for case in found:
            if "gives" not in case:
                raise HomeworkError(f"the reference stops with {case['stops']} on a case of {hidden.question}")
        return [wire.plain(case["gives"]) for case in found]


def claim(answers: Sequence[Any]) -> dict[str, Any]:
    """Answers as a box would claim them: for trying a check without one."""
    return {"cases": [{"gives": answer} for answer in answers]}
