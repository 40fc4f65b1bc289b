"""Which submissions resemble each other: by their shape, without what everybody was given, and without a verdict."""

from __future__ import annotations

import ast
import itertools
import math
import re
from pathlib import Path

import pytest
import tiny_homework as tiny
from test_homework_feedback import HARMLESS, Page
from typer.testing import CliRunner

from course_lib.cli import app
from course_lib.grading import shapes, similar
from course_lib.grading.manifest import Release
from course_lib.grading.similar import Work, most_alike, weights

ANN = """def count(x):
    total = 0
    for value in x.tolist():
        if value > 0:
            total += 1
        else:
            continue
    return {"n": total}["n"]
"""
COPY = '''from math import inf
def count(values: list) -> int:
    """My own idea, 'really'."""
    number = 7  # a comment
    for v in values.tolist():
        if v > -3.5:

            number += 2
        else: continue
    return {"found": number}["found"]
'''
OTHER = """def count(x):
    positive = [each for each in x.tolist() if not each <= 0]
    while len(positive) > 1000 and positive[0]:
        positive.pop()
    return sum(map(bool, positive))
"""
DEEP = "x = " + "-" * 200_000 + "1"


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Release:
    return tiny.release(tmp_path_factory.mktemp("release") / "tiny")


def hand_in(folder: Path, **q3: str) -> Path:
    for student, source in q3.items():
        (folder / student).mkdir(parents=True)
        (folder / student / "tiny.ipynb").write_bytes(tiny.submission(q3=source))
    return folder


def hashes(source: str) -> set[str]:
    return {hash for hash, _ in shapes.prints(source)}


def test_names_numbers_texts_comments_imports_and_annotations_do_not_count():
    assert hashes(ANN) == hashes(COPY) and len(hashes(ANN)) > 5
    assert len(hashes(ANN) & hashes(OTHER)) < len(hashes(ANN)) / 3
    assert hashes("%matplotlib inline\n!ls\n" + ANN) == hashes(ANN)
    assert hashes("total: int = 3 + 4 * 5 - 6") == hashes("x = 1 + 1 * 1 - 1")


def test_the_row_of_nodes_is_that_of_pythons_own_walk_without_contexts():
    source = "y = f(a[1:2], *b, key=-c) if d else [e ** 2 for e in g]"
    mine = sorted(kind for kind, _ in shapes.nodes(source))
    theirs = [node for node in ast.walk(ast.parse(source)) if not isinstance(node, ast.Module | ast.expr_context)]
    assert mine == sorted(type(node).__name__ for node in theirs)


def test_eight_nodes_that_two_codes_share_leave_a_mark_in_both():
    shared = "z = a[b] + c\n"
    assert len(shapes.nodes(shared)) == shapes.SHINGLE + shapes.WINDOW - 1 == 8
    around = [
        "if p: q()\n",
        "while p:\n    q = [r]\n",
        "def f(a, b): return a\n",
        "del p, q, r\n",
        "assert not {p: q}\n",
    ]
    marks = [hashes(before + shared + after) for before, after in itertools.permutations(around, 2)]
    assert all(one & other & hashes(shared) for one in marks for other in marks)


def test_a_copy_with_other_names_is_the_most_alike_pair_and_its_lines_are_marked(release, tmp_path):
    submissions = hand_in(tmp_path / "class", ann=ANN, bob=COPY, cy=OTHER, dora=tiny.RIGHT["q3"])
    found = similar.compare(release, submissions)
    (pair,) = found.pairs
    assert {pair.one.student, pair.other.student} == {"ann", "bob"} and pair.share == 1 and found.all_pairs == 6
    both = pair.one.prints.keys() & pair.other.prints.keys()
    (lines,) = similar.shared_lines(pair.other, both).values()
    assert {4, 5, 6, 8, 10} <= lines and not lines & {1, 3, 7}, "neither import, docstring nor empty line"


def test_what_the_release_holds_is_nobodys_own(release, tmp_path):
    submissions = hand_in(tmp_path / "class", ann=tiny.RIGHT["q3"], bob=tiny.RIGHT["q3"].replace("x", "values"))
    found = similar.compare(release, submissions)
    assert found.pairs == [] and not any(work.prints for work in found.works)
    similar.write_similar(release, found, tmp_path / "page.html")
    assert "No two share anything." in Page(tmp_path / "page.html").text


def work(student: str, *prints: str) -> Work:
    return Work(student, student, {0: ""}, {each: [similar.Place(0, (1,))] for each in prints})


