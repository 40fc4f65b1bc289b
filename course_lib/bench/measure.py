"""One network against its peer on this device: clips a second, share of the device's peak, memory."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.analysis.cost import cost
from course_lib.models import build

# Dense bfloat16 products and sums a second as the makers' data sheets have them (NVIDIA prints them with sparsity: half
# of that), by a part of the device's name; the first that fits counts.
PUBLISHED_PEAKS = {
    "H200": 989.5e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989.5e12,
    "A100": 312e12,
    "L40S": 362e12,
}
CPU_SIZE = 112  # pixels: the short form for a CPU, one clip at half the height and width


class Subject(NamedTuple):
    """A network of ours, clips a batch on a GPU, and who else has it: its library, and how to make it for our config.
    `short`: also in the short form."""

    name: str
    batch: int
    library: str = ""
    peer: Callable[[Any], nn.Module] | None = None
    short: bool = True


class Adapted(nn.Module):
    """Another library's network, given our clips b 3 T H W."""

    def __init__(self, net: nn.Module, before: Callable[[Tensor], Any], after: Callable[[Any], Tensor] = lambda x: x):
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, clip: Tensor) -> Tensor:
        return self.after(self.net(self.before(clip)))


def _huggingface(network: str, config: str, **settings: int) -> Callable[[Any], nn.Module]:
    def make(ours: Any) -> nn.Module:
        library = importlib.import_module("transformers")
        made = getattr(library, config)(num_labels=400, num_frames=ours.frames, image_size=ours.size, **settings)
        return Adapted(getattr(library, network)(made), lambda clip: clip.transpose(1, 2), lambda answer: answer.logits)

    return make


def _torchvision(name: str, sized: bool = False) -> Callable[[Any], nn.Module]:
    def make(ours: Any) -> nn.Module:
        size = {"spatial_size": (ours.size, ours.size)} if sized else {}
        return getattr(importlib.import_module("torchvision.models.video"), name)(num_classes=400, **size)

    return make


def _pytorchvideo(module: str, name: str, two_paths: bool = False) -> Callable[[Any], nn.Module]:
    def make(ours: Any) -> nn.Module:
        if ours.size != 224:
            raise ValueError(f"its head wants 224 pixels, not {ours.size}")
        net = getattr(importlib.import_module(f"pytorchvideo.models.{module}"), name)(head_activation=None)
        return Adapted(net, (lambda clip: [clip[:, :, ::4], clip]) if two_paths else (lambda clip: clip))

    return make


HF_TIMESFORMER = _huggingface("TimesformerForVideoClassification", "TimesformerConfig")
HF_VIVIT = _huggingface("VivitForVideoClassification", "VivitConfig")
SUBJECTS = (
    Subject("timesformer_b_8x224", 32, "transformers", HF_TIMESFORMER),
    Subject("vivit_b_16x2_model1", 8, "transformers", HF_VIVIT),
    Subject("vivit_b_16x2_model2", 8, short=False),
    Subject("mvit_b_16x4", 32, "torchvision", _torchvision("mvit_v1_b", sized=True), short=False),
    Subject("mvitv2_s_16x4", 32, "torchvision", _torchvision("mvit_v2_s", sized=True)),
    Subject("video_swin_t_32x224", 16, "torchvision", _torchvision("swin3d_t")),
    Subject("video_swin_b_32x224", 8, "torchvision", _torchvision("swin3d_b"), short=False),
    Subject("slowfast_r50_8x8", 16, "pytorchvideo", _pytorchvideo("slowfast", "create_slowfast", two_paths=True)),
    Subject("r3d_18", 16, "torchvision", _torchvision("r3d_18"), short=False),
    Subject("r2plus1d_18", 16, "torchvision", _torchvision("r2plus1d_18")),
    Subject("i3d_r50_8x8", 16, short=False),
    Subject("c2d_nl_r50_8x8", 16),
    Subject("i3d_inception", 8),
    Subject("vtn_vit_b", 8),
    Subject("vidtr_s_8x224", 16),
    Subject("cvidtr_s_8x224", 16, short=False),
)
CONVOLUTIONAL = ("slowfast", "r3d", "r2plus1d", "i3d", "c2d")


class Peak(NamedTuple):
    """Products and sums a second (two a multiply-add), and where the figure comes from."""

    flops: float
    source: str


