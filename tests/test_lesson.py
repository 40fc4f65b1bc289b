"""The frame of a lesson: results that wait for a guess, trainings in sight that go on, recorded runs side by side."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from course_lib import lesson
from course_lib.experiments import Data
from course_lib.figures.curves import LiveCurve
from course_lib.grading.checks import Verdict
from course_lib.grid import Grid
from course_lib.layers.schemes import SPACE, TIME
from course_lib.lesson import (
    answered,
    both_ways,
    computes,
    explore_variants,
    interval_table,
    masks,
    most_moving,
    opening,
    reveal,
    study,
    turned,
)
from course_lib.models import build
from course_lib.profiles import PROFILES, forecast

SMOKE = replace(PROFILES["smoke"], steps=6, batch=4)
SMALL = dict(size=32, dim=16, depth=1, heads=2, classes=2)


def page(revealed) -> str:
    return revealed._repr_html_()


def test_without_a_guess_the_result_is_folded_and_still_there():
    for nothing in (None, ...):
        asked = reveal(nothing, 50.0, "%")
        assert "<details><summary>Commit to a number first</summary>" in page(asked)
        assert "50 %" in page(asked).split("</summary>")[1] and page(asked).endswith("</details>")
        assert "50" not in repr(asked), "the plain text does not give it away"
    assert "a choice first: space, joint" in page(reveal(None, "joint", choices=("space", "joint")))


@pytest.mark.parametrize(
    ("guess", "says"),
    [
        (79, "You said 79 %, 29 points too high. It is 50 %."),
        (30, "You said 30 %, 20 points too low. It is 50 %."),
        (46, "You said 46 %: right. It is 50 %."),
        (torch.tensor(50.0), "You said 50 %: right. It is 50 %."),
        ("half", "'half' is no number: give one, in %."),
        (float("nan"), "nan is no number: give one, in %."),
    ],
)
def test_a_guess_is_told_how_far_off_it_was_and_sees_the_result_unfolded(guess, says):
    found = reveal(guess, 50.0, "%")
    assert repr(found) == says and html.unescape(page(found)) == f"<p>{says}</p>"


def test_how_near_a_number_has_to_be_is_for_the_lesson_to_say():
    assert "right" in repr(reveal(12, 10.4, "frames", tolerance=2))
    assert (
        repr(reveal(12, 10.4, "frames", tolerance=1)) == "You said 12 frames, 1.6 frames too high. It is 10.4 frames."
    )


def test_a_choice_is_right_or_wrong_and_one_that_is_none_gives_nothing_away():
    two = ("space", "divided")
    assert repr(reveal("Space ", "space", choices=two)).startswith("You said Space : right.")
    assert repr(reveal("divided", "space", choices=two)) == "You said divided. The answer: space."
    assert repr(reveal("dvided", "space", choices=two)) == "'dvided' is none of the choices: space, divided."


def test_in_the_smoke_profile_the_result_of_a_training_is_no_result():
    assert "means nothing" in repr(reveal(50, 48.0, "%", profile=SMOKE))
    assert "means nothing" in page(reveal(None, 48.0, "%", profile=SMOKE))
    assert "means nothing" not in repr(reveal(50, 48.0, "%", profile=PROFILES["cpu"]))
    assert "means nothing" not in repr(reveal(50, 48.0, "%")), "a count is a count in every profile"


def test_what_a_guess_says_is_text_and_not_html():
    for revealed in (reveal("<b>", 1.0), reveal("<b>", "a"), reveal("b", "<b>"), reveal(None, "<b>")):
        assert "<b>" not in page(revealed)


def test_an_answer_is_used_once_it_is_right_and_a_line_says_whose_it_is(capsys):
    assert answered(1, Verdict(False, ""), 2, "the block") == 2
    assert answered(1, Verdict(True, ""), 2, "the block") == 1
    assert capsys.readouterr().out == "the block: the library's, until your answer is right\nthe block: yours\n"


def test_a_lesson_opens_with_its_profile_its_forecast_and_its_clips(capsys):
    opening("06_timesformer", PROFILES["cpu"])
    said = capsys.readouterr().out
    assert said.startswith(forecast("06_timesformer", PROFILES["cpu"])) and "2400 a set, 64 x 64 pixels" in said
    assert "In place of" not in said
    opening("06_timesformer", replace(PROFILES["cpu"], kinetics="/data/kinetics", ssv2="/data/ssv2"))
    said = capsys.readouterr().out
    assert "In place of A and L: Kinetics, in /data/kinetics." in said
    assert "In place of M and D: Something-Something v2, in /data/ssv2." in said


# Training in sight


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(lesson, "DATA", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def data() -> Data:
    """Eight clips of noise, two classes."""
    frames = torch.randint(0, 256, (8, 8, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 2
    return Data("A", frames, labels, frames[:4], labels[:4], ("one", "two"), None)


def fresh(**changes) -> nn.Module:
    torch.manual_seed(0)
    return build("timesformer_tiny", **SMALL | changes)


class StoppedAfterTwo(LiveCurve):
    def add(self, loss: float, accuracy: float) -> None:
        super().add(loss, accuracy)
        if len(self.values) == 2:
            raise KeyboardInterrupt


def test_a_stopped_training_says_how_to_go_on_and_ends_as_if_never_stopped(here, data, monkeypatch, capsys):
    whole = fresh()
    study(whole, data, SMOKE, "whole")
    monkeypatch.setattr(lesson, "LiveCurve", StoppedAfterTwo)
    net = fresh()
    with pytest.raises(KeyboardInterrupt, match="Stopped at 2 of 6, saved; run this cell again"):
        study(net, data, SMOKE, "stopped")
    monkeypatch.undo()
    monkeypatch.setattr(lesson, "DATA", here)
    starts, draw = [], LiveCurve.__init__
    monkeypatch.setattr(LiveCurve, "__init__", lambda self, *given: starts.append(given[2]) or draw(self, *given))
    records = study(net, data, SMOKE, "stopped")  # with the network of the first call, as in two cells
    assert starts == [[(step.loss, step.accuracy) for step in records[:2]]], "the curve goes on too"
    assert [step.number for step in records] == list(range(6))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), whole.parameters(), strict=True))
    assert re.search(r"stopped on set A: 6 steps in \d+ s, \d+\.\d\d s a step", capsys.readouterr().out)


def test_a_finished_training_is_read_back(here, data):
    first, again = fresh(), fresh()
    records = study(first, data, replace(SMOKE, kinetics="/elsewhere"), "x")  # where it lies does not matter
    assert study(again, data, SMOKE, "x") == records and len(list(here.rglob("*.safetensors"))) == 1
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


class Twice(nn.Module):
    """The parameters of another network, and another computation."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.config = net, net.config

    def forward(self, clip):
        return 2 * self.net(clip)


