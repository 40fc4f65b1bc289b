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
import torch
from typer.testing import CliRunner

from course_lib.cli import app
from course_lib.datasets.manifest import read_manifest
from course_lib.synthetic import render, write
from course_lib.synthetic.difficulty import EASY, Difficulty
from course_lib.synthetic.render import KINDS, SPLITS
from course_lib.synthetic.write import CLASSES, PARTNER, encode, make, plan, verify

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
    return make(tmp_path_factory.mktemp("sets"), "M", clips=80, **SMALL)


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# Motion


PAIRS = [(name, label) for name in "MXG" for label in range(0, len(CLASSES[name]), 2)]


@DECODERS
@pytest.mark.parametrize(("name", "label"), PAIRS, ids=lambda part: str(part))
def test_the_file_of_a_partner_decodes_to_the_same_frames_in_reverse_bit_for_bit(name, label, decode):
    one, other = (render.render(name, c, seed=(5, label), size=64) for c in (label, PARTNER[name][label]))
    assert not np.array_equal(one, other)
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
    assert len(pairs) == 40
    for one, other in pairs.values():
        assert one["split"] == other["split"] and PARTNER["M"][int(one["label"])] == int(other["label"])
        np.testing.assert_array_equal(with_pyav(motion / one["path"]), with_pyav(motion / other["path"])[::-1])


@pytest.mark.parametrize("split", SPLITS)
def test_single_frames_of_partners_are_the_same_frames_equally_often(motion, split):
    frames = defaultdict(Counter)
    for row in rows(motion):
        if row["split"] == split:
            frames[int(row["label"])].update(frame.tobytes() for frame in with_pyav(motion / row["path"]))
    for label, partner in enumerate(PARTNER["M"]):
        assert frames[label] == frames[partner] and frames[label].total() > 0
    assert frames[0] != frames[2]


def test_whoever_looks_at_single_frames_is_right_within_a_pair_exactly_half_of_the_time(motion):
    frames, labels, numbers, splits = [], [], [], []
    for row in rows(motion):
        clip = with_pyav(motion / row["path"])
        frames.append(clip.reshape(len(clip), -1) / 255)
        labels += [int(row["label"])] * len(clip)
        numbers += [int(row["pair"][-5:])] * len(clip)
        splits += [row["split"] == "test"] * len(clip)
    x, test = torch.tensor(np.concatenate(frames)).float(), torch.tensor(splits)
    direction = torch.tensor(labels) % 2
    train = ~test & (direction == torch.tensor(numbers) % 2)  # one of each pair, else there is nothing to learn
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(net(x[train]), direction[train])
        optimiser.zero_grad(), loss.backward(), optimiser.step()
    answers = net(x).argmax(1)
    assert (answers == direction)[train].double().mean() > 0.6  # it has learned something
    assert 0.1 < answers[test].double().mean() < 0.9
    assert (answers == direction)[test].double().mean() == 0.5


def test_train_and_test_share_no_clip(motion):
    hashes = defaultdict(set)
    for row in rows(motion):
        hashes[row["split"]].add(row["sha256"])
    assert not hashes["train"] & hashes["test"]
    assert len(hashes["train"] | hashes["test"]) == 80


# Mixed


def agreeing(items: list[write.Item], split: str) -> list[int]:
    counts = Counter(item.label for item in items if item.split == split and item.look == item.label)
    return [counts[label] for label in range(8)]


@pytest.mark.parametrize(
    ("p", "train", "test"), [(0, 0, 0), (0.125, 25, 3), (0.5, 100, 12), (0.9, 180, 22), (1, 200, 25)]
)
def test_in_set_x_exactly_the_share_p_of_each_class_agrees_in_look(p, train, test):
    items = plan("X", 2000, seed=0, p=p)
    assert agreeing(items, "train") == [train] * 8 and agreeing(items, "test") == [test] * 8


