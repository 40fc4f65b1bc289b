"""What a network keeps in memory between its forward and its backward pass, counted without running it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from course_lib.layers.attention import RecordableAttention


def kept_for_backward(net: nn.Module, shape: Sequence[int], written_out: bool = False) -> int:
    """Bytes that autograd keeps of one training step's forward pass on clips of `shape` (b, 3, T, H, W), float32.

    What several operations keep counts once; weights, which are there anyway, do not count. `written_out`: attention
    holds its weights, as released code does, else it goes through the fused kernel of a CPU. `net` is not touched;
    it may lie on the meta device.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    net = copy.deepcopy(net).train()
    with mode, torch.device("cpu"):
        net = net.to_empty(device="cpu")
        if written_out:
            for part in net.modules():
                if isinstance(part, RecordableAttention):
                    part.recorder = lambda weights: None
        weights = {_storage(weight) for weight in [*net.parameters(), *net.buffers()]}
        kept: dict[int, tuple[int, Tensor]] = {}  # holding each, so that no number is given twice

        def keep(tensor: Tensor) -> Tensor:
            if _storage(tensor) not in weights:
                kept[_storage(tensor)] = tensor.untyped_storage().nbytes(), tensor
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            net(torch.empty(*shape))
    return sum(size for size, _ in kept.values())


def _storage(tensor: Any) -> int:
    return tensor.untyped_storage()._cdata
