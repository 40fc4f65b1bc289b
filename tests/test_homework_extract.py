"""What of a submission is run: nothing in its metadata is believed, nothing of a right answer is lost."""

from __future__ import annotations

import copy
import json
import os

import pytest
from homework_source import CELLS, cell, notebook, write_source

from course_lib.grading.extract import (
    Piece,
    SubmissionError,
    defines,
    extract,
    shown,
    up_to,
    with_reference,
)
from course_lib.grading.handed import LARGEST, read_notebook, read_submission, students_in
from course_lib.grading.manifest import Manifest
from course_lib.grading.release import prepare
from course_lib.grading.source import read_source

RIGHT = "def double(x):\n    return 2 * x"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    folder = write_source(tmp_path_factory.mktemp("source"))
    return prepare(read_source(folder / "doubling.ipynb")).manifest


@pytest.fixture(scope="module")
def student(manifest):
    """The cells that students get, as they would hand them in untouched."""
    cells = []
    for each, original in zip(manifest.cells, CELLS, strict=True):
        cells.append(original | {"source": each.source.splitlines(keepends=True)})
    return cells


def handed_in(cells) -> bytes:
    return json.dumps(notebook(cells)).encode()


def with_answer(cells, source=RIGHT, **changes):
    found = copy.deepcopy(list(cells))
    for each in found:
        if each["id"] == "q1":
            each["source"] = source
            each.update(changes)
    return found


def kinds(submission):
    return [(piece.kind, piece.id) for piece in submission.pieces]


USUAL = [("setup", "parameters"), ("setup", "imports"), ("answer", "q1"), ("answer", "q2")]


# What is run ----------------------------------------------------------------------------------------------------------


def test_setup_and_answers_are_run_and_nothing_else(manifest, student):
    found = extract(handed_in(with_answer(student)), manifest, "anna/doubling.ipynb")
    assert kinds(found) == USUAL
    assert found.pieces[2].source == RIGHT and not found.messages
    assert found.pieces[0].tags == ("parameters",)  # papermill sets the profile after it


@pytest.mark.parametrize("cell_type", ["markdown", "raw", "code", "heading"])
def test_an_answer_counts_whatever_its_cell_type_is(manifest, student, cell_type):
    found = extract(handed_in(with_answer(student, cell_type=cell_type)), manifest, "a/b.ipynb")
    assert kinds(found) == USUAL
    assert bool(found.messages) == (cell_type != "code")


def test_a_doubled_id_keeps_both_cells_in_order_and_says_so(manifest, student):
    cells = with_answer(student)
    second = copy.deepcopy(cells[4]) | {"source": "def double(x):\n    return x + x"}
    found = extract(handed_in([*cells[:5], second, *cells[5:]]), manifest, "a/b.ipynb")
    assert [piece.source for piece in found.pieces if piece.id == "q1"] == [RIGHT, "def double(x):\n    return x + x"]
    assert "2 cells have the id q1" in found.messages[0]


def test_a_cell_of_ones_own_is_run_where_it_stands(manifest, student):
    cells = with_answer(student)
    own = cell("text", "mine", "import math")
    found = extract(handed_in([*cells[:4], own, *cells[4:]]), manifest, "a/b.ipynb")
    assert kinds(found) == [*USUAL[:2], ("helper", ""), *USUAL[2:]] and found.pieces[2].source == "import math"


def test_a_notebook_without_any_metadata_runs_the_same_code(manifest, student):
    bare = [each | {"metadata": {}, "id": f"x{i}"} for i, each in enumerate(with_answer(student))]
    found = extract(handed_in(bare), manifest, "a/b.ipynb")
    assert [piece.source for piece in found.pieces] == [
        piece.source for piece in extract(handed_in(with_answer(student)), manifest, "a/b.ipynb").pieces
    ]
    assert any("looked for by name" in message for message in found.messages)


def test_a_setup_that_was_deleted_is_put_back(manifest, student):
    found = extract(
        handed_in([each for each in student if each["id"] not in ("imports", "parameters")]), manifest, "a/b"
    )
    assert kinds(found) == USUAL


