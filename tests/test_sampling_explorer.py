"""The sampling explorer shows what its rules take, and leaves a still for readers without a kernel."""

from __future__ import annotations

import html
import re

import numpy as np
from matplotlib.figure import Figure

from course_lib.widgets.sampling import SamplingExplorer

RULES = {"first": lambda epoch: np.array([0, 1]), "by epoch": lambda epoch: np.array([epoch, epoch + 2])}


def explorer() -> SamplingExplorer:
    return SamplingExplorer(np.zeros((8, 4, 4, 3), np.uint8), RULES, "push", epochs=5)


def test_the_words_follow_rule_and_epoch():
    widget = explorer()
    assert widget.words.value == "first, epoch 0: frames 0, 1"
    widget.rule.value, widget.epoch.value = "by epoch", 3
    assert widget.words.value == "by epoch, epoch 3: frames 3, 5"
    assert "frames 3, 5" in widget.shown.value


def test_the_pictures_are_the_frames_of_the_rule_in_its_order(monkeypatch):
    shown = []
    monkeypatch.setattr(
        "course_lib.widgets.sampling.strips", lambda clips, titles, numbers: shown.append((clips, numbers)) or Figure()
    )
    film = np.arange(8, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    SamplingExplorer(film, {"late, early": lambda epoch: np.array([6, 2])})
    ((clip,), numbers) = shown[-1]
    assert [int(frame.max()) for frame in clip] == numbers == [6, 2]


def test_a_still_with_words_is_stored_beside_the_widget():
    widget = explorer()
    widget.rule.value = "by epoch"
    data = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and data["text/plain"] == widget.words.value
    alts = [html.unescape(alt) for alt in re.findall(r'<img alt="([^"]*)"', data["text/html"])]
    assert len(alts) == 2 and all("by epoch, epoch 0: frames 0, 2" in alt for alt in alts)
