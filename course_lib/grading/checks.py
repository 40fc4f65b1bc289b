"""Checks that answer at once, in a sentence: for exercises in a notebook, and for grading later.

Each takes what the learner made and what it should be, and returns a Verdict; a check never raises because of a wrong
answer. Comparisons are by shape, numbers, reach and counts, so that it does not matter how an answer was written.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.analysis.reach import reach
from course_lib.grading.inside import where_it_differs
from course_lib.grading.probe import from_numpy
from course_lib.grid import Grid
from course_lib.layers.attention import MultiHeadAttention
from course_lib.layers.schemes import Scheme
from course_lib.words import count

NOTHING = "nothing there yet"
WORDS = {"b": "batch", "t": "time", "T": "time", "n": "tokens", "h": "height", "H": "height", "w": "width",
         "W": "width", "m": "keys", "d": "features", "c": "colours", "3": "colours", "head": "heads"}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """Right or not, and the sentence that says why."""

    passed: bool
    sentence: str

    def __str__(self) -> str:
        return ("Right: " if self.passed else "Not yet: ") + self.sentence

    __repr__ = __str__

    def __bool__(self) -> bool:
        return self.passed

    def __and__(self, other: Verdict) -> Verdict:
        """Both: the first failure speaks."""
        return other if self.passed else self


def judge(check: Callable[[object], Verdict], function: Callable[..., object], *inputs: object) -> Verdict:
    """What `check` says of the learner's function on these inputs; an error in the function becomes a sentence."""
    try:
        return check(function(*inputs))
    except Exception as error:
        return _stopped(error)


def judge_all(function: Callable[..., object], expected: Mapping[tuple, Callable[[object], Verdict]]) -> Verdict:
    """`function` on several inputs, so that a constant does not pass: {inputs: check of the answer}.

    The first failure speaks, and says for which inputs.
    """
    verdict = Verdict(bool(expected), "nothing was asked")
    for inputs, check in expected.items():
        verdict = judge(check, function, *inputs)
        if not verdict:
            asked, name = ", ".join(map(str, inputs)), getattr(function, "__name__", "your function")
            return Verdict(
                False, verdict.sentence if NOTHING in verdict.sentence else f"{name}({asked}): {verdict.sentence}"
            )
    return verdict and Verdict(True, f"{verdict.sentence}, the last of {len(expected)} that agree")


Check = Callable[[object, Tensor, str], Verdict]


def same_outputs(
    found: object,
    expected: Mapping[str, tuple[Tensor, str]],
    check: Check | None = None,
    quote: bool = True,
) -> Verdict:
    """Are several tensors right? `expected`: what each is called -> (the tensor, its axes), in the order returned.

    `check` compares each, by its numbers if it is not given; `quote` as in `same_numbers`.
    """
    check = check or (lambda one, wanted, axes: same_numbers(one, wanted, axes, quote=quote))
    names = " and ".join(expected)
    if found is None or found is ...:
        return Verdict(False, f"{NOTHING}; {len(expected)} tensors are expected: {names}")
    if not isinstance(found, tuple | list) or len(found) != len(expected):
        have = f"{len(found)} of them" if isinstance(found, tuple | list) else f"a {type(found).__name__}"
        return Verdict(False, f"expected {len(expected)} tensors, {names}; you have {have}")
    for one, (name, (wanted, axes)) in zip(found, expected.items(), strict=True):
        verdict = check(one, wanted, axes)
        if not verdict:
            return verdict if NOTHING in verdict.sentence else Verdict(False, f"{name}: {verdict.sentence}")
    return Verdict(True, f"the numbers of {names} agree")


def _stopped(error: Exception) -> Verdict:
    if isinstance(error, NotImplementedError) and not str(error):  # how the stub of a homework ends
        return Verdict(False, NOTHING)
    return Verdict(False, f"your function stops with {type(error).__name__}{f': {error}' if str(error) else ''}")


