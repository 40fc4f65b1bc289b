"""Does anything hidden lie in what students get? Every string is looked at, packed or encoded ones too."""

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from course_lib.grading.source import HIDDEN, MARKS, SOLUTION, Source, for_students, regions, solved

SHORTEST = 25  # characters of a line that could give something away
DEEPEST, LARGEST, MOST_STREAMS = 4, 64 << 20, 5000
CLOSED = {b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard"}


@dataclass(frozen=True)
class Leak:
    """A file below student/, and what of the hidden part is in there."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path} holds {self.what}"


def secrets(source: Source, beside: Mapping[str, str], names: Iterable[str], key: bytes) -> dict[str, str]:
    """What must not be found, as it looks without spaces and quotes -> what it is.

    Lines of solutions, hidden tests and the answers beside the source; not imports, nor what students are shown of the
    same cell, nor `call`, which is run in their kernels.
    """
    found = {_bare(key.hex()): "the key of the release"} | {
        _bare(name): f"the name of the private file {name}" for name in names
    }
    for cell in source.of_kind("answer", "manual", "test"):
        hidden = cell.source if cell.kind == "answer" else ""
        if cell.kind == "test":
            hidden = _without_call(regions(cell.source, HIDDEN))
        elif SOLUTION[0] in cell.source:
            hidden = regions(cell.source, SOLUTION)
        for line in _lines(hidden):
            found[_bare(line)] = f"a line hidden in {cell.id}: {line:.60}"
    answers = source.of_kind("answer")
    allowed = {line for cell in answers for line in _lines(for_students(cell)) + _lines(solved(cell))}
    for name, text in beside.items():
        for line in _lines(text):
            if line not in allowed:
                found[_bare(line)] = f"a line of the answer {name}: {line:.60}"
    return found


def _lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if len(line) >= SHORTEST and not re.match(r"(import|from \S+ import) ", line)]


def _without_call(text: str) -> str:
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == "call":
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    return "\n".join(lines)


def _bare(text: str) -> str:
    """Without spaces, quotes and backslashes: alike in a source, in JSON, in a string in a string."""
    return re.sub(r"[\s\"'`\\]+", "", text)


def leaks(folder: Path, hidden: Mapping[str, str]) -> list[Leak]:
    """Everything hidden that is in a file below `folder`, in its name, or in a file packed or encoded in it."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found.append(Leak(name, "a link, which leads out of the release"))
        elif path.is_file():
            contents = [name.encode(), *_unpacked(path.read_bytes(), 0)]
            found += [Leak(name, what) for what in dict.fromkeys(w for c in contents for w in _found_in(c, hidden))]
    return found


def _found_in(content: bytes, hidden: Mapping[str, str]) -> Iterator[str]:
    if content.startswith(b"CLOSED "):
        yield content.decode().removeprefix("CLOSED ")
    texts = [content.decode("utf-8", "replace")]
    if b"\0" in content:
        texts += [content.decode("utf-16-le", "replace"), content.decode("utf-16-be", "replace")]
    if b"\\u" in content:
        texts.append(re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), texts[0]))
    for text in texts:
        for mark in MARKS:
            if mark in text:
                yield f"the mark {mark!r}"
        bare = _bare(text)
        for secret, what in hidden.items():
            if secret in bare:
                yield what


def _unpacked(content: bytes, depth: int) -> Iterator[bytes]:
    """The content, then what is packed (zip, tar, gzip, bzip2, xz, zlib as in PNG and PDF) or in base64 in it."""
    yield content
    if depth == DEEPEST:
        return
    for start, name in CLOSED.items():
        if content.startswith(start):
            yield f"CLOSED a {name} archive, which cannot be looked into: pack it as zip".encode()
    for inner in (*_archived(content), *_streams(content), *_encoded(content)):
        yield from _unpacked(inner, depth + 1)


def _archived(content: bytes) -> Iterator[bytes]:
    file = io.BytesIO(content)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            yield packed.comment
            for member in packed.infolist():
                yield member.filename.encode() + b"\n" + member.comment
                try:
                    with packed.open(member) as file_in_it:
                        yield file_in_it.read(LARGEST)
                except (RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error):
                    yield f"CLOSED {member.filename}, packed so that it cannot be looked into".encode()
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:*") as bundle:
            for entry in bundle:
                yield f"{entry.name}\n{entry.linkname}".encode("utf-8", "replace")
                if entry.isfile() and (opened := bundle.extractfile(entry)):
                    yield opened.read(LARGEST)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError):
        pass


def _streams(content: bytes) -> Iterator[bytes]:
    if content.startswith(b"BZh"):
        yield _or_nothing(lambda: bz2.BZ2Decompressor().decompress(content, LARGEST))
    if content.startswith((b"\xfd7zXZ", b"\x5d\x00\x00")):
        yield _or_nothing(lambda: lzma.LZMADecompressor().decompress(content, LARGEST))
    starts = [found.start() for found in re.finditer(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08", content)]
    for start in starts[:MOST_STREAMS]:
        bits = 47 if content[start] == 0x1F else 15  # gzip, zlib
        inner = _or_nothing(
            lambda start=start, bits=bits: zlib.decompressobj(bits).decompress(content[start:], LARGEST)
        )
        if len(inner) >= SHORTEST:
            yield inner


def _encoded(content: bytes) -> Iterator[bytes]:
    for found in re.finditer(rb"(?:[A-Za-z0-9+/_-]{4,}(?:\\n|[\r\n]+)?)+={0,2}", content):
        if len(found[0]) < SHORTEST:
            continue
        text = re.sub(rb"\\n|\s", b"", found[0]).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        for skip in range(4):  # it may stand after a letter that belongs to something else
            part = text[skip:]
            try:
                yield base64.b64decode(
                    part[: len(part) // 4 * 4] if len(part) % 4 == 1 else part + b"=" * (-len(part) % 4)
                )
            except (binascii.Error, ValueError):
                continue


def _or_nothing(unpack) -> bytes:
    try:
        return unpack()
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        return b""
