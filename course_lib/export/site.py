"""The whole course as a static site that Sphinx makes: stored outputs, live explorers, no kernel and no network.

Everything that the site shows is a file of the course: lessons, README, glossary, claims, docstrings. They are copied
with what they link to, in their folders, so that their links go on working; only the start page is written for it.
"""

from __future__ import annotations

import io
import pkgutil
import re
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import nbformat

import course_lib
from course_lib.export.explorers import PLAYER, STYLE
from course_lib.export.lessons import ExportError, exported, find_lessons

HERE = Path(__file__).parent / "static"
PAGES = (
    "README.md",
    "notebooks/README.md",
    "notebooks/TEACHING.md",
    "notebooks/GLOSSARY.md",
    "notebooks/homework/README.md",
    "data/results/README.md",
)
NOTES = "data/results/*/README.md"  # what was tried, beside the records
LINK = re.compile(r"(?<![!\\])\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!\w+:|#)([^()\s#]+)(#[^()\s]*)?\)")
SETTINGS: dict[str, Any] = {
    "project": "Video understanding",
    "language": "en",
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "course_lib.export.sphinx_parts"],
    "nb_execution_mode": "off",
    "nb_render_markdown_format": "gfm",
    "myst_enable_extensions": ["dollarmath"],
    "myst_heading_anchors": 4,
    "html_math_renderer": "mathml",
    "autodoc_inherit_docstrings": False,  # those of torch tell nothing of ours
    "default_role": "code",  # docstrings write code as Markdown does
    "add_module_names": False,
    "python_use_unqualified_type_names": True,
    "suppress_warnings": ["ref.python"],  # a field may be called `bytes`
    "html_theme": "pydata_sphinx_theme",
    "html_css_files": ["explorer.css", "site.css"],
    "html_js_files": [("live.js", {"defer": "defer"})],
    "html_copy_source": False,  # notes for teachers stay in the notebooks
    "html_show_sourcelink": False,
    "html_show_search_summary": False,  # it reads other pages, which a browser refuses without a server
    "html_show_sphinx": False,
    "html_domain_indices": False,
    "html_theme_options": {
        "logo": {"text": "Video understanding"},
        "navbar_align": "left",
        "navbar_end": ["theme-switcher"],
        "header_links_before_dropdown": 8,
        "footer_start": [],
        "footer_end": [],
        "pygments_light_style": "a11y-high-contrast-light",
        "pygments_dark_style": "a11y-high-contrast-dark",
    },
}


class Site(NamedTuple):
    """What was written, and what is not as it should be."""

    pages: int
    stills: list[str]  # explorers that stay a picture, and why
    warnings: list[str]  # Sphinx's


def build_site(root: Path, out: Path, parts: Collection[str] | None = None) -> Site:
    """Write the site of the course in the folder `root` to `out`, whole or not at all.

    parts: which of course_lib stand in the API, such as "layers"; all of them if None. ExportError says what is
    missing.
    """
    lessons = find_lessons(root / "notebooks")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        known = {*PAGES, *(str(path.relative_to(root)) for path in lessons)}
        known |= {str(path.relative_to(root)) for path in root.glob(NOTES)}
        stills: list[str] = []
        for name in sorted(known):
            to = source / name
            to.parent.mkdir(parents=True, exist_ok=True)
            link = Linker(root, source, Path(name).parent, known)
            if name.endswith(".ipynb"):
                notebook, kept = exported(root, root / name, link)
                stills += kept
                nbformat.write(notebook, to)
            else:
                to.write_text(link((root / name).read_text(encoding="utf-8")), encoding="utf-8")
        _write_toctrees(source, [path.stem for path in lessons])
        _write_api(source / "api", parts)
        return write_html(source, out, SETTINGS, stills)


class Linker:
    """Makes the links of a Markdown text work where it is copied to: what is linked is copied along, or unlinked."""

    def __init__(self, root: Path, to: Path, folder: Path, known: Collection[str]) -> None:
        self.root, self.to, self.folder, self.known = root, to, folder, known

    def __call__(self, text: str) -> str:
        for name in re.findall(r"!\[[^\]]*\]\((?!\w+:)([^()\s]+)\)", text):  # pictures
            at = self._inside(name)
            if at is None or not (self.root / at).is_file():
                raise ExportError(f"{self.folder}: the picture {name} is not there")
            (self.to / at).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.root / at, self.to / at)
        return LINK.sub(self._linked, text)

    def _linked(self, found: re.Match[str]) -> str:
        words, name, _ = found.groups()
        at = self._inside(name)
        if at is None or str(at) in self.known or not (self.root / at).exists():
            return found[0]  # Sphinx tells of those that lead nowhere
        return f"{words} (`{at}`)"

    def _inside(self, name: str) -> Path | None:
        try:
            return (self.root / self.folder / name).resolve().relative_to(self.root.resolve())
        except ValueError:
            return None


