"""Recipes of papers and `course train`: what a recipe lists is obeyed, a run stops, goes on and is tested."""

from __future__ import annotations

import colorsys
import hashlib
import json
import re
import signal
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from stand_ins import appearance, write_kinetics
from test_real_sets import by_its_released_names
from torch import nn
from typer import Exit
from typer.testing import CliRunner

import course_lib.training.fit as fitting
from course_lib.cli import app
from course_lib.layers.blocks import Recomputable
from course_lib.models import NETWORKS, build
from course_lib.models.vtn import VTN
from course_lib.synthetic.write import encode
from course_lib.training import mixing
from course_lib.training.augment import OPERATIONS, TrainAugment, colour_change, erase, rand_augment
from course_lib.training.batches import order
from course_lib.training.checkpoint import Checkpoint, load, save
from course_lib.training.distributed import ALONE, PeerLost
from course_lib.training.fit import Plan, fit, make_network, ready
from course_lib.training.folder import BEST, LAST
from course_lib.training.loop import train
from course_lib.training.metrics import read
from course_lib.training.optim import RecipeConfig, in_full, learning_rate, moving_mean, parameter_groups
from course_lib.training.recipe import Recipe
from course_lib.training.recipes import KINDS, PAPERS, RECIPES, network_changes, recipe, shortened
from course_lib.training.report import judge
from course_lib.training.resume import settings
from course_lib.training.run import in_sentences
from course_lib.training.sources import read_source, train_clips
from course_lib.training.sources import test_clips as clips_to_test
from course_lib.training.start import Start, start_from
from course_lib.training.watch import chart
from course_lib.video.transforms import KINETICS, ToNetwork

TRAINING = Path(fitting.__file__).parent


@pytest.fixture(scope="session")
def kinetics_folder(tmp_path_factory):
    return write_kinetics(tmp_path_factory.mktemp("kinetics"), each=(4, 1))


def plan(folder: Path, out: Path, **changes) -> Plan:
    small = {"batch": "8", "epochs": "0.8", "warmup": "0", "dropout": "0"}
    return Plan(
        "video_swin_tiny", "K", out, "mini10", "short", small, root=str(folder), save_every=100, **changes
    )  # 4 steps


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read(run) if "loss" in line]


# ------------------------------------------------------------------------------------------------ recipes as data


SETS = {"K": "K400", "S": "SSv2"}


