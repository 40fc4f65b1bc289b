"""Atomic writes: whatever fails, a path holds the old file or the new one, and nothing lies beside it."""

from __future__ import annotations

import os

import pytest

from course_lib.files import atomic_path, atomic_write, read_json, write_csv, write_json


def full(*_):
    raise OSError("No space left on device")


@pytest.mark.parametrize("fails", ["fsync", "replace"])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: atomic_write(path, b"new"),
        lambda path: write_json(path, ["new"]),
        lambda path: write_csv(path, ["path"], [["new"]]),
    ],
    ids=["bytes", "json", "csv"],
)
def test_a_write_that_fails_leaves_the_old_file_and_no_other(write, fails, tmp_path, monkeypatch):
    atomic_write(tmp_path / "one", b"old")
    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "one")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("one", b"old")]


def test_a_writer_that_stops_half_way_leaves_the_old_file_and_no_other(tmp_path):
    atomic_write(tmp_path / "one", b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "one") as part:
        part.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("one", b"old")]


def test_folders_are_made_and_json_comes_back(tmp_path):
    path = tmp_path / "deep" / "down" / "one.json"
    assert read_json(path) is None
    write_json(path, {"é": [1, None]})
    assert read_json(path) == {"é": [1, None]} and os.listdir(path.parent) == ["one.json"]
