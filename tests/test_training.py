"""The training loop and its batches, against torch's own schedulers and a loop written out plainly."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from course_lib.training.batches import in_order, loader, order, shuffled, unit_range
from course_lib.training.loop import train
from course_lib.training.optim import TrainConfig, learning_rate, parameter_groups
from course_lib.training.resume import Step, Stopped, history, leave, stopping

CONFIG = TrainConfig(steps=12, peak_lr=1e-2, warmup=4, grad_clip=0.8)
SECONDS = Step._fields.index("seconds")


class Tiny(nn.Module):
    """A little of everything that keeps a state: batch norm, dropout, a class token; two classes."""

    def __init__(self, dropout=0.3, width=8, classes=2):
        super().__init__()
        self.conv = nn.Conv3d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(width)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, clips):
        x = self.norm(self.conv(clips)).relu().mean(dim=(2, 3, 4))
        return self.head(self.dropout(x + self.token[0]))


def tiny(seed=0, **changes):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Tiny(**changes)


def two_classes(count=24):
    """Clips b 3 T H W as bytes: those of class 1 are brighter."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    clips = torch.randint(0, 128, (count, 3, 2, 4, 4), generator=generator) + 127 * labels[:, None, None, None, None]
    return clips.to(torch.uint8), labels


def batches_of_two_classes(prepare=unit_range):
    return shuffled(*two_classes(), batch=6, seed=5, prepare=prepare)


def losses(steps):
    return [step.loss for step in steps]


# ------------------------------------------------------------------------------------------------ the recipe


def test_the_learning_rate_is_that_of_torchs_linear_and_cosine_schedulers():
    config = TrainConfig(steps=40, peak_lr=3e-3, warmup=10)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.peak_lr)
    climb = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / config.warmup, total_iters=config.warmup - 1)
    theirs = []
    for _ in range(config.warmup):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        climb.step()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.peak_lr)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps - config.warmup)
    for _ in range(config.steps - config.warmup):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        fall.step()
    ours = [learning_rate(step, config) for step in range(config.steps)]
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert max(ours) == ours[config.warmup] == config.peak_lr
    assert learning_rate(config.steps, config) == 0
    assert learning_rate(0, replace(config, warmup=0)) == config.peak_lr


