"""What lies in a run folder: `run.json` about the run, its last and its best checkpoint."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from course_lib.training.checkpoint import Checkpoint

LAST, BEST, ABOUT = "last.safetensors", "best.safetensors", "run.json"


def checkpoint_in(run: Path) -> Path:
    """The checkpoint that stands for a run: the best, else the last. ValueError where none is there yet."""
    for name in (BEST, LAST):
        if (run / name).is_file():
            return run / name
    raise ValueError(f"{run}: no {BEST} nor {LAST}: train until the first checkpoint is there")


def tested_weights(saved: Checkpoint) -> dict[str, Tensor]:
    """The weights that a run is tested with: their moving mean where it keeps one, else those of the last step."""
    mean = {name.removeprefix("module."): value for name, value in saved.mean.items() if name.startswith("module.")}
    return mean or saved.weights
