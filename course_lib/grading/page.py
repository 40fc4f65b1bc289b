"""A page of HTML that is whole in itself: no script, nothing from elsewhere, everything of a stranger's escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from course_lib.grading.extract import harmless

STYLE = """
:root { color-scheme: light; }
body { color: #1c1c1c; background: #ffffff; font: 1rem/1.5 sans-serif; max-width: 70rem; margin: 1rem auto;
  padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; margin: 1.5rem 0 .5rem; }
h2 { border-top: 1px solid #767676; padding-top: 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
caption { text-align: left; font-weight: bold; }
th, td { border: 1px solid #767676; padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { color: #1c1c1c; background: #eeeeee; }
pre { color: #1c1c1c; background: #f4f4f4; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.warning { color: #8c1010; background: #ffffff; font-weight: bold; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
mark { color: #1c1c1c; background: #ffe9a8; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def escaped(text: object) -> str:
    """Text as it may stand anywhere in a page: no tags, no escape sequences, no control or bidirectional characters."""
    return html.escape(harmless(str(text)), quote=True)


def document(title: str, body: Iterable[str]) -> str:
    """A page in English; `title` is text, `body` HTML."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
            f"<h1>{escaped(title)}</h1>",
            *body,
            "</main>\n</body>\n</html>\n",
        ]
    )


def heading(level: int, text: str) -> str:
    return f"<h{level}>{escaped(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escaped(text)}</p>' if kind else f"<p>{escaped(text)}</p>"


def code(text: str) -> str:
    # HTML drops a newline right after <pre>
    return f"<pre>\n{escaped(text)}</pre>"


def listing(lines: Iterable[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escaped(line)}</li>" for line in lines) + "\n</ul>"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a header; the first cell of a row heads the row."""
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in columns)
    body = [
        f'<tr><th scope="row">{escaped(first)}</th>{"".join(f"<td>{escaped(each)}</td>" for each in rest)}</tr>'
        for first, *rest in rows
    ]
    lines = [f"<table>\n<caption>{escaped(caption)}</caption>", f"<thead><tr>{head}</tr></thead>", "<tbody>", *body]
    return "\n".join([*lines, "</tbody>\n</table>"])
