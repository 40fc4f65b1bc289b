"""Why a video cannot be read: something in the file, or something on this machine."""

from __future__ import annotations

import re
from pathlib import Path

ANEW = "fetch or make it again"


class VideoError(Exception):
    """A file that cannot be read as video; `.path` and `.reason` say which and why."""

    def __init__(self, path: str | Path, reason: str | None = None):
        if reason is None:
            # A DataLoader re-raises a worker's error as type(error)("...traceback... VideoError: path: reason").
            path, _, reason = re.split(r"\b(?:Video|Machine)Error: ", str(path))[-1].strip().partition(": ")
        super().__init__(path, reason)
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class MachineError(VideoError):
    """A file that could not be read here and now, for a reason that is not in the file: no permission, too many open
    files, a full or failing disk, too little memory or time. Trying again may help; it is no verdict on the file."""
