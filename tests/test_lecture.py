"""A lecture trains nothing: it shows what was trained, and says so where that was not kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from course_lib import lesson, profiles
from course_lib.experiments import Arm, load_set, run, trained
from course_lib.experiments import data as data_module
from course_lib.models import build
from course_lib.profiles import PROFILES
from course_lib.training.optim import TrainConfig

CPU = replace(PROFILES["smoke"], name="cpu", clips=80, size=32, steps=3, batch=4)
TALK = replace(CPU, replays=True)
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


def test_a_lecture_reads_the_first_clips_of_each_split_alone(learned, monkeypatch):
    _, whole, _ = learned
    monkeypatch.setattr(data_module, "LECTURE", 8)
    few = load_set("L", TALK, progress=False)
    for part in ("train", "train_labels", "test", "test_labels"):
        assert len(getattr(few, part)) == 8 and torch.equal(getattr(few, part), getattr(whole, part)[:8])


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
