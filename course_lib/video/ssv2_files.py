"""Something-Something v2: how to come by it, and whether all of it is there. It must be asked for; nothing is fetched.

Pages, names of the files and commands as Qualcomm's download instructions and their users give them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from course_lib.video.ssv2 import FOLDERS, PLACES, find

LISTS = ("train", "validation", "test")

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


class Found(NamedTuple):
    """Of one list: its name, how many videos it lists, and those that are missing or empty (paths below the root)."""

    name: str
    listed: int
    missing: list[str]


def look(root: str | Path) -> list[Found]:
    """Compare the videos below a root with its lists, by name alone; to look inside use `course data check`.

    Raises:
        ValueError: a list is missing or cannot be read; the message says which.
    """
    root, found = Path(root), []
    _read(root, "labels")
    folder = next((folder for folder in FOLDERS if any((root / folder).glob("*.webm"))), FOLDERS[0])
    held = {path.stem for path in (root / folder).glob("*.webm") if path.stat().st_size}
    for name in LISTS:
        numbers = [str(entry["id"]) for entry in _read(root, name)]
        found.append(Found(name, len(numbers), [f"{folder}/{n}.webm" for n in numbers if n not in held]))
    return found


def _read(root: Path, name: str) -> list | dict:
    path = find(root, f"{name}.json")
    if path is None:
        raise ValueError(f"{root}: no {name}.json in {', '.join(PLACES)}; it is in the archive of the labels")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if name in LISTS:
            [entry["id"] for entry in content]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{path}: no list of videos with an "id" each ({error!r}); unpack it again') from error
    return content
