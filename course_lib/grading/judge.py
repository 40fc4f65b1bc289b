"""Right, wrong or not graded: compares what came out of a box with what the reference gives, outside, as data.

Every sentence is one of a fixed set, or one of `checks` without quotes: nothing that a student's box wrote, and nothing
that is hidden, is ever told. A question that could not be judged is not graded: a person settles it, and it is never 0.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from course_lib.grading import wire
from course_lib.grading.checks import Verdict
from course_lib.grading.manifest import Check, Limits, Question
from course_lib.grading.source import Hidden

Outcome = Literal["right", "wrong", "not_graded"]
STOPS = {  # why a box ended, or gave nothing that can be judged
    "time": "a cell ran longer than {cell_s:g} s",
    "question time": "the answer took longer than {question_s:g} s",
    "submission time": "the submission took longer than {submission_s:g} s altogether",
    "memory": "it took more memory than {memory_mb} MB",
    "output": "it printed more than {output_mb:g} MB",
    "disk": "it wrote more than {folder_mb} MB, or too many files",
    "answer": "the answer is larger than {file_mb} MB",
    "died": "the kernel ended while it ran",
    "nonsense": "the kernel sent messages that no kernel sends",
    "unreadable": "what came back is no answer that can be read",
    "no start": "the kernel did not start: the grader's own fault",
    "check": "the teacher's check stopped with an error: the grader's own fault",
    "reference": "the reference has no answer to these inputs: the grader's own fault",
    "person": "to be read by a person",
}
RETRIED = ("time", "question time", "submission time", "memory", "died", "no start")  # a busy machine may be the cause
ERRORS = frozenset(
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
)


@dataclass(frozen=True)
class CheckResult:
    """One thing that was told apart. `points` is what it is worth."""

    name: str
    points: float
    outcome: Outcome
    sentence: str


@dataclass(frozen=True)
class Judgement:
    """What one question came to. `points` is None iff it is not graded; `stop` is a key of STOPS, or ""."""

    outcome: Outcome
    points: float | None
    reason: str
    checks: tuple[CheckResult, ...] = ()
    stop: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def rank(self) -> float:
        """A judged question counts more than one that is not."""
        return -1.0 if self.points is None else self.points


@dataclass(frozen=True)
class Found:
    """What a box gave for one question: a claim, or why there is none. `seconds` by the grader's clock.

    `content`: the claim as it came, bytes.
    """

    claim: Any = None
    stop: str = ""
    seconds: float = 0.0
    content: bytes = b""


def not_graded(stop: str, limits: Limits, what: str = "") -> Judgement:
    """`what` stands before the sentence, as in "cell 3: "."""
    return Judgement("not_graded", None, what + STOPS[stop].format(**asdict(limits)), stop=stop)


def in_fixed_words(question: Question, judgement: Judgement, what: str) -> Judgement:
    """The same marks, and of no check more than right or not right, after `what`."""
    words = {"right": "right", "wrong": "not right"}
    checks = tuple(replace(each, sentence=f"{what}: {words[each.outcome]}") for each in judgement.checks)
    return _sum(question, checks)


def told(sentence: str) -> str:
    """A sentence as it may stand in feedback: short, and without a number long enough to carry something hidden."""
    sentence = re.sub(
        r"\d{7,}", "...", re.sub(r"[^\x20-\uffff]|[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", "", sentence)
    )
    return sentence if len(sentence) <= 300 else sentence[:297] + "..."


# Like with like

KINDS = {
    type(None): "nothing", bool: "True or False", int: "a number", float: "a number", str: "a text", list: "a list",
    dict: "a dictionary",
}  # fmt: skip


def kind(value: object) -> str:
    return "a tensor" if isinstance(value, Tensor) else KINDS.get(type(value), "something else")


def alike(found: Any, expected: Any) -> tuple[Any, list[str]]:
    """`found` with its numbers in the kinds that `expected` has, and what is of another kind, in sentences.

    float64 for float32, a tensor of one element for a number, a row of numbers for a list: none of that is wrong.
    """
    if isinstance(expected, Tensor):
        if isinstance(found, bool | int | float) and expected.ndim == 0:
            found = torch.tensor(found)
        if isinstance(found, Tensor):
            return _as_kind(found, expected.dtype), _shapes(found, expected)
    elif isinstance(expected, bool | int | float):
        if isinstance(found, Tensor) and found.numel() == 1:
            found = found.item()
        if isinstance(found, bool | int | float):
            truth = isinstance(expected, bool) and found in (0, 1)
            return (bool(found) if truth else found), []
    elif isinstance(expected, list):
        if isinstance(found, Tensor) and found.ndim > 0:
            found = found.tolist()
        if isinstance(found, list):
            if len(found) != len(expected):
                return found, [
                    f"expected {len(expected)} things, you have {'more' * (len(found) > len(expected)) or 'fewer'}"
                ]
            pairs = [alike(mine, right) for mine, right in zip(found, expected, strict=True)]
            return [mine for mine, _ in pairs], [said for _, wrong in pairs for said in wrong]
    elif isinstance(expected, dict):
        if isinstance(found, dict):
            wrong = [] if set(found) == set(expected) else ["a dictionary with other names is expected"]
            parts = {name: alike(found[name], expected[name]) for name in expected if name in found}
            return (
                found | {name: mine for name, (mine, _) in parts.items()},
                wrong + [said for _, each in parts.values() for said in each],
            )
    elif type(found) is type(expected):
        return found, []
    return found, [f"{kind(expected)} is expected, you have {kind(found)}"]


def _as_kind(found: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:
        return found.to(dtype)
    plain = found.double()
    whole = bool(plain.isfinite().all()) and bool((plain == plain.round()).all())
    if dtype == torch.bool:
        return found.to(dtype) if whole and bool(((plain == 0) | (plain == 1)).all()) else found
    return found.to(dtype) if whole and found.is_floating_point() else found


def _shapes(found: Tensor, expected: Tensor) -> list[str]:
    if found.shape == expected.shape:
        return []
    return [f"a tensor of shape {tuple(expected.shape)} is expected, yours has another"]


# One question

Place = Callable[[str, int], str]  # the file of a cell in the kernel, a line -> ", in line 3 of your cell q1"


def judge(
    question: Question,
    hidden: Hidden,
    asked: Sequence[Mapping[str, Any]],
    expected: Sequence[Any],
    found: Found,
    limits: Limits,
    place: Place = lambda file, line: "",
) -> Judgement:
    """What a claim about a question comes to. A check is passed if it is in every case."""
    if found.stop:
        return not_graded(found.stop, limits)
    claim = found.claim
    if not isinstance(claim, dict) or len(claim) != 1:
        return not_graded("unreadable", limits)
    if "missing" in claim:
        names = [
            name for name in question.names if name in (claim["missing"] if isinstance(claim["missing"], list) else [])
        ]
        return _all_wrong(question, f"no answer: {', '.join(names or question.names)} is not defined")
    if "unsent" in claim:
        if claim["unsent"] == "NotData":
            return _all_wrong(question, "it gives something that is neither tensor, number, text, list nor dictionary")
        if claim["unsent"] == "TooLarge":
            return _all_wrong(question, "it gives an array of whole numbers as large as 2**63 or larger")
        return not_graded(
            {"OSError": "answer", "MemoryError": "memory"}.get(str(claim["unsent"]), "unreadable"), limits
        )
    cases = claim.get("cases")
    if not isinstance(cases, list) or len(cases) != len(expected):
        return not_graded("unreadable", limits)
    results = []
    for given, right, case in zip(asked, expected, cases, strict=True):
        one = _case(question, hidden, given, right, case, limits, place)
        if one.outcome == "not_graded":
            return one
        results.append(one)
    return _together(question, results)


def judge_question(
    hidden: Hidden, question: Question, found: Any, expected: Any, asked: Sequence[Mapping[str, Any]]
) -> Judgement:
    """`judge` of what two probes brought back, the second that of the reference."""
    return judge(question, hidden, asked, [case["gives"] for case in expected["cases"]], Found(found), Limits())


def _case(
    question: Question, hidden: Hidden, given: Mapping[str, Any], right: Any, case: Any, limits: Limits, place: Place
) -> Judgement:
    if not isinstance(case, dict):
        return not_graded("unreadable", limits)
    if "gives" not in case:
        name = case.get("stops")
        name = name if isinstance(name, str) and name in ERRORS else "Exception"
        if name == "MemoryError":
            return not_graded("memory", limits)
        if name == "NotImplementedError":
            return _all_wrong(question, "not attempted")
        file, line = case.get("cell"), case.get("line")
        where = place(file, line) if isinstance(file, str) and type(line) is int and 0 < line < 10_000 else ""
        return _all_wrong(question, f"your function stops with {name}{where}")
    found, odd = alike(case["gives"], right)
    if not wire.finite(found) and wire.finite(right):
        odd.append("some of the numbers are nan or infinite")
    try:
        verdicts = _named(question, hidden.judge(found, right, **given))
    except Exception:
        # with an answer of the right kinds and shapes a check must not stop
        return _all_wrong(question, odd[0]) if odd else not_graded("check", limits)
    return _together(question, [_judged(question, verdicts)])


def _named(question: Question, found: Any) -> dict[str, Verdict]:
    """A verdict for each check of the manifest; points are the manifest's."""
    checks = checks_of(question)
    verdicts = (
        {checks[0].name: found}
        if isinstance(found, Verdict)
        else {name: verdict for name, (_, verdict) in found.items()}
    )
    if set(verdicts) != {check.name for check in checks}:
        raise ValueError("judge names other checks than the manifest")
    if not all(isinstance(each, Verdict) and isinstance(each.passed, bool) for each in verdicts.values()):
        raise ValueError("judge gives something that is no verdict")
    return verdicts


