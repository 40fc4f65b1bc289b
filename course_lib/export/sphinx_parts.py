"""What Sphinx is taught for the site: equations as MathML, and docstrings as the library writes them."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from course_lib.export.explorers import mathml
from course_lib.export.lessons import without_empty_headers

NAME = r"(?:\\\*)*[a-z](?:\\_|\w)*"
ARGUMENT = re.compile(rf"({NAME}(?:, {NAME})*): (.+)")
SPECIAL = re.compile(r"(``.*?``|`[^`]*`)|([*|\\]|_\b|\b_)", re.DOTALL)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    app.connect("autodoc-process-docstring", process)
    app.connect("html-page-context", mend_tables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline_math(writer: Any, node: nodes.math) -> None:
    equation = mathml(node.astext(), display=False)
    if _in_header(node):  # a header needs a name as text
        equation = equation.replace("<math", f'<math aria-label="{html.escape(node.astext())}"', 1)
    writer.body.append(equation)
    raise nodes.SkipNode


def display_math(writer: Any, node: nodes.math_block) -> None:
    equation = mathml(node.astext(), display=True)
    writer.body.append(
        f'<div class="equation" tabindex="0">{equation}</div>'
    )  # wider than a phone it is scrolled by keys
    raise nodes.SkipNode


def _in_header(node: nodes.Node | None) -> bool:
    while node is not None and not isinstance(node, nodes.thead):
        node = node.parent
    return node is not None


def mend_tables(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: object) -> None:
    if "body" in context:
        context["body"] = without_empty_headers(context["body"])


def process(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    lines[:] = as_rst(lines)


def as_rst(lines: Sequence[str]) -> list[str]:
    """Docstrings are plain text with code in `ticks`; lines such as "frames: the clip" become a list of arguments."""
    escaped = SPECIAL.sub(_special, "\n".join(lines))
    told: list[str] = []
    argument = False
    for line in escaped.splitlines():
        text, indented = line.strip(), line.startswith(" ")
        if argument and indented and text:
            told.append(f"  {text}")
            continue
        found = None if indented else ARGUMENT.fullmatch(text)
        if found and told and (argument or not told[-1]):
            told += ["", f"* **{found[1]}**: {found[2]}"]
            argument = True
            continue
        told += ["", text] if argument else [text]
        argument = False
    return told


def _special(found: re.Match[str]) -> str:
    """Signs are signs, and code may touch a letter, which in reStructuredText takes an escaped space."""
    if not found[1]:
        return f"\\{found[2]}"
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    return ("\\ " if re.match(r"[\w=]", before) else "") + found[1] + ("\\ " if re.match(r"[\w=]", after) else "")