def test_in_set_x_looks_that_disagree_are_any_of_the_others_and_the_seed_chooses_who_agrees():
    items = plan("X", 8000, seed=0, p=0.3)
    others = Counter((i.label, i.look) for i in items if i.split == "train" and i.look != i.label)
    assert len(others) == 56 and min(others.values()) > 45 and max(others.values()) < 120  # 80 on average
    chosen = [[item.look for item in plan("X", 800, seed, p=0.5)] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    agrees = [item.look == item.label for item in items if item.split == "train" and item.label == 0]
    assert 0 < sum(agrees[:100]) < 60  # all over the split, not first


def test_in_set_x_the_motion_is_that_of_the_label_whatever_the_look():
    for label, name in enumerate(CLASSES["X"]):
        assert name == CLASSES["M"][label]
        scenes = [render.scene("X", label, 3, frames=4, size=16, look=look) for look in range(8)]
        assert [shown.actors[0].kind for shown in scenes] == list(KINDS)
        assert len({tuple(np.concatenate(shown.actors[0].track[:5])) for shown in scenes}) == 1
        assert all(shown.backwards == bool(label % 2) for shown in scenes)


def test_the_paired_split_of_set_x_is_closed_under_reversal_and_its_looks_know_nothing_of_the_label(tmp_path):
    folder = make(tmp_path, "X", clips=640, p=0.9, **SMALL)
    listed = rows(folder)
    pairs, seen = defaultdict(list), defaultdict(Counter)
    for row in listed:
        assert (row["pair"] != "") == (row["split"] == "paired")
        if row["pair"]:
            pairs[row["pair"]].append(row)
            seen[row["label"]][row["look"]] += 1
    assert len(pairs) == 32 and all(looks == {kind.name: 1 for kind in KINDS} for looks in seen.values())
    for one, other in pairs.values():
        assert PARTNER["X"][int(one["label"])] == int(other["label"]) and one["look"] == other["look"]
        np.testing.assert_array_equal(with_pyav(folder / one["path"]), with_pyav(folder / other["path"])[::-1])
    assert len({row["sha256"] for row in listed if row["split"] != "paired"}) == 576


# Files


@pytest.mark.parametrize("name", CLASSES)
def test_four_fifths_train_and_every_class_is_equally_frequent(name):
    items = plan(name, 2400, seed=0)
    rest = {"test": 240, "paired": 240} if name == "X" else {"test": 480}
    assert Counter(item.split for item in items) == {"train": 1920} | rest
    share = Counter((item.split, item.label) for item in items)
    classes = len(CLASSES[name])
    assert all(count == ({"train": 1920} | rest)[split] / classes for (split, _), count in share.items())
    assert len(share) == classes * (1 + len(rest)) and len({item.path for item in items}) == 2400


def test_clips_share_a_seed_only_with_their_partners():
    for name in CLASSES:
        together = defaultdict(list)
        for item in plan(name, 240, seed=7):
            together[item.split, item.seed].append(item)
        for (split, seed), items in together.items():
            paired = name in "MGD" or split == "paired"
            assert seed[0] == 7 and len(items) == 1 + paired
            assert {item.pair for item in items} == ({f"{split}-{seed[1]:05d}"} if paired else {""})


@pytest.mark.parametrize("clips", [-3, 0, 1, 79, 81, 100, 2001])
def test_a_count_that_cannot_be_balanced_is_refused_with_the_next_that_can(clips):
    with pytest.raises(ValueError, match=f"clips={clips} .* the next count that can is") as refusal:
        plan("M", clips, seed=0)
    following = int(str(refusal.value).split(" can is ")[1].split()[0])
    assert clips < following <= max(clips, 0) + 80 and len(plan("M", following, seed=0)) == following


def test_the_manifest_describes_the_set(motion):
    about = json.loads((motion / "manifest.json").read_text())
    assert motion.name == "M-16px-4f-80-s0"
    assert (about["set"], about["size"], about["frames"], about["seed"]) == ("M", 16, 4, 0)
    assert [about["classes"][partner] for partner in about["partner"]][:4] == [
        "push left",
        "push right",
        "lift",
        "lower",
    ]
    for row in rows(motion):
        assert row["name"] == about["classes"][int(row["label"])] and (motion / row["path"]).exists()
    assert verify(motion) == [] and not about["flips"]


HALF_WAY = {"texture": 1.0, "shapes": 8, "way": 0.5, "turn": 1.0, "wheel": False}


@pytest.mark.parametrize(
    ("name", "dials", "folder", "noted"),
    [
        ("X", {}, "X-p50-16px-12f-80-s0", {"p": 0.5}),
        ("X", {"p": 0.905}, "X-p90.5-16px-12f-80-s0", {"p": 0.905}),
        ("G", {"gap": 2}, "G-d2-16px-12f-60-s0", {"gap": 2}),
        ("V", {}, "V-16px-12f-80-s0", {}),
        ("D", {}, "D-16px-12f-60-s0", {}),
        (
            "D",
            {"difficulty": EASY},
            "D-texture0-shapes1-way0.7-turn1.5-wheel-16px-12f-60-s0",
            {"difficulty": {"texture": 0, "shapes": 1, "way": 0.7, "turn": 1.5, "wheel": True}},
        ),
        ("M", {"difficulty": Difficulty(way=0.5)}, "M-way0.5-16px-12f-80-s0", {"difficulty": HALF_WAY}),
    ],
)
def test_a_dial_is_part_of_the_folders_name_and_of_its_manifest(name, dials, folder, noted, tmp_path):
    made = make(tmp_path, name, clips=60 if name in "GD" else 80, size=16, frames=12, progress=False, **dials)
    about = json.loads((made / "manifest.json").read_text())
    assert made.name == folder and {key: about[key] for key in ("p", "gap", "difficulty") if key in about} == noted
    partner = PARTNER[name]
    assert about["partner"] == (None if partner is None else list(partner)) and verify(made) == []
    listed = read_manifest(made / "manifest.csv")
    assert listed.classes == CLASSES[name] and len(listed.videos) == about["clips"]
    for row in rows(made)[::20]:  # each can be drawn alone
        look = {"look": CLASSES["A"].index(row["look"])} if name == "X" else {}
        seed, gap = (0, int(Path(row["path"]).stem)), about.get("gap")
        hard = {"difficulty": dials["difficulty"]} if "difficulty" in dials else {}
        alone = render.render(name, int(row["label"]), seed, 12, 16, row["split"], gap=gap, **look, **hard)
        assert (made / row["path"]).read_bytes() == encode(alone)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("M", {"p": 0.5}, "p=0.5: only set X .* set M has none"),
        ("X", {"p": 1.2}, "p=1.2 is no share .* use 0 to 1"),
        ("X", {"p": -0.1}, "p=-0.1 is no share"),
        ("X", {"gap": 4}, "gap=4: only set G has a gap"),
        ("G", {"p": 0.5}, "p=0.5: only set X"),
        ("G", {"gap": 30}, "gap=30 does not fit into frames=32 .* use 0 to 22, or 40 frames"),
        ("Z", {}, "no set 'Z'"),
        ("A", {"difficulty": EASY}, "only sets M and D have a difficulty, set A has none"),
    ],
)
def test_a_dial_that_a_set_does_not_have_or_that_does_not_fit_is_refused(name, wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, name, clips=240, size=16, **wrong)
    assert not [*tmp_path.iterdir()]


