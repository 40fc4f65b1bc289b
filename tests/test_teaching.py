"""What a lecturer takes from a lesson: five questions with reasons, slides with notes, answers for the teacher."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from nbconvert.filters import markdown2html

LESSONS = Path(__file__).parents[1] / "notebooks"
STEMS = [path.stem for path in sorted(LESSONS.glob("[0-9]*.ipynb"))]
each = pytest.mark.parametrize("stem", STEMS)
KEYS = {"title", "points", "code", "output", "build", "minutes", "notes"}
TO_GO_ON = re.compile(r"^## (?:\d+ )?To go on\n(.*?)(?=^## |\Z)", re.M | re.S)
OPTION = re.compile(r'<details name="([^"]*)"><summary>([^\n]*)</summary>\n\n([^\n]*)\n</details>')


class Option(NamedTuple):
    group: str  # one of a group is open at a time
    text: str
    reason: str

    @property
    def right(self) -> bool:
        return self.reason.startswith("Right: ")


def cells(stem: str) -> list:
    return nbformat.read(LESSONS / f"{stem}.ipynb", as_version=4).cells


def tagged(stem: str, tag: str) -> list:
    return [cell for cell in cells(stem) if tag in cell.metadata.get("tags", [])]


def slides(stem: str) -> list[dict]:
    return [cell.metadata["slide"] for cell in tagged(stem, "slide")]


def quiz(stem: str) -> dict[str, list[Option]]:
    """Question -> its options; whatever else stands in the cell is an error."""
    (cell,) = tagged(stem, "quiz")
    opening, *parts = re.split(r"^\*\*([1-5]\. [^\n]*)\*\*$", cell.source, flags=re.M)
    assert re.fullmatch(r"## Five questions\n\n([^\n]+\n\n)?", opening)
    found = {}
    for question, body in zip(parts[::2], parts[1::2], strict=True):
        found[question] = [Option(*option) for option in OPTION.findall(body)]
        assert OPTION.sub("", body).strip() == "", f"{question}: something is no option"
    return found


class Rendered(HTMLParser):
    """The words of each summary and of each paragraph that is folded with it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.summaries: list[str] = []
        self.folded: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag in ("details", "summary", "p"):
            self.open.append(tag)
        if tag == "summary":
            self.summaries.append("")
        if self.open == ["details", "p"] and tag == "p":
            self.folded.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("details", "summary", "p"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open == ["details", "summary"]:
            self.summaries[-1] += data
        elif self.open == ["details", "p"]:
            self.folded[-1] += data


@each
def test_a_quiz_has_five_questions_and_each_has_one_right_option(stem):
    found = quiz(stem)
    assert [question[:2] for question in found] == [f"{number}." for number in range(1, 6)]
    for number, (question, options) in enumerate(found.items(), 1):
        assert question.endswith(("?", ".")) and len(question) > 40
        assert len(options) in (3, 4), question
        assert {option.group for option in options} == {f"{stem[:2]}-{number}"}
        assert [option.right for option in options].count(True) == 1, question
        assert all(option.right or option.reason.startswith("Not so: ") for option in options), question


def test_every_option_has_a_reason_of_its_own():
    options = [option for stem in STEMS for found in quiz(stem).values() for option in found]
    reasons = [option.reason.split(": ", 1)[1] for option in options]
    assert min(map(len, reasons)) >= 40 and len(set(reasons)) == len(reasons)
    for stem in STEMS:
        texts = [option.text for found in quiz(stem).values() for option in found]
        assert len(set(texts)) == len(texts)


@each
def test_neither_place_nor_length_gives_the_right_option_away(stem):
    found = list(quiz(stem).values())
    places = {next(place for place, option in enumerate(options) if option.right) for options in found}
    assert len(places) >= 3
    longest = [max(options, key=lambda option: len(option.text)).right for options in found]
    assert longest.count(True) <= 3


@each
def test_a_quiz_unfolds_without_a_script(stem):
    """Rendered, every option is a summary with its reason as a paragraph, and no mark of Markdown is left."""
    (cell,) = tagged(stem, "quiz")
    page = Rendered(markdown2html(cell.source))
    options = [option for found in quiz(stem).values() for option in found]
    assert len(page.summaries) == len(page.folded) == len(options)
    assert all(reason.startswith(("Right: ", "Not so: ")) for reason in page.folded)
    assert not any("`" in text or "**" in text for text in page.summaries + page.folded)
    assert "<script" not in cell.source and "onclick" not in cell.source


@each
def test_the_quiz_stands_before_the_questions_that_have_no_answer(stem):
    headings = [i for i, cell in enumerate(cells(stem)) if TO_GO_ON.search(cell.source)]
    places = [i for i, cell in enumerate(cells(stem)) if "quiz" in cell.metadata.get("tags", [])]
    assert len(headings) == len(places) == 1 and places[0] == headings[0] - 1
    assert cells(stem)[headings[0]].source.startswith("## ")


@each
def test_slides_are_whole(stem):
    marked = [cell for cell in cells(stem) if "slide" in cell.metadata]
    assert marked == tagged(stem, "slide") and marked[0] == cells(stem)[0]
    for cell in marked:
        slide = cell.metadata["slide"]
        assert set(slide) == KEYS, slide["title"]
        assert all(type(slide[flag]) is bool for flag in ("code", "output", "build"))
        assert type(slide["minutes"]) is int and 1 <= slide["minutes"] <= 6
        assert 3 <= len(slide["title"]) <= 60 and len(slide["notes"]) >= 120, slide["title"]
        assert all(0 < len(point) <= 90 and "\n" not in point for point in slide["points"]), slide["title"]
        assert all(point.count("$") % 2 == point.count("`") % 2 == 0 for point in slide["points"])
        assert len(slide["points"]) <= (3 if slide["code"] or slide["output"] else 6), slide["title"]
        assert slide["points"] or slide["code"] or slide["output"], slide["title"]
        assert not slide["build"] or len(slide["points"]) > 1


@each
def test_slides_show_code_that_can_be_read_and_outputs_that_exist(stem):
    for cell in tagged(stem, "slide"):
        slide = cell.metadata["slide"]
        assert cell.cell_type == "code" or not (slide["code"] or slide["output"]), slide["title"]
        if slide["code"]:
            assert len(cell.source.splitlines()) <= 16, slide["title"]
        if slide["output"]:
            shown = "".join(str(output) for output in cell.outputs)
            assert shown and "Commit to a" not in shown, f"{slide['title']}: a guess is no result"


@each
def test_a_lecture_fits_an_hour(stem):
    found = slides(stem)
    assert 10 <= len(found) <= 16 and 35 <= sum(slide["minutes"] for slide in found) <= 55
    assert len({slide["title"] for slide in found}) == len(found)
    assert sum("?" in slide["notes"] for slide in found) >= 6, "questions to put to the class"


@each
def test_the_answers_to_the_open_questions_stand_in_the_notes_alone(stem):
    (section,) = [found[1] for cell in cells(stem) if (found := TO_GO_ON.search(cell.source))]
    assert [line[:2] for line in section.splitlines() if re.match(r"\d\.", line)] == ["1.", "2.", "3."]
    last = slides(stem)[-1]
    answers = re.split(r"^(?:\*\*)?([1-3])\. ", last["notes"], flags=re.M)
    assert last["title"] == "To go on" and len(last["points"]) == 3
    assert answers[0] == "" and answers[1::2] == ["1", "2", "3"] and min(map(len, answers[2::2])) > 120
    seen = " ".join(" ".join(f"{cell.source} {cell.get('outputs', '')}".split()) for cell in cells(stem))
    for answer in answers[2::2]:
        for sentence in re.split(r"(?<=[.?!]) ", " ".join(answer.split())):
            assert len(sentence) < 25 or sentence not in seen, sentence
