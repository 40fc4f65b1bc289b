"""Right, wrong or not graded; and what a sentence may say."""

from __future__ import annotations

import pytest
import tiny_homework as tiny
import torch

from course_lib.grading.checks import Verdict, same_list, same_numbers, same_outputs, same_value
from course_lib.grading.judge import STOPS, Found, alike, in_fixed_words, judge, told
from course_lib.grading.manifest import Check, Limits, Question
from course_lib.grading.source import load_hidden

HIDDEN = """
ANSWERS, NAMES, CASES = ["q"], ["f"], 2
def inputs(rng):
    return {"x": 1}
def call(answers, x):
    return answers.f(x)
def judge(found, expected, x):
    from course_lib.grading.checks import Verdict, same_numbers
    return {"numbers": (3, same_numbers(found, expected, quote=False)), "sum": (1, Verdict(bool(found.sum() > 0), "s"))}
"""
QUESTION = Question("q", "title", 4, ("q",), ("f",), cases=2, checks=(Check("numbers", 3), Check("sum", 1)))
RIGHT = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])]


def of(*cases: object, claim: object = None, hidden: str = HIDDEN, expected: list = RIGHT):
    """What is made of answers to both cases."""
    claim = {"cases": [{"gives": case} for case in cases]} if claim is None else claim
    asked = [{"x": 1}, {"x": 2}]
    return judge(QUESTION, load_hidden("q", hidden), asked, expected, Found(claim), Limits())


def test_right_is_all_points():
    found = of(*RIGHT)
    assert (found.outcome, found.points, found.reason) == ("right", 4, "")


def test_a_check_is_passed_only_if_it_is_in_every_case():
    found = of(RIGHT[0], torch.tensor([3.0, 5.0]))
    assert (found.outcome, found.points) == ("wrong", 1)
    assert [check.outcome for check in found.checks] == ["wrong", "right"]


@pytest.mark.parametrize(
    "answer",
    [RIGHT[1].double(), RIGHT[1].half(), RIGHT[1].bfloat16(), RIGHT[1].long(), RIGHT[1] + 1e-6],
    ids=["f64", "f16", "bf16", "int", "rounding"],
)
def test_another_kind_of_number_is_right(answer):
    assert of(RIGHT[0], answer).outcome == "right"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (torch.tensor([[3.0, 4.0]]), "expected"),
        (torch.tensor([3.0]), "expected"),
        (torch.tensor(3.0), "expected"),
        (torch.tensor([3.0, float("nan")]), "nan"),
        (torch.tensor([float("inf")] * 2), "nan or infinite"),
        ([3.0, 4.0], "a tensor is expected, you have a list"),
        (None, "a tensor is expected, you have nothing"),
        ("3, 4", "a tensor is expected, you have a text"),
        ({"a": 1}, "a tensor is expected, you have a dictionary"),
    ],
    ids=repr,
)
def test_another_shape_or_kind_is_wrong_and_said(answer, sentence):
    found = of(RIGHT[0], answer)
    assert found.outcome == "wrong" and sentence in found.reason


def test_infinite_where_infinite_is_expected_is_not_equal():
    infinite = [torch.tensor([1.0, float("inf")])] * 2
    assert of(*infinite, expected=infinite).outcome == "wrong"


@pytest.mark.parametrize(
    "claim",
    [
        None, 3, [], {}, {"cases": []}, {"cases": [{"gives": RIGHT[0]}]}, {"cases": 2}, {"cases": [1, 2]},
        {"cases": [{"gives": 1}] * 2, "points": 4}, {"outcome": "right"}, {"unsent": "Odd"}, {"unsent": ["x"]},
    ],
    ids=repr,
)  # fmt: skip
def test_a_claim_of_another_form_is_not_graded_and_never_0(claim):
    found = judge(QUESTION, load_hidden("q", HIDDEN), [{}, {}], RIGHT, Found(claim), Limits())
    assert (found.outcome, found.points, found.reason) == ("not_graded", None, STOPS["unreadable"])


@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_is_not_graded_and_says_the_limit(stop):
    found = judge(QUESTION, load_hidden("q", HIDDEN), [], [], Found(stop=stop), Limits(cell_s=7))
    assert found.outcome == "not_graded" and found.points is None and "{" not in found.reason
    assert stop != "time" or "7 s" in found.reason


def stops(name: object, cell: object = "", line: object = 0) -> dict:
    return {"cases": [{"stops": name, "cell": cell, "line": line}] * 2}


def test_not_attempted_and_not_defined_are_wrong():
    assert of(claim=stops("NotImplementedError")).reason == "numbers: not attempted"
    found = of(claim={"missing": ["f", "secret name"]})
    assert found.outcome == "wrong" and found.reason == "numbers: no answer: f is not defined"


def test_memory_is_not_graded_wherever_it_ended():
    assert of(claim=stops("MemoryError")).stop == "memory" == of(claim={"unsent": "MemoryError"}).stop
    assert of(claim={"unsent": "OSError"}).stop == "answer"


def test_whole_numbers_too_large_to_compare_are_wrong_and_said():
    found = of(claim={"unsent": "TooLarge"})
    assert (found.outcome, found.points) == ("wrong", 0) and "as large as 2**63" in found.reason


