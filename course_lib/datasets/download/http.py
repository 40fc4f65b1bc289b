"""One file over HTTP: whole and as the server announced it, or a DownloadError that says why not.

What has arrived lies in a `.part` beside the target, with a note of the address, size and ETag it belongs to. A later
try, in this run or the next, asks for the rest alone (Range) and only if the file is still the same (If-Range with
the ETag, RFC 9110, 13.1.5): a file that has changed meanwhile is begun anew, never spliced.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar

import requests
import urllib3
from tqdm.auto import tqdm

from course_lib.files import read_json, rename_whole, write_json

Answer = TypeVar("Answer")
RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)  # what a server that is only busy answers
CHUNK = 2**14  # bytes


class DownloadError(Exception):
    """An address that does not give what it should; `.url` and `.reason` say which and why."""

    def __init__(self, url: str, reason: str):
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}"


class Retryable(Exception):
    """A failure that another try may mend."""


@dataclass(frozen=True)
class RetryPolicy:
    """Seconds to connect, seconds without a byte, seconds to wait between tries; the session that they hold for.

    A file is given up after len(waits) + 1 tries in a row that brought nothing new.
    """

    connect: float = 15.0
    stall: float = 60.0
    waits: tuple[float, ...] = (1.0, 5.0, 20.0, 60.0, 180.0)
    session: requests.Session = field(default_factory=requests.Session, repr=False)

    @property
    def timeout(self) -> tuple[float, float]:
        return self.connect, self.stall


class Note(NamedTuple):
    """What a part is a part of; size in bytes, None if the server does not say; etag "" if it has none."""

    url: str
    etag: str
    size: int | None


def size(url: str, policy: RetryPolicy) -> int:
    """The bytes of the file behind an address, without fetching it."""

    def ask() -> int:
        with policy.session.head(url, timeout=policy.timeout, allow_redirects=True) as answer:
            _accept(url, answer)
            length = answer.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise DownloadError(url, "the server does not say how large the file is")
        return int(length)

    return _persist(url, policy, ask)


def download(url: str, target: Path, policy: RetryPolicy) -> Path:
    """Fetch a file to `target`, which appears only when whole; one that is already there is left alone.

    Checked: the length against the one announced, the MD5 where the ETag is one (S3's ETag of a file uploaded in one
    piece, 32 hexadecimal digits), and that it is no web page, as a network answers where one has to log in first.
    """
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = part_of(target)
        _persist(url, policy, partial(_attempt, url, part, policy), lambda: length_of(part))
        rename_whole(part, target)
        _note_of(part).unlink(missing_ok=True)
    return target


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def length_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def forget(target: Path) -> None:
    """Drop a file, what has arrived of it, and the note."""
    part = part_of(target)
    for path in (target, part, _note_of(part)):
        path.unlink(missing_ok=True)


def _note_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _persist(
    url: str, policy: RetryPolicy, attempt: Callable[[], Answer], reached: Callable[[], int] = lambda: 0
) -> Answer:
    best, failures, tries = reached(), 0, 0
    while True:
        tries += 1
        try:
            return attempt()
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            reason = f"nothing came for {policy.stall:g} s (or no connection within {policy.connect:g} s)"
        except (Retryable, requests.ConnectionError, urllib3.exceptions.HTTPError) as error:
            reason = str(error)
        except requests.RequestException as error:  # a malformed address, turned in circles
            raise DownloadError(url, str(error)) from error
        if reached() > best:
            best, failures = reached(), 0
            continue
        if failures == len(policy.waits):
            raise DownloadError(url, f"{reason}; given up after {tries} tries, the same command goes on from here")
        time.sleep(policy.waits[failures])
        failures += 1


def _attempt(url: str, part: Path, policy: RetryPolicy) -> None:
    note, have = _read_note(part), length_of(part)
    if note is None or note.url != url or not have:
        note, have = None, 0
    if note is None or have != note.size:  # else all had arrived when the last run was stopped
        note = _receive(url, part, policy, note, have)
    if re.fullmatch(r'"[0-9a-f]{32}"', note.etag):
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != note.etag.strip('"'):
            part.unlink()
            raise Retryable(f"damaged on the way: its MD5 is {found}, the server announced {note.etag}")


def _receive(url: str, part: Path, policy: RetryPolicy, note: Note | None, have: int) -> Note:
    """Append what is missing, or begin anew if the file is no longer the one noted."""
    headers = {"Accept-Encoding": "identity"}  # the bytes as they are stored
    if note and note.etag.startswith('"'):  # a weak one (W/) promises too little
        headers |= {"Range": f"bytes={have}-", "If-Range": note.etag}
    with policy.session.get(url, headers=headers, stream=True, timeout=policy.timeout) as answer:
        if answer.status_code == 416:
            part.unlink(missing_ok=True)
            raise Retryable(f"the file ends before byte {have}, where this part of it ends (416)")
        _accept(url, answer)
        etag, length = answer.headers.get("ETag", ""), answer.headers.get("Content-Length", "")
        if answer.status_code == 206 and note:
            given = answer.headers.get("Content-Range", "")
            if (etag, given) != (note.etag, f"bytes {have}-{note.size - 1}/{note.size}" if note.size else given):
                part.unlink(missing_ok=True)
                raise Retryable(f"asked for the bytes from {have} on, the server gave {given} of another file ({etag})")
        else:
            have, note = 0, Note(url, etag, int(length) if length.isdecimal() else None)
        chunks = answer.raw.stream(CHUNK, decode_content=False)
        first = next(chunks, b"")
        if have == 0 and first.lstrip()[:1] == b"<":
            raise DownloadError(url, "a web page came instead of the file; log in to the network, or check the address")
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(desc=part.stem, total=note.size, initial=have, unit="B", unit_scale=True, leave=False) as bar,
        ):
            if have == 0:  # only now: what was there before is gone
                write_json(_note_of(part), note)
            for chunk in chain([first], chunks):
                file.write(chunk)
                bar.update(len(chunk))
    got = length_of(part)
    if note.size is not None and got != note.size:
        raise Retryable(f"{got:,} of {note.size:,} bytes came")
    return note


def _accept(url: str, answer: requests.Response) -> None:
    code = answer.status_code
    if code in RETRY_STATUS:
        raise Retryable(f"the server answers {code} {answer.reason}")
    if code not in (200, 206):
        hint = {403: "; no permission, or no such file", 404: "; no such file"}.get(code, "")
        raise DownloadError(url, f"the server answers {code} {answer.reason}{hint}")
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise DownloadError(url, "a web page came instead of the file; log in to the network, or check the address")


def _read_note(part: Path) -> Note | None:
    held = read_json(_note_of(part))
    return None if held is None else Note(*held)