def peak(device: torch.device) -> Peak:
    """The device's published dense bfloat16 peak; of an unknown one the rate of a large matrix product, named so."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    for part, flops in PUBLISHED_PEAKS.items():
        if part in name and "MIG" not in name:  # a part of a device has a part of its peak
            return Peak(flops, "published, dense bfloat16")
    side, kind = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a = torch.randn(side, side, device=device, dtype=kind)
    best = min(interleaved({"product": lambda: a @ a}, 10)["product"])
    return Peak(
        2 * side**3 / best, f"measured, product of {side} x {side} matrices in {str(kind).removeprefix('torch.')}"
    )


def now() -> float:
    """Seconds, when a GPU's work is done; without a GPU, of the processor and a thread, which other work on the machine
    hardly changes."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def interleaved(runs: Mapping[str, Callable[[], object]], repeats: int, warm: int = 2) -> dict[str, list[float]]:
    """Seconds of `repeats` runs of each. They take turns, and turns at going first."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(warm + repeats):
        for name in list(runs)[:: 1 if i % 2 else -1]:
            start = now()
            runs[name]()
            if i >= warm:
                times[name].append(now() - start)
    return times


def training_step(net: nn.Module, clip: Tensor, compiled: bool, bf16: bool) -> Callable[[], None]:
    """Forward, backward, AdamW."""
    optimiser = torch.optim.AdamW(net.train().parameters(), lr=1e-4)
    forward, labels = torch.compile(net) if compiled else net, torch.arange(len(clip), device=clip.device)

    def step() -> None:
        with torch.autocast(clip.device.type, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(forward(clip), labels)
        optimiser.zero_grad(), loss.backward(), optimiser.step()

    return step


def inference(net: nn.Module, clip: Tensor, compiled: bool, bf16: bool) -> Callable[[], None]:
    """One forward pass."""
    forward = torch.compile(net.eval()) if compiled else net.eval()

    def step() -> None:
        with torch.inference_mode(), torch.autocast(clip.device.type, torch.bfloat16, enabled=bf16):
            forward(clip)

    return step


PHASES = {"training": training_step, "inference": inference}


def compare(
    subject: Subject, phase: str, compiled: bool, device: torch.device, repeats: int, small: bool
) -> dict[str, Any]:
    """Measure ours and, where its library can be imported, theirs; a part of the record, ready for JSON.

    `phase` is training or inference. `small`: one clip at `CPU_SIZE` pixels. Memory is the most held on a GPU during a
    step, less what the other network holds; None on a CPU.
    """
    gpu = device.type == "cuda"
    ours: Any = build(subject.name, **({"size": CPU_SIZE} if small else {}))
    shape = (1 if small else subject.batch, 3, ours.config.frames, ours.config.size, ours.config.size)
    macs = cost(ours, (1, *shape[1:])).macs
    nets: dict[str, Any] = {"ours": ours}
    without = "nobody" if subject.peer is None else ""
    if subject.peer is not None:
        try:
            nets["theirs"] = subject.peer(ours.config)
        except Exception as error:  # whatever keeps a library from being imported on this machine
            without = f"{subject.library}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    layout = torch.channels_last_3d if gpu and subject.name.startswith(CONVOLUTIONAL) else torch.contiguous_format
    clip = torch.randn(shape, device=device).contiguous(memory_format=layout)
    steps: dict[str, Callable[[], None]] = {}
    holds: dict[str, int] = {}
    for side, net in nets.items():
        before = torch.cuda.memory_allocated() if gpu else 0
        steps[side] = PHASES[phase](net.to(device).to(memory_format=layout), clip, compiled, gpu)
        steps[side]()
        holds[side] = torch.cuda.memory_allocated() - before if gpu else 0
    most = {side: _most_held(step) - sum(holds.values()) + holds[side] for side, step in steps.items()} if gpu else {}
    times = interleaved(steps, repeats, warm=2 if gpu else 0)  # each has run once
    part: dict[str, Any] = {
        "network": subject.name,
        "phase": phase,
        "mode": "compiled" if compiled else "eager",
        "shape": list(shape),
        "clock": "wall" if gpu else "processor seconds / threads",
        "precision": "bfloat16 autocast" if gpu else "float32",
        "macs": macs,
        "peer": subject.library,
        "without_peer": without,
    }
    for side, seconds in times.items():
        rate = shape[0] / statistics.median(seconds)
        part[side] = {"clips_per_second": rate, "seconds": seconds, "bytes": most.get(side)}
    return part


def share_of_peak(part: dict[str, Any], top: float) -> float:
    """Products and sums a second of ours, two for each multiply-add counted, as a share of the peak."""
    products = 2 * part["macs"] * (3 if part["phase"] == "training" else 1)  # a step backward costs two forward
    return products * part["ours"]["clips_per_second"] / top


def _most_held(step: Callable[[], None]) -> int:
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
