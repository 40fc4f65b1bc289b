"""Every file is decoded once, and what a report says survives a kill."""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from course_lib.cli import app
from course_lib.datasets import ClipDataset, audit
from course_lib.datasets.annotations import CLASS_LISTS
from course_lib.datasets.audit import Row, audit_videos, audited, count, coverage, read_report
from course_lib.datasets.manifest import Video, VideoList
from course_lib.files import sha256
from course_lib.synthetic.write import encode
from course_lib.video import probe, worker
from course_lib.video.errors import VideoError

CLIP = encode(np.random.default_rng(0).integers(0, 256, (8, 16, 32, 3), np.uint8))
BROKEN, MISSING = (2, 5), 7


@pytest.fixture
def videos(tmp_path):
    """Ten files, of which two are cut short and one is missing."""
    paths = [f"val/clip {i}, é.mp4" for i in range(10)]
    for i, path in enumerate(paths):
        (tmp_path / "val").mkdir(exist_ok=True)
        if i != MISSING:
            (tmp_path / path).write_bytes(CLIP[: len(CLIP) // 2] if i in BROKEN else CLIP)
    return VideoList("test", tmp_path, ("a", "b"), tuple(Video(p, i % 2, "val") for i, p in enumerate(paths)))


@pytest.fixture
def examined(monkeypatch):
    """The paths that were decoded, in the order of the calls."""
    paths, decode_all = [], worker.check

    def record(path, seconds):
        paths.append(Path(path))
        return decode_all(path, seconds)

    monkeypatch.setattr(worker, "check", record)
    return paths


def check(videos, report, **options):
    return audit_videos(videos, report, **{"workers": 2, "progress": False} | options)


def test_a_report_tells_whole_broken_and_missing_files_apart(videos, tmp_path):
    rows = check(videos, tmp_path / "report.csv")
    assert list(rows) == [video.path for video in videos.videos]
    assert count(rows) == {"ok": 7, "broken": 2, "missing": 1}
    with (tmp_path / "report.csv").open(newline="", encoding="utf-8") as file:
        by_path = {row["path"]: row for row in csv.DictReader(file)}
    for i, video in enumerate(videos.videos):
        row = by_path[video.path]
        if i == MISSING:
            assert row["status"] == "missing" and row["reason"] == "no such file" and row["bytes"] == ""
        elif i in BROKEN:
            assert row["status"] == "broken" and "cut short" in row["reason"] and row["bytes"] == str(len(CLIP) // 2)
        else:
            info = probe(videos.root / video.path)
            assert (row["status"], row["reason"], row["bytes"]) == ("ok", "", str(len(CLIP)))
            assert (row["frames"], row["height"], row["width"]) == ("8", "16", "32")
            assert float(row["fps"]) == pytest.approx(info.fps)
            assert float(row["seconds"]) == pytest.approx(8 / info.fps, abs=1e-3)


def test_real_videos_are_whole_but_for_the_one_known_to_be_broken(real_clips, tmp_path):
    names = ("decord_corrupted.mp4", "mma_part_0.mp4", "decord_video_90.mov")
    videos = VideoList("real", real_clips, ("a",), tuple(Video(name, 0, "val") for name in names))
    rows = check(videos, tmp_path / "report.csv")
    assert [rows[name].status for name in names] == ["broken", "ok", "ok"]


def test_unchanged_files_are_not_checked_again_and_changed_ones_are(videos, tmp_path, examined):
    report = tmp_path / "report.csv"
    first = check(videos, report)
    assert len(examined) == 9
    content = report.read_bytes()
    assert check(videos, report) == first
    assert len(examined) == 9 and report.read_bytes() == content
    (tmp_path / videos.videos[BROKEN[0]].path).write_bytes(CLIP)  # mended
    (tmp_path / videos.videos[MISSING].path).write_bytes(CLIP)  # fetched
    os.utime(tmp_path / videos.videos[0].path, (1, 1))  # another time, perhaps other bytes
    rows = check(videos, report)
    again = {tmp_path / videos.videos[i].path for i in (0, BROKEN[0], MISSING)}
    assert len(examined) == 12 and set(examined[9:]) == again
    assert count(rows) == {"ok": 9, "broken": 1} and read_report(report) == rows


def out_of_memory(patch, path):
    ask = worker.DecodeWorker.ask

    def killed(self, request):
        if request["path"] == str(path):
            self.process.kill()  # as Linux does when memory is short
        return ask(self, request)

    patch.setattr(worker.DecodeWorker, "ask", killed)


def no_time(patch, path):
    """Its decoder hangs."""
    decode_all, ask = worker.check, worker.DecodeWorker.ask

    def hangs(self, request):
        if request["path"] == str(path):
            os.kill(self.process.pid, signal.SIGSTOP)
        return ask(self, request)

    patch.setattr(worker.DecodeWorker, "ask", hangs)
    patch.setattr(worker, "check", lambda one, seconds: decode_all(one, 0.1 if one == path else seconds))


def no_process(patch, path):
    decode_all, start, here = worker.check, worker.DecodeWorker, threading.local()
    refused = fails(OSError(errno.EMFILE, "Too many open files"))

    def check_it(one, seconds):
        here.path = one
        if one == path:
            worker._kept.worker = None
        return decode_all(one, seconds)

    patch.setattr(worker, "check", check_it)
    patch.setattr(worker, "DecodeWorker", lambda: refused() if here.path == path else start())


def no_permission(patch, path):
    stat = Path.stat
    denied = fails(PermissionError(errno.EACCES, "Permission denied"))
    patch.setattr(Path, "stat", lambda one, **options: denied() if one == path else stat(one, **options))


def bad_disk(patch, path):
    broken = fails(OSError(errno.EIO, "Input/output error"))
    patch.setattr(audit, "sha256", lambda one: broken() if one == path else sha256(one))


def fails(error):
    def raising(*_):
        raise error

    return raising


MACHINE = {
    no_time: "no answer within 0.1 s",
    out_of_memory: r"died \(SIGKILL\)",
    no_process: "Too many open files",
    no_permission: "Permission denied",
    bad_disk: "Input/output error",
}


@pytest.mark.parametrize("failure", MACHINE, ids=lambda failure: failure.__name__)
def test_what_fails_on_the_machine_is_no_verdict_on_the_file_and_is_tried_again(failure, videos, tmp_path, monkeypatch):
    report, victim = tmp_path / "report.csv", videos.videos[0].path
    with monkeypatch.context() as patch:
        failure(patch, videos.root / victim)
        rows = check(videos, report)
    assert count(rows) == {"ok": 6, "broken": 2, "missing": 1, "unchecked": 1}
    assert re.search(rf"^could not be checked: .*{MACHINE[failure]}", rows[victim].reason)
    with pytest.raises(ValueError, match=rf"1 of 10 videos are unchecked, such as {victim} .*{MACHINE[failure]}"):
        audited(videos, report)
    kept, dropped = audited(videos, report, drop_unchecked=True)
    assert dropped == 4 and victim not in {video.path for video in kept.videos}
    assert count(check(videos, report)) == {"ok": 7, "broken": 2, "missing": 1}
    assert audited(videos, report)[0].videos[0].path == victim


def test_files_that_an_older_report_calls_broken_for_the_machine_s_sake_are_checked_again(videos, tmp_path, examined):
    report = tmp_path / "report.csv"
    check(videos, report)
    text = report.read_text(encoding="utf-8").replace("cut short", "the process that decoded it died (SIGKILL): cut")
    report.write_text(text, encoding="utf-8")
    examined.clear()
    assert count(check(videos, report))["broken"] == 2 and len(examined) == 2
    assert check(videos, report) and len(examined) == 2


def test_a_file_behind_a_shut_door_does_not_count_as_missing(videos, monkeypatch):
    no_permission(monkeypatch, videos.root / videos.videos[0].path)
    assert coverage(videos).missing == (videos.videos[MISSING].path,)


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_dropped_and_its_file_checked_again(cut, videos, tmp_path, examined):
    report = tmp_path / "report.csv"
    rows = check(videos, report)
    whole = report.read_bytes()
    last = next(csv.reader([whole.decode().splitlines()[-1]]))[0]
    report.write_bytes(whole[:-cut])
    assert set(read_report(report)) == set(rows) - {last}
    examined.clear()
    assert check(videos, report) == rows == read_report(report)
    assert {path.relative_to(tmp_path).as_posix() for path in examined} <= {last}


def test_a_report_torn_within_its_first_line_is_begun_anew(videos, tmp_path):
    report = tmp_path / "report.csv"
    report.write_bytes(b"path,stat")
    assert check(videos, report) == read_report(report)


def test_a_killed_check_goes_on_and_ends_with_the_same_rows(videos, tmp_path, examined):
    report = tmp_path / "report.csv"
    program = f"""
import os, signal, time
from pathlib import Path
from course_lib.datasets import audit
from course_lib.video import worker
from course_lib.datasets.manifest import Video, VideoList
calls, decode_all = [], worker.check
def dying(path, seconds):
    calls.append(path)
    if len(calls) == 5:
        while Path({str(report)!r}).read_bytes().count(b"\\n") < 2:  # the row of a file before this one
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return decode_all(path, seconds)
worker.check = dying
videos = {tuple(videos.videos)!r}
audit.audit_videos(VideoList("test", Path({str(tmp_path)!r}), ("a", "b"), videos), {str(report)!r}, workers=1)
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=Path(audit.__file__).parents[2], timeout=300)
    assert killed.returncode == -signal.SIGKILL
    begun = read_report(report)
    assert 0 < len(begun) < 10
    rows = check(videos, report)
    assert count(rows) == {"ok": 7, "broken": 2, "missing": 1}
    assert not {path.relative_to(tmp_path).as_posix() for path in examined} & set(begun)


def test_ctrl_c_stops_at_once_and_keeps_what_is_known(videos, tmp_path):
    report = tmp_path / "report.csv"
    program = f"""
import signal, time
from pathlib import Path
from course_lib.datasets import audit
from course_lib.video import worker
from course_lib.datasets.manifest import Video, VideoList
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in its background
decode_all = worker.check
def slow(path, seconds):
    time.sleep(0.5 if "clip 0" in str(path) else 600)
    return decode_all(path, seconds)
worker.check = slow
videos = {tuple(videos.videos)!r}
audit.audit_videos(VideoList("test", Path({str(tmp_path)!r}), ("a", "b"), videos), {str(report)!r}, workers=2)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=Path(audit.__file__).parents[2], stderr=subprocess.PIPE) as child:
        until = time.monotonic() + 300
        while time.monotonic() < until and (not report.exists() or report.read_bytes().count(b"\n") < 2):
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        try:
            errors = child.communicate(timeout=300)[1].decode()
        finally:
            child.kill()
    assert "KeyboardInterrupt" in errors and set(read_report(report)) == {videos.videos[0].path}


def test_a_list_does_without_what_a_report_calls_missing_or_broken(videos, tmp_path):
    report = tmp_path / "report.csv"
    check(videos, report)
    kept, dropped = audited(videos, report)
    assert dropped == 3
    whole = [video for i, video in enumerate(videos.videos) if i not in (*BROKEN, MISSING)]
    assert kept.videos == tuple(video._replace(sha256=hashlib.sha256(CLIP).hexdigest()) for video in whole)
    assert (kept.root, kept.classes, kept.source) == (videos.root, videos.classes, videos.source)


def test_a_file_that_changed_after_its_check_is_refused_though_it_can_be_read(videos, tmp_path):
    check(videos, tmp_path / "report.csv")
    kept, _ = audited(videos, tmp_path / "report.csv")
    dataset = ClipDataset(kept, frames=4, split="val")
    assert dataset.read(0).shape == (4, 16, 32, 3)
    (tmp_path / kept.videos[0].path).write_bytes(encode(np.zeros((8, 16, 32, 3), np.uint8)))
    with pytest.raises(VideoError, match="its SHA-256 sum is not the one on the list"):
        dataset[0]
    assert dataset.read(1).shape == (4, 16, 32, 3)


def test_a_report_that_does_not_know_all_files_or_keeps_none_is_refused(videos, tmp_path):
    report = tmp_path / "report.csv"
    some = VideoList("test", videos.root, videos.classes, (videos.videos[BROKEN[0]],))
    check(some, report)
    with pytest.raises(ValueError, match=r"says nothing about 9 of 10 videos, such as val/clip 0.*course data check"):
        audited(videos, report)
    with pytest.raises(ValueError, match=r"none of the 1 videos is whole"):
        audited(some, report)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\nx,1\n", "is no report of a check"),
        (",".join(Row._fields) + "\nx,ok\n", "line 2 is no row of a report"),
        (",".join(Row._fields) + "\n" + ",".join(Row("x", "fine")) + "\n", "line 2 is no row of a report"),
    ],
)
def test_a_file_that_is_no_report_is_neither_read_nor_written_to(content, message, videos, tmp_path):
    report = tmp_path / "report.csv"
    report.write_text(content)
    with pytest.raises(ValueError, match=message):
        check(videos, report)
    assert report.read_text() == content