def test_setup_goes_first_wherever_it_was_moved(manifest, student):
    found = extract(handed_in([*with_answer(student), student[2]]), manifest, "a/b.ipynb")
    assert kinds(found) == USUAL


def test_a_setup_that_was_added_to_is_run_after_the_teachers(manifest, student):
    cells = [
        each | {"source": "import torch, math"} if each["id"] == "imports" else each for each in with_answer(student)
    ]
    found = extract(handed_in(cells), manifest, "a/b.ipynb")
    assert kinds(found) == [*USUAL[:2], ("helper", ""), *USUAL[2:]]
    assert "imports is not as it was given" in found.messages[0]


def test_what_was_written_into_a_test_cell_is_run_too(manifest, student):
    cells = [each | {"source": "def mine(x):\n    return x"} if each["id"] == "test-q1" else each for each in student]
    found = extract(handed_in(cells), manifest, "a/b.ipynb")
    assert "def mine(x):\n    return x" in [piece.source for piece in found.pieces]


@pytest.mark.parametrize("source", ['profile = "gpu"', "profile = 'cpu'  # more", '# mine\nprofile = "cpu"\n'])
@pytest.mark.parametrize("id", ["parameters", "mine"])
def test_the_grader_chooses_the_profile(manifest, student, source, id):
    cells = [each for each in student if each["id"] != "parameters"]
    own = cell("setup" if id == "parameters" else "text", id, source)
    assert kinds(extract(handed_in([own, *cells]), manifest, "a/b.ipynb")) == USUAL


def test_the_tests_of_the_notebook_are_never_run(manifest, student):
    for id in ("test-q1", "imports"):
        (original,) = [each for each in student if each["id"] == id]
        spaced = "\n\n" + "".join(original["source"]).replace("\n", "  \n") + "\n"
        again = cell("text", "copy", "") | {"source": spaced}
        assert kinds(extract(handed_in([*student, again]), manifest, "a/b.ipynb")) == USUAL


def test_nothing_of_the_metadata_changes_what_is_run(manifest, student):
    cells = with_answer(student)
    for each in cells:
        each["metadata"] = copy.deepcopy(each["metadata"])
        each["metadata"]["tags"] = ["skip-execution", "parameters"]
        each["attachments"], each["outputs"] = {"a.png": {}}, [{"output_type": "stream", "text": "all right"}]
        if "nbgrader" in each["metadata"]:
            each["metadata"]["nbgrader"] |= {"points": 1000, "grade": True, "solution": False, "locked": True}
    strange = notebook(cells)
    strange["metadata"] = {"kernelspec": {"name": "bash", "argv": ["/bin/sh"]}, "widgets": {"x": 1}}
    found = extract(json.dumps(strange).encode(), manifest, "a/b.ipynb")
    assert found.pieces == extract(handed_in(with_answer(student)), manifest, "a/b.ipynb").pieces


def test_the_text_for_a_person_is_kept_and_not_run(manifest, student):
    cells = [each | {"source": "It is linear."} if each["id"] == "essay" else each for each in student]
    found = extract(handed_in(cells), manifest, "a/b.ipynb")
    assert found.texts == {"essay": "It is linear."} and kinds(found) == USUAL


# What is no notebook --------------------------------------------------------------------------------------------------


