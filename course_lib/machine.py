"""What a figure depends on besides the code."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch


def commit() -> str:
    """The checkout's commit; "unknown" for an installed wheel and where git is missing."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():  # a wheel may lie inside the checkout of something else
        return "unknown"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    except OSError:
        return "unknown"


def machine() -> dict[str, str]:
    """Device, versions and commit, as every record stores them."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name(0)
    else:
        device = f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"
    return {
        "device": device,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
    }


def free_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: what the machine has free, or its container, if that is less.

    Files that a container has read count as its memory, but are given up when it is asked for.
    """
    import psutil

    free = psutil.virtual_memory().available
    try:
        most, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
        parts = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except OSError:  # no container, or one of another kind
        return free
    if most == "max":
        return free
    return max(0, min(free, int(most) - int(used) + int(parts.get("inactive_file", 0))))
