"""What a figure depends on besides the code."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch


def machine() -> dict[str, str]:
    """Device, versions and commit ("unknown" outside a checkout), as every record stores them."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name(0)
    else:
        device = f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"
    here = Path(__file__).parent
    git = subprocess.run(["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {
        "device": device,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": git.stdout.strip() or "unknown",
    }
