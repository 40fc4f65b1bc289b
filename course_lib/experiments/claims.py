"""The experiments, one function a claim: which arms it compares in a profile."""

from __future__ import annotations

from collections.abc import Callable

from course_lib.experiments.runs import Arm
from course_lib.profiles import Profile


def c1(profile: Profile) -> tuple[Arm, ...]:
    """Attention inside single frames is enough where looks decide, and not where motion does."""
    network = "timesformer_b_8x224" if profile.full else "timesformer_tiny"
    return tuple(
        Arm(network, set_name, (("attention", attention), ("scratch", True)))
        for set_name in ("A", "M")
        for attention in ("space", "divided", "joint")
    )


CLAIMS: dict[str, Callable[[Profile], tuple[Arm, ...]]] = {"C1": c1}
