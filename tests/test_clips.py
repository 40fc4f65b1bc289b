"""A manifest of videos as a data set: the same items whoever reads them, and never another clip."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from video_files import FRAMES, HEIGHT, WIDTH, copy_packets, numbered, numbers, write

from course_lib.datasets import ClipDataset, clips
from course_lib.datasets.clips import preload
from course_lib.datasets.manifest import Video, VideoList, find_leaks, read_manifest
from course_lib.video import MachineError, VideoError, read_frames, worker
from course_lib.video.sampling import dense, segments, views
from course_lib.video.transforms import EvalTransform, TrainTransform, whole_frames

COLUMNS = ("path", "label", "name", "split", "pair", "sha256")
SAME_PICTURE_BOTH_WAYS = {"x264": "keyint=1", "qp": "18"}
JITTER = {"sample": segments, "transform": TrainTransform(size=16, short_side=(16, 24))}


def write_manifest(folder: Path, rows: list[dict], columns: tuple[str, ...] = COLUMNS) -> Path:
    with (folder / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return folder / "manifest.csv"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """Two classes, "up" and "down", each other's reverse; three pairs for training, one for testing."""
    folder, rows = tmp_path_factory.mktemp("set"), []
    for number in range(4):
        split = "train" if number < 3 else "test"
        clip = numbered()
        clip[:, -6:, :] = 40 * number  # each pair looks its own way
        for label, name in enumerate(("up", "down")):
            path = folder / split / f"{number}_{name}.mp4"
            path.parent.mkdir(exist_ok=True)
            write(path, clip[:: -1 if label else 1], **SAME_PICTURE_BOTH_WAYS)
            row = {"path": f"{split}/{path.name}", "label": label, "name": name, "split": split, "pair": number}
            rows.append(row | {"sha256": sha256(path)})
    return write_manifest(folder, rows)


@pytest.fixture
def copy(source, tmp_path):
    """A copy of the set that a test may spoil, and its rows."""
    for path in source.parent.rglob("*.mp4"):
        target = tmp_path / path.relative_to(source.parent)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return write_manifest(tmp_path, rows), rows


def test_an_item_is_sampled_decoded_and_transformed(source):
    dataset = ClipDataset(source, frames=4, sample=partial(dense, stride=5))
    clip, label = dataset[3]
    assert (len(dataset), label, dataset.classes) == (6, 1, ("up", "down"))
    by_hand = read_frames(source.parent / "train/1_down.mp4", dataset.explain(3).indices)
    assert torch.equal(clip, whole_frames(by_hand))
    assert clip.shape == (3, 4, HEIGHT, WIDTH)


def test_rows_keep_their_order_labels_and_pairs(source):
    test = ClipDataset(source, split="test")
    assert [path.name for path in test.paths] == ["3_up.mp4", "3_down.mp4"]
    assert (test.labels, test.pairs) == ((0, 1), ("3", "3"))


def test_explain_names_the_frames_that_are_shown(source):
    dataset = ClipDataset(source, sample=segments, seed=3)
    for item in [(0, 0), (0, 1), (4, 7)]:
        told = dataset.explain(item)
        assert numbers(dataset.read(item)) == told.indices.tolist()
        assert told.seconds == pytest.approx(told.indices / 25)
        assert (told.path, told.label, told.name, told.available) == (dataset.paths[item[0]], 0, "up", FRAMES)


def test_a_clip_and_its_reverse_hold_the_same_pictures_by_default(source):
    dataset = ClipDataset(source, split="test")
    assert dataset.explain(0).indices[[0, -1]].tolist() == [0, FRAMES - 1]
    assert np.array_equal(dataset.read(0), dataset.read(1)[::-1])
    assert not np.array_equal(dataset.read(0), dataset.read(1))


