"""Clips whose labels are known exactly, written as video files: the sets A, M, V, X, G, D and L of `render`.

Every clip of M, of D and of G is there twice, the second time played backwards as a clip of the partner class: the same
frames in the other order. Whoever looks at frames one by one is therefore right within the pair exactly half of the
time, whatever it has learned. `plan` says which clips a set holds.

Each frame is coded on its own (H.264, key frames only, one fixed quantiser), so that the file of the reversed
clip decodes to exactly the reversed frames. Training and test take their hues from disjoint pools.
Read with notebook 00.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tqdm.auto import tqdm

from course_lib.files import Problem, atomic_write, compare, read_json, sha256, write_csv, write_json
from course_lib.synthetic.appearance import KINDS
from course_lib.synthetic.difficulty import FULL, Difficulty
from course_lib.synthetic.plan import Item, dial, plan
from course_lib.synthetic.render import CLASSES, PARTNER, check, render

VERSION = 3  # raise it when the same seed gives other files: folders made before are then made anew
FPS = 16
COLUMNS = ("path", "label", "name", "split", "pair", "sha256")  # in X also "look", the class of A that it shows


def encode(frames: UInt8[np.ndarray, "T H W 3"]) -> bytes:
    """H.264 in MP4.  Every frame is a key frame at one fixed quantiser: no frame knows of another."""
    import av  # here, so that networks train where no video can be written

    file = io.BytesIO()
    with av.open(file, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.gop_size, stream.thread_count = "yuv420p", 1, 1
        stream.options = {"qp": "20", "preset": "veryfast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


# A whole set


def produce(folder: Path, about: dict, item: Item) -> None:
    size, gap, difficulty = about["size"], about.get("gap"), Difficulty(**about.get("difficulty", {}))
    clip = render(about["set"], item.label, item.seed, about["frames"], size, item.split, item.look, gap, difficulty)
    atomic_write(folder / item.path, encode(clip))


def make(
    root: str | Path,
    set_name: str,
    clips: int,
    size: int = 128,
    frames: int = 32,
    seed: int = 0,
    workers: int = 0,
    progress: bool = True,
    p: float | None = None,
    gap: int | None = None,
    difficulty: Difficulty = FULL,
) -> Path:
    """Write a set of `clips` files below root; the folder, in which manifest.csv and manifest.json come last.

    The dials: `p`, in X, is the share of clips whose look agrees with the label (0.5 if None); `gap`, in G, the
    frames of rest between the two events (8 if None); `difficulty`, in M and D, what hides the motion.

    The bytes depend on the arguments, VERSION and the encoder, not on the number of processes (0: this one).
    Stopped at any moment, the same call goes on from there; called again, it makes anew only what is
    missing or changed.
    """
    check(set_name, frames, size, gap, difficulty)
    dials = dial(set_name, p, gap)
    items, partner = plan(set_name, clips, seed, p), PARTNER[set_name]
    about: dict[str, Any] = {
        "set": set_name,
        "classes": list(CLASSES[set_name]),
        "partner": None if partner is None else list(partner),
        "flips": set_name not in ("M", "X", "D"),  # mirrored, "push right" becomes "push left"
        "clips": clips,
        "size": size,
        "frames": frames,
        "fps": FPS,
        "seed": seed,
        "version": VERSION,
        **dials,
    }
    if difficulty != FULL:
        about["difficulty"] = asdict(difficulty)
    setting = f"-p{100 * dials['p']:g}" if set_name == "X" else f"-d{dials['gap']}" if set_name == "G" else ""
    setting += f"-{difficulty.name}" if difficulty.name else ""
    folder = Path(root) / f"{set_name}{setting}-{size}px-{frames}f-{clips}-s{seed}"
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # it would wait for its parent for ever
        raise RuntimeError(
            f"a worker that is to draw {folder.name} runs the script that asked for it once more: "
            'put the script\'s own work under `if __name__ == "__main__":`'
        )
    if read_json(folder / "manifest.json") == about and not verify(folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    from filelock import FileLock

    with FileLock(folder / ".lock"):  # a second maker waits, then finds the work done; a killed one lets go
        fill(folder, about, items, workers, progress)
    return folder


def fill(folder: Path, about: dict, items: list[Item], workers: int, progress: bool) -> None:
    """Make the files that are not there yet, then the manifest."""
    begun, done = folder / "making.json", folder / "manifest.json"
    if read_json(done) == about:
        distrusted = [problem.path for problem in verify(folder)]
        if not distrusted:  # another process was faster
            return
    elif read_json(begun) == about:  # stopped half way: a file that is there is whole
        distrusted = []
    else:  # nothing yet, or made by another version
        distrusted = [item.path for item in items]
    for path in distrusted:
        (folder / path).unlink(missing_ok=True)
    write_json(begun, about)
    done.unlink(missing_ok=True)

    todo = [item for item in items if not (folder / item.path).exists()]
    bar = tqdm(desc=folder.name, total=len(items), unit="clip", disable=not progress)
    with bar, mapper(workers) as each:
        bar.update(len(items) - len(todo))
        for _ in each(partial(produce, folder, about), todo):
            bar.update()

    rows: list[tuple] = []
    for item in items:
        row = (item.path, item.label, item.name, item.split, item.pair, sha256(folder / item.path))
        rows.append(row if item.look is None else (*row, KINDS[item.look].name))
    write_csv(folder / "manifest.csv", (*COLUMNS, "look") if about["set"] == "X" else COLUMNS, rows)
    write_json(done, about)
    begun.unlink(missing_ok=True)


@contextmanager
def mapper(workers: int) -> Iterator[Callable[..., Iterable]]:
    """`map`, or the same over processes; what has not begun when an error or Ctrl-C comes is dropped."""
    if not workers:
        yield map
        return
    # spawn: forking a process that has threads (torch, decord) can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=die_with_parent)
    try:
        yield partial(pool.map, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""

    parent = multiprocessing.parent_process()
    assert parent is not None  # it runs in workers alone

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def verify(folder: str | Path) -> list[Problem]:
    """Every file that is missing or no longer has its SHA-256; an empty list for a whole set."""
    folder = Path(folder)
    lists = ("manifest.json", "manifest.csv")
    if missing := [Problem(name, "missing") for name in lists if not (folder / name).exists()]:
        return missing
    return compare(folder / "manifest.csv")
