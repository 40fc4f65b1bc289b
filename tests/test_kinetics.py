"""Kinetics in every layout that people have, and a clear word where something is wrong."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from course_lib.datasets import kinetics
from course_lib.datasets.annotations import CLASS_LISTS, read_classes
from course_lib.datasets.manifest import Video
from course_lib.synthetic.write import encode

CLASSES = ("abseiling", "air drumming", "archery", "zumba")
ROWS = [  # as in the official csv
    ("zumba", "aaaaaaaaaaa", 0, 10),
    ("air drumming", "b-b_bbbbbbb", 1234, 1244),
    ("abseiling", "-cccccccccc", 7, 17),
    ("air drumming", "ddddddddddd", 100, 110),
]
NAMES = [
    "aaaaaaaaaaa_000000_000010",
    "b-b_bbbbbbb_001234_001244",
    "-cccccccccc_000007_000017",
    "ddddddddddd_000100_000110",
]
LABELS = [3, 1, 0, 1]
CLIP = encode(np.zeros((2, 16, 16, 3), np.uint8))


def put(path: Path, content: bytes | str = CLIP) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def official(path: Path, rows=ROWS, split: str = "val") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "youtube_id", "time_start", "time_end", "split", "is_cc"])
        writer.writerows((*row, split, 0) for row in rows)
    return path


@pytest.fixture
def cvdf(tmp_path):
    """CVDF's layout; the third of four clips is missing."""
    official(tmp_path / "annotations" / "val.csv")
    for name in (NAMES[0], NAMES[1], NAMES[3]):
        put(tmp_path / "val" / f"{name}.mp4")
    return tmp_path


def read(root, **options):
    return kinetics.read(root, **{"split": "val", "classes": CLASSES} | options)


def test_cvdf_files_are_found_by_video_and_times_and_a_missing_one_stays_listed(cvdf):
    videos = read(cvdf)
    assert videos.videos == tuple(Video(f"val/{n}.mp4", la, "val") for n, la in zip(NAMES, LABELS, strict=True))
    assert (videos.root, videos.classes, videos.flips) == (cvdf, CLASSES, True)
    assert "official csv" in videos.source and str(cvdf / "annotations" / "val.csv") in videos.source


def test_a_replacement_takes_the_place_of_a_broken_clip_and_is_counted(cvdf):
    put(cvdf / kinetics.REPLACEMENTS / f"{NAMES[1]}.mp4")
    put(cvdf / kinetics.REPLACEMENTS / "zzzzzzzzzzz_000000_000010.mp4")  # of another split
    videos = read(cvdf)
    assert videos.videos[1] == Video(f"{kinetics.REPLACEMENTS}/{NAMES[1]}.mp4", 1, "val")
    assert len(videos.videos) == 4 and ", 1 clips from replacement" in videos.source
    assert "replacement" not in read(cvdf, version="600").videos[1].path


@pytest.mark.parametrize("folder", ["val", "validate", "videos_val", "videos/val", "videos", "."])
@pytest.mark.parametrize("name", ["annotations/val.csv", "annotations/kinetics_val.csv", "validate.csv"])
def test_an_official_csv_finds_flat_files_wherever_people_put_them(folder, name, tmp_path):
    official(tmp_path / name, split="validate")
    for clip in NAMES:
        put(tmp_path / folder / f"{clip}.mkv")
    found = read(tmp_path).videos
    assert [v.path for v in found] == [(Path(folder) / f"{clip}.mkv").as_posix() for clip in NAMES]


COPIES = ["train_256", "train_256p", "train_320px", "videos_train_256p_dense_cache"]


@pytest.mark.parametrize("folder", COPIES)
def test_a_smaller_copy_of_a_split_is_found_by_all_three_kinds(folder, tmp_path):
    for clip in NAMES:
        put(tmp_path / folder / "archery" / f"{clip}.mp4")
    assert kinetics.splits(tmp_path) == ("train",)
    paths = [f"{folder}/archery/{clip}.mp4" for clip in sorted(NAMES)]
    assert [video.path for video in read(tmp_path, split="train").videos] == paths
    put(tmp_path / "train.csv", "".join(f"archery/{clip}.mp4 2\n" for clip in sorted(NAMES)))
    assert [video.path for video in read(tmp_path, split="train").videos] == paths
    official(tmp_path / "train.csv", [("archery", *row[1:]) for row in ROWS], split="train")
    assert sorted(video.path for video in read(tmp_path, split="train").videos) == paths
    put(tmp_path / "train" / f"{NAMES[0]}.mp4")  # what bears the name of the split itself comes first
    assert read(tmp_path, split="train").videos[0].path == f"train/{NAMES[0]}.mp4"