def test_what_is_no_cell_is_left_out(manifest, student):
    odd = [
        None,
        3,
        "cell",
        [],
        {},
        {"cell_type": "code"},
        {"cell_type": 3, "source": "x"},
        {"cell_type": "code", "source": 7},
    ]
    odd += [{"cell_type": "code", "source": [1, None]}, {"cell_type": "code", "source": "", "metadata": []}]
    odd += [{"cell_type": "markdown", "source": "x", "metadata": {"nbgrader": {"grade_id": ["q1"]}}}]
    odd += [{"cell_type": "markdown", "source": "x", "metadata": {"nbgrader": "q1"}}]
    assert kinds(extract(handed_in([*odd, *with_answer(student)]), manifest, "a/b.ipynb")) == USUAL


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "broken or cut off"),
        (b'{"cells": [{"cell_type": "co', "broken or cut off"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"cells": ' + b"1" * 5000 + b"}", "broken or cut off"),
        (b"[]", "has no list of cells"),
        (b'{"cells": {"a": 1}}', "has no list of cells"),
        (b'{"worksheets": []}', "in an older format"),
        (json.dumps(notebook([])).encode("utf-16"), "broken or cut off"),
    ],
    ids=["empty", "cut", "deep", "long number", "list", "cells no list", "nbformat 3", "UTF-16"],
)
def test_broken_notebooks_get_a_sentence_that_names_the_file(manifest, content, sentence):
    with pytest.raises(SubmissionError, match=r"ab/c\.ipynb") as caught:
        extract(content, manifest, "ab/c.ipynb")
    assert sentence in str(caught.value)


def test_a_file_that_would_fill_the_memory_is_refused_unread(manifest, monkeypatch):
    monkeypatch.setattr("course_lib.grading.extract.json.loads", lambda text: pytest.fail("it was read"))
    with pytest.raises(SubmissionError, match="parts: clear its outputs"):
        extract(b'{"cells": [' + b"[]," * 2_000_000 + b"[]]}", manifest, "a/b.ipynb")


def test_bytes_that_are_no_utf8_cost_nothing_but_themselves(manifest, student):
    content = handed_in(with_answer(student, RIGHT + "  # caf\xe9")).replace(b"caf\\u00e9", b"caf\xe9")
    found = extract(content, manifest, "a/b.ipynb")
    assert found.pieces[2].source == RIGHT + "  # caf\ufffd"
    assert extract(b"\xef\xbb\xbf" + handed_in(student), manifest, "a/b.ipynb").pieces  # a byte order mark
    halves = extract(handed_in(with_answer(student, RIGHT + "  # \ud800")), manifest, "a/b.ipynb")
    halves.pieces[2].source.encode()  # else no message could carry it to a kernel


# The folder -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path, student):
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "doubling.ipynb").write_bytes(handed_in(with_answer(student)))
    return tmp_path


def refused(root, manifest, student="anna"):
    with pytest.raises(SubmissionError) as caught:
        read_submission(root, student, manifest)
    return str(caught.value)


def test_a_submission_is_read_with_its_sum_and_size(root, manifest):
    content = (root / "anna" / "doubling.ipynb").read_bytes()
    found = read_submission(root, "anna", manifest)
    assert (found.path, found.bytes) == ("anna/doubling.ipynb", len(content)) and len(found.sha256) == 64


def test_the_only_notebook_may_have_any_name_but_of_two_the_right_one_is_taken(root, manifest):
    notebook = root / "anna" / "doubling.ipynb"
    other = root / "anna" / "My homework (1).ipynb"
    other.write_text("no notebook")
    (root / "anna" / "._doubling.ipynb").write_text("what macOS leaves beside it")
    assert read_submission(root, "anna", manifest).path == "anna/doubling.ipynb"
    os.replace(notebook, other)
    assert read_submission(root, "anna", manifest).path == "anna/My homework (1).ipynb"
    (root / "anna" / "b.ipynb").write_text("")
    assert "holds 2 notebooks and none is doubling.ipynb (My homework (1).ipynb, b.ipynb)" in refused(root, manifest)


def test_folders_without_a_notebook_are_told_apart(root, manifest):
    (root / "anna" / "doubling.ipynb").rename(root / "anna" / "doubling.py")
    assert refused(root, manifest) == "anna holds no notebook"
    (root / "anna" / "doubling.py").unlink()
    assert refused(root, manifest) == "anna is an empty folder"
    (root / "file").write_text("")
    assert "the folder file could not be opened" in refused(root, manifest, "file")
    assert "the folder nobody is not there" in refused(root, manifest, "nobody")


