"""One lesson as one HTML file that holds all it needs: pictures, style, explorers; no kernel and no network."""

from __future__ import annotations

import base64
import mimetypes
import re
import tempfile
from pathlib import Path

import nbformat

from course_lib.export.lessons import ExportError, exported, find_lessons
from course_lib.export.site import SETTINGS, Linker, Site, write_html
from course_lib.files import atomic_write

POLICY = (  # the browser itself refuses whatever would leave the file
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data: blob:; '
    "style-src 'unsafe-inline'; font-src data:; script-src 'unsafe-inline' blob:\">"
)
# There are no other pages to search, and all icons are letters of a font.
UNUSED = ("searchtools", "language_data", "searchindex", "fontawesome")
LINKED = re.compile(r'<link\b[^>]*?\brel="(?P<rel>[^"]+)"[^>]*>')
SCRIPT = re.compile(r'<script\b[^>]*?\bsrc="(?P<src>[^"]+)"[^>]*></script>')
FONT = re.compile(r"@font-face\s*{[^}]*?url\([\"']?([^\"')]+)[\"']?\)[^}]*}")
IMPORT = re.compile(r"""@import\s+(?:url\()?["']?([^"')\s]+)["']?\)?;""")
PICTURE = re.compile(r'(?P<before><img\b[^>]*?\bsrc=")(?P<src>(?!data:)[^"]+)')


def write_page(root: Path, name: str, out: Path) -> tuple[Path, Site]:
    """Write the lesson that `name` begins or names (06, timesformer) as out/STEM.html, whole or not at all."""
    (lesson,) = find_lessons(root / "notebooks", name or "?")
    settings = SETTINGS | {
        "root_doc": lesson.stem,
        "html_use_index": False,
        "html_sidebars": {"**": []},
        "html_theme_options": SETTINGS["html_theme_options"]
        | {"navbar_persistent": [], "navbar_center": [], "show_prev_next": False, "article_header_start": []},
    }
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        link = Linker(root, source, Path("notebooks"), ())
        notebook, stills = exported(root, lesson, link)
        nbformat.write(notebook, source / lesson.name)
        built = write_html(source, Path(folder) / "html", settings, stills)
        page = whole(Path(folder) / "html" / f"{lesson.stem}.html")
    to = out / f"{lesson.stem}.html"
    atomic_write(to, page.encode())
    return to, built


def whole(path: Path) -> str:
    """The page at `path` with everything that it loads inside it."""

    def content(name: str) -> Path:
        file = path.parent / name.partition("?")[0]
        if "://" in name or not file.is_file():
            raise ExportError(f"{path.stem}: the page would load {name}, which is no file of it")
        return file

    def linked(found: re.Match[str]) -> str:
        if found["rel"] != "stylesheet":
            return ""
        href = re.search(r'href="([^"]+)"', found[0])
        assert href is not None
        return f"<style>{style(content(href[1]))}</style>"

    def style(file: Path) -> str:
        text = FONT.sub(lambda found: font(found, file.parent), file.read_text(encoding="utf-8"))
        return IMPORT.sub(lambda found: style(file.parent / found[1]), text)

    def font(found: re.Match[str], folder: Path) -> str:
        if not found[1].endswith("solid-900.woff2"):  # of the theme's three fonts of icons, the one that pages use
            return ""
        return found[0].replace(found[1], as_data(folder / found[1], "font/woff2"))

    def script(found: re.Match[str]) -> str:
        if any(name in found["src"] for name in UNUSED):
            return ""
        text = content(found["src"]).read_text(encoding="utf-8").replace("</script", "<\\/script")
        late = ' type="module"' if "defer" in found[0] else ""  # inline scripts wait for the page as modules alone
        return f"<script{late}>{text}</script>"

    def picture(found: re.Match[str]) -> str:
        file = content(found["src"])
        return found["before"] + as_data(file, mimetypes.guess_type(file.name)[0])

    def as_data(file: Path, kind: str | None) -> str:
        return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"

    text = path.read_text(encoding="utf-8")
    for pattern, replace in ((LINKED, linked), (PICTURE, picture), (SCRIPT, script)):
        text = pattern.sub(replace, text)
    return text.replace("<head>", f"<head>\n{POLICY}", 1)
