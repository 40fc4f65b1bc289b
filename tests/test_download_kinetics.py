"""`course data fetch`: what is kept is whole and wanted, whatever the network, the archives or the user do."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

import filelock
import numpy as np
import pytest
import requests
from typer.testing import CliRunner
from web import serving

from course_lib import cli
from course_lib.datasets import kinetics
from course_lib.datasets.download import cvdf
from course_lib.datasets.download import kinetics as module
from course_lib.datasets.download.archive import unpack
from course_lib.datasets.download.http import DownloadError, RetryPolicy
from course_lib.datasets.download.kinetics import ArchiveError, FetchError, fetch, verify
from course_lib.synthetic.write import encode
from course_lib.video import probe, worker

CLASSES = ("archery", "bowling")


def clip(seed: int, height: int = 96, width: int = 128) -> bytes:
    return encode(np.random.default_rng(seed).integers(0, 256, (6, height, width, 3), dtype=np.uint8))


def name(word: str) -> str:
    return f"{word:_<11}_000010_000020.mp4"


def tar_gz(*members: tuple[str, bytes] | tarfile.TarInfo, end: bool = True) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
        contents = tar.offset
    return gzip.compress(file.getvalue() if end else file.getvalue()[:contents], 1)


CLIPS = {
    word: clip(seed) for seed, word in enumerate(("a0", "a1", "a2", "b0", "b1", "yoga0", "yoga1", "b-val", "mended"))
}
BROKEN = CLIPS["a2"][:1500]
PART = ["/400/train/part_0.tar.gz", "/400/train/part_1.tar.gz", "/400/val/part_0.tar.gz"]
SPARE = "replacement/replacement_for_corrupted_k400/"


def table(*rows: tuple[str, str], split: str = "train") -> bytes:
    lines = [f"{label},{word:_<11},10,20,{split}" for label, word in rows]
    return "\n".join(["label,youtube_id,time_start,time_end,split", *lines, ""]).encode()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """What CVDF would publish: a2 is broken and has a replacement, a9 is listed but in no archive."""
    kinds = {"a": "archery", "b": "bowling", "y": "yoga"}
    train = table(*((kinds[word[0]], word) for word in ("a0", "b0", "yoga0", "a1", "b1", "a2", "a9", "yoga1")))
    folder = tarfile.TarInfo("./")
    folder.type = tarfile.DIRTYPE
    inside = lambda *words: [(f"./{name(word)}", CLIPS[word]) for word in words]  # noqa: E731
    return {
        PART[0]: tar_gz(folder, *inside("a0", "yoga0", "b0")),
        PART[1]: tar_gz((f"home/x/{name('a1')}", CLIPS["a1"]), (name("a2"), BROKEN), *inside("b1", "yoga1")),
        PART[2]: tar_gz(*inside("b-val"), ("readme.txt", b"hello")),
        f"/400/{SPARE.split('/')[1]}.tgz": tar_gz((f"{SPARE.split('/')[1]}/{name('a2')}", CLIPS["mended"])),
        "/400/annotations/train.csv": train,
        "/400/annotations/val.csv": table(("bowling", "b-val"), ("archery", "a-val"), split="val"),
    }


@pytest.fixture
def site(files):
    with serving() as site:
        site.files |= files
        for split, parts in (("train", PART[:2]), ("val", PART[2:])):
            lines = "".join(f"{site.url}{part}\n" for part in parts)
            site.files[f"/400/{split}/k400_{split}_path.txt"] = lines.encode()
        yield site


@pytest.fixture
def get(site, tmp_path):
    """`fetch` from this site into one folder, with no waiting."""
    with requests.Session() as session:
        session.trust_env = False
        policy = RetryPolicy(connect=30.0, stall=30.0, waits=(0.0,), session=session)
        yield partial(fetch, tmp_path / "k", classes=CLASSES, site=site.url, policy=policy, say=lambda text: None)


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "k"


def kept(root: Path) -> dict[str, bytes]:
    """Everything under a final name."""
    videos = (path for folder in ("train", "val", "test", "replacement") for path in (root / folder).rglob("*"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in videos if path.is_file()}


WHOLE = {f"train/{name(word)}": CLIPS[word] for word in ("a0", "a1", "b0", "b1")} | {
    f"train/{name('a2')}": BROKEN,
    f"{SPARE}{name('a2')}": CLIPS["mended"],
    f"val/{name('b-val')}": CLIPS["b-val"],
}


def test_the_wanted_clips_arrive_in_the_layout_of_cvdf_and_nothing_else(get, site, root):
    said = []
    report = get(say=said.append)
    assert kept(root) == WHOLE
    assert (root / "annotations" / "train.csv").read_bytes() == site.files["/400/annotations/train.csv"]
    assert {path.name for path in root.iterdir()} == {
        ".fetch", "annotations", "problems.csv", "replacement", "sums.csv", "train", "val",
    }  # fmt: skip
    assert not [path for path in (root / ".fetch").rglob("*") if path.suffix in (".gz", ".tgz", ".part", ".mp4")]
    with (root / "sums.csv").open(newline="") as file:
        sums = {row["path"]: (int(row["bytes"]), row["sha256"]) for row in csv.DictReader(file)}
    assert sums == {path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in WHOLE.items()}
    assert (report.clips, report.bytes) == (7, sum(map(len, WHOLE.values()))) and verify(root) == []
    assert "train, val: 4 of 4 archives to go" in said[0] and "8 clips as listed" in said[0]


def test_what_is_broken_missing_or_strange_is_named(get, root):
    reasons = dict(get().problems)
    assert set(reasons) == {f"train/{name('a2')}", f"train/{name('a9')}", f"val/{name('a-val')}", "val/readme.txt"}
    assert "a replacement is there" in reasons[f"train/{name('a2')}"]
    assert "in no archive" in reasons[f"train/{name('a9')}"] and "no clip" in reasons["val/readme.txt"]
    with (root / "problems.csv").open(newline="") as file:
        assert {row["path"]: row["reason"] for row in csv.DictReader(file)} == reasons


def test_the_reader_of_kinetics_reads_what_was_fetched(get, root):
    get()
    found = kinetics.read(root, "400", "train", classes=(*CLASSES, "yoga")).keep(CLASSES)
    here = {video.path: video.label for video in found.videos if (root / video.path).exists()}
    assert here == {f"train/{name(w)}": int(w[0] == "b") for w in ("a0", "a1", "b0", "b1")} | {
        f"{SPARE}{name('a2')}": 0
    }
    assert probe(root / SPARE / name("a2")).frames == 6


def test_a_second_run_asks_the_network_for_nothing(get, site, root):
    first = get()
    site.log.clear()
    said = []
    assert get(say=said.append) == first and site.log == [] and kept(root) == WHOLE
    assert "0 of 4 archives to go, 0.00 GB" in said[0]


def test_only_the_archives_that_are_asked_for_come_by(get, site, root):
    report = get(splits=["train"], archives=range(1, 2))
    assert not site.gets(PART[0]) and f"train/{name('a0')}" not in kept(root)
    assert "in no archive" not in str(report.problems)
    get(splits=["train"])
    assert len(site.gets(PART[1])) == 1 and kept(root) == {p: c for p, c in WHOLE.items() if "val" not in p}
    with pytest.raises(ValueError, match="archives 0 to 1, not 1 to 2"):
        get(splits=["train"], archives=range(1, 3))
    assert [cvdf.numbers(text) for text in ("0-3", "7")] == [range(4), range(7, 8)]
    with pytest.raises(ValueError, match="archives 'x': give a number or two"):
        cvdf.numbers("x")


def test_without_classes_all_come(get, root):
    get(classes=None)
    assert f"train/{name('yoga1')}" in kept(root)


class Stop(BaseException):
    """Stands for Ctrl-C or a kill between two steps."""


def test_stopped_between_any_two_steps_no_half_file_shows_and_the_same_call_ends_as_if_never_stopped(
    get, root, monkeypatch
):
    """Every write, rename and removal is a place to stop at: the k-th of a run, then the k + 1st of the next one."""
    steps, steps_left = [], [0]

    def stopping(work, *args, **kwargs):
        if steps_left[0] == 0:
            raise Stop
        steps_left[0] -= 1
        steps.append(work)
        return work(*args, **kwargs)

    for owner, call in ((os, "replace"), (Path, "replace"), (Path, "unlink"), (Path, "open"), (shutil, "rmtree")):
        original = getattr(owner, call)
        wrapper = lambda *a, original=original, **k: stopping(original, *a, **k)  # noqa: E731
        monkeypatch.setattr(owner, call, wrapper)
    runs = 0
    while True:
        runs += 1
        steps_left[0] = 4 * runs
        try:
            get()
            break
        except Stop:
            steps_left[0] = 10**6
            half = {path: data for path, data in kept(root).items() if data != WHOLE[path]}
            assert not half
    assert runs > 8
    steps_left[0] = 10**6
    get()
    monkeypatch.undo()
    assert kept(root) == WHOLE and verify(root) == []


def test_a_process_killed_in_the_middle_of_an_archive_goes_on_there(get, site, root, files):
    site.faults[PART[0]] = ["stall"]
    code = (
        "import sys; from course_lib.datasets.download.kinetics import fetch, RetryPolicy\n"
        "policy = RetryPolicy(); policy.session.trust_env = False\n"
        f"fetch({str(root)!r}, {CLASSES!r}, site={site.url!r}, policy=policy)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = root / ".fetch" / "train" / "part_0.tar.gz.part"
    deadline = time.monotonic() + 300
    while not (site.stalled.is_set() and part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    have = part.stat().st_size
    assert have > 0 and kept(root) == {}
    get()
    _, rest = site.gets(PART[0])
    assert rest.range == f"bytes={have}-" and rest.sent == len(files[PART[0]]) - have
    assert len(site.gets("/400/annotations/train.csv")) == 1
    assert kept(root) == WHOLE


def test_a_clip_that_was_deleted_or_cut_brings_its_archive_back_and_no_other(get, site, root):
    get()
    (root / "train" / name("a0")).unlink()
    (root / "train" / name("b0")).write_bytes(b"short")
    site.log.clear()
    get()
    assert kept(root) == WHOLE and {asked.path for asked in site.log} == {PART[0]}


def test_verify_finds_what_has_changed_or_is_missing(get, root):
    get()
    path = root / "train" / name("a0")
    path.write_bytes(path.read_bytes()[::-1])
    (root / "val" / name("b-val")).unlink()
    assert verify(root) == [(f"train/{name('a0')}", "changed"), (f"val/{name('b-val')}", "missing")]
    with pytest.raises(ValueError, match=r"no sums\.csv"):
        verify(root / "train")


def test_one_folder_holds_one_selection(get, root):
    get()
    for other, words in (
        ({"classes": ("yoga",)}, "was begun with classes"),
        ({"short_side": 32}, "short_side None, not 32"),
        ({"version": "700"}, "version 400, not 700"),
    ):
        with pytest.raises(ValueError, match=words):
            get(**other)


def test_what_cannot_be_is_refused_with_a_way_out(get, site):
    with pytest.raises(ValueError, match=r"Kinetics-500 .* 400, 600, 700"):
        get(version="500")
    with pytest.raises(ValueError, match="no split 'dev': there are train, val, test"):
        get(splits=["dev"])
    with pytest.raises(ValueError, match="short_side=33: H"):
        get(short_side=33)
    with pytest.raises(ValueError, match="no class 'knitting' among its 3, such as 'archery'"):
        get(classes=["knitting"])


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("/400/annotations/train.csv", b"youtube_id,time_start,time_end\n", "no column label"),
        ("/400/annotations/train.csv", table(("archery", "../../etc/x"))[:-1], "row 1 names no clip"),
        ("/400/annotations/train.csv", table(("archery", "a0")).replace(b",10,", b",ten,"), "row 1 names no clip"),
        ("/400/train/k400_train_path.txt", b"", "no list of addresses"),
        ("/400/train/k400_train_path.txt", b"file:///etc/passwd.tar.gz\n", "no list of addresses"),
        ("/400/train/k400_train_path.txt", b"http://a/x.tar.gz\nhttp://b/x.tar.gz\n", "different tar.gz archives"),
    ],
)
def test_a_list_that_is_none_is_refused(path, content, words, get, site):
    site.files[path] = content
    with pytest.raises(ValueError, match=words):
        get(classes=None)


def test_two_fetches_into_one_folder_are_refused(get, root, site):
    (root / ".fetch").mkdir(parents=True)
    with filelock.FileLock(root / ".fetch" / "lock"), pytest.raises(FetchError, match="another fetch is at work"):
        get()
    assert not site.log
    get()


def test_a_disk_that_is_too_small_is_noticed_before_the_first_archive(get, site, root, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 50_000))
    with pytest.raises(FetchError, match=r"(?s)archives to go.*needed.*0\.00 GB free.*Too little: make room"):
        get()
    assert not [asked for asked in site.log if asked.method == "GET" and "part_" in asked.path]


def test_an_archive_damaged_on_the_server_gives_no_clip_and_the_next_run_takes_the_mended_one(get, site, root, files):
    site.etags[PART[0]] = '"0123456789abcdef0123456789abcdef-9"'  # uploaded in parts: no MD5
    for place in (len(files[PART[0]]) // 2, len(files[PART[0]]) - 6):
        broken = bytearray(files[PART[0]])
        broken[place] ^= 1
        site.files[PART[0]] = bytes(broken)
        with pytest.raises(ArchiveError, match=r"part_0\.tar\.gz: .*damaged.*it is deleted, the same command fetches"):
            get()
        assert kept(root) == {}
    site.files[PART[0]] = files[PART[0]]
    get()
    assert kept(root) == WHOLE


def test_a_clip_in_two_archives_is_named_and_the_first_one_stays(get, site, root):
    site.files[PART[1]] = tar_gz((name("a0"), CLIPS["yoga1"]), (name("b1"), CLIPS["b1"]))
    problems = dict(get(splits=["train"]).problems)
    assert kept(root)[f"train/{name('a0')}"] == CLIPS["a0"] and "part_0.tar.gz stays" in problems[f"train/{name('a0')}"]


def test_a_missing_archive_stops_the_run_and_what_was_done_before_stays(get, site, root, files):
    del site.files[PART[1]]
    with pytest.raises(DownloadError, match=r"part_1\.tar\.gz: the server answers 404"):
        get()
    site.files[PART[1]] = files[PART[1]]
    get()
    assert kept(root) == WHOLE


def test_an_archive_that_breaks_off_after_others_were_done_leaves_sums_of_those(get, site, root):
    site.faults[PART[1]] = ["close", "500", "500", "500"]
    with pytest.raises(DownloadError, match=r"part_1\.tar\.gz: .*given up after 3 tries"):
        get()
    assert set(kept(root)) == {f"train/{name(word)}" for word in ("a0", "b0")} and verify(root) == []
    get()
    assert kept(root) == WHOLE and site.gets(PART[1])[-1].range


def test_fetched_clips_are_made_small_when_asked_and_broken_ones_stay_as_they_came(get, root):
    report = get(short_side=32)
    for path in kept(root):
        if path != f"train/{name('a2')}":
            info = probe(root / path)
            assert (info.frames, info.height, info.width) == (6, 32, 42)
    assert (root / "train" / name("a2")).read_bytes() == BROKEN
    assert verify(root) == [] and report.clips == 7
    assert not list((root / ".fetch" / "staging").iterdir())


def test_a_clip_for_which_the_machine_had_no_time_is_told_apart_and_tried_again(get, site, root, monkeypatch):
    late, transcode = f"train/{name('a0')}", worker.transcode

    def slow(path, target, short_side, seconds):
        if path.name == name("a0"):
            worker._kept.__dict__.clear()
            probe(path)
            os.kill(worker._kept.worker.process.pid, signal.SIGSTOP)  # so that it cannot be done in no time
            seconds = 0.0
        return transcode(path, target, short_side, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "transcode", slow)
        first = get(short_side=32)
        again = get(short_side=32)
    for report in (first, again):  # told, and kept as it came
        assert dict(report.problems)[late].startswith("could not be checked: no answer within 0 s")
        assert dict(report.problems)[f"train/{name('a2')}"].startswith(("cut short", "not a video"))
    assert kept(root)[late] == CLIPS["a0"]
    site.log.clear()
    mended = get(short_side=32)
    assert site.log == [] and late not in dict(mended.problems) and len(mended.problems) == len(first.problems) - 1
    assert probe(root / late).height == 32 and verify(root) == []
    assert mended == get(short_side=32)


# Archives


def special(kind: bytes, path: str, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.linkname = kind, target
    return info


def boasting(size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name("a0"))
    info.size = size
    return info


HOSTILE = {
    "a way up": (("../" + name("a0"), b"x"), "leads out"),
    "a way up inside": (("train/../../" + name("a0"), b"x"), "leads out"),
    "a way up on Windows": (("..\\" + name("a0"), b"x"), "leads out"),
    "an absolute path": (("/tmp/" + name("a0"), b"x"), "leads out"),
    "a drive": (("C:/" + name("a0"), b"x"), "leads out"),
    "a link": (special(tarfile.SYMTYPE, name("a0"), "/etc/passwd"), "a link or a device"),
    "a hard link": (special(tarfile.LNKTYPE, name("a0"), name("b0")), "a link or a device"),
    "a link for a folder": (special(tarfile.SYMTYPE, "train", "/tmp"), "a link or a device"),
    "a device": (special(tarfile.CHRTYPE, name("a0")), "a link or a device"),
    "a pipe": (special(tarfile.FIFOTYPE, name("a0")), "a link or a device"),
    "a huge size": (boasting(2**40), r"1,099,511,627,776 bytes, more than any clip"),
    "a size that is not there": (boasting(2**20), "cut short or damaged"),
    "a clip twice": ((f"again/{name('b0')}", b"x"), "twice"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_and_writes_nothing_outside(case, tmp_path):
    member, words = HOSTILE[case]
    archive, folder = tmp_path / "x.tar.gz", tmp_path / "deep" / "out"
    folder.mkdir(parents=True)
    archive.write_bytes(tar_gz((name("b0"), b"good"), member))
    with pytest.raises(ArchiveError, match=words):
        unpack(archive, lambda path: True, folder)
    files = {path for path in tmp_path.rglob("*") if not path.is_dir()}
    assert files - {archive, folder / name("b0"), folder / name("a0")} == set()
    assert not (folder / name("a0")).is_symlink()


def test_every_way_to_shorten_or_damage_an_archive_is_noticed(tmp_path):
    contents = [(name(word), CLIPS[word]) for word in ("a0", "b0")]
    whole, archive = tar_gz(*contents), tmp_path / "x.tar.gz"
    plain = bytearray(gzip.decompress(whole))
    second = plain.index(name("b0").encode())
    plain[second : second + 4] = b"\xff\xff\xff\xff"  # its header no longer fits its checksum
    bad = {
        "empty": b"",
        "no archive": b"plain words" * 999,
        "a plain tar": gzip.decompress(whole),
        "half": whole[: len(whole) // 2],
        "without its last byte": whole[:-1],
        "wrong checksum": whole[:-8] + b"\0\0\0\0" + whole[-4:],
        "without an end": tar_gz(*contents, end=False),
        "a damaged header": gzip.compress(bytes(plain)),
        "another archive behind it": whole + whole,
    }
    for case, content in bad.items():
        archive.write_bytes(content)
        with pytest.raises(ArchiveError):
            unpack(archive, lambda path: True, tmp_path)
            pytest.fail(f"{case} was taken for whole")
    archive.write_bytes(whole)
    assert unpack(archive, lambda path: True, tmp_path) == ([name("a0"), name("b0")], [])


# Commands


@pytest.fixture
def run(get, monkeypatch):
    """The command line, with the site of this test in place of CVDF's."""
    monkeypatch.setattr(module, "fetch", lambda root, **asked: fetch(root, **get.keywords | asked))
    monkeypatch.setattr(kinetics, "subset", lambda name: CLASSES)
    return lambda *words: CliRunner().invoke(cli.app, ["data", "fetch", *map(str, words)])


