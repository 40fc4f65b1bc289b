"""Settings that go by name."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


def one_of(setting: str, value: object, known: Collection[object]) -> None:
    """ValueError that lists the known values, and first the nearest, unless `value` is one of them."""
    if value not in known:
        names = [str(name) for name in known]
        near = get_close_matches(str(value), names, 1, 0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {setting} {value!r}: {hint}There are {', '.join(names)}")
