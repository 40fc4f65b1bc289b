"""A smaller copy of a list of videos: cheaper to store, to send and to decode, at a loss that is measured.

Papers keep Kinetics with its shorter side at 256 or 320 pixels. Key frames that are closer let a reader skip more of a
file, and cost bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm.auto import tqdm

from course_lib.datasets.manifest import Video, VideoList
from course_lib.files import atomic_path, read_csv, sha256, write_csv, write_json
from course_lib.video import worker
from course_lib.video.errors import VideoError
from course_lib.video.transcode import check_side

NOTES, COLUMNS = "packed", ("path", "packed", "status", "before", "bytes", "sha256", "reason")


class Row(NamedTuple):
    """One video: its path on the list and in the copy, "smaller", "copied" (it was that small) or "failed" and why;
    bytes before and after, the sum of the copy."""

    path: str
    packed: str
    status: str
    before: str = ""
    bytes: str = ""
    sha256: str = ""
    reason: str = ""


def pack(
    videos: VideoList,
    out: str | Path,
    short_side: int,
    keys: int = 250,
    crf: int = 23,
    workers: int = os.cpu_count() or 1,
    seconds: float = 600.0,
    progress: bool = True,
) -> dict[str, Row]:
    """Write every video of a list to `out`, its shorter side at most `short_side`, a key frame every `keys` frames at
    least, x264's quality `crf`, and a manifest.csv of those that could be; the rows by path.

    Files and manifest are whole or not there. Stopped at any moment, the same call goes on; a video that failed is
    tried again. A video that is that small already is copied as it is, with its own key frames.

    Raises:
        ValueError: a size that H.264 does not know, `out` holds the originals or a copy made in another way, two videos
            would get one name, or no video could be packed.
    """
    check_side(short_side)
    if keys < 1:
        raise ValueError(f"keys={keys}: at least every frame is a key frame; 25 and 250 are usual")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf={crf}: x264 knows 0 (nothing is lost) to 51; 18 to 28 are usual")
    out, names = Path(out), _names(videos)
    _spare_originals(videos, out, names)
    made, rows = {"short_side": short_side, "keys": keys, "crf": crf}, out / f"{NOTES}.csv"
    about = out / f"{NOTES}.json"
    if about.exists() and (old := json.loads(about.read_text())) != made:
        raise ValueError(f"{out}: holds a copy made with {old}, not {made}; choose another folder")
    write_json(about, made)
    known = {row["path"]: Row(*(row[name] for name in COLUMNS)) for _, row in _rows(rows)}
    todo = [path for path, name in names.items() if not _is_made(known.get(path), out / name)]
    bar = tqdm(desc=out.name, total=len(names), initial=len(names) - len(todo), unit="file", disable=not progress)
    try:
        with bar, ThreadPool(workers) as pool:
            one = partial(_pack_one, videos.root, out, names, (short_side, seconds, keys, crf))
            for number, row in enumerate(pool.imap_unordered(one, todo), 1):
                known[row.path] = row
                bar.update()
                if number % 50 == 0:  # so many a kill makes again at most
                    write_csv(rows, COLUMNS, known.values())
    finally:
        write_csv(rows, COLUMNS, known.values())
    found = {path: known[path] for path in names}
    _write_manifest(videos, found, out)
    return found


def count(rows: dict[str, Row]) -> Counter[str]:
    """Videos by status."""
    return Counter(row.status for row in rows.values())


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    return read_csv(path, COLUMNS) if path.exists() else iter(())


def _names(videos: VideoList) -> dict[str, str]:
    """The name of each copy: that of the video, as mp4."""
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for video in videos.videos:
        name = PurePosixPath(video.path).with_suffix(".mp4").as_posix()
        if taken.setdefault(name, video.path) != video.path:
            raise ValueError(f"{videos.source}: {taken[name]} and {video.path} would both be {name}; rename one")
        names[video.path] = name
    return names


def _spare_originals(videos: VideoList, out: Path, names: dict[str, str]) -> None:
    same = out.resolve() == videos.root.resolve()
    for path, name in names.items():
        source, target = videos.root / path, out / name
        if same or (target.exists() and source.exists() and target.samefile(source)):
            raise ValueError(
                f"{out}: holds the originals, such as {source}, which a copy there would replace; choose another folder"
            )


def _is_made(row: Row | None, target: Path) -> bool:
    if row is None or row.status == "failed":
        return False
    try:
        return str(target.stat().st_size) == row.bytes
    except OSError:
        return False


def _pack_one(root: Path, out: Path, names: dict[str, str], how: tuple[int, float, int, int], path: str) -> Row:
    source, target = root / path, out / names[path]
    try:
        with atomic_path(target) as part:
            smaller = worker.transcode(source, part, *how)
            if not smaller:
                shutil.copyfile(source, part)
        sizes = str(source.stat().st_size), str(target.stat().st_size)
        return Row(path, names[path], "smaller" if smaller else "copied", *sizes, sha256(target))
    except VideoError as error:
        return Row(path, names[path], "failed", reason=" ".join(error.reason.split()))


def _write_manifest(videos: VideoList, rows: dict[str, Row], out: Path) -> None:
    def cells(video: Video) -> tuple[object, ...]:
        row = rows[video.path]
        return row.packed, video.label, videos.classes[video.label], video.split, video.pair, row.sha256

    kept = [cells(video) for video in videos.videos if rows[video.path].status != "failed"]
    if not kept:
        first = next(iter(rows.values()))
        raise ValueError(
            f"{videos.source}: none of {len(rows)} videos could be packed, first {first.path}: {first.reason}"
        )
    write_json(out / "manifest.json", {"classes": list(videos.classes), "flips": videos.flips})
    write_csv(out / "manifest.csv", ("path", "label", "name", "split", "pair", "sha256"), kept)
