"""One training on several processes, as torchrun starts them: who computes which clips, and what all agree on.

Without torchrun there is one process, rank 0 of 1, and nothing here does anything. Each process computes its share of
every batch; gradients are averaged, by DistributedDataParallel or, where a network does not fit on one device, by
FSDP2, which parts weights, gradients and the optimiser's state among the processes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Which clips of a batch are this process's. ValueError where the batch cannot be parted alike."""
        if batch % self.world:
            least = batch // self.world * self.world
            near = f"{least} or {least + self.world}" if least else f"{self.world}"
            raise ValueError(
                f"a batch of {batch} clips does not divide among {self.world} processes: use batch={near}, or another "
                f"number of processes"
            )
        each = batch // self.world
        return slice(self.rank * each, (self.rank + 1) * each)

    def mean(self, *values: Tensor) -> list[float]:
        """Of each number, the mean over the processes."""
        together = torch.stack([value.detach().double() for value in values])
        if self.world > 1:
            dist.all_reduce(together)
        return (together / self.world).tolist()

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether it holds in any process; so all stop after the same step."""
        if self.world == 1:
            return here
        flag = torch.tensor(float(here), device=device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def gather(self, here: Any) -> list[Any]:
        """What every process gives, in the order of ranks."""
        if self.world == 1:
            return [here]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, here)
        return found

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


ALONE = Ranks()
LOST = re.compile("connection (was )?(closed|reset|refused)|broken pipe|timed out", re.IGNORECASE)  # as gloo says it


class PeerLost(RuntimeError):
    """Another process died, or can no longer be reached."""


@contextmanager
def started() -> Iterator[tuple[Ranks, torch.device]]:
    """The processes of this training, as torchrun tells by the environment, and this one's device."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", 0))
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} of this machine has no GPU of its own, there are {torch.cuda.device_count()}: start "
                f"torchrun with --nproc-per-node {torch.cuda.device_count()}"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if world == 1:
        yield ALONE, device
        return
    gpu = device.type == "cuda"
    # a test of hours has one message, at its end: whoever comes first may wait for longer than NCCL's ten minutes. That
    # a process has died is noticed without it, by torchrun or by gloo
    patience = timedelta(hours=2)
    # barriers guess a device that they are not told
    dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None, timeout=patience)
    try:
        yield Ranks(dist.get_rank(), world), device
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or LOST.search(str(error)):
            raise PeerLost(f"another process of this training ended: {str(error).splitlines()[0]}") from error
        raise
    dist.destroy_process_group()  # after an error it might wait for those that are gone


def parallel(net: nn.Module, ranks: Ranks, shard: bool = False) -> nn.Module:
    """`net` as it trains on several processes: wrapped by DDP or, with `shard`, parted by FSDP2, in place.

    ValueError for `shard` on one process, which parts nothing.
    """
    if shard and ranks.world == 1:
        raise ValueError(
            "shard=yes parts a network among processes, and there is one: start it by torchrun, or leave it"
        )
    if ranks.world == 1:
        return net
    if not shard:
        devices = [parameter.device for parameter in net.parameters()][:1]
        return nn.parallel.DistributedDataParallel(net, device_ids=devices if devices[0].type == "cuda" else None)
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # each block is gathered for itself, so that no more than one lies there whole; the innermost are parted first
    for parts in reversed(list(net.modules())):
        if isinstance(parts, nn.ModuleList | nn.Sequential):
            for part in parts:
                if sum(parameter.numel() for parameter in part.parameters()) > SMALL:
                    fully_shard(part)
    fully_shard(net)
    if hasattr(net, "probabilities"):  # some are tested by it, past the forward pass that FSDP2 knows
        register_fsdp_forward_method(net, "probabilities")
    return net


SMALL = 100_000  # parameters of a part that is not worth a message of its own


def whole(value: Tensor) -> Tensor:
    """A tensor that FSDP2 has parted, put together (all processes have to ask); others as they are."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def parted_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor on the device of `parameter` and in its layout, and parted as FSDP2 has parted that one."""
    if not hasattr(parameter, "full_tensor"):
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