def test_of_two_smaller_copies_one_has_to_be_chosen(tmp_path):
    for folder in ("val_256", "val_320"):
        put(tmp_path / folder / "archery" / "x.mp4")
    with pytest.raises(ValueError, match="val_256 and val_320 hold copies of val; rename the one to read to val"):
        read(tmp_path)
    os.rename(tmp_path / "val_320", tmp_path / "val")
    assert [video.path for video in read(tmp_path).videos] == ["val/archery/x.mp4"]


def test_the_notes_that_macos_puts_beside_videos_are_no_videos(cvdf):
    put(cvdf / "val" / f"._{NAMES[0]}.mp4")
    assert len(read(cvdf).videos) == 4
    put(cvdf / "train" / "archery" / "._a.mp4")
    put(cvdf / "train" / "archery" / "a.mp4")
    assert [video.path for video in read(cvdf, split="train").videos] == ["train/archery/a.mp4"]
    put(cvdf / "train.txt", "archery/._a.mp4 2\narchery/a.mp4 2\n")
    assert [video.path for video in read(cvdf, split="train").videos] == ["train/archery/a.mp4"]


def test_with_an_official_csv_files_may_lie_in_class_folders_or_be_named_by_video_alone(tmp_path):
    official(tmp_path / "annotations" / "train.csv", split="train")
    put(tmp_path / "train" / "air_drumming" / f"{NAMES[1]}.mp4")
    put(tmp_path / "train" / "abseiling" / "-cccccccccc.mp4")
    paths = [video.path for video in read(tmp_path, split="train").videos]
    assert paths[1:3] == [f"train/air_drumming/{NAMES[1]}.mp4", "train/abseiling/-cccccccccc.mp4"]


@pytest.mark.parametrize("space", [" ", "_"])
def test_class_folders_alone_are_enough(space, tmp_path):
    for i, name in enumerate(CLASSES):
        put(tmp_path / "train" / name.replace(" ", space) / f"clip {i}.mp4")
        put(tmp_path / "train" / name.replace(" ", space) / "same name.MP4")
    put(tmp_path / "train" / "abseiling" / ".DS_Store")
    videos = read(tmp_path, split="train")
    assert [video.label for video in videos.videos] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert videos.videos[2].path == f"train/air{space}drumming/clip 1.mp4"
    assert videos.source.endswith("class folders")


@pytest.mark.parametrize("between", [" ", ",", "\t", ", "])
def test_lists_of_path_and_label_may_be_parted_in_every_usual_way(between, tmp_path):
    files = ["val/air drumming/with, comma.mp4", "val/archery/plain.mp4"]
    for file in files:
        put(tmp_path / file)
    put(tmp_path / "val.csv", "".join(f"{file}{between}{label}\n" for file, label in zip(files, (1, 2), strict=True)))
    videos = read(tmp_path)
    assert videos.videos == (Video(files[0], 1, "val"), Video(files[1], 2, "val"))
    assert videos.source.endswith("list of paths")


def test_paths_in_a_list_may_be_absolute_quoted_or_relative_to_the_folder_of_the_split(tmp_path):
    put(tmp_path / "videos_val" / "archery" / "a b.mp4")
    for path in (
        '"archery/a b.mp4"',
        "archery/a b.mp4",
        "videos_val/archery/a b.mp4",
        tmp_path / "videos_val/archery/a b.mp4",
    ):
        put(tmp_path / "kinetics400_val_list_videos.txt", f"{path} 2\n")
        assert read(tmp_path).videos == (Video("videos_val/archery/a b.mp4", 2, "val"),)


def test_a_label_map_below_root_says_what_numbers_in_a_list_mean(tmp_path):
    names = list(reversed(kinetics.subset("k400")))
    put(tmp_path / "x.mp4")
    put(tmp_path / "train.txt", "x.mp4 399\n")
    assert kinetics.read(tmp_path).classes[399] == "zumba"
    put(tmp_path / "k400_label_map.txt", "\n".join(names))
    assert kinetics.read(tmp_path).classes[399] == "abseiling"
    put(tmp_path / "other_label_map.txt", "\n".join(sorted(names)))
    with pytest.raises(ValueError, match=r"label maps differ.*choose one"):
        kinetics.read(tmp_path)
    assert kinetics.read(tmp_path, classes=tmp_path / "other_label_map.txt").classes[399] == "zumba"