@pytest.mark.parametrize("data", SETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_network_has_a_recipe_with_a_source_and_an_aim(kind, data):
    for network in NETWORKS:
        found = recipe(network, data, kind)
        assert found.source and re.match(rf"{SETS[data]} \d\d\.\d|nothing published on SSv2", found.aims_at)
        assert data == "S" or "nothing" not in found.aims_at
        network_changes(network, found)
        found.config(steps_an_epoch=1000)
    assert recipe("mvitv2_s_16x4", "S").optimizer == "sgd" and recipe("mvit_b_16x4", "S").optimizer == "adamw"
    assert (recipe("cvidtr_s_8x224").lr_clips, recipe("vidtr_s_8x224").lr_clips) == (64, 24), "with one rate"
    assert recipe("video_swin_b_32x224", "K").weight_decay == 0.05 != recipe("video_swin_s_32x224", "K").weight_decay
    assert not any(recipe(network, "S").flip for network in NETWORKS), "left and right belong to its classes"
    assert {recipe(network, "S").views[0] for network in NETWORKS} == {1}, "which is sampled over the whole video"


def test_what_recipes_aim_at_is_what_the_comparison_prints():
    book = json.loads((Path(__file__).parents[1] / "notebooks" / "11_comparison.ipynb").read_text())
    code = "".join("".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code")
    row = r'Row\(\s*"(\w+)", \d+, [^,]+, (\w+), (\w+), ([\d.]+), ([\d.]+|None),'
    printed = {name: values for name, *values in re.findall(row, code)}
    seen = set()
    for found in RECIPES.values():
        if "test set" in found.aims_at or "from ImageNet-1K" in found.aims_at:  # there it prints another set or start
            continue
        ssv2 = found.aims_at.startswith("SSv2")
        for figure, name in re.findall(r"([\d.]+), (\w+)", found.aims_at):
            if name in printed:
                clips, crops, *accuracies = printed[name]
                assert float(figure) == float(accuracies[ssv2]), found.aims_at
                views = zip((clips, crops), found.views, strict=True)
                assert ssv2 or all(theirs in ("None", str(ours)) for theirs, ours in views), found.aims_at
                seen.add(name)
    assert len(seen) >= 8, seen


def test_no_recipe_lists_a_dial_that_nothing_reads():
    code = "\n".join(path.read_text() for path in TRAINING.glob("*.py"))
    for field in fields(Recipe):
        assert re.search(rf"\b(chosen|recipe|self|theirs)\.{field.name}\b", code), field.name
    for field in fields(RecipeConfig):
        assert re.search(rf"\b(c|config|self)\.{field.name}\b", code), field.name


def test_a_short_recipe_is_the_papers_in_proportion():
    whole = RECIPES["timesformer"]
    short = shortened(replace(whole, epochs=150, milestones=(110, 140), warmup=15, repeats=2))
    assert (short.epochs, short.milestones, short.warmup) == (12, pytest.approx((8.8, 11.2)), pytest.approx(1.2))
    assert short.repeats == 1 and short.lr == whole.lr and short.lr_clips == whole.lr_clips


def test_the_rate_goes_with_the_batch_of_all_processes():
    assert recipe("timesformer_b_8x224").config(100).peak_lr == 0.005
    assert recipe("timesformer_b_8x224", changes={"batch": "64"}).config(100).peak_lr == pytest.approx(0.04)
    assert recipe("mvit_b_16x4").config(100).peak_lr == pytest.approx(1.6e-3), "the paper's, for 512 samples"


def test_the_rates_are_those_of_the_released_schedules():
    """Worked out by the formulas of PySlowFast's lr_policy for SLOWFAST_8x8_R50 and MVIT_B_16x4 (16 nodes)."""
    slowfast = recipe("slowfast_r50_8x8").config(100)  # at the end of step 100 e - 1 it has the rate of epoch e
    assert learning_rate(99, slowfast) == pytest.approx(0.01 + (0.09275714 - 0.01) / 34, rel=1e-5)
    assert learning_rate(3400, slowfast) == pytest.approx(0.09275714, rel=1e-5), "below 0.1: the cosine began at 0"
    assert learning_rate(9800, slowfast) == pytest.approx(0.05)
    mvit = recipe("mvit_b_16x4").config(100)
    assert learning_rate(3000, mvit) == pytest.approx(1.6e-3)
    assert learning_rate(1499, mvit) == pytest.approx(1.6e-5 + (1.6e-3 - 1.6e-5) / 2)
    assert learning_rate(11500, mvit) == pytest.approx((1.6e-3 + 1.6e-5) / 2)
    timesformer = recipe("timesformer_b_8x224").config(100)
    rates = [learning_rate(step, timesformer) for step in (0, 1099, 1100, 1399, 1400, 1499)]
    assert rates == pytest.approx([5e-3, 5e-3, 5e-4, 5e-4, 5e-5, 5e-5])


def test_what_decays_and_how_fast_it_learns_is_what_the_recipe_says():
    swin = make_network("video_swin_tiny", 8, recipe("video_swin_tiny"), 0)
    names = {id(parameter): name for name, parameter in swin.named_parameters()}

    def groups(**changes):
        made = parameter_groups(swin, replace(recipe("video_swin_tiny").config(10), **changes))
        return {names[id(p)]: (group["weight_decay"], group["share"]) for group in made for p in group["params"]}

    own = groups()
    assert own["head.weight"] == own["head.bias"] == (0.02, 1.0)
    assert own["norm.weight"] == own["patch_embed.project.bias"] == (0.02, 0.1), "as mmcv's longest key has it"
    tables = {name: group for name, group in own.items() if "relative" in name or "table" in name}
    assert len(tables) == 6 and set(tables.values()) == {(0.0, 1.0)}
    assert groups(spared="vectors")["norm.weight"][0] == 0 and groups(spared="vectors")["head.weight"][0] == 0.02
    assert {decay for decay, _ in groups(spared="nothing").values()} == {0.02}
    net = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))
    spared = parameter_groups(net, RecipeConfig(spared="batch norms"))[1]["params"]
    assert [id(p) for p in spared] == [id(p) for p in net[1].parameters()]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batchsize": "8"}, "no setting 'batchsize': did you mean batch?"),
        ({"lr": "fast"}, "lr='fast': 'fast' is not a number"),
        ({"batch": "inf"}, "batch='inf': give a finite number"),
        ({"epochs": "inf"}, "epochs='inf': give a finite number"),
        ({"lr_clips": "0"}, "lr_clips=0: give the clips a step"),
        ({"views": "5"}, "views='5': give two numbers, such as 10x3"),
        ({"area": "0.5"}, "area='0.5': give two numbers, such as 0.08,1"),
        ({"area": "0.5,2"}, "area=(0.5, 2.0): give shares"),
        ({"short_side": "256"}, "short_side='256': give two numbers, such as 256,320"),
        ({"short_side": "320,256"}, "short_side=(320, 256): give the least and the most"),
        ({"flip": "maybe"}, "flip='maybe': say yes or no"),
        ({"fps": "yes"}, "fps='yes': 'yes' is not a number"),
        ({"batch": "8.5"}, "batch='8.5': '8.5' is not a whole number"),
        ({"batch": "0"}, "batch=0: give at least 1"),
        ({"optimizer": "lion"}, "optimizer='lion': use 'adamw' or 'sgd'"),
        ({"views": "4x2"}, "views=(4, 2): give clips x crops"),
        ({"compile": "2"}, "compile='2': say yes or no"),
        ({"label_smoothing": "2"}, "label_smoothing=2.0: give a share"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name_and_value(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        recipe("video_swin_tiny", changes=changes).config(10)


def test_settings_are_read_as_their_kind():
    found = recipe("mvit_tiny", changes={"views": "4x3", "milestones": "3,5.5", "area": "none", "compile": "yes"})
    assert (found.views, found.milestones, found.area, found.compile) == ((4, 3), (3.0, 5.5), None, True)


# ------------------------------------------------------------------------------------------------ pixels and labels


def test_all_frames_of_a_clip_are_changed_alike_and_another_draw_changes_it_otherwise():
    frame = np.random.default_rng(0).integers(0, 256, (1, 40, 52, 3), dtype=np.uint8)
    still = np.repeat(frame, 5, axis=0)
    augment = TrainAugment(32, (36, 44), (0.2, 1.0), magnitude=9, ops=4, colour=1.0, grey=0.3)
    clips = [augment(still, torch.Generator().manual_seed(seed)) for seed in range(6)]
    for clip in clips:
        assert clip.shape == (3, 5, 32, 32) and clip.dtype == torch.uint8
        assert (clip == clip[:, :1]).all(), "a still video stays still"
    assert len({clip.numpy().tobytes() for clip in clips}) == 6
    assert torch.equal(clips[0], augment(still, torch.Generator().manual_seed(0)))
    mirrored = [TrainAugment(40, (40, 40), flip=flips) for flips in (False, True)]
    wide = np.zeros((1, 40, 40, 3), np.uint8)
    wide[:, :, :20] = 255
    for augment, sides in zip(mirrored, ({True}, {True, False}), strict=True):
        seen = {bool(augment(wide, torch.Generator().manual_seed(n))[0, 0, 20, 3] > 128) for n in range(20)}
        assert seen == sides


def test_randaugment_does_each_drawn_operation_with_chance_one_half():
    draw = np.random.default_rng(0)
    counts = [len(rand_augment(7, 4, draw)) for _ in range(500)]
    assert np.mean(counts) == pytest.approx(2, abs=0.15) and set(counts) == {0, 1, 2, 3, 4} and len(OPERATIONS) == 15


def test_erasing_fills_one_box_in_all_frames_with_noise():
    clip = torch.full((3, 6, 40, 40), 7, dtype=torch.uint8)
    erased = erase(clip, np.random.default_rng(1), KINETICS)
    changed = (erased != clip).any(0).any(0)
    rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
    assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert 0.01 < changed.float().mean() < 0.4 and (clip == 7).all()
    inside = erased[:, :, changed]
    assert not torch.equal(inside[:, 0], inside[:, 1]) and 60 < inside.float().mean() < 170


def halves(left: tuple[int, ...], right: tuple[int, ...]) -> np.ndarray:
    """Four frames of 16 x 16, of one colour to the left and another to the right."""
    frames = np.empty((4, 16, 16, 3), np.uint8)
    frames[:, :, :8], frames[:, :, 8:] = left, right
    return frames


def shown(frames: np.ndarray, seed: int = 0, **settings: float) -> np.ndarray:
    """The clip, T H W 3, that is neither scaled, cropped nor mirrored."""
    augment = TrainAugment(16, (16, 16), flip=False, **settings)
    return augment(frames, torch.Generator().manual_seed(seed)).movedim(0, -1).numpy()


class Drawn(np.random.Generator):
    """A generator whose draws are known."""

    def __init__(self, brighter: float = 0, hue: float = 0, contrast: float = 1, saturation: float = 1):
        super().__init__(np.random.PCG64(0))
        self.values = iter([brighter, hue, np.array([contrast, saturation])])

    def uniform(self, *_: object) -> object:
        return next(self.values)


def test_colours_change_by_the_drawn_brightness_contrast_saturation_and_hue():
    def change(left: tuple[int, ...], right: tuple[int, ...], **drawn: float) -> list[list[int]]:
        picture = Image.fromarray(halves(left, right)[0])
        found = np.asarray(colour_change(Drawn(**drawn))(picture)).astype(int)
        assert (found[:, :8] == found[0, 0]).all() and (found[:, 8:] == found[0, 8]).all()
        return [found[0, 0].tolist(), found[0, 8].tolist()]

    dark, light = (40,) * 3, (240,) * 3
    assert change(dark, light, brighter=20) == [[60] * 3, [255] * 3]
    assert change(dark, light, contrast=0.5) == [[90] * 3, [190] * 3], "towards the mean, 140"
    (grey, _), red = change((200, 40, 40), (200, 40, 40), saturation=0), change((250, 0, 0), (250, 0, 0), hue=1 / 6)
    luma = 0.299 * 200 + 0.587 * 40 + 0.114 * 40
    assert grey == pytest.approx([luma] * 3, abs=1)
    wanted = [250 * part for part in colorsys.hsv_to_rgb(1 / 6, 1, 1)]
    assert red[0] == pytest.approx(wanted, abs=6), "Pillow's hue has 256 steps"


def test_colour_and_grey_come_as_often_as_they_are_asked_for_and_to_all_frames():
    frames = halves((200, 40, 90), (10, 120, 60))
    assert (shown(frames) == frames).all(), "at chance 0 every pixel stays"
    grey = shown(frames, grey=1.0).astype(int)
    luma = frames @ np.array([0.299, 0.587, 0.114])
    assert (grey == grey[..., :1]).all() and np.abs(grey[..., 0] - luma).max() <= 1
    coloured = [shown(frames, seed, colour=0.5) for seed in range(60)]
    assert all((clip == clip[:1]).all() for clip in coloured), "a still clip stays still"
    changed = [(clip != frames).any() for clip in coloured]
    assert 18 < sum(changed) < 42 and len({clip.tobytes() for clip in coloured}) == sum(changed) + 1
    assert 18 < sum((shown(frames, seed, grey=0.5) != frames).any() for seed in range(60)) < 42


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0), (0, 1.0), (0.8, 1.0)])
def test_mixed_clips_are_what_their_labels_say_and_the_same_however_the_batch_is_parted(mixup, cutmix):
    clips, labels = torch.zeros(8, 3, 2, 16, 16), torch.arange(8)
    clips[:] = labels[:, None, None, None, None]
    logits = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    shares = set()
    for step in range(12):
        mixed = mixing.mix(clips, labels, mixup, cutmix, seed=3, step=step)
        assert mixed.others.tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
        told = mixed.share * mixed.labels + (1 - mixed.share) * mixed.others
        assert torch.allclose(mixed.clips.mean((1, 2, 3, 4)), told.float(), atol=1e-5)
        targets = mixed.share * F.one_hot(labels, 8) + (1 - mixed.share) * F.one_hot(mixed.others, 8)
        soft = F.cross_entropy(logits, targets.float() * 0.9 + 0.1 / 8)
        assert torch.allclose(mixed.loss(logits, 0.1), soft, atol=1e-5)
        half = mixing.mix(clips[4:], labels[4:], mixup, cutmix, seed=3, step=step)
        assert torch.equal(half.clips, mixed.clips[4:]) and half.share == mixed.share
        shares.add(mixed.share)
    assert len(shares) > 6
    with pytest.raises(ValueError, match="3 clips a process"):
        mixing.mix(clips[:3], labels[:3], mixup, cutmix, 0, 0)


