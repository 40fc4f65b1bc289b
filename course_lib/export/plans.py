"""Plans for teachers: what is shown and done in each session, from notebooks/plans.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import nbformat

from course_lib.export.lessons import ExportError, find_lessons
from course_lib.files import atomic_write

QUIZ_MINUTES = 1  # each question
QUESTION = re.compile(r"^\*\*(\d\. [^\n]*)\*\*$", re.M)
HEAD = """# Four plans for teachers

`course plans` writes this page from [plans.toml](plans.toml), where a plan of your own is a table more. Minutes of
slides are those that the lessons carry, with one for each question of a quiz; the others are written there.
`course export slides --plan NAME --out DIR` makes one file of slides for each session that has some.
"""


class Part(NamedTuple):
    """A stretch of a session: slides of a lesson, exercises in its notebook, homework, or something else to do."""

    minutes: int
    lesson: Path | None = None
    slides: Mapping[str, int] = MappingProxyType({})  # minutes by title, or by the number of a question of the quiz
    whole: bool = False
    notebook: Path | None = None
    exercises: tuple[int, ...] = ()
    homework: str = ""
    do: str = ""


class Session(NamedTuple):
    title: str
    minutes: int
    opening: dict[str, Any] | None  # a slide before the first part: title, points, minutes, notes
    parts: list[Part]

    @property
    def planned(self) -> int:
        return (self.opening["minutes"] if self.opening else 0) + sum(part.minutes for part in self.parts)


class Plan(NamedTuple):
    title: str
    audience: str
    sessions: list[Session]


def read_plans(root: Path) -> dict[str, Plan]:
    """Name -> plan, for the course in the folder `root`. ExportError names what does not exist or does not add up."""
    path = root / "notebooks" / "plans.toml"
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ExportError(f"{path}: {error}") from None
    plans = {}
    for name, plan in written.items():
        sessions: list[Session] = []
        try:
            for session in plan["sessions"]:
                sessions.append(_session(root, session, f"plan {name}, session {len(sessions) + 1}"))
            plans[name] = Plan(plan["title"], plan["audience"], sessions)
        except KeyError as error:
            raise ExportError(f"plan {name}, session {len(sessions) + 1}: {error} is missing in {path}") from None
    return plans


def lesson_minutes(lesson: Path) -> dict[str, int]:
    """Minutes of each slide of a lesson, by its title, and of each question of its quiz, by its number."""
    minutes, questions = {}, []
    for cell in nbformat.read(lesson, as_version=4).cells:
        if "slide" in cell.metadata:
            minutes[cell.metadata["slide"]["title"]] = cell.metadata["slide"]["minutes"]
        if "quiz" in cell.metadata.get("tags", []):
            questions += QUESTION.findall(cell.source)
    return minutes | {question[0]: QUIZ_MINUTES for question in questions}


def _session(root: Path, written: dict[str, Any], where: str) -> Session:
    parts = [_part(root, part, where) for part in written["parts"]]
    session = Session(written["title"], written["minutes"], written.get("opening"), parts)
    if session.planned != session.minutes:
        raise ExportError(f"{where}: its parts take {session.planned} minutes, it has {session.minutes}")
    return session


def _part(root: Path, written: dict[str, Any], where: str) -> Part:
    notebooks = root / "notebooks"
    if "lesson" in written:
        (lesson,) = find_lessons(notebooks, written["lesson"])
        known = lesson_minutes(lesson)
        chosen = [*written.get("slides", []), *map(str, written.get("quiz", []))]
        if unknown := [title for title in chosen if title not in known]:
            raise ExportError(f"{where}: {lesson.stem} has no slide {unknown[0]!r}; it has {', '.join(known)}")
        slides = {title: known[title] for title in chosen or known}
        return Part(sum(slides.values()), lesson, slides, whole=not chosen)
    if "notebook" in written:
        (notebook,) = find_lessons(notebooks, written["notebook"])
        return Part(written["minutes"], notebook=notebook, exercises=tuple(written["exercises"]))
    if "homework" in written:
        if not (notebooks / "homework" / written["homework"]).is_dir():
            raise ExportError(f"{where}: no homework {written['homework']!r} in {notebooks / 'homework'}")
        return Part(written.get("minutes", 0), homework=written["homework"])
    return Part(written["minutes"], do=written["do"])


def write_plans_page(root: Path) -> Path:
    """Write notebooks/TEACHING.md, the plans as tables."""
    path = root / "notebooks" / "TEACHING.md"
    atomic_write(path, plans_page(root).encode())
    return path


def plans_page(root: Path) -> str:
    """The plans as Markdown: a table of minutes for each session of a day, or for each week."""
    text = HEAD
    for name, plan in read_plans(root).items():
        text += f"\n## {plan.title}\n\nFor {plan.audience}. `course export slides --plan {name} --out DIR`\n"
        if any(part.homework and not part.minutes for session in plan.sessions for part in session.parts):
            text += "\n| week | minutes | in the room | at home |\n|---|---|---|---|\n"
            for number, session in enumerate(plan.sessions, 1):
                room = "; ".join(f"{_told(part)}, {part.minutes}" for part in _shown(session) if part.minutes)
                home = ", ".join(_told(part) for part in session.parts if not part.minutes)
                text += f"| {number} | {session.minutes} | **{session.title}**: {room} | {home or '-'} |\n"
            continue
        for session in plan.sessions:
            if len(plan.sessions) > 1:
                text += f"\n### {session.title}\n"
            text += "\n| minutes | what |\n|---|---|\n"
            text += "".join(f"| {part.minutes} | {_told(part)} |\n" for part in _shown(session))
            text += f"| **{session.minutes}** | in all |\n"
    return text


def _shown(session: Session) -> list[Part]:
    """The parts of a session with its opening as the first."""
    opening = session.opening
    return [*([Part(opening["minutes"], do=f"opening: *{opening['title']}*")] if opening else []), *session.parts]


def _told(part: Part) -> str:
    def linked(path: Path) -> str:
        return f"[{path.stem[:2]}]({path.name})"

    if part.lesson:
        if part.whole:
            return f"slides {linked(part.lesson)} with the quiz"
        names = (f"question {title}" if title.isdigit() else f"*{title}*" for title in part.slides)
        told = (f"{name} ({minutes})" for name, minutes in zip(names, part.slides.values(), strict=True))
        return f"slides {linked(part.lesson)}: {'; '.join(told)}"
    if part.notebook:
        return f"notebook {linked(part.notebook)}, exercises {', '.join(map(str, part.exercises))}"
    if part.homework:
        return f"homework [{part.homework}](homework/{part.homework}/{part.homework}.ipynb)"
    return part.do