def same_shape(found: object, expected: tuple[int, ...], axes: str = "") -> Verdict:
    """Is `found` a tensor or array of shape `expected`? `axes` names them, as in "b t n d"."""
    name = f"{axes} = " if axes else ""
    if found is None or found is ...:
        return Verdict(False, f"{NOTHING}; a tensor of {name}{tuple(expected)} is expected")
    if not isinstance(found, Tensor | np.ndarray):
        return Verdict(False, f"expected a tensor of {name}{tuple(expected)}, you have a {type(found).__name__}")
    have, want = tuple(found.shape), tuple(expected)
    if have == want:
        return Verdict(True, f"the shape is {name}{want}")
    return Verdict(False, f"expected {name}{want}, you have {have}" + _shape_hint(have, want, axes.split()))


def _shape_hint(have: tuple[int, ...], want: tuple[int, ...], axes: list[str]) -> str:
    if len(have) != len(want):
        return f": that is {len(have)} axes instead of {len(want)}"
    words = WORDS | ({"n": "space"} if {"t", "T"} & {*axes} else {}) | ({} if "n" in axes else {"m": "tokens"})
    names = (
        [words.get(axis, axis) for axis in axes] if len(axes) == len(want) else [f"axis {i}" for i in range(len(want))]
    )
    for i, j in itertools.combinations(range(len(want)), 2):
        swapped = list(have)
        swapped[i], swapped[j] = swapped[j], swapped[i]
        if tuple(swapped) == want:
            return f": did you swap {names[i]} and {names[j]}?"
    if sorted(have) == sorted(want):
        return ": the right lengths in another order"
    wrong = [f"{names[i]} is {have[i]} instead of {want[i]}" for i in range(len(want)) if have[i] != want[i]]
    return ": " + ", ".join(wrong)


def same_numbers(
    found: object,
    expected: Tensor | np.ndarray,
    axes: str = "",
    tolerance: float = 1e-4,
    quote: bool = True,
    dtype: bool = False,
) -> Verdict:
    """Is `found` equal to `expected`, up to `tolerance` times the spread of the expected numbers?

    If not, the sentence says in how many places, where most, and what stands there. Without `quote` no number of
    either is told, only how many differ: for grading, where they are hidden.
    With `dtype` fractions are no answer where whole numbers are expected, and only true and false where these are:
    what will be an index or a mask does something else, or nothing, with other dtypes.
    """
    expected = torch.as_tensor(expected)
    shape = same_shape(found, tuple(expected.shape), axes)
    if not shape:
        return shape
    if isinstance(found, np.ndarray):
        if found.dtype.kind not in "biufc":
            return Verdict(False, f"numbers are expected, you have an array of {found.dtype}")
        found = from_numpy(found)
    have, want = torch.as_tensor(found).detach().double(), expected.detach().double()
    if not have.isfinite().all():
        return Verdict(False, f"{int((~have.isfinite()).sum())} of {have.numel()} numbers are nan or infinite")
    if have.numel() == 0:
        return Verdict(True, "both are empty")
    spread = max(float(want.std(correction=0)), float(want.abs().mean()), 1e-12)
    distance = float((have - want).abs().max())
    if distance <= tolerance * spread:
        if dtype and _kind(torch.as_tensor(found).dtype) != _kind(expected.dtype):
            return Verdict(
                False, f"the numbers agree, but {torch.as_tensor(found).dtype} stands where {_kind(expected.dtype)} "
                f"are expected: {expected.dtype}"
            )  # fmt: skip
        return Verdict(True, "the numbers agree" + (f", {axes} = {tuple(want.shape)}" if axes else ""))
    worst = tuple(int(i) for i in np.unravel_index(int((have - want).abs().argmax()), tuple(want.shape)))
    hint = _number_hint(have, want, tolerance * spread)
    differ = int(((have - want).abs() > tolerance * spread).sum())
    if not quote:
        return Verdict(False, f"the shape is right, {differ} of {want.numel()} numbers differ{hint}")
    places = f"in {differ:,} of {want.numel():,} places" if want.numel() > 1 else "in the only place"
    if expected.dtype == torch.bool and have[worst] in (0, 1):
        said = [("false", "true")[int(each[worst])] for each in (want, have)]
        return Verdict(
            False, f"the shape is right, the numbers differ {places}, first at {worst}: expected {said[0]}, you have "
            f"{said[1]}{hint}"
        )  # fmt: skip
    return Verdict(
        False, f"the shape is right, the numbers differ by up to {distance:.3g} {places}, most at {worst}: expected "
        f"{want[worst].item():.4g}, you have {have[worst].item():.4g}{hint}"
    )  # fmt: skip