def test_links_lead_nowhere(root, manifest):
    notebook = root / "anna" / "doubling.ipynb"
    (root / "bert").symlink_to(root / "anna")
    assert "the folder bert is a link" in refused(root, manifest, "bert")
    (root / "carl").mkdir()
    (root / "carl" / "doubling.ipynb").symlink_to(notebook)
    assert "carl/doubling.ipynb is a link" in refused(root, manifest, "carl")
    (root / "dora").mkdir()
    os.link(notebook, root / "dora" / "doubling.ipynb")
    assert "dora/doubling.ipynb has 2 names" in refused(root, manifest, "dora")
    (root / "emil").mkdir()
    (root / "emil" / "doubling.ipynb").symlink_to("/nowhere")
    assert "is a link" in refused(root, manifest, "emil")


@pytest.mark.timeout(60)
def test_pipes_folders_and_huge_files_are_not_read(root, manifest):
    notebook = root / "anna" / "doubling.ipynb"
    notebook.unlink()
    os.mkfifo(notebook)  # opening one waits for a writer
    assert "is no regular file" in refused(root, manifest)
    notebook.unlink()
    notebook.mkdir()
    assert "is no regular file" in refused(root, manifest)
    notebook.rmdir()
    with notebook.open("wb") as file:
        file.truncate(LARGEST + 1)
    assert "100 at most: clear its outputs" in refused(root, manifest)


@pytest.mark.parametrize("name", ["", ".", "..", "anna/..", "../anna", "a\0b"])
def test_no_name_of_a_student_leaves_the_folder(root, manifest, name):
    assert "is no name of a student's folder" in refused(root, manifest, name)


def test_without_the_right_to_read_the_file_is_named(root, manifest):
    def as_another():
        if os.geteuid() == 0:
            os.seteuid(65534)

    root.chmod(0o755)
    for parent in root.parents:
        if parent.owner() == root.owner() and parent != parent.parent and "pytest" in str(parent):
            parent.chmod(0o755)
    (root / "anna" / "doubling.ipynb").chmod(0)
    own = os.geteuid()
    try:
        as_another()
        assert "anna/doubling.ipynb may not be read" in refused(root, manifest)
        os.seteuid(own)
        (root / "anna").chmod(0)
        as_another()
        assert "the folder anna may not be read" in refused(root, manifest)
    finally:
        os.seteuid(own)
        (root / "anna").chmod(0o755)


def test_names_that_are_no_text_can_be_shown():
    assert shown(os.fsdecode(b"J\xf6rg")) == "J\\xf6rg"
    assert shown("a\x1b[31m\n") == "a\\x1b[31m\\n"
    assert shown("Zoë 陈") == "Zoë 陈"
    assert shown("J\\xf6rg") == "J\\\\xf6rg" != shown(os.fsdecode(b"J\xf6rg"))  # no student takes another's name


# What a question needs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def double(x):\n    return x", True),
        ("import torch\nasync def double(x): ...", True),
        ("class double(nn.Module): ...", True),
        ("double = torch.compile(f)", True),
        ("double: Callable = f", True),
        ("def doubled(x): ...", False),
        ("    def double(x): ...", False),
        ("double(3)", False),
        ("double == 3", False),
    ],
)
def test_a_definition_is_known_by_its_text(source, found):
    assert defines(source, ["double"]) == found


def test_a_question_alone_is_run_with_the_cells_up_to_its_last_answer(manifest, student):
    pieces = extract(handed_in([*with_answer(student), cell("text", "x", "while True: pass")]), manifest, "a/b").pieces
    assert [piece.id for piece in up_to(pieces, manifest.question("q1"))] == ["parameters", "imports", "q1"]
    assert [piece.id for piece in up_to(pieces, manifest.question("q2"))] == ["parameters", "imports", "q1", "q2"]


