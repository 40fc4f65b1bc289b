"""`course similar`: which submissions resemble each other, side by side. A reason to look, not a verdict."""

from __future__ import annotations

import itertools
import json
import math
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from course_lib.files import atomic_write
from course_lib.grading import page, shapes
from course_lib.grading.extract import SubmissionError, shown
from course_lib.grading.handed import read_submission, students_in
from course_lib.grading.manifest import Release
from course_lib.grading.source import HomeworkError

SECONDS, MEMORY = 20, 1 << 30  # what parsing one submission may take
MOST = 50  # pairs on the page
SHARE = 0.99  # of all pairs are less alike than those shown
LEAST = 0.05  # what a fingerprint weighs that everybody has


class Place(NamedTuple):
    """Lines of a cell, numbered from 1."""

    cell: int
    lines: tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """What one student wrote, and where each fingerprint is in it."""

    student: str
    sha256: str
    cells: Mapping[int, str]  # number in the notebook -> source
    prints: Mapping[str, Sequence[Place]]
    unread: tuple[int, ...] = ()  # cells that are no Python


@dataclass(frozen=True)
class Pair:
    """Two students and how alike what they wrote is, 0 to 1."""

    share: float
    one: Work
    other: Work

    @property
    def same(self) -> bool:
        """One file, byte for byte."""
        return self.one.sha256 == self.other.sha256


@dataclass
class Similar:
    """What was compared. `problems`: what could not be."""

    works: list[Work] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def all_pairs(self) -> int:
        return math.comb(len(self.works), 2)