# ------------------------------------------------------------------------------------------------ the engine


class Counting(nn.Module):
    """A network without norms, so that gradients of pieces add up to those of the whole."""

    def __init__(self):
        super().__init__()
        self.project, self.head = nn.Linear(12, 6), nn.Linear(6, 2)

    def forward(self, clips):
        return self.head(self.project(clips.flatten(1)).tanh())


def batches(step):
    generator = torch.Generator().manual_seed(step)
    while True:
        yield torch.randn(6, 3, 1, 2, 2, generator=generator), torch.randint(0, 2, (6,), generator=generator)


def counting() -> Counting:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Counting()


def test_clips_computed_a_few_at_a_time_give_the_same_steps(tmp_path):
    config = RecipeConfig(steps=5, warmup=1, label_smoothing=0.1, mixup=0.8)
    whole, parted = (list(train(counting(), batches, config, at_once=n)) for n in (0, 4))
    assert [step.loss for step in parted] == pytest.approx([step.loss for step in whole], rel=1e-5)
    assert [step.grad_norm for step in parted] == pytest.approx([step.grad_norm for step in whole], rel=1e-4)


class Told(Counting):
    """A network that is told which frames it sees."""

    def forward(self, clips, frames):
        return super().forward(clips) * (1 + frames.float().mean(1, keepdim=True))


