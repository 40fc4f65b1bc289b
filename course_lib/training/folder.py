"""What lies in a run folder: `run.json` about the run, its last and its best checkpoint, and a lock while it trains."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from course_lib.datasets.manifest import VideoList
from course_lib.files import atomic_write, read_json, write_json
from course_lib.machine import machine
from course_lib.training.checkpoint import Checkpoint
from course_lib.training.distributed import Ranks
from course_lib.training.recipe import Recipe
from course_lib.training.recipes import network_changes

if TYPE_CHECKING:
    from course_lib.training.fit import Plan

LAST, BEST, ABOUT, LOCK = "last.safetensors", "best.safetensors", "run.json", "lock"
COMPUTED = ("bf16", "at_once", "channels_last", "recompute", "compile", "shard")  # settings that may change on the way
PATIENCE = 10.0  # seconds for a training that is just ending: the readers of one that was killed live a little longer


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


def clips_sum(videos: VideoList) -> str:
    """The sum of a list of clips: path and class of each, in their order. It knows no root."""
    lines = [f"{video.path}\t{videos.classes[video.label]}\n" for video in videos.videos]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def about_run(plan: Plan, chosen: Recipe, train: VideoList, ranks: Ranks) -> dict[str, Any]:
    """All that the run depends on: what has to stay; `list`, the clips that it begins with; `now`, what may change."""
    stays = {name: value for name, value in asdict(chosen).items() if name not in COMPUTED}
    clips = len(train.videos)
    return json.loads(
        json.dumps(
            {
                "network": plan.network,
                "changes": network_changes(plan.network, chosen),
                "data": plan.data,
                "subset": plan.subset,
                "classes": train.classes,
                "start": plan.start and Path(plan.start).name,
                "seed": plan.seed,
                "kind": plan.kind,
                "recipe": stays,
                "list": {"clips": clips, "sum": clips_sum(train), "epoch": clips // chosen.batch},
                "now": {
                    "root": plan.root and str(Path(plan.root).resolve()),
                    "set": plan.changes,
                    "processes": ranks.world,
                    "machine": machine(),
                    "command": _command(ranks),
                },
            }
        )
    )


def _command(ranks: Ranks) -> str:
    """The line that has started this run."""
    arguments = ["train", *sys.argv[(sys.argv[1:2] == ["train"] and 2) or 1 :]]
    if ranks.world == 1:
        return shlex.join(["course", *arguments])
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world))  # processes of this node
    nodes = ["--nnodes", str(ranks.world // here)] if here < ranks.world else []
    started = ["torchrun", *nodes, "--nproc-per-node", str(here), "-m", "course_lib.training.run"]
    return shlex.join([*started, *arguments])


def require_same(out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What the folder says of its run, else `about`. ValueError if it holds another run, or something else."""
    there = read_json(out / ABOUT)
    if there is None:
        if out.is_dir() and any(path.name != LOCK for path in out.iterdir()):
            raise ValueError(f"--out {out}: the folder is not empty and holds no run: choose another one")
        return about
    differ = [
        f"{name}: {there[name]!r} there, {about[name]!r} now"
        for name in about
        if name not in ("now", "list", "recipe", "classes") and there.get(name) != about[name]
    ]
    differ += [
        f"{name}: {there['recipe'].get(name)!r} there, {value!r} now"
        for name, value in about["recipe"].items()
        if there["recipe"].get(name) != value
    ]
    if there["classes"] != about["classes"]:
        differ.append(f"classes: {len(there['classes'])} there, {len(about['classes'])} now, or others")
    if differ:
        raise ValueError(
            f"--out {out} holds another run:\n  " + "\n  ".join(differ) + "\nChoose another folder, or its settings"
        )
    return {"list": about["list"]} | there


def require_alike(out: Path, ranks: Ranks, here: dict[str, Any]) -> None:
    """ValueError, in all processes, unless all go on from the same step with the same clips."""
    first, *others = ranks.gather(here)
    for rank, theirs in enumerate(others, 1):
        if differ := [f"{name}: {theirs[name]}, not {first[name]}" for name in first if theirs[name] != first[name]]:
            raise ValueError(
                f"process {rank} would not train what the first does ({'; '.join(differ)}): --out {out} has to "
                "be one folder that all nodes see, and the videos have to be the same"
            )


@contextmanager
def locked(out: Path, ranks: Ranks, device: torch.device) -> Iterator[None]:
    """One training at a time in a run folder, whatever its number of processes. ValueError if there is another."""
    lock, taken = FileLock(out / LOCK), False
    if ranks.first:
        out.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            taken = True
    try:
        if ranks.any(taken, device):
            raise ValueError(f"another training is at work in {out}: wait for it, or give another --out")
        yield
    finally:
        lock.release()


def in_training(run: Path) -> bool | None:
    """Whether a process trains in the folder; None where that cannot be known."""
    lock = FileLock(run / LOCK)
    try:
        if not (run / LOCK).exists():
            return None
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # somebody else's folder
        return None


def write_about(out: Path, about: dict[str, Any], done: int) -> None:
    """run.json: of a run that goes on what it was begun with, with what holds `now`; and README.md."""
    now = about["now"]
    begun = (read_json(out / ABOUT) if done else None) or about | {"began": now["command"]}
    write_json(out / ABOUT, begun | {"now": now})
    text = (
        f"`{now['command']}`, from commit {now['machine']['commit']}, repeats this run (or goes on with it); "
        f"`course evaluate {out}` tests its best checkpoint, `course evaluate {out / LAST}` its last. `run.json` has "
        f"the recipe, seeds and versions, `metrics.jsonl` a line for each step.\n"
    )
    atomic_write(out / "README.md", text.encode())