def test_the_command_says_what_will_come_what_came_and_what_is_wrong(run, root):
    done = run("kinetics", "--subset", "mini10", "--root", root, "--split", "train", "--archives", "0-1")
    assert done.exit_code == 0 and "3 of 3 archives to go" in done.output and "6 clips, 0.00 GB" in done.output
    assert name("a2") in done.output
    assert run("verify", "--root", root).exit_code == 0
    (root / "train" / name("a0")).unlink()
    found = run("verify", "--root", root)
    assert found.exit_code == 1 and f"train/{name('a0')}: missing" in found.output


def test_the_command_ends_with_one_line_and_status_1_if_it_cannot_go_on(run, root, site, monkeypatch):
    for words, answer in (
        (["--version", "500"], "500"),
        (["--archives", "x"], "'x'"),
        (["--archives", "0-9"], "0 to 9"),
    ):
        done = run("kinetics", "--subset", "mini10", "--root", root, *words)
        assert done.exit_code == 1 and isinstance(done.exception, SystemExit) and answer in done.output
    del site.files[PART[0]]
    assert "404" in run("kinetics", "--subset", "mini10", "--root", root).output

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "fetch", stop)
    done = run("kinetics", "--root", root)
    assert done.exit_code == 1 and "the same command goes on from here" in done.output