def fingerprints(cells: Sequence[str]) -> list[list[shapes.Print] | None] | None:
    """The fingerprints of cells, made in a process of its own; None if that ended before it was done."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    command = [sys.executable, "-I", "-S", str(Path(shapes.__file__))]
    try:
        run = subprocess.run(
            command, input=json.dumps(list(cells)).encode(), capture_output=True, timeout=SECONDS, preexec_fn=limit
        )
    except subprocess.TimeoutExpired:
        return None
    if run.returncode:
        return None
    found = json.loads(run.stdout)
    return [each and [(hash, tuple(lines)) for hash, lines in each] for each in found]


def given(release: Release) -> set[str]:
    """The fingerprints of what students got and of the right answers: to share those says nothing."""
    sources = [cell.source for cell in release.manifest.cells if cell.code]
    found = fingerprints([*sources, *release.reference.values()])
    if found is None:
        raise HomeworkError(f"{release.folder}: the cells of the release could not be parsed: release it again")
    return {hash for each in found for hash, _ in each or ()}


def read_work(release: Release, submissions: Path, student: str, known: set[str]) -> Work:
    """SubmissionError if there is nothing that can be read or parsed."""
    submission = read_submission(submissions, student, release.manifest)
    cells = {piece.index: piece.source for piece in submission.pieces if piece.index is not None}
    found = fingerprints(list(cells.values()))
    if found is None:
        raise SubmissionError(f"{submission.path}: its cells could not be parsed in {SECONDS} s and {MEMORY >> 20} MB")
    prints: dict[str, list[Place]] = {}
    for index, each in zip(cells, found, strict=True):
        for hash, lines in each or ():
            if hash not in known:
                prints.setdefault(hash, []).append(Place(index, lines))
    unread = tuple(index for index, each in zip(cells, found, strict=True) if each is None)
    return Work(shown(student), submission.sha256, cells, prints, unread)


def weights(works: Sequence[Work]) -> dict[str, float]:
    """What a fingerprint counts: 1 if one or two have it, less the more have it, LEAST if all do."""
    counts = Counter(hash for work in works for hash in work.prints)
    most = math.log(max(len(works), 3) / 2)
    return {
        hash: min(1.0, max(LEAST, math.log(len(works) / count) / most)) if count > 2 else 1.0
        for hash, count in counts.items()
    }


def alike(one: Work, other: Work, weight: Mapping[str, float]) -> float:
    """The weight of what both have over the weight of what either has."""
    both = sum(weight[hash] for hash in one.prints.keys() & other.prints.keys())
    return both / sum(weight[hash] for hash in one.prints.keys() | other.prints.keys()) if both else 0.0


def most_alike(works: Sequence[Work]) -> list[Pair]:
    """The pairs above the 99th percentile and those of one file, at least one and at most MOST, the most alike first;
    none that share nothing."""
    weight = weights(works)
    pairs = [Pair(alike(one, other, weight), one, other) for one, other in itertools.combinations(works, 2)]
    pairs.sort(key=lambda pair: (not pair.same, -pair.share))
    kept = max(1, sum(pair.same for pair in pairs), math.ceil((1 - SHARE) * len(pairs)))
    return [pair for pair in pairs[: min(kept, MOST)] if pair.share > 0]


def compare(
    release: Release, submissions: Path, tell: Callable[[int, int], None] = lambda done, total: None
) -> Similar:
    """Compare every submission with every other. HomeworkError names a folder that cannot be read."""
    try:
        students, others = students_in(submissions)
    except OSError as error:
        raise HomeworkError(f"{submissions}: {error.strerror}") from error
    known, found = given(release), Similar()
    found.problems += [f"{shown(name)} is no folder of a student" for name in others]
    for done, student in enumerate(students):
        tell(done, len(students))
        try:
            work = read_work(release, submissions, student, known)
        except SubmissionError as error:
            found.problems.append(str(error))
            continue
        found.works.append(work)
        found.problems += [f"{work.student}: cell {index + 1} is no Python" for index in work.unread]
    tell(len(students), len(students))
    if len(found.works) < 2:
        raise HomeworkError(f"{submissions} holds {len(found.works)} submissions that can be compared, two are needed")
    found.pairs = most_alike(found.works)
    return found


# The page


def write_similar(release: Release, found: Similar, path: Path) -> None:
    """Write what was found as one page."""
    title = f"{release.manifest.title}: submissions that resemble each other"
    body = [
        page.paragraph(
            "A reason to look, not a verdict. Short right answers resemble each other, and so do those of people who "
            "learnt together: the most alike pairs are shown whether anybody copied or not."
        ),
        page.paragraph(
            f"Shown are {len(found.pairs)} of {found.all_pairs:,} pairs of {len(found.works)} submissions. Compared "
            "is the shape of the code: names, numbers, texts, comments, imports and annotations do not count, nor does "
            "what is in the release or in its right answers. What many wrote counts less. Lines that both have begin "
            "with =."
        ),
    ]
    rows = [
        (f"{number}", pair.one.student, pair.other.student, _share(pair)) for number, pair in enumerate(found.pairs, 1)
    ]
    if rows:
        body.append(page.table("The most alike", ("Pair", "One", "Other", "Shared"), rows))
    else:
        body.append(page.paragraph("No two share anything."))
    if found.problems:
        body += [page.heading(2, "Not compared"), page.listing(found.problems)]
    for number, pair in enumerate(found.pairs, 1):
        body += [*_side_by_side(number, pair)]
    atomic_write(path, page.document(title, body).encode())


def _share(pair: Pair) -> str:
    return "the same file" if pair.same else f"{pair.share:.0%}"


def _side_by_side(number: int, pair: Pair) -> Iterator[str]:
    yield page.heading(2, f"Pair {number}: {pair.one.student} and {pair.other.student}, {_share(pair)}")
    both = pair.one.prints.keys() & pair.other.prints.keys()
    yield '<div class="pair">'
    for work in (pair.one, pair.other):
        yield f"<div>\n{page.heading(3, work.student)}"
        for cell, lines in shared_lines(work, both).items():
            yield page.heading(4, f"Cell {cell + 1}")
            yield "<pre>\n" + "\n".join(_marked(work.cells[cell], lines)) + "</pre>"
        yield "</div>"
    yield "</div>"


def shared_lines(work: Work, both: Iterable[str]) -> dict[int, set[int]]:
    """{cell: its lines that have one of these fingerprints}"""
    found: dict[int, set[int]] = {}
    for hash in both:
        for place in work.prints[hash]:
            found.setdefault(place.cell, set()).update(place.lines)
    return dict(sorted(found.items()))


def _marked(source: str, lines: set[int]) -> Iterator[str]:
    for number, line in enumerate(source.split("\n"), 1):
        text = page.escaped(line)
        yield f"<mark>= {text}</mark>" if number in lines else f"  {text}"
