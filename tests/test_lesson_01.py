"""What lesson 01 says in prose is what the library counts and the recorded runs say."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from course_lib.analysis.cost import cost
from course_lib.analysis.intervals import Interval, interval
from course_lib.experiments import by_seed, paired, records
from course_lib.experiments.full import start
from course_lib.experiments.inputs import late_fusion
from course_lib.models import build
from course_lib.models.i3d import LAYERS, Mix, same_padding
from course_lib.profiles import PROFILES

PATH = Path(__file__).parents[1] / "notebooks" / "01_i3d.ipynb"


@pytest.fixture(scope="module")
def prose() -> str:
    cells = nbformat.read(PATH, as_version=4).cells
    return " ".join(" ".join(cell.source.split()) for cell in cells if cell.cell_type == "markdown")


def test_the_reach_and_the_padding_are_those_of_the_layers(prose):
    seen, apart, reach = 1, 1, {}
    for name, layer in LAYERS.items():
        kernel, stride = (3, 1) if isinstance(layer, Mix) else (layer.kernel[0], layer.stride[0])
        seen, apart = seen + (kernel - 1) * apart, apart * stride
        reach[name] = seen
    assert f"{reach['conv_1a']} for the first layer of I3D alone, {reach['conv_2c']} up to `conv_2c`" in prose
    assert f"A unit of `pool_4a` sees {reach['pool_4a']} frames" in prose and reach["mixed_5c"] > 64
    ((before, after),) = same_padding((64,), (7,), (2,))
    assert f"it is not ({before} before, {after} after)" in prose.replace("It is", "it is")
    starts = range(-before, 64 + after - 7 + 1, 2)
    edges = sum(start < 0 or start + 7 > 64 for start in starts)
    assert f"{edges} for the first layer, `at_the_edges(64, 7, 2)`" in prose


def test_what_the_full_network_costs(prose):
    with torch.device("meta"):
        rgb, flow = (build(name) for name in ("i3d_inception", "i3d_inception_flow"))
    counts = [cost(net, (1, net.config.colours, *net.config.clip)) for net in (rgb, flow)]
    assert f"have {sum(count.parameters for count in counts) / 1e6:.0f} M parameters, as the paper says" in prose
    one, both = counts[0].macs / 1e9, sum(count.macs for count in counts) / 1e9
    assert f"108 G multiply-adds for RGB and 216 for both. We count {one:.0f} and {both:.0f}" in prose
    with torch.device("meta"):
        image = build("i3d_inception", image=True)
    flat = cost(image, (1, 3, *image.config.clip))
    assert 1.9 < counts[0].parameters / flat.parameters < 2.2 and "for twice its parameters" in prose
    assert 1 < counts[0].macs / flat.macs < 1.2 and "needs hardly more operations" in prose


# The recorded runs. Remade by `course experiment C11` and `course experiment C7`; these hold for any number of seeds.

RGB, FLOW, GREY = {"shown": None, "colours": None}, {"colours": 2}, {"shown": "grey"}


def ahead(set_name: str, steps: int, measure: str = "accuracy") -> Interval:
    """By how many points the start from stills is ahead."""
    found = records("C11", "cpu") + records("tiny", "cpu")
    nothing, stills = (
        by_seed(found, set_name, measure, network="i3d_tiny", start=start, steps=steps) for start in (None, "inflated")
    )
    assert len(nothing) == len(stills) >= 3
    return interval([100 * (after - before) for before, after in zip(nothing, stills, strict=True)])


def test_a_start_from_stills_is_a_head_start_where_looks_decide(prose):
    short = ahead("L", 50)
    assert short.low > 0 and short.mean > 20 and "more than 20 points ahead, an interval far from zero" in prose
    long = by_seed(records("tiny", "cpu"), "L", "accuracy", network="i3d_tiny", start=None, steps=200)
    assert len(long) >= 3 and min(long) > 0.97 and "wrong in fewer than 3 % of the clips" in prose


def test_the_verdicts_say_what_the_records_say(prose):
    c7, c11 = records("C7", "cpu"), records("C11", "cpu") + records("tiny", "cpu")
    ahead = paired(c7, "D", "accuracy", RGB, FLOW)
    assert len(ahead) >= 5 and min(ahead) > 0 and interval(ahead).low > 0
    assert (
        min(by_seed(c7, "D", "accuracy", **FLOW)) > 0.98
        and "flow alone is right in nearly all clips, in every run" in prose
    )
    for shown in ("grey", "difference"):
        alone = by_seed(c7, "D", "accuracy", shown=shown)
        assert len(alone) >= 3 and min(alone) > 0.98
    grey, behind = (paired(c7, "D", "accuracy", RGB, GREY), paired(c7, "D", "accuracy", GREY, FLOW))
    assert len(grey) == len(behind) == 3 and min(grey) > 0 and interval(grey).low < 0
    assert "whether it is about motion, three runs cannot tell" in prose
    assert "are ahead of colours in every run, by an interval that holds zero, and one point behind flow" in prose
    assert interval(behind).low > 0 and round(100 * np.mean(behind)) == 1
    assert "three runs of grey frames the interval of their gap to colours holds zero" in prose
    assert "flow is still one point ahead of them, by an interval above zero" in prose
    assert (
        "A network on **grey** frames is right in nearly all clips as well, in every run, and so is one on differ"
        in prose
    )
    labels, colours, motion = (
        by_seed(c7, "D", what, **arm) for what, arm in (("labels", RGB), ("logits", RGB), ("logits", FLOW))
    )
    second = [late_fusion(*each) for each in zip(labels, colours, colours[1:] + colours[:1], strict=True)]
    both = [late_fusion(*each) for each in zip(labels, colours, motion, strict=True)]
    first = by_seed(c7, "D", "accuracy", **RGB)
    assert np.mean(second) - np.mean(first) > (np.mean(both) - np.mean(first)) / 2
    assert "brings more than half of that gain" in prose and min(both) > 0.98
    beyond = interval([y - x for x, y in zip(second, both, strict=True)])
    assert beyond.low > 0 and beyond.mean < 0.05 and "is a few points, an interval above zero" in prose
    on_l = {name: by_seed(c7, "L", "accuracy", **arm)[:3] for name, arm in (("rgb", RGB), ("flow", FLOW))}
    assert len(on_l["flow"]) == 3 and max(on_l["flow"]) < 0.3 and min(on_l["rgb"]) > 0.7
    assert "fewer than 30 %, in every run, colours in more than 70 %" in prose
    assert interval(paired(c7, "L", "accuracy", RGB, FLOW)).high < -0.2 and "lies far below zero" in prose

    nothing, stills = (dict(network="i3d_tiny", steps=50, start=start) for start in (None, "inflated"))
    ahead = paired(c11, "L", "accuracy", nothing, stills)
    assert (
        len(ahead) >= 5
        and interval(ahead).low > 0.2
        and "more than 20 points ahead, an interval far from zero" in prose
    )
    long = by_seed(c11, "L", "accuracy", network="i3d_tiny", steps=200, start=None)
    assert min(long) > 0.97 and "wrong in fewer than 3 % of the clips" in prose
    later = (arm | {"steps": 200} for arm in (nothing, stills))
    late = interval([100 * by for by in paired(c11, "L", "accuracy", *later)])
    assert late.low < 0 < late.high < 2
    assert f"{late.mean:.1f} points ahead, by an interval that holds zero and ends below 2 points: three runs" in prose
    behind = paired(c11, "D", "pair_accuracy", nothing, stills)
    assert len(behind) >= 3 and max(behind) < 0 and interval(behind).high < 0
    assert "behind within the pair, in every run, by an interval below zero" in prose


@pytest.mark.parametrize("name, rate", [("i3d_tiny", 0.1 / 64), ("r2plus1d_tiny", 0.01 / 32)])
def test_a_network_that_no_released_file_is_named_for_trains_as_its_paper_does(name, rate, tmp_path, capsys):
    """In lessons 01 and 03; a line says that it starts from nothing, and names no folder."""
    gpu = PROFILES["gpu"]
    config = start(build(name), gpu, folder=tmp_path)
    assert capsys.readouterr().out == "start: from nothing\n"
    assert (config.optimizer, config.peak_lr) == ("sgd", pytest.approx(rate * gpu.batch))
    lesson = {"i3d_tiny": "01_i3d", "r2plus1d_tiny": "03_r2plus1d"}[name]
    (fresh,) = (
        cell for cell in nbformat.read(PATH.with_stem(lesson), as_version=4).cells if "def fresh(" in cell.source
    )
    assert "config=start(net, profile)" in fresh.source
