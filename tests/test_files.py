"""Atomic writes: whatever fails, a path holds the old file or the new one, and nothing lies beside it."""

from __future__ import annotations

import os

import pytest

from course_lib.files import atomic_path, atomic_write, compare, read_csv, read_json, read_text, write_csv, write_json


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


# Lists that people bring


TABLE = "path,label\nmüll/a.mp4,0\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_text_in_utf8_is_read_with_and_without_a_byte_order_mark(encoding, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(TABLE, encoding=encoding)
    assert read_text(path) == TABLE
    assert list(read_csv(path, ("path",))) == [(2, {"path": "müll/a.mp4", "label": "0"})]


WRONG = {  # content of the file: the cause that is named
    "UTF-16": (TABLE.encode("utf-16"), "in UTF-16 or UTF-32; save it as UTF-8"),
    "UTF-16 without a mark": (TABLE.encode("utf-16-le"), "in UTF-16 or UTF-32; save it as UTF-8"),
    "UTF-32": (TABLE.encode("utf-32-be"), "in UTF-16 or UTF-32"),
    "Windows": (TABLE.encode("cp1252"), r"not in UTF-8 \(byte 0xfc at 12, as .*Windows-1252.*save it as UTF-8"),
    "semicolons": (
        TABLE.replace(",", ";").encode(),
        "no column path, label.*parted by semicolons: save it with commas",
    ),
    "tabs": (TABLE.replace(",", "\t").encode(), "parted by tabs"),
    "Excel's sep": (b"sep=,\n" + TABLE.encode(), "Excel's sep=: delete it"),
    "spaces, capitals": (b"Path, Label\na.mp4, 0\n", "first line is 'Path, Label': write the names in small letters"),
    "other columns": (b"file,class\na.mp4,0\n", "no column path, label; .*first line is 'file,class'"),
    "no header": (b"a.mp4,0\n", "first line is 'a.mp4,0'"),
    "nothing": (b"", "no column path, label.*first line is ''"),
    "a comma more": (b"path,label\na,b.mp4,0\n", "line 2 has not as many columns as the first"),
    "open quote": (b'path,label\n"a.mp4,0\nb.mp4,0\n', r"line 3 is no csv \(unexpected end of data\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_cause_of_a_csv_that_cannot_be_read_is_named_with_the_file(case, tmp_path):
    content, cause = WRONG[case]
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=cause) as refused:
        list(read_csv(path, ("path", "label")))
    assert str(refused.value).startswith(f"{path}: ") and str(refused.value).count(str(path)) == 1


def test_a_file_that_cannot_be_read_here_is_neither_missing_nor_changed(tmp_path):
    atomic_write(tmp_path / "a", b"")
    (tmp_path / "folder").mkdir()
    write_csv(tmp_path / "sums.csv", ("path", "sha256"), [("a", "0"), ("b", "0"), ("folder", "0")])
    found = {problem.path: problem.reason for problem in compare(tmp_path / "sums.csv")}
    assert found == {"a": "changed", "b": "missing", "folder": "could not be read: Is a directory"}


def test_sums_that_were_saved_with_semicolons_are_named(tmp_path):
    path = tmp_path / "sums.csv"
    path.write_text("path;sha256\na.mp4;0\n")
    with pytest.raises(ValueError, match=r"sums.csv: no column .*semicolons"):
        compare(path)