def test_a_run_of_other_code_of_another_seed_or_recipe_is_another_run(here, data):
    study(Twice(fresh()), data, SMOKE, "x")

    class Renamed(Twice):
        """It computes the same, under another name."""

    changed = Twice(fresh())
    changed.forward = lambda clip: 3 * changed.net(clip)
    for other in (
        lambda: study(changed, data, SMOKE, "x"),
        lambda: study(Twice(fresh()), data, SMOKE, "x", seed=1),
        lambda: study(Twice(fresh()), data, replace(SMOKE, peak_lr=1e-4), "x"),
        lambda: study(Renamed(fresh()), data, SMOKE, "x"),
        lambda: study(Twice(fresh()), data._replace(sha256="0123456789"), SMOKE, "x"),
        lambda: study(Twice(fresh()), data._replace(classes=("one", "other")), SMOKE, "x"),
    ):
        before = len(list(here.rglob("*.safetensors")))
        other()
        assert len(list(here.rglob("*.safetensors"))) == before + 1


def test_what_a_network_computes_does_not_depend_on_how_far_it_was_trained(data):
    net = build("i3d_tiny", classes=2)  # with batch norms, which count what they see
    small = data._replace(test=data.test.repeat(1, 2, 2, 2, 1)[:, :16])
    before, weights = computes(net, small), [p.clone() for p in net.parameters()]
    net(torch.randn(2, 3, 16, 64, 64))
    for parameter, weight in zip(net.parameters(), weights, strict=True):
        assert torch.equal(parameter, weight), "asking changes nothing"
        nn.init.normal_(parameter)
    assert computes(net, small) == before and net.training


# Records


def record(seed: int, attention: str, value: float) -> dict:
    arm = {"set_name": "D", "changes": {"attention": attention}}
    return {"arm": arm, "seed": seed, "scores": {"pair_accuracy": value}}