def test_label_maps_are_read_in_all_their_forms(tmp_path):
    quoted = {f'"{name}"' if " " in name else name: number for number, name in enumerate(CLASSES)}
    forms = {
        "map.json": json.dumps(dict(reversed(quoted.items()))),
        "map.csv": "id,name\n3,zumba\n" + "".join(f"{i},{name}\n" for i, name in enumerate(CLASSES[:3])),
        "map.txt": "\n".join(name.replace(" ", "_") for name in CLASSES) + "\n\n",
    }
    for name, text in forms.items():
        assert read_classes(put(tmp_path / name, text)) == CLASSES, name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gap.json", '{"a": 0, "b": 2}'),
        ("twice.json", '{"a": 0, "\\"a\\"": 1}'),
        ("list.json", '["a", "b"]'),
        ("torn.json", '{"a": 0,'),
        ("columns.csv", "number,name\n0,a\n"),
        ("letters.csv", "id,name\nx,a\n"),
        ("twice.txt", "a\na\n"),
    ],
)
def test_a_wrong_label_map_is_refused_by_name(name, text, tmp_path):
    with pytest.raises(ValueError, match=name):
        read_classes(put(tmp_path / name, text))


def test_kinetics_600_takes_its_classes_from_the_lists_and_must_have_600(tmp_path):
    rows = [(f"class {i:03d}", f"{i:011d}", 0, 10) for i in range(600)]
    official(tmp_path / "annotations" / "train.csv", rows, split="train")
    official(tmp_path / "annotations" / "val.csv", rows[:3])
    put(tmp_path / "val" / "00000000001_000000_000010.mp4")
    videos = kinetics.read(tmp_path, "600", "val")
    assert videos.classes == tuple(f"class {i:03d}" for i in range(600))
    assert [video.label for video in videos.videos] == [0, 1, 2]
    with pytest.raises(ValueError, match="600 classes, but Kinetics-700 has 700"):
        kinetics.read(tmp_path, "700", "val", annotations=None)
    with pytest.raises(ValueError, match="'class 000' is none of the 400 classes"):
        kinetics.read(tmp_path, "400", "val")


def test_repeated_rows_count_once(cvdf):
    official(cvdf / "annotations" / "val.csv", [*ROWS, ROWS[0], ROWS[2]])
    assert [video.label for video in read(cvdf).videos] == LABELS


