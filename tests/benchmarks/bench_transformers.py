"""Transformers against Hugging Face's and torchvision's, as ratios in one run (above 1: ours is faster).

`make bench` prints them where the others are installed; nothing is asserted about speed, since it depends on the
machine. Training steps (forward, backward, AdamW) in bfloat16 autocast: ours eager and compiled, theirs eager and
compiled, clips a second and the most memory held. On a CPU one clip, in float32 and eager only, and in place of the
memory held what the forward pass keeps for the backward pass, which is most of it at the batches of a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pairs import GPU, ratio, stepper
from torch import Tensor, nn

from course_lib.models import build


class FramesFirst(nn.Module):
    """Hugging Face's clips are b T 3 H W, and its answers carry more than logits."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, clip: Tensor) -> Tensor:
        return self.net(clip.transpose(1, 2)).logits


def huggingface(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        transformers = pytest.importorskip("transformers", exc_type=Exception)
        if name == "timesformer":
            config = transformers.TimesformerConfig(num_labels=400, num_frames=8)
            return FramesFirst(transformers.TimesformerForVideoClassification(config))
        return FramesFirst(transformers.VivitForVideoClassification(transformers.VivitConfig(num_labels=400)))

    return make


def torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        video = pytest.importorskip("torchvision.models.video", exc_type=Exception)
        return getattr(video, name)(num_classes=400)

    return make


PAIRS = {  # ours: theirs, their share of dropped paths, batch on a GPU
    "timesformer_b_8x224": (huggingface("timesformer"), 0.0, 32),
    "vivit_b_16x2_model1": (huggingface("vivit"), 0.0, 8),
    "mvit_b_16x4": (torchvision("mvit_v1_b"), 0.2, 32),
    "mvitv2_s_16x4": (torchvision("mvit_v2_s"), 0.2, 32),
    "video_swin_t_32x224": (torchvision("swin3d_t"), 0.1, 16),
    "video_swin_b_32x224": (torchvision("swin3d_b"), 0.1, 8),
}


def memory(step: Callable[[], None]) -> float:
    """GB held at the most during one step on a GPU."""
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9


def kept(net: nn.Module, clip: Tensor) -> float:
    """GB that a forward pass keeps for the backward pass, parameters left out."""
    held = {tensor.untyped_storage().data_ptr() for tensor in [*net.parameters(), *net.buffers()]}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        answer = net(clip)
    del answer  # until here nothing that was noted could be freed, so no address came twice
    return sum(sizes.values()) / 1e9


@pytest.mark.parametrize("modes", ["eager against eager", "compiled against eager", "compiled against compiled"])
@pytest.mark.parametrize("name", PAIRS)
def test_training_step(name, modes, capsys):
    make, drop_path, batch = PAIRS[name]
    device, batch = ("cuda", batch) if GPU else ("cpu", 1)
    if not GPU and modes != "eager against eager":
        pytest.skip("compiled networks are compared on a GPU")
    theirs, ours = make().to(device), build(name, drop_path=drop_path).to(device)
    c = ours.config
    clip = torch.randn(batch, 3, c.frames, c.size, c.size, device=device)
    mine, other = (mode == "compiled" for mode in modes.split(" against "))
    steps = stepper(ours, clip, compiled=mine, bf16=GPU), stepper(theirs, clip, compiled=other, bf16=GPU)
    a, b, r = ratio(*steps, 15 if GPU else 3)
    if GPU:
        held = "{:.1f} and {:.1f} GB held at most".format(*map(memory, steps))
    else:
        held = f"{kept(ours, clip):.2f} and {kept(theirs, clip):.2f} GB kept for the backward pass"
    with capsys.disabled():
        where = torch.cuda.get_device_name() if GPU else f"CPU, {torch.get_num_threads()} threads"
        print(
            f"\n  {name} at batch {batch}, {modes}, {where}, torch {torch.__version__}: "
            f"{batch / a:.2f} and {batch / b:.2f} clips a second, ratio {r:.2f}; {held}"
        )
