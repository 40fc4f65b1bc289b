"""Kinetics-400, 600 and 700 as people have them on disk.

A split is described by one of three things, looked for in this order; `VideoList.source` names the one found:

1. an official csv with the columns label, youtube_id, time_start, time_end, split. Files are called
   <youtube id>_<start, six digits>_<end, six digits>.mp4 and lie flat or in class folders. The CVDF foundation
   publishes the data so (github.com/cvdfoundation/kinetics-dataset), with clips that stand in for broken ones;
2. a list of "path label" lines, as PySlowFast, mmaction2 and others read them;
3. class folders alone.

Labels count the classes in alphabetical order, as in all official label maps, unless a label map says otherwise.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from course_lib.datasets.annotations import (
    CLASS_LISTS,
    canonical,
    check_class_folder,
    deduplicate,
    is_video,
    read_classes,
    read_paths,
)
from course_lib.datasets.manifest import Video, VideoList
from course_lib.files import read_csv, read_text

VERSIONS = ("400", "600", "700")  # a version is called by its number of classes
NAMES = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}
REPLACEMENTS = "replacement/replacement_for_corrupted_k400"
LABEL_MAPS = ("*label_map*", "*classnames*", "*labels.csv")


class OtherVersion(ValueError):
    """So many classes as another version has."""


def read(
    root: str | Path,
    version: str = "400",
    split: str = "train",
    classes: Sequence[str] | str | Path | None = None,
    annotations: str | Path | None = None,
) -> VideoList:
    """The videos of one split, those that are listed but missing included, with paths relative to `root`.

    `classes`: names in the order of labels (any number), or a label map (see `read_classes`); without it a label map
    below root, then what is known of the version. `annotations`: the csv or list to read instead of the one found.
    Files that do not end in one of SUFFIXES or begin with ._ (macOS's notes) are not videos. Repeated rows count once.

    Raises:
        ValueError: nothing was found, or something is wrong; with file, row and a way out.
    """
    root = Path(root)
    if version not in VERSIONS or split not in NAMES:
        raise ValueError(f"no Kinetics {version!r}, split {split!r}: use {', '.join(VERSIONS)} and {', '.join(NAMES)}")
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    names = _classes(root, version, classes)
    listed = Path(annotations) if annotations else _annotations(root, version, split)
    if listed is None:
        source, found = _read_folders(root, split, names)
    elif _is_official(listed):
        source, found = _read_official(root, version, split, names, listed)
    else:
        found = read_paths(listed, root, [".", *_folders(root, split)], names)
        source = f"{listed}: list of paths"
    if not found:
        raise ValueError(f"{source}: lists no video")
    return VideoList(source, root, names, tuple(Video(path, label, split) for path, label in found))


def splits(root: str | Path, version: str = "400") -> tuple[str, ...]:
    """Those splits of which root has a list or a folder."""
    return tuple(s for s in NAMES if _annotations(Path(root), version, s) or _folders(Path(root), s, own=True))


def subset(name: str) -> tuple[str, ...]:
    """The classes of a subset of Kinetics-400, for `VideoList.keep`, from lists/kinetics.

    k400: all. mini10, mini50: half are told by the scene, half by motion, as we judge; the csv says why. mini200: those
    of Mini-Kinetics-200 (Xie et al., "Rethinking spatiotemporal feature learning", ECCV 2018), which has 400 training
    and 25 validation clips of each; `sample(400)` draws as many, but not the same ones.
    """
    folder = CLASS_LISTS / "kinetics"
    path = folder / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(other.name.removesuffix(".csv") for other in folder.iterdir()))
        raise ValueError(f"{path}: no such subset; there are {known}")
    return tuple(row["class"] for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


# Finding


def _annotations(root: Path, version: str, split: str) -> Path | None:
    wanted = [
        root / folder / pattern.format(name)
        for name in NAMES[split]
        for folder in ("annotations", ".")
        for pattern in ("{}.csv", "kinetics_{}.csv", f"kinetics{version}_{{}}_list_videos.txt", "{}.txt", "{}_list.txt")
    ]
    return next((path for path in wanted if path.is_file()), None)


def _folders(root: Path, split: str, own: bool = False) -> list[str]:
    """The folders that may hold a split, relative to root, smaller copies (train_256) last.

    PySlowFast's users keep train_256/, mmaction2 makes videos_train_256p_dense_cache/.
    """
    wanted = [folder for name in NAMES[split] for folder in (name, f"videos_{name}", f"videos/{name}")]
    found = [folder for folder in wanted if (root / folder).is_dir()]
    small = re.compile(rf"(videos_)?({'|'.join(NAMES[split])})_\d+(p|px)?(_dense_cache)?")
    found += [path.name for path in sorted(root.glob("*_*")) if small.fullmatch(path.name) and path.is_dir()]
    return [*found, "videos"] if not own and (root / "videos").is_dir() else found


def _folder(root: Path, split: str, own: bool = False) -> str | None:
    """The folder that holds a split; ValueError if there are several copies and none has the name of the split."""
    found = _folders(root, split, own)
    copies = [folder for folder in found if re.search(r"_\d", folder)]
    if len(copies) > 1 and copies[0] == found[0]:
        raise ValueError(f"{root}: {' and '.join(copies)} hold copies of {split}; rename the one to read to {split}")
    return found[0] if found else None


def _is_official(listed: Path) -> bool:
    if not listed.is_file():
        raise ValueError(f"{listed}: no such list of videos")
    return "youtube_id" in read_text(listed).partition("\n")[0]


def _classes(root: Path, version: str, classes: Sequence[str] | str | Path | None) -> tuple[str, ...]:
    if classes is not None and not isinstance(classes, str | Path):
        return tuple(classes)
    maps = [
        path for folder in (root, root / "annotations") for kind in LABEL_MAPS for path in sorted(folder.glob(kind))
    ]
    if classes is None and len({read_classes(path) for path in maps}) > 1:
        raise ValueError(f"{root}: label maps differ ({', '.join(map(str, maps))}); choose one: classes=its path")
    if classes is not None or maps:
        source, names = (classes or maps[0]), read_classes(classes or maps[0])
    elif version == "400":
        return subset("k400")
    else:
        source, names = root, tuple(sorted(_gather(root, version)))
    if len(names) != int(version):
        raise OtherVersion(
            f"{source}: {len(names)} classes, but Kinetics-{version} has {version}; is that the version? "
            "For other classes give their names in the order of labels (classes=)"
        )
    if version == "400" and (other := set(names) - set(subset("k400"))):
        raise ValueError(f"{source}: {min(other)!r} is no class of Kinetics-400; see lists/kinetics/k400.csv")
    return names


def _gather(root: Path, version: str) -> set[str]:
    """Every class that occurs in an official csv or as a class folder."""
    names = set()
    for split in NAMES:
        listed = _annotations(root, version, split)
        if listed is not None and _is_official(listed):
            names |= {canonical(row.get("label") or "") for _, row in _rows(listed)}
        for folder in _folders(root, split, own=True):
            names |= {canonical(path.name) for path in (root / folder).iterdir() if path.is_dir()}
    return names - {""}


def _files(root: Path, folder: str) -> list[str]:
    """Paths relative to root of the videos in a folder and in its folders."""
    found = []
    for name in sorted(os.listdir(root / folder)):
        if is_video(name):
            found.append(f"{folder}/{name}")
        elif (root / folder / name).is_dir():
            within = sorted(os.listdir(root / folder / name))
            found += [f"{folder}/{name}/{inner}" for inner in within if is_video(inner)]
    return [path.removeprefix("./") for path in found]


def _by_name(root: Path, folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in _files(root, folder):
        if (other := found.setdefault(PurePath(path).stem, path)) != path:
            raise ValueError(f"{root}: {other} and {path} are one clip; keep one of them")
    return found


# The three kinds


def _read_official(
    root: Path, version: str, split: str, names: tuple[str, ...], listed: Path
) -> tuple[str, list[tuple[str, int]]]:
    folder = _folder(root, split) or "."
    files, label_of = _by_name(root, folder), {name: label for label, name in enumerate(names)}
    spare = _by_name(root, REPLACEMENTS) if version == "400" and (root / REPLACEMENTS).is_dir() else {}
    replaced = {stem[:11]: path for stem, path in spare.items()}
    found: list[tuple[str, int, str]] = []
    clip_at: dict[str, str] = {}
    for where, row in _rows(listed):
        if "label" not in row:
            raise ValueError(f"{listed}: no column label; the official test set came without: use val")
        if canonical(row["label"]) not in label_of:
            raise ValueError(
                f"{where}: {row['label']!r} is none of the {len(names)} classes; right version? else classes="
            )
        if row.get("split") and row["split"] not in NAMES[split]:
            raise ValueError(f"{where}: a clip of split {row['split']!r} in the list of {split}; name its own list")
        clip, video = _clip(where, row), row["youtube_id"]
        path = replaced.get(video) or files.get(clip) or files.get(video) or f"{folder}/{clip}.mp4".removeprefix("./")
        label = label_of[canonical(row["label"])]
        check_class_folder(where, path, label, label_of)
        if clip_at.setdefault(path, clip) != clip:
            raise ValueError(f"{where}: {clip} and {clip_at[path]} would both be {path}; name files by video and time")
        found.append((path, label, where))
    if found and not any((root / path).exists() for path, _, _ in found):
        raise ValueError(
            f"{listed}: none of its {len(found)} clips is below {root}, such as {found[0][0]}; other root?"
        )
    stood_in = len({path for path, _, _ in found} & set(replaced.values()))
    return f"{listed}: official csv, {stood_in} clips from {REPLACEMENTS}", deduplicate(found)


def _rows(listed: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for number, row in read_csv(listed, ("youtube_id", "time_start", "time_end")):
        yield f"{listed}: line {number}", row


def _clip(where: str, row: dict[str, str]) -> str:
    try:
        if not re.fullmatch(r"[\w-]{11}", row["youtube_id"], re.ASCII):
            raise ValueError("a YouTube id has 11 letters, digits, - or _")
        return f"{row['youtube_id']}_{int(float(row['time_start'])):06d}_{int(float(row['time_end'])):06d}"
    except (KeyError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: no clip ({error}); it needs youtube_id, time_start and time_end in s") from error


def _read_folders(root: Path, split: str, names: tuple[str, ...]) -> tuple[str, list[tuple[str, int]]]:
    folder = _folder(root, split, own=True)
    if folder is None:
        raise ValueError(
            f"{root}: no Kinetics {split}; looked for annotations/{split}.csv (official), {split}.csv or {split}.txt "
            f'("path label") and {split}/<class>/<file>.mp4, each under {", ".join(NAMES[split])}'
        )
    source = f"{root / folder}: class folders"
    found, label_of = [], {name: label for label, name in enumerate(names)}
    for path in _files(root, folder):
        name = canonical(PurePath(path).parent.name)
        if name not in label_of:
            raise ValueError(
                f"{root / path}: its folder is none of the {len(names)} classes; right version? Videos that lie flat "
                f"need the official csv in {root / 'annotations'}; for other classes give classes="
            )
        found.append((path, label_of[name]))
    return source, found
