"""Plans for teachers: what they name exists, their minutes add up, and each becomes slides in its order."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from course_lib import cli
from course_lib.export.lessons import ExportError, find_lessons
from course_lib.export.plans import plans_page, read_plans

ROOT = Path(__file__).parents[1]
PLANS = read_plans(ROOT)
SESSIONS = [(name, session) for name, plan in PLANS.items() for session in plan.sessions]


def cells(lesson: str) -> list[nbformat.NotebookNode]:
    (path,) = find_lessons(ROOT / "notebooks", lesson)
    return nbformat.read(path, as_version=4).cells


def test_the_four_plans_take_as_long_as_their_names_say():
    minutes = {name: [session.minutes for session in plan.sessions] for name, plan in PLANS.items()}
    assert minutes == {"hour": [60], "ninety": [90], "workshop": [90] * 8, "course": [90] * 14}


@pytest.mark.parametrize(("name", "session"), SESSIONS, ids=[f"{name} {one.title}" for name, one in SESSIONS])
def test_every_slide_exercise_and_homework_of_a_plan_exists_and_the_minutes_add_up(name, session):
    """Minutes and titles are read here from the notebooks themselves."""
    planned = session.opening["minutes"] if session.opening else 0
    for part in session.parts:
        if part.lesson:
            marked = {cell.metadata.slide.title: cell.metadata.slide.minutes for cell in cells(part.lesson.stem)
                      if "slide" in cell.metadata}  # fmt: skip
            minutes = [1 if title in "12345" else marked[title] for title in part.slides]
            assert len(minutes) == len(marked) + 5 or not part.whole
            planned += sum(minutes)
        else:
            planned += part.minutes
        if part.notebook:
            text = "\n".join(cell.source for cell in cells(part.notebook.stem))
            each = dict(re.findall(r"^### Exercise (\d) .*?, (\d+) minutes\)$", text, re.M))
            assert sum(int(each[str(number)]) for number in part.exercises) <= part.minutes
        if part.homework:
            assert (ROOT / "notebooks" / "homework" / part.homework / f"{part.homework}.ipynb").is_file()
    assert planned == session.minutes


def test_the_course_of_14_weeks_has_every_lesson_and_every_homework():
    parts = [part for session in PLANS["course"].sessions for part in session.parts]
    assert [part.lesson for part in parts if part.whole] == find_lessons(ROOT / "notebooks")
    homework = [part.homework for part in parts if part.homework]
    assert sorted(homework) == sorted(path.parent.name for path in ROOT.glob("notebooks/homework/*/*.ipynb"))


def test_openings_are_slides_as_lessons_have_them():
    for _, session in SESSIONS:
        first = session.parts[0]
        assert session.opening or first.whole or not any(part.lesson for part in session.parts), session.title
        if session.opening:
            assert set(session.opening) == {"title", "points", "minutes", "notes"}
            assert all(0 < len(point) <= 90 for point in session.opening["points"])
            assert "**Ask" in session.opening["notes"] and len(session.opening["notes"]) >= 120


def test_the_page_for_teachers_and_the_readme_tell_the_plans_as_they_are():
    assert (ROOT / "notebooks" / "TEACHING.md").read_text() == plans_page(ROOT), "run `course plans`"
    readme = (ROOT / "README.md").read_text()
    for name, plan in PLANS.items():
        assert f"| `{name}` | {plan.title[0].lower()}{plan.title[1:]} |" in readme
    for name in ("hour", "ninety"):
        (session,) = PLANS[name].sessions
        assert f"| {1 + sum(len(part.slides) for part in session.parts)} slides" in readme


def test_a_plan_becomes_one_file_with_its_slides_in_its_order(tmp_path):
    result = CliRunner().invoke(cli.app, ["export", "slides", "--plan", "hour", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["hour-slides.html"] and "55 minutes" in result.output
    page = (tmp_path / "hour-slides.html").read_text()
    (session,) = PLANS["hour"].sessions
    titles = [session.opening["title"], *(title for part in session.parts for title in part.slides)]
    found = re.findall(r'<h([12]) id="slide-\d+">(.*?)</h\1>', page)
    assert [tag for tag, _ in found] == ["1"] + ["2"] * (len(titles) - 1)
    assert [text[:1] if title.isdigit() else text for title, (_, text) in zip(titles, found, strict=True)] == titles
    assert page.count('class="live-explorer" data-wide=') == 3
    assert "when this slide ends; lesson 10" in page and 'data-total-time="3300"' in page


@pytest.fixture
def course(tmp_path: Path) -> Path:
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "06_timesformer.ipynb", tmp_path / "notebooks")
    return tmp_path


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (
            '{ lesson = "06", slides = ["Clik"] }',
            "plan mine, session 1: 06_timesformer has no slide 'Clik'; it has Time",
        ),
        ('{ lesson = "06", quiz = [6] }', "06_timesformer has no slide '6'"),
        ('{ lesson = "12" }', "'12' is no lesson: choose from 06_timesformer"),
        ('{ homework = "tsn" }', "no homework 'tsn' in"),
        ('{ do = "a break" }', "plan mine, session 1: 'minutes' is missing in"),
        ('{ do = "a break", minutes = 9 }', "plan mine, session 1: its parts take 9 minutes, it has 10"),
        ('{ do = "a break", minutes 9 }', "plans.toml: "),
    ],
)
def test_a_plan_that_cannot_be_kept_is_told_with_what_is_there(course, part, says):
    head = '[mine]\ntitle = "Mine"\naudience = "us"\n[[mine.sessions]]\ntitle = "One"\nminutes = 10\n'
    (course / "notebooks" / "plans.toml").write_text(f"{head}parts = [{part}]\n")
    with pytest.raises(ExportError) as told:
        read_plans(course)
    assert says in str(told.value)


def test_the_command_takes_a_plan_or_lessons_and_knows_its_plans(tmp_path):
    result = CliRunner().invoke(cli.app, ["export", "slides", "--plan", "day", "--out", str(tmp_path)])
    assert result.exit_code == 1 and "no plan 'day'" in result.output and "hour, ninety, workshop" in result.output
    result = CliRunner().invoke(cli.app, ["export", "slides", "06", "--plan", "hour", "--out", str(tmp_path)])
    assert result.exit_code == 1 and "name lessons or a plan" in result.output