BAD_ROWS = {  # a row more: what the error says
    "unknown class": (
        ("juggling chainsaws", "eeeeeeeeeee", 0, 10),
        r"line 6: 'juggling chainsaws' is none of the 4 classes",
    ),
    "two labels": (
        ("archery", *ROWS[0][1:]),
        r"line 6: val/aaaaaaaaaaa_000000_000010.mp4 has label 2, and 3 in an earlier",
    ),
    "climbs out": (("zumba", "../../../et", 0, 10), "line 6: no clip .*11 letters"),
    "no time": (("zumba", "eeeeeeeeeee", "", 10), "line 6: no clip"),
    "endless": (("zumba", "eeeeeeeeeee", "inf", 10), "line 6: no clip"),
    "a column more": (("zumba", "eeeeeeeeeee", 0, 10, 9, 9), "line 6 has not as many columns"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_of_an_official_csv_is_named_with_its_line(case, cvdf):
    row, message = BAD_ROWS[case]
    path = official(cvdf / "annotations" / "val.csv", [*ROWS, row])
    with pytest.raises(ValueError, match=message) as error:
        read(cvdf)
    assert str(error.value).startswith(str(path))


BAD_LINES = {
    "no label": ("abseiling/x.mp4", "line 2: .* is no path and label"),
    "beyond": ("x.mp4 4", "line 2: label 4, but there are 4 classes: 0 to 3"),
    "below": ("x.mp4 -1", "line 2: label -1"),
    "climbs out": ("../x.mp4 0", "line 2: '../x.mp4' leaves the folder"),
    "another root": ("/etc/x.mp4 0", "line 2: '/etc/x.mp4' leaves the folder"),
    "frames": ("rawframes/x 250 0", "line 2: 'rawframes/x 250' does not end in .*frames as images"),
    "other folder": ("val/zumba/x.mp4 0", "line 2: label 0, but the file is in the folder of 'zumba', label 3"),
    "semicolon": ("x.mp4;0", "line 2: .*part them by a space, a comma or a tab, not by ;"),
    "two labels": ("./good.mp4 1", "line 2: good.mp4 has label 1, and 0 in an earlier line"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_of_a_list_is_named_with_its_number(case, tmp_path):
    line, message = BAD_LINES[case]
    put(tmp_path / "good.mp4")
    put(tmp_path / "val.txt", f"good.mp4 0\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("listed", ["official", "paths", "label map"])
def test_lists_in_utf16_are_refused_with_the_cause(listed, cvdf):
    path = cvdf / {"official": "annotations/val.csv", "paths": "val.txt", "label map": "label_map.txt"}[listed]
    text = path.read_text() if listed == "official" else "val/x.mp4 0\n"
    path.write_text(text, encoding="utf-16")
    with pytest.raises(ValueError, match=rf"{path.name}: its text is in UTF-16.*save it as UTF-8"):
        kinetics.read(cvdf, split="val", classes=path if listed == "label map" else CLASSES, annotations=path)


def test_an_official_csv_with_semicolons_is_refused_with_the_cause(cvdf):
    path = cvdf / "annotations" / "val.csv"
    path.write_text(path.read_text().replace(",", ";"))
    with pytest.raises(ValueError, match=r"val.csv: no column youtube_id.*parted by semicolons: save it with commas"):
        read(cvdf)


def test_a_list_that_belongs_to_another_root_or_split_is_refused(cvdf, tmp_path_factory):
    with pytest.raises(ValueError, match="'val' in the list of train"):
        read(cvdf, split="train", annotations=cvdf / "annotations" / "val.csv")
    other = tmp_path_factory.mktemp("other")
    with pytest.raises(ValueError, match=r"none of its 4 clips is below .*other root"):
        read(other, annotations=cvdf / "annotations" / "val.csv")
    with pytest.raises(ValueError, match="none of its 1 files is below"):
        read(other, annotations=put(other / "list.txt", "nowhere.mp4 0\n"))


def test_a_clip_that_is_there_twice_or_in_the_wrong_folder_is_refused(cvdf):
    put(cvdf / "val" / "zumba" / f"{NAMES[0]}.webm")
    with pytest.raises(ValueError, match=rf"val/{NAMES[0]}.mp4 and val/zumba/{NAMES[0]}.webm are one clip"):
        read(cvdf)
    (cvdf / "val" / f"{NAMES[0]}.mp4").unlink()
    os.rename(cvdf / "val" / "zumba", cvdf / "val" / "archery")
    with pytest.raises(ValueError, match="line 2: label 3, but the file is in the folder of 'archery', label 2"):
        read(cvdf)


def test_two_clips_of_one_video_need_files_that_tell_them_apart(cvdf):
    official(cvdf / "annotations" / "val.csv", [*ROWS, ("abseiling", "-cccccccccc", 50, 60)])
    assert len(read(cvdf).videos) == 5
    put(cvdf / "val" / "-cccccccccc.mp4")
    with pytest.raises(ValueError, match=r"would both be val/-cccccccccc.mp4"):
        read(cvdf)


def test_a_test_set_without_labels_is_refused_with_a_way_out(tmp_path):
    put(tmp_path / "test.csv", "youtube_id,time_start,time_end,split\naaaaaaaaaaa,0,10,test\n")
    with pytest.raises(ValueError, match=r"no column label.*use val"):
        read(tmp_path, split="test")


def test_where_nothing_is_found_the_error_lists_what_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"no Kinetics val; looked for annotations/val.csv .*val/<class>/<file>.mp4"):
        read(tmp_path)
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no Kinetics '500'"):
        read(tmp_path, version="500")
    put(tmp_path / "val" / "juggling chainsaws" / "x.mp4")
    with pytest.raises(ValueError, match="its folder is none of the 4 classes"):
        read(tmp_path)
    os.rename(tmp_path / "val" / "juggling chainsaws" / "x.mp4", tmp_path / "val" / "x.mp4")
    with pytest.raises(ValueError, match="Videos that lie flat need the official csv"):
        read(tmp_path)


def test_splits_are_those_with_a_list_or_a_folder(cvdf):
    (cvdf / "train").mkdir()
    assert kinetics.splits(cvdf) == ("train", "val")


# Subsets


def test_the_class_list_is_that_of_the_official_label_map_and_alphabetical(real_clips):
    names = kinetics.subset("k400")
    assert names == read_classes(real_clips / "k400_label_map.txt") == tuple(sorted(names)) and len(names) == 400
    assert sorted(names, key=lambda name: name.replace(" ", "_")) == list(names)  # as mmaction2 sorts them


@pytest.mark.parametrize(("name", "count"), [("mini10", 10), ("mini50", 50), ("mini200", 200)])
def test_subsets_hold_classes_of_kinetics_400_each_once(name, count):
    names = kinetics.subset(name)
    assert len(set(names)) == len(names) == count and set(names) <= set(kinetics.subset("k400"))


@pytest.mark.parametrize("name", ["mini10", "mini50"])
def test_half_of_the_classes_is_told_by_the_scene_and_half_by_motion(name):
    with (CLASS_LISTS / "kinetics" / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["told_by"] == "scene" for row in rows) == sum(row["told_by"] == "motion" for row in rows)
    assert len(rows) == 2 * sum(row["told_by"] == "scene" for row in rows) and all(row["why"] for row in rows)


def test_mini10_is_within_mini50_and_an_unknown_subset_lists_those_there_are():
    assert set(kinetics.subset("mini10")) < set(kinetics.subset("mini50"))
    with pytest.raises(ValueError, match="there are k400, mini10, mini200, mini50"):
        kinetics.subset("mini7")
