"""Who handed in what: a folder a student, or what Canvas and Moodle pack for a teacher, read without following links.

Canvas (its lib/content_zipper.rb), all files in one folder:
    leebob_12_678_timesformer.ipynb   leebob_LATE_12_679_timesformer-1.ipynb   LATE_anon_x1Y2z_680_a.ipynb
    leebob_12_text.html   leebob_12_link.html
Moodle (its mod/assign/classes/downloader.php), a folder a student and kind of submission, or all files in one folder:
    Bob Lee_12_assignsubmission_file_/timesformer.ipynb   Bob Lee_12_assignsubmission_onlinetext_/onlinetext.html
    Bob Lee_12_assignsubmission_file_timesformer.ipynb

The student of a download is its name with its number, which stay the same whatever he hands in: leebob_12, Bob Lee_12.
A roster knows him by the number. Moodle counts teams and participants apart, so two of them may have the same one:
neither is graded, since marks of the one would be entered for the other.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from course_lib.grading.extract import Submission, SubmissionError, extract, shown
from course_lib.grading.manifest import Manifest

LARGEST = 100 << 20
CANVAS = re.compile(
    r"(?:(?:LATE_)?(?P<anonymous>anon_[^_]+)|(?P<name>.+?_)(?:LATE_)?(?P<id>\d+))"
    r"_(?:(?P<number>\d+)_(?P<file>.+)|(?P<text>text|link)\.html)",
    re.DOTALL,
)
# the first number is the site's; what comes after it may be the student's own name of his file
MOODLE = re.compile(r"(?P<student>.+?_(?P<id>\d+))_assignsubmission_(?P<kind>[a-z]+)(?:_(?P<file>.*))?", re.DOTALL)
NOT_HANDED_IN = ("__MACOSX", "lost+found")  # what unpacking and disks leave


@dataclass
class Handed:
    """What lies in the folder of submissions for one student. `files`: those of a download, (place, name, number)."""

    student: str
    folders: list[str] = field(default_factory=list)
    files: list[tuple[str, str, int]] = field(default_factory=list)
    site: Literal["", "canvas", "moodle"] = ""
    id: str = ""  # the site's number of the student
    text: bool = False  # he wrote into the site's own field
    namesakes: list[str] = field(default_factory=list)  # others with his number


class Notebook(NamedTuple):
    """`path` is below the folder of submissions; `notes`: what else lay there, for the student."""

    path: str
    content: bytes
    notes: tuple[str, ...]


def students_in(submissions: str | Path) -> tuple[dict[str, Handed], list[str]]:
    """Who has handed in, by name, and the names of whatever else lies there."""
    found: dict[str, Handed] = {}
    others: list[str] = []
    with os.scandir(submissions) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name, folder = entry.name, entry.is_dir(follow_symlinks=False)
            moodle, canvas = MOODLE.fullmatch(name), CANVAS.fullmatch(name)
            if name.startswith(".") or name in NOT_HANDED_IN:
                others.append(name)
            elif moodle:
                one = found.setdefault(moodle["student"], Handed(moodle["student"]))
                one.site, one.id = "moodle", moodle["id"]
                if moodle["kind"] != "file":
                    one.text = True
                elif folder or not moodle["file"]:
                    one.folders.append(name)
                else:
                    one.files.append((name, moodle["file"], 0))
            elif canvas and not folder:
                student = canvas["anonymous"] or canvas["name"] + canvas["id"]
                one = found.setdefault(student, Handed(student))
                one.site, one.id = "canvas", canvas["id"] or canvas["anonymous"]
                if canvas["text"]:
                    one.text = True
                else:
                    one.files.append((name, canvas["file"], int(canvas["number"])))
            elif folder or entry.is_symlink():
                found.setdefault(name, Handed(name)).folders.append(name)
            else:
                others.append(name)
    numbered: dict[tuple[str, str], list[str]] = {}
    for student, one in found.items():
        if one.id:
            numbered.setdefault((one.site, one.id), []).append(student)
    for same in numbered.values():
        for student in same:
            found[student].namesakes = [other for other in same if other != student]
    return dict(sorted(found.items())), others


def read_submission(root: str | Path, student: str, manifest: Manifest) -> Submission:
    """What `student` has handed in below `root`. SubmissionError if there is nothing that can be read."""
    found = read_notebook(root, student, manifest.homework)
    return extract(found.content, manifest, found.path)


def read_notebook(root: str | Path, student: str, homework: str) -> Notebook:
    """A student's notebook: <homework>.ipynb, or the only .ipynb there is. Of a download the newest with that name.

    Nothing below `root` may be a link: it could lead to another's work, or to what is hidden. That goes for a second
    name (a hard link) too: nobody can see to which of its names a file belongs.
    """
    if student in ("", ".", "..") or "/" in student or "\0" in student:
        raise SubmissionError(f"{student!r} is no name of a student's folder")
    one = students_in(root)[0].get(student) or Handed(student, [student])
    if one.namesakes:
        names = ", ".join(map(shown, one.namesakes))
        raise SubmissionError(
            f"{shown(student)} has the number {one.id}, and so has {names}: a team, perhaps; rename what the team "
            "handed in to a folder without a number"
        )
    if len(one.folders) + bool(one.files) > 1:
        places = ", ".join(map(shown, [*one.folders, *(place for place, _, _ in one.files[:1])]))
        raise SubmissionError(f"{shown(student)} is there more than once ({places}): keep the right one")
    if not one.folders and not one.files:
        raise SubmissionError(f"{shown(student)} handed in a text or a link, and no notebook")
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if one.files:
            place, notes = _newest(shown(student), one.files, homework)
            return Notebook(place, _read_whole(place, top, shown(place)), notes)
        (folder,) = one.folders
        inside = _open(folder, os.O_DIRECTORY, top, f"the folder {shown(folder)}")
    finally:
        os.close(top)
    try:
        name, notes = _choose(shown(folder), os.listdir(inside), homework)
        content = _read_whole(name, inside, f"{shown(folder)}/{shown(name)}")
        return Notebook(f"{folder}/{name}", content, notes)
    except PermissionError as error:
        raise SubmissionError(f"the folder {shown(folder)} may not be read: give the grader the right to") from error
    finally:
        os.close(inside)


def _copy_of(homework: str, name: str) -> bool:
    """Is it called as the notebook, or as a site or a browser calls another of that name: x-1.ipynb, x (1).ipynb?"""
    return bool(re.fullmatch(rf"{re.escape(homework)}(?:[-_ ]?\(?\d+\)?)?\.ipynb", name, re.IGNORECASE))


def _choose(student: str, names: Sequence[str], homework: str) -> tuple[str, tuple[str, ...]]:
    wanted = f"{homework}.ipynb"
    notebooks = sorted(name for name in names if name.lower().endswith(".ipynb") and not name.startswith("."))
    if wanted in names:
        copies = ", ".join(shown(name) for name in notebooks if name != wanted and _copy_of(homework, name))
        return wanted, (f"{wanted} was graded, not {copies} beside it",) if copies else ()
    if len(notebooks) == 1:
        return notebooks[0], ()
    if notebooks:
        listed = ", ".join(map(shown, notebooks[:5])) + (" ..." if len(notebooks) > 5 else "")
        raise SubmissionError(
            f"{student} holds {len(notebooks)} notebooks and none is {wanted} ({listed}): name the right one so"
        )
    raise SubmissionError(f"{student} holds no notebook" if names else f"{student} is an empty folder")


def _newest(student: str, files: Sequence[tuple[str, str, int]], homework: str) -> tuple[str, tuple[str, ...]]:
    """Of the files of a download; a site numbers them in the order in which they came."""
    so_called = sorted((number, place) for place, name, number in files if _copy_of(homework, name))
    if so_called:
        newest = so_called[-1][1]
        older = ", ".join(shown(place) for _, place in so_called[:-1])
        return newest, (f"of several files the newest was graded: {shown(newest)}, not {older}",) if older else ()
    name, notes = _choose(student, [name for _, name, _ in files], homework)
    return next(place for place, each, _ in files if each == name), notes


def _open(name: str, how: int, folder: int, what: str) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | how, dir_fd=folder)
    except PermissionError as error:
        raise SubmissionError(f"{what} may not be read: give the grader the right to") from error
    except FileNotFoundError as error:
        raise SubmissionError(f"{what} is not there") from error
    except OSError as error:  # ELOOP; for O_DIRECTORY, ENOTDIR
        linked = stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        why = "is a link: put the file itself there" if linked else f"could not be opened: {error.strerror}"
        raise SubmissionError(f"{what} {why}") from error


def _read_whole(name: str, folder: int, what: str) -> bytes:
    descriptor = _open(name, 0, folder, what)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SubmissionError(f"{what} is no regular file")
        if found.st_nlink != 1:
            raise SubmissionError(f"{what} has {found.st_nlink} names (hard links): put a copy there")
        if found.st_size > LARGEST:
            raise SubmissionError(f"{what} has {found.st_size / 2**20:,.0f} MB, 100 at most: clear its outputs")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise SubmissionError(f"{what} could not be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(content) > LARGEST:
        raise SubmissionError(f"{what} grew while it was read")
    return content
