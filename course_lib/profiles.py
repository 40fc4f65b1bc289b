"""How much a notebook does: the same code at three sizes.

Chosen by the papermill parameter `profile`, or by COURSE_PROFILE, or "cpu".
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from course_lib.paths import DATA
from course_lib.synthetic.difficulty import EASY, FULL, Difficulty


@dataclass(frozen=True)
class Profile:
    """What a notebook and its experiments take from a profile."""

    name: str
    purpose: str
    full: bool  # the network of the paper, or the tiny one
    clips: int  # in each generated set, all splits together; any multiple of 240 suits all six sets
    size: int  # pixels of the square clip that the network sees
    steps: int
    batch: int
    peak_lr: float
    difficulty: Difficulty = FULL  # of set D

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


def active(name: str = "") -> Profile:
    """The profile called `name`, else $COURSE_PROFILE, else cpu. ValueError for a name that does not exist."""
    name = name or os.environ.get("COURSE_PROFILE", "") or "cpu"
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}: there are {', '.join(PROFILES)}")
    return PROFILES[name]


def forecast(notebook: str, profile: Profile, record: Path = DATA / "results" / "minutes.json") -> str:
    """What running `notebook` took where it was last measured; says so if it never was."""
    runs = json.loads(record.read_text()) if record.is_file() else {}
    run = runs.get(notebook, {}).get(profile.name)
    if run is None:
        return f"Profile {profile.name} ({profile.purpose}): nobody has measured yet how long this notebook takes."
    return (
        f"Profile {profile.name} ({profile.purpose}): this notebook took {run['minutes']:.1f} minutes and "
        f"{run['memory_gb']:.1f} GB on {run['device']}. It downloads nothing."
    )
