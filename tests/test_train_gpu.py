"""What runs on a GPU alone, as far as it can be tried without one."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration

from course_lib.models import NETWORKS
from course_lib.training import distributed, loop
from course_lib.training.distributed import ALONE, Ranks, started
from course_lib.training.fit import make_network, ready, to_network
from course_lib.training.optim import RecipeConfig, make_optimizer
from course_lib.training.recipes import recipe
from course_lib.training.resume import resume, settings

FAMILIES = [name for name in NETWORKS if name.endswith("tiny")]


class Unread(Ranks):
    """Numbers on the device that cannot be read, since there are none."""

    def mean(self, *values: Tensor) -> list[float]:
        return [0.0] * len(values)


def step_everywhere_but_on_the_cpu() -> None:
    """A step of every family on a made-up device, where tensors have a shape and a place but no numbers: an operation
    that meets one left on the CPU fails. To be run in a process of its own, since the device stays."""

    class Backend(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16]

    warnings.simplefilter("ignore")  # the made-up device has no autocast
    backend_registration._setup_privateuseone_for_python_backend("gpu", Backend())
    torch._C._set_only_lift_cpu_tensors(True)
    loop._require_classes = lambda *_: None
    loop.whole = lambda _: SimpleNamespace(isfinite=lambda: True, item=lambda: 1.0)
    device = torch.device("gpu", 0)
    for name in FAMILIES:
        drop_path = 0.1 if hasattr(NETWORKS[name][1], "drop_path") else None
        chosen = replace(recipe(name), drop_path=drop_path, channels_last=True, mixup=0.8, cutmix=1.0)
        net = ready(make_network(name, 8, chosen, 0), chosen, ALONE, torch.device("cpu"))
        with FakeTensorMode():
            for part in net.modules():
                for held in (part._parameters, part._buffers):
                    for key, x in held.items():
                        if x is not None:
                            there = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device)
                            held[key] = nn.Parameter(there) if held is part._parameters else there
            shown = torch.empty(2, 3, *net.config.clip, dtype=torch.uint8, device=device)
            batch = to_network(chosen, device)(shown), torch.zeros(2, dtype=torch.long)  # labels come from the CPU
            config = chosen.config(10)
            loop.update(net, make_optimizer(net, config), batch, config, 0, Unread())
            assert {parameter.grad.device for parameter in net.parameters()} == {device}
        print(name, flush=True)


def test_no_network_leaves_a_tensor_of_its_own_on_the_cpu():
    code = "import test_train_gpu; test_train_gpu.step_everywhere_but_on_the_cpu()"
    ran = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert ran.stdout.split() == FAMILIES, ran.stderr[-2000:]


def test_each_process_has_the_gpu_of_its_number_and_nccl_is_told_which(monkeypatch):
    told = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: told.update(set=device))
    monkeypatch.setattr(dist, "init_process_group", lambda kind, **how: told.update(how, kind=kind))
    monkeypatch.setattr(dist, "get_rank", lambda: 6)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: told.update(ended=True))
    for name, value in (("WORLD_SIZE", "8"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    with distributed.started() as (ranks, device):
        assert (ranks, device) == (Ranks(6, 8), torch.device("cuda", 2)) and "ended" not in told
    assert told.pop("timeout") > timedelta(hours=1), "a test of hours has one message, at its end"
    assert told == {"set": device, "device_id": device, "kind": "nccl", "ended": True}
    monkeypatch.setenv("LOCAL_RANK", "4")
    try:
        with started():
            raise AssertionError("there is no fifth")
    except ValueError as error:
        assert "process 4 of this machine has no GPU of its own, there are 4" in str(error)


def test_what_the_optimiser_goes_on_with_lies_in_memory_as_its_parameter_does(tmp_path):
    """Else a GPU's fused steps fall back to slow ones after a resume."""
    path, config = tmp_path / "run.safetensors", RecipeConfig(steps=3, warmup=0)

    def made() -> nn.Sequential:
        net = nn.Sequential(nn.Conv3d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
        net[0].weight.data = net[0].weight.data.contiguous(memory_format=torch.channels_last_3d)
        return net

    def batches(step: int):
        while True:
            yield torch.ones(2, 3, 3, 3, 3), torch.tensor([0, 1])

    list(loop.train(made(), batches, config, path))
    net = made()
    optimizer = make_optimizer(net, config)
    saved = resume(path, settings(net, config), net, optimizer)
    weight = net[0].weight
    assert weight.stride() != weight.contiguous().stride()
    for key in ("exp_avg", "exp_avg_sq"):
        assert optimizer.state[weight][key].stride() == weight.stride()
        assert optimizer.state[weight][key].equal(saved.optimizer[f"{key}/0.weight"])
    assert weight.equal(saved.weights["0.weight"]) and not optimizer.state[weight]["exp_avg"].requires_grad
