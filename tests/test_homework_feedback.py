"""A page of feedback tells a student what is wrong, and nothing that is hidden; nothing of his becomes part of it."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import homework_results as small
import pytest
import tiny_homework as tiny
from typer.testing import CliRunner

from course_lib.cli import app
from course_lib.grading import box as boxes
from course_lib.grading import page, run
from course_lib.grading.feedback import write_feedback
from course_lib.grading.manifest import Release
from course_lib.grading.overrides import Settled, read_overrides
from course_lib.grading.reference import ask
from course_lib.grading.results import About, file_of, store
from course_lib.grading.source import HomeworkError

VOID = {"meta", "br", "hr", "img", "link", "input", "base", "embed"}
HARMLESS = {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "h4", "p", "ul", "li", "pre",
            "table", "caption", "thead", "tbody", "tr", "th", "td"}  # fmt: skip


class Page(HTMLParser):
    """A page as Python's own parser reads it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(self.source)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} is closed and was not open"

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]][-1] += data

    @property
    def text(self) -> str:
        return "\n".join(each for tag, texts in self.texts.items() if tag != "style" for each in texts)

    @property
    def code(self) -> list[str]:
        return [each.removeprefix("\n") for each in self.texts.get("pre", ())]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return small.grade_class(tmp_path_factory.mktemp("class"))


