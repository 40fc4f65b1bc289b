"""Clips out of a tar.gz archive from elsewhere: every byte of it is checked, and nothing is written but clips."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

CLIP = re.compile(r"[A-Za-z0-9_-]{11}(_\d{6}_\d{6})?\.mp4", re.ASCII)  # a replacement may come without its times
LARGEST = 2**30  # bytes; a clip lasts ten seconds
BLOCK = 512  # bytes, of which a tar archive is made


class ArchiveError(Exception):
    """An archive that is damaged, or holds what a data set has no use for."""


def clip_name(youtube_id: str, start: int, end: int) -> str:
    """CVDF's name for the seconds from start to end of a video; ValueError if that is no such name."""
    name = f"{youtube_id}_{start:06}_{end:06}.mp4"
    if not CLIP.fullmatch(name):
        raise ValueError(f"{name!r} is not eleven letters of YouTube and two numbers of six digits")
    return name


def unpack(archive: Path, wanted: Callable[[str], bool], folder: Path) -> tuple[list[str], list[str]]:
    """Write the members whose base name is wanted into a folder, flat; their names, and the members that are no clips.

    Some archives hold folders, others do not; where a member lies there says nothing. The files are to be trusted
    only once this returns, since damage may show at the very end.

    Raises:
        ArchiveError: cut short, damaged, no tar.gz; a member that leaves the folder, is a link or a device, is too
            large for a clip, or comes twice.
    """
    names, odd = [], []
    try:
        with gzip.open(archive) as stream:
            reader = _LastRead(stream)
            with tarfile.open(fileobj=reader, mode="r:") as tar:
                for member in tar:
                    name = _examine(archive, member, folder)
                    if not member.isfile():
                        continue
                    if not CLIP.fullmatch(name):
                        odd.append(member.name)
                    elif wanted(name):
                        if name in names:
                            raise ArchiveError(f"{archive}: holds {name} twice; it is not as it should be")
                        source = tar.extractfile(member)
                        assert source is not None  # as of every plain file
                        with source, (folder / name).open("wb") as target:
                            shutil.copyfileobj(source, target)
                        names.append(name)
            # tarfile takes anything that is no header for the end.
            if reader.last != bytes(BLOCK):
                raise ArchiveError(f"{archive}: damaged or cut short at byte {tar.offset:,} of its contents")
            while rest := stream.read(2**20):  # to the end, where the checksum is
                if rest.strip(b"\0"):
                    raise ArchiveError(f"{archive}: more comes after its end, byte {tar.offset:,} of its contents")
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise ArchiveError(f"{archive}: no tar.gz, cut short or damaged ({error})") from error
    return names, odd


def _examine(archive: Path, member: tarfile.TarInfo, folder: Path) -> str:
    """The base name of a file or folder that may be in an archive."""
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(member.name)
        if path.is_absolute() or path.drive or ".." in path.parts:
            raise ArchiveError(f"{archive}: {member.name!r} leads out of the folder; nothing of it is kept")
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise ArchiveError(f"{archive}: {member.name!r} is a link or a device, no plain file; nothing of it is kept")
    if not 0 <= member.size <= LARGEST:
        raise ArchiveError(f"{archive}: {member.name!r} says it has {member.size:,} bytes, more than any clip")
    return PurePosixPath(tarfile.data_filter(member, str(folder)).name).name


class _LastRead(io.BufferedIOBase):
    """What tarfile reads through, so that the block at which it stopped can be looked at."""

    def __init__(self, file: gzip.GzipFile):
        self.file, self.last = file, b""

    def read(self, count: int | None = -1) -> bytes:
        self.last = self.file.read(count)
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()
