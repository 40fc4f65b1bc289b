"""Where batches come from: a function of the step, so that a run that goes on sees what it would have seen.

`train` asks `batches_from(step)` for an endless walk that begins with the batch of that step. Epoch e walks
the clips in an order fixed by (seed, e); clips that do not fill a last batch sit that epoch out.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.data import DataLoader

from course_lib.training.distributed import ALONE, Ranks


@runtime_checkable
class Clips(Protocol):
    """A data set whose items are asked for as `dataset[index, epoch]`."""

    def __len__(self) -> int: ...
    def __getitem__(self, item: tuple[int, int], /) -> tuple[Any, ...]: ...


Batch = tuple[Float[Tensor, "b c T H W"], Int[Tensor, "b"]]
# for networks that are told which frames of the video they see
NumberedBatch = tuple[Float[Tensor, "b c T H W"], Int[Tensor, "b"], Int[Tensor, "b T"]]
Prepare = Callable[[Shaped[Tensor, "b ..."]], Float[Tensor, "b c T H W"]]


def unit_range(clips: Shaped[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Bytes 0..255 as numbers from -1 to 1."""
    return clips.float() / 127.5 - 1


def shuffled(
    clips: Shaped[Tensor, "n ..."],
    labels: Int[Tensor, "n"],
    batch: int,
    seed: int,
    prepare: Prepare = unit_range,
    together: int = 1,
) -> Callable[[int], Iterator[Batch]]:
    """Endless shuffled batches of clips that fit in memory (of the CPU or the GPU), as bytes to save space.

    `prepare` turns the stored clips of one batch into b 3 T H W. It may draw from torch's global generator
    (a random flip): `train` keeps that generator in its checkpoint. `together`: so many neighbours in `clips`, counted
    from the first, always come in one batch, such as 2 for a clip and its reverse.
    """
    _require_a_batch(len(clips), batch)
    if batch % together or len(clips) % together:
        raise ValueError(f"batch={batch} of {len(clips)} clips cannot keep {together} together: use multiples of it")

    def batches_from(step: int) -> Iterator[Batch]:
        for _, chosen in order(len(clips) // together, batch // together, seed, step):
            firsts = torch.tensor(chosen, device=clips.device) * together
            rows = (firsts[:, None] + torch.arange(together, device=clips.device)).flatten()
            yield prepare(clips[rows]), labels[rows.to(labels.device)]

    return batches_from


def in_order(
    clips: Shaped[Tensor, "n ..."],
    labels: Int[Tensor, "n"],
    batch: int,
    prepare: Prepare = unit_range,
) -> Iterator[Batch]:
    """Every clip once, first to last, the last batch as short as it comes: for `evaluate.predict`."""
    for some, theirs in zip(clips.split(batch), labels.split(batch), strict=True):
        yield prepare(some), theirs


def loader(
    dataset: Clips,
    batch: int,
    seed: int,
    workers: int = 0,
    prepare: Prepare | None = None,
    device: torch.device | str = "cpu",
    ranks: Ranks = ALONE,
    repeats: int = 1,
) -> Callable[[int], Iterator[Any]]:
    """Endless shuffled batches of a dataset whose items are asked for as `dataset[index, epoch]`; with the frames'
    numbers (NumberedBatch) where the items have them.

    The item must depend on (index, epoch) alone, then the batches are the same for every number of worker
    processes and after every resume. (A worker that reads video waits while its decoding process works, so two a core
    keep a machine busy.) `prepare`, as in `shuffled`, is called with the clips of a batch once they are on
    `device`: so a GPU can be sent bytes and make numbers of them.

    `batch` clips are those of all processes (`ranks`), of which each is given its share: which clips a step shows
    does not depend on their number. With `repeats` each clip comes so many times in its batch, every time with other
    randomness (repeated augmentation, Hoffer et al., 2020).
    """
    _require_a_batch(len(dataset), batch)
    mine = ranks.share(batch * repeats)

    def batches_from(step: int) -> Iterator[Batch]:
        asked_for = (
            # one repeat of all, then the next: neighbours, which are mixed, are different clips
            [(index, epoch * repeats + time) for time in range(repeats) for index in chosen][mine]
            for epoch, chosen in order(len(dataset), batch, seed, step)
        )
        for clips, *rest in read_by(workers, dataset, batch_sampler=asked_for):
            clips = clips.to(device, non_blocking=True)
            yield clips if prepare is None else prepare(clips), *rest

    return batches_from


def read_by(workers: int, dataset: Any, **batches: Any) -> Iterable[Any]:
    """torch's DataLoader, `batches` are its `batch_size` or `batch_sampler`: it draws nothing from the global
    generator, and none but this process ends its worker processes."""
    return DataLoader(
        dataset,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
        worker_init_fn=_undisturbed,
        **batches,
    )


def _undisturbed(_: int) -> None:
    """Ctrl-C and SIGTERM, which terminals, torchrun and Slurm send to all processes, are for the one that trains: it
    may want another batch before it stops."""
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)


def order(count: int, batch: int, seed: int, step: int = 0) -> Iterator[tuple[int, list[int]]]:
    """(epoch, indices) of the batch of `step`, of the one after it, and so on for ever."""
    per_epoch = count // batch
    epoch, first = divmod(step, per_epoch)
    while True:
        # the factor keeps the epochs of one seed apart from those of the next
        generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**32)
        indices = torch.randperm(count, generator=generator)[: per_epoch * batch]
        yield from ((epoch, chosen.tolist()) for chosen in indices.split(batch)[first:])
        epoch, first = epoch + 1, 0


def _require_a_batch(count: int, batch: int) -> None:
    if not 1 <= batch <= count:
        raise ValueError(f"batch={batch} of {count} clips: choose a batch from 1 to {count}, or give more clips")
