"""A trained network tested as its paper tests: views, crop and averaging; the scores, each class, the confusions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from course_lib.files import atomic_path, write_csv, write_json
from course_lib.training.distributed import ALONE, Ranks
from course_lib.training.evaluate import accuracy, predict_views, top_k
from course_lib.training.recipe import Recipe
from course_lib.training.sources import Source, in_order, test_clips

MOST_NAMES = 50  # classes that a figure names


def judge(
    net: nn.Module,
    source: Source,
    chosen: Recipe,
    frames: int,
    size: int,
    views: tuple[int, int],
    prepare: Callable[[Tensor], Tensor],
    device: torch.device,
    ranks: Ranks = ALONE,
    workers: int = 0,
    progress: bool = False,
) -> tuple[Float[Tensor, "n classes"], Int[Tensor, "n"]]:
    """Probabilities and labels of every test clip, once each, in order, in all processes.

    Clips are dealt to the processes one by one. Some get one more, which is forgotten, so that all compute as often:
    FSDP2 needs that.
    """
    dataset = test_clips(source, chosen, frames, size, *views, numbered=getattr(net, "numbered", False))
    each = -(-len(dataset) // ranks.world)
    mine = [(ranks.rank + i * ranks.world) % len(dataset) for i in range(each)]
    single = views == (1, 1)
    batches = in_order(dataset, mine, 8 if single else 1, workers, prepare, device)
    if progress and ranks.first:
        batches = iter(tqdm(batches, "test", -(-each // (8 if single else 1)), unit="batch"))
    if single:  # views of one
        batches = (
            (clips.unsqueeze(1), labels, *(part.unsqueeze(1) for part in rest)) for clips, labels, *rest in batches
        )
    parts = ranks.gather(predict_views(net, batches))
    found = (torch.stack([part[k] for part in parts], dim=1).flatten(0, 1)[: len(dataset)] for k in (0, 1))
    probabilities, labels = found
    return probabilities, labels


def scores(
    probabilities: Float[Tensor, "n classes"], labels: Int[Tensor, "n"], classes: tuple[str, ...]
) -> dict[str, Any]:
    """Top-1, top-5, the mean of the classes that have clips, the clips."""
    per_class = [accuracy(probabilities[labels == c], labels[labels == c]) for c in labels.unique().tolist()]
    return {
        "top1": accuracy(probabilities, labels),
        "top5": top_k(probabilities, labels, min(5, len(classes))),
        "mean_class": sum(per_class) / len(per_class),
        "clips": len(labels),
    }


def confusion(probabilities: Float[Tensor, "n classes"], labels: Int[Tensor, "n"]) -> Int[Tensor, "classes classes"]:
    """Clips of class (row) that were taken for class (column)."""
    count = probabilities.shape[1]
    return torch.bincount(labels * count + probabilities.argmax(1), minlength=count**2).view(count, count)


def write_report(
    folder: Path,
    probabilities: Float[Tensor, "n classes"],
    labels: Int[Tensor, "n"],
    classes: tuple[str, ...],
    about: dict[str, Any],
) -> dict[str, Any]:
    """scores.json, classes.csv, confusion.csv and confusion.png in `folder`; the scores."""
    found, table = scores(probabilities, labels, classes), confusion(probabilities, labels)
    write_json(folder / "scores.json", {**found, **about})
    rows = []
    for c, name in enumerate(classes):
        clips, right = int(table[c].sum()), int(table[c, c])
        wrong = table[c].clone()
        wrong[c] = 0
        other = classes[int(wrong.argmax())] if wrong.any() else ""
        rows.append((name, clips, right, f"{right / clips:.4f}" if clips else "", other, int(wrong.max())))
    write_csv(folder / "classes.csv", ("class", "clips", "right", "top1", "mostly_taken_for", "so_often"), rows)
    write_csv(
        folder / "confusion.csv", ("class", *classes), [(name, *table[c].tolist()) for c, name in enumerate(classes)]
    )
    draw(folder / "confusion.png", table, classes, f"top-1 {found['top1']:.1%} of {found['clips']:,} clips")
    return found


def draw(path: Path, table: Int[Tensor, "classes classes"], classes: tuple[str, ...], title: str) -> None:
    """The confusions of those classes that have clips, each row in shares."""
    from matplotlib.figure import Figure

    there = [c for c in range(len(classes)) if table[c].sum() or table[:, c].sum()]
    shares = table[there][:, there].double()
    shares = shares / shares.sum(1, keepdim=True).clamp(min=1)
    side = min(14.0, 3 + 0.22 * len(there))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(shares.numpy(), cmap="viridis", vmin=0, vmax=1)
    axis.set(title=title, xlabel="taken for", ylabel="class")
    if len(there) <= MOST_NAMES:
        names = [classes[c] for c in there]
        axis.set_xticks(range(len(there)), names, rotation=90, fontsize=7)
        axis.set_yticks(range(len(there)), names, fontsize=7)
    figure.colorbar(drawn, label="share of the class's clips")
    with atomic_path(path) as part:
        figure.savefig(part, dpi=110, format="png")
