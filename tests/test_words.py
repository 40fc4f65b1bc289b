"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from course_lib.words import count


@pytest.mark.parametrize(
    ("number", "nouns", "said"),
    [
        (0, ("clip",), "0 clips"),
        (1, ("clip",), "1 clip"),
        (1920, ("clip",), "1,920 clips"),
        (1, ("process", "processes"), "1 process"),
        (8, ("process", "processes"), "8 processes"),
        (1.0, ("point",), "1 point"),
        (2.5, ("point",), "2.5 points"),
    ],
)
def test_one_thing_is_one_and_all_else_are_many(number, nouns, said):
    assert count(number, *nouns) == said
