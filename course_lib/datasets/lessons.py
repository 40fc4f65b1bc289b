"""What lessons read of a folder of Kinetics (set K) or of Something-Something v2 (set S): which classes, which clips.

Both are trained on the split train and tested on val. K has those classes of mini10 that have clips in both; where
fewer than two have, the ten classes with the most clips. S has the pairs of `ssv2.opposites` both of whose classes have
clips in both, one class after the other: partners are numbered 2k and 2k + 1.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from course_lib.datasets import kinetics, ssv2
from course_lib.datasets.audit import coverage, read_report, settled
from course_lib.datasets.manifest import VideoList, find_leaks
from course_lib.files import Problem

KINDS = {"K": "Kinetics", "S": "Something-Something v2"}
SUBSET, MOST = "mini10", 10
TEST_SHARE = 0.2  # of the clips that are allowed, as in the generated sets


class Selection(NamedTuple):
    """The clips of a set. `partner[c]` is the class of c's clips played backwards, None in K; `which` says in words
    what was taken; `left_out` are files that are listed but missing, broken (by check.csv) or in both splits."""

    train: VideoList
    test: VideoList
    partner: tuple[int, ...] | None
    which: str
    left_out: tuple[Problem, ...]

    @property
    def sha256(self) -> str:
        """The sum of the list of clips: place below the root, bytes, class and split of each. It knows no root."""
        lines = [
            f"{video.path}\t{(videos.root / video.path).stat().st_size}\t{videos.classes[video.label]}\t{video.split}\n"
            for videos in (self.train, self.test)
            for video in videos.videos
        ]
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def select(set_name: str, root: str | Path, clips: int | None = None) -> Selection:
    """What lessons read of the folder `root` as set "K" or "S".

    With `clips`, so many at most are drawn, always the same ones, a fifth of them to test on and as many of each class,
    or all where a class has fewer. A check.csv in the folder (`course data check`) is believed, but for files that
    have changed since; without one broken files show when they are read.

    Raises:
        ValueError: the folder cannot be read as that data set, or has clips to train and to test of fewer than two
            classes.
    """
    root = Path(root).expanduser()
    lists = _read(set_name, root)
    wanted = opposites_in_order() if set_name == "S" else kinetics.subset(SUBSET)
    there, left_out = _sift(root, [videos.keep(_known(videos, wanted)) for videos in lists])
    names = tuple(name for name in wanted if name in _common(there))
    if set_name == "S":
        names = tuple(name for i, name in enumerate(wanted) if wanted[i ^ 1] in names and name in names)
        which = f"{len(names) // 2} of the {len(wanted) // 2} pairs of opposites"
    elif len(names) > 1:
        which = f"{len(names)} of the {len(wanted)} classes of {SUBSET}"
    else:
        there, left_out = _sift(root, lists)
        most = Counter(there[0].classes[video.label] for video in there[0].videos)
        names = tuple(sorted(sorted(_common(there)), key=lambda name: -most[name])[:MOST])
        which = f"fewer than two classes of {SUBSET}, so the {len(names)} with the most clips"
    if len(names) < 2:
        lost = "".join(f"; left out, {len(left_out):,}: {path} ({reason}), ..." for path, reason in left_out[:1])
        raise ValueError(f"{root}: fewer than two classes have clips both in train and in val{lost}")
    train, test = (videos.keep(names) for videos in there)
    if clips is not None:
        of_test = round(TEST_SHARE * clips)
        train, test = (
            train.at_most(max(1, (clips - of_test) // len(names))),
            test.at_most(max(1, of_test // len(names))),
        )
    partner = tuple(label ^ 1 for label in range(len(names))) if set_name == "S" else None
    return Selection(train, test, partner, f"{KINDS[set_name]}, {which}", left_out)


def read_splits(
    set_name: str, root: str | Path, test_only: bool = False
) -> tuple[list[VideoList], tuple[Problem, ...]]:
    """Train and val of a folder as set "K" or "S", all classes, and what had to be left out of them (see `Selection`);
    with `test_only` the list of train is empty, and the folder need not have any.

    ValueError for a folder that cannot be read as that data set, or of which nothing is left.
    """
    root = Path(root).expanduser()
    splits = ("val",) if test_only else ("train", "val")
    lists = _read(set_name, root, splits)
    there, left_out = _sift(root, [replace(lists[0], videos=()), *lists] if test_only else lists)
    empty = [name for name, videos in zip(("train", "val"), there, strict=True) if name in splits and not videos.videos]
    if empty:
        first = f", first {left_out[0].path} ({left_out[0].reason})" if left_out else ""
        raise ValueError(
            f"{root}: no video of {' and '.join(empty)} can be read, {len(left_out):,} are left out{first}; "
            f"`course data check {root}` says what is wrong with each"
        )
    return there, left_out


def _read(set_name: str, root: Path, splits: Sequence[str] = ("train", "val")) -> list[VideoList]:
    """The splits; of a Kinetics of the first version that it can be."""
    if set_name == "S":
        return [ssv2.read(root, split) for split in splits]
    problems = []
    for version in kinetics.VERSIONS:
        try:
            return [kinetics.read(root, version, split) for split in splits]
        except ValueError as error:
            problems.append(error)
    # what is wrong with the version that it has the classes of; what says of every list that it is no 400 helps nobody
    raise next((error for error in problems[1:] if not isinstance(error, kinetics.OtherVersion)), problems[0])


def opposites_in_order() -> tuple[str, ...]:
    """The opposites, each class followed by its partner."""
    opposites = ssv2.opposites()
    return tuple(name for one, other in opposites.items() if one < other for name in (one, other))


def _known(videos: VideoList, wanted: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in wanted if name in videos.classes) or videos.classes


def _common(lists: Sequence[VideoList]) -> set[str]:
    """The classes with clips in every split."""
    return set.intersection(*({videos.classes[video.label] for video in videos.videos} for videos in lists))


def _sift(root: Path, lists: Sequence[VideoList]) -> tuple[list[VideoList], tuple[Problem, ...]]:
    """Train and val without files that cannot be read, and train without those of val; with the sums that are known."""
    report = root / "check.csv"
    known = read_report(report) if report.is_file() else {}
    broken = {path: row.reason for path, row in known.items() if row.status == "broken"}
    reasons = {path: reason for path, reason in broken.items() if settled(known[path], root / path)}
    for videos in lists:
        reasons |= dict.fromkeys(coverage(videos).missing, "missing")
    listed = {video.path for videos in lists for video in videos.videos}
    left_out = [Problem(path, reason) for path, reason in reasons.items() if path in listed]
    sums = {path: row.sha256 for path, row in known.items()}
    train, val = (
        replace(
            videos,
            videos=tuple(v._replace(sha256=sums.get(v.path, "")) for v in videos.videos if v.path not in reasons),
        )
        for videos in lists
    )
    leaks = {video.path: f"is {first.path} of val too" for first, video in find_leaks(val, train)}
    train = replace(train, videos=tuple(video for video in train.videos if video.path not in leaks))
    return [train, val], (*left_out, *(Problem(*leak) for leak in leaks.items()))