def test_coverage_counts_files_and_classes_without_opening_any(videos, examined):
    found = coverage(videos)
    assert (found.listed, found.present, found.classes) == (10, 9, 2)
    assert found.missing == (videos.videos[MISSING].path,) and not examined


def test_no_workers_is_refused(videos, tmp_path):
    with pytest.raises(ValueError, match="workers=0"):
        check(videos, tmp_path / "report.csv", workers=0)


# The command


@pytest.fixture
def kinetics_tree(tmp_path):
    for name in ("archery", "zumba"):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / f"{name}.mp4").write_bytes(CLIP)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments), "--workers", "1"])


def test_the_command_recognises_kinetics_and_is_content_with_whole_files(kinetics_tree):
    result = run(kinetics_tree)
    assert result.exit_code == 0, result.output
    assert "class folders" in result.output and "2 of 2 files, 2 of 400 classes" in result.output
    assert "2 ok" in result.output and len(read_report(kinetics_tree / "check.csv")) == 2


def test_the_command_lists_what_is_broken_and_fails(kinetics_tree):
    (kinetics_tree / "val" / "zumba" / "zumba.mp4").write_bytes(CLIP[:-500])
    result = run(kinetics_tree, "--split", "val", "--report", kinetics_tree / "other.csv")
    assert result.exit_code == 1
    assert "1 broken" in result.output and result.output.count("zumba.mp4") == 1
    assert not (kinetics_tree / "check.csv").exists()


