"""The checks of the exercises: right answers pass however they are written, wrong ones get a sentence that helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.grading.checks import (
    Verdict,
    judge,
    parameter_count,
    reaches_exactly,
    same_numbers,
    same_shape,
    same_value,
)
from course_lib.layers.attention import GridAttention
from course_lib.layers.schemes import SPACE, TIME

GRID = (2, 2, 3)


def test_swapped_axes_are_named_in_words():
    verdict = same_shape(torch.zeros(2, 196, 8, 768), (2, 8, 196, 768), "b t n d")
    assert str(verdict) == (
        "Not yet: expected b t n d = (2, 8, 196, 768), you have (2, 196, 8, 768): did you swap time and space?"
    )


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "nothing there yet"),
        (..., "nothing there yet"),
        ([1, 2], "you have a list"),
        (torch.zeros(2, 3), "2 axes instead of 3"),
        (torch.zeros(4, 2, 3), "the right lengths in another order"),
        (torch.zeros(2, 3, 5), "features is 5 instead of 4"),
    ],
)
def test_wrong_shapes_get_a_reason(found, sentence):
    verdict = same_shape(found, (2, 3, 4), "b n d")
    assert not verdict and sentence in str(verdict)


def test_right_shapes_pass_for_tensors_and_arrays():
    assert same_shape(torch.zeros(2, 3), (2, 3)) and same_shape(np.zeros((2, 3)), (2, 3))


def test_numbers_may_differ_by_rounding_only():
    x = torch.randn(3, 4)
    assert same_numbers(x + 1e-6, x)
    assert not same_numbers(x + 1e-2, x)
    assert same_numbers(x.numpy(), x)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x * 8, "8 times what they should be"),
        (lambda x: x.flip(0), "axis 0 is reversed"),
        (lambda x: x.T, "axes 0 and 1 are swapped"),
        (lambda x: x.masked_fill(x > 0, float("nan")), "nan or infinite"),
        (lambda x: x + torch.eye(4), "the numbers differ by up to 1"),
    ],
)
def test_wrong_numbers_get_the_likely_cause(change, sentence):
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    verdict = same_numbers(change(x), x)
    assert not verdict and sentence in str(verdict)


def test_a_scheme_is_recognised_however_it_is_written():
    net = GridAttention(8, 2, TIME).double().eval()

    def loops(x):  # no fold, one place at a time
        y = torch.zeros_like(x)
        for h in range(x.shape[2]):
            for w in range(x.shape[3]):
                y[:, :, h, w] = x[:, :, h, w].softmax(1).sum(1, keepdim=True) + x[:, :, h, w] ** 2
        return y

    assert reaches_exactly(net, TIME, GRID) and reaches_exactly(loops, TIME, GRID)


def test_a_wrong_reach_names_the_first_wrong_pair():
    verdict = reaches_exactly(GridAttention(8, 2, SPACE).double().eval(), TIME, GRID)
    assert not verdict
    assert "token (t=0, h=0, w=0) sees what it should not: token (t=0, h=0, w=1)" in str(verdict)
    assert "does not see what it should: token (t=1, h=0, w=0)" in str(verdict)


def test_a_function_that_stops_is_an_answer_not_a_crash():
    assert "stops with ZeroDivisionError" in str(judge(lambda found: same_value(found, 1), lambda x: x / 0, 1))
    assert judge(lambda found: same_value(found, 3), lambda x, y: x + y, 1, 2)
    assert "stops with ZeroDivisionError" in str(reaches_exactly(lambda x: x / (1 // 0), TIME, GRID))
    assert "stops with AttributeError" in str(reaches_exactly(lambda x: None, TIME, GRID))


def test_parameters_are_counted():
    assert parameter_count(nn.Linear(3, 4), 16)
    assert "4 too few" in str(parameter_count(nn.Linear(3, 4, bias=False), 16))
    assert "nothing yet" in str(parameter_count(None, 16))


def test_single_answers_are_compared_in_their_unit():
    assert same_value(torch.tensor(42), 42) and same_value(" Time ", "time")
    assert "too large" in str(same_value(43, 42, "pairs"))
    assert same_value(11.2, 11, tolerance=0.05) and not same_value(12, 11, tolerance=0.05)
    assert "expected one number" in str(same_value([1, 2], 3))
    assert "nothing there yet" in str(same_value(None, 3))


def test_the_first_failure_speaks():
    right, wrong = Verdict(True, "yes"), Verdict(False, "no")
    assert right & right and str(right & wrong) == "Not yet: no" == str(wrong & right)
