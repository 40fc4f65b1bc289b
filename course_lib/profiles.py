"""How much a notebook does: the same code at three sizes, and once more without training.

Chosen by the papermill parameter `profile`, or by COURSE_PROFILE, or "cpu". Folders of Kinetics and of
Something-Something v2, named in the same two ways, take the place of generated sets.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from course_lib.paths import DATA
from course_lib.synthetic.difficulty import EASY, FULL, Difficulty


@dataclass(frozen=True)
class Profile:
    """What a notebook and its experiments take from a profile."""

    name: str
    purpose: str
    full: bool  # the network of the paper, or the tiny one
    clips: int  # in each generated set, all splits together; any multiple of 240 suits all seven sets
    size: int  # pixels of the square clip that the network sees
    steps: int
    batch: int
    peak_lr: float
    difficulty: Difficulty = FULL  # of set D
    kinetics: str = ""  # the folder of set K; "" for none
    ssv2: str = ""  # the folder of set S
    replays: bool = False  # trained networks are read, not made, and of each set only the first clips

    def settings(self) -> dict[str, Any]:
        """All that a result depends on: not where clips lie."""
        without = ("kinetics", "ssv2", "replays")
        return {key: value for key, value in asdict(self).items() if key not in without}

    @property
    def title(self) -> str:
        """What it is chosen by; `name` is whose recipes it follows."""
        return "lecture" if self.replays else self.name

    def set_for(self, set_name: str) -> str:
        """The set that a lesson reads for a generated one: K for A and L, S for M and D, where there is a folder."""
        real = STANDS_FOR.get(set_name)
        return real if real and self.folder_of(real) else set_name

    def folder_of(self, set_name: str) -> str:
        """The folder of set K or S, "" if none was named."""
        return {"K": self.kinetics, "S": self.ssv2}[set_name]

    def difficulty_of(self, set_name: str) -> Difficulty:
        """What `synthetic.write.make` is to be given for a set: M, the large one, stays as hard as it can be."""
        return self.difficulty if set_name == "D" else FULL


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "smoke", "does it run?", full=False, clips=240, size=64, steps=6, batch=8, peak_lr=1e-3, difficulty=EASY
        ),
        Profile("cpu", "a laptop", full=False, clips=2400, size=64, steps=800, batch=32, peak_lr=1e-3, difficulty=EASY),
        Profile("gpu", "one GPU", full=True, clips=3600, size=224, steps=3000, batch=32, peak_lr=1e-4),
    )
}
PROFILES["lecture"] = replace(PROFILES["cpu"], purpose="a lecture: trains nothing, answers at once", replays=True)


STANDS_FOR = {"A": "K", "L": "K", "M": "S", "D": "S"}
NAMED_BY = {"K": ("kinetics", "COURSE_KINETICS"), "S": ("ssv2", "COURSE_SSV2")}
REMEDY = {
    "K": "`course data fetch kinetics --subset mini10 --root DIR` fetches ten classes",
    "S": "`course data fetch ssv2 --root DIR` says how to come by it",
}


def active(name: str = "", kinetics: str = "", ssv2: str = "") -> Profile:
    """The profile called `name`, else $COURSE_PROFILE, else cpu. ValueError for a name that does not exist.

    It gets the folders of Kinetics and of Something-Something v2, else $COURSE_KINETICS and $COURSE_SSV2. One that was
    named and cannot be used is told in a printed line, and the generated sets stay.
    """
    name = name or os.environ.get("COURSE_PROFILE", "") or "cpu"
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}: there are {', '.join(PROFILES)}")
    if PROFILES[name].replays:
        if kinetics or ssv2:
            print(f"Profile {name} reads what was trained on generated clips; {kinetics or ssv2} is not used.")
        return PROFILES[name]
    return replace(PROFILES[name], kinetics=_usable("K", kinetics), ssv2=_usable("S", ssv2))


def _usable(set_name: str, folder: str) -> str:
    from course_lib.datasets.lessons import KINDS, select  # imports torch: asked for only where a folder is named

    parameter, variable = NAMED_BY[set_name]
    folder = folder or os.environ.get(variable, "")
    if folder:
        folder = str(Path(folder).expanduser().absolute())
        try:
            select(set_name, folder)
        except (ValueError, OSError) as error:
            others = " and ".join(other for other, real in STANDS_FOR.items() if real == set_name)
            print(
                f"{KINDS[set_name]} is not used, in its place {others}: {' '.join(str(error).split())}. "
                f"{REMEDY[set_name]}; then name the folder by {parameter}=... or {variable}"
            )
            return ""
    return folder


def forecast(notebook: str, profile: Profile, record: Path = DATA / "results" / "minutes.json") -> str:
    """What running `notebook` took where it was last measured; says so if it never was."""
    runs = json.loads(record.read_text()) if record.is_file() else {}
    run = runs.get(notebook, {}).get(profile.title)
    if run is None:
        return f"Profile {profile.title} ({profile.purpose}): nobody has measured yet how long this notebook takes."
    return (
        f"Profile {profile.title} ({profile.purpose}): this notebook took {run['minutes']:.1f} minutes and "
        f"{run['memory_gb']:.1f} GB on {run['device']}. It downloads nothing."
    )
