"""SlowFast against its released layers, and our depthwise convolution against a grouped one, as ratios in one run.

Above 1 ours is faster. `make bench` prints them; nothing is asserted about speed, since it depends on the machine. That
both networks compute the same is asserted. A forward pass on a CPU; training steps (forward, backward, AdamW) on a GPU,
in bfloat16 autocast and channels_last_3d, eager and compiled. The released layers are laid out from the golden record;
`course bench` compares with other libraries.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from reference import recipe
from torch import Tensor, nn

from course_lib.bench.measure import interleaved, training_step
from course_lib.layers.conv import DepthwiseConv
from course_lib.models import build
from course_lib.models.slowfast import slow_frames
from course_lib.official import load

GPU = torch.cuda.is_available()
RECORD = Path(__file__).parents[1] / "reference" / "SLOWFAST_8x8_R50.json"


class ReleasedSlowFast(nn.Module):
    """facebookresearch/SlowFast's order of layers for SLOWFAST_8x8_R50, one module for each of its tensors."""

    def __init__(self, record: dict):
        super().__init__()
        self.part = nn.ModuleDict()
        shapes = {name.removesuffix(".weight"): shape for name, shape in record["keys"] if name.endswith(".weight")}
        for name, shape in shapes.items():
            if len(shape) == 5:
                time, space = (4 if "fuse" in name else 1), (2 if self.halves(name) else 1)
                padding = [k // 2 for k in shape[2:]]
                part = nn.Conv3d(shape[1], shape[0], shape[2:], (time, space, space), padding, bias=False)
            else:
                part = nn.BatchNorm3d(shape[0]) if len(shape) == 1 else nn.Linear(shape[1], shape[0])
            self.part[name.replace(".", "/")] = part

    @staticmethod
    def halves(name: str) -> bool:
        return "stem" in name or (name[1] in "345" and "res0" in name and name.endswith(("branch1", "branch2.b")))

    def run(self, name: str, x: Tensor) -> Tensor:
        return self.part[name.replace(".", "/")](x)

    def block(self, x: Tensor, name: str) -> Tensor:
        y = F.relu(self.run(f"{name}.branch2.a_bn", self.run(f"{name}.branch2.a", x)), inplace=True)
        y = F.relu(self.run(f"{name}.branch2.b_bn", self.run(f"{name}.branch2.b", y)), inplace=True)
        y = self.run(f"{name}.branch2.c_bn", self.run(f"{name}.branch2.c", y))
        if name.endswith("res0"):
            x = self.run(f"{name}.branch1_bn", self.run(f"{name}.branch1", x))
        return F.relu(x + y, inplace=True)

    def forward(self, clip: Tensor) -> Tensor:
        paths = [clip.index_select(2, slow_frames(32, 4).to(clip.device)), clip]
        for stage, depth in enumerate((1, 3, 4, 6, 3), start=1):
            for p in (0, 1):
                if stage == 1:
                    stem = f"s1.pathway{p}_stem"
                    y = F.relu(self.run(f"{stem}.bn", self.run(f"{stem}.conv", paths[p])), inplace=True)
                    paths[p] = F.max_pool3d(y, (1, 3, 3), (1, 2, 2), (0, 1, 1))
                else:
                    for i in range(depth):
                        paths[p] = self.block(paths[p], f"s{stage}.pathway{p}_res{i}")
            if stage < 5:
                fuse = self.run(f"s{stage}_fuse.bn", self.run(f"s{stage}_fuse.conv_f2s", paths[1]))
                paths[0] = torch.cat([paths[0], F.relu(fuse, inplace=True)], 1)
        x = torch.cat([F.avg_pool3d(x, (x.shape[2], 7, 7), stride=1) for x in paths], 1)
        return self.run("head.projection", F.dropout(x.permute(0, 2, 3, 4, 1), 0.5, self.training)).mean((1, 2, 3))


def slowfast_pair() -> tuple[nn.Module, nn.Module]:
    """Ours and the released layers with the same weights."""
    record = recipe.record(RECORD)
    state, theirs, ours = recipe.state_dict(record), ReleasedSlowFast(record), build("slowfast_r50_8x8")
    for name, tensor in state.items():
        part, _, kind = name.rpartition(".")
        theirs.part[part.replace(".", "/")].state_dict()[kind].copy_(tensor)
    load(ours, state, "pyslowfast")
    return ours, theirs


def ratio(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median seconds of each, and theirs / ours."""
    a, b = map(statistics.median, interleaved({"ours": ours, "theirs": theirs}, repeats).values())
    return a, b, b / a


def test_forward_on_a_cpu_at_batch_1(capsys, all_cores):
    ours, theirs = (net.eval() for net in slowfast_pair())
    clip = torch.randn(1, 3, 32, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(ours(clip), theirs(clip), rtol=1e-4, atol=1e-4)
        a, b, r = ratio(lambda: ours(clip), lambda: theirs(clip), 9)
    with capsys.disabled():
        threads = torch.get_num_threads()
        print(f"\n  SlowFast, CPU forward, {threads} threads: ours {a:.3f} s, theirs {b:.3f} s, ratio {r:.3f}")


@pytest.mark.skipif(not GPU, reason="training steps are compared on a GPU")
@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_training_step_on_a_gpu(mode, capsys):
    clip = torch.randn(16, 3, 32, 224, 224, device="cuda").contiguous(memory_format=torch.channels_last_3d)
    nets = [net.cuda().to(memory_format=torch.channels_last_3d) for net in slowfast_pair()]
    a, b, r = ratio(*(training_step(net, clip, compiled=mode == "compiled", bf16=True) for net in nets), 15)
    with capsys.disabled():
        print(f"\n  SlowFast, training step at batch 16, {mode}, {torch.cuda.get_device_name()}, torch "
              f"{torch.__version__}: ours {1000 * a:.1f} ms, theirs {1000 * b:.1f} ms, ratio {r:.3f}")  # fmt: skip


POOLS = [(1, 56, 8), (2, 28, 4), (4, 14, 2), (8, 7, 1), (2, 56, 2), (4, 14, 1)]  # MViT-B: heads, grid, stride


@pytest.mark.parametrize(("heads", "size", "stride"), POOLS)
def test_depthwise_frame_by_frame_against_a_grouped_3d_convolution(heads, size, stride, capsys):
    """Forwards and backwards on 8 frames of tokens, 96 channels a head; bfloat16 on a GPU."""
    clips, device, kind = (32, "cuda", torch.bfloat16) if GPU else (1, "cpu", torch.float32)
    conv = DepthwiseConv(96, (3, 3, 3), (1, stride, stride)).to(device, kind)
    tokens = torch.randn(clips * heads, 8, size, size, 96, device=device, dtype=kind, requires_grad=True)

    def grouped(x: Tensor) -> Tensor:
        return F.conv3d(x, conv.weight, None, conv.stride, conv.padding, groups=96)

    def both_ways(compute: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
        change = torch.randn_like(compute(x))
        return lambda: torch.autograd.grad(compute(x), (tokens, conv.weight), change)

    channels_last = tokens.movedim(-1, 1)
    ours = both_ways(conv, channels_last)
    a, b, r = ratio(ours, both_ways(grouped, channels_last), 9)
    _, c, s = ratio(ours, both_ways(lambda x: grouped(x.contiguous()), channels_last), 9)
    with capsys.disabled():
        print(
            f"\n  pooling {heads} heads of 8x{size}x{size} by {stride}, {device}: frame by frame {1000 * a:.1f} ms; "
            f"grouped, channels last {1000 * b:.1f} ms, ratio {r:.2f}; channels first {1000 * c:.1f} ms, ratio {s:.2f}"
        )