def test_frames_numbers_stay_with_their_clips_however_many_are_computed_at_once():
    def numbered(step):
        for clips, labels in batches(step):
            yield clips, labels, labels[:, None] + torch.arange(6)[:, None]

    def told() -> Told:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return Told()

    config = RecipeConfig(steps=3, warmup=1)
    whole, parted = (list(train(told(), numbered, config, at_once=n)) for n in (0, 4))
    assert [step.loss for step in parted] == pytest.approx([step.loss for step in whole], rel=1e-5)
    clips, labels, frames = next(numbered(0))
    by_hand = F.cross_entropy(told()(clips, frames), labels)
    assert whole[0].loss == pytest.approx(by_hand.item(), rel=1e-5)


def test_vtn_is_told_its_frames_numbers_in_training_and_in_testing(kinetics_folder, tmp_path, monkeypatch):
    heard, forward = [], VTN.forward

    def listening(self, clip, frames=None):
        heard.append(frames)
        return forward(self, clip, frames)

    source = read_source("K", kinetics_folder, "mini10")
    chosen = recipe("vtn_tiny", "K", "short", {"test_frames": "12"})
    dataset = train_clips(source, chosen, 8, 64, seed=3, numbered=True)
    with monkeypatch.context() as patch:
        patch.setattr(VTN, "forward", listening)
        changes = {"batch": "8", "test_frames": "12"}
        folder = str(kinetics_folder)
        fit(Plan("vtn_tiny", "K", tmp_path, "mini10", "short", changes, root=folder, seed=3, stop_after=1))
    _, items = next(order(len(dataset), 8, 3))
    assert torch.equal(heard[0], torch.stack([dataset[i, 0][2] for i in items])) and heard[0].max() > 8

    net = build("vtn_tiny", classes=len(source.test.classes)).eval()
    nn.init.normal_(net.time_embed)
    prepare = ToNetwork(chosen.colours)
    found, _ = judge(net, source, chosen, 8, 64, (1, 1), prepare, torch.device("cpu"))
    clips = [clips_to_test(source, chosen, 8, 64, numbered=True)[i] for i in range(len(found))]
    with torch.inference_mode():
        told, untold = (
            torch.stack([net(prepare(clip[None]), *given(ticks))[0].softmax(0) for clip, _, ticks in clips])
            for given in (lambda ticks: [ticks[None]], lambda ticks: [])
        )
    assert torch.allclose(found, told, atol=1e-6) and not torch.allclose(found, untold, atol=1e-3)


