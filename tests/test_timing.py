"""Timing runs what it is given as often as it says; kept weights are counted from the schemes."""

from __future__ import annotations

import pytest

from course_lib.analysis.timing import block_seconds, fastest, weight_megabytes
from course_lib.grid import Grid
from course_lib.layers.attention import MultiHeadAttention
from course_lib.layers.schemes import JOINT, SPACE, TIME
from course_lib.models.timesformer import Block


def test_one_run_warms_up_and_is_not_counted(monkeypatch):
    calls, clock = [], iter([0, 1, 10, 13, 20, 22])  # three runs: 1, 3 and 2 seconds
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert fastest(lambda: calls.append(1), repeats=2) == 2 and len(calls) == 3


@pytest.mark.parametrize("written_out", [False, True])
def test_a_block_is_timed_by_the_way_that_was_asked_for(written_out, monkeypatch):
    seen = []
    inner = MultiHeadAttention.mix

    def mix(self, *given, **more):
        seen.append(self.recorder is not None)
        kept.append(len(self.recorder.__self__) if self.recorder else 0)  # a list's append
        return inner(self, *given, **more)

    kept = []
    monkeypatch.setattr(MultiHeadAttention, "mix", mix)
    grid = Grid(2, 2, 2)
    assert block_seconds(Block(8, 2, 16, (TIME, SPACE), 0.0), grid, 8, written_out, repeats=1) > 0
    assert seen == [written_out] * 4  # two layers, twice
    assert kept == [0] * 4, "weights of earlier passes are still held, and slow the next one"


def test_kept_weights_are_four_bytes_for_each_pair_and_head():
    grid = Grid(8, 14, 14)
    assert weight_megabytes([JOINT], grid) == pytest.approx(1568**2 * 12 * 4 / 1e6)
    assert weight_megabytes([TIME, SPACE], grid) == pytest.approx((196 * 8**2 + 8 * 196**2) * 12 * 4 / 1e6)
