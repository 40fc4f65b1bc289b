"""Kinetics and Something-Something v2 in the place of generated sets: found, chosen, cropped, trained on, recorded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_ins import write_kinetics, write_ssv2
from test_images import timm_vit
from typer.testing import CliRunner

from course_lib import doctor
from course_lib.cli import app
from course_lib.datasets import kinetics, lessons, ssv2
from course_lib.datasets.audit import audit_videos
from course_lib.experiments import Arm, learn, load_set, real, run, score, with_recipe
from course_lib.experiments.claims import CLAIMS, on_set
from course_lib.experiments.full import start
from course_lib.experiments.runs import by_pair, identity, recipe
from course_lib.machine import free_memory
from course_lib.models import build
from course_lib.official.timesformer import entries
from course_lib.profiles import PROFILES, active
from course_lib.training.batches import order
from course_lib.training.evaluate import predict
from course_lib.video import VideoError, read_frames

SMALL = (("attention", "divided"), ("size", 32), ("dim", 16), ("depth", 1), ("heads", 2), ("scratch", True))
TINY = replace(PROFILES["smoke"], clips=60, size=32, steps=3, batch=4)
NET = "timesformer_tiny"
command = CliRunner()
MAKE = {"K": write_kinetics, "S": write_ssv2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One stand-in of each; tests that change files make their own."""
    root = tmp_path_factory.mktemp("real")
    return {"K": write_kinetics(root / "kinetics"), "S": write_ssv2(root / "ssv2")}