def test_the_reference_stands_in_for_one_question_and_leaves_the_rest(manifest, student):
    pieces = extract(handed_in(with_answer(student)), manifest, "a/b.ipynb").pieces
    carried = with_reference(pieces, manifest.question("q1"), {"q1": "right"})
    assert carried == (*pieces[:3], Piece("answer", "right", "q1"), *pieces[3:]), "after what is his own, which stays"
    stripped = [each | {"metadata": {}} for each in with_answer(student)]
    helpers = extract(handed_in(stripped), manifest, "a/b.ipynb").pieces
    sources = [piece.source for piece in with_reference(helpers, manifest.question("q1"), {"q1": "right"})]
    assert sources.index("right") == sources.index(RIGHT) + 1  # what else that cell defines is still there


# Downloads ------------------------------------------------------------------------------------------------------------

CANVAS = (  # as Canvas names what it packs: name, LATE, number of the student, of the file, his own name of it
    "leebob_12_678_doubling.ipynb", "leebob_12_679_doubling-1.ipynb", "leebob_12_680_notes.pdf",
    "o'brien_mary_LATE_13_700_doubling (2).ipynb".replace("'", ""), "rayçy_14_701_My work.ipynb",
    "twoann_15_702_a.ipynb", "twoann_15_703_b.ipynb", "pdf_16_704_doubling.pdf", "textjo_17_text.html",
    "LATE_anon_x1Y2z_705_doubling.ipynb", "zed_18_1000_doubling.ipynb", "zed_18_999_doubling-2.ipynb",
)  # fmt: skip
MOODLE = (  # a folder a student and kind of submission, or all in one folder
    "Bob Lee_12_assignsubmission_file_/doubling.ipynb", "Bob Lee_12_assignsubmission_onlinetext_/onlinetext.html",
    "Bob Lee_13_assignsubmission_file_/only this.ipynb", "Jo Text_14_assignsubmission_onlinetext_/onlinetext.html",
    "Flat Cy_15_assignsubmission_file_doubling.ipynb", "Participant_16_assignsubmission_file/doubling.ipynb",
)  # fmt: skip


def downloaded(root, names):
    """Each file holds its own name."""
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(name)
    found, others = students_in(root)
    taken, refusals = {}, {}
    for student in found:
        try:
            notebook = read_notebook(root, student, "doubling")
            assert notebook.content.decode() == notebook.path
            taken[student] = (notebook.path, *notebook.notes)
        except SubmissionError as error:
            refusals[student] = str(error)
    return found, others, taken, refusals


def test_a_download_of_canvas_is_taken_as_it_is_the_newest_of_two_counts_and_it_is_said(tmp_path):
    found, others, taken, refusals = downloaded(tmp_path, CANVAS)
    said = "of several files the newest was graded: {}, not {}"
    assert taken == {
        "leebob_12": (CANVAS[1], said.format(CANVAS[1], CANVAS[0])),
        "obrien_mary_13": (CANVAS[3],),
        "rayçy_14": (CANVAS[4],),
        "anon_x1Y2z": (CANVAS[9],),
        "zed_18": (CANVAS[10], said.format(CANVAS[10], CANVAS[11])),
    }
    assert list(refusals) == ["pdf_16", "textjo_17", "twoann_15"] and not others
    assert "holds no notebook" in refusals["pdf_16"] and "a text or a link" in refusals["textjo_17"]
    assert "holds 2 notebooks and none is doubling.ipynb (a.ipynb, b.ipynb)" in refusals["twoann_15"]
    assert {(one.site, one.id) for one in found.values()} == {
        ("canvas", id) for id in ("12", "13", "14", "15", "16", "17", "18", "anon_x1Y2z")
    }


def test_a_download_of_moodle_is_taken_as_it_is_and_a_text_beside_the_file_is_no_other_student(tmp_path):
    found, others, taken, refusals = downloaded(tmp_path, MOODLE)
    assert taken == {
        "Bob Lee_12": (MOODLE[0],), "Bob Lee_13": (MOODLE[2],), "Flat Cy_15": (MOODLE[4],),
        "Participant_16": (MOODLE[5],),
    }  # fmt: skip
    assert list(refusals) == ["Jo Text_14"] and "a text or a link" in refusals["Jo Text_14"] and not others
    assert {(one.site, one.id) for one in found.values()} == {("moodle", str(id)) for id in range(12, 17)}


