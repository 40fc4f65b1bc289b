"""Profiles, the doctor and the course command: plain answers, and an exit status that means something."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from course_lib import doctor, profiles
from course_lib.cli import app
from course_lib.machine import commit

command = CliRunner()


def test_a_profile_is_chosen_by_name_then_environment_then_cpu(monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    assert profiles.active().name == "cpu"
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    assert profiles.active().name == "smoke" and profiles.active("gpu").name == "gpu"


@pytest.mark.parametrize("where", ["argument", "environment"])
def test_an_unknown_profile_raises_and_lists_those_there_are(where, monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "gpuu" if where == "environment" else "cpu")
    with pytest.raises(ValueError, match="unknown profile 'gpuu': there are smoke, cpu, gpu, lecture"):
        profiles.active("gpuu" if where == "argument" else "")


def test_a_forecast_is_a_measurement_or_says_that_there_is_none(tmp_path):
    record = tmp_path / "minutes.json"
    assert "nobody has measured" in profiles.forecast("06", profiles.active("gpu"), record)
    record.write_text(json.dumps({"06": {"cpu": {"minutes": 4.25, "memory_gb": 1.5, "device": "CPU, 2 threads"}}}))
    text = profiles.forecast("06", profiles.active("cpu"), record)
    assert "4.2 minutes" in text and "1.5 GB" in text and "CPU, 2 threads" in text


def test_the_doctor_finds_python_torch_and_a_decoder_that_decodes():
    findings = {finding.name: finding for finding in doctor.examine()}
    sets = ["data", "kinetics", "ssv2"]
    assert list(findings) == ["system", "Python", "torch", "GPU", "decoder", "disk", *sets, "browser", "box"]
    for name in ("Python", "torch", "decoder"):
        assert findings[name].ok, findings[name]


def test_the_doctor_is_not_content_with_a_decoder_that_returns_another_picture(monkeypatch):
    monkeypatch.setattr("course_lib.video.read_frames", lambda path, indices: np.zeros((2, 32, 32, 3), np.uint8))
    assert not doctor.decoder().ok


def test_the_doctor_has_a_remedy_for_everything_that_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    for finding in (doctor.data(tmp_path), doctor.disk(tmp_path, needed=1e9), doctor.browser()):
        assert not finding.ok and finding.remedy and "\n" not in finding.remedy


def test_the_doctor_sends_windows_to_wsl_and_accepts_a_cpu_build_of_the_pinned_torch_only(monkeypatch):
    import torch

    pin = next(line for line in requires("course_lib") if line.startswith("torch=="))
    for found, ok in ((pin[7:] + "+cpu", True), (pin[7:], True), ("1.0.0", False)):
        monkeypatch.setattr(torch, "__version__", found)
        assert doctor.torch().ok is ok and pin in doctor.torch().remedy
    monkeypatch.setattr(doctor.sys, "platform", "win32")
    assert not doctor.system().ok and "WSL" in doctor.system().remedy


def test_the_commit_is_that_of_the_checkout_and_unknown_without_git(monkeypatch):
    checkout = Path(__file__).parents[1]

    def told() -> str:
        if not (checkout / ".git").exists():  # an unpacked archive, perhaps inside the checkout of something else
            return "unknown"
        describe = ["git", "-C", checkout, "describe", "--always", "--dirty"]
        return subprocess.run(describe, capture_output=True, text=True).stdout.strip() or "unknown"

    before, found, after = told(), commit(), told()
    assert found in (before, after)  # somebody may edit a file meanwhile
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown"


def test_a_check_that_breaks_is_a_finding_not_a_crash(monkeypatch):
    def broken():
        raise OSError("no such device")

    monkeypatch.setattr(doctor, "CHECKS", (broken,))
    (finding,) = doctor.examine()
    assert not finding.ok and "no such device" in finding.found and finding.remedy


def test_the_doctor_names_the_box_or_says_that_nothing_but_grading_needs_one(monkeypatch):
    monkeypatch.setattr("course_lib.grading.box.shutil.which", lambda name: None)
    found = doctor.box()
    assert found.ok and found.found.startswith("none, which course grade alone needs: ") and "bubblewrap" in found.found


def test_the_doctors_exit_status_says_whether_something_is_wrong(monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", (lambda: doctor.Finding("disk", True, "plenty"),))
    assert command.invoke(app, ["doctor"]).exit_code == 0
    monkeypatch.setattr(doctor, "CHECKS", (lambda: doctor.Finding("disk", False, "full", "free some"),))
    result = command.invoke(app, ["doctor"])
    assert result.exit_code == 1 and "WRONG disk" in result.output and "remedy: free some" in result.output


def test_data_make_writes_a_set_that_data_check_finds_whole_or_changed(tmp_path):
    options = [
        "--set",
        "M",
        "--clips",
        "80",
        "--size",
        "32",
        "--frames",
        "8",
        "--workers",
        "0",
        "--root",
        str(tmp_path),
    ]
    made = command.invoke(app, ["data", "make", *options])
    assert made.exit_code == 0, made.output
    assert "every file as listed" in command.invoke(app, ["data", "check", str(tmp_path)]).output
    clip = next(tmp_path.rglob("*.mp4"))
    clip.write_bytes(clip.read_bytes()[:-1])
    checked = command.invoke(app, ["data", "check", str(tmp_path)])
    assert checked.exit_code == 1 and clip.name in checked.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data", "make", "--set", "Z", "--clips", "40"], "no set 'Z'"),
        (["data", "make", "--set", "M", "--clips", "41"], "clips=41"),
        (["data", "small", "--profile", "big"], "unknown profile 'big'"),
        (["experiment", "C99"], "unknown experiment 'C99'"),
        (["experiment", "C1", "--profile", "big"], "unknown profile 'big'"),
        (["experiment", "C1", "--set", "K", "--kinetics", "nowhere"], "--set K: nothing to run it on"),
        (["notebooks", "no-such-lesson"], "no notebook"),
    ],
)
def test_wrong_words_get_a_sentence_and_exit_status_1(arguments, words, tmp_path):
    root = ["--root", str(tmp_path)] if arguments[0] == "data" else []
    result = command.invoke(app, [*arguments, *root])
    assert result.exit_code == 1 and words in result.output and "Traceback" not in result.output
