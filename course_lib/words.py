"""Numbers with their nouns, for sentences that people read."""

from __future__ import annotations


def count(number: float, one: str, many: str = "") -> str:
    """A number and what it counts: "1 clip", "1,920 clips". `many` where no s at the end makes it: classes."""
    shown = f"{number:,.0f}" if number == int(number) else f"{number:g}"
    return f"{shown} {one if number == 1 else many or one + 's'}"