@pytest.mark.parametrize(
    ("name", "student", "file"),
    [
        ("Bob Lee_12_assignsubmission_file_x_34_assignsubmission_file_a.ipynb", "Bob Lee_12",
         "x_34_assignsubmission_file_a.ipynb"),
        ("Bob Lee_12_assignsubmission_file_Ann Ray_34_assignsubmission_file_a.ipynb", "Bob Lee_12",
         "Ann Ray_34_assignsubmission_file_a.ipynb"),
        ("anon_x1Y2z_680_12_a.ipynb", "anon_x1Y2z", "12_a.ipynb"),
        ("LATE_anon_x1Y2z_680_12_a.ipynb", "anon_x1Y2z", "12_a.ipynb"),
        ("leebob_12_678_34_679_a.ipynb", "leebob_12", "34_679_a.ipynb"),
    ],
)  # fmt: skip
def test_whose_it_is_does_not_depend_on_how_he_calls_his_file(name, student, file, tmp_path):
    (tmp_path / name).write_text("")
    (one,) = students_in(tmp_path)[0].values()
    assert (one.student, one.id) == (student, student.split("_")[1] if "anon" not in student else student)
    assert [each[1] for each in one.files] == [file]


def test_who_is_there_twice_is_not_graded_and_a_copy_beside_the_notebook_is_told(tmp_path):
    names = [
        "leebob_12_678_doubling.ipynb", "leebob_12/doubling.ipynb", "a_1_assignsubmission_file/x.ipynb",
        "a_1_assignsubmission_file_/x.ipynb", "cy/doubling.ipynb", "cy/doubling (1).ipynb", "cy/other.ipynb",
    ]  # fmt: skip
    _, _, taken, refusals = downloaded(tmp_path, names)
    assert list(refusals) == ["a_1", "leebob_12"] and all("more than once" in each for each in refusals.values())
    assert taken == {"cy": ("cy/doubling.ipynb", "doubling.ipynb was graded, not doubling (1).ipynb beside it")}


def test_a_team_with_a_participants_number_is_mixed_up_with_nobody(tmp_path):
    file = "assignsubmission_file_/doubling.ipynb"
    names = [f"Team A_12_{file}", f"Bob Lee_12_{file}", f"Cy Ho_13_{file}", "leebob_12_678_doubling.ipynb"]
    _, _, taken, refusals = downloaded(tmp_path, names)
    assert list(taken) == ["Cy Ho_13", "leebob_12"], "another site numbers by itself"
    assert list(refusals) == ["Bob Lee_12", "Team A_12"]
    assert "Bob Lee_12 has the number 12, and so has Team A_12" in refusals["Bob Lee_12"]
    assert "rename what the team handed in to a folder without a number" in refusals["Team A_12"]
    (tmp_path / names[0].split("/")[0]).rename(tmp_path / "Team A")
    assert list(students_in(tmp_path)[0]) == ["Bob Lee_12", "Cy Ho_13", "Team A", "leebob_12"]
    assert read_notebook(tmp_path, "Bob Lee_12", "doubling").path == names[1]
    assert read_notebook(tmp_path, "Team A", "doubling").path == "Team A/doubling.ipynb"


def test_what_is_passed_over_is_named_and_a_link_in_a_download_is_not_followed(tmp_path):
    names = [".git/a.ipynb", ".DS_Store", "__MACOSX/._x", "doubling.ipynb", "2026_01_plan.ipynb", "notes.txt"]
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "reference.ipynb").write_text("hidden")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "eve_12_3_doubling.ipynb").symlink_to(tmp_path / "secret" / "reference.ipynb")
    os.link(tmp_path / "secret" / "reference.ipynb", tmp_path / "sub" / "eve_13_4_doubling.ipynb")
    found, others, taken, refusals = downloaded(tmp_path / "sub", names)
    assert sorted(others) == sorted({name.split("/")[0] for name in names}) and not taken
    assert "is a link" in refusals["eve_12"] and "2 names (hard links)" in refusals["eve_13"]
    assert list(found) == ["eve_12", "eve_13"]