def test_the_moving_mean_is_that_worked_out_by_hand_and_survives_a_stop(tmp_path):
    config, path = RecipeConfig(steps=6, warmup=1, ema=0.8), tmp_path / "run.safetensors"
    net, by_hand = counting(), None
    mean = moving_mean(net, 0.8)
    for _ in train(net, batches, config, mean=mean):
        weight = net.head.weight.detach().clone()
        by_hand = weight if by_hand is None else 0.8 * by_hand + 0.2 * weight
    assert torch.allclose(mean.module.head.weight, by_hand, atol=1e-6)

    def part(steps: int):
        net = counting()
        mean, records = moving_mean(net, 0.8), train(net, endless, config, path, mean=(mean := moving_mean(net, 0.8)))
        for _ in zip(range(steps), records, strict=False):
            pass
        records.close()
        return mean

    endless = lambda step: (pair for n in range(step, 99) for pair in [next(batches(n))])  # noqa: E731
    part(2)
    stopped = part(9)
    path.unlink()
    assert torch.equal(stopped.module.head.weight, part(9).module.head.weight)


def test_frozen_norms_keep_statistics_and_weights_and_recomputed_blocks_the_result():
    chosen = replace(recipe("slowfast_tiny"), frozen_bn=True, channels_last=True)
    net = ready(make_network("slowfast_tiny", 4, chosen, 0), chosen, ALONE, torch.device("cpu"))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    data = (torch.randn(2, 3, 16, 64, 64), torch.tensor([0, 1]))
    list(train(net, lambda step: iter([data] * 9), RecipeConfig(steps=1, warmup=0)))
    frozen = {f"{name}.{part}" for name, module in net.named_modules() for part in module.state_dict()
              if isinstance(module, nn.BatchNorm3d)}  # fmt: skip
    assert frozen and all(torch.equal(before[name], net.state_dict()[name]) for name in frozen)
    assert not torch.equal(before["head.weight"], net.head.weight)
    swin = replace(recipe("video_swin_tiny"), recompute=True, dropout=0, drop_path=0)
    nets = [
        ready(make_network("video_swin_tiny", 4, swin, 0), replace(swin, recompute=on), ALONE, torch.device("cpu"))
        for on in (True, False)
    ]
    twice = [part for part in nets[0].modules() if isinstance(part, Recomputable) and "forward" in vars(part)]
    assert len(twice) == 6
    clip = torch.randn(1, 3, 8, 64, 64)
    for net in nets:
        net(clip).sum().backward()
    assert torch.allclose(nets[0].patch_embed.project.weight.grad, nets[1].patch_embed.project.weight.grad, atol=1e-5)


