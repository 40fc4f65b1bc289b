"""`course doctor`: is everything in place, and if not, what is the way out?"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import requires, version
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from course_lib.paths import DATA
from course_lib.profiles import NAMED_BY, REMEDY

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "firefox", "open", "start")


class Finding(NamedTuple):
    """One line of the report. `remedy` is one line too, and says what to do where `ok` is false."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def required(package: str) -> Requirement:
    """What the course says of a package that it needs, from its own metadata."""
    needed = map(Requirement, requires("course_lib") or [])
    return next(requirement for requirement in needed if requirement.name == package)


def system() -> Finding:
    """The decoding process is limited and interrupted by means that Windows itself does not have."""
    remedy = "the course runs on Linux and macOS; on Windows use WSL: wsl --install, then make lab inside it"
    return Finding("system", sys.platform != "win32", platform.platform(terse=True), remedy)


def python() -> Finding:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding("Python", ok, platform.python_version(), "install Python 3.11 to 3.13: make PYTHON=python3.12 lab")


def torch() -> Finding:
    import torch

    wanted, found = required("torch"), torch.__version__
    return Finding(
        "torch", wanted.specifier.contains(found), found, f"pip install '{wanted}', or delete .venv, then make lab"
    )


def gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", True, "none: use the profiles smoke and cpu")
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return Finding("GPU", memory >= 10, f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB", "use the profile cpu")


def decoder() -> Finding:
    """Writes one clip and reads it back, since a decoder that imports may still fail to decode."""
    import numpy as np

    from course_lib.synthetic.write import encode
    from course_lib.video import VideoError, read_frames

    frames = np.full((4, 32, 32, 3), 128, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(encode(frames))
        try:
            error = int(np.abs(read_frames(path, [0, 3]).astype(int) - 128).max())
        except (VideoError, ImportError) as problem:
            return Finding("decoder", False, str(problem), "delete .venv, then make lab")
    return Finding(
        "decoder", error <= 4, f"PyAV {version('av')}, a written clip comes back", "delete .venv, then make lab"
    )


def disk(folder: Path = DATA, needed: float = 5.0) -> Finding:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free / 1e9
    return Finding("disk", free >= needed, f"{free:.0f} GB free", f"free {needed:.0f} GB, or move the checkout")


def data(folder: Path = DATA / "generated") -> Finding:
    from course_lib.synthetic.write import verify

    sets = sorted(path.parent for path in folder.glob("*/manifest.json"))
    if not sets:
        return Finding("data", False, f"no generated clips yet in {folder}", "make data, or course data small")
    broken = [f"{path.name}: {problem}" for path in sets for problem in verify(path)]
    if broken:
        return Finding(
            "data", False, f"{len(broken)} problems, first: {broken[0]}", "delete that folder, then make data"
        )
    return Finding("data", True, f"{len(sets)} generated sets, every file as its manifest says")


def kinetics() -> Finding:
    return real("K")


def ssv2() -> Finding:
    return real("S")


def real(set_name: str) -> Finding:
    """The folder that the environment names for a set of real clips; none is as well."""
    from course_lib.datasets.lessons import select

    name, variable = NAMED_BY[set_name]
    folder = os.environ.get(variable, "")
    if not folder:
        return Finding(name, True, f"no folder named by {variable}: lessons use generated clips")
    try:
        found = select(set_name, folder)
    except (ValueError, OSError) as error:
        return Finding(name, False, " ".join(str(error).split()), f"{REMEDY[set_name]}; or unset {variable}")
    lost = f"; {len(found.left_out):,} files missing, broken or twice: course data check {folder}" * bool(
        found.left_out
    )
    return Finding(
        name, True, f"{folder}: {found.which}, {len(found.train.videos):,} + {len(found.test.videos):,}{lost}"
    )


def browser() -> Finding:
    found = next((name for name in BROWSERS if shutil.which(name)), "")
    remedy = "install a browser, or open the address that JupyterLab prints in one elsewhere"
    return Finding("browser", bool(found), found or "none on this machine", remedy)


def box() -> Finding:
    """What `course grade` runs homework in; who does not mark has no need of one."""
    from course_lib.grading.box import NoSafeBox, find_sandbox

    try:
        return Finding("box", True, f"{find_sandbox().name}: course grade runs homework in it")
    except NoSafeBox as error:
        return Finding("box", True, f"none, which course grade alone needs: {error}")


CHECKS: tuple[Callable[[], Finding], ...] = (
    system,
    python,
    torch,
    gpu,
    decoder,
    disk,
    data,
    kinetics,
    ssv2,
    browser,
    box,
)


def examine() -> Iterator[Finding]:
    """All findings, one at a time; a check that breaks is a finding too."""
    for check in CHECKS:
        try:
            yield check()
        except Exception as error:
            yield Finding(check.__name__, False, f"{type(error).__name__}: {error}", "delete .venv, then make lab")