def test_the_command_passes_the_dials_on(tmp_path):
    common = ["--size", "16", "--workers", "0", "--root", str(tmp_path)]
    made = CliRunner().invoke(
        app, ["data", "make", "--set", "X", "--p", "0.9", "--clips", "80", "--frames", "4", *common]
    )
    assert made.exit_code == 0 and (tmp_path / "X-p90-16px-4f-80-s0" / "manifest.csv").exists()
    refused = CliRunner().invoke(app, ["data", "make", "--set", "G", "--gap", "30", *common])
    assert refused.exit_code == 1 and "use 0 to 22" in refused.output


def test_the_number_of_processes_changes_no_byte(motion, tmp_path):
    assert contents(make(tmp_path, "M", clips=80, workers=2, **SMALL)) == contents(motion)


def test_another_seed_makes_other_clips(motion, tmp_path):
    other = make(tmp_path, "M", clips=80, seed=1, **SMALL)
    assert not {row["sha256"] for row in rows(other)} & {row["sha256"] for row in rows(motion)}


def killed(root: Path, when: str) -> subprocess.CompletedProcess:
    """Make the set of `motion` in a process that is killed when a function is called for the seventh time."""
    program = f"""
import itertools, os, signal
from course_lib import files
from course_lib.synthetic import write
calls, function = itertools.count(1), {when}
def dying(*arguments):
    if next(calls) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*arguments)
{when} = dying
write.make({str(root)!r}, "M", clips=80, **{SMALL!r})
"""
    return subprocess.run([sys.executable, "-c", program], cwd=Path(write.__file__).parents[2], timeout=300)


@pytest.mark.parametrize("when", ["write.encode", "files.os.replace"])
def test_a_killed_run_goes_on_and_ends_with_the_same_files(when, motion, tmp_path, monkeypatch):
    assert killed(tmp_path, when).returncode == -signal.SIGKILL
    folder = tmp_path / motion.name
    begun = {path: os.stat(path).st_mtime_ns for path in folder.rglob("*.mp4")}
    assert 0 < len(begun) < 80 and not (folder / "manifest.json").exists()
    assert make(tmp_path, "M", clips=80, **SMALL) == folder
    assert contents(folder) == contents(motion)
    assert all(os.stat(path).st_mtime_ns == before for path, before in begun.items())  # not made twice