def test_an_interval_table_has_means_and_differences_seed_by_seed(monkeypatch):
    shown = []
    monkeypatch.setattr(lesson, "table", lambda header, rows: shown.extend([header, *rows]))
    found = [record(seed, "space", 0.5 + seed / 10) for seed in range(3)]
    found += [record(seed, "divided", 0.7 + seed / 10) for seed in range(3)]
    arms = {"space (S)": {"attention": "space"}, "divided": {"attention": "divided"}}
    interval_table(found, arms, {"D, pairs": ("D", "pair_accuracy")}, {"paper": {"space (S)": 36.6, "divided": 59.5}})
    header, space, divided, difference = shown
    assert header == ["mean (95 % interval), %", "D, pairs", "paper"]
    # 4.303 standard errors of 10 / sqrt(3) are 24.8 points; no share of clips is above 100 %
    assert space == ["space (S)", "60.0 (35.2 to 84.8)", 36.6] and divided[1] == "80.0 (55.2 to 100.0)"
    assert difference == ["divided minus space (S)", "20.0 (20.0 to 20.0)", "+22.9"], "seeds share their clips"


def test_an_interval_table_gives_one_run_no_interval(monkeypatch):
    shown = []
    monkeypatch.setattr(lesson, "table", lambda header, rows: shown.extend(rows))
    found = [record(0, "space", 0.5), *(record(seed, "divided", 0.75) for seed in range(2))]
    arms = {kind: {"attention": kind} for kind in ("space", "divided")}
    interval_table(found, arms, {"D": ("D", "pair_accuracy")})
    assert [row[1] for row in shown] == ["50.0 (one seed)", "75.0 (75.0 to 75.0)", "25.0 (one seed)"]


# Both ways


class Brightening(nn.Module):
    """Says 'up' if the last frame is brighter than the first."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, clip):
        rise = self.scale * (clip[:, :, -1] - clip[:, :, 0]).mean((1, 2, 3))
        return torch.stack([rise, -rise], 1)


RISING = torch.tensor([0, 80, 160, 255], dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 1, 3)  # T H W 3


def test_a_clip_and_its_reverse_are_shown_with_what_the_network_says_of_each(monkeypatch):
    shown = []
    monkeypatch.setattr(lesson, "show", lambda figure, alt: shown.append((figure, alt)))
    both_ways(Brightening().train(), [RISING], ("up", "down"))
    ((figure, alt),) = shown
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.texts] == ["forwards: up 1.00", "backwards: down 1.00"]
    there, back = axis.images[0], axis.images[4]  # the first frame of each
    assert there.get_array().max() == 0 and back.get_array().max() == 255
    assert "up 1.00, backwards down 1.00" in alt


def test_how_many_answers_turn_when_the_clips_are_played_backwards():
    still = torch.zeros_like(RISING)
    assert turned(Brightening(), [RISING, still, RISING.flip(0), RISING] * 8) == 0.75


def test_schemes_become_what_the_pictures_draw():
    drawn = masks({"divided": (TIME, SPACE)}, Grid(2, 1, 2))["divided"]
    assert [name for name, _ in drawn] == ["time", "space"]
    assert drawn[0][1].tolist() == [[True, False, True, False], [False, True, False, True]] * 2


def test_variants_can_be_clicked_on_a_generated_clip_of_their_size():
    found = explore_variants("timesformer_tiny", "attention", ("joint", "divided"), "divided", depth=1, size=(32, 48))
    assert (found.clip, found.source, list(found.relations)) == ([8, 32, 48], "divided", ["joint", "divided"])
    assert [layer.name for layer in found.relations["divided"]] == ["patch embed", "block 1 time", "block 1 space"]


def test_of_variants_some_layers_alone_can_be_shown_on_longer_clips():
    found = explore_variants("vtn_tiny", "window", (2, 8), 8, only="block", frames=40, size=32)
    assert (found.clip, list(found.relations)) == ([40, 32, 32], ["2", "8"])
    assert [layer.name for layer in found.relations["2"]] == ["block 1 band of 3", "block 2 band of 3"]
    with pytest.raises(ValueError, match="no layer of 2 begins with 'stage': there are backbone patch embed"):
        explore_variants("vtn_tiny", "window", (2,), 2, only="stage")


def test_the_first_patch_lies_where_the_picture_changes():
    film = torch.full((4, 32, 48, 3), 90, dtype=torch.uint8)
    film[2, 16:32, 32:48] = 255
    assert most_moving(film) == [2, 24, 40] and most_moving(film, 8)[0] == 2


def test_blind_networks_say_the_same_of_both(monkeypatch):
    shown = []
    monkeypatch.setattr(lesson, "show", lambda figure, alt: shown.append(alt))
    net = fresh(attention="space")
    assert net.config.schemes == (SPACE,)
    clip = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    both_ways(net, [clip], ("a", "b"))
    one, two = re.search(r"says: (.*), backwards (.*)\.$", shown[0]).groups()
    assert one == two
