"""Something-Something v2 as 20BN published it: labels.json, train.json, validation.json, test.json and webm files.

Goyal et al., "The 'something something' video database for learning and evaluating visual common sense", ICCV 2017.
The files may carry the prefix "something-something-v2-" and lie in root, labels/ or annotations/; the videos lie in
20bn-something-something-v2/. Classes are templates without brackets ("Pushing something from left to right") and are
numbered by labels.json; the json of a split has them with brackets.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from course_lib.datasets.annotations import CLASS_LISTS, deduplicate, is_video, read_paths
from course_lib.datasets.manifest import Video, VideoList
from course_lib.files import read_text

NAMES = {"train": "train", "val": "validation", "test": "test"}
PLACES = (".", "labels", "annotations")
FOLDERS = ("20bn-something-something-v2", "videos/20bn-something-something-v2", "videos", ".")
CLASSES = 174

# Pages, file names and commands as Qualcomm's download instructions and their users give them.
ADVICE = """\
Something-Something v2 belongs to Qualcomm, who give it to you alone, for research. So this command cannot fetch it:
1. Read the licence (research only, no commercial use, no passing on of the data):
   https://www.qualcomm.com/content/dam/qcomm-martech/dm-assets/documents/\
jester_something_something_exercise_research_license_final_qti_28jul2022.pdf
2. Log in with an account of yours and download the labels and every part of the videos (19.4 GB in all):
   https://www.qualcomm.com/developer/software/something-something-v-2-dataset/downloads
3. In the folder {root}:
   unzip '*.zip'                                        # labels, and parts that come zipped
   cat 20bn-something-something-v2-?? | tar -xzf -      # all parts together are one archive
   That gives 20bn-something-something-v2/<number>.webm; labels.json, train.json, validation.json and test.json lie
   in the folder itself or in labels/.
