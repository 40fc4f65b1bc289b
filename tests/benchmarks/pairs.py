"""Two networks, measured by turns in one run."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GPU = torch.cuda.is_available()


def ratio(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median seconds of each, and theirs / ours. They take turns, and turns at going first."""
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    turns = [("ours", ours), ("theirs", theirs)]
    for i in range(repeats + 2):
        for name, run in turns[:: 1 if i % 2 else -1]:
            start = time.perf_counter()
            run()
            if GPU:
                torch.cuda.synchronize()
            if i >= 2:
                times[name].append(time.perf_counter() - start)
    a, b = (sorted(times[name])[repeats // 2] for name in ("ours", "theirs"))
    return a, b, b / a


def stepper(net: nn.Module, clip: Tensor, *, compiled: bool, bf16: bool = True) -> Callable[[], None]:
    """A training step of `net` on `clip`: forward, backward, AdamW."""
    optimiser = torch.optim.AdamW(net.train().parameters(), lr=1e-4)
    forward, labels = torch.compile(net) if compiled else net, torch.arange(len(clip), device=clip.device)

    def step() -> None:
        with torch.autocast(clip.device.type, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(forward(clip), labels)
        optimiser.zero_grad(), loss.backward(), optimiser.step()

    return step
