"""What lesson 01 says in prose is what the library counts and the recorded runs say."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import torch

from course_lib.analysis.cost import cost
from course_lib.analysis.intervals import Interval, interval
from course_lib.experiments import by_seed, records
from course_lib.experiments.inputs import late_fusion
from course_lib.models import build
from course_lib.models.i3d import LAYERS, Mix, same_padding

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

RGB, FLOW = {"shown": None, "colours": None}, {"colours": 2}


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


def test_the_one_run_on_directions_is_told_as_one_run(prose):
    found = records("C11", "cpu")
    nothing, stills = (by_seed(found, "D", "accuracy", start=start, steps=50)[0] for start in (None, "inflated"))
    assert f"after 50 steps {100 * nothing:.0f} % from nothing and {100 * stills:.0f} % from stills" in prose


def test_flow_tells_directions_and_hardly_looks(prose):
    found = records("C7", "cpu")
    assert min(by_seed(found, "D", "accuracy", **FLOW)) > 0.99 and "flow alone is right in nearly all clips" in prose
    flow, rgb = (by_seed(found, "L", "accuracy", **given) for given in (FLOW, RGB))
    assert min(flow) > 0.125 and max(flow) < 0.3 and "flow alone is right in fewer than 30 %" in prose
    assert min(rgb) > 0.7 and "colours in more than 70 %" in prose


def fused(set_name: str, second: dict[str, object], later: int = 0) -> list[float]:
    found = records("C7", "cpu")
    labels, rgb = (by_seed(found, set_name, what, **RGB) for what in ("labels", "logits"))
    other = by_seed(found, set_name, "logits", **second)
    other = other[later:] + other[:later]
    return [late_fusion(*each) for each in zip(labels, rgb, other, strict=False)]


def test_what_flow_brings_on_directions_is_told_as_three_seeds_tell_it(prose):
    alone = by_seed(records("C7", "cpu"), "D", "accuracy", **RGB)[:3]
    two, flow = fused("D", RGB, later=1)[:3], fused("D", FLOW)[:3]
    gap = interval([100 * (y - x) for x, y in zip(alone, flow, strict=True)])
    assert f"colours in {100 * min(alone):.0f} to {100 * max(alone):.0f} %" in prose
    assert gap.low < 0 < gap.high and f"the gap, {gap.mean:.0f} points in the mean, holds zero" in prose
    left = interval([100 * (y - x) for x, y in zip(two, flow, strict=True)])
    assert 0 < left.low < 1 and f"is about {left.mean:.0f} points, an interval just above zero" in prose
    by_flow, by_two = (sum(found) - sum(alone) for found in (flow, two))
    assert by_two > by_flow / 2 and "a second network on colours brings more than half of that gain" in prose
    assert min(flow) > 0.99
