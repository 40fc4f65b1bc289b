"""A lecture trains nothing: it shows what was trained, and says so where that was not kept."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell
from torch import nn

from course_lib import lesson, profiles
from course_lib.experiments import Arm, load_set, run, trained
from course_lib.experiments import data as data_module
from course_lib.models import build
from course_lib.notebooks import MINUTES, answers
from course_lib.profiles import PROFILES
from course_lib.training.optim import TrainConfig

CPU = replace(PROFILES["smoke"], name="cpu", clips=80, size=32, steps=3, batch=4)
TALK = replace(CPU, replays=True)
LESSONS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb"))
NAMES = re.compile(r'as_stored\([^"]*"([^"]+)"')
LONGER = TrainConfig(steps=9, peak_lr=1e-3, warmup=1)


def fresh(seed: int = 0, **changes) -> nn.Module:
    torch.manual_seed(seed)
    return build("timesformer_tiny", classes=10, frames=8, size=32, **changes)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A network that was trained and kept, its clips and its records."""
    folder = tmp_path_factory.mktemp("lecture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained, "FOLDER", folder / "kept")
        patch.setattr(lesson, "DATA", folder)
        net, data = fresh(), load_set("L", CPU, progress=False)
        unkept = lesson.study(net, data, CPU, "x")
        assert not (folder / "kept").exists(), "only a notebook that is being stored keeps its networks"
        patch.setenv(trained.KEEPS, "yes")
        assert lesson.study(net, data, CPU, "x") == unkept
        yield net, data, unkept


def logits(net, data):
    with torch.no_grad():
        return net.eval()(lesson.to_clips(data.test[:4]))


def test_a_lecture_gets_the_network_and_the_curve_of_the_run_that_was_kept(learned, capsys):
    net, data, steps = learned
    talked = load_set("L", TALK, progress=False)
    again = fresh(seed=1)
    assert lesson.study(again, talked, TALK, "x") == steps
    assert "trained before: x on set L: 3 steps" in capsys.readouterr().out
    found, wanted = logits(again, talked), logits(net, data)
    assert not torch.equal(logits(fresh(seed=1), data), wanted)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.01)  # kept in half precision


def test_a_lecture_reads_the_first_clips_of_each_split_alone_and_decodes_them_once(learned, monkeypatch, tmp_path):
    _, whole, _ = learned
    monkeypatch.setattr(data_module, "LECTURE", 8)
    monkeypatch.setattr(data_module, "DECODED", tmp_path)
    first = load_set("L", TALK, progress=False)
    monkeypatch.setattr(data_module, "preload", None)  # would decode again
    for few in (first, load_set("L", TALK, progress=False)):
        assert few.classes == whole.classes and few.partner is None
        for part in ("train", "train_labels", "test", "test_labels"):
            assert len(getattr(few, part)) == 8 and torch.equal(getattr(few, part), getattr(whole, part)[:8])
    with pytest.raises(TypeError):  # other frames are not those that were kept
        load_set("L", TALK, progress=False, frames=4)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (dict(name="y"), r"y-L-s0\.safetensors: this training has not been kept.*`course notebooks NN`"),
        (
            dict(config=TrainConfig(steps=9, peak_lr=1e-3, warmup=1)),
            "another recipe .*steps 3 there, 9 here.*course notebooks",
        ),
        (dict(net=dict(attention="space")), "is of another network.*time"),
    ],
    ids=["none", "recipe", "network"],
)
def test_what_was_not_kept_is_not_made_up(what, says, learned):
    _, data, _ = learned
    net = fresh(**what.get("net", {}))
    with pytest.raises(ValueError, match=rf"(?s){says}"):
        lesson.study(net, data, TALK, what.get("name", "x"), config=what.get("config"))


def test_a_lecture_follows_the_recipes_of_the_cpu_profile_and_records_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_KINETICS", str(tmp_path))
    talk = profiles.active("lecture")
    assert (talk.name, talk.title, talk.kinetics) == ("cpu", "lecture", "")
    assert talk.settings() | {"purpose": ""} == PROFILES["cpu"].settings() | {"purpose": ""}
    with pytest.raises(ValueError, match=r"profile lecture trains nothing.*use cpu"):
        run(Arm("i3d_tiny", "L"), talk, 0, tmp_path)


