"""Kinetics from the archives that the CVDF foundation publishes, only the classes that are wanted.

The clips of a class are spread over all archives (Kinetics-400: 436 GB in all), so every archive has to come by, but
only one is on the disk at a time:

1. The archive is spooled to disk (`.part`), not unpacked as it streams: a broken connection then costs nothing but the
   bytes not yet here, its MD5 can be compared, and no clip is handed out from an archive that proves damaged at its
   end. It costs the disk space of the largest archive.
2. Its wanted members are unpacked to a staging folder, looked at, made smaller if asked, and only then renamed into
   place. A record (json) says that the archive is done; then it is deleted.

Stopped at any moment, the same call goes on: a record is there or not, a file under its final name is whole. Written is
CVDF's layout: train/, val/, test/ with <id>_<start>_<end>.mp4, annotations/*.csv, replacement/ (clips that CVDF
publishes in place of damaged ones of Kinetics-400); beside it sums.csv, problems.csv and .fetch/ (records, lists).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import filelock
from tqdm.auto import tqdm

from course_lib.datasets.download.archive import ArchiveError, unpack
from course_lib.datasets.download.cvdf import SITE, SPLITS, VERSIONS, Archive, list_archives, wanted_clips
from course_lib.datasets.download.http import DownloadError, RetryPolicy, download, forget, length_of, part_of, size
from course_lib.files import Problem, compare, read_json, rename_whole, sha256, write_csv, write_json
from course_lib.video import worker
from course_lib.video.errors import MachineError, VideoError
from course_lib.video.transcode import check_side
from course_lib.video.worker import probe

__all__ = ["ArchiveError", "DownloadError", "FetchError", "Report", "fetch", "verify"]


UNCHECKED = "could not be checked"  # so begins the problem of a clip that is tried again


class FetchError(Exception):
    """Fetching cannot begin or go on; the message says why, and what to do."""


class Clip(NamedTuple):
    """A kept file: path relative to the root, size in bytes, SHA-256."""

    path: str
    bytes: int
    sha256: str


class Report(NamedTuple):
    """What is there at the end; `problems` is also in problems.csv."""

    clips: int
    bytes: int
    problems: list[Problem]


def fetch(
    root: str | Path,
    classes: Collection[str] | None = None,
    version: str = "400",
    splits: Collection[str] = ("train", "val"),
    short_side: int | None = None,
    archives: range | None = None,
    site: str = SITE,
    policy: RetryPolicy | None = None,
    say: Callable[[str], object] = print,
) -> Report:
    """Fetch the videos of these classes (None: all); of each split only the archives with these numbers if given.

    Raises:
        ValueError: an unknown version, split, class or archive; or the root holds another selection.
        FetchError: too little disk, or another fetch is at work in the root.
        DownloadError, ArchiveError: an address or an archive is no good. All that was done before is kept.
    """
    if version not in VERSIONS:
        raise ValueError(f"Kinetics-{version} is not published there: there are {', '.join(VERSIONS)}")
    if unknown := [split for split in splits if split not in SPLITS]:
        raise ValueError(f"no split {unknown[0]!r}: there are {', '.join(SPLITS)}")
    if short_side is not None:
        check_side(short_side)
    root, policy = Path(root), policy or RetryPolicy()
    (root / ".fetch").mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(root / ".fetch" / "lock", timeout=0):  # a killed one lets go
            _agree(root, {"version": version, "classes": classes and sorted(classes), "short_side": short_side})
            wanted = {split: wanted_clips(root, version, split, classes, site, policy) for split in splits}
            chosen = [a for split in splits for a in list_archives(root, version, split, archives, site, policy)]
            say(_forecast(root, version, chosen, wanted, policy))
            complete = {}
            try:
                for archive in chosen:
                    if _is_done(root, archive):
                        _retry(root, archive, short_side)
                    else:
                        _work(root, archive, wanted[archive.split][0], short_side, policy)
                    forget(archive.spool)
                complete = wanted if archives is None else {}
            finally:
                report = _report(root, complete)
            return report
    except filelock.Timeout:
        raise FetchError(f"{root}: another fetch is at work there; wait for it, or choose another folder") from None


def verify(root: str | Path) -> list[Problem]:
    """Every file of sums.csv that is missing or no longer has its SHA-256."""
    table = Path(root) / "sums.csv"
    if not table.is_file():
        raise ValueError(f"{root}: no sums.csv; `course data fetch kinetics` writes one")
    return compare(table, progress=True)


def _agree(root: Path, about: dict) -> None:
    """The archives recorded as done were searched for these classes, so a root holds one selection for ever."""
    path = root / ".fetch" / "about.json"
    if (held := read_json(path)) not in (None, about):
        wrong = next(key for key in about if held.get(key) != about[key])
        raise ValueError(
            f"{root}: was begun with {wrong} {held.get(wrong)}, not {about[wrong]}; choose another folder, "
            f"or delete {path.parent} to search all archives again"
        )
    write_json(path, about)


def _is_done(root: Path, archive: Archive) -> bool:
    """Whether it is recorded, and every clip it gave is still there with its size."""
    record = read_json(archive.record)
    return record is not None and all(length_of(root / path) == length for path, length, _ in record["clips"])


def _forecast(root: Path, version: str, chosen: list[Archive], wanted: dict, policy: RetryPolicy) -> str:
    """What is to come, in words; FetchError if the disk has no room for it."""
    todo = [archive for archive in chosen if not _is_done(root, archive)]
    left, largest, kept = 0, 0, 0.0
    for archive in tqdm(todo, desc="asking for sizes", unit="archive", leave=False):
        length = length_of(archive.spool) or size(archive.url, policy)
        here = length_of(archive.spool) or length_of(part_of(archive.spool))
        names, listed = wanted[archive.split]
        left += length - here
        largest = max(largest, length - here)
        kept += length * len(names) / max(listed, 1)
    need, free = largest + int(kept), shutil.disk_usage(root).free
    text = (
        f"Kinetics-{version}, {', '.join(wanted)}: {len(todo)} of {len(chosen)} archives to go, {_gb(left)} to fetch.\n"
        f"To keep: {sum(len(names) for names, _ in wanted.values()):,} clips as listed (some are gone from every "
        f"archive), about {_gb(int(kept))} more as they come.\n"
        f"Disk: {_gb(need)} needed, one archive at a time; {_gb(free)} free in {root}."
    )
    if need > free:
        raise FetchError(f"{text}\nToo little: make room, choose fewer classes, or another folder")
    return text


def _gb(number: int) -> str:
    return f"{number / 1e9:.2f} GB"


def _work(root: Path, archive: Archive, wanted: frozenset[str], short_side: int | None, policy: RetryPolicy) -> None:
    """One archive from its address to its record."""
    download(archive.url, archive.spool, policy)
    staging = root / ".fetch" / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        names, odd = unpack(archive.spool, _choice(archive, wanted), staging)
    except ArchiveError as error:
        forget(archive.spool)
        raise ArchiveError(f"{error}; it is deleted, the same command fetches {archive.url} again") from error
    problems = [Problem(f"{archive.folder}/{name}", f"in {archive.url}, but no clip: left out") for name in odd]
    owners = {path: record["url"] for record in _records(root) for path, _, _ in record["clips"]}
    clips = []
    for name in tqdm(names, desc=f"clips of {archive.spool.name}", unit="clip", leave=False):
        staged, path = staging / name, f"{archive.folder}/{name}"
        if owners.get(path, archive.url) != archive.url:
            problems.append(Problem(path, f"in {archive.url} too; the one from {owners[path]} stays"))
            staged.unlink()
            continue
        if broken := _prepare(staged, staging / "small.mp4", short_side):
            problems.append(Problem(path, broken))
        clips.append(Clip(path, staged.stat().st_size, sha256(staged)))
    (root / archive.folder).mkdir(parents=True, exist_ok=True)
    for clip in clips:
        rename_whole(staging / PurePosixPath(clip.path).name, root / clip.path)
    write_json(archive.record, {"url": archive.url, "split": archive.split, "clips": clips, "problems": problems})


def _retry(root: Path, archive: Archive, short_side: int | None) -> None:
    """Prepare anew the clips of a recorded archive that the machine, not the file, kept from being prepared."""
    record = read_json(archive.record)
    again = {path for path, reason in record["problems"] if reason.startswith(UNCHECKED)}
    if not again:
        return
    problems, clips = [problem for problem in record["problems"] if problem[0] not in again], []
    for clip in (Clip(*fields) for fields in record["clips"]):
        if clip.path in again:
            video = root / clip.path
            if why := _prepare(video, root / ".fetch" / "small.mp4", short_side):
                problems.append(Problem(clip.path, why))
            clip = Clip(clip.path, video.stat().st_size, sha256(video))
        clips.append(clip)
    write_json(archive.record, record | {"clips": clips, "problems": problems})


def _choice(archive: Archive, wanted: frozenset[str]) -> Callable[[str], bool]:
    """Which names to unpack. What replaces a clip is known by its YouTube id alone, as in CVDF's arrange_by_classes."""
    if archive.folder == archive.split:
        return wanted.__contains__
    ids = {name[:11] for name in wanted}
    return lambda name: name[:11] in ids