def test_the_command_tells_files_that_could_not_be_checked_from_broken_ones(kinetics_tree, monkeypatch):
    no_time(monkeypatch, kinetics_tree / "val" / "zumba" / "zumba.mp4")
    result = run(kinetics_tree)
    assert result.exit_code == 1 and "1 ok, 1 unchecked" in result.output
    assert "val/zumba/zumba.mp4: could not be checked: no answer within 0.1 s" in result.output


def test_the_command_names_a_file_that_is_in_two_splits(kinetics_tree):
    other = kinetics_tree / "train" / "bowling"
    other.mkdir(parents=True)
    (other / "x.mp4").write_bytes(encode(np.zeros((8, 16, 32, 3), np.uint8)))
    assert run(kinetics_tree).exit_code == 0
    (other / "again.mp4").write_bytes(CLIP)
    result = run(kinetics_tree)
    assert result.exit_code == 1
    assert "train/bowling/again.mp4 of train and val/archery/archery.mp4 of val are one file" in result.output


def test_the_command_looks_at_the_classes_of_a_subset_alone(kinetics_tree):
    (kinetics_tree / "val" / "bowling").mkdir()
    (kinetics_tree / "val" / "bowling" / "x.mp4").write_bytes(CLIP)
    result = run(kinetics_tree, "--subset", "mini10")
    assert result.exit_code == 0 and "1 of 1 files, 1 of 10 classes" in result.output


def test_the_command_recognises_something_something(tmp_path):
    classes = (CLASS_LISTS / "ssv2" / "labels.json").read_text()
    (tmp_path / "labels.json").write_text(classes)
    (tmp_path / "train.json").write_text('[{"id": "1", "template": "Moving [something] up"}]')
    (tmp_path / "1.webm").write_bytes(CLIP)
    result = run(tmp_path)
    assert result.exit_code == 0 and "1 of 1 files, 1 of 174 classes" in result.output


def test_the_command_fails_where_there_is_nothing_or_the_wrong_thing(tmp_path, kinetics_tree):
    assert "nor Kinetics or Something-Something" in run(tmp_path / "nowhere").output
    result = run(kinetics_tree, "--split", "train")
    assert result.exit_code == 1 and "no Kinetics train" in result.output
