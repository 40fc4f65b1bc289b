"""The smaller copy of a list of videos: whole, resumable, with a manifest that says the same of it."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
from typer.testing import CliRunner
from video_files import numbered, numbers, write

from course_lib.cli import app
from course_lib.datasets import pack
from course_lib.datasets.clips import ClipDataset
from course_lib.datasets.manifest import read_manifest
from course_lib.files import sha256
from course_lib.video import probe, read_frames, worker


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two large videos (one in Matroska), one that is small already, one that is cut short."""
    folder = tmp_path_factory.mktemp("videos")
    clip = numbered(height=96, width=128)
    (folder / "deep").mkdir()
    for name in ("a.mp4", "deep/b.mkv"):
        write(folder / name, clip)
    write(folder / "small.mp4", clip[:, :48, :48])
    (folder / "broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:2000])
    rows = ["a.mp4,0,x,train,", "deep/b.mkv,1,y,val,", "small.mp4,1,y,train,", "broken.mp4,0,x,train,"]
    (folder / "manifest.csv").write_text("\n".join(["path,label,name,split,pair", *rows]) + "\n")
    (folder / "manifest.json").write_text(json.dumps({"classes": ["x", "y"], "flips": False}))
    return read_manifest(folder / "manifest.csv")


def packed(source, out, **settings):
    return pack.pack(source, out, 48, **settings, workers=1, progress=False)


@pytest.fixture(scope="module")
def copy(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("copy")
    return out, packed(source, out, keys=5)


def test_the_copy_holds_the_same_frames_in_fewer_pixels_and_more_groups(source, copy):
    out, rows = copy
    assert [row.status for row in rows.values()] == ["smaller", "smaller", "copied", "failed"]
    for name in ("a.mp4", "deep/b.mp4"):
        info = probe(out / name)
        assert (info.frames, info.height, info.width) == (40, 48, 64)
        assert numbers(read_frames(out / name, range(40)).repeat(2, axis=1).repeat(2, axis=2)) == list(range(40))
        with av.open(str(out / name)) as container:
            keys = [i for i, packet in enumerate(p for p in container.demux(video=0) if p.size) if packet.is_keyframe]
        assert max(np.diff([*keys, 40])) <= 5
    assert (out / "small.mp4").read_bytes() == (source.root / "small.mp4").read_bytes()
    assert "cut short" in rows["broken.mp4"].reason and not (out / "broken.mp4").exists()
    assert not list(out.rglob("*.part"))


def test_its_manifest_has_the_labels_splits_and_sums_of_what_is_there(copy):
    out, _ = copy
    listed = read_manifest(out / "manifest.csv")
    assert [(v.path, v.label, v.split) for v in listed.videos] == [
        ("a.mp4", 0, "train"), ("deep/b.mp4", 1, "val"), ("small.mp4", 1, "train")
    ]  # fmt: skip
    assert listed.classes == ("x", "y") and listed.flips is False
    assert all(video.sha256 == sha256(out / video.path) for video in listed.videos)
    assert ClipDataset(listed, 4).read(0).shape == (4, 48, 64, 3)


def test_stopped_it_goes_on_with_what_is_not_there(source, tmp_path, monkeypatch):
    asked, transcode, stops = [], worker.transcode, ["b.mkv"]

    def stop_once(path, *rest):
        asked.append(path.name)
        if path.name in stops:
            stops.remove(path.name)
            raise RuntimeError("stopped")
        return transcode(path, *rest)

    monkeypatch.setattr(worker, "transcode", stop_once)
    with pytest.raises(RuntimeError, match="stopped"):
        packed(source, tmp_path)
    assert not (tmp_path / "manifest.csv").exists()
    packed(source, tmp_path)
    assert asked.count("a.mp4") == 1 and asked.count("b.mkv") == 2
    assert len(read_manifest(tmp_path / "manifest.csv").videos) == 3
    (tmp_path / "deep" / "b.mp4").write_bytes(b"cut")
    asked.clear()
    packed(source, tmp_path)
    assert asked[0] == "b.mkv" and "a.mp4" not in asked


def test_what_does_not_fit_is_refused_with_the_way_out(source, copy, tmp_path):
    with pytest.raises(ValueError, match="choose another folder"):
        packed(source, copy[0], keys=6)
    with pytest.raises(ValueError, match="keys=0"):
        packed(source, tmp_path, keys=0)
    with pytest.raises(ValueError, match="crf=99"):
        packed(source, tmp_path, crf=99)
    with pytest.raises(ValueError, match="short_side=47"):
        pack.pack(source, tmp_path, 47, progress=False)
    assert not list(tmp_path.iterdir())


def test_originals_are_never_replaced(source, tmp_path):
    """Neither in their own folder, by whatever name it goes, nor where the copy's folder leads back to them."""
    before = {path: path.read_bytes() for path in source.root.rglob("*") if path.is_file()}
    (tmp_path / "by another name").symlink_to(source.root)
    (tmp_path / "leads back").mkdir()
    (tmp_path / "leads back" / "small.mp4").symlink_to(source.root / "small.mp4")
    for out in (source.root, source.root / "deep" / "..", tmp_path / "by another name", tmp_path / "leads back"):
        with pytest.raises(ValueError, match=r"holds the originals, such as .*\.mp4.*choose another folder"):
            packed(source, out)
    assert {path: path.read_bytes() for path in source.root.rglob("*") if path.is_file()} == before
    assert list((tmp_path / "leads back").iterdir()) == [tmp_path / "leads back" / "small.mp4"]


def test_the_command_says_what_was_lost_and_saved(source, tmp_path):
    arguments = ["data", "pack", str(source.root / "manifest.csv"), "--out", str(tmp_path), "--short-side", "48"]
    said = CliRunner().invoke(app, [*arguments, "--workers", "1", "--measured", "1"])
    assert said.exit_code == 1 and "2 smaller, 1 copied, 1 failed" in said.output, said.output
    assert "broken.mp4: " in said.output and "of 255 levels apart" in said.output
    told = json.loads((tmp_path / "loss.json").read_text())
    assert told["files"] == 1 and 0 < told["mean_absolute_difference"] < 30
    assert told["bytes"]["after"] == (tmp_path / "a.mp4").stat().st_size
