"""Pages and the site, as far as they can be tested without a browser; tests/browser/ has the rest."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from html import unescape
from pathlib import Path

import nbformat
import pytest

from course_lib.export.explorers import read_states
from course_lib.export.lessons import EXPLORER, NO_STATE, ExportError, exported, find_lessons
from course_lib.export.page import whole
from course_lib.export.site import Linker, build_site
from course_lib.export.sphinx_parts import as_rst

ROOT = Path(__file__).parents[1]


def test_a_lesson_is_found_by_its_number_or_by_its_name():
    for name in ("06", "06_timesformer", "timesformer"):
        assert [path.stem for path in find_lessons(ROOT / "notebooks", name)] == ["06_timesformer"]
    assert len(find_lessons(ROOT / "notebooks")) == 12
    with pytest.raises(ExportError, match=r"'6_' is several lessons|'tsn' is no lesson: choose from 00_clips"):
        find_lessons(ROOT / "notebooks", "tsn")
    with pytest.raises(ExportError, match="several lessons: choose from 00_clips, 01_i3d"):
        find_lessons(ROOT / "notebooks", "0")
    with pytest.raises(ExportError, match="run the command in a checkout"):
        find_lessons(ROOT / "tests")


def lesson(folder: Path, *cells: nbformat.NotebookNode) -> Path:
    path = folder / "notebooks" / "99_small.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    return path


def test_notes_for_teachers_stay_in_the_notebook(tmp_path):
    notes = {"tags": ["slide"], "slide": {"title": "A", "notes": "the answer is 7"}}
    path = lesson(tmp_path, nbformat.v4.new_markdown_cell("# A lesson", metadata=notes))
    notebook, _ = exported(tmp_path, path, str)
    assert "the answer is 7" in path.read_text() and "the answer is 7" not in nbformat.writes(notebook)
    assert notebook.cells[0].source == "# A lesson"


def test_an_explorer_lives_where_its_state_was_kept_and_else_the_page_says_that_it_is_a_still(tmp_path):
    still = '<img alt="8 frames of a clip in 8 steps of 14 x 14 tokens. what" src="data:image/png;base64,AA==">'
    figure = '<img alt="A curve" src="data:image/png;base64,AA==">'
    outputs = [nbformat.v4.new_output("display_data", {"text/html": html}) for html in (figure, still, still)]
    cell = nbformat.v4.new_code_cell("explore", outputs=outputs, id="c1")
    path = lesson(tmp_path, cell)
    kept = {"c1": [{"output": 2, "state": {"width": 960, "sprite": {"base64": "AAAA"}}}]}
    states = tmp_path / "data" / "explorers" / "99_small.json.gz"
    states.parent.mkdir(parents=True)
    states.write_bytes(gzip.compress(json.dumps(kept).encode()))
    notebook, stills = exported(tmp_path, path, str)
    first, second, third = (output.data["text/html"] for output in notebook.cells[0].outputs)
    assert first == figure
    assert second.startswith(still) and NO_STATE in second
    assert third.startswith('<div class="live-explorer">') and still in third and NO_STATE not in third
    assert stills == [f"99_small, cell c1: {NO_STATE}"]


@pytest.mark.parametrize("path", find_lessons(ROOT / "notebooks"), ids=lambda path: path.stem)
def test_every_explorer_of_every_lesson_lives_in_its_page(path):
    states = read_states(ROOT, path.stem)
    for cell in nbformat.read(path, as_version=4).cells:
        for number, output in enumerate(cell.get("outputs", [])):
            still = output.get("data", {}).get("text/html", "")
            if not EXPLORER.search(still):
                continue
            state = states[cell.id].pop(number)
            assert f"{state['source']}, {state['layer']}, {state['view']}: what" in unescape(still)
            where = "the patch at frame {}, row {}, column {}" if len(state["pinned"]) == 3 else "{} {}"
            assert where.format(*state["pinned"]) in still
            for s, source in enumerate(state["sources"]):  # of what it offers it has the rows
                for i, layer in enumerate(source["layers"]):
                    views = set(layer["views"]) - set(layer["absent"])
                    assert set(layer["absent"]) <= set(layer["views"])
                    assert {f"{s}/{i}/{view}" for view in views} <= set(state["rows"]) or not layer["weights"]
    assert not any(states.values()), "states of explorers that the notebook does not show"


def test_the_explorers_of_all_lessons_are_not_too_many_bytes():
    files = list((ROOT / "data" / "explorers").glob("*.json.gz"))
    assert sum(path.stat().st_size for path in files) < 20e6 and max(path.stat().st_size for path in files) < 4e6


def test_a_page_that_would_load_what_is_not_in_it_is_refused(tmp_path):
    (tmp_path / "there.css").write_text('@import "more.css"; a { color: red }')
    (tmp_path / "more.css").write_text("b { color: blue }")
    page = tmp_path / "page.html"
    page.write_text('<head><link rel="stylesheet" href="there.css?v=1" /><link rel="next" href="next.html" /></head>')
    assert re.search(r"<style>b { color: blue } a { color: red }</style></head>$", whole(page))
    for loads in (
        '<script src="https://cdn.example/x.js"></script>',
        '<link href="lost.css" rel="stylesheet">',
        '<img src="lost.png">',
    ):
        page.write_text(f"<head></head>{loads}")
        with pytest.raises(ExportError, match="which is no file of it"):
            whole(page)


def test_of_the_fonts_the_one_with_the_icons_is_in_the_page(tmp_path):
    for name in ("fa-solid-900", "fa-brands-400"):
        (tmp_path / f"{name}.woff2").write_bytes(name.encode())
    faces = "".join(f"@font-face{{font-family:x;src:url({file.name})}}" for file in sorted(tmp_path.iterdir()))
    (tmp_path / "x.css").write_text(faces)
    page = tmp_path / "page.html"
    page.write_text('<head><link rel="stylesheet" href="x.css"></head>')
    held = "data:font/woff2;base64," + base64.b64encode(b"fa-solid-900").decode()
    assert f"<style>@font-face{{font-family:x;src:url({held})}}</style>" in whole(page)


def test_nothing_is_lost_of_a_script_that_holds_its_own_end(tmp_path):
    (tmp_path / "x.js").write_text('const a = "</script>";')
    page = tmp_path / "page.html"
    page.write_text('<head></head><script defer src="x.js"></script>')
    assert '<script type="module">const a = "<\\/script>";</script>' in whole(page)
    shutil.rmtree(tmp_path)


def test_links_lead_to_other_pages_and_what_is_not_exported_is_named_without_a_link(tmp_path):
    root, to = tmp_path / "course", tmp_path / "site"
    for name in (
        "README.md",
        "notebooks/06_x.ipynb",
        "notebooks/images/a b.png",
        "notebooks/images/a.png",
        "tests/x.py",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    link = Linker(root, to, Path("notebooks"), {"README.md", "notebooks/06_x.ipynb"})
    kept = '[a](../README.md#start), [b](06_x.ipynb), [c](https://x.org/a), [d](#here), [e](lost.md), `x["a"](b)`'
    assert link(kept) == kept  # Sphinx tells of the lost one
    assert link("see [the *test*](../tests/x.py).") == "see the *test* (`tests/x.py`)."
    assert link("![An explorer](images/a.png)") == "![An explorer](images/a.png)"
    assert (to / "notebooks" / "images" / "a.png").read_text() == "notebooks/images/a.png"
    with pytest.raises(ExportError, match=r"the picture images/lost\.png is not there"):
        link("![An explorer](images/lost.png)")


def test_a_folder_that_is_no_site_is_left_alone(tmp_path):
    from course_lib.export.site import write_html

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="is there and is no site: name another folder"):
        write_html(tmp_path / "source", tmp_path / "mine", {}, [])
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_site_may_take_the_place_of_the_folder_that_one_is_in(tmp_path, monkeypatch):
    from course_lib.export.site import write_html

    source, site = tmp_path / "made" / "source", tmp_path / "site"
    source.mkdir(parents=True), site.mkdir()
    (source / "index.rst").write_text("Here\n====\n")
    monkeypatch.chdir(site)
    assert write_html(source, Path(), {"html_theme": "basic"}, []).pages == 1
    assert "Here" in (site / "index.html").read_text() and sorted(tmp_path.iterdir()) == [tmp_path / "made", site]


def test_a_part_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ExportError, match="course_lib has no part attention: it has analysis, bench, cli, datasets"):
        build_site(ROOT, tmp_path / "site", ["attention"])


def test_a_docstring_keeps_its_signs_and_its_arguments_become_a_list():
    lines = [
        "Grids: a clip of T * H_ * W tokens, `a*b` and `two",
        "lines` as they are.",
        "",
        "frames: the clip,",
        "    uint8 (T, H, W, 3).",
        "*rows, width: pixels, `crops`=3.",
        "ValueError if it |does| not fit: look.",
    ]
    assert [line for line in as_rst(lines) if line] == [
        r"Grids: a clip of T \* H\_ \* W tokens, `a*b` and `two",
        "lines` as they are.",
        "* **frames**: the clip,",
        "  uint8 (T, H, W, 3).",
        r"* **\*rows, width**: pixels, `crops`\ =3.",
        r"ValueError if it \|does\| not fit: look.",
    ]