def _kind(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "true and false"
    return "fractions" if dtype.is_floating_point else "whole numbers"


def _number_hint(have: Tensor, want: Tensor, close: float) -> str:
    if have.count_nonzero() > 1:  # a single number is some multiple of any other
        factor = float((have * want).sum() / have.square().sum())
        if (have * factor - want).abs().max() <= close and abs(factor) > 1e-9:
            return f"; all yours are {1 / factor:.4g} times what they should be: is a scale missing or used twice?"
    apart = float((have - want).mean())
    if have.numel() > 1 and (have - want - apart).abs().max() <= close:
        return f"; all yours are {abs(apart):.4g} too {'large' if apart > 0 else 'small'}"
    for axis in range(have.ndim):
        if have.shape[axis] > 1 and (have.flip(axis) - want).abs().max() <= close:
            return f"; they agree when axis {axis} is reversed"
    for i, j in itertools.combinations(range(have.ndim), 2):
        if have.shape[i] == have.shape[j] > 1 and (have.transpose(i, j) - want).abs().max() <= close:
            return f"; they agree when axes {i} and {j} are swapped"
    return ""


def reaches_exactly(
    compute: Callable[[Tensor], Tensor], scheme: Scheme, grid: Grid | tuple[int, int, int], dim: int = 8
) -> Verdict:
    """Does `compute`, from tokens (1, t, h, w, dim) to the same shape, connect exactly the tokens that `scheme` does?

    Asked of its gradients, in double precision: a module must be in evaluation mode and .double().
    """
    grid = Grid(*grid)
    blank = torch.zeros(1, *grid, dim, dtype=torch.float64)
    shape = judge(lambda y: same_shape(y, tuple(blank.shape), "b t h w d"), compute, blank)
    if not shape:
        return shape
    try:
        found = reach(compute, grid, dim)
    except Exception as error:
        return _stopped(error)
    wrong = _wrong_pairs(found, scheme.mask(grid), grid)
    if not wrong:
        return Verdict(
            True, f"every one of the {grid.size} tokens reaches exactly what {scheme.name} attention lets it"
        )
    return Verdict(False, f"this is not {scheme.name} attention; " + "; ".join(wrong))


def attends_as(
    function: Callable[..., object],
    scheme: Scheme,
    class_token: bool = False,
    grids: Sequence[tuple[int, int, int]] = ((2, 2, 3), (3, 4, 2)),
) -> Verdict:
    """Is `function(attend, x)`, tokens b t h w d to the same, attention arranged by `scheme`? Reach, then numbers.

    `attend` is a layer that takes and returns rows b n d. With `class_token` it is `function(attend, x, cls)`, and
    returns patches and class token. Asked for two clips on each of several grids.
    """
    generator = torch.Generator().manual_seed(0)
    attend = MultiHeadAttention(8, 2).double().eval()
    for weight in attend.parameters():
        torch.nn.init.normal_(weight.data, std=0.5, generator=generator)

    def tokens(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def shape(found: object, wanted: Tensor, axes: str) -> Verdict:
        return same_shape(found, tuple(wanted.shape), axes)

    verdict = Verdict(False, "nothing was asked")
    for grid in grids:
        given = (tokens(2, *grid, 8), *([tokens(2, 1, 8)] if class_token else []))
        answers = scheme.apply(attend, *given)
        parts = {"patches": (answers[0], "b t h w d"), "class token": (answers[1], "b 1 d")}

        def judged(check: Check, wanted: Any = answers, parts: dict = parts) -> Callable[[object], Verdict]:
            if class_token:
                return lambda found: same_outputs(found, parts, check)
            return lambda found: check(found, wanted, "b t h w d")

        def patches(x: Tensor, cls: Sequence[Tensor] = given[1:]) -> Tensor:
            found: Any = function(attend, x, *(one[:1] for one in cls))
            return found[0] if class_token else found

        verdict = judge(judged(shape), function, attend, *given)
        verdict = verdict and reaches_exactly(patches, scheme, grid)
        verdict = verdict and judge(judged(same_numbers), function, attend, *given)
        if not verdict:
            return verdict
    return Verdict(True, f"every token reaches exactly what {scheme.name} attention lets it, and {verdict.sentence}")


def acts_as(
    make: Callable[[], object],
    library: nn.Module,
    inputs: Sequence[tuple[Tensor, ...]],
    outputs: Mapping[str, str],
) -> Verdict:
    """Does the module that `make()` gives compute what `library` does? Reach, then numbers, on each of `inputs`.

    The library's weights, drawn anew so that none is zero, are copied into it in order. `outputs`: what each of the
    results is called -> its axes. Reach is that from the first input to the first result: from token to token where
    both are tokens, b t h w d or b t d, else from each pixel of a clip to the result. Where numbers differ, the
    sentence says which part of the module gets others already.
    """
    ours = copy.deepcopy(library).double().eval()
    generator = torch.Generator().manual_seed(0)
    for weight in ours.parameters():
        torch.nn.init.normal_(weight.data, std=0.5, generator=generator)
    try:
        theirs = make()
    except Exception as error:
        return _stopped(error)
    if not isinstance(theirs, nn.Module):
        return Verdict(False, f"expected a module, you have a {type(theirs).__name__}")
    theirs = theirs.double().eval()
    copied = copy_weights(ours, theirs)
    if not copied:
        return copied

    def shape(found: object, wanted: Tensor, axes: str) -> Verdict:
        return same_shape(found, tuple(wanted.shape), axes)

    verdict = Verdict(False, "nothing was asked")
    tried = [tuple(part.double() for part in each) for each in inputs]
    for given in tried:
        answers = ours(*given)
        answers = answers if isinstance(answers, tuple) else (answers,)
        parts = {name: (answer, axes) for answer, (name, axes) in zip(answers, outputs.items(), strict=True)}

        def judged(check: Check, parts: dict = parts) -> Callable[[object], Verdict]:
            return lambda found: same_outputs(found if len(parts) > 1 else [found], parts, check)

        verdict = judge(judged(shape), theirs, *given)
        verdict = verdict and _same_reach(theirs, ours, given)
        if verdict and not (verdict := judge(judged(same_numbers), theirs, *given)):
            where = where_it_differs(theirs, ours, given)
            verdict = Verdict(False, verdict.sentence + (f"; {where}" if where else ""))
        if not verdict:
            return verdict if given is tried[0] else Verdict(False, f"given {_sizes(given)}: {verdict.sentence}")
    return verdict and Verdict(
        True, f"with the library's weights {verdict.sentence}, for {count(len(inputs), 'input')}"
    )


def _sizes(given: tuple[Tensor, ...]) -> str:
    return " and ".join(str(tuple(part.shape)) for part in given)


def copy_weights(source: nn.Module, target: nn.Module) -> Verdict:
    """Copy every parameter of `source` into `target`, in order, whatever they are called, and what batch norms have
    seen. False: they do not fit."""
    have, want = list(target.parameters()), list(source.parameters())
    own = isinstance(target, nn.Sequential)  # there is no __init__ that was given
    advice = "mind biases, kernels and the order of the parts" if own else "leave __init__ as it was given"
    for number, (mine, (name, weight)) in enumerate(zip(have, source.named_parameters(), strict=False)):
        if mine.shape != weight.shape:
            return Verdict(
                False, f"parameter {number} of yours is {tuple(mine.shape)}, the library's, {name}, is "
                f"{tuple(weight.shape)}: {advice}"
            )  # fmt: skip
    if len(have) != len(want):
        return Verdict(False, f"expected {len(want)} parameters, you have {len(have)}: {advice}")
    seen, to_see = _statistics(target), _statistics(source)
    if [part.shape for part in seen] != [part.shape for part in to_see]:
        return Verdict(False, f"your batch norms are others than the library's: {advice}")
    with torch.no_grad():
        for to, given in zip((*have, *seen), (*want, *to_see), strict=True):
            to.copy_(given)
    return Verdict(True, f"{len(want)} parameters copied")


def _statistics(net: nn.Module) -> list[Tensor]:
    """Running means and variances."""
    norms = [part for part in net.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    found = [(norm.running_mean, norm.running_var) for norm in norms]
    return [part for pair in found for part in pair if part is not None]


def _same_reach(theirs: nn.Module, ours: nn.Module, given: tuple[Tensor, ...]) -> Verdict:
    """From the first input to the first result."""

    def first(module: nn.Module) -> Callable[[Tensor], Tensor]:
        def compute(x: Tensor) -> Tensor:
            found = module(x, *(part[: len(x)] for part in given[1:]))
            return found[0] if isinstance(found, tuple | list) else found

        return compute

    x = given[0]
    if first(ours)(x).shape == x.shape:
        grid = tuple(x.shape[1:-1])
        try:
            found = reach(first(theirs), grid, x.shape[-1])
        except Exception as error:
            return _stopped(error)
        sentences = _wrong_pairs(found, reach(first(ours), grid, x.shape[-1]), grid)
        return Verdict(not sentences, "; ".join(sentences) or "the same reach")
    changes = []
    for module in (ours, theirs):
        pixels = x.clone().requires_grad_()
        result = first(module)(pixels)
        if not result.requires_grad:
            return Verdict(False, "your result does not change when the clip changes")
        (gradient,) = torch.autograd.grad(result.square().sum(), pixels, allow_unused=True)
        changes.append(torch.zeros(x.shape[2:]).bool() if gradient is None else (gradient != 0).any(0).any(0))
    if (missing := changes[0] & ~changes[1]).any():
        frame = int(missing.nonzero()[0, 0])
        return Verdict(False, f"your result does not change when some pixels of frame {frame} change")
    return Verdict(True, "the same reach")


def _wrong_pairs(found: Tensor, wanted: Tensor, grid: tuple[int, ...]) -> list[str]:
    """What is wrong with a reach, in a sentence each for too much and too little."""
    sentences = []
    for kind, pairs in (
        ("sees what it should not", found & ~wanted),
        ("does not see what it should", wanted & ~found),
    ):
        if pairs.any():
            i, j = (int(x) for x in pairs.nonzero()[0])
            sentences.append(f"token {_place(i, grid)} {kind}: token {_place(j, grid)} ({int(pairs.sum())} such pairs)")
    return sentences


def _place(token: int, grid: tuple[int, ...]) -> str:
    """(t=1, h=0, w=2) on a grid, t=1 in a row of frames."""
    named = ", ".join(f"{axis}={at}" for axis, at in zip("thw", np.unravel_index(token, grid), strict=False))
    return f"({named})" if len(grid) > 1 else named


def parameter_count(net: object, expected: int) -> Verdict:
    """Does the network have `expected` parameters?"""
    if not isinstance(net, nn.Module):
        return Verdict(False, f"expected a network, you have {'nothing yet' if net is None else type(net).__name__}")
    count = sum(p.numel() for p in net.parameters())
    if count == expected:
        return Verdict(True, f"{count:,} parameters")
    more = count - expected
    return Verdict(
        False,
        f"expected {expected:,} parameters, you have {count:,}: {abs(more):,} too {'many' if more > 0 else 'few'}",
    )


def same_value(
    found: object,
    expected: float | int | str,
    unit: str = "",
    tolerance: float = 0.0,
    quote: bool = True,
    choices: Sequence[str] = (),
    because: str = "",
) -> Verdict:
    """Is a single answer right? Numbers may differ by `tolerance` times the expected one.

    Without `quote` neither of the two is told. `choices`: the words from which an answer in words is taken;
    `because`: what was measured, told to those who chose another.
    """
    unit = f" {unit}" if unit else ""
    if not quote:
        verdict = same_value(found, expected, tolerance=tolerance)
        if verdict:
            return Verdict(True, "the answer agrees")
        said = [each for each in (NOTHING, "too large", "too small") if verdict.sentence.endswith(each)]
        return Verdict(False, NOTHING if NOTHING in said else f"your answer is {said[0] if said else 'another'}")
    if found is None or found is ...:
        return Verdict(False, NOTHING)
    if isinstance(expected, str):
        word = found.strip().casefold() if isinstance(found, str) else None
        allowed = " or ".join(repr(choice) for choice in choices)
        if word is None:
            wanted = f"one of the words {allowed}" if choices else "a word in quotes"
            return Verdict(False, f"expected {wanted}, you have {type(found).__name__} {found!r:.60}")
        if choices and word not in {choice.casefold() for choice in choices}:
            return Verdict(False, f"expected one of the words {allowed}, you have {found!r:.60}")
        right = word == expected.casefold()
        told = f"{found!r} is not the answer" + (f": {because}" if because else "")
        return Verdict(right, f"{found}{unit}" if right else told)
    try:
        number = float(cast(Any, found))  # also a tensor or array of one element
    except (TypeError, ValueError, RuntimeError):
        return Verdict(False, f"expected one number{unit}, you have {type(found).__name__} {found!r:.60}")
    unit = unit.removesuffix("s") if number == 1 else unit  # 1 step, 2 steps
    told = f"{number:,.0f}" if number.is_integer() and abs(number) < 1e15 else f"{number:g}"
    if abs(number - expected) <= tolerance * abs(expected):
        return Verdict(True, f"{told}{unit}")
    return Verdict(False, f"{told}{unit} is too {'large' if number > expected else 'small'}")


def _plain(item: Any) -> Any:
    """Tuples and lists, one inside another, as lists."""
    return [_plain(each) for each in item] if isinstance(item, tuple | list) else item


def same_list(found: object, expected: Sequence[object], quote: bool = True) -> Verdict:
    """Is a list right, whatever kind of sequence it and what it holds are? The first place where it is not is named.

    Without `quote` what stands there is not told.
    """
    if found is None or found is ...:
        return Verdict(False, f"{NOTHING}; a list of {len(expected)} is expected")
    if not isinstance(found, Sequence | Tensor | np.ndarray) or isinstance(found, str):
        return Verdict(False, f"expected a list, you have a {type(found).__name__}")
    have: list[Any] = found.tolist() if isinstance(found, Tensor | np.ndarray) else list(found)
    if len(have) != len(expected):
        said = f": {have!s:.60}" if quote else ""
        return Verdict(False, f"expected {len(expected)} of them, you have {len(have)}{said}")
    for i, (mine, right) in enumerate(zip(have, expected, strict=True)):
        if _plain(mine) != _plain(right):
            said = f"at place {i} {right} is expected, you have {mine}" if quote else f"the one at place {i} is wrong"
            return Verdict(False, said)
    return Verdict(True, f"all {len(expected)} agree")