class OneNorm(nn.Module):
    """A batch norm, and what cannot be left out of a network."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm3d(3, momentum=0.3), nn.Linear(3, 2)

    def forward(self, clips):
        return self.head(self.norm(clips).mean((2, 3, 4)))


@pytest.mark.parametrize("ema", [False, True])
def test_statistics_taken_anew_are_those_of_the_batches_and_training_keeps_its_own(ema):
    torch.manual_seed(0)
    batches = [(torch.randn(5, 3, 2, 4, 4) * (1 + k) + k, torch.zeros(5)) for k in range(5)]
    net = OneNorm().train()
    net.norm(batches[4][0])  # statistics of training, which come from elsewhere
    mean = moving_mean(net, 0.9) if ema else None
    learns = net if mean is None else mean.module
    before = {name: value.clone() for name, value in learns.state_dict().items()}
    with fitting._tested(net, mean, lambda step: (pair for pair in batches[step:]), 3, ALONE) as tested:
        assert tested is learns
        three = torch.stack([clips.movedim(1, 0).flatten(1) for clips, _ in batches[:3]])  # batch channel value
        assert torch.allclose(tested.norm.running_mean, three.mean(2).mean(0), atol=1e-6)
        assert torch.allclose(tested.norm.running_var, three.var(2, unbiased=True).mean(0), rtol=1e-5)
        assert tested.norm.momentum == 0.3
    assert all(torch.equal(value, before[name]) for name, value in learns.state_dict().items())
    with fitting._tested(net, mean, lambda step: iter(()), 0, ALONE) as tested:
        assert all(torch.equal(value, before[name]) for name, value in tested.state_dict().items()), "0: as trained"

    def broken_off(step):
        yield batches[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), fitting._tested(net, mean, broken_off, 3, ALONE):
        pass
    assert all(torch.equal(value, before[name]) for name, value in learns.state_dict().items())
    assert learns.norm.momentum == 0.3


# ------------------------------------------------------------------------------------------------ runs


@pytest.fixture(scope="session")
def whole_run(kinetics_folder, tmp_path_factory):
    """The data, and a run that nothing stopped."""
    return kinetics_folder, fit(plan(kinetics_folder, tmp_path_factory.mktemp("runs") / "whole"))


def test_a_run_stopped_by_sigterm_goes_on_as_if_never_stopped_and_is_tested(whole_run, tmp_path, monkeypatch, capsys):
    (kinetics_folder, whole), stopped = whole_run, tmp_path / "stopped"
    count = len(losses(whole))
    assert count == 4

    first = fitting.Metrics.step

    def killed(self, step):
        first(self, step)
        if step.number == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(fitting.Metrics, "step", killed)
    fit(plan(kinetics_folder, stopped))
    assert "stopped after step 2 of 4, saved" in capsys.readouterr().out
    assert load(stopped / LAST).step == 2
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "loss": 9.0}\n{"step": 3, "lo')  # lines of a process that died before it saved them
    monkeypatch.undo()
    fit(plan(kinetics_folder, stopped))
    assert losses(stopped) == losses(whole)
    assert [line["step"] for line in read(stopped) if "loss" in line] == [0, 1, 2, 3]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    about = json.loads((stopped / "run.json").read_text())
    assert about["recipe"]["batch"] == 8 and about["now"]["machine"]["commit"] and about["seed"] == 0
    assert "repeats this run" in (stopped / "README.md").read_text()

    ran = CliRunner().invoke(app, ["watch", str(stopped), "--once"])
    assert ran.exit_code == 0 and "video_swin_tiny on K, 4 steps" in ran.output and "top-1" in ran.output
    ran = CliRunner().invoke(app, ["evaluate", str(stopped), "--views", "4x3", "--workers", "0"])
    assert ran.exit_code == 0, ran.output
    scores = json.loads((stopped / "best-4x3" / "scores.json").read_text())
    table = (stopped / "best-4x3" / "confusion.csv").read_text().splitlines()
    counts = np.array([[int(cell) for cell in row.rsplit(",", 10)[1:]] for row in table[1:]])
    assert counts.sum() == scores["clips"] == 10 and np.trace(counts) / 10 == pytest.approx(scores["top1"])
    assert (stopped / "best-4x3" / "confusion.png").stat().st_size > 5000

    with pytest.raises(ValueError, match=r"holds another run:\n.*seed: 0 there, 1 now"):
        fit(replace(plan(kinetics_folder, stopped), seed=1))


def test_a_disk_that_is_full_and_a_loss_that_is_no_number_leave_the_last_whole_checkpoint(
    kinetics_folder, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    told = replace(plan(kinetics_folder, out), save_every=1, stop_after=1)
    fit(told)
    held = (out / LAST).read_bytes()

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("course_lib.training.checkpoint.atomic_write", full)
    arguments = ["train", "video_swin_tiny", "--data", "K", "--root", str(kinetics_folder), "--out", str(out)]
    arguments += ["--subset", "mini10", "--recipe", "short", "--workers", "0", "--save-every", "1"]
    arguments += [word for change in told.changes.items() for word in ("--set", "=".join(change))]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 1 and "No space left on device" in ran.output and "keeps the last whole" in ran.output
    assert (out / LAST).read_bytes() == held
    monkeypatch.undo()
    monkeypatch.setattr("course_lib.training.mixing.Mixed.loss", lambda self, logits, _: logits.sum() * float("nan"))
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 1 and "step 1: loss nan" in ran.output and "lower peak_lr" in ran.output
    assert (out / LAST).read_bytes() == held


def test_a_released_file_is_tested_with_the_views_of_its_paper(tmp_path):
    rows = ["path,label,name,split"]
    for label in range(8):
        (tmp_path / f"{label}.mp4").write_bytes(encode(appearance(label, "val", 0)))
        rows.append(f"{label}.mp4,{label},kind {label},val")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    torch.manual_seed(1)
    net = build("timesformer_tiny").eval()
    chosen = recipe("timesformer_tiny")
    clips = clips_to_test(read_source(str(tmp_path / "manifest.csv"), test_only=True), chosen, 8, 64, 1, 3)
    views = [ToNetwork(chosen.colours)(clips[i][0]) for i in range(8)]
    nn.init.normal_(net.head.weight)
    with torch.inference_mode():
        common = torch.stack([net(view) for view in views]).mean((0, 1))
    net.head.bias.data -= common.clone()  # what all clips share tells none of them apart
    torch.save({"model_state": by_its_released_names(net)}, tmp_path / "released.pyth")
    command = ["evaluate", str(tmp_path / "released.pyth"), "--network", "timesformer_tiny", "--workers", "0"]
    ran = CliRunner().invoke(app, [*command, "--source", "timesformer", "--data", str(tmp_path / "manifest.csv")])
    assert ran.exit_code == 0 and "1x3 views" in ran.output, ran.output

    with torch.inference_mode():
        taken = [int(net(view).mean(0).argmax()) for view in views]  # logits, as released
    lines = (tmp_path / "released-1x3" / "confusion.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1:].index("1") for line in lines] == taken and len(set(taken)) > 1
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 1 and "say --network, --source" in ran.output
    ran = CliRunner().invoke(app, [*command, "--source", "timesformer", "--data", "D"])
    assert ran.exit_code == 1 and "--data D: " in ran.output and "use one of them" in ran.output


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["video_swin_tini"], "Did you mean video_swin_tiny"),
        (["video_swin_tiny", "--recipe", "long"], "no recipe 'long': use paper or short"),
        (["video_swin_tiny", "--set", "batch"], "--set batch: give key=value"),
        (["video_swin_tiny", "--set", "batch=4000"], "batch=4000 of 40 clips"),
        (["video_swin_tiny", "--subset", "mini11"], "--subset mini11: use all, mini10"),
        (["video_swin_tiny", "--start", "nowhere.pth", "--source", "timm"], "nowhere.pth: no such file"),
        (["video_swin_tiny", "--start", __file__, "--source", "tim"], "--source tim: say whose names"),
        (["video_swin_tiny", "--root", "nowhere"], "--root nowhere: no such folder"),
        (["video_swin_tiny", "--data", "Q", "--subset", "all"], "--data Q: use K, S, one of A"),
        (["video_swin_tiny", "--set", "shard=yes"], "there is one: start it by torchrun"),
    ],
)
def test_what_cannot_be_trained_ends_in_a_sentence_with_the_way_out(changed, said, kinetics_folder, tmp_path):
    told = {"--data": "K", "--root": str(kinetics_folder), "--subset": "mini10", "--recipe": "short"}
    told |= dict(zip(changed[1::2], changed[2::2], strict=True))
    arguments = [changed[0], "--out", str(tmp_path / "run"), "--set", "batch=8"]
    arguments += [word for pair in told.items() for word in pair]
    ran = CliRunner().invoke(app, ["train", *arguments])
    assert ran.exit_code == 1 and said in " ".join(ran.output.split()), ran.output
    assert "Traceback" not in ran.output and not (tmp_path / "run" / LAST).exists()


def test_a_run_killed_before_its_first_checkpoint_starts_from_its_file_again(kinetics_folder, tmp_path, monkeypatch):
    filled = []
    started = Start("start: from a file", {})
    monkeypatch.setattr(fitting, "start_from", lambda *of: filled.append(of[1:3]) or started)
    wanted = plan(kinetics_folder, tmp_path / "run", start="vit.pth", source="timm", stop_after=1)
    fit(wanted)
    (tmp_path / "run" / LAST).unlink()  # as a kill in the first steps leaves it
    fit(wanted)
    assert filled == [("vit.pth", "timm")] * 2
    fit(wanted)
    assert len(filled) == 2, "what has learned keeps what it learned"


# ------------------------------------------------------------------------------------------------ starts


TEN = tuple("abcdefghij")


@pytest.fixture(scope="session")
def held(tmp_path_factory):
    """A checkpoint of a network of ten classes that keeps a moving mean, such as a run writes, and that network."""
    path = tmp_path_factory.mktemp("held") / "last.safetensors"
    torch.manual_seed(5)
    net = build("timesformer_tiny", classes=10, drop_path=0.2)
    mean = moving_mean(net, 0.9)
    torch.manual_seed(6)
    for parameter in mean.module.parameters():
        nn.init.normal_(parameter)
    told = settings(net, recipe("timesformer_tiny").config(10))
    save(path, Checkpoint(7, told, net.state_dict(), mean=mean.state_dict()))
    (path.parent / "run.json").write_text(json.dumps({"network": "timesformer_tiny", "classes": TEN, "data": "K"}))
    return path, mean.module


@pytest.mark.parametrize(("classes", "kept"), [(TEN, True), (TEN[::-1], False), (TEN[:8], False)])
def test_a_start_from_our_own_has_the_weights_it_was_tested_with_and_a_new_head_for_other_classes(classes, kept, held):
    path, theirs = held
    net = build("timesformer_tiny", classes=len(classes))
    head = net.head.weight.clone()
    started = start_from(net, str(path.parent), None, classes)
    for name, x in net.state_dict().items():
        assert name.startswith("head.") or torch.equal(x, theirs.state_dict()[name]), name
    assert torch.equal(net.head.weight, theirs.head.weight if kept else head)
    assert ("fresh: none" if kept else "fresh: head.weight, head.bias") in started.line
    assert started.origin["step"] == 7 and started.origin["data"] == "K"
    assert started.origin["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_start_from_our_own_resizes_what_lies_on_a_grid(held):
    path, theirs = held
    net = build("timesformer_tiny", frames=16, size=96, classes=10)
    started = start_from(net, str(path), None, TEN)
    assert torch.equal(net.time_embed.weight, theirs.time_embed.weight.repeat_interleave(2, 0))
    square = theirs.pos_embed.weight.movedim(2, 0)[None]
    wanted = F.interpolate(square, size=(6, 6), mode="nearest")[0].movedim(0, 2)
    assert torch.equal(net.pos_embed.weight, wanted) and torch.equal(net.head.weight, theirs.head.weight)
    assert "resized: pos_embed.weight 4x4x64 -> 6x6x64" in started.line and len(started.origin["resized"]) == 2


@pytest.mark.parametrize(
    ("network", "changes", "source", "said"),
    [
        ("vivit_tiny", {}, None, "holds a TimeSformer, this is a ViViT"),
        ("timesformer_tiny", {"attention": "joint"}, None, "attention='divided' there, 'joint' here"),
        ("timesformer_tiny", {"dim": 32}, None, "dim=64 there, 32 here"),
        ("timesformer_tiny", {}, "timm", "is a checkpoint of this library, so leave --source out"),
    ],
)
def test_a_start_from_another_network_is_refused(network, changes, source, said, held):
    net = build(network, **changes)
    before = {name: x.clone() for name, x in net.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(said)):
        start_from(net, str(held[0]), source, TEN)
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())


def test_a_start_that_nobody_can_read_says_what_is_missing(held, tmp_path):
    net = build("timesformer_tiny")
    saved = load(held[0])
    del saved.weights["norm.weight"]
    save(tmp_path / "lacks.safetensors", replace(saved, mean={}))
    save(tmp_path / "bare.safetensors", replace(saved, settings={}))
    (tmp_path / "cut.safetensors").write_bytes(held[0].read_bytes()[:-9])
    for name, said in (
        (".", "a folder without run.json"),
        ("lacks.safetensors", "1 of its weights are not those of the TimeSformer that it describes, norm.weight first"),
        ("bare.safetensors", "does not tell its network"),
        ("cut.safetensors", "--source None: say whose names"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            start_from(net, str(tmp_path / name), None, TEN)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="train until the first checkpoint is there"):
        start_from(net, str(tmp_path), None, TEN)


def test_a_run_started_from_another_begins_where_that_one_was_best_and_says_so(whole_run, tmp_path, capsys):
    folder, first = whole_run
    out = tmp_path / "second"
    started = plan(folder, out, start=str(first))
    started = replace(started, changes=started.changes | {"lr": "1e-30", "first_lr": "0"})
    fit(replace(started, stop_after=1))
    ours, theirs = load(out / LAST).weights, load(first / BEST).weights
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)
    assert f"start: {first / BEST}, {len(theirs)} tensors; fresh: none" in capsys.readouterr().out
    about = json.loads((out / "run.json").read_text())
    assert about["start"] == first.name and about["started_from"]["step"] == load(first / BEST).step
    assert about["started_from"]["network"] == "video_swin_tiny" and about["started_from"]["fresh"] == []
    away = first.rename(first.with_name("elsewhere"))  # a run that goes on does not need it any more
    try:
        fit(started)
    finally:
        away.rename(first)
    assert json.loads((out / "run.json").read_text())["started_from"] == about["started_from"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "--set at_once=4"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "use fewer --workers"),
        (PeerLost("another process of this training ended"), "another process"),
        (OSError(28, "No space left on device", "last.safetensors"), "make room"),
    ],
)
def test_what_a_machine_lacks_ends_in_a_sentence_and_a_fault_of_ours_does_not(error, said, capsys):
    with pytest.raises(Exit), in_sentences("; it is kept"):
        raise error
    told = capsys.readouterr().err
    assert said in told and "; it is kept" in told
    with pytest.raises(RuntimeError, match="sizes differ"), in_sentences():
        raise RuntimeError("sizes differ")


def test_a_folder_that_holds_something_else_is_not_written_to(kinetics_folder, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        fit(plan(kinetics_folder, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


SMALLEST = {  # what makes two steps of a full network short
    "I3D": dict(frames=16, size=64),
    "NonLocalNet": dict(size=64),
    "R2Plus1D": dict(size=32),
    "SlowFast": dict(frames=16, size=64),
    "VTN": dict(frames=2, size=32),
    "TimeSformer": dict(frames=2, size=32),
    "ViViT": dict(frames=4, size=32),
    "VidTr": dict(size=32),
    "CVidTr": dict(size=32),
    "MViT": dict(frames=4, size=64),
    "VideoSwin": dict(frames=4, size=64),
}
FULL = {
    "i3d": "i3d_inception", "nonlocal": "i3d_nl_r50_8x8", "r2plus1d": "r2plus1d_18", "slowfast": "slowfast_r50_8x8",
    "slowfast+ssv2": "slowfast_r50_8x8", "vtn": "vtn_vit_b", "timesformer": "timesformer_b_8x224",
    "vivit": "vivit_b_16x2_model1", "vivit_b_16x2_model2": "vivit_b_16x2_model2", "vidtr": "vidtr_s_8x224",
    "cvidtr": "cvidtr_s_8x224", "timesformer_hr": "timesformer_hr_16x448",
    "mvit": "mvit_b_16x4", "mvitv2+ssv2": "mvitv2_s_16x4", "video_swin": "video_swin_t_32x224",
    "video_swin_b": "video_swin_b_32x224", "video_swin+ssv2": "video_swin_b_ssv2_32x224",
}  # fmt: skip


def test_a_curve_in_signs_falls_where_the_loss_falls():
    lines = chart(np.linspace(3, 1, 400).tolist(), width=20, height=5).splitlines()
    drawn = [[x for x, sign in enumerate(line[9:]) if sign != chr(0x2800)] for line in lines]
    assert len(lines) == 5 and lines[0].strip().startswith("2.9") and lines[-1].strip().startswith("1.0")
    assert (
        all(above[-1] <= below[0] + 1 for above, below in pairwise(drawn)) and drawn[0][0] == 0 and drawn[-1][-1] == 19
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_its_full_network_and_trains_every_part_of_it(name):
    network, data = FULL[name], "S" if name.endswith("+ssv2") else "K"
    chosen = recipe(network, data)
    assert chosen.source == RECIPES[name].source
    kind, config = NETWORKS[network]
    torch.manual_seed(0)
    small = replace(
        config, classes=5, **SMALLEST[kind.__name__], **network_changes(network, replace(chosen, dropout=None))
    )
    net = ready(kind(small), replace(chosen, sync_bn=False), ALONE, torch.device("cpu"))
    clips = torch.randn(2, 3, small.frames, small.size, small.size), torch.tensor([0, 4])
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    told = replace(chosen.config(1000), steps=2, warmup=0, milestones=(), first_lr=0.0)
    records = list(train(net, lambda step: iter([clips] * 9), told))
    assert len(records) == 2 and all(np.isfinite(step.loss) for step in records)
    still = [n for n, p in net.named_parameters() if torch.equal(p, before[n]) and p.grad is None]
    assert not still, "DistributedDataParallel waits for the gradient of every parameter"


def test_every_paper_has_a_recipe_and_every_recipe_a_full_network():
    assert set(PAPERS.values()) <= set(RECIPES) and set(FULL) == set(RECIPES)
    assert in_full(RecipeConfig()) == RecipeConfig()