@pytest.fixture(scope="module")
def pages(results, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pages")
    write_feedback(results, out, {})
    return out


def page_of(folder: Path, student: str) -> Page:
    return Page(folder / f"{file_of(student)}.html")


def test_nothing_of_a_student_becomes_part_of_the_page(pages):
    ann = page_of(pages, small.ANN)
    assert {tag for tag, _ in ann.tags} <= HARMLESS, "nothing that runs, loads, links or sends"
    names = {name for _, attrs in ann.tags for name in attrs}
    assert names <= {"lang", "charset", "name", "content", "http-equiv", "scope", "class"}
    policy = [attrs["content"] for tag, attrs in ann.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert len(policy) == 1 and policy[0].startswith("default-src 'none';")
    assert small.ODD + "raw " in ann.code and small.WRONG_1 in ann.code, "as they were written"
    assert "<script>alert(1)</script> red ab\n<!-- & -->\n" in ann.code, "without colours and turned writing"
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", ann.source)
    assert f"feedback for {small.ANN}" in ann.texts["h1"][0] and "url(" not in ann.source


def test_a_page_tells_the_points_and_the_sentences_of_the_checks(pages, results):
    ann = page_of(pages, small.ANN)
    assert "4 of 10 points." in ann.text
    stored = json.loads((results / "results" / f"{file_of(small.ANN)}.json").read_text())
    sentences = [check["sentence"] for row in stored["questions"] for check in row["checks"]]
    assert len(sentences) == 4 and all(sentence in ann.texts["td"] for sentence in sentences)
    assert any("numbers differ" in each for each in sentences), sentences
    assert "Why: your function stops with KeyError, in line 2 of your cell q3." in ann.texts["p"]
    assert any("builds on q1" in each and "the better of both counts" in each for each in ann.texts["p"])
    assert [each for each in ann.texts["h2"] if each.startswith("q2")] == ["q2 · quadruple: 3 of 3 points, right"]
    assert stored["submission"]["sha256"][:12] in ann.text and "not sandboxed" in ann.text


def test_what_is_not_graded_is_said_to_cost_nothing_and_why(pages):
    bob = page_of(pages, small.BOB)
    assert "0 of 10 points so far. Not graded yet: q1, q2, q3. That costs no points" in bob.text
    assert bob.text.count("Why: bob is an empty folder.") == 3


def hidden_of(release: Release) -> list[str]:
    lines = [line.strip() for hidden in release.hidden.values() for line in hidden.source.splitlines()]
    lines += [line.strip() for source in release.reference.values() for line in source.splitlines()]
    own = "\n".join([small.WRONG_1, tiny.RIGHT["q2"], small.STOPS_3])
    return [line for line in lines if len(line) > 10 and line not in own] + [release.key.hex()]


def numbers_of(release: Release, results: Path) -> list[str]:
    """The first digits of every hidden number that ann was asked."""
    stored = json.loads((results / "results" / f"{file_of(small.ANN)}.json").read_text())
    sum = stored["submission"]["sha256"]
    cases = [case for each in release.hidden.values() for case in ask(each, release.key, "tiny", small.ANN, sum).cases]
    return [repr(abs(number))[:6] for case in cases for number in case["x"].flatten().tolist()]


def test_nothing_hidden_is_in_a_page_until_it_is_revealed(pages, results, tmp_path):
    release = Release.read(About.read(results).release)
    lines, numbers = hidden_of(release), numbers_of(release, results)
    assert len(lines) > 15 and len(numbers) > 100
    ann = page_of(pages, small.ANN)
    assert [line for line in lines if line in ann.text] == []
    assert [number for number in numbers if number in ann.source] == []
    assert ann.text.count("my words") == small.STOPS_3.count("my words"), "what an error says is not quoted"

    write_feedback(results, tmp_path, {}, release)
    revealed = page_of(tmp_path, small.ANN)
    assert set(tiny.RIGHT.values()) <= set(revealed.code)
    assert all(number in revealed.source for number in numbers)
    assert release.key.hex() not in revealed.source and "def judge" not in revealed.source


def test_a_screen_reader_finds_its_way(pages):
    for student in (small.ANN, small.BOB):
        found = page_of(pages, student)
        assert dict(found.tags)["html"] == {"lang": "en"} and [tag for tag, _ in found.tags].count("main") == 1
        levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels)), levels
        assert all(text.strip() for tag in ("title", "h1", "h2", "caption", "th") for text in found.texts[tag])
        scopes = [attrs.get("scope") for tag, attrs in found.tags if tag == "th"]
        assert scopes and set(scopes) == {"col", "row"}
        assert [tag for tag, _ in found.tags].count("caption") == [tag for tag, _ in found.tags].count("table")
        outcomes = {text for text in found.texts["td"] if text in ("right", "not right yet", "not graded yet")}
        assert outcomes, "said in words, not by colour"


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance of #rrggbb."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_text_has_the_contrast_of_wcag_aaa():
    pairs = re.findall(r"\{ color: (#\w{6}); background: (#\w{6});", page.STYLE)
    assert len(pairs) == page.STYLE.count(" color: #") == 5
    for pair in pairs:
        light, dark = sorted(map(luminance, pair), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 7, pair


def test_what_a_person_settled_is_told_with_its_note(results, tmp_path):
    settled = {(small.BOB, "q1"): Settled(4, "handed in <on> paper"), (small.BOB, "q2"): Settled(0, "")}
    write_feedback(results, tmp_path, settled)
    bob = page_of(tmp_path, small.BOB)
    assert "4 of 10 points so far. Not graded yet: q3." in bob.text
    assert "A person settled this question. handed in <on> paper" in bob.texts["p"]
    assert bob.text.count("Why:") == bob.text.count("bob is an empty folder") == 1, "of q3 alone"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("eve,q1,1,", "line 2: there is no result of 'eve'"),
        ("bob,q9,1,", "line 2: tiny has no question 'q9': q1, q2, q3"),
        ("bob,q1,5,", "line 2: '5' are no points, a number from 0 to 4 is needed"),
        ("bob,q1,-1,", "from 0 to 4"),
        ("bob,q1,nan,", "from 0 to 4"),
        ("bob,q1,,", "from 0 to 4"),
        ("bob,q1,1,\nbob,q1,2,", "line 3: q1 of bob was settled in a line before"),
        ("bob,q1", "line 2 has not as many columns"),
    ],
)
def test_a_line_of_overrides_that_cannot_be_meant_is_named(line, sentence, results, tmp_path):
    path = tmp_path / "overrides.csv"
    path.write_text(f"student,question,points,note\n{line}\n")
    with pytest.raises(HomeworkError, match=re.escape(sentence)) as error:
        read_overrides(path, About.read(results), [small.ANN, small.BOB])
    assert str(path) in str(error.value)


def test_overrides_take_a_name_as_the_gradebook_writes_it(results, tmp_path):
    (tmp_path / "overrides.csv").write_text(f"student,question,points,note\n'{small.ANN},q1,4,'=ok\n")
    found = read_overrides(tmp_path / "overrides.csv", About.read(results), [small.ANN])
    assert found == {(small.ANN, "q1"): Settled(4, "=ok")}


def feedback(*arguments: object):
    return CliRunner().invoke(app, ["feedback", *map(str, arguments)])