def checks_of(question: Question) -> tuple[Check, ...]:
    """Those of the manifest; a question that has none is one check."""
    return question.checks or (Check("answer", question.points),)


def _judged(question: Question, verdicts: Mapping[str, Verdict]) -> Judgement:
    checks = tuple(
        CheckResult(
            check.name, check.points, "right" if verdicts[check.name].passed else "wrong",
            told(verdicts[check.name].sentence),
        )
        for check in checks_of(question)
    )  # fmt: skip
    return _sum(question, checks)


def _all_wrong(question: Question, sentence: str) -> Judgement:
    return _sum(question, tuple(CheckResult(each.name, each.points, "wrong", sentence) for each in checks_of(question)))


def _sum(question: Question, checks: tuple[CheckResult, ...]) -> Judgement:
    if all(check.outcome == "right" for check in checks):
        return Judgement("right", question.points, "", checks)
    failed = next(check for check in checks if check.outcome == "wrong")
    reason = failed.sentence if len(checks) == 1 else f"{failed.name}: {failed.sentence}"
    return Judgement("wrong", sum(check.points for check in checks if check.outcome == "right"), reason, checks)


def _together(question: Question, cases: Sequence[Judgement]) -> Judgement:
    """Over the cases: of each check the first that failed, else the last."""
    merged = []
    for at in range(len(checks_of(question))):
        each = [case.checks[at] for case in cases]
        merged.append(next((check for check in each if check.outcome == "wrong"), each[-1]))
    return _sum(question, tuple(merged))
