"""What is kept for the backward pass: by hand for small parts, and as a real forward pass keeps it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from course_lib.analysis.memory import kept_for_backward
from course_lib.models import build, configure


class OneLayer(nn.Module):
    def __init__(self, *after: nn.Module):
        super().__init__()
        self.linear, self.after = nn.Linear(8, 32), nn.Sequential(*after)

    def forward(self, clip):
        return self.after(self.linear(clip))


def test_by_hand_for_one_layer_and_what_comes_after():
    shape, given, made = (2, 3, 4, 8, 8), 2 * 3 * 4 * 8 * 8 * 4, 2 * 3 * 4 * 8 * 32 * 4  # bytes
    assert kept_for_backward(OneLayer(), shape) == given, "a matrix product keeps what it multiplied, not its weights"
    assert kept_for_backward(OneLayer(nn.ReLU()), shape) == given + made, "a ReLU keeps what it made"
    assert kept_for_backward(OneLayer(nn.GELU()), shape) == given + made, "a GELU what it was given"
    both = kept_for_backward(OneLayer(nn.ReLU(), nn.Linear(32, 5)), shape)
    assert both == given + made, "what a ReLU made and the next product multiplies is one tensor"


@pytest.mark.parametrize("name", ["i3d_tiny", "vivit_tiny", "timesformer_tiny", "mvit_tiny", "video_swin_tiny"])
def test_it_is_what_a_real_forward_pass_keeps(name):
    shape, net = (1, 3, *configure(name).clip), build(name).train()
    weights = {weight.untyped_storage().data_ptr() for weight in [*net.parameters(), *net.buffers()]}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.randn(shape))
    with torch.device("meta"):
        shapes_alone = build(name)
        assert kept_for_backward(shapes_alone, shape) == sum(n for n, _ in kept.values())
    assert kept_for_backward(shapes_alone, shape) == kept_for_backward(net, shape) == sum(n for n, _ in kept.values())
    assert net.training and next(net.parameters()).device.type == "cpu", "the network itself is not touched"


def test_attention_that_is_written_out_keeps_its_weights():
    """ViViT's joint model: all pairs of tokens, in every head of every block, at least."""
    with torch.device("meta"):
        net = build("vivit_tiny", model=1)
    shape, config = (1, 3, *net.config.clip), net.config
    tokens = config.grid.size + 1
    more = kept_for_backward(net, shape, written_out=True) - kept_for_backward(net, shape)
    pairs = config.depth * config.heads * tokens**2 * 4
    assert 0.7 * pairs < more < 1.5 * pairs
