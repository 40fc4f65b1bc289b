"""What each tiny network needs to learn sets L and D on two cores: steps, clips a step, peak learning rate.

data/results/tiny says what they reach, in how many seconds, and what was tried.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from course_lib.profiles import Profile


class Recipe(NamedTuple):
    steps: int
    batch: int
    peak_lr: float


RECIPES = {  # network: on L, on D
    "i3d_tiny": (Recipe(200, 16, 1e-3), Recipe(200, 16, 1e-3)),
    "nonlocal_tiny": (Recipe(200, 16, 1e-3), Recipe(200, 16, 1e-3)),
    "r2plus1d_tiny": (Recipe(300, 16, 1e-3), Recipe(300, 16, 1e-3)),
    "slowfast_tiny": (Recipe(300, 16, 1e-3), Recipe(300, 16, 1e-3)),
    "vtn_tiny": (Recipe(250, 32, 1e-3), Recipe(1500, 16, 7e-4)),
    "timesformer_tiny": (Recipe(250, 32, 1e-3), Recipe(1300, 16, 1.5e-3)),
    "vivit_tiny": (Recipe(400, 32, 1e-3), Recipe(1500, 16, 1e-3)),
    "vidtr_tiny": (Recipe(400, 16, 1e-3), Recipe(1000, 16, 1.5e-3)),
    "cvidtr_tiny": (Recipe(500, 16, 1e-3), Recipe(1300, 16, 1.5e-3)),
    "mvit_tiny": (Recipe(200, 16, 1e-3), Recipe(200, 16, 1e-3)),
    "mvitv2_tiny": (Recipe(200, 16, 1e-3), Recipe(200, 16, 1e-3)),
    "video_swin_tiny": (Recipe(400, 16, 5e-4), Recipe(400, 16, 1e-3)),
}


def with_recipe(profile: Profile, network: str, set_name: str) -> Profile:
    """The profile with the recipe that is known for a network on a set, in the cpu profile: on L and D, and on K and S,
    which have no measured ones. S takes over that of D, K that of L with twice the steps, since its clips vary more."""
    column = {"L": 0, "K": 0, "D": 1, "S": 1}.get(set_name)
    if profile.name != "cpu" or network not in RECIPES or column is None:
        return profile
    found = replace(profile, **RECIPES[network][column]._asdict())
    return replace(found, steps=2 * found.steps) if set_name == "K" else found