def test_testing_by_views_shows_every_temporal_clip_in_every_crop(source):
    by_views = partial(views, stride=3, clips=4)
    dataset = ClipDataset(source, 5, by_views, EvalTransform(16, 24, crops=3), split="test")
    clip, label = dataset[1]
    told, shown = dataset.explain(1), dataset.read(1)
    assert (clip.shape, label) == ((12, 3, 5, 16, 16), 1)
    assert np.array_equal(told.indices, views(FRAMES, 5, 3, 4)) and told.seconds.shape == (4, 5)
    assert [numbers(frames) for frames in shown] == (FRAMES - 1 - told.indices).tolist()  # "down" counts backwards
    for number, frames in enumerate(shown):
        assert torch.equal(clip[3 * number : 3 * number + 3], EvalTransform(16, 24, crops=3)(frames))
    middle = ClipDataset(source, 5, by_views, EvalTransform(16, 24), split="test")[1][0]
    assert torch.equal(middle, clip[1::3])


def test_frames_are_numbered_by_the_clock_each_crop_like_its_clip_in_time(source):
    for fps, at_most in ((None, FRAMES), (50.0, 2 * FRAMES)):
        dataset = ClipDataset(source, 4, partial(dense, stride=5), fps=fps, numbered=True, seed=1)
        clip, label, ticks = dataset[3, 2]
        assert (clip.shape[1], label, ticks.dtype) == (4, 1, torch.int64)
        assert ticks.diff().tolist() == [5] * 3 and ticks[0] >= 0 and ticks[-1] < at_most
        told = dataset.explain((3, 2)).indices
        assert told.tolist() == (ticks if fps is None else ticks // 2).tolist()
    by_views = partial(views, stride=3, clips=4)
    dataset = ClipDataset(source, 5, by_views, EvalTransform(16, 24, crops=3), split="test", numbered=True)
    clip, _, ticks = dataset[1]
    assert clip.shape[:1] == (12,) and np.array_equal(ticks, views(FRAMES, 5, 3, 4).repeat(3, axis=0))


def test_a_clock_of_its_own_shows_a_slow_camera_s_frames_twice_and_leaves_out_a_fast_one_s(source):
    for fps, available, stride, shown in [
        (50.0, 80, 1, [i // 2 for i in range(30, 50)]),
        (12.5, 20, 1, list(range(0, 40, 2))),
        (25.0, 40, 2, list(range(0, 40, 2))),
    ]:
        dataset = ClipDataset(source, 20, partial(dense, stride=stride), split="test", fps=fps)
        told = dataset.explain(0)
        assert told.available == available
        # A tick of 12.5 a second lasts two frames; in its middle the second one comes on.
        late = 1 if fps == 12.5 else 0
        assert numbers(dataset.read(0)) == told.indices.tolist() == [i + late for i in shown]
        assert told.seconds == pytest.approx(told.indices / 25)
    with pytest.raises(ValueError, match=r"fps=0: give the clock's ticks"):
        ClipDataset(source, fps=0)


def test_a_file_whose_rate_changes_is_sampled_by_time(tmp_path):
    ticks = [0, 1, 2, 3, 13, 23, 33, 34, 35, 37]
    even = write(tmp_path / "even.mp4", numbered(len(ticks)), g="1", x264="keyint=1")

    def moved(number, packet):
        packet.pts = packet.dts = int(ticks[number] / 25 / packet.time_base)
        return packet

    copy_packets(even, tmp_path / "uneven.mp4", moved)
    row = {"path": "uneven.mp4", "label": 0, "name": "one", "split": "test"}
    dataset = ClipDataset(write_manifest(tmp_path, [row]), 10, split="test")
    # Ten ticks of 37 / 9 camera ticks each: in their middles, 2.06, 6.17, 10.3 and so on, these are on the screen.
    assert numbers(dataset.read(0)) == [2, 3, 3, 4, 4, 4, 5, 5, 7, 9]


def test_a_mirroring_transform_is_refused_where_mirroring_changes_the_class(copy):
    manifest, _ = copy
    manifest.with_suffix(".json").write_text(json.dumps({"classes": ["up", "down"], "flips": False}))
    assert not ClipDataset(manifest).flips
    with pytest.raises(ValueError, match=r"a mirrored clip may belong to another class here.*flip=False"):
        ClipDataset(manifest, **JITTER)
    ClipDataset(manifest, transform=TrainTransform(16, (16, 24), flip=False))


# Lists of videos


def test_a_list_can_be_cut_down_to_some_classes_in_a_new_order(source):
    every = read_manifest(source)
    down = every.keep(("down",))
    assert (down.classes, {video.label for video in down.videos}) == (("down",), {0})
    assert len(down.videos) == 4 and all("down" in video.path for video in down.videos)
    swapped = every.keep(("down", "up"))
    assert [video.label for video in swapped.videos] == [1 - video.label for video in every.videos]
    for classes, words in [
        (("left",), "no class 'left'; it has 2, such as 'up'"),
        (("up", "up"), "twice"),
        ((), "none"),
    ]:
        with pytest.raises(ValueError, match=words):
            every.keep(classes)


def test_a_sample_is_the_same_for_the_same_seed_and_a_larger_one_holds_it():
    videos = tuple(Video(f"{i}.mp4", i % 3, "train" if i % 4 else "test") for i in range(120))
    every = VideoList("list", Path(), ("a", "b", "c"), videos)
    small, large = every.sample(2, seed=1), every.sample(5, seed=1)
    assert every.sample(2, seed=1) == small and every.sample(2, seed=2) != small
    assert small.counts() == {split: {"a": 2, "b": 2, "c": 2} for split in ("train", "test")}
    assert set(small.videos) < set(large.videos)
    assert list(small.videos) == [video for video in videos if video in set(small.videos)]
    other = VideoList("list", Path(), ("a", "b", "c"), videos[1:])  # one file less on this machine
    assert len(set(other.sample(5, seed=1).videos) ^ set(large.videos)) <= 2
    with pytest.raises(ValueError, match="11 videos a class asked for, but 'a' has 10 in test: ask for 1 to 10"):
        every.sample(11)


def test_a_data_set_takes_a_list_as_well_as_a_manifest(source):
    every = read_manifest(source)
    dataset = ClipDataset(every.of("train").keep(("down", "up")).sample(2), split="train")
    assert (len(dataset), dataset.classes) == (4, ("down", "up"))
    assert all(("down" in path.name) == (label == 0) for path, label in zip(dataset.paths, dataset.labels, strict=True))


def test_chance_depends_on_seed_item_and_epoch_alone(source):
    dataset, again = (ClipDataset(source, **JITTER) for _ in range(2))
    for item in [0, 1, (1, 1), (1, 2)]:
        assert torch.equal(dataset[item][0], again[item][0])
    assert torch.equal(dataset[1][0], dataset[1, 0][0])
    other = ClipDataset(source, seed=1, **JITTER)
    shown = [dataset[0], dataset[2], dataset[0, 1], dataset[0, 2], other[0]]
    for i, (one, _) in enumerate(shown):
        for another, _ in shown[:i]:
            assert not torch.equal(one, another)
    assert not np.array_equal(dataset.explain(0).indices, dataset.explain(2).indices)


def test_nothing_is_random_outside_training(source):
    dataset = ClipDataset(source, split="test", sample=segments)
    for epoch in (0, 5):
        assert np.array_equal(dataset.explain((0, epoch)).indices, segments(FRAMES, 8))
    with pytest.raises(ValueError, match="needs a generator"):
        ClipDataset(source, split="test", **JITTER)[0]


ITEMS = [(i, epoch) for epoch in (0, 1) for i in (5, 0, 3, 2)]


@pytest.mark.parametrize("workers, context", [(1, "fork"), (2, "fork"), (1, "spawn")])
def test_workers_change_nothing(workers, context, source):
    dataset = ClipDataset(source, **JITTER)
    loader = DataLoader(dataset, 2, sampler=ITEMS, num_workers=workers, multiprocessing_context=context)
    clips, labels = map(torch.cat, zip(*loader, strict=True))
    assert torch.equal(clips, torch.stack([dataset[item][0] for item in ITEMS]))
    assert labels.tolist() == [1, 0, 1, 0] * 2


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_video_is_named_and_no_other_clip_takes_its_place(workers, copy):
    manifest, rows = copy
    for row in rows:
        row["sha256"] = ""
    dataset = ClipDataset(write_manifest(manifest.parent, rows))
    dataset.paths[2].write_bytes(dataset.paths[2].read_bytes()[:500])
    loader = DataLoader(dataset, 1, num_workers=workers, multiprocessing_context="fork" if workers else None)
    with pytest.raises(VideoError, match=r"1_up\.mp4") as refused:
        list(loader)
    assert refused.value.path == dataset.paths[2]
    assert refused.value.reason.startswith(("cut short", "not a video"))


def test_a_file_that_is_not_the_one_of_the_manifest_is_refused(copy):
    manifest, _ = copy
    dataset = ClipDataset(manifest)
    dataset.paths[0].write_bytes(dataset.paths[1].read_bytes())
    with pytest.raises(VideoError, match=r"0_up\.mp4: its SHA-256"):
        dataset[0]
    dataset[1]
    dataset.paths[1].unlink()
    with pytest.raises(VideoError, match=r"0_down\.mp4: no such file"):
        dataset[1]


@pytest.fixture
def probed(monkeypatch):
    """The paths that `probe` was called with, and the seconds."""
    calls, probe = [], clips.probe
    monkeypatch.setattr(
        clips, "probe", lambda path, seconds: calls.append((path.name, seconds)) or probe(path, seconds)
    )
    return calls


def test_a_file_is_probed_once_and_again_when_it_changes(copy, probed):
    manifest, rows = copy
    dataset = ClipDataset(write_manifest(manifest.parent, [row | {"sha256": ""} for row in rows]), seconds=30.0)
    first = [dataset.read((i, epoch)) for i in (0, 1) for epoch in (0, 1)]
    assert probed == [("0_up.mp4", 30.0), ("0_down.mp4", 30.0)]
    assert all(np.array_equal(dataset.read((i, epoch)), first.pop(0)) for i in (0, 1) for epoch in (0, 1))
    write(dataset.paths[0], numbered(20))
    assert dataset.explain(0).available == 20 and len(probed) == 3
    dataset.paths[0].unlink()
    with pytest.raises(VideoError, match=r"0_up\.mp4: no such file"):
        dataset[0]


def test_what_was_probed_is_kept_within_bounds_the_last_used_longest(source, probed, monkeypatch):
    monkeypatch.setattr(clips, "MOST_FRAMES", 2 * FRAMES)
    dataset = ClipDataset(source)
    for i in (0, 1, 0, 2, 0, 1):
        dataset.explain(i)
    assert [name for name, _ in probed] == ["0_up.mp4", "0_down.mp4", "1_up.mp4", "0_down.mp4"]
    monkeypatch.setattr(clips, "MOST_FRAMES", 1)  # a single file of any length is kept
    dataset.explain(5), dataset.explain(5)
    assert [name for name, _ in probed][4:] == ["2_down.mp4"]


def test_what_was_probed_is_pickled_with_the_data_set(source, probed):
    dataset = ClipDataset(source)
    shown = dataset.read(0)
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again.read(0), shown) and len(probed) == 1


@pytest.mark.parametrize("probed_before", [False, True])
def test_seconds_limit_the_reading_of_an_item(probed_before, source):
    dataset = ClipDataset(source)
    if probed_before:
        dataset.explain(0)
    dataset.seconds = 0.3
    worker._kept.__dict__.clear()  # the process of earlier tests may be due to be renewed
    worker.probe(source.parent / "train" / "1_up.mp4")  # there is a process to stop
    os.kill(worker._kept.worker.process.pid, signal.SIGSTOP)
    with pytest.raises(MachineError, match=r"0_up\.mp4: no answer within 0\.3 s.*raise `seconds`"):
        dataset[0]
    dataset.seconds = 60.0
    assert len(dataset[0]) == 2


def test_a_video_too_short_for_the_sampler_is_named(source):
    with pytest.raises(ValueError, match=r"train/0_up\.mp4: 8 frames, 6 apart, span 43, but the video has 40"):
        ClipDataset(source, sample=partial(dense, stride=6))[0]


@pytest.mark.parametrize("item", [6, -1, (6, 0)])
def test_an_item_out_of_range_is_named(item, source):
    with pytest.raises(IndexError, match="of 6 clips: use 0 to 5"):
        ClipDataset(source)[item]


SPOILT = {  # what is done to row 2, and what is said
    "no column": ({}, r"no column split"),
    "label": ({"label": "two"}, "row 2 has label 'two', not a whole number"),
    "negative": ({"label": "-1"}, "row 2 has label '-1'"),
    "gap": ({"label": "7", "name": "other"}, "no clip has label 2, but a higher one occurs"),
    "two names": ({"name": "left"}, r"label 1 '(left|down)', but .* calls it '(left|down)'"),
    "empty cell": ({"name": ""}, "row 2 lacks one of"),
    "absolute": ({"path": "/etc/passwd"}, "row 2: '/etc/passwd' leaves the folder of the videos"),
    "upwards": ({"path": "train/../../x.mp4"}, "row 2: 'train/../../x.mp4' leaves the folder"),
    "drive": ({"path": "C:/x.mp4"}, "row 2: 'C:/x.mp4' leaves the folder"),
    "twice": ({"path": "train/0_up.mp4"}, "row 2 lists train/0_up.mp4 a second time, after row 1"),
    "twice, spelt otherwise": ({"path": "./train//0_up.mp4"}, "row 2 lists train/0_up.mp4 a second time, after row 1"),
    "twice, in another split": (
        {"path": "./train/0_up.mp4", "split": "test"},
        "row 2 lists train/0_up.mp4 a second time, after row 1",
    ),
    "missing file": ({"path": "train/gone.mp4"}, r"1 of 6 files are missing, first .*gone\.mp4"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_faulty_manifest_is_refused_with_the_place(fault, copy):
    manifest, rows = copy
    change, words = SPOILT[fault]
    rows[1].update(change)
    write_manifest(manifest.parent, rows, ("path", "label", "name") if fault == "no column" else COLUMNS)
    with pytest.raises(ValueError, match=words) as refused:
        ClipDataset(manifest)
    assert str(manifest) in str(refused.value)


def test_a_manifest_that_is_not_there_or_empty_and_an_unknown_split_are_refused(copy):
    manifest, _ = copy
    with pytest.raises(ValueError, match=r"no clip of split 'val'; there are train \(6\), test \(2\)"):
        ClipDataset(manifest, split="val")
    with pytest.raises(ValueError, match="no such manifest"):
        ClipDataset(manifest.with_name("other.csv"))
    write_manifest(manifest.parent, [])
    with pytest.raises(ValueError, match="lists no clip"):
        ClipDataset(manifest)


@pytest.mark.parametrize("how", ["symlink", "hard link", "copy"])
def test_a_file_in_two_splits_under_two_names_is_refused(how, copy):
    manifest, rows = copy
    other, train = manifest.parent / rows[6]["path"], manifest.parent / rows[0]["path"]
    assert (rows[6]["split"], rows[0]["split"]) == ("test", "train")
    other.unlink()
    if how == "symlink":
        other.symlink_to(train)
    elif how == "hard link":
        other.hardlink_to(train)
    else:
        other.write_bytes(train.read_bytes())
        rows[6]["sha256"] = rows[0]["sha256"]
        write_manifest(manifest.parent, rows)
    with pytest.raises(
        ValueError, match=r"train/0_up.mp4 of train and test/3_up.mp4 of test are one file; .*one split"
    ):
        read_manifest(manifest)


def test_a_file_twice_in_one_split_leaks_nothing(copy):
    manifest, rows = copy
    (manifest.parent / "train/again.mp4").symlink_to(manifest.parent / rows[0]["path"])
    write_manifest(manifest.parent, [*rows, rows[0] | {"path": "train/again.mp4"}])
    assert find_leaks(read_manifest(manifest)) == []


def test_leaks_are_found_between_lists_of_one_split_each(source):
    every = read_manifest(source)
    train, test = every.of("train"), every.of("test")
    assert find_leaks(train, test) == []
    leaking = replace(test, videos=(train.videos[2]._replace(split="test"), *test.videos))
    assert find_leaks(train, leaking) == [(train.videos[2], leaking.videos[0])]


@pytest.mark.parametrize(("change", "words"), [(lambda text: text.replace(",", ";"), "semicolons"), (str, "UTF-16")])
def test_a_manifest_in_another_shape_is_refused_with_the_cause(change, words, copy):
    manifest, _ = copy
    manifest.write_text(change(manifest.read_text()), encoding="utf-16" if words == "UTF-16" else "utf-8")
    with pytest.raises(ValueError, match=rf"manifest\.csv: .*{words}"):
        read_manifest(manifest)


def test_the_notes_that_macos_puts_beside_videos_are_left_out(copy):
    manifest, rows = copy
    write_manifest(manifest.parent, [rows[0] | {"path": "train/._0_up.mp4"}, *rows])
    assert [video.path for video in read_manifest(manifest).videos] == [row["path"] for row in rows]
    write_manifest(manifest.parent, [rows[0] | {"path": "train/._0_up.mp4"}, *rows, rows[0]])
    with pytest.raises(ValueError, match=r"row 10 lists train/0_up\.mp4 a second time, after row 2"):
        read_manifest(manifest)


def test_classes_come_from_the_json_beside_the_manifest(copy):
    manifest, _ = copy
    beside = manifest.with_suffix(".json")
    beside.write_text(json.dumps({"classes": ["up", "down", "left"]}))
    assert ClipDataset(manifest).classes == ("up", "down", "left")
    for text, words in [
        ('{"classes": ["up"]}', r"row 2 has label 1, but .*manifest\.json knows 0 to 0"),
        ('{"classes": ["up", "left"]}', r"row 2 calls label 1 'down', but .*manifest\.json calls it 'left'"),
        ("{}", 'no list of "classes"'),
        ("not json", 'no list of "classes"'),
    ]:
        beside.write_text(text)
        with pytest.raises(ValueError, match=words):
            ClipDataset(manifest)


@pytest.mark.parametrize("workers", [1, 3])
def test_preloaded_clips_are_those_that_are_read_one_by_one(workers, source, capsys):
    dataset = ClipDataset(source, frames=4)
    clips, labels = preload(dataset, workers)
    assert (clips.shape, clips.dtype) == ((6, 4, HEIGHT, WIDTH, 3), torch.uint8)
    assert all(np.array_equal(clip, dataset.read(i)) for i, clip in enumerate(clips.numpy()))
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert "6 clips of 4 x 48 x 64 x 3 bytes" in capsys.readouterr().err


def test_preloading_too_much_is_refused_before_it_starts(source):
    size = 6 * 8 * HEIGHT * WIDTH * 3
    assert preload(ClipDataset(source), limit=size, progress=False)[0].nbytes == size
    with pytest.raises(ValueError, match="6 clips of 8 x 48 x 64 x 3 bytes, 0 MB, are more than limit=0 MB"):
        preload(ClipDataset(source), limit=size - 1)


def test_preloading_names_the_clip_of_another_size_and_the_unreadable_one(copy):
    manifest, rows = copy
    for row in rows:
        row["sha256"] = ""
    dataset = ClipDataset(write_manifest(manifest.parent, rows))
    write(dataset.paths[3], numbered(FRAMES, 64, 64))
    with pytest.raises(ValueError, match=r"1_down\.mp4: 8 x 64 x 64 x 3, but the first clip is 8 x 48 x 64 x 3"):
        preload(dataset, progress=False)
    dataset.paths[1].write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"0_down\.mp4: not a video"):
        preload(dataset, 2, progress=False)