def test_a_run_is_what_a_plain_loop_with_torchs_adamw_does():
    net, plain = tiny(dropout=0.0), tiny(dropout=0.0)
    records = list(train(net, batches_of_two_classes(), CONFIG))

    names = dict(plain.named_parameters())
    matrices, others = ["conv.weight", "head.weight"], ["norm.weight", "norm.bias", "token", "head.bias"]
    optimizer = torch.optim.AdamW(
        [
            {"params": [names[n] for n in matrices], "weight_decay": CONFIG.weight_decay},
            {"params": [names[n] for n in others], "weight_decay": 0.0},
        ]
    )
    plain_losses, norms = [], []
    for number, (clips, labels) in enumerate(islice(batches_of_two_classes()(0), CONFIG.steps)):
        loss = F.cross_entropy(plain(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        norms.append(math.sqrt(sum((p.grad**2).sum().item() for p in plain.parameters())))
        for p in plain.parameters():
            p.grad *= min(1.0, CONFIG.grad_clip / (norms[-1] + 1e-6))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(number, CONFIG)
        optimizer.step()
        plain_losses.append(loss.item())

    assert losses(records) == pytest.approx(plain_losses, rel=1e-5)
    assert [step.grad_norm for step in records] == pytest.approx(norms, rel=1e-4)
    assert min(norms) < CONFIG.grad_clip < max(norms)  # both sides of the clip were visited
    assert [step.lr for step in records] == [learning_rate(n, CONFIG) for n in range(CONFIG.steps)]
    assert [step.number for step in records] == list(range(CONFIG.steps))
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter, names[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_two_classes_of_clips_are_learnt():
    records = list(train(tiny(), batches_of_two_classes(), TrainConfig(steps=60, peak_lr=1e-2, warmup=5)))
    assert sum(step.accuracy for step in records[-10:]) / 10 > 0.95 > records[0].accuracy
    assert all(step.seconds > 0 for step in records)


def test_only_what_multiplies_the_features_decays():
    net = nn.Sequential(tiny(), nn.LayerNorm(4), nn.Conv2d(2, 2, 1, bias=False), nn.MultiheadAttention(4, 2))
    net.position = nn.Parameter(torch.zeros(1, 16, 4))
    net[2].weight.requires_grad_(False)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    decayed, spared = (
        [names[id(p)] for p in group["params"]] for group in parameter_groups(net, TrainConfig(weight_decay=0.05))
    )
    assert decayed == ["0.conv.weight", "0.head.weight", "3.in_proj_weight", "3.out_proj.weight"]
    assert set(spared) == set(names.values()) - set(decayed) - {"2.weight"}  # and frozen weights are in neither
    assert [group["weight_decay"] for group in parameter_groups(net, TrainConfig(weight_decay=0.05))] == [0.05, 0.0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 50, "warmup": 50}, "warmup=50: climb for 0 to 49 of the 50 steps"),
        ({"warmup": -1}, "warmup=-1"),
        ({"peak_lr": 0.0}, "peak_lr=0.0"),
        ({"peak_lr": math.nan}, "peak_lr=nan"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"grad_clip": 0.0}, "grad_clip=0.0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_by_field_and_value(changes, said):
    with pytest.raises(ValueError, match=said):
        TrainConfig(**changes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_network_computes_in_bfloat16_and_learns(tmp_path):
    seen = set()
    net = tiny().cuda()
    net.head.register_forward_hook(lambda module, arguments, output: seen.add(output.dtype))
    config = TrainConfig(steps=60, peak_lr=1e-2, warmup=5)
    with closing(train(net, batches_of_two_classes(), config, tmp_path / "run")) as steps:
        first = list(islice(steps, 30))
    rest = list(train(net, batches_of_two_classes(), config, tmp_path / "run"))
    assert [step.number for step in first + rest] == list(range(60))
    assert seen == {torch.bfloat16} and {p.dtype for p in net.parameters()} == {torch.float32}
    assert sum(step.accuracy for step in rest[-10:]) / 10 > 0.95


# --------------------------------------------------------------------------- leaving a run and going on with it


def with_noise(clips):
    return unit_range(clips) + 0.1 * torch.randn(clips.shape)  # from torch's global generator


def test_a_run_left_and_resumed_has_bit_for_bit_the_losses_and_weights_of_one_never_stopped(tmp_path):
    batches, whole = batches_of_two_classes(with_noise), tiny()
    never_stopped = list(train(whole, batches, CONFIG))
    pieces = []
    for seed, pause in enumerate((3, 1, 5, 99)):  # each time a new network, as after a restart
        net = tiny(seed)
        with closing(train(net, batches, CONFIG, tmp_path / "run.safetensors", every=4)) as steps:
            pieces += islice(steps, pause)
    assert losses(pieces) == losses(never_stopped)
    assert [s[:SECONDS] for s in pieces] == [s[:SECONDS] for s in never_stopped]  # everything but the seconds
    assert history(tmp_path / "run.safetensors") == pieces
    for name, value in whole.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name


def test_another_seed_is_another_run():
    first, second = (losses(train(tiny(), batches_of_two_classes(), replace(CONFIG, seed=seed))) for seed in (0, 1))
    assert first[0] != second[0]


def test_the_steps_draw_one_after_the_other_from_the_generator_that_the_seed_starts():
    net, drawn = tiny(dropout=0.0), []
    net.head.register_forward_pre_hook(lambda module, arguments: drawn.append(torch.rand(2).tolist()))
    list(train(net, batches_of_two_classes(), replace(CONFIG, seed=9)))
    with torch.random.fork_rng([]):
        torch.manual_seed(9)
        assert drawn == [torch.rand(2).tolist() for _ in range(CONFIG.steps)]


def test_what_the_notebook_draws_between_two_steps_does_not_change_the_training_nor_it_them():
    plain = losses(train(tiny(), batches_of_two_classes(with_noise), CONFIG))
    torch.manual_seed(11)
    expected = [torch.rand(3) for _ in plain]
    torch.manual_seed(11)
    between, drawn = [], []
    for step in train(tiny(), batches_of_two_classes(with_noise), CONFIG):
        between.append(step.loss)
        drawn.append(torch.rand(3))
    assert between == plain
    assert torch.equal(torch.stack(drawn), torch.stack(expected))


def test_a_finished_run_gives_its_weights_and_history_and_no_more_steps(tmp_path):
    path = tmp_path / "new folder" / "run.safetensors"
    assert history(path) == []
    net, fresh = tiny(), tiny(seed=1)
    records = list(train(net, batches_of_two_classes(), CONFIG, path, every=5))

    def no_more_batches(step):
        raise AssertionError("a finished run asks for no batches")

    assert list(train(fresh, no_more_batches, CONFIG, path)) == []
    assert history(path) == records and isinstance(records[0], Step)
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in net.state_dict().items())


@pytest.fixture
def ctrl_c_interrupts():
    """As at a keyboard; a test run in the background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class CtrlC(Tiny):
    """Somebody presses Ctrl-C `times` times in the forward pass number `at`."""

    def __init__(self, at, times=1):
        super().__init__()
        self.passes, self.at, self.times = 0, at, times

    def forward(self, clips):
        self.passes += 1
        if self.passes == self.at:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        return super().forward(clips)


def test_ctrl_c_waits_for_the_step_to_end_and_saves_it(tmp_path, ctrl_c_interrupts):
    path, expected = tmp_path / "run", losses(train(tiny(), batches_of_two_classes(), CONFIG))
    net = CtrlC(at=4)
    net.load_state_dict(tiny().state_dict())
    seen = []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(step.loss for step in train(net, batches_of_two_classes(), CONFIG, path))
    assert losses(history(path)) == expected[:4]  # the fourth step was interrupted and is whole
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    net.at = None  # the same cell, run again
    assert losses(train(net, batches_of_two_classes(), CONFIG, path)) == expected[4:]


def test_a_second_ctrl_c_leaves_at_once_and_saves_nothing(tmp_path, ctrl_c_interrupts):
    path, net = tmp_path / "run", CtrlC(at=4, times=2)
    with pytest.raises(KeyboardInterrupt):
        list(train(net, batches_of_two_classes(), CONFIG, path, every=2))
    assert [step.number for step in history(path)] == [0, 1]


def test_ctrl_c_does_not_cut_short_what_torch_imports_for_the_first_optimiser(monkeypatch, ctrl_c_interrupts):
    made, adamw = [], torch.optim.AdamW

    def interrupted(groups):
        signal.raise_signal(signal.SIGINT)
        made.append(adamw(groups))
        return made[0]

    monkeypatch.setattr(torch.optim, "AdamW", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(train(tiny(), batches_of_two_classes(), CONFIG))
    assert made


@pytest.mark.parametrize("before", [0, 3])
def test_ctrl_c_in_the_wait_for_a_batch_saves_the_steps_before_it(tmp_path, before):
    def interrupted(step):
        yield from islice(batches_of_two_classes()(step), before)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(train(tiny(), interrupted, CONFIG, tmp_path / "run"))
    assert [step.number for step in history(tmp_path / "run")] == list(range(before))
    rest = losses(train(tiny(seed=1), batches_of_two_classes(), CONFIG, tmp_path / "run"))
    assert rest == losses(train(tiny(), batches_of_two_classes(), CONFIG))[before:]


def test_leave_ends_a_run_saved_and_is_not_needed_at_its_end(tmp_path):
    steps = train(tiny(), batches_of_two_classes(), CONFIG, tmp_path / "run")
    first = list(islice(steps, 5))
    leave(steps)
    assert history(tmp_path / "run") == first and next(steps, None) is None
    steps = train(tiny(), batches_of_two_classes(), CONFIG, tmp_path / "run")
    rest = list(steps)
    leave(steps)
    assert history(tmp_path / "run") == first + rest and len(first + rest) == CONFIG.steps


def test_a_run_left_behind_does_not_write_over_those_that_went_on(tmp_path):
    path, net = tmp_path / "run", tiny()
    left_behind = train(net, batches_of_two_classes(), CONFIG, path, every=2)
    next(left_behind), next(left_behind), next(left_behind)
    goes_on = list(train(tiny(), batches_of_two_classes(), CONFIG, path))
    left_behind.close()
    assert len(history(path)) == 12 and goes_on[0].number == 2

    path = tmp_path / "other"
    left_behind = train(net, batches_of_two_classes(), CONFIG, path, every=2)
    next(left_behind), next(left_behind), next(left_behind)
    next(train(net, batches_of_two_classes(), CONFIG))  # the same network, trained by somebody else
    left_behind.close()
    assert len(history(path)) == 2


def test_a_loss_that_is_no_number_stops_the_run_before_it_spoils_the_weights(tmp_path):
    def one_bad_clip(step):
        for number, (clips, labels) in enumerate(batches_of_two_classes()(step), start=step):
            yield (clips * math.inf if number == 5 else clips), labels

    net = tiny()
    with pytest.raises(FloatingPointError, match=r"step 5: loss nan.*lower peak_lr=0\.01"):
        list(train(net, one_bad_clip, CONFIG, tmp_path / "run", every=3))
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert len(history(tmp_path / "run")) == 3  # a step that failed is not saved


def test_batches_that_end_early_and_labels_without_a_class_are_named():
    few = islice(batches_of_two_classes()(0), 3)
    with pytest.raises(ValueError, match="ended before step 3 of 12"):
        list(train(tiny(), lambda step: few, CONFIG))
    clips, labels = two_classes()
    with pytest.raises(ValueError, match=r"step 0: labels from \d to 7, but the network has 2 classes.*classes=8"):
        list(train(tiny(), shuffled(clips, labels * 7, batch=24, seed=0), CONFIG))
    with pytest.raises(ValueError, match="every=0"):
        next(train(tiny(), batches_of_two_classes(), CONFIG, every=0))


# ------------------------------------------------------------------------------------------------- the batches


class Numbered(Dataset):
    """Item (i, epoch) is a clip that says so."""

    def __len__(self):
        return 10

    def __getitem__(self, place):
        index, epoch = place
        return torch.full((3, 1, 1, 1), 100.0 * epoch + index), index


def walk(batches, count):
    return [(clips[:, 0, 0, 0, 0].tolist(), labels.tolist()) for clips, labels in islice(batches, count)]


def test_an_epoch_shows_every_clip_once_in_an_order_of_its_own():
    clips, labels = torch.arange(10.0)[:, None, None, None, None].expand(10, 3, 1, 1, 1), torch.arange(10)
    walked = walk(shuffled(clips, labels, batch=5, seed=0, prepare=torch.clone)(0), 6)
    assert all(numbers == of_labels for numbers, of_labels in walked)  # a clip keeps its label
    epochs = [walked[i][1] + walked[i + 1][1] for i in (0, 2, 4)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, range(10)]}) == 4


def test_neighbours_that_belong_together_come_in_one_batch_and_the_walk_goes_on_from_any_step():
    clips, labels = torch.arange(12.0)[:, None, None, None, None], torch.arange(12)
    batches_from = shuffled(clips, labels, batch=4, seed=0, prepare=torch.clone, together=2)
    walked = walk(batches_from(0), 9)
    assert all(numbers == of_labels for numbers, of_labels in walked)
    shown = torch.tensor([labels for _, labels in walked])
    assert (shown[:, 0::2] % 2 == 0).all() and torch.equal(shown[:, 1::2], shown[:, 0::2] + 1)
    epochs = shown.reshape(3, 12).tolist()
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs) and epochs[0] != epochs[1]
    assert walk(batches_from(4), 5) == walked[4:]


def test_clips_that_fill_no_batch_sit_out_one_epoch_and_not_all():
    seen = [{i for _, chosen in islice(order(10, 4, 0, 2 * e), 2) for i in chosen} for e in range(20)]
    assert all(len(epoch) == 8 for epoch in seen)
    assert set.union(*seen) == set(range(10)) and len({frozenset(epoch) for epoch in seen}) > 5


@pytest.mark.parametrize("step", [1, 2, 7])
def test_batches_from_a_step_are_those_that_the_walk_from_the_start_comes_to(step):
    for batches_from in (
        shuffled(torch.arange(10.0)[:, None, None, None, None], torch.arange(10), 4, 3, prepare=torch.clone),
        loader(Numbered(), batch=4, seed=3),
    ):
        assert walk(batches_from(step), 5) == walk(batches_from(0), step + 5)[step:]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # torch forks its workers; Python warns
def test_a_loader_gives_the_same_batches_whatever_the_number_of_workers():
    none, two = (walk(loader(Numbered(), batch=4, seed=3, workers=n)(1), 5) for n in (0, 2))
    assert none == two
    epochs = [{int(number // 100) for number in numbers} for numbers, _ in none]
    assert epochs == [{0}, {1}, {1}, {2}, {2}]  # two batches an epoch, from the second batch on
    assert all([number % 100 for number in numbers] == labels for numbers, labels in none)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_prepares_whole_batches_and_draws_the_same_after_a_resume(workers):
    def noisy(clips):
        return clips + torch.rand(len(clips))[:, None, None, None, None]

    torch.manual_seed(0)
    batches = loader(Numbered(), batch=4, seed=3, workers=workers, prepare=noisy)(0)
    next(batches)
    state = torch.get_rng_state()
    (second, _), (plain, _) = next(batches), next(iter(loader(Numbered(), batch=4, seed=3)(1)))
    assert ((second - plain) > 0).all() and ((second - plain) < 1).all()
    torch.set_rng_state(state)
    resumed, _ = next(loader(Numbered(), batch=4, seed=3, workers=workers, prepare=noisy)(1))
    assert torch.equal(resumed, second)


def test_a_loader_leaves_torchs_global_generator_alone():
    before = torch.get_rng_state()
    walk(loader(Numbered(), batch=4, seed=3)(0), 3)
    walk(batches_of_two_classes()(0), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_in_order_shows_every_clip_once_and_the_last_batch_as_short_as_it_comes():
    clips, labels = two_classes(7)
    walked = list(in_order(clips, labels, batch=3))
    assert [len(some) for some, _ in walked] == [3, 3, 1]
    assert torch.equal(torch.cat([some for some, _ in walked]), unit_range(clips))
    assert torch.equal(torch.cat([theirs for _, theirs in walked]), labels)
    assert unit_range(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_a_batch_larger_than_the_data_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match="batch=5 of 24 clips cannot keep 2 together"):
        shuffled(*two_classes(), batch=5, seed=0, together=2)
    for make in (lambda: shuffled(*two_classes(), batch=25, seed=0), lambda: loader(Numbered(), batch=11, seed=0)):
        with pytest.raises(ValueError, match=r"batch=(25 of 24|11 of 10) clips"):
            make()


# ------------------------------------------------------------------------------------------------ frozen parts


def frozen_statistics(net):
    """What a frozen backbone makes of a clip, and the statistics of its batch norm."""
    clips = unit_range(two_classes()[0])
    return net.norm(net.conv(clips)).detach().clone(), net.norm.running_mean.clone(), net.norm.running_var.clone()


def test_a_frozen_part_in_evaluation_mode_stays_exactly_as_it_was():
    net = tiny()
    for part in (net.conv, net.norm):
        part.requires_grad_(False).eval()
    before = frozen_statistics(net)
    for _ in train(net, batches_of_two_classes(), TrainConfig(steps=20, peak_lr=1e-2, warmup=5)):
        net.eval()  # a look between two steps must not change the training
    net.conv.eval()
    net.norm.eval()
    assert all(torch.equal(a, b) for a, b in zip(before, frozen_statistics(net), strict=True))


def test_parts_that_train_are_in_training_mode_whatever_is_done_between_two_steps():
    modes, net = [], tiny()
    net.dropout.register_forward_hook(lambda module, *_: modes.append(module.training))
    for _ in train(net, batches_of_two_classes(), replace(CONFIG, steps=6)):
        net.eval()
    assert modes == [True] * 6


def test_a_network_in_evaluation_mode_is_not_trained_unasked():
    with pytest.raises(ValueError, match=r"in evaluation mode: call net\.train\(\)"):
        next(train(tiny().eval(), batches_of_two_classes(), CONFIG))


# ------------------------------------------------------------------------------------------------ SGD


def test_sgd_is_torchs_with_nesterovs_momentum():
    config = replace(CONFIG, optimizer="sgd", momentum=0.8, grad_clip=1e9)
    net, plain = tiny(dropout=0.0), tiny(dropout=0.0)
    records = list(train(net, batches_of_two_classes(), config))
    decayed, spared = parameter_groups(plain, config)
    optimizer = torch.optim.SGD([decayed, spared], momentum=0.8, nesterov=True)
    plain_losses = []
    for number, (clips, labels) in enumerate(islice(batches_of_two_classes()(0), config.steps)):
        loss = F.cross_entropy(plain(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(number, config)
        optimizer.step()
        plain_losses.append(loss.item())
    assert losses(records) == pytest.approx(plain_losses, rel=1e-5)


class Compiled(nn.Module):
    """Names its parameters as torch.compile's modules do; compiling itself is no matter here."""

    def __init__(self, net):
        super().__init__()
        self._orig_mod = net

    def forward(self, clips):
        return self._orig_mod(clips)


WRAPPERS = {"compiled": Compiled, "wrapped": nn.DataParallel, "plain": lambda net: net}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_run_goes_on_however_the_network_was_wrapped_when_it_was_saved(wrap, optimizer, tmp_path):
    config, path = replace(CONFIG, optimizer=optimizer), tmp_path / "run.safetensors"
    whole = losses(train(tiny(), batches_of_two_classes(), config))
    for number, _ in enumerate(train(wrap(tiny()), batches_of_two_classes(), config, path), 1):
        if number == 5:
            break
    assert losses(train(tiny(), batches_of_two_classes(), config, path)) == whole[5:]


def test_torch_compile_names_the_network_inside_as_this_file_does():
    """In a process of its own: torch warns of itself when it first compiles."""
    code = "import torch; print([n for n, _ in torch.compile(torch.nn.Linear(1, 1)).named_parameters()])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["['_orig_mod.weight',", "'_orig_mod.bias']"]


# ------------------------------------------------------------------------------------------------ being stopped


def test_a_stopped_cell_says_how_to_go_on(tmp_path):
    path = tmp_path / "run.safetensors"
    with (
        pytest.raises(Stopped) as stopped,
        stopping(path, 12),
        closing(train(tiny(), batches_of_two_classes(), CONFIG, path)) as records,
    ):
        for step in records:
            if step.number == 4:
                raise KeyboardInterrupt
    sentence = "Stopped at 5 of 12, saved; run this cell again to go on from there."
    assert stopped.value._render_traceback_() == [sentence]
    assert len(list(train(tiny(), batches_of_two_classes(), CONFIG, path))) == 7
