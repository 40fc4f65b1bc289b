"""The checks of the exercises: right answers pass however they are written, wrong ones get a sentence that helps."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.grading.checks import (
    Verdict,
    acts_as,
    attends_as,
    copy_weights,
    judge,
    judge_all,
    parameter_count,
    reaches_exactly,
    same_list,
    same_numbers,
    same_outputs,
    same_shape,
    same_value,
)
from course_lib.layers.attention import GridAttention, MultiHeadAttention
from course_lib.layers.blocks import Mlp
from course_lib.layers.schemes import JOINT, SPACE, TIME, WIDTH, Band
from course_lib.models import build
from course_lib.models.timesformer import Block
from course_lib.models.vtn import LongformerAttention

GRID = (2, 2, 3)


def test_swapped_axes_are_named_in_words():
    verdict = same_shape(torch.zeros(2, 196, 8, 768), (2, 8, 196, 768), "b t n d")
    assert str(verdict) == (
        "Not yet: expected b t n d = (2, 8, 196, 768), you have (2, 196, 8, 768): did you swap time and space?"
    )


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ("b t n", "space is 5 instead of 4"),
        ("b head n", "tokens is 5 instead of 4"),
        ("b d m", "tokens is 5 instead of 4"),
        ("b n m", "keys is 5 instead of 4"),
    ],
)
def test_an_axis_is_called_what_it_holds_beside_the_others(axes, words):
    assert str(same_shape(torch.zeros(2, 3, 5), (2, 3, 4), axes)).endswith(words)


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


@pytest.mark.parametrize("dtype", [">f4", ">i8", np.longdouble, np.uint16, np.uint32, np.uint64])
def test_arrays_of_any_kind_are_numbers(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    assert same_numbers(array, np.arange(6).reshape(2, 3)) and not same_numbers(array, np.ones((2, 3)))
    assert same_numbers(array[:, ::-1], torch.tensor([[2, 1, 0], [5, 4, 3]]))


@pytest.mark.parametrize("odd", [np.array(["a", "b"]), np.array([1, None])])
def test_an_array_without_numbers_gets_a_reason(odd):
    verdict = same_numbers(odd, torch.ones(2))
    assert not verdict and f"numbers are expected, you have an array of {odd.dtype}" in verdict.sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x * 8, "8 times what they should be"),
        (lambda x: x.flip(0), "axis 0 is reversed"),
        (lambda x: x.T, "axes 0 and 1 are swapped"),
        (lambda x: x.masked_fill(x > 0, float("nan")), "nan or infinite"),
        (lambda x: x + torch.eye(4), "the numbers differ by up to 1 in 4 of 16 places, most at ("),
        (lambda x: x + 3, "all yours are 3 too large"),
    ],
)
def test_wrong_numbers_get_the_likely_cause(change, sentence):
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    verdict = same_numbers(change(x), x)
    assert not verdict and sentence in str(verdict)


@pytest.mark.parametrize(
    ("wanted", "other", "says"),
    [
        (torch.eye(3).bool(), torch.eye(3), "torch.float32 stands where true and false are expected: torch.bool"),
        (torch.eye(3).bool(), torch.eye(3).long(), "torch.int64 stands where true and false are expected"),
        (torch.arange(3), torch.arange(3.0), "torch.float32 stands where whole numbers are expected: torch.int64"),
        (torch.arange(2), torch.arange(2).bool(), "torch.bool stands where whole numbers are expected"),
    ],
)
def test_a_mask_or_an_index_of_another_dtype_is_no_answer_where_it_will_be_used(wanted, other, says):
    verdict = same_numbers(other, wanted, dtype=True)
    assert not verdict and says in str(verdict)
    assert same_numbers(other, wanted)
    assert same_numbers(wanted, wanted, dtype=True)
    assert same_numbers(torch.arange(3).int(), torch.arange(3), dtype=True)


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
    assert "nothing there yet" in str(reaches_exactly(lambda x: None, TIME, GRID))
    assert "did you swap" in str(reaches_exactly(lambda x: x.transpose(2, 3), TIME, GRID))


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


def test_an_answer_in_words_is_told_which_words_and_what_was_measured():
    def said(found) -> str:
        return str(same_value(found, "yes", choices=("yes", "no"), because="logits change by up to 0.3"))

    assert said(" Yes ").startswith("Right: ")
    assert said(False) == "Not yet: expected one of the words 'yes' or 'no', you have bool False"
    assert said("true") == "Not yet: expected one of the words 'yes' or 'no', you have 'true'"
    assert said("no") == "Not yet: 'no' is not the answer: logits change by up to 0.3"
    assert str(same_value(1, "time")) == "Not yet: expected a word in quotes, you have int 1"


def test_a_whole_number_is_told_with_all_its_digits():
    assert str(same_value(2286419969, 2286419968, "pairs")) == "Not yet: 2,286,419,969 pairs is too large"


def test_one_is_told_in_the_singular():
    assert str(same_value(1, 3, "steps")) == "Not yet: 1 step is too small"
    assert str(same_value(2, 3, "steps")) == "Not yet: 2 steps is too small"
    assert str(acts_as(Merged, Merged(), [(torch.randn(1, 4, 4),)], {"y": "b n d"})).endswith("for 1 input")


def test_a_wrong_mask_is_told_in_true_and_false():
    wanted, found = torch.eye(5).bool(), torch.eye(5).bool()
    found[0, 2] = found[3, 4] = True
    said = "the numbers differ in 2 of 25 places, first at (0, 2): expected false, you have true"
    assert said in str(same_numbers(found, wanted, dtype=True))


def test_the_first_failure_speaks():
    right, wrong = Verdict(True, "yes"), Verdict(False, "no")
    assert right & right and str(right & wrong) == "Not yet: no" == str(wrong & right)


def test_a_constant_does_not_pass_where_several_inputs_are_tried():
    asked = {(8, 14): lambda found: same_value(found, 112), (3, 5): lambda found: same_value(found, 15)}
    assert judge_all(lambda h, w: h * w, asked)

    def area(h, w):
        return 112

    assert str(judge_all(area, asked)) == "Not yet: area(3, 5): 112 is too large"
    assert str(judge_all(lambda h, w: None, asked)) == "Not yet: nothing there yet"
    assert not judge_all(lambda h, w: 0, {})


def test_the_wrong_one_of_several_outputs_is_named():
    x, cls = torch.randn(1, 2, 3), torch.randn(1, 1, 3)
    expected = {"patches": (x, "b n d"), "class token": (cls, "b 1 d")}
    assert same_outputs((x, cls), expected)
    assert str(same_outputs((x, cls * 2), expected)).startswith("Not yet: class token: the shape is right, the numbers")
    assert "patches: expected b n d = (1, 2, 3), you have (1, 3, 2)" in str(same_outputs((x.mT, cls), expected))
    assert "expected 2 tensors, patches and class token; you have a Tensor" in str(same_outputs(x, expected))
    assert "nothing there yet" in str(same_outputs((None, None), expected))


def test_attention_is_judged_by_its_reach_before_its_numbers():
    assert attends_as(lambda attend, x: WIDTH.apply(attend, x), WIDTH)
    wrong = str(attends_as(lambda attend, x: SPACE.apply(attend, x), WIDTH))
    assert "token (t=0, h=0, w=0) sees what it should not: token (t=0, h=1, w=0)" in wrong and "numbers" not in wrong
    scaled = str(attends_as(lambda attend, x: 2 * WIDTH.apply(attend, x), WIDTH))
    assert "all yours are 2 times what they should be" in scaled
    assert str(attends_as(lambda attend, x: None, WIDTH)).startswith("Not yet: nothing there yet")
    assert "stops with ZeroDivisionError" in str(attends_as(lambda attend, x: 1 / 0, WIDTH))


def test_a_single_number_is_not_called_a_multiple_of_what_it_should_be():
    said = same_numbers(torch.tensor([[[12.0]]]), torch.tensor([[[16.0]]]))
    assert not said and "expected 16, you have 12" in said.sentence and "all yours" not in said.sentence


def test_the_class_token_is_judged_too():
    def last_frame(attend, x, cls):
        patches, _ = SPACE.apply(attend, x, cls)
        return patches, SPACE.apply(attend, x[:, -1:], cls)[1]

    assert attends_as(lambda attend, x, cls: SPACE.apply(attend, x, cls), SPACE, class_token=True)
    assert "class token: the shape is right" in str(attends_as(last_frame, SPACE, class_token=True))
    assert "sees what it should not" in str(attends_as(lambda *all: JOINT.apply(*all), SPACE, class_token=True))
    assert "nothing there yet" in str(attends_as(lambda *all: (None, None), SPACE, class_token=True))


class Mine(nn.Module):
    """A divided block under other names, right or wrong in one way."""

    def __init__(self, wrong: str = "", dim: int = 8):
        super().__init__()
        self.wrong = wrong
        self.before, self.over_time = nn.LayerNorm(dim, eps=1e-6), MultiHeadAttention(dim, 2)
        self.linear = nn.Linear(dim, dim)
        self.between, self.over_space = nn.LayerNorm(dim, eps=1e-6), MultiHeadAttention(dim, 2)
        self.after, self.mlp = nn.LayerNorm(dim, eps=1e-6), Mlp(dim, 4 * dim)

    def forward(self, z, cls):
        dz = TIME.apply(self.over_time, self.before(z)) if self.wrong != "no time" else torch.zeros_like(z)
        z = z + (dz if self.wrong == "no linear" else self.linear(dz))
        dz, dcls = SPACE.apply(self.over_space, self.between(z), self.between(cls))
        z, cls = z + dz, cls if self.wrong == "no cls" else cls + dcls
        z, cls = z + self.mlp(self.after(z)), cls + self.mlp(self.after(cls))
        return z.mean(-1) if self.wrong == "shape" else z, cls


def judged(make, tokens=((2, 2, 2, 3), (1, 3, 1, 2))) -> str:
    inputs = [(torch.randn(*shape, 8), torch.randn(shape[0], 1, 8)) for shape in tokens]
    block = Block(8, 2, 32, (TIME, SPACE), 0.0)
    nn.init.zeros_(block.first[0].project.weight)  # as in a fresh network: it must not hide a missing time attention
    return str(acts_as(make, block, inputs, {"patches": "b t h w d", "class token": "b 1 d"}))


def test_a_module_is_recognised_under_other_names_by_the_librarys_weights():
    said = judged(Mine)
    assert said == "Right: with the library's weights the numbers of patches and class token agree, for 2 inputs"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("no time", r"token \(t=0, h=0, w=0\) does not see what it should: token \(t=1, h=0, w=0\)"),
        ("no linear", "patches: the shape is right, the numbers differ"),
        ("no cls", "class token: the shape is right, the numbers differ"),
        ("shape", r"patches: expected b t h w d = .*: that is 4 axes instead of 5"),
    ],
)
def test_a_wrong_module_is_told_where_by_reach_before_numbers(wrong, says):
    said = judged(lambda: Mine(wrong))
    assert said.startswith("Not yet: ") and re.search(says, said), said


class Merged(nn.Module):
    """Two neighbours side by side, a norm and a linear map; right, or wrong in one way."""

    def __init__(self, wrong: str = ""):
        super().__init__()
        self.wrong, self.norm, self.linear = wrong, nn.LayerNorm(8), nn.Linear(8, 6)

    def forward(self, x):  # b n 4
        pairs = x.unflatten(1, (-1, 2))
        row = (pairs.flip(2) if self.wrong == "swapped" else pairs).flatten(2)
        row = self.norm(2 * row.relu() if self.wrong == "bent" else row) if self.wrong != "no norm" else row
        y = self.linear(row.flip(1).flip(1) if self.wrong else row)
        return y.tanh() if self.wrong == "behind" else y


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("swapped", "what goes into 'norm' has the right numbers in another order"),
        ("bent", "what goes into 'norm' differs already"),
        ("no norm", "'norm' is not called"),
        ("behind", "what goes into 'linear' is right: look behind it"),
    ],
)
def test_where_numbers_differ_the_first_part_that_gets_others_is_named(wrong, says):
    inputs = [(torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)),)]
    assert acts_as(Merged, Merged(), inputs, {"y": "b n d"})
    said = str(acts_as(lambda: Merged(wrong), Merged(), inputs, {"y": "b n d"}))
    assert "the numbers differ" in said and said.endswith(says), said


def test_a_part_that_gets_its_rows_in_another_order_or_in_pieces_is_not_blamed():
    class Pieces(Merged):
        def forward(self, x):
            rows = self.norm(x.unflatten(1, (-1, 2)).flatten(2).flip(0)).flip(0)  # in another order
            return torch.cat([self.linear(row) for row in rows.split(1)]).exp()  # called twice, then wrong

    class Twice(Merged):
        def forward(self, x):
            rows = x.unflatten(1, (-1, 2)).flatten(2)
            self.norm(-rows)  # which of the two calls is meant nobody can tell
            return self.linear(self.norm(rows)).exp()

    inputs = [(torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)),)]
    assert "goes into" not in str(acts_as(Pieces, Merged(), inputs, {"y": "b n d"}))
    assert "goes into 'norm'" not in str(acts_as(Twice, Merged(), inputs, {"y": "b n d"}))


def test_an_answer_that_is_wrong_for_a_later_input_alone_is_told_for_which():
    class Short(Merged):
        def forward(self, x):
            return super().forward(x) * (1 if x.shape[1] < 8 else 3)

    inputs = [(torch.randn(1, n, 4),) for n in (6, 8)]
    said = str(acts_as(Short, Merged(), inputs, {"y": "b n d"}))
    assert said.startswith("Not yet: given (1, 8, 4): y: the shape is right, the numbers differ")


def test_a_stub_is_nothing_yet_and_an_error_without_words_has_no_colon():
    def stops(error: Exception) -> str:
        def answer(x):
            raise error

        return str(judge(lambda found: same_value(found, 1), answer, 1))

    assert stops(NotImplementedError()) == "Not yet: nothing there yet"
    assert stops(NotImplementedError("odd sizes")).endswith("stops with NotImplementedError: odd sizes")
    assert stops(KeyError()).endswith("stops with KeyError")


def test_a_module_that_cannot_be_asked_gets_a_sentence():
    assert "your function stops with ZeroDivisionError" in judged(lambda: 1 // 0)
    assert "expected a module, you have a NoneType" in judged(lambda: None)
    assert "parameter 0 of yours is (4,), the library's, first.0.norm.weight, is (8,)" in judged(lambda: Mine(dim=4))
    assert "expected 20 parameters, you have 0" in judged(nn.Identity)


def test_a_network_has_to_look_at_every_frame_of_a_clip():
    library = build("timesformer_tiny", size=32, frames=3, dim=8, depth=1, heads=2, classes=5)

    class Net(nn.Module):
        def __init__(self, change):
            super().__init__()
            self.inner, self.change = copy.deepcopy(library), change

        def forward(self, clip):
            return self.change(self.inner, clip)

    def said(change) -> str:
        return str(acts_as(lambda: Net(change), library, [(torch.randn(2, 3, 3, 32, 32),)], {"logits": "b classes"}))

    assert said(lambda net, clip: net(clip)).startswith("Right: ")
    assert said(lambda net, clip: None).startswith("Not yet: nothing there yet")
    assert "does not change when the clip changes" in said(lambda net, clip: torch.zeros(2, 5))
    first = "does not change when some pixels of frame 1 change"
    assert first in said(lambda net, clip: net(clip[:, :, [0, 0, 2]]))
    assert "the numbers differ" in said(lambda net, clip: net(clip.flip(2)))


def test_weights_are_copied_in_order_or_not_at_all():
    source, target = nn.Linear(3, 4), nn.Sequential(nn.Linear(3, 4))
    assert copy_weights(source, target) and torch.equal(source.weight, target[0].weight)
    longer = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = longer[0].weight.clone()
    assert "expected 2 parameters, you have 4" in str(copy_weights(source, longer))
    assert torch.equal(before, longer[0].weight)


def test_who_wrote_all_parts_is_not_told_to_leave_those_that_were_given():
    class Given(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 5)

    source = nn.Linear(3, 4)
    assert "leave __init__ as it was given" in str(copy_weights(source, Given()))
    for parts in ([nn.Linear(3, 5)], [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)]):
        said = str(copy_weights(source, nn.Sequential(*parts)))
        assert "mind biases, kernels and the order of the parts" in said and "__init__" not in said


@pytest.mark.parametrize("right", [[6, 7, 8], (6, 7, 8), np.arange(6, 9), torch.arange(6, 9), range(6, 9)])
def test_a_list_is_right_in_whatever_form(right):
    assert same_list(right, [6, 7, 8])


def test_what_a_list_holds_may_be_tuples_or_lists():
    assert same_list([[1, [8, 56]], (2, (8, 28))], [(1, (8, 56)), (2, (8, 28))])
    assert not same_list([[1, [8, 55]]], [(1, (8, 56))])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (None, "nothing there yet; a list of 3 is expected"),
        ([6, 7], "expected 3 of them, you have 2: [6, 7]"),
        ([6, 9, 8], "at place 1 7 is expected, you have 9"),
        ([[6], 7, 8], "at place 0 6 is expected, you have [6]"),
        ("678", "expected a list, you have a str"),
        (8, "expected a list, you have a int"),
    ],
)
def test_a_wrong_list_is_told_where(wrong, says):
    verdict = same_list(wrong, [6, 7, 8])
    assert not verdict and verdict.sentence == says


def test_a_copied_network_computes_the_same_in_evaluation_too():
    source, target = (nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3)) for _ in range(2))
    source(torch.randn(4, 2, 5))  # its norm has seen something
    assert copy_weights(source, target)
    x = torch.randn(1, 2, 5)
    assert torch.equal(source.eval()(x), target.eval()(x))
    without = nn.Sequential(nn.Conv1d(2, 3, 1), nn.GroupNorm(1, 3))  # as many parameters
    assert "your batch norms are others" in str(copy_weights(source, without))


@pytest.mark.parametrize(
    ("window", "says"),
    [
        (4, None),
        (8, r"token t=0 sees what it should not: token t=3 \(10 such pairs\)"),
        (2, r"token t=0 does not see what it should: token t=2"),
    ],
)
def test_a_layer_on_a_row_of_frames_is_told_by_their_numbers_what_it_should_not_see(window, says):
    x = [(torch.randn(2, 6, 8), torch.randn(2, 1, 8))]
    library = LongformerAttention(8, 2, Band(2), 0.0)
    verdict = acts_as(
        lambda: LongformerAttention(8, 2, Band(window // 2), 0.0), library, x, {"frames": "b t d", "cls": "b 1 d"}
    )
    assert bool(verdict) == (says is None) and (says is None or re.search(says, verdict.sentence)), verdict
