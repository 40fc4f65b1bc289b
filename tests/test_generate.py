"""The generated sets: their labels are exact, single frames tell no direction, and the files can be trusted."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import av
import numpy as np
import pytest

from course_lib.video import generate, render
from course_lib.video.generate import CLASSES, PARTNER, encode, make, plan, verify
from course_lib.video.render import KINDS, LAWS, SPLITS

SMALL = {"size": 16, "frames": 4, "progress": False}


def with_decord(file: bytes | Path) -> np.ndarray:
    decord = pytest.importorskip("decord")
    reader = decord.VideoReader(io.BytesIO(file) if isinstance(file, bytes) else str(file), num_threads=1)
    return reader.get_batch(range(len(reader))).asnumpy()


def with_pyav(file: bytes | Path) -> np.ndarray:
    with av.open(io.BytesIO(file) if isinstance(file, bytes) else str(file)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


DECODERS = pytest.mark.parametrize("decode", [with_decord, with_pyav])


@pytest.fixture(scope="module")
def motion(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("sets"), "M", clips=40, **SMALL)


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# Motion


@DECODERS
@pytest.mark.parametrize("label", range(0, len(CLASSES["M"]), 2))
def test_the_file_of_a_partner_decodes_to_the_same_frames_in_reverse_bit_for_bit(label, decode):
    one, other = (render.render("M", c, seed=(5, label), size=64) for c in (label, PARTNER[label]))
    assert len(np.unique(one, axis=0)) == len(one)  # nothing stands still: the reverse is another clip
    np.testing.assert_array_equal(decode(encode(one)), decode(encode(other))[::-1])


@DECODERS
def test_a_file_shows_what_was_drawn(decode):
    clip = render.render("A", 1, seed=3, size=64)
    shown = decode(encode(clip))
    assert shown.shape == clip.shape
    assert np.abs(shown.astype(float) - clip).mean() < 4


def test_every_frame_of_a_file_is_coded_on_its_own():
    with av.open(io.BytesIO(encode(render.render("M", 0, seed=0, size=32)))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert (container.streams.video[0].codec_context.name, len(packets)) == ("h264", 32)
        assert all(packet.is_keyframe and packet.pts == packet.dts for packet in packets)


def test_both_splits_are_closed_under_reversal(motion):
    pairs = defaultdict(list)
    for row in rows(motion):
        pairs[row["pair"]].append(row)
    assert len(pairs) == 20
    for one, other in pairs.values():
        assert one["split"] == other["split"] and PARTNER[int(one["label"])] == int(other["label"])
        np.testing.assert_array_equal(with_pyav(motion / one["path"]), with_pyav(motion / other["path"])[::-1])


@pytest.mark.parametrize("split", SPLITS)
def test_single_frames_of_partners_are_the_same_frames_equally_often(motion, split):
    frames = defaultdict(Counter)
    for row in rows(motion):
        if row["split"] == split:
            frames[int(row["label"])].update(frame.tobytes() for frame in with_pyav(motion / row["path"]))
    for label, partner in enumerate(PARTNER):
        assert frames[label] == frames[partner] and frames[label].total() > 0
    assert frames[0] != frames[2]


@pytest.mark.parametrize("seed", range(8))
def test_objects_do_what_the_name_of_the_class_says(seed):
    def measure(name: str) -> np.ndarray:
        clip = render.render("M", CLASSES["M"].index(name), seed, frames=8, size=64)
        seen = []
        for frame in clip[[0, -1]]:
            y, x = np.nonzero(frame.max(axis=-1) > 140)  # brighter than any backdrop
            seen.append((x.mean(), y.mean(), len(x), x.var() + y.var()))
        return np.subtract(*reversed(seen))  # last minus first

    right, down = measure("moves right"), measure("moves down")
    assert right[0] > 20 > 10 > abs(right[1]) and down[1] > 20 > 10 > abs(down[0])
    assert measure("moves left")[0] < -20 and measure("moves up")[1] < -20
    assert measure("approaches")[2] > 100 and measure("recedes")[2] < -100
    assert measure("meet")[3] < -100 and measure("part")[3] > 100


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.forwards)
def test_a_law_depends_on_progress_and_choices_alone_and_stays_in_the_picture(law):
    u = np.linspace(0, 1, 9)
    for choices in np.random.default_rng(0).random((20, 6)):
        there, back = law.track(u, choices), law.track(u[::-1], choices)
        for forwards, backwards in zip(there, back, strict=True):
            np.testing.assert_allclose(forwards, backwards[:, ::-1], rtol=1e-12)
        assert all(centre.min() > 0.1 and centre.max() < 0.9 for centre in there[:2])


def test_time_never_runs_backwards_inside_a_clip_and_speeds_are_as_likely_as_their_mirror_images():
    t, rng = np.linspace(0, 1, 101), np.random.default_rng(0)
    paths = np.stack([render.ease(t, rng) for _ in range(2000)])
    assert (np.diff(paths) > 0).all() and np.allclose(paths[:, [0, -1]], [0, 1])
    mirrored = 1 - paths[:, ::-1]
    for share in (0.1, 0.5, 0.9):
        quantiles = [np.quantile(some, share, axis=0) for some in (paths, mirrored)]
        np.testing.assert_allclose(*quantiles, atol=0.02)


# Appearance


@pytest.fixture
def drawn(monkeypatch) -> list:
    """What the renderer was asked to draw."""
    asked, draw = [], render.draw
    monkeypatch.setattr(
        render, "draw", lambda track, kind, *rest: asked.append((track, kind)) or draw(track, kind, *rest)
    )
    return asked


def test_in_set_a_the_motion_does_not_depend_on_the_label_and_in_set_m_the_look_does_not(drawn):
    for label in range(len(KINDS)):
        render.render("A", label, seed=4, frames=4, size=16)
    assert [kind for _, kind in drawn] == list(KINDS)
    assert all(np.array_equal(a, b) for track, _ in drawn for a, b in zip(track, drawn[0][0], strict=True))
    drawn.clear()
    for label in range(len(CLASSES["M"])):
        render.render("M", label, seed=4, frames=4, size=16)
    assert len({kind for _, kind in drawn}) == 1


def test_set_a_moves_in_all_the_ways_of_set_m(drawn):
    changes = []
    for seed in range(60):
        first, last = (frame.max(axis=-1) > 140 for frame in render.render("A", 0, seed, frames=2, size=64))
        changes.append(int(last.sum()) - int(first.sum()))
    assert {len(track.x) for track, _ in drawn} == {1, 2}  # objects
    assert max(changes) > 200 and min(changes) < -200  # approaching and receding


def test_the_same_seed_means_other_clips_in_train_and_test(drawn):
    for split in SPLITS:
        render.render("M", 0, seed=4, frames=4, size=16, split=split)
    (one, _), (other, _) = drawn
    assert not np.array_equal(one.x, other.x)


def hues(split: str) -> np.ndarray:
    """Degrees, as seen in the pictures: the median over an object's bright, unmixed pixels."""
    found = []
    for seed in range(40):
        picture = render.render("M", 0, seed, frames=3, size=64, split=split)[1].astype(float)
        high, low = picture.max(axis=-1), picture.min(axis=-1)
        r, g, b = picture[high > 215].T
        span = (high - low)[high > 215]
        sixth = np.select(
            [r == high[high > 215], g == high[high > 215]], [(g - b) / span % 6, (b - r) / span + 2], (r - g) / span + 4
        )
        found.append(np.median(sixth) * 60)
    return np.array(found)


