"""Atomic writes, by which files are whole or not there; JSON, csv, SHA-256 sums, and what is wrong with files."""

from __future__ import annotations

import codecs
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


def read_text(path: str | Path) -> str:
    """A text file in UTF-8, with or without a byte order mark; ValueError that names the encoding it has instead."""
    content = Path(path).read_bytes()
    try:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content[:1000]:
            raise ValueError("its text is in UTF-16 or UTF-32")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        why = f"byte {content[error.start]:#x} at {error.start:,}, as Latin-1 or Windows-1252 would have it"
        raise ValueError(f"{path}: its text is not in UTF-8 ({why}); save it as UTF-8 (Excel: CSV UTF-8)") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}; save it as UTF-8 (Excel: CSV UTF-8)") from error


def read_csv(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a csv with a header, each a dict of texts and with the number of its last line in the file.

    ValueError, with the cause, for another encoding or separator, a header without one of `columns`, and a row that has
    not as many cells as the header.
    """
    lines = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = next(lines, [])
        if absent := [column for column in columns if column not in header]:
            needs = f"it needs {', '.join(columns)}. {_why_absent(header, columns)}"
            raise ValueError(f"{path}: no column {', '.join(absent)}; {needs}")
        for cells in lines:
            if not cells:  # an empty line
                continue
            if len(cells) != len(header):
                raise ValueError(f"{path}: line {lines.line_num} has not as many columns as the first; repair it")
            yield lines.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}: line {lines.line_num} is no csv ({error}); repair it") from error


def _why_absent(header: list[str], columns: Sequence[str]) -> str:
    first = ",".join(header)
    if first.lower().startswith("sep="):
        return "Its first line is Excel's sep=: delete it, and part columns by commas"
    for name, separator in (("semicolons", ";"), ("tabs", "\t"), ("bars", "|")):
        if separator in first and set(columns) & {part.strip(' "') for part in first.split(separator)}:
            return f"Its columns are parted by {name}: save it with commas"
    if set(columns) <= {column.strip().lower() for column in header}:
        return f"Its first line is {first!r}: write the names in small letters, without spaces"
    return f"Its first line is {first[:100]!r}"


def compare(table: Path, progress: bool = False) -> list[Problem]:
    """Every file of a csv, with the columns path (from the csv's folder) and sha256, that is missing or has changed."""
    problems = []
    rows = list(read_csv(table, ("path", "sha256")))
    for _, row in tqdm(rows, desc=table.name, unit="file", leave=False, disable=not progress):
        try:
            if sha256(table.parent / row["path"]) != row["sha256"]:
                problems.append(Problem(row["path"], "changed"))
        except FileNotFoundError:
            problems.append(Problem(row["path"], "missing"))
        except OSError as error:  # says nothing about the file
            problems.append(Problem(row["path"], f"could not be read: {error.strerror}"))
    return problems
