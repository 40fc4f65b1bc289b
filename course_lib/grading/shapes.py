"""The shape of code: fingerprints of syntax trees without names, numbers, texts, comments and annotations.

A tree is written as the row of its kinds of nodes. Every run of five is hashed, and of every four neighbours the
smallest is kept (winnowing, Schleimer et al. 2003): eight nodes that two codes share leave a mark in both.
This file is run by itself in a process of its own, since parsing a stranger's code may crash it; nothing is executed.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys

SHINGLE, WINDOW = 5, 4
LEFT_OUT = (ast.Import, ast.ImportFrom, ast.expr_context)

Print = tuple[str, tuple[int, ...]]  # a hash, and the lines that it comes from


def nodes(source: str) -> list[tuple[str, int]]:
    """Kind and line of every node from top to bottom. SyntaxError if it is no Python."""
    found: list[tuple[str, int]] = []

    def visit(node: ast.AST, line: int) -> None:
        if isinstance(node, LEFT_OUT) or _says_nothing(node):
            return
        if isinstance(node, ast.AnnAssign):
            node = ast.Assign([node.target], node.value) if node.value else ast.Pass()
        while isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
            node = node.operand  # a number's sign
        line = getattr(node, "lineno", line)
        if not isinstance(node, ast.Module):
            found.append((type(node).__name__, line))
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, line)

    visit(ast.parse(without_magic(source)), 1)
    return found


def _says_nothing(node: ast.AST) -> bool:
    """A docstring, `...` or a text that stands alone."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def without_magic(source: str) -> str:
    """IPython's own lines made empty, so that the others keep their numbers."""
    return re.sub(r"^[ \t]*[%!?].*$", "", source, flags=re.MULTILINE)


def prints(source: str) -> list[Print]:
    """The fingerprints of a cell."""
    row = nodes(source)
    shingles = []
    for at in range(len(row) - SHINGLE + 1):
        part = row[at : at + SHINGLE]
        lines = tuple(sorted({line for _, line in part}))
        hash = hashlib.blake2b(" ".join(kind for kind, _ in part).encode(), digest_size=8).hexdigest()
        shingles.append((hash, lines))
    kept: dict[int, Print] = {}
    for start in range(max(len(shingles) - WINDOW + 1, min(len(shingles), 1))):
        window = range(start, min(start + WINDOW, len(shingles)))
        best = min(window, key=lambda at: (shingles[at][0], -at))
        kept[best] = shingles[best]
    return [kept[at] for at in sorted(kept)]


def main() -> None:
    """Cells in, as a list of texts in JSON; a list of fingerprints for each out, null for what is no Python."""
    found: list[list[Print] | None] = []
    for source in json.load(sys.stdin):
        try:
            found.append(prints(source))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            found.append(None)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