def test_train_and_test_take_their_hues_from_disjoint_pools():
    train, test = (hues(split) % 60 for split in SPLITS)  # six equal arcs
    assert ((train < 41) | (train > 59)).all() and ((test > 44) & (test < 56)).all()
    assert np.ptp(train[train < 50]) > 25  # the pool is used


def test_train_and_test_share_no_clip(motion):
    hashes = defaultdict(set)
    for row in rows(motion):
        hashes[row["split"]].add(row["sha256"])
    assert not hashes["train"] & hashes["test"]
    assert len(hashes["train"] | hashes["test"]) == 40


# Files


@pytest.mark.parametrize("name", CLASSES)
def test_four_fifths_train_and_every_class_is_equally_frequent(name):
    split = Counter(item.split for item in plan(name, 2000, seed=0))
    assert split == {"train": 1600, "test": 400}
    share = Counter((item.split, item.label) for item in plan(name, 2000, seed=0))
    assert set(share.values()) == {200, 50} and len(share) == 16


@pytest.mark.parametrize("clips", [-3, 0, 1, 39, 41, 100, 2001])
def test_a_count_that_cannot_be_balanced_is_refused_with_the_next_that_can(clips):
    with pytest.raises(ValueError, match=f"clips={clips} .* the next count that can is") as refusal:
        plan("M", clips, seed=0)
    following = int(str(refusal.value).split(" can is ")[1].split()[0])
    assert clips < following <= max(clips, 0) + 40 and len(plan("M", following, seed=0)) == following


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"set": "Z"}, "no set 'Z': use one of A, M"),
        ({"size": 63}, "size=63 .* use an even size"),
        ({"size": 8}, "size=8 .* use an even size from 16 up"),
        ({"frames": 1}, "frames=1 .* use 2 or more"),
        ({"label": 8}, "label=8 .* use 0 to 7"),
        ({"split": "val"}, "no split 'val'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_way_out(wrong, message):
    with pytest.raises(ValueError, match=message):
        render.render(**({"set": "M", "label": 0, "seed": 0} | wrong))


def test_the_manifest_describes_the_set(motion):
    about = json.loads((motion / "manifest.json").read_text())
    assert motion.name == "M-16px-4f-40-s0"
    assert (about["set"], about["size"], about["frames"], about["seed"]) == ("M", 16, 4, 0)
    assert [about["classes"][partner] for partner in about["partner"]][:4] == [
        "moves left",
        "moves right",
        "moves up",
        "moves down",
    ]
    for row in rows(motion):
        assert row["name"] == about["classes"][int(row["label"])] and (motion / row["path"]).exists()
    assert verify(motion) == []


def test_the_number_of_processes_changes_no_byte(motion, tmp_path):
    assert contents(make(tmp_path, "M", clips=40, workers=2, **SMALL)) == contents(motion)


def test_another_seed_makes_other_clips(motion, tmp_path):
    other = make(tmp_path, "M", clips=40, seed=1, **SMALL)
    assert not {row["sha256"] for row in rows(other)} & {row["sha256"] for row in rows(motion)}


def killed(root: Path, when: str) -> subprocess.CompletedProcess:
    """Make the set of `motion` in a process that is killed when a function is called for the seventh time."""
    program = f"""
import itertools, os, signal
from course_lib.video import generate
calls, function = itertools.count(1), {when}
def dying(*arguments):
    if next(calls) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*arguments)
{when} = dying
generate.make({str(root)!r}, "M", clips=40, **{SMALL!r})
"""
    return subprocess.run([sys.executable, "-c", program], cwd=Path(generate.__file__).parents[2], timeout=300)


@pytest.mark.parametrize("when", ["generate.encode", "generate.os.replace"])
def test_a_killed_run_goes_on_and_ends_with_the_same_files(when, motion, tmp_path, monkeypatch):
    assert killed(tmp_path, when).returncode == -signal.SIGKILL
    folder = tmp_path / motion.name
    begun = {path: os.stat(path).st_mtime_ns for path in folder.rglob("*.mp4")}
    assert 0 < len(begun) < 40 and not (folder / "manifest.json").exists()
    assert make(tmp_path, "M", clips=40, **SMALL) == folder
    assert contents(folder) == contents(motion)
    assert all(os.stat(path).st_mtime_ns == before for path, before in begun.items())  # not made twice


def test_workers_end_when_their_parent_is_killed():
    program = """
import os, signal
from course_lib.video.generate import mapper
with mapper(2) as each:
    print(list(each(abs, [-1, -2])), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=Path(generate.__file__).parents[2], stdout=subprocess.PIPE) as parent:
        output, _ = parent.communicate(timeout=300)  # until the last holder of the pipe is gone
    assert output.strip() == b"[1, 2]"


@pytest.fixture
def copy(motion, tmp_path) -> Path:
    return make(tmp_path, "M", clips=40, **SMALL)


def test_a_whole_set_is_left_alone(copy, monkeypatch):
    monkeypatch.setattr(generate, "save", None)  # nothing may be written
    assert make(copy.parent, "M", clips=40, **SMALL) == copy


def test_who_waited_for_another_maker_of_the_same_set_writes_nothing(copy, monkeypatch):
    monkeypatch.setattr(generate, "save", None)
    about = json.loads((copy / "manifest.json").read_text())
    generate.fill(copy, about, plan("M", 40, seed=0), workers=0, progress=False)


def test_two_makers_at_once_do_not_disturb_each_other(motion, tmp_path):
    program = f"from course_lib.video.generate import make; make({str(tmp_path)!r}, 'M', clips=40, **{SMALL!r})"
    command = [sys.executable, "-c", program]
    makers = [subprocess.Popen(command, cwd=Path(generate.__file__).parents[2]) for _ in range(2)]
    assert [maker.wait(timeout=300) for maker in makers] == [0, 0]
    assert contents(tmp_path / motion.name) == contents(motion)


def test_missing_and_changed_files_are_found_and_made_again(copy, motion):
    first, second, *_ = (copy / row["path"] for row in rows(copy))
    first.unlink()
    second.write_bytes(b"damaged")
    assert [problem.reason for problem in verify(copy)] == ["missing", "changed"]
    make(copy.parent, "M", clips=40, **SMALL)
    assert contents(copy) == contents(motion)


def test_files_of_another_version_are_not_kept(copy, monkeypatch):
    monkeypatch.setattr(generate, "VERSION", generate.VERSION + 1)
    monkeypatch.setattr(generate, "render", lambda *arguments: np.zeros((4, 16, 16, 3), np.uint8))
    make(copy.parent, "M", clips=40, **SMALL)
    assert len({row["sha256"] for row in rows(copy)}) == 1


def test_other_pixels_mean_another_version():
    """After a change to the renderer raise VERSION, so that old folders are made anew, and note the new means."""
    means = {
        2: {
            ("A", "train"): [46.6, 46.4, 52.6, 45.2, 44.2, 43.7, 44.9, 41.2],
            ("M", "test"): [62.7, 62.7, 62.0, 62.0, 63.9, 63.9, 61.5, 61.5],
        }
    }[generate.VERSION]
    for (name, split), expected in means.items():
        clips = [render.render(name, label, 0, frames=4, size=32, split=split) for label in range(8)]
        np.testing.assert_allclose([clip.mean() for clip in clips], expected, atol=0.1)


def test_a_folder_without_its_manifest_is_reported(tmp_path):
    assert [problem.path for problem in verify(tmp_path)] == ["manifest.json", "manifest.csv"]
