"""Checkpoints, against processes that are killed, files that are damaged and runs that are not the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from course_lib.training.batches import shuffled
from course_lib.training.checkpoint import FORMAT, GROUPS, Checkpoint, as_plain, load, save, steps_done
from course_lib.training.loop import train
from course_lib.training.optim import TrainConfig
from course_lib.training.resume import differences, history

# Processes that begin without anything of this one, as after a restart. Only imports are shared, to save time
# (torch._dynamo is what the first optimiser of a process imports).
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["torch._dynamo", "safetensors.torch", "course_lib.training.loop"])
CONFIG = TrainConfig(steps=60, peak_lr=1e-2, warmup=10)


@dataclass(frozen=True)
class NetConfig:
    width: int = 16
    scheme: str = "joint"
    patch: tuple[int, int] = (2, 2)


class Net(nn.Module):
    def __init__(self, config=NetConfig(), classes=3):
        super().__init__()
        self.config = config
        self.body = nn.Linear(3 * 2 * 4 * 4, config.width)
        self.norm = nn.BatchNorm1d(config.width)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(config.width, classes)

    def forward(self, clips):
        return self.head(self.dropout(self.norm(self.body(clips.flatten(1))).relu()))


def make_net():
    torch.manual_seed(0)
    return Net()


def batches():
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (20, 3, 2, 4, 4), generator=generator, dtype=torch.uint8)
    return shuffled(clips, torch.arange(20) % 3, batch=6, seed=1)


def train_and_log(path: Path, log: Path, most: int) -> None:
    """A line for every step, the loss to the last bit; after `most` of them it waits to be killed."""
    torch.set_num_threads(1)
    with log.open("a", buffering=1) as lines:
        for logged, step in enumerate(train(make_net(), batches(), CONFIG, path, every=3), start=1):
            lines.write(f"{step.number} {step.loss.hex()}\n")
            time.sleep(0.002 if logged < most else 600)


def whole_lines(log: Path) -> list[list[str]]:
    text = log.read_text() if log.exists() else ""
    return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]


def test_a_run_killed_again_and_again_has_bit_for_bit_the_losses_of_one_left_alone(tmp_path):
    expected = {step.number: step.loss.hex() for step in train(make_net(), batches(), CONFIG)}
    path, log, moments, kills = tmp_path / "run.safetensors", tmp_path / "log", random.Random(0), 0
    for lives in (8, 1, 14, 3, 11, 1000):  # steps logged before somebody pulls the plug
        already = len(whole_lines(log))
        most = lives + 4 if already else lives  # the first is killed two steps after its last save
        process = FRESH.Process(target=train_and_log, args=(path, log, most), daemon=True)
        process.start()
        while process.is_alive() and len(whole_lines(log)) < already + lives:
            time.sleep(0.004)
        time.sleep(moments.uniform(0, 0.01))  # so that it falls anywhere in a step, a save or between them
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills == 5 and process.exitcode == 0
    lines = whole_lines(log)
    assert {(int(number), loss) for number, loss in lines} <= set(expected.items())  # repeated steps included
    assert len(lines) > len({number for number, _ in lines})  # some were lost with the process and done again
    # a step that is saved but not yet logged is in the history alone
    assert [(step.number, step.loss.hex()) for step in history(path)] == list(expected.items())


def big(number: int) -> Checkpoint:
    return Checkpoint(number, {"number": number}, {str(i): torch.full((1 << 18,), float(number)) for i in range(8)})


def save_for_ever(path: Path, first: int) -> None:
    torch.set_num_threads(1)
    for number in range(first, 10**9):
        save(path, big(number))


def halted_within_a_save(pid: int, temporary: Path) -> bool:
    """Stops the process, and lets it go on unless its new file is half written."""
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        time.sleep(0.001)
    if not (within := temporary.exists()):
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.001)
    return within


def test_a_process_killed_while_it_saves_leaves_a_whole_file_and_no_litter_piles_up(tmp_path):
    path, moments = tmp_path / "run.safetensors", random.Random(1)
    temporary, start = path.with_name("run.safetensors.part"), time.perf_counter()
    save(path, big(0))
    one_save = time.perf_counter() - start
    for life in range(1, 9):
        process = FRESH.Process(target=save_for_ever, args=(path, 1000 * life), daemon=True)
        process.start()
        while process.is_alive() and load(path).step < 1000 * life:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 2 * one_save))
        while life == 1 and not halted_within_a_save(process.pid, temporary):
            pass  # the others end at any moment
        process.kill()
        process.join()
        found = load(path)
        assert found.step >= 1000 * life and found.settings == {"number": found.step}
        assert {tensor.unique().item() for tensor in found.weights.values()} == {float(found.step)}
        assert life > 1 or temporary.exists()
        assert {*tmp_path.iterdir()} <= {path, temporary}
    save(path, big(1))
    assert [*tmp_path.iterdir()] == [path] and load(path).step == 1


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, fails):
    def full(*_):
        raise OSError("No space left on device")

    save(tmp_path / "run", big(1))
    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "run", big(2))
    assert load(tmp_path / "run").step == 1 and len(list(tmp_path.iterdir())) == 1


def test_what_is_on_the_disk_is_renamed_only_when_it_is_whole(tmp_path, monkeypatch):
    """The order of the calls, which no kill of a process can test: the plug is pulled on the machine."""
    calls, fsync, replace_ = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("rename"), replace_(*names)))
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc to name an open file")
    save(tmp_path / "run", big(1))
    assert calls == [str(tmp_path / "run.part"), "rename", str(tmp_path)]


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight  # tied
    net.register_buffer("turned", torch.arange(6).reshape(2, 3).t())
    saved = Checkpoint(
        step=7,
        settings={"training": as_plain(CONFIG), "frozen": []},
        weights=net.state_dict(),
        optimizer={"exp_avg/0.weight": torch.rand(3, 3), "step/0.weight": torch.tensor(7.0)},
        generators={"cpu": torch.get_rng_state()},
        history={"loss": torch.tensor([0.1, 1 / 3], dtype=torch.float64)},
    )
    save(tmp_path / "deep" / "down" / "run", saved)
    found = load(str(tmp_path / "deep" / "down" / "run"))
    assert (found.step, found.settings) == (7, saved.settings)
    for group in GROUPS:
        there, here = getattr(found, group), getattr(saved, group)
        assert set(there) == set(here)
        for name in here:
            assert there[name].dtype == here[name].dtype and torch.equal(there[name], here[name]), name


def test_what_is_loaded_is_no_view_into_the_file(tmp_path):
    path = tmp_path / "run"
    save(path, big(1))
    found, size = load(path), path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))
    assert all(torch.equal(tensor, torch.ones(1 << 18)) for tensor in found.weights.values())


def test_any_reader_of_safetensors_can_open_the_file(tmp_path):
    list(train(make_net(), batches(), replace(CONFIG, steps=11), tmp_path / "run"))
    tensors = safetensors.torch.load_file(tmp_path / "run")
    assert tensors["weights/head.weight"].shape == (3, 16) and tensors["history/loss"].shape == (11,)
    with safetensors.safe_open(tmp_path / "run", "pt") as file:
        about = file.metadata()
    assert about["step"] == "11" and about["torch"] == torch.__version__
    assert json.loads(about["settings"])["training"] == as_plain(replace(CONFIG, steps=11))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda whole: b"", "whole checkpoint"),
        (lambda whole: whole[:5], "whole checkpoint"),
        (lambda whole: whole[: len(whole) // 2], "whole checkpoint"),
        (lambda whole: whole[:-1], "whole checkpoint"),
        (lambda whole: whole + b"\0", "whole checkpoint"),
        (lambda whole: b"\xff" * len(whole), "whole checkpoint"),
        (lambda whole: b"not a checkpoint at all", "whole checkpoint"),
        (lambda whole: safetensors.torch.save({"a": torch.zeros(1)}), "format is None"),
        (
            lambda whole: safetensors.torch.save({"a": torch.zeros(1)}, {"format": FORMAT, "step": "1"}),
            "settings",
        ),
    ],
)
def test_a_damaged_file_is_named_with_its_path_and_the_way_out(tmp_path, damage, said):
    path = tmp_path / "run.safetensors"
    save(path, big(1))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=said) as caught:
        load(path)
    assert str(path) in str(caught.value) and "Delete it" in str(caught.value)
    with pytest.raises(ValueError, match=said):
        next(train(make_net(), batches(), CONFIG, path))


def test_no_file_and_a_folder_in_its_place_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing: no checkpoint"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match=str(tmp_path)):
        load(tmp_path)


def test_a_run_of_other_settings_or_another_network_is_refused_with_every_difference(tmp_path):
    path = tmp_path / "run"
    net, config = Net(), replace(CONFIG, steps=20)
    next(train(net, batches(), config, path))
    assert history(path)[0].number == 0

    other = Net(NetConfig(width=8, scheme="space"), classes=3)
    del other.norm
    other.extra, other.body.bias.requires_grad = nn.Linear(1, 1), False
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        next(train(other, batches(), replace(config, steps=21, seed=3), path))
    for line in (
        f"{path} is of another run",
        "training.steps: 20 in the file, 21 here",
        "training.seed: 0 in the file, 3 here",
        "network.width: 16 in the file, 8 here",
        "network.scheme: 'joint' in the file, 'space' here",
        "frozen: [] in the file, ['body.bias'] here",
        "norm.running_mean: float32 (16,) in the file, missing here",
        "extra.weight: missing in the file, float32 (1, 1) here",
        "head.weight: float32 (3, 16) in the file, float32 (3, 8) here",
        "Delete the file",
    ):
        assert line in str(caught.value)
    assert "training.warmup" not in str(caught.value) and "head.bias" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert load(path).step == 1


def test_two_networks_with_the_same_weights_and_another_scheme_are_told_apart(tmp_path):
    next(train(Net(), batches(), CONFIG, tmp_path / "run"))
    saved = load(tmp_path / "run")
    assert saved.settings["network"] == {"class": "Net", "width": 16, "scheme": "joint", "patch": [2, 2]}
    with pytest.raises(ValueError, match="'joint' in the file, 'space' here"):
        next(train(Net(NetConfig(scheme="space")), batches(), CONFIG, tmp_path / "run"))
    wider = differences(saved, saved.settings, Net().double())
    assert "head.bias: float32 (3,) in the file, float64 (3,) here" in wider


def test_a_network_handed_out_without_its_run_is_no_run_to_go_on_with(tmp_path):
    next(train(Net(), batches(), CONFIG, tmp_path / "run"))
    run = load(tmp_path / "run")
    save(tmp_path / "net", Checkpoint(run.step, run.settings, run.weights))
    assert history(tmp_path / "net") == []
    assert torch.equal(load(tmp_path / "net").weights["head.weight"], run.weights["head.weight"])
    with pytest.raises(ValueError, match="a network and not a run"):
        next(train(Net(), batches(), CONFIG, tmp_path / "net"))


def test_settings_are_plain_values_whatever_the_config_holds():
    @dataclass(frozen=True)
    class Config:
        inner: NetConfig = NetConfig()
        activation: type = nn.GELU
        dtype: torch.dtype = torch.bfloat16

    plain = as_plain(Config())
    inner = {"width": 16, "scheme": "joint", "patch": [2, 2]}
    assert plain == {"inner": inner, "activation": "GELU", "dtype": "torch.bfloat16"}
    assert json.loads(json.dumps(plain)) == plain


def test_how_far_a_run_got_is_told_without_its_tensors(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    assert steps_done(path) == 0
    save(path, Checkpoint(7, {}, {"w": torch.ones(3)}))
    monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: pytest.fail("a tensor was read"))
    assert steps_done(path) == 7
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"run\.safetensors is not a whole checkpoint: .* Delete it"):
        steps_done(path)