def test_the_command_writes_a_page_a_student_and_names_what_it_cannot_use(results, tmp_path):
    found = feedback(results, "--out", tmp_path / "pages")
    assert found.exit_code == 0 and "2 pages" in found.output and "3 questions not graded" in found.output
    assert len(list((tmp_path / "pages").iterdir())) == 2

    found = feedback(tmp_path / "pages", "--out", tmp_path / "more")
    assert found.exit_code == 1 and "homework.json is missing: name a folder that `course grade` wrote" in found.output
    found = feedback(results, "--out", tmp_path / "more", "--release", tmp_path)
    assert found.exit_code == 2 and "--reveal" in found.output
    (tmp_path / "file").write_text("")
    found = feedback(results, "--out", tmp_path / "file")
    assert found.exit_code == 1 and str(tmp_path / "file") in found.output and "Traceback" not in found.output

    broken = shutil.copytree(results, tmp_path / "broken")
    path = broken / "results" / f"{file_of(small.BOB)}.json"
    path.write_text(path.read_text()[:100])
    found = feedback(broken, "--out", tmp_path / "more")
    assert found.exit_code == 1 and path.name in found.output and "broken or cut off" in found.output
    path.unlink()
    (broken / "results" / f"{file_of(small.ANN)}.json").unlink()
    found = feedback(broken, "--out", tmp_path / "more")
    assert found.exit_code == 1 and "holds no results" in found.output
    assert not (tmp_path / "more").exists()


ODD_NAMES = ["a\\b", "a\x1bb", os.fsdecode(b"J\xf6rg")]  # as they lie on the disk, not as they are shown


@pytest.fixture(scope="module")
def revealed(tmp_path_factory) -> Path:
    """Two right ones and one after a fault of the grader's that came later, with what was asked."""
    folder = tmp_path_factory.mktemp("revealed")
    release = tiny.release(folder / "tiny")
    plan = run.Plan(folder / "tiny", folder / "class", folder / "out", boxes.NONE, tiny.LIMITS)
    marker = run.Marker(plan)
    About.of(release).write(plan.out)
    for student in ODD_NAMES:
        (folder / "class" / student).mkdir(parents=True)
        (folder / "class" / student / "tiny.ipynb").write_bytes(tiny.submission())
        store(plan.out, student, marker(run.Task(student, "key", notes=("a note",))), "first")
    task = run.Task(ODD_NAMES[0], "key")
    blank = run.unmarked(release, release.manifest.questions, run.own_fault("KeyError"), "grader")
    store(plan.out, task.student, run.result_of(release, plan, task, blank), "second")
    write_feedback(plan.out, folder / "pages", {}, release)
    return folder / "pages"


@pytest.mark.parametrize("student", ODD_NAMES)
def test_what_was_asked_is_drawn_again_whatever_the_student_is_called(student, revealed):
    found = page_of(revealed, student)
    assert "cannot be drawn again" not in found.text and "What you were asked in q3, case 3" in found.text
    assert "10 of 10 points." in found.text


def test_a_fault_of_the_grader_leaves_what_was_read_and_marked_before(revealed):
    found = page_of(revealed, ODD_NAMES[0])
    assert set(tiny.RIGHT.values()) <= set(found.code) and found.code.count(tiny.RIGHT["q1"]) == 2, "his and the right"
    assert "This is about the file" in found.text and "a note" in found.text


def test_a_result_without_a_file_costs_no_page(results, tmp_path):
    """As graders before this one left some."""
    broken = shutil.copytree(results, tmp_path / "broken")
    path = broken / "results" / f"{file_of(small.ANN)}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"submission": None}))
    assert write_feedback(broken, tmp_path / "pages", {}, Release.read(About.read(broken).release)).pages == 2
    assert "cannot be drawn again" in page_of(tmp_path / "pages", small.ANN).text


def test_only_the_release_that_graded_is_revealed(results, tmp_path):
    tiny.release(tmp_path / "other", q3=tiny.HIDDEN["q3"].replace("size=40", "size=50"))
    found = feedback(results, "--out", tmp_path / "pages", "--reveal", "--release", tmp_path / "other")
    assert found.exit_code == 1 and "another version" in found.output and not (tmp_path / "pages").exists()
    found = feedback(results, "--out", tmp_path / "pages", "--reveal", "--release", tmp_path / "absent")
    assert found.exit_code == 1 and "manifest.json is missing" in found.output
    found = feedback(results, "--out", tmp_path / "pages", "--reveal")
    assert found.exit_code == 0 and "with right answers" in found.output, found.output