@pytest.fixture
def profile(folders) -> object:
    return replace(TINY, kinetics=str(folders["K"]), ssv2=str(folders["S"]))


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    for variable in ("COURSE_KINETICS", "COURSE_SSV2", "COURSE_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("course_lib.experiments.data.DATA", tmp_path)
    monkeypatch.setattr("course_lib.experiments.runs.DATA", tmp_path)


# Which folder


def test_the_folders_are_those_of_the_arguments_then_of_the_environment(folders, monkeypatch, capsys):
    assert (active("smoke").kinetics, active("smoke").ssv2, capsys.readouterr().out) == ("", "", "")
    found = active("smoke", str(folders["K"]), str(folders["S"]))
    assert (found.set_for("A"), found.set_for("M"), found.set_for("D"), found.set_for("V")) == ("K", "S", "S", "V")
    assert replace(found, kinetics="", ssv2="") == PROFILES["smoke"]
    monkeypatch.setenv("COURSE_KINETICS", str(folders["K"]))
    assert active("smoke").set_for("A") == "K" and active("smoke").set_for("M") == "M"
    assert active("smoke", kinetics=str(folders["K"])).kinetics == str(folders["K"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("set_name", "spoil", "says"),
    [
        ("K", lambda root: root / "nowhere", "no such folder"),
        ("K", lambda root: write_ssv2(root / "s", each=(1, 1)), "no Kinetics train"),
        ("K", lambda root: write_kinetics(root / "k", each=(1, 0)), "lists no video"),
        ("K", lambda root: write_kinetics(root / "k", classes=["bowling"], each=(1, 1)), "fewer than two classes"),
        ("S", lambda root: root / "nowhere", "no labels.json"),
        ("S", lambda root: write_kinetics(root / "k", each=(1, 1)), "no labels.json"),
        (
            "S",
            lambda root: write_ssv2(root / "s", classes=("Bending something until it breaks", "Closing something")),
            "fewer than two",
        ),
    ],
)
def test_a_folder_that_was_named_and_cannot_be_used_is_told_in_one_line_with_a_remedy(
    set_name, spoil, says, tmp_path, capsys
):
    root = str(spoil(tmp_path))
    found = active("smoke", **{"K": {"kinetics": root}, "S": {"ssv2": root}}[set_name])
    assert found == PROFILES["smoke"], "the generated sets stay"
    (line,) = capsys.readouterr().out.splitlines()
    assert root in line and says in line
    words = {"K": ("in its place A and L", "course data fetch kinetics", "COURSE_KINETICS", "kinetics=")}
    words["S"] = ("in its place M and D", "course data fetch ssv2", "COURSE_SSV2", "ssv2=")
    assert all(word in line for word in words[set_name])


def test_a_set_without_a_folder_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"set K .*active\(\.\.\., kinetics=\.\.\.\) or set COURSE_KINETICS.*fetch"):
        load_set("K", TINY)


# Which classes and clips


def test_k_has_the_classes_of_mini10_that_are_there_else_the_ten_with_the_most_clips(tmp_path):
    some = ("bowling", "high kick", "abseiling")
    chosen = lessons.select("K", write_kinetics(tmp_path / "some", classes=some, each=(1, 1)))
    assert chosen.train.classes == chosen.test.classes == ("bowling", "high kick")
    assert "2 of the 10 classes of mini10" in chosen.which
    others = [name for name in kinetics.subset("k400") if name not in kinetics.subset("mini10")][:11]
    root = write_kinetics(tmp_path / "others", "folders", classes=others, each=(1, 1))
    write_kinetics(root, "folders", classes=others[1:], each=(2, 1))
    write_kinetics(root, "folders", classes=others[5:6], each=(3, 1))
    chosen = lessons.select("K", root)
    assert chosen.train.classes == (others[5], *others[1:5], *others[6:11])
    assert "fewer than two classes of mini10, so the 10 with the most clips" in chosen.which


def test_a_class_that_cannot_be_tested_is_not_trained_on(tmp_path):
    root = write_kinetics(tmp_path, "folders", classes=("bowling", "high kick", "side kick"), each=(1, 1))
    next((root / "val" / "high_kick").iterdir()).unlink()
    assert lessons.select("K", root).train.classes == ("bowling", "side kick")


def test_the_classes_of_s_are_whole_pairs_numbered_so_that_partners_are_neighbours(folders, tmp_path):
    chosen = lessons.select("S", folders["S"])
    opposites = ssv2.opposites()
    assert chosen.partner == (1, 0, 3, 2, 5, 4, 7, 6)
    assert all(
        opposites[name] == chosen.train.classes[chosen.partner[i]] for i, name in enumerate(chosen.train.classes)
    )
    assert not chosen.train.flips and lessons.select("K", folders["K"]).train.flips
    odd = (*lessons.opposites_in_order()[:3], "Bending something until it breaks")
    chosen = lessons.select("S", write_ssv2(tmp_path, ".mp4", odd, (1, 1)))
    assert chosen.train.classes == odd[:2] and "1 of the 13 pairs" in chosen.which


def test_a_limit_is_shared_by_the_classes_and_always_draws_the_same_clips(folders, tmp_path):
    chosen = lessons.select("K", folders["K"], clips=30)
    assert {tuple(found.values()) for found in chosen.train.counts().values()} == {(2,) * 10}
    assert {tuple(found.values()) for found in chosen.test.counts().values()} == {(1,) * 10}
    again = lessons.select("K", write_kinetics(tmp_path), clips=30)
    assert again.train.videos == chosen.train.videos and again.sha256 == chosen.sha256


def test_what_is_missing_known_to_be_broken_or_in_both_splits_is_left_out_and_named(tmp_path):
    root = write_kinetics(tmp_path, classes=("bowling", "high kick"), each=(4, 2))
    first, second, third, *_ = sorted((root / "train").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:900])
    for split in ("train", "val"):
        audit_videos(kinetics.read(root, split=split), root / "check.csv", 1, progress=False)
    third.unlink()
    third.hardlink_to(sorted((root / "val").iterdir())[0])
    chosen = lessons.select("K", root)
    left_out = {problem.path.split("/")[1]: problem.reason for problem in chosen.left_out}
    assert set(left_out) == {first.name, second.name, third.name} and len(chosen.train.videos) == 5
    assert left_out[first.name] == "missing" and "of val too" in left_out[third.name]
    assert all(video.sha256 for video in chosen.train.videos), "the sums of the check are compared at every reading"


def test_a_file_that_was_mended_since_the_check_is_used(tmp_path):
    root = write_kinetics(tmp_path, classes=("bowling", "high kick"), each=(2, 2))
    clip = sorted((root / "train").iterdir())[0]
    whole = clip.read_bytes()
    clip.write_bytes(whole[:900])
    audit_videos(kinetics.read(root), root / "check.csv", 1, progress=False)
    assert [problem.path for problem in lessons.select("K", root).left_out] == [f"train/{clip.name}"]
    clip.write_bytes(whole)
    chosen = lessons.select("K", root)
    assert not chosen.left_out and f"train/{clip.name}" in {video.path for video in chosen.train.videos}


