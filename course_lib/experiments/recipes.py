"""What each tiny network needs to learn sets A and D on two cores: steps, clips a step, peak learning rate.

data/results/tiny says which of them were run as they stand here and what they reached, and what was tried. The others
are the nearest guess from shorter trials, and no promise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from course_lib.profiles import Profile


class Recipe(NamedTuple):
    steps: int
    batch: int
    peak_lr: float


RECIPES = {  # network: on A, on D
    "i3d_tiny": (Recipe(300, 16, 1e-3), Recipe(200, 16, 1e-3)),
    "nonlocal_tiny": (Recipe(200, 32, 3e-3), Recipe(200, 16, 1e-3)),
    "r2plus1d_tiny": (Recipe(300, 16, 1e-3), Recipe(200, 16, 1e-3)),
    "slowfast_tiny": (Recipe(300, 16, 1e-3), Recipe(400, 16, 1e-3)),
    "vtn_tiny": (Recipe(800, 32, 1e-3), Recipe(900, 32, 1e-3)),
    "timesformer_tiny": (Recipe(800, 32, 1e-3), Recipe(500, 32, 1e-3)),
    "vivit_tiny": (Recipe(1000, 32, 1e-3), Recipe(600, 32, 1e-3)),
    "vidtr_tiny": (Recipe(600, 32, 1e-3), Recipe(500, 32, 1e-3)),
    "cvidtr_tiny": (Recipe(600, 32, 1e-3), Recipe(600, 32, 1e-3)),
    "mvit_tiny": (Recipe(300, 16, 1e-3), Recipe(250, 16, 1e-3)),
    "mvitv2_tiny": (Recipe(300, 16, 1e-3), Recipe(250, 16, 1e-3)),
    "video_swin_tiny": (Recipe(400, 16, 1e-3), Recipe(300, 16, 1e-3)),
}


def with_recipe(profile: Profile, network: str, set_name: str) -> Profile:
    """The profile with the recipe that is known for a network on a set, in the cpu profile: on A and D, and on K and S,
    which have no measured ones and take over those of A and D."""
    column = {"A": 0, "K": 0, "D": 1, "S": 1}.get(set_name)
    if profile.name != "cpu" or network not in RECIPES or column is None:
        return profile
    return replace(profile, **RECIPES[network][column]._asdict())
