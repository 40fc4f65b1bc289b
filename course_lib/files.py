"""Files that are whole or not there, and what is wrong with those that are not."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm


class Problem(NamedTuple):
    path: str
    reason: str


def save(path: Path, content: bytes) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)


def sha256(path: Path) -> str:
    """The sum of a whole file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def compare(table: Path, progress: bool = False) -> list[Problem]:
    """Every file of a csv, with the columns path (from the csv's folder) and sha256, that is missing or has changed."""
    problems = []
    with table.open(newline="", encoding="utf-8") as file:
        for row in tqdm(list(csv.DictReader(file)), desc=table.name, unit="file", leave=False, disable=not progress):
            path = table.parent / row["path"]
            if not path.exists():
                problems.append(Problem(row["path"], "missing"))
            elif sha256(path) != row["sha256"]:
                problems.append(Problem(row["path"], "changed"))
    return problems