def test_workers_end_when_their_parent_is_killed():
    program = """
import os, signal
from course_lib.synthetic.write import mapper
with mapper(2) as each:
    print(list(each(abs, [-1, -2])), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=Path(write.__file__).parents[2], stdout=subprocess.PIPE) as parent:
        output, _ = parent.communicate(timeout=300)  # until the last holder of the pipe is gone
    assert output.strip() == b"[1, 2]"


def test_a_script_that_its_workers_would_run_again_ends_with_what_to_change(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        f"from course_lib.synthetic.write import make\nmake({str(tmp_path)!r}, 'M', 80, workers=1, **{SMALL!r})"
    )
    root = Path(write.__file__).parents[2]
    command, env = [sys.executable, str(script)], {**os.environ, "PYTHONPATH": str(root)}
    ended = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1 and 'under `if __name__ == "__main__":`' in ended.stderr
    script.write_text(script.read_text().replace("\nmake(", "\nif __name__ == '__main__':\n    make("))
    assert subprocess.run(command, cwd=root, env=env, timeout=300).returncode == 0


@pytest.fixture
def copy(motion, tmp_path) -> Path:
    return make(tmp_path, "M", clips=80, **SMALL)


def test_a_whole_set_is_left_alone(copy, monkeypatch):
    monkeypatch.setattr("course_lib.files.atomic_path", None)  # nothing may be written
    assert make(copy.parent, "M", clips=80, **SMALL) == copy


def test_who_waited_for_another_maker_of_the_same_set_writes_nothing(copy, monkeypatch):
    monkeypatch.setattr("course_lib.files.atomic_path", None)
    about = json.loads((copy / "manifest.json").read_text())
    write.fill(copy, about, plan("M", 80, seed=0), workers=0, progress=False)


def test_two_makers_at_once_do_not_disturb_each_other(motion, tmp_path):
    program = f"from course_lib.synthetic.write import make; make({str(tmp_path)!r}, 'M', clips=80, **{SMALL!r})"
    command = [sys.executable, "-c", program]
    makers = [subprocess.Popen(command, cwd=Path(write.__file__).parents[2]) for _ in range(2)]
    assert [maker.wait(timeout=300) for maker in makers] == [0, 0]
    assert contents(tmp_path / motion.name) == contents(motion)


def test_missing_and_changed_files_are_found_and_made_again(copy, motion):
    first, second, *_ = (copy / row["path"] for row in rows(copy))
    first.unlink()
    second.write_bytes(b"damaged")
    assert [problem.reason for problem in verify(copy)] == ["missing", "changed"]
    make(copy.parent, "M", clips=80, **SMALL)
    assert contents(copy) == contents(motion)


def test_files_of_another_version_are_not_kept(copy, monkeypatch):
    monkeypatch.setattr(write, "VERSION", write.VERSION + 1)
    monkeypatch.setattr(write, "render", lambda *arguments: np.zeros((4, 16, 16, 3), np.uint8))
    make(copy.parent, "M", clips=80, **SMALL)
    assert len({row["sha256"] for row in rows(copy)}) == 1


def test_other_pixels_mean_another_version():
    """After a change to the renderer raise VERSION, so that old folders are made anew, and note the new means."""
    means = {
        3: {
            ("A", "train"): [51.6, 51.6, 51.6, 52.2, 50.6, 50.4, 51.8, 48.9],
            ("M", "test"): [48.8, 49.2, 51.9, 54.3, 51.0, 55.4, 56.8, 51.3],
            ("V", "train"): [48.8, 48.7, 48.8, 48.9, 48.8, 48.8, 48.8, 48.8],
            ("X", "paired"): [67.5, 66.2, 70.1, 72.4],
            ("G", "test"): [61.5, 61.2, 61.5],
            ("D", "test"): [70.0, 69.5, 70.0],
        }
    }
    for (name, split), expected in means[write.VERSION].items():
        labels = range(0, len(CLASSES[name]), 2 if PARTNER[name] else 1)
        clips = [render.render(name, label, 0, frames=20, size=32, split=split) for label in labels]
        np.testing.assert_allclose([clip.mean() for clip in clips], expected, atol=0.1)


def test_a_folder_without_its_manifest_is_reported(tmp_path):
    assert [problem.path for problem in verify(tmp_path)] == ["manifest.json", "manifest.csv"]
