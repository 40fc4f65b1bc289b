"""Numbers with their nouns, for sentences that people read."""

from __future__ import annotations


def count(number: float, one: str, many: str = "") -> str:
    """ "1 clip", "2 clips", "1,920 clips"; `many` where an s at the end does not make it ("1 class", "2 classes")."""
    shown = f"{number:,.0f}" if number == int(number) else f"{number:g}"
    return f"{shown} {one if number == 1 else many or one + 's'}"
