"""Records of speed: made by parts, gone on with, and shown as they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_imports import modules_after
from torch import nn

from course_lib.bench import measure, packing, reading, record, scale, table
from course_lib.bench.__main__ import main
from course_lib.bench.measure import Peak, Subject

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]


def linear(config) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * config.frames * config.size**2, 3))


TINY = Subject("vivit_tiny", 2, "somebody", linear)


@pytest.fixture
def tiny(monkeypatch):
    """A device with two parts: one network, no files."""
    monkeypatch.setattr(record, "SUBJECTS", (TINY,))
    monkeypatch.setattr(reading, "can_read", lambda: False)
    monkeypatch.setattr(record, "peak", lambda device: Peak(1e12, "made up"))
    monkeypatch.setattr(measure, "CPU_SIZE", 64)


def test_the_tables_of_the_pages_are_those_of_the_records():
    for name, (begin, end, text) in table.made().items():
        page = (ROOT / name).read_text(encoding="utf-8")
        assert table.between(page, begin, end) == text, f"{name}: run `course bench --table`"


def test_as_long_as_no_gpu_was_measured_the_tables_say_so():
    found = record.records()
    assert found, "no record is stored"
    on_gpus = [name for name, one in found.items() if not one["machine"]["device"].startswith("CPU")]
    assert (table.NO_GPU in table.table(found)) is not bool(on_gpus)
    assert on_gpus or scale.scale(found).count("not measured | not measured") == len(measure.SUBJECTS)


def test_a_stopped_run_goes_on_and_repeats_nothing(tiny, tmp_path, capsys):
    out = tmp_path / "device.json"
    assert main(["--out", str(out), "--minutes", "0"]) == 3 and not out.exists()
    assert main(["--out", str(out), "--only", "training"]) == 0
    first = json.loads(out.read_text())["parts"]
    assert list(first) == ["vivit_tiny/training/eager"]
    assert main(["--out", str(out)]) == 0
    second = json.loads(out.read_text())["parts"]
    assert list(second) == ["vivit_tiny/training/eager", "vivit_tiny/inference/eager"]
    assert second["vivit_tiny/training/eager"] == first["vivit_tiny/training/eager"]
    with pytest.raises(SystemExit):
        main(["--out", str(out), "--only", "("])
    assert "no regular expression" in capsys.readouterr().err
    assert main(["--out", str(out), "--only", "no such"]) == 1 and "fits no part" in capsys.readouterr().err


def test_a_part_that_fails_is_kept_with_its_reason_and_tried_again(tiny, tmp_path, monkeypatch):
    def fail(*args):
        raise torch.OutOfMemoryError("no memory left\nand more")

    out = tmp_path / "device.json"
    with monkeypatch.context() as broken:
        broken.setattr(record, "compare", fail)
        record.run(out, only="training", say=lambda text: None)
    part = json.loads(out.read_text())["parts"]["vivit_tiny/training/eager"]
    assert part["error"] == "OutOfMemoryError: no memory left"
    assert "Not measured: vivit_tiny/training/eager (OutOfMemoryError" in table.table(record.records(tmp_path))
    record.run(out, only="training", say=lambda text: None)
    assert "error" not in json.loads(out.read_text())["parts"]["vivit_tiny/training/eager"]


@pytest.mark.parametrize("key", record.SAME)
def test_another_devices_record_is_not_gone_on_with(key, tiny, tmp_path):
    out = tmp_path / "device.json"
    record.run(out, only="training", say=lambda text: None)
    content = json.loads(out.read_text())
    content["machine"][key] = "another"
    out.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"made with {key} another"):
        record.run(out, say=lambda text: None)


def test_share_of_peak_is_that_of_the_counted_multiply_adds(monkeypatch):
    monkeypatch.setattr(measure, "interleaved", lambda steps, repeats, warm: {"ours": [0.5, 0.25, 0.1]})
    monkeypatch.setattr(measure, "CPU_SIZE", 64)
    subject, shares = TINY._replace(peer=None), {}
    for phase in measure.PHASES:
        part = measure.compare(subject, phase, False, CPU, 3, True)
        assert part["ours"]["clips_per_second"] == 4 and "theirs" not in part  # the median; one clip
        shares[phase] = measure.share_of_peak(part, 4e9)
        assert shares[phase] == pytest.approx((6 if phase == "training" else 2) * part["macs"] * 4 / 4e9)
    assert shares["training"] == 3 * shares["inference"]


def test_a_peer_that_cannot_be_imported_leaves_ours_and_its_reason(monkeypatch):
    def missing(config):
        raise ModuleNotFoundError("No module named 'somebody'")

    monkeypatch.setattr(measure, "CPU_SIZE", 64)
    part = measure.compare(TINY._replace(peer=missing), "inference", False, CPU, 1, True)
    assert part["without_peer"] == "somebody: No module named 'somebody'" and "theirs" not in part


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H200", 989.5),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
    ],
)
def test_published_peaks_are_known_by_the_names_that_devices_have(name, tera, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    found = measure.peak(torch.device("cuda"))
    assert found.flops == tera * 1e12 and found.source.startswith("published")


def test_the_peak_of_an_unknown_device_is_measured_and_named_so():
    found = measure.peak(CPU)
    assert found.flops > 1e8 and found.source == "measured, product of 2048 x 2048 matrices in float32"


def test_it_runs_where_only_torch_is_installed():
    absent = [
        "av",
        "decord",
        "IPython",
        "ipywidgets",
        "matplotlib",
        "typer",
        "psutil",
        "PIL",
        "pandas",
        "nbformat",
        "papermill",
    ]
    block = f"sys.modules.update(dict.fromkeys({absent}))"
    loaded = modules_after(f"import sys; {block}; import course_lib.bench.__main__")
    assert "course_lib.bench.measure" in loaded


def test_reading_is_measured_against_decoding_the_same_frames(tmp_path):
    paths = reading.write_videos(tmp_path, 2, 64, 80, 30)
    reading.decode_alone(paths[0], 29)
    with pytest.raises(ValueError, match="30 frames, but frame 30"):
        reading.decode_alone(paths[0], 30)
    found = reading.seconds_a_clip(paths, 4, 4, rounds=1)
    assert set(found) == {"bare", "read", "dataset"} and 0 < found["bare"] < 60 and found["read"] > 0


def test_the_loss_of_a_copy_is_what_was_changed(tmp_path):
    a = np.random.default_rng(0).integers(0, 200, (2, 8, 8, 3), np.uint8)
    assert packing.differences(a, a) == (0, 0) and packing.differences(a, a + 3) == (3, 9)
    before = reading.write_videos(tmp_path, 1, 96, 128, 20)[0]
    after, rough = tmp_path / "small.mp4", tmp_path / "rough.mp4"
    for path, crf in ((after, 10), (rough, 45)):
        packing.transcode(before, path, 64, 60.0, 250, crf)
    fine, coarse = packing.loss(before, after), packing.loss(before, rough)
    assert 0 < fine[0] < coarse[0] and fine[1] < coarse[1]


def test_scale_is_arithmetic_on_the_records(monkeypatch):
    monkeypatch.setattr(scale, "SUBJECTS", [one for one in measure.SUBJECTS if one.name in ("r3d_18", "vidtr_s_8x224")])
    part = {
        "clip": "8x32",
        "seconds": {"bare": 0.03, "read": 0.03, "dataset": 0.06},
        "files": {"count": 1, "height": 256, "width": 340, "frames": 250, "bytes": 250_000.0},
    }
    training = {"phase": "training", "network": "r3d_18", "ours": {"clips_per_second": 200.0}}
    made_up = {"machine": {"device": "H", "processor": "P"}, "parts": {"reading/8x32": part, "a": training}}
    page = scale.scale({"one": made_up})
    # 240,000 clips x 0.06 s = 4 core hours; x 250 kB = 60 GB; 100 clips/s = 25 MB/s; 240,000 / 200 / 3600 = 0.33 h
    assert "| 8 x 32 | 0.060 | 6.0 | 4.0 | 60 GB | 25 MB/s | P |" in page
    row = next(line for line in page.splitlines() if line.startswith("| `r3d_18`"))
    products = scale.multiply_adds("r3d_18")
    assert "| 200 (H) | 0.33 |" in row and f"| {0.4 * 989.5e12 / (6 * products) * 0.06:.0f} |" in row
    assert page.count("not measured | not measured") == 1