def test_what_many_wrote_counts_less_than_what_two_did():
    crowd = [work(str(n), "common", f"own {n}") for n in range(8)]
    found = weights([*crowd, work("a", "common", "rare"), work("b", "common", "rare")])
    assert found["rare"] == found["own 1"] == 1 and found["common"] == similar.LEAST
    half = weights([work(str(n), *(["half"] if n < 5 else [])) for n in range(10)])
    assert half["half"] == pytest.approx(math.log(10 / 5) / math.log(10 / 2))
    (pair, *_) = most_alike([*crowd, work("a", "common", "rare"), work("b", "common", "rare")])
    assert (pair.one.student, pair.other.student, pair.share) == ("a", "b", 1)


def test_one_pair_of_a_hundred_is_shown_and_every_file_that_was_handed_in_twice():
    crowd = [work(str(n), "common", f"own {n}") for n in range(21)]
    assert len(most_alike(crowd)) == 3  # of 210
    twins = [Work(f"{n}", "same", {0: ""}, crowd[0].prints) for n in range(5)]
    assert sum(pair.same for pair in most_alike([*crowd, *twins])) == 10
    assert len(most_alike([work(str(n), "common") for n in range(120)])) == similar.MOST


def test_the_page_gives_no_verdict_and_takes_nothing_of_a_student_as_its_own(release, tmp_path):
    hostile = ANN + '    "</pre><script>alert(1)</script>\x1b[31m\u202e"\n'
    submissions = hand_in(tmp_path / "class", **{"<b>ann": hostile, "bob": COPY, "cy": OTHER})
    found = similar.compare(release, submissions)
    similar.write_similar(release, found, tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert {tag for tag, _ in page.tags} <= HARMLESS | {"div", "mark"}
    assert {name for _, attrs in page.tags for name in attrs} <= {"lang", "charset", "name", "content", "http-equiv",
                                                                 "scope", "class"}  # fmt: skip
    assert "A reason to look, not a verdict." in page.text and "<b>ann" in page.texts["td"]
    assert not re.search("copied from|cheat|plagia|guilt|fraud", page.text, re.IGNORECASE)
    assert "\x1b" not in page.source and "\u202e" not in page.source
    marked = page.texts["mark"]
    assert len(marked) > 8 and all(line.startswith("= ") for line in marked), "not by colour alone"
    assert {"=     total = 0", "=     number = 7  # a comment"} <= set(marked)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_code_that_cannot_be_parsed_is_named_and_ends_nothing(release, tmp_path):
    submissions = hand_in(tmp_path / "class", ann=ANN, bob=COPY, cut="def count(x:\n", deep=DEEP, magic="%%bash\nls")
    (submissions / "empty").mkdir()
    (submissions / "note.txt").write_text("")
    found = similar.compare(release, submissions)
    problems = "\n".join(found.problems)
    assert "cut: cell 5 is no Python" in problems and "empty is an empty folder" in problems and "note.txt" in problems
    assert "deep" in problems
    assert {found.pairs[0].one.student, found.pairs[0].other.student} == {"ann", "bob"}


def test_nothing_of_a_submission_is_executed(release, tmp_path):
    source = f"open({str(tmp_path / 'ran')!r}, 'w')\nimport os; os._exit(3)\n" + ANN
    found = similar.compare(release, hand_in(tmp_path / "class", ann=source, bob=COPY))
    assert len(found.works) == 2 and not (tmp_path / "ran").exists()


def test_the_command_writes_a_page_and_names_what_it_cannot_use(release, tmp_path):
    submissions = hand_in(tmp_path / "class", ann=ANN, bob=COPY)

    def run(*arguments: object):
        return CliRunner().invoke(app, ["similar", *map(str, arguments)])

    found = run(release.folder, submissions, "--out", tmp_path / "page.html")
    assert found.exit_code == 0 and "2 submissions, 1 of 1 pair in" in found.output, found.output
    assert Page(tmp_path / "page.html").texts["td"] == ["ann", "bob", "100%"]
    found = run(release.folder, tmp_path / "absent", "--out", tmp_path / "more.html")
    assert found.exit_code == 1 and "absent: No such file" in found.output
    found = run(release.folder, submissions / "ann", "--out", tmp_path / "more.html")
    assert found.exit_code == 1 and "0 submissions that can be compared" in found.output
    assert not (tmp_path / "more.html").exists()