@pytest.mark.parametrize("labels", [".", "labels"])
def test_something_something_is_counted_but_not_fetched(labels, run, tmp_path):
    done = run("ssv2", "--root", tmp_path)
    assert done.exit_code == 1 and "licence" in done.output and "no labels.json" in done.output
    (tmp_path / labels).mkdir(exist_ok=True)
    (tmp_path / labels / "labels.json").write_text("{}")
    for split, numbers in (("train", "123"), ("validation", "4"), ("test", "56")):
        (tmp_path / labels / f"{split}.json").write_text(json.dumps([{"id": number} for number in numbers]))
    (tmp_path / "20bn-something-something-v2").mkdir()
    for number in "1245":
        (tmp_path / "20bn-something-something-v2" / f"{number}.webm").write_bytes(b"x")
    (tmp_path / "20bn-something-something-v2" / "6.webm").touch()  # empty: as good as missing
    done = run("ssv2", "--root", tmp_path)
    assert done.exit_code == 1 and "train: 2 of 3" in done.output and "test: 1 of 2" in done.output
    assert "missing: 20bn-something-something-v2/3.webm" in done.output
    for number in "36":
        (tmp_path / "20bn-something-something-v2" / f"{number}.webm").write_bytes(b"x")
    done = run("ssv2", "--root", tmp_path)
    assert done.exit_code == 0 and "licence" not in done.output
    (tmp_path / labels / "test.json").write_text("{oops")
    assert "no list of videos" in run("ssv2", "--root", tmp_path).output
