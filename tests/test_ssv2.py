"""Something-Something v2 as it is published, and which of its classes are others played backwards."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from course_lib.datasets import ssv2
from course_lib.datasets.annotations import CLASS_LISTS
from course_lib.datasets.manifest import Video
from course_lib.synthetic.write import encode

OFFICIAL = json.loads((CLASS_LISTS / "ssv2" / "labels.json").read_text())
TRAIN = [  # id, label, template, as in train.json
    ("78687", "holding potato next to vicks", "Holding [something] next to [something]"),
    ("7", "pushing a cup from left to right", "Pushing [something] from left to right"),
    ("100", "putting 3 pens onto a book", "Putting [number of] [something] onto [something]"),
]
LABELS = [19, 93, 102]
CLIP = encode(np.zeros((2, 16, 16, 3), np.uint8))  # its name alone says webm


def put(path: Path, content: bytes | str = CLIP) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def entries(rows) -> str:
    return json.dumps([{"id": n, "label": label, "template": t, "placeholders": ["x"]} for n, label, t in rows])


def release(root: Path, place: str = "labels", prefix: str = "", folder: str = ssv2.FOLDERS[0]) -> Path:
    """All of the release but the video 100."""
    put(root / place / f"{prefix}labels.json", json.dumps(OFFICIAL))
    put(root / place / f"{prefix}train.json", entries(TRAIN))
    put(root / place / f"{prefix}validation.json", entries(TRAIN[:1]))
    put(root / place / f"{prefix}test.json", json.dumps([{"id": "78687"}, {"id": "7"}]))
    for name in ("78687", "7"):
        put(root / folder / f"{name}.webm")
    return root


@pytest.mark.parametrize("place", [".", "labels", "annotations"])
@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
@pytest.mark.parametrize("folder", ssv2.FOLDERS)
def test_the_release_is_read_wherever_its_parts_lie(place, prefix, folder, tmp_path):
    videos = ssv2.read(release(tmp_path, place, prefix, folder))
    names = [(Path(folder) / f"{name}.webm").as_posix() for name, _, _ in TRAIN]
    assert videos.videos == tuple(Video(name, la, "train") for name, la in zip(names, LABELS, strict=True))
    assert [videos.classes[label] for label in LABELS] == [t.replace("[", "").replace("]", "") for _, _, t in TRAIN]
    assert ssv2.splits(tmp_path) == ("train", "val", "test")


def test_left_and_right_forbid_mirroring(tmp_path):
    assert not ssv2.read(release(tmp_path), "val").flips


def test_videos_that_were_encoded_anew_as_mp4_are_found(tmp_path):
    release(tmp_path)
    for path in list((tmp_path / ssv2.FOLDERS[0]).iterdir()):
        path.rename(path.with_suffix(".mp4"))
    assert ssv2.read(tmp_path).videos[0].path == "20bn-something-something-v2/78687.mp4"


def test_the_test_set_has_labels_only_with_its_answers(tmp_path):
    release(tmp_path)
    with pytest.raises(ValueError, match=r"test-answers.csv; use val"):
        ssv2.read(tmp_path, "test")
    answers = "78687;Holding something next to something\n7;Pushing something from left to right\n"
    put(tmp_path / "labels" / "test-answers.csv", answers)
    assert [video.label for video in ssv2.read(tmp_path, "test").videos] == LABELS[:2]
    put(tmp_path / "labels" / "test-answers.csv", answers.splitlines()[0])
    with pytest.raises(ValueError, match=r"entry 2: no template for video 7 in test-answers.csv"):
        ssv2.read(tmp_path, "test")
    for wrong in (answers + answers, "78687,Holding something next to something\n"):
        put(tmp_path / "labels" / "test-answers.csv", wrong)
        with pytest.raises(ValueError, match=r"line [13]: .* no new id;template"):
            ssv2.read(tmp_path, "test")


WRONG = {  # file: content, what the error says
    "template": ("train.json", entries([("1", "x", "Juggling [something]")]), "entry 1: .*none of the 174 classes"),
    "no template": ("train.json", '[{"id": "1"}]', "entry 1: no template for video 1"),
    "no id": ("train.json", '[{"template": "x"}]', "entry 1: .*no id"),
    "climbs out": ("train.json", entries([("../1", "x", "x")]), "entry 1: .*no id that is a whole number"),
    "two labels": ("train.json", entries([TRAIN[0], (TRAIN[0][0], "x", TRAIN[1][2])]), "entry 2: .*label 93, and 19"),
    "torn": ("train.json", '[{"id": ', "train.json: no json"),
    "not a list": ("train.json", "{}", "train.json: a dict where the release has a list"),
    "few labels": ("labels.json", '{"a": "0"}', "labels.json: its 1 classes are not numbered 0 to 173"),
    "labels list": ("labels.json", "[]", "labels.json: a list where the release has a dict"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named_with_the_entry(case, tmp_path):
    name, content, message = WRONG[case]
    put(release(tmp_path) / "labels" / name, content)
    with pytest.raises(ValueError, match=message):
        ssv2.read(tmp_path)


def test_other_classes_may_be_given(tmp_path):
    put(tmp_path / "validation.json", entries([TRAIN[1]]))
    put(tmp_path / "7.webm")
    classes = ("Pushing something from right to left", "Pushing something from left to right")
    assert ssv2.read(tmp_path, "val", classes).videos == (Video("7.webm", 1, "val"),)


def test_lists_of_paths_are_read_and_lists_of_frames_refused(tmp_path):
    put(tmp_path / "labels.json", json.dumps(OFFICIAL))
    put(tmp_path / "videos" / "7.mp4")
    put(tmp_path / "val.csv", "7.mp4,93\n")
    assert ssv2.read(tmp_path, "val").videos == (Video("videos/7.mp4", 93, "val"),)
    put(tmp_path / "val.csv", 'original_vido_id video_id frame_id path labels\n7 0 0 7/7_0001.jpg ""\n')
    with pytest.raises(ValueError, match=r"val.csv: lists frames as images; put validation.json"):
        ssv2.read(tmp_path, "val")


def test_mmaction2_s_lists_and_its_folder_of_videos_are_read(tmp_path):
    put(tmp_path / "annotations" / "something-something-v2-labels.json", json.dumps(OFFICIAL))
    put(tmp_path / "videos" / "7.mp4")
    put(tmp_path / "videos" / "._8.mp4")
    put(tmp_path / "sthv2_val_list_videos.txt", "7.mp4 5\n._8.mp4 5\n")
    assert [(video.path, video.label) for video in ssv2.read(tmp_path, "val").videos] == [("videos/7.mp4", 5)]


def test_json_in_utf16_is_refused_with_the_cause(tmp_path):
    put(tmp_path / "labels.json").write_text(json.dumps(OFFICIAL), encoding="utf-16")
    with pytest.raises(ValueError, match=r"labels.json: its text is in UTF-16"):
        ssv2.read(tmp_path)


def test_where_nothing_is_found_the_error_lists_what_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"no labels.json nor something-something-v2-labels.json in ., labels, annot"):
        ssv2.read(tmp_path)
    put(tmp_path / "labels.json", json.dumps(OFFICIAL))
    with pytest.raises(ValueError, match=r"looked for validation.json and .*then val.csv"):
        ssv2.read(tmp_path, "val")
    put(tmp_path / "validation.json", entries(TRAIN))
    with pytest.raises(ValueError, match=r"no .webm nor .mp4 in 20bn-something-something-v2"):
        ssv2.read(tmp_path, "val")
    put(tmp_path / "videos" / "5.webm")
    with pytest.raises(ValueError, match=r"none of its 3 videos is below .*such as videos/78687.webm; other root"):
        ssv2.read(tmp_path, "val")
    with pytest.raises(ValueError, match="no split 'validation': use train, val, test"):
        ssv2.read(tmp_path, "validation")
    assert ssv2.splits(tmp_path) == ("val",)


def test_the_classes_are_174_in_alphabetical_order():
    assert list(OFFICIAL) == sorted(OFFICIAL) and list(OFFICIAL.values()) == [str(i) for i in range(174)]


def test_opposites_are_classes_and_each_the_opposite_of_its_own():
    opposites = ssv2.opposites()
    assert len(opposites) >= 20 and set(opposites) <= set(OFFICIAL)
    assert all(name != other and opposites[other] == name for name, other in opposites.items())


def test_the_opposite_of_pushing_right_is_pulling_left_and_not_its_mirror():
    assert ssv2.opposites()["Pushing something from left to right"] == "Pulling something from right to left"
    with (CLASS_LISTS / "ssv2" / "opposites.csv").open(newline="") as file:
        doubts = {row["class"]: row["doubt"] for row in csv.DictReader(file)}
    assert doubts["Pushing something from left to right"] and not doubts["Moving something up"]