def _prepare(video: Path, small: Path, short_side: int | None) -> str:
    """Make a video small in place if asked; what is wrong with it, or "". A broken one stays as it came, and so does
    one for which the machine has no time, memory or space: the next fetch tries it again."""
    try:
        probe(video)
        if short_side and worker.transcode(video, small, short_side, seconds=600.0):
            small.replace(video)
    except MachineError as error:
        return f"{UNCHECKED}: {error.reason}"
    except VideoError as error:
        return error.reason
    return ""


def _records(root: Path) -> list[dict]:
    return [read_json(path) for path in sorted((root / ".fetch").glob("*/*.t*gz.json"))]


def _report(root: Path, complete: dict[str, tuple[frozenset[str], int]]) -> Report:
    """Write sums.csv and problems.csv from the records; of `complete` splits, name the clips that never came."""
    records = _records(root)
    clips = sorted(Clip(*clip) for record in records for clip in record["clips"])
    here = {clip.path for clip in clips}
    replaced = {Path(path).name[:11] for path in here if path.startswith("replacement/")}
    problems = []
    for path, reason in (problem for record in records for problem in record["problems"]):
        stands_in = path.startswith("train/") and Path(path).name[:11] in replaced
        problems.append(Problem(path, f"{reason} (a replacement is there)" if stands_in else reason))
    for split, (names, _) in complete.items():
        absent = sorted(name for name in names if f"{split}/{name}" not in here)
        gone = [name for name in absent if split != "train" or name[:11] not in replaced]
        problems += [Problem(f"{split}/{name}", "listed, but in no archive") for name in gone]
    write_csv(root / "sums.csv", Clip._fields, clips)
    write_csv(root / "problems.csv", Problem._fields, problems)
    return Report(len(clips), sum(clip.bytes for clip in clips), problems)
