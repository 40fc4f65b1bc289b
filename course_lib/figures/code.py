"""Source code as a notebook shows it: no line wider than the page, broken where Python may be broken."""

from __future__ import annotations

import io
import re
import textwrap
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

WIDTH = 84  # characters that fit beside the prompt at 1280 pixels
NEVER_AFTER = (".", "=", "*", "**", "-", "@", ":")
NEVER_BEFORE = (*".,)]}([:=", "")


class Break(NamedTuple):
    """A place where a line may end; the lowest `cost` is taken first."""

    column: int
    cost: int
    end: str = ""  # what the line ends with, and the next begins with
    begin: str = ""


def narrow(code: str, width: int = WIDTH) -> str:
    """The same program with no line above `width` characters, as far as it has a place to break.

    A line is broken after a comma, else between tokens, else inside a string, which becomes two; text of docstrings
    and comments is wrapped; a comment behind a line that is too long moves above it.
    """
    code = textwrap.dedent(code)
    breaks, prose, comments = _places(code)
    lines: list[str] = []
    for number, line in enumerate(code.splitlines(), start=1):
        indent = line[: len(line) - len(line.lstrip())]
        if len(line) <= width:
            lines.append(line)
        elif number in prose:
            lines += textwrap.wrap(line.strip(), width, initial_indent=indent, subsequent_indent=indent, **WHOLE_WORDS)
        else:
            if (column := comments.get(number)) is not None:
                text, line, mark = line[column + 1 :].strip(), line[:column].rstrip(), indent + "# "
                lines += textwrap.wrap(text, width, initial_indent=mark, subsequent_indent=mark, **WHOLE_WORDS)
            lines += _broken(line, breaks[number], indent + "    ", width) if line.strip() else []
    return "\n".join(lines) + "\n"


WHOLE_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def _places(code: str) -> tuple[dict[int, list[Break]], set[int], dict[int, int]]:
    """By line: where it may be broken; the lines of texts in three quotes; where a comment begins."""
    breaks: dict[int, list[Break]] = defaultdict(list)
    prose: set[int] = set()
    comments: dict[int, int] = {}
    depth, before = 0, ""
    for kind, text, (row, column), (last, _) in _tokens(code):
        depth -= text in (")", "]", "}")
        end = "" if depth else " \\"
        if kind == tokenize.COMMENT:
            comments[row] = column
        elif before not in NEVER_AFTER and text.strip() not in NEVER_BEFORE:
            cost = depth if before == "," else 700 if before in ("(", "[", "{") else 100
            breaks[row].append(Break(column, cost + (0 if depth else 1000), end))
        if kind == tokenize.STRING:
            prefix, quotes = re.match(r"(\w*)('''|\"\"\"|'|\")", text).groups()  # type: ignore[union-attr]
            if len(quotes) == 3:
                prose |= set(range(row, last + 1))
            for space in _spaces(text, braces="f" in prefix.lower()):
                cost = 500 + (0 if depth else 1000)
                breaks[row].append(Break(column + space + 1, cost, quotes + end, prefix + quotes))
        depth += text in ("(", "[", "{")
        before = text
    return breaks, prose, comments


def _tokens(code: str) -> Iterator[tuple[int, str, tuple[int, int], tuple[int, int]]]:
    """Python's tokens; an f-string is one of them in every version of Python."""
    lines, open_strings, start = code.splitlines(keepends=True), 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        name = tokenize.tok_name[token.type]
        if name == "FSTRING_START":
            start = start if open_strings else token.start
            open_strings += 1
        elif name == "FSTRING_END":
            open_strings -= 1
            if not open_strings:
                rows = lines[start[0] - 1 : token.end[0]]
                rows[-1] = rows[-1][: token.end[1]]
                yield tokenize.STRING, "".join(rows)[start[1] :], start, token.end
        elif not open_strings:
            yield token.type, token.string, token.start, token.end


def _spaces(string: str, braces: bool) -> Iterator[int]:
    """Where a string has spaces, outside the braces of an f-string."""
    depth = 0
    for i, letter in enumerate(string):
        if braces:
            depth += (letter == "{") - (letter == "}")
        if letter == " " and not depth:
            yield i


def _broken(line: str, breaks: list[Break], indent: str, width: int) -> list[str]:
    lines, start, begin = [], 0, ""
    while len(begin + line[start:]) > width:
        room = start + width - len(begin)
        fits = [b for b in breaks if start < b.column <= room - len(b.end) and line[start : b.column].strip()]
        if not fits:
            break
        chosen = min(fits, key=lambda found: (found.cost, -found.column))
        part = line[start : chosen.column]
        lines.append(begin + (part if chosen.begin else part.rstrip()) + chosen.end)
        start, begin = chosen.column, indent + chosen.begin
    return [*lines, begin + line[start:]]