@pytest.fixture
def kept_in(tmp_path, monkeypatch):
    monkeypatch.setattr(lesson, "KEPT", tmp_path)
    monkeypatch.delenv(trained.KEEPS, raising=False)
    return tmp_path


def test_a_lecture_shows_what_the_stored_run_counted_and_says_of_when_it_is(kept_in, monkeypatch, capsys):
    def count():
        return {"a": (1, 2.5)}

    assert lesson.as_stored("00-x", count, CPU) == {"a": [1, 2.5]} and not any(kept_in.iterdir())
    monkeypatch.setenv(trained.KEEPS, "yes")
    assert lesson.as_stored("00-x", count, CPU) == {"a": [1, 2.5]}
    assert capsys.readouterr().out == ""
    assert lesson.as_stored("00-x", lambda: 1 / 0, TALK) == {"a": [1, 2.5]}
    assert re.match(r"00-x: kept from the cpu run of 20\d\d-\d\d-\d\d \(CPU, ", capsys.readouterr().out)


def test_what_was_not_kept_is_computed_and_the_command_that_keeps_it_is_named(kept_in, capsys):
    assert lesson.as_stored("07-x", lambda: 3, TALK) == 3
    assert capsys.readouterr().out == "07-x: not kept yet, so computed now; `course notebooks 07` keeps it\n"


@pytest.mark.parametrize("profile", [CPU, TALK], ids=["cpu", "lecture"])
def test_what_no_file_could_keep_is_refused_in_every_profile(profile, kept_in):
    with pytest.raises(TypeError, match=r"00-x: Object of type Tensor .*keep numbers, words, lists and dicts"):
        lesson.as_stored("00-x", lambda: {"a": torch.zeros(2)}, profile)


def test_all_that_lessons_ask_for_was_kept_and_nothing_else():
    asked = {}
    for path in LESSONS:
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        named = [name for cell in cells for name in NAMES.findall("".join(cell["source"]))]
        calls = sum(len(re.findall(r"as_stored\(", "".join(cell["source"]))) for cell in cells)
        assert len(named) == calls and all(name.startswith(f"{path.name[:2]}-") for name in named)
        asked |= dict.fromkeys(named, path.name)
    assert len(asked) > 12
    assert {path.stem for path in lesson.KEPT.iterdir()} == set(asked)
    assert sum(path.stat().st_size for path in lesson.KEPT.iterdir()) < 2e6
    for path in lesson.KEPT.iterdir():
        assert set(json.loads(path.read_text())) == {"value", "date", "machine"}


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lecture_opened_in_20_seconds_and_no_cell_took_a_second_of_the_processor_where_it_was_measured(path):
    run = json.loads(MINUTES.read_text())[path.stem]["lecture"]
    assert run["opening_seconds"] < 20
    assert run["slowest_cell"]["of_the_processor"] < 1 and run["processor_seconds"] == {}


def test_the_readme_says_how_long_lectures_took():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    runs = [json.loads(MINUTES.read_text())[path.stem]["lecture"] for path in LESSONS]
    through = [60 * run["minutes"] for run in runs]
    opened, slowest = (
        max(run["opening_seconds"] for run in runs),
        max(run["slowest_cell"]["by_the_clock"] for run in runs),
    )
    said = f"all twelve opened in {opened:.0f} seconds and ran through in {min(through):.0f} to {max(through):.0f}; "
    assert f"{said}no cell took longer than {slowest} s by the clock" in " ".join(readme.split())


def test_what_is_said_of_a_lecture_is_what_its_cells_took():
    def cell(source, start, end):
        times = {"iopub.execute_input": f"2026-01-01T00:00:{start}Z", "shell.execute_reply": f"2026-01-01T00:00:{end}Z"}
        return new_code_cell(source, metadata={"execution": times})

    cells = [
        cell("import torch", "01", "05"),
        cell("opening(x)", "05", "09"),
        new_code_cell(""),
        new_markdown_cell("x"),
    ]
    cells += [cell("slow", "09", "12"), cell("busy", "12", "13")]
    said = answers(cells, [9.0, 9.0, 0.5, 1.5], datetime(2026, 1, 1, tzinfo=UTC))
    slow, busy = (one.id for one in cells[-2:])
    assert said == {
        "opening_seconds": 9.0,
        "slowest_cell": {"by_the_clock": 3.0, "of_the_processor": 1.5},
        "cell_seconds": {slow: 3.0},
        "processor_seconds": {busy: 1.5},
    }
