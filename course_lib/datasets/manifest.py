"""Which videos there are: a list of files with labels, from a manifest of the course, Kinetics or Something-Something.

`read_manifest` reads the course's own lists, `kinetics.read` and `ssv2.read` those of the two data sets; `ClipDataset`
takes what any of them returns.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from course_lib.files import read_csv, read_text

COLUMNS = ("path", "label", "name", "split")
NO_VIDEO = "._"  # macOS puts ._a.mp4 beside a.mp4, on disks and in archives: notes of the Finder


class Video(NamedTuple):
    """One file. `path` is relative to the list's root, `pair` shared by a clip and its exact reverse, `sha256` compared
    at every reading; both are "" where there is none."""

    path: str
    label: int
    split: str
    pair: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class VideoList:
    """Videos below one folder, with the names of their classes in the order of labels.

    `source` names the file or layout that the list was read from and stands in every error. `flips`: whether a
    mirrored clip still belongs to its class. (Something-Something's "from left to right" does not.)
    """

    source: str
    root: Path
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    flips: bool = True

    def of(self, split: str) -> VideoList:
        """The videos of one split; ValueError with those that exist if there is none."""
        held = Counter(video.split for video in self.videos)
        if split not in held:
            names = ", ".join(f"{name} ({count})" for name, count in held.items())
            raise ValueError(f"{self.source}: no clip of split {split!r}; there are {names or 'none'}")
        return replace(self, videos=tuple(video for video in self.videos if video.split == split))

    def keep(self, classes: tuple[str, ...]) -> VideoList:
        """The videos of these classes, numbered anew in the order given; ValueError for a class that is not there."""
        unknown = [name for name in classes if name not in self.classes]
        if unknown or len(set(classes)) < len(classes) or not classes:
            wrong = f"no class {', '.join(map(repr, unknown))}" if unknown else "a class is named twice, or none is"
            raise ValueError(f"{self.source}: {wrong}; it has {len(self.classes)}, such as {self.classes[0]!r}")
        label = {self.classes.index(name): new for new, name in enumerate(classes)}
        kept = (video._replace(label=label[video.label]) for video in self.videos if video.label in label)
        return replace(self, classes=tuple(classes), videos=tuple(kept))

    def sample(self, per_class: int, seed: int = 0) -> VideoList:
        """`per_class` videos of each class and split, drawn without replacement, in their old order.

        A video's luck depends on the seed and its own path alone: a larger sample holds the smaller one, and videos
        that are missing on one machine change only their own place.
        """
        for split, of_class in self.counts().items():
            for name, there in of_class.items():
                if not 0 < per_class <= there:
                    raise ValueError(
                        f"{self.source}: {per_class} videos a class asked for, but {name!r} has {there} in {split}: "
                        f"ask for 1 to {there}, or leave the class out (keep)"
                    )
        return self.at_most(per_class, seed)

    def at_most(self, per_class: int, seed: int = 0) -> VideoList:
        """As `sample`, but a class that has fewer videos in a split keeps those."""
        groups: dict[tuple[str, int], list[Video]] = {}
        for video in self.videos:
            groups.setdefault((video.split, video.label), []).append(video)
        chosen = set()
        for videos in groups.values():
            chosen.update(sorted(videos, key=lambda video: _lot(seed, video.path))[:per_class])
        return replace(self, videos=tuple(video for video in self.videos if video in chosen))

    def counts(self) -> dict[str, Counter[str]]:
        """Videos by split and class."""
        found: dict[str, Counter[str]] = {}
        for video in self.videos:
            found.setdefault(video.split, Counter())[self.classes[video.label]] += 1
        return found


def find_leaks(*lists: VideoList) -> list[tuple[Video, Video]]:
    """Pairs of videos of different splits that are one: a file under two names (by a link, or where letters' case does
    not count), or two files with one SHA-256 sum. What is trained on must not be tested on (data leakage)."""
    first: dict[object, Video] = {}
    leaks = []
    for videos in lists:
        for video in videos.videos:
            others = [first.setdefault(key, video) for key in _identities(videos.root, video)]
            leak = next((other for other in others if other.split != video.split), None)
            if leak is not None:
                leaks.append((leak, video))
    return leaks


def _identities(root: Path, video: Video) -> list[object]:
    sums: list[object] = [video.sha256] if video.sha256 else []
    try:
        state = (root / video.path).stat()
    except OSError:  # not there: readers say so
        return sums
    return [*sums, (state.st_dev, state.st_ino)]


def safe_path(source: str, path: str) -> str:
    """The path spelt in one way ("./a.mp4" is "a.mp4"); ValueError if it leaves the folder that it is relative to."""
    for kind in (PurePosixPath, PureWindowsPath):
        if not path or kind(path).is_absolute() or kind(path).drive or ".." in kind(path).parts:
            raise ValueError(
                f"{source}: {path!r} leaves the folder of the videos; put them (or a link to them) inside it"
            )
    return PurePosixPath(path).as_posix()


def read_manifest(manifest: str | Path) -> VideoList:
    """A manifest.csv of the course: a header and one row a clip, in the folder of the videos.

    Columns: path (relative to the manifest), label (0, 1, ...), name (of the class), split; optional: pair, sha256. A
    manifest.json beside it may list all "classes" (otherwise they are those of the manifest, in the order of labels),
    and say "flips": false where a mirrored clip may belong to another class. Rows of macOS's ._ files are left out.

    Raises:
        ValueError: what is wrong, and where.
    """
    manifest = Path(manifest)
    if not manifest.is_file():
        raise ValueError(f"{manifest}: no such manifest; `course data make` writes one")
    table = enumerate((row for _, row in read_csv(manifest, COLUMNS)), 1)
    rows = {number: row for number, row in table if not PurePosixPath(row["path"]).name.startswith(NO_VIDEO)}
    if not rows:
        raise ValueError(f"{manifest}: lists no clip")
    seen: dict[str, int] = {}
    for number, row in rows.items():
        if not all(row[column] for column in COLUMNS):
            raise ValueError(f"{manifest}: row {number} lacks one of {', '.join(COLUMNS)}")
        if not row["label"].isdecimal():
            raise ValueError(f"{manifest}: row {number} has label {row['label']!r}, not a whole number from 0 up")
        row["path"] = safe_path(f"{manifest}: row {number}", row["path"])
        if seen.setdefault(row["path"], number) != number:
            first = seen[row["path"]]
            raise ValueError(f"{manifest}: row {number} lists {row['path']} a second time, after row {first}")
    about = _read_about(manifest)
    listed = VideoList(
        source=str(manifest),
        root=manifest.parent,
        classes=_class_names(manifest, rows, about),
        flips=about.get("flips", True),
        videos=tuple(
            Video(row["path"], int(row["label"]), row["split"], row.get("pair") or "", row.get("sha256") or "")
            for row in rows.values()
        ),
    )
    if leaks := find_leaks(listed):
        (one, other), more = leaks[0], f" and {len(leaks) - 1} pairs more" if leaks[1:] else ""
        raise ValueError(
            f"{manifest}: {one.path} of {one.split} and {other.path} of {other.split} are one file{more}; a video that "
            "is trained on must not be tested on: keep it in one split"
        )
    return listed


def _read_about(manifest: Path) -> dict:
    about = manifest.with_suffix(".json")
    if not about.is_file():
        return {}
    try:
        content = json.loads(read_text(about))
        return content | {"classes": tuple(content["classes"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{about}: no list of "classes" in it ({error!r}); make the data again') from error


def _class_names(manifest: Path, rows: dict[int, dict[str, str]], about: dict) -> tuple[str, ...]:
    if about:
        source, names = manifest.with_suffix(".json"), about["classes"]
    else:
        by_label = {int(row["label"]): row["name"] for row in rows.values()}
        source, names = manifest, tuple(by_label[label] for label in sorted(by_label))
        gap = next((place for place, label in enumerate(sorted(by_label)) if place != label), None)
        if gap is not None:
            raise ValueError(f"{manifest}: no clip has label {gap}, but a higher one occurs; number classes from 0 on")
    for number, row in rows.items():
        label = int(row["label"])
        if label >= len(names):
            raise ValueError(f"{manifest}: row {number} has label {label}, but {source} knows 0 to {len(names) - 1}")
        if names[label] != row["name"]:
            raise ValueError(
                f"{manifest}: row {number} calls label {label} {row['name']!r}, but {source} calls it {names[label]!r}"
            )
    return names


def _lot(seed: int, path: str) -> bytes:
    return hashlib.sha256(f"{seed} {path}".encode()).digest()