def write_html(source: Path, out: Path, settings: dict[str, Any], stills: list[str]) -> Site:
    """Sphinx's HTML of a folder of pages, put in the place of `out` when it is whole."""
    from sphinx.application import Sphinx
    from sphinx.errors import SphinxError

    out = out.resolve()  # `.` has no name that another could be made of
    if out.exists() and not (out.is_dir() and ((out / ".buildinfo").is_file() or not any(out.iterdir()))):
        raise ExportError(f"{out} is there and is no site: name another folder, or empty it")
    out.parent.mkdir(parents=True, exist_ok=True)
    static = source.parent / "static"
    static.mkdir()
    for name, text in (
        ("explorer.css", STYLE),
        ("site.css", (HERE / "site.css").read_text(encoding="utf-8")),
        ("live.js", PLAYER),
    ):
        (static / name).write_text(text, encoding="utf-8")
    settings = settings | {"html_static_path": [str(static)]}
    built, said = source.parent / "html" / "site", io.StringIO()  # myst-nb leaves files of its own beside it
    try:
        sphinx = Sphinx(
            source, None, built, source.parent / "doctrees", "html", confoverrides=settings, status=None, warning=said
        )
        sphinx.build()
    except SphinxError as error:
        raise ExportError(f"Sphinx: {error}") from error
    pages = len(sphinx.env.found_docs)
    for needless in (*built.rglob("*.map"), *built.rglob("webpack-macros.html"), built / "objects.inv"):
        needless.unlink()  # of use to those who build themes or link from other projects
    part, old = (out.with_name(out.name + end) for end in (".part", ".old"))
    try:
        for stale in (part, old):
            shutil.rmtree(stale, ignore_errors=True)
        shutil.copytree(built, part)
        if out.exists():
            out.rename(old)
        part.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    plain = re.sub(r"\x1b\[[\d;]*m", "", said.getvalue()).replace(f"{source}/", "")
    return Site(pages, stills, [line for line in plain.splitlines() if line])


def _write_toctrees(source: Path, lessons: list[str]) -> None:
    start = (HERE / "index.md").read_text(encoding="utf-8")
    (source / "index.md").write_text(start, encoding="utf-8")
    shutil.copy(HERE / "lessons.md", source / "lessons.md")
    _append_toctree(source / "lessons.md", [f"notebooks/{stem}" for stem in lessons], hidden=False)
    claims = source / "data" / "results"
    _append_toctree(claims / "README.md", [f"{path.parent.name}/README" for path in sorted(claims.glob("*/README.md"))])


def _append_toctree(path: Path, names: list[str], hidden: bool = True) -> None:
    options = ":hidden:\n" if hidden else ":maxdepth: 1\n"
    with path.open("a", encoding="utf-8") as file:
        file.write("\n```{toctree}\n" + options + "\n".join(names) + "\n```\n")


def _write_api(folder: Path, parts: Collection[str] | None) -> None:
    """A page for each part of course_lib, with a section for each of its modules."""
    folder.mkdir(parents=True)
    names = sorted(module.name for module in pkgutil.iter_modules(course_lib.__path__))
    if unknown := set(parts or ()) - set(names):
        raise ExportError(f"course_lib has no part {', '.join(sorted(unknown))}: it has {', '.join(names)}")
    chosen = [name for name in names if parts is None or name in parts]
    for name in chosen:
        (folder / f"{name}.rst").write_text(_part_page(name), encoding="utf-8")
    shutil.copy(HERE / "api.md", folder / "index.md")
    _append_toctree(folder / "index.md", chosen, hidden=False)


def _part_page(name: str) -> str:
    def section(module: str, title: str, under: str) -> str:
        return f"{title}\n{under * len(title)}\n\n.. automodule:: {module}\n   :members:\n   :ignore-module-all:\n\n"

    package = Path(course_lib.__path__[0]) / name
    text = section(f"course_lib.{name}", f"course_lib.{name}", "=")
    if package.is_dir():
        for module in pkgutil.walk_packages([str(package)], f"course_lib.{name}."):
            text += section(module.name, module.name.removeprefix("course_lib."), "-")
    return text
