"""Atomic writes, by which files are whole or not there; JSON, csv, SHA-256 sums, and what is wrong with files."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm


class Problem(NamedTuple):
    path: str
    reason: str


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Atomic write by others: yields a temporary name beside `path`, and renames what lies there at the end.

    After an error, a kill or a power cut `path` is the old file or the new one, whole. Folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # always the same temporary name: what a killed process leaves there, the next write writes over
    part = path.with_name(path.name + ".part")
    try:
        yield part
        rename_whole(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def atomic_write(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all (see `atomic_path`)."""
    with atomic_path(path) as part:
        part.write_bytes(content)


def rename_whole(part: Path, path: Path) -> None:
    """Rename a file that is complete, once it is on the disk (fsync); return when the rename is, too."""
    _force_to_disk(part, os.O_RDWR)
    os.replace(part, path)
    if os.name == "posix":  # a rename lasts once the folder is on the disk; Windows cannot open a folder
        _force_to_disk(path.parent, os.O_RDONLY)


def _force_to_disk(path: Path, how: int) -> None:
    descriptor = os.open(path, how)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The sum of a whole file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, content: object) -> None:
    """Write JSON whole or not at all."""
    atomic_write(path, (json.dumps(content, indent=1) + "\n").encode())


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a csv with a header whole or not at all."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    atomic_write(path, table.getvalue().encode())


def read_json(path: Path) -> Any:
    """What a JSON file holds; None if there is no such file."""
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
