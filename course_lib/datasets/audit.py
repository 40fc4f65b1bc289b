"""Is every video there, and does every frame of it decode?  A report says so, and a list keeps to it.

The report also holds the sum of each whole file. A decoder notices some damage and patches over the rest: of 120 small
H.264 files with one flipped bit, PyAV showed wrong pictures of 40 (decord of 85). A data set whose list was `audited`
compares the sum at every reading, and so shows no file that has changed since.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from course_lib.datasets.manifest import VideoList
from course_lib.files import sha256
from course_lib.video import worker
from course_lib.video.errors import MachineError, VideoError

STATUSES = ("ok", "missing", "broken", "unchecked")  # the last is the machine's failure and no verdict on the file
# What reports that know no "unchecked" call broken for the machine's sake.
NO_VERDICTS = ("no answer within", "died (SIGKILL)", "needs more than", "Permission denied", "Too many open files")


class Row(NamedTuple):
    """One file in a report, as written: status is one of STATUSES, seconds the length, bytes and changed (time of the
    last change in ns) what the file system said, sha256 the sum of a file that is ok; "" for what is not known."""

    path: str
    status: str
    frames: str = ""
    fps: str = ""
    height: str = ""
    width: str = ""
    seconds: str = ""
    bytes: str = ""
    changed: str = ""
    sha256: str = ""
    reason: str = ""


class Coverage(NamedTuple):
    """How much of a list is on disk; `classes` are those of which at least one file is there."""

    listed: int
    present: int
    classes: int
    missing: tuple[str, ...]


def coverage(videos: VideoList) -> Coverage:
    """Look for every file, without opening any."""
    there = [video for video in videos.videos if _is_there(videos.root / video.path)]
    found = {video.path for video in there}
    missing = tuple(video.path for video in videos.videos if video.path not in found)
    return Coverage(len(videos.videos), len(there), len({video.label for video in there}), missing)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # behind a door that is shut: `audit_videos` says which
        return True


def audit_videos(
    videos: VideoList,
    report: str | Path,
    workers: int = os.cpu_count() or 1,
    seconds: float = 60.0,
    progress: bool = True,
) -> dict[str, Row]:
    """Decode every file of a list once and write a row for each to `report` (csv); the rows of this list by path.

    `workers` processes decode, each one file at a time and for at most `seconds`; one that hangs or dies costs its
    file only. Stopped at any moment, the same call goes on from there. A file is checked again only if its size or
    time of change is another, or if it is "unchecked": too little time, memory, space or permission says something
    about the machine and nothing about the file. Of several rows for a path the last counts.
    """
    if workers < 1:
        raise ValueError(f"workers={workers}: at least 1 process must decode")
    report, paths = Path(report), list(dict.fromkeys(video.path for video in videos.videos))
    known = read_report(report) if report.exists() else {}
    todo = [path for path in paths if not settled(known.get(path), videos.root / path)]
    bar = tqdm(desc=report.name, total=len(paths), initial=len(paths) - len(todo), unit="file", disable=not progress)
    with bar, _append(report) as write, ThreadPool(workers) as pool:
        for row in pool.imap_unordered(partial(_check, videos.root, seconds), todo):
            write(row)
            known[row.path] = row
            bar.update()
    return {path: known[path] for path in paths}


def read_report(report: str | Path) -> dict[str, Row]:
    """The last row for each path; a last line that was torn when the writer was killed does not count."""
    report = Path(report)
    content = report.read_bytes()
    whole = content[: content.rfind(b"\n") + 1].decode(errors="surrogateescape")
    lines = csv.reader(io.StringIO(whole, newline=""))
    if (first := next(lines, None)) not in (None, list(Row._fields)):
        raise ValueError(f"{report}: is no report of a check, its first line is {first}; name another file")
    rows = {}
    for fields in lines:
        if len(fields) != len(Row._fields) or fields[1] not in STATUSES:
            raise ValueError(f"{report}: line {lines.line_num} is no row of a report; remove the line to check anew")
        rows[fields[0]] = Row(*fields)
    return rows


def audited(videos: VideoList, report: str | Path, drop_unchecked: bool = False) -> tuple[VideoList, int]:
    """The list less what the report calls missing or broken, each file with its sum, and how many videos had to go.

    ValueError if the report lacks a file of the list, if files are unchecked and not to be dropped, or all would go.
    """
    rows = read_report(report)
    unknown = [video.path for video in videos.videos if video.path not in rows]
    if unknown:
        raise ValueError(
            f"{report}: says nothing about {len(unknown)} of {len(videos.videos)} videos, such as {unknown[0]}; "
            "audit_videos (`course data check`) completes it"
        )
    unchecked = [video.path for video in videos.videos if rows[video.path].status == "unchecked"]
    if unchecked and not drop_unchecked:
        raise ValueError(
            f"{report}: {len(unchecked)} of {len(videos.videos)} videos are unchecked, such as {unchecked[0]} "
            f"({rows[unchecked[0]].reason}); run audit_videos (`course data check`) again when that is mended, or drop "
            "them: drop_unchecked=True"
        )
    kept = tuple(video for video in with_sums(videos, rows).videos if rows[video.path].status == "ok")
    if not kept:
        raise ValueError(f"{report}: none of the {len(videos.videos)} videos is whole; see its column reason")
    return replace(videos, videos=kept), len(videos.videos) - len(kept)


def with_sums(videos: VideoList, rows: dict[str, Row]) -> VideoList:
    """The list with the SHA-256 sums that are known."""
    summed = tuple(video._replace(sha256=rows[video.path].sha256) for video in videos.videos)
    return replace(videos, videos=summed)


def count(rows: dict[str, Row]) -> Counter[str]:
    """Files by status."""
    return Counter(row.status for row in rows.values())


def settled(row: Row | None, path: Path) -> bool:
    """Whether what a report says of a file still holds: it is a verdict, and the file has not changed since."""
    if row is None or row.status == "unchecked" or any(words in row.reason for words in NO_VERDICTS):
        return False
    try:
        return (row.bytes, row.changed) == _stamp(path)
    except OSError:
        return False


def _stamp(path: Path) -> tuple[str, str]:
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "", ""
    return str(state.st_size), str(state.st_mtime_ns)


def _check(root: Path, seconds: float, path: str) -> Row:
    size, changed = "", ""
    try:
        size, changed = _stamp(root / path)
        if not size:
            return Row(path, "missing", reason="no such file")
        problem = worker.check(root / path, seconds)
        if problem is not None:
            raise VideoError(root / path, problem.removeprefix(f"{root / path}: "))
        info, total = worker.probe(root / path, seconds), sha256(root / path)
    except (MachineError, OSError) as error:
        why = error.reason if isinstance(error, MachineError) else error.strerror or str(error)
        return Row(path, "unchecked", bytes=size, changed=changed, reason=f"could not be checked: {_one_line(why)}")
    except VideoError as error:
        return Row(path, "broken", bytes=size, changed=changed, reason=_one_line(error.reason))
    return Row(
        path,
        "ok",
        frames=str(info.frames),
        fps=f"{info.fps:.6g}",
        height=str(info.height),
        width=str(info.width),
        seconds=f"{info.frames / info.fps:.3f}",
        bytes=size,
        changed=changed,
        sha256=total,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def _append(report: Path) -> Iterator:
    """A function that adds a row; each is on its way to the disk, whole, before the next."""
    report.parent.mkdir(parents=True, exist_ok=True)
    with report.open("a+b") as old:
        old.seek(0)
        old.truncate(old.read().rfind(b"\n") + 1)
    with report.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")

        def write(row: Row | tuple[str, ...]) -> None:
            writer.writerow(row)
            file.flush()

        if not file.tell():
            write(Row._fields)
        yield write