def test_in_fixed_words_marks_stay_and_no_sentence_of_a_check():
    found = in_fixed_words(QUESTION, of(RIGHT[0], torch.tensor([3.0, 5.0])), "with a right p in its place")
    assert (found.outcome, found.points) == ("wrong", 1)
    assert found.reason == "numbers: with a right p in its place: not right"
    assert [check.sentence for check in found.checks] == [
        f"with a right p in its place: {word}" for word in ("not right", "right")
    ]


@pytest.mark.parametrize("name", ["hidden: 3.5", "print", 7, None, ["KeyError"]])
def test_an_error_that_is_no_class_of_pythons_is_not_quoted(name):
    assert of(claim=stops(name)).reason == "numbers: your function stops with Exception"


def test_a_check_that_stops_on_an_answer_of_the_right_kind_is_the_graders_fault():
    broken = HIDDEN.replace("    return {", "    1 / 0\n    return {")
    assert of(*RIGHT, hidden=broken).stop == "check"
    assert of(RIGHT[0], None, hidden=broken).stop == "check", "the first case decides"
    assert of(None, None, hidden=broken).outcome == "wrong"


@pytest.mark.parametrize("judged", ["{}", "{'numbers': (9, Verdict(True, ''))}", "True", "{'numbers': 1, 'sum': 1}"])
def test_a_check_that_gives_other_than_verdicts_gives_no_mark(judged):
    head, _, _ = HIDDEN.partition('    return {"numbers"')
    assert of(*RIGHT, hidden=f"{head}    return {judged}\n").stop == "check"


def test_points_are_the_manifests():
    generous = HIDDEN.replace("(3, ", "(300, ")
    assert of(*RIGHT, hidden=generous).points == 4


@pytest.mark.parametrize(
    ("found", "expected", "becomes"),
    [
        (torch.tensor([4]), 4, 4), (4.0, 4, 4.0), (True, 1, True), (1, True, True),
        (torch.tensor([1, 2]), [1, 2], [1, 2]),
        (4, torch.tensor(4.0), torch.tensor(4.0)), (torch.tensor([1.0, 0.0]), torch.tensor([True, False]), None),
        ({"a": torch.tensor(2)}, {"a": 2}, {"a": 2}),
    ],
    ids=repr,
)  # fmt: skip
def test_what_means_the_same_is_alike(found, expected, becomes):
    have, odd = alike(found, expected)
    assert not odd
    if becomes is not None:
        assert have == becomes and type(have) is type(becomes)
    else:
        assert have.dtype == torch.bool


@pytest.mark.parametrize(
    ("found", "expected"), [("4", 4), (4, "4"), ([1], [1, 2]), ({"b": 1}, {"a": 1}), ([1, "2"], [1, 2]), (None, 1)]
)
def test_what_means_something_else_is_not_alike(found, expected):
    assert alike(found, expected)[1]


SECRET = torch.tensor([0.123456, 777.125, -3.0625])


@pytest.mark.parametrize(
    "verdict",
    [
        same_numbers(SECRET + 5, SECRET, quote=False), same_numbers(SECRET * 2, SECRET, quote=False),
        same_value(778.5, 777.125, quote=False), same_value("x777.125", 777.125, quote=False),
        same_value("x", "777.125", quote=False), same_list([777.125], [0.123456], quote=False),
        same_list([777.125, 3], [0.123456], quote=False), same_value(777.125, 777.125, quote=False),
        same_outputs([SECRET + 5], {"y": (SECRET, "n")}, quote=False),
    ],
    ids=str,
)  # fmt: skip
def test_without_quotes_no_number_of_either_is_told(verdict):
    for number in ("0.1234", "777", "778", "3.06", "5.12"):
        assert number not in verdict.sentence
    assert verdict.sentence


def test_with_quotes_they_are():
    assert "777.1" in same_numbers(SECRET + torch.tensor([0, 5, 0]), SECRET).sentence
    assert "expected" in same_list([1], [2]).sentence


def test_a_sentence_is_short_and_carries_no_long_number_and_no_control_character():
    text = told("a\x1b[31m\u202eb 12345678901234567890 " + "c" * 500)
    assert len(text) <= 300 and "1234567" not in text and "\x1b" not in text and "\u202e" not in text
    assert told("expected (2, 3), you have (3, 2)") == "expected (2, 3), you have (3, 2)"


def test_a_verdict_that_only_looks_true_is_none():
    assert of(*RIGHT, hidden=HIDDEN.replace("bool(found.sum() > 0)", "found.sum() > 0")).stop == "check"
    assert Verdict(True, "") and not Verdict(False, "")


def test_the_same_submission_is_asked_the_same_and_every_other_something_else(tmp_path):
    from course_lib.grading.reference import ask

    hidden = load_hidden("q1", tiny.HIDDEN["q1"])
    first = ask(hidden, b"k" * 32, "tiny", "ann", "sum")
    assert first.packed == ask(hidden, b"k" * 32, "tiny", "ann", "sum").packed
    others = [(b"l" * 32, "tiny", "ann", "sum"), (b"k" * 32, "tiny", "bob", "sum"), (b"k" * 32, "tiny", "ann", "mus")]
    sums = {first.sha256, *(ask(hidden, *other).sha256 for other in others)}
    assert len(sums) == 4
    assert not torch.equal(first.cases[0]["x"].flatten()[:6], first.cases[1]["x"].flatten()[:6])