def test_the_sum_of_a_selection_knows_clips_and_no_folder(tmp_path):
    sums = [lessons.select("K", write_kinetics(tmp_path / name, each=(1, 1))).sha256 for name in ("a", "b")]
    assert sums[0] == sums[1]
    clip = next((tmp_path / "b" / "val").iterdir())
    clip.write_bytes(clip.read_bytes() + b"x")
    assert lessons.select("K", tmp_path / "b").sha256 != sums[0]


# Frames


def test_a_moment_is_the_papers_8_x_32_and_fits_into_shorter_films():
    assert real.moment(300, 8).tolist() == list(range(37, 262, 32))
    found = [real.moment(300, 8, torch.Generator().manual_seed(i)) for i in range(200)]
    assert {int(chosen[0]) for chosen in found} >= {0, 75} and all(
        np.diff(chosen).tolist() == [32] * 7 for chosen in found
    )
    for available, frames in ((60, 8), (9, 8), (300, 96), (5, 8), (1, 8), (40, 1)):
        chosen = real.moment(available, frames, torch.Generator().manual_seed(0))
        assert len(chosen) == frames and 0 <= chosen[0] <= chosen[-1] < available
    assert real.moment(60, 8).tolist() == list(range(8, 51, 6))


def test_segments_of_a_short_film_show_frames_twice():
    assert real.parts(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert real.parts(24, 8).tolist() == list(range(1, 24, 3))


@pytest.mark.parametrize("frames", [4, 8, 16, 32])
@pytest.mark.parametrize("set_name", ["K", "S"])
def test_clips_kept_in_memory_are_chosen_from_as_files_are(set_name, frames):
    """Frames of a film of ten seconds, by number: the same reach, steps and randomness, to a few ticks."""
    rules = real.SETS[set_name]
    kept = rules.keep(300, rules.kept(frames))
    for seed in range(50):
        generator = [torch.Generator().manual_seed(seed) for _ in range(2)]
        direct, again = (
            rules.sample(300, frames, generator[0]),
            kept[rules.again(len(kept), frames, generator=generator[1])],
        )
        if set_name == "K":
            assert abs(int(np.ptp(direct)) - int(np.ptp(again))) <= 5
        else:
            assert (np.asarray(again) // (300 / frames)).astype(int).tolist() == list(range(frames))
        assert again[0] >= 0 and again[-1] < 300
    starts = {
        int(kept[rules.again(len(kept), frames, generator=torch.Generator().manual_seed(s))][0]) for s in range(99)
    }
    assert len(starts) > 2


# In memory, or read as they are needed


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(real, "SHARE", 0.0)


def test_a_container_that_may_use_less_memory_than_the_machine_has_is_believed(tmp_path):
    whole = free_memory(tmp_path)
    assert whole > 1e8, "no container"
    for name, text in (("max", "max\n"), ("current", "900\n"), ("stat", "anon 100\ninactive_file 700\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_memory(tmp_path) > 1e8, "a container without a limit"
    (tmp_path / "memory.max").write_text("1000\n")
    assert free_memory(tmp_path) == 1000 - 900 + 700
    (tmp_path / "memory.stat").write_text("anon 2000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert free_memory(tmp_path) == 0


@pytest.mark.parametrize("set_name", ["K", "S"])
def test_a_lesson_does_not_know_where_its_clips_are(set_name, profile, request, capsys):
    """The same test clips, the same labels, the same calls, from memory and from the files."""
    kept = load_set(set_name, profile, workers=1, progress=False)
    request.getfixturevalue("little_memory")
    read = load_set(set_name, profile, workers=1, progress=False)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "kept in memory, 0.0" in said[0] and "read as they are needed" in said[1]
    assert isinstance(kept.test, torch.Tensor) and not isinstance(read.test, torch.Tensor)
    assert torch.equal(kept.train_labels, read.train_labels) and torch.equal(kept.test_labels, read.test_labels)
    assert (kept.classes, kept.key) == (read.classes, read.key)
    assert all(torch.equal(kept.clip(i), read.clip(i)) and kept.label(i) == read.label(i) for i in range(5))
    assert kept.clip(0).shape == (8, 32, 32, 3) and kept.clip(0).dtype == torch.uint8
    found = []
    for data in (kept, read):
        net = Arm(NET, set_name, SMALL).build(len(data.classes), 0)
        logits, labels = predict(net, data.test_batches())
        assert score(net, data)["accuracy"] == (logits.argmax(1) == labels).double().mean()
        found.append(logits)
        assert len(list(learn(net, data, profile))) == 3 and not torch.equal(
            predict(net, data.test_batches())[0], logits
        )
        assert set(score(net, data)) == {"accuracy"} | ({"pair_accuracy"} if set_name == "S" else set())
        assert len(by_pair(logits, labels, data)) == (4 if set_name == "S" else 0)
    assert torch.allclose(*found)


@pytest.mark.parametrize("memory", ["kept", "read"])
def test_every_epoch_shows_other_frames_and_squares_and_every_seed_its_own(memory, profile, request):
    if memory == "read":
        request.getfixturevalue("little_memory")
    data = load_set("K", profile, workers=0 if memory == "read" else 1, progress=False)
    count = len(data.train_labels)

    def epochs(seed: int, step: int = 0) -> list[torch.Tensor]:
        """All clips of epoch `step`, of the next, ... by their number."""
        walk, chosen = data.train_batches(1000, seed)(step), order(count, count, seed, step)
        return [next(walk)[0][torch.tensor(next(chosen)[1]).argsort()] for _ in range(2 - step)]

    first, second = epochs(0)
    assert len(first) == count, "a batch is no larger than the set"
    assert all((a - b).abs().mean() > 0.1 for a, b in zip(first, second, strict=True))
    assert torch.equal(epochs(0, step=1)[0], second), "what is resumed is what would have been"
    assert all((a - b).abs().mean() > 0.1 for a, b in zip(first, epochs(1)[0], strict=True))


def test_a_test_clip_is_the_square_in_the_middle_at_the_short_side_and_a_training_clip_a_smaller_one(tmp_path):
    """48 x 64 pixels, brighter from 0 at the left to 255 at the right: the square is the middle three quarters."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)[:, None]
    film = np.broadcast_to(ramp, (24, 48, 64, 3))
    root = write_kinetics(tmp_path, classes=("bowling", "high kick"), each=(1, 1), film=lambda *which: film)
    data = load_set("K", replace(TINY, kinetics=str(root)), workers=1, progress=False)
    row = data.clip(0)[4, 16, :, 0].float()
    assert abs(row[0] - 255 * 8.25 / 63) < 6 and abs(row[-1] - 255 * 54.75 / 63) < 6
    for epoch in range(20):
        row = data.train[0, epoch][0][0, 4, 16].float()
        assert 0.65 * 48 / 64 < (row[-1] - row[0]).abs() / 255 < 0.93 * 48 / 64, "256 to 320 where 224 are seen"


def test_clips_of_k_are_mirrored_half_of_the_time_and_those_of_s_never(profile):
    for set_name, sides in (("K", 2), ("S", 1)):
        data = load_set(set_name, profile, workers=1, progress=False)
        ramp = torch.linspace(0, 255, data.train.clips.shape[3]).byte()
        data.train.clips[:] = ramp[:, None]  # brighter to the right
        brighter = {bool(data.train[i, e][0][0, 0, 0].float().diff().mean() > 0) for i in range(6) for e in range(6)}
        assert len(brighter) == sides, set_name


@pytest.mark.parametrize("set_name", ["K", "S"])
def test_a_file_that_cannot_be_read_is_named_and_left_out(set_name, tmp_path, capsys, monkeypatch):
    root = MAKE[set_name](tmp_path / "root", each=(2, 1))
    folder = root / ("train" if set_name == "K" else ssv2.FOLDERS[0])
    broken = sorted(folder.iterdir())[0]
    broken.write_bytes(b"no video" * 100)
    field = {"K": "kinetics", "S": "ssv2"}[set_name]
    profile = replace(TINY, **{field: str(root)})
    data = load_set(set_name, profile, workers=1, progress=False)
    _, said = capsys.readouterr().out.splitlines()
    assert f"Left out, 1: {folder.name}/{broken.name} (" in said
    assert [problem.path for problem in data.left_out] == [f"{folder.name}/{broken.name}"]
    assert len(data.train) == 2 * len(data.classes) - 1
    key = data.key
    whole = [
        video.label for video in lessons.select(set_name, root).train.videos if not video.path.endswith(broken.name)
    ]
    assert data.train_labels.tolist() == whole, "labels stay with their clips"
    monkeypatch.setattr(real, "SHARE", 0.0)
    data = load_set(set_name, profile, workers=1, progress=False)
    net = Arm(NET, set_name, SMALL).build(len(data.classes), 0)
    with pytest.raises(VideoError, match=f"{broken.name}: .*course data check FOLDER"):
        list(learn(net, data, replace(profile, batch=len(data.train_labels), steps=1)))
    for split in ("train", "val"):  # the way out helps
        videos = kinetics.read(root, split=split) if set_name == "K" else ssv2.read(root, split)
        audit_videos(videos, root / "check.csv", 1, progress=False)
    data = load_set(set_name, profile, workers=1, progress=False)
    assert data.key != key, "other clips are another set, and their runs other files"
    assert len(list(learn(net, data, replace(profile, batch=len(data.train_labels), steps=1)))) == 1
    tested = data.test.paths[1]
    tested.write_bytes(b"no video" * 100)
    with pytest.raises(VideoError, match=f"{tested.name}: .*course data check FOLDER"):
        score(net, data)
    assert f"Left out, 1: {folder.name}/{broken.name} (" in capsys.readouterr().out.splitlines()[-1]


def test_a_folder_of_which_no_file_can_be_read_is_an_error(tmp_path):
    root = write_kinetics(tmp_path, classes=("bowling", "high kick"), each=(1, 1))
    for path in root.glob("train/*.mp4"):
        path.write_bytes(b"no video" * 100)
    with pytest.raises(VideoError, match=r"train/.*\.mp4: .*; `course data check FOLDER` finds all such files"):
        load_set("K", replace(TINY, kinetics=str(root)), workers=1, progress=False)


# Records


@pytest.mark.parametrize("set_name", ["K", "S"])
def test_a_record_is_of_the_clips_and_not_of_their_folder(set_name, tmp_path):
    arm, field = Arm(NET, set_name, SMALL), {"K": "kinetics", "S": "ssv2"}[set_name]
    here, there = (replace(TINY, **{field: str(MAKE[set_name](tmp_path / name, each=(1, 1)))}) for name in ("a", "b"))
    result = run(arm, here, 0, tmp_path / "results")
    assert str(tmp_path) not in json.dumps(result) and len(result["clips"]) == 64 and result["kept_in_memory"]
    assert set(result["scores"]) == {"accuracy"} | ({"pair_accuracy"} if set_name == "S" else set())
    assert run(arm, there, 0, tmp_path / "results") == json.loads(json.dumps(result))
    clip = sorted((tmp_path / "b").rglob("*.mp4" if set_name == "K" else "*.webm"))[0]
    clip.write_bytes(clip.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"clips: '.*' in the record, '.*' asked for"):
        run(arm, there, 0, tmp_path / "results")


def test_a_generated_sets_record_does_not_know_of_the_folders(profile):
    arm = Arm(NET, "M", SMALL)
    assert identity(arm, profile, 0) == identity(arm, TINY, 0) and "clips" not in identity(arm, profile, 0)


# The course command


def test_an_experiment_runs_its_arms_on_the_real_set_in_place_of_the_generated_one(folders, tmp_path, monkeypatch):
    """C1 on K is C1's arms on A, on S those on M: three each."""
    monkeypatch.setitem(PROFILES, "smoke", replace(PROFILES["smoke"], steps=1, batch=2, clips=60))
    for set_name, option in (("K", "--kinetics"), ("S", "--ssv2")):
        words = ["experiment", "C1", "--set", set_name, "--profile", "smoke", "--seeds", "1", option, folders[set_name]]
        done = command.invoke(app, [*map(str, words), "--out", str(tmp_path / set_name)])
        assert done.exit_code == 0, done.output
        arms = {path.name for path in (tmp_path / set_name).iterdir()}
        assert arms == {
            f"{NET}-{set_name}-attention={a}-scratch=True-smoke-s0.json" for a in ("space", "divided", "joint")
        }


def test_arms_that_real_videos_cannot_have_are_left_out_and_dials_count_once():
    whole = PROFILES["cpu"]
    c7 = on_set(CLAIMS["C7"](whole), "S")
    assert len(c7) == 3 and not any(("colours", 2) in arm.changes for arm in c7)
    assert {arm.difficulty for arm in on_set(CLAIMS["C10"](whole), "S")} == {None}
    assert len(on_set(CLAIMS["dials"](whole), "S")) == 2 < len(CLAIMS["dials"](whole))
    with pytest.raises(ValueError, match="which set S has not"):
        on_set(CLAIMS["C28"](whole), "S")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["C1", "--set", "K"], "course data fetch kinetics"),
        (["C1", "--set", "V"], "no arm runs on set 'V': there are A, M, K, S"),
        (["C1", "--set", "S", "--ssv2", "nowhere"], "nowhere: no labels.json"),
    ],
)
def test_an_experiment_without_its_folder_or_on_no_set_of_its_says_what_to_do(words, says, tmp_path):
    done = command.invoke(app, ["experiment", *words, "--profile", "smoke", "--out", str(tmp_path)])
    assert done.exit_code == 1 and says in done.output and "Traceback" not in done.output


def test_real_sets_take_the_recipes_of_the_sets_that_they_stand_for():
    cpu = PROFILES["cpu"]
    looks = with_recipe(cpu, "timesformer_tiny", "L")
    assert with_recipe(cpu, "timesformer_tiny", "K") == replace(looks, steps=2 * looks.steps) != cpu
    assert with_recipe(cpu, "vivit_tiny", "S") == with_recipe(cpu, "vivit_tiny", "D") != cpu


@pytest.mark.parametrize(
    ("set_name", "variable", "check"), [("K", "COURSE_KINETICS", doctor.kinetics), ("S", "COURSE_SSV2", doctor.ssv2)]
)
def test_the_doctor_tells_of_both_folders_in_a_line_each(set_name, variable, check, folders, tmp_path, monkeypatch):
    assert check().ok and variable in check().found, "no folder is no fault"
    monkeypatch.setenv(variable, str(folders[set_name]))
    found = check()
    assert found.ok and str(folders[set_name]) in found.found and "\n" not in found.found
    assert {"K": "10 of the 10 classes", "S": "4 of the 13 pairs"}[set_name] in found.found
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    wrong = check()
    assert (
        not wrong.ok and "nowhere" in wrong.found and "course data fetch" in wrong.remedy and variable in wrong.remedy
    )


# Where a full network starts


FULL = replace(PROFILES["gpu"], size=64, steps=4, batch=4)


def by_its_released_names(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of a TimeSformer as its own code would save it."""
    state, grid = dict(net.state_dict()), net.config.grid
    cls, places = state.pop("pos_embed.cls"), state.pop("pos_embed.weight")
    place = torch.cat([cls.reshape(1, 1, -1), places.reshape(1, grid.h * grid.w, -1)], 1)
    taken = {theirs: state[ours] for ours, theirs, how in entries(net) if how is None}
    moments = state["time_embed.weight"].reshape(1, grid.t, -1)
    patches = {"model.patch_embed.proj.weight": state["patch_embed.project.weight"][:, :, 0]}
    return taken | patches | {"model.pos_embed": place, "model.time_embed": moments}


def test_a_full_network_starts_from_the_file_that_is_there_and_trains_as_its_paper_does(tmp_path, capsys):
    def fresh() -> torch.nn.Module:
        torch.manual_seed(0)
        return build("timesformer_tiny", classes=3)

    video, images = ("video.pyth", "timesformer"), ("images.pth", "timm")
    net, before = fresh(), fresh().state_dict()
    assert start(net, replace(FULL, full=False), video, images, tmp_path) == recipe(FULL)
    assert capsys.readouterr().out == "", "a tiny network starts from nothing, as its lesson says"
    assert start(net, FULL, video, images, tmp_path) == recipe(FULL), "the paper's rate supposes a start"
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    (line,) = capsys.readouterr().out.splitlines()
    assert "from nothing" in line and "video.pyth, images.pth" in line and str(tmp_path) in line

    torch.save(timm_vit(), tmp_path / "images.pth")
    config = start(net, FULL, video, images, tmp_path)
    assert "start: images.pth" in capsys.readouterr().out
    assert torch.equal(net.blocks[1].mlp.up.weight, timm_vit()["blocks.1.mlp.fc1.weight"])
    assert (config.optimizer, config.peak_lr, config.weight_decay) == ("sgd", 0.0025, 1e-4), "0.005 for 8 clips, here 4"
    assert (config.steps, config.warmup) == (recipe(FULL).steps, recipe(FULL).warmup)

    other = build("timesformer_tiny", classes=400)
    torch.save({"model_state": by_its_released_names(other)}, tmp_path / "video.pyth")
    net = fresh()
    assert start(net, FULL, video, images, tmp_path) == config
    assert "start: video.pyth" in capsys.readouterr().out
    own, theirs = net.state_dict(), other.state_dict()
    assert all(torch.equal(own[name], before[name] if "head" in name else theirs[name]) for name in own)


def test_networks_whose_paper_supposes_images_have_the_profiles_recipe_without_them(tmp_path):
    assert start(build("vivit_tiny"), FULL, folder=tmp_path) == recipe(FULL)
    slowfast = start(build("slowfast_tiny"), FULL, folder=tmp_path)
    assert (slowfast.optimizer, slowfast.peak_lr) == ("sgd", 0.1 * 4 / 64), "its paper trains from nothing"


def test_learning_follows_a_given_recipe(profile):
    data = load_set("K", profile, workers=1, progress=False)
    config = replace(recipe(profile), steps=2, optimizer="sgd", peak_lr=0.5, warmup=0)
    steps = list(learn(Arm(NET, "K", SMALL).build(10, 0), data, profile, config=config))
    assert [step.lr for step in steps] == [0.5, 0.25]


# Real videos


@pytest.mark.parametrize("set_name", ["K", "S"])
def test_real_videos_become_the_clips_of_a_lesson(set_name, real_clips, tmp_path):
    """Cut from two films, in both layouts; looks tell them apart after some steps."""
    films = [real_clips / "mma_demo.mp4", real_clips / "decord_flipping_a_pancake.mkv"]
    frames = [read_frames(film, range(0, 240, 3)) for film in films]

    def cut(label: int, split: str, number: int) -> np.ndarray:
        start = 8 * (2 * number + (split == "val"))
        return frames[label][start : start + 24, ::2, : frames[label].shape[2] // 4 * 4 : 2]

    classes = ("arm wrestling", "flipping pancake") if set_name == "K" else lessons.opposites_in_order()[:2]
    root = MAKE[set_name](tmp_path / "root", classes=classes, each=(4, 2), film=cut)
    profile = replace(TINY, steps=12, **{"K": {"kinetics": str(root)}, "S": {"ssv2": str(root)}}[set_name])
    data = load_set(set_name, profile, workers=1, progress=False)
    net = Arm(NET, set_name, SMALL).build(2, 0)
    assert data.test.shape == (4, 8, 32, 32, 3) and data.test.float().std() > 30
    for _ in learn(net, data, profile):
        pass
    assert score(net, data)["accuracy"] == 1


# Layouts


def test_the_same_clips_in_another_layout_are_the_same_set(folders, tmp_path):
    """CVDF's csv and class folders; webm by VP9 decodes to other bytes than mp4, but to the same pictures."""
    found = {}
    for name, root in (("csv", folders["K"]), ("folders", write_kinetics(tmp_path / "folders", "folders"))):
        found[name] = load_set("K", replace(TINY, clips=400, kinetics=str(root)), workers=1, progress=False)
    csv, by_class = found.values()
    assert csv.classes == by_class.classes and torch.equal(csv.test_labels, by_class.test_labels)
    assert torch.equal(csv.test, by_class.test) and torch.equal(csv.train.clips, by_class.train.clips)
    for name, root in (("webm", folders["S"]), ("mp4", write_ssv2(tmp_path / "mp4", ".mp4"))):
        found[name] = load_set("S", replace(TINY, clips=400, ssv2=str(root)), workers=1, progress=False)
    assert found["webm"].test_labels.equal(found["mp4"].test_labels)
    assert (found["webm"].test.float() - found["mp4"].test.float()).abs().mean() < 8


def test_a_kinetics_of_600_classes_is_read_as_one(tmp_path):
    (root := tmp_path / "k").mkdir()
    write_kinetics(root, "folders", classes=(*kinetics.subset("mini10"), "a class that is new"), each=(1, 1))
    for number in range(589):
        (root / "train" / f"class {number:03d}").mkdir()
    assert lessons.select("K", root).train.classes == kinetics.subset("mini10")
    (root / "val").rename(root / "away")
    with pytest.raises(ValueError, match="no Kinetics val; looked for") as without:
        lessons.select("K", root)
    assert "400" not in str(without.value)
