"""Lists of "path label" lines and maps from labels to names, as PySlowFast, mmaction2 and others keep them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path, PurePath

from course_lib.datasets.manifest import NO_VIDEO, safe_path
from course_lib.files import read_csv, read_text

CLASS_LISTS = files("course_lib.datasets") / "lists"  # package data: lists of classes, not of videos
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


def is_video(name: str) -> bool:
    """Whether a file may be a video, by its name alone."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(NO_VIDEO)


def read_classes(path: str | Path) -> tuple[str, ...]:
    """A label map: json {name: number}, csv with the columns id and name, or text with one name a line, from 0 on.

    Underscores become spaces and stray quotes go: PySlowFast's json has {"\\"abseiling\\"": 0}.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such label map")
    text = read_text(path)
    rows = [row for _, row in read_csv(path, ("id", "name"))] if path.suffix == ".csv" else []
    try:
        if path.suffix == ".json":
            numbered = [(int(number), name) for name, number in json.loads(text).items()]
        elif path.suffix == ".csv":
            numbered = [(int(row["id"]), row["name"]) for row in rows]
        else:
            numbered = list(enumerate(line for line in text.splitlines() if line.strip()))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: no label map ({error!r}): write json {{name: number}}, csv id,name or one name a line"
        ) from error
    names = tuple(canonical(name) for _, name in sorted(numbered))
    if sorted(number for number, _ in numbered) != list(range(len(names))) or len(set(names)) < len(names):
        raise ValueError(f"{path}: {len(names)} names, but not numbered 0 to {len(names) - 1}, each name once")
    return names


def canonical(name: str) -> str:
    """The name of a class without its variants: "air_drumming", '"air drumming"'."""
    return name.strip().strip('"').strip().replace("_", " ")


def read_paths(listed: Path, root: Path, folders: Iterable[str], names: tuple[str, ...]) -> list[tuple[str, int]]:
    """(path relative to root, label) of each line "path label", parted by spaces, commas or tabs.

    Paths are absolute below root, or relative to the first of `folders` below which any of them is a file. Lines that
    name macOS's ._ files are left out.
    """
    found: list[tuple[str, int, str]] = []
    label_of = {name: label for label, name in enumerate(names)}
    for number, line in enumerate(read_text(listed).splitlines(), 1):
        where, parts = f"{listed}: line {number}", re.fullmatch(r"(.*?)[\s,]+([+-]?\d+)", line.strip())
        if parts is None:
            separator = "; part them by a space, a comma or a tab, not by ;" if re.search(r";\s*\d+$", line) else ""
            raise ValueError(f"{where}: {line!r} is no path and label, such as abseiling/0wR5jVB-WPk.mp4 0{separator}")
        path, label = parts[1].strip('"'), int(parts[2])
        if PurePath(path).name.startswith(NO_VIDEO):
            continue
        if not path.lower().endswith(SUFFIXES):
            raise ValueError(
                f"{where}: {path!r} does not end in {', '.join(SUFFIXES)}; frames as images cannot be read"
            )
        if not 0 <= label < len(names):
            raise ValueError(f"{where}: label {label}, but there are {len(names)} classes: 0 to {len(names) - 1}")
        for base in (root.absolute(), root.resolve()):
            if PurePath(path).is_relative_to(base):
                path = PurePath(path).relative_to(base).as_posix()
        path = safe_path(where, path)
        check_class_folder(where, path, label, label_of)
        found.append((path, label, where))
    below = next((f for f in folders if any((root / f / path).is_file() for path, _, _ in found)), None)
    if found and below is None:
        raise ValueError(
            f"{listed}: none of its {len(found)} files is below {root}, such as {found[0][0]}; other root?"
        )
    return deduplicate([(PurePath(below or ".", path).as_posix(), label, where) for path, label, where in found])


def check_class_folder(where: str, path: str, label: int, label_of: dict[str, int]) -> None:
    """ValueError if the file lies in the folder of another class."""
    folder = canonical(PurePath(path).parent.name)
    if label_of.get(folder, label) != label:
        raise ValueError(
            f"{where}: label {label}, but the file is in the folder of {folder!r}, label {label_of[folder]}; if the "
            "list numbers classes otherwise, give its label map (classes=)"
        )


def deduplicate(found: list[tuple[str, int, str]]) -> list[tuple[str, int]]:
    """(path, label) without repetitions; ValueError if one path has two labels."""
    labels: dict[str, int] = {}
    for path, label, where in found:
        if labels.setdefault(path, label) != label:
            raise ValueError(f"{where}: {path} has label {label}, and {labels[path]} in an earlier line; keep one")
    return list(labels.items())