4. Run this command again: it counts."""


def read(root: str | Path, split: str = "train", classes: Sequence[str] | None = None) -> VideoList:
    """The videos of a split ("train", "val" or "test"), those that are listed but missing included.

    `classes`: names in the order of labels, any number, instead of labels.json. The labels of the test set come from
    test-answers.csv ("id;template"), which newer downloads have. Without any json of the split, train.csv or val.csv
    with lines "path label" is read, or mmaction2's sthv2_train_list_videos.txt. `flips` is False: mirrored, "from left
    to right" is "from right to left", another class.

    Raises:
        ValueError: nothing was found, or something is wrong; with file, row and a way out.
    """
    root = Path(root)
    if split not in NAMES:
        raise ValueError(f"no split {split!r}: use {', '.join(NAMES)}")
    names = _classes(root) if classes is None else tuple(classes)
    listed = find(root, f"{NAMES[split]}.json")
    if listed is None:
        source, found = _read_paths(root, split, names)
    else:
        source, found = _read_json(root, split, names, listed)
    videos = tuple(Video(path, label, split) for path, label in found)
    if not any((root / video.path).is_file() for video in videos):
        example = f", such as {videos[0].path}" if videos else ""
        raise ValueError(f"{source}: none of its {len(videos)} videos is below {root}{example}; other root?")
    return VideoList(source, root, names, videos, flips=False)


def splits(root: str | Path) -> tuple[str, ...]:
    """Those splits of which root has the official json; none if root is no Something-Something v2."""
    root = Path(root)
    return tuple(split for split in NAMES if find(root, "labels.json") and find(root, f"{NAMES[split]}.json"))


def opposites() -> dict[str, str]:
    """Classes whose clips, played backwards, are clips of another class; lists/ssv2/opposites.csv tells doubts.

    A pushed object has the hand behind it, and backwards the hand leads: "Pushing something from left to right" is the
    opposite of "Pulling something from right to left"; that of "Pushing something from right to left" is its mirror.
    """
    lines = (CLASS_LISTS / "ssv2" / "opposites.csv").read_text(encoding="utf-8").splitlines()
    return {row["class"]: row["opposite"] for row in csv.DictReader(lines)}


def find(root: Path, name: str) -> Path | None:
    wanted = (root / place / (prefix + name) for place in PLACES for prefix in ("", "something-something-v2-"))
    return next((path for path in wanted if path.is_file()), None)


def _load(path: Path, kind: type) -> Any:
    text = read_text(path)
    try:
        content = json.loads(text)
    except ValueError as error:
        what = "label map" if kind is dict else "list of videos"
        raise ValueError(f"{path}: no json ({error}), so no {what}; fetch it again") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path}: a {type(content).__name__} where the release has a {kind.__name__}; fetch it again")
    return content


def _classes(root: Path) -> tuple[str, ...]:
    path = find(root, "labels.json")
    if path is None:
        raise ValueError(f"{root}: no labels.json nor something-something-v2-labels.json in {', '.join(PLACES)}")
    names = _load(path, dict)
    if sorted(map(str, names.values())) != sorted(map(str, range(CLASSES))):
        raise ValueError(f"{path}: its {len(names)} classes are not numbered 0 to {CLASSES - 1}; fetch it again")
    return tuple(sorted(names, key=lambda name: int(names[name])))


def _read_json(root: Path, split: str, names: tuple[str, ...], listed: Path) -> tuple[str, list[tuple[str, int]]]:
    folder, suffix = _videos(root)
    label_of = {name: label for label, name in enumerate(names)}
    answers = _answers(root, listed) if split == "test" else {}
    found = []
    for number, row in enumerate(_load(listed, list), 1):
        where = f"{listed}: entry {number}"
        name = str(row.get("id", "")) if isinstance(row, dict) else ""
        if not (name.isascii() and name.isdecimal()):
            raise ValueError(f"{where}: {row!r} has no id that is a whole number; fetch it again")
        template = answers.get(name) if split == "test" else row.get("template")
        if template is None:
            raise ValueError(f"{where}: no template for video {name}" + " in test-answers.csv" * (split == "test"))
        label = label_of.get(str(template).replace("[", "").replace("]", ""))
        if label is None:
            raise ValueError(f"{where}: {template!r} is none of the {len(names)} classes of labels.json")
        found.append((f"{folder}/{name}{suffix}".removeprefix("./"), label, where))
    return f"{listed}: official json", deduplicate(found)


def _videos(root: Path) -> tuple[str, str]:
    for folder in FOLDERS:
        for suffix in (".webm", ".mp4"):
            if any(is_video(path.name) for path in (root / folder).glob(f"*{suffix}")):
                return folder, suffix
    raise ValueError(f"{root}: no .webm nor .mp4 in {', '.join(FOLDERS)}; unpack the archive there or link it")


def _answers(root: Path, listed: Path) -> dict[str, str]:
    path = find(root, "test-answers.csv")
    if path is None:
        raise ValueError(f"{listed}: the test set has no labels without test-answers.csv; use val")
    answers = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        name, found, template = line.partition(";")
        if not found or name in answers:
            raise ValueError(f"{path}: line {number}: {line!r} is no new id;template; fetch it again")
        answers[name] = template.strip()
    return answers


def _read_paths(root: Path, split: str, names: tuple[str, ...]) -> tuple[str, list[tuple[str, int]]]:
    files = (f"{split}.csv", f"{NAMES[split]}.csv", f"sthv2_{split}_list_videos.txt")
    wanted = [root / place / file for file in files for place in PLACES]
    listed = next((path for path in wanted if path.is_file()), None)
    if listed is None:
        raise ValueError(
            f"{root}: no Something-Something v2 {split}; looked for {NAMES[split]}.json and "
            f"something-something-v2-{NAMES[split]}.json, then {split}.csv and {files[-1]}, in {', '.join(PLACES)}"
        )
    if "frame_id" in read_text(listed).partition("\n")[0]:
        raise ValueError(f"{listed}: lists frames as images; put {NAMES[split]}.json and the webm files there")
    return f"{listed}: list of paths", read_paths(listed, root, FOLDERS, names)


# Whether all of it is there. It must be asked for; nothing is fetched.


class Found(NamedTuple):
    """Of one list: its name, how many videos it lists, and those that are missing or empty (paths below the root)."""

    name: str
    listed: int
    missing: list[str]


def missing(root: str | Path) -> list[Found]:
    """Compare the videos below a root with its lists, by name alone; to look inside use `course data check`.

    Raises:
        ValueError: a list is missing or cannot be read; the message says which.
    """
    root, found = Path(root), []
    _read_list(root, "labels")
    folder = next((folder for folder in FOLDERS if any((root / folder).glob("*.webm"))), FOLDERS[0])
    held = {path.stem for path in (root / folder).glob("*.webm") if path.is_file() and path.stat().st_size}
    for name in NAMES.values():
        numbers = [str(entry["id"]) for entry in _read_list(root, name)]
        found.append(Found(name, len(numbers), [f"{folder}/{n}.webm" for n in numbers if n not in held]))
    return found


def _read_list(root: Path, name: str) -> list | dict:
    path = find(root, f"{name}.json")
    if path is None:
        raise ValueError(f"{root}: no {name}.json in {', '.join(PLACES)}; it is in the archive of the labels")
    content = _load(path, dict if name == "labels" else list)
    if name != "labels" and not all(isinstance(entry, dict) and "id" in entry for entry in content):
        raise ValueError(f'{path}: no list of videos with an "id" each; unpack it again')
    return content
