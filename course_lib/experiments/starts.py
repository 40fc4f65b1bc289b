"""Where a network's weights come from before its training, and which of them stay: stills first, then inflation; a fast
path of SlowFast that stays as it is, or is heard through the joins alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from course_lib.experiments.data import Data, load_set
from course_lib.experiments.recipes import Recipe
from course_lib.experiments.runs import Arm, learn
from course_lib.experiments.runs import recipe as of_profile
from course_lib.experiments.trained import keep, recall
from course_lib.layers.inflate import How, load_image_weights
from course_lib.layers.resnet import Bottleneck
from course_lib.models.slowfast import SlowFast
from course_lib.models.video_swin import RelativeBias
from course_lib.profiles import Profile

STILLS = Recipe(100, 32, 1e-3)
STILLS_OF_VIT = Recipe(400, 32, 1e-3)  # a transformer takes longer


def learned_stills(
    net: nn.Module, profile: Profile, seed: int, recipe: Recipe = STILLS, data: Data | None = None
) -> nn.Module:
    """The image network that `net` is inflated from (its `image_start`), trained to name the looks of single frames:
    those of set L's training clips (`data`, if it is loaded). In the cpu profile for as long as `recipe` says."""
    data = data or load_set("L", profile, progress=False)
    clips = cast(Tensor, data.train)  # n T H W 3
    stills = data._replace(
        train=clips.flatten(0, 1)[:, None],  # every frame is a clip of one
        train_labels=data.train_labels.repeat_interleave(clips.shape[1]),
    )
    if profile.name == "cpu":
        profile = replace(profile, **recipe._asdict())
    with torch.random.fork_rng():
        blank: Any = cast(Any, net).image_start().image
        torch.manual_seed(seed)
        image = type(blank)(replace(blank.config, classes=len(data.classes)))
        image.to("cuda" if torch.cuda.is_available() else "cpu")
        name, config = f"stills-{type(image).__name__}", of_profile(profile, seed)
        if profile.replays:
            recall(name, image, stills, config)
        else:
            keep(name, image, stills, config, list(learn(image, stills, profile, seed)))
    return image.cpu().eval()


def inflated(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """Fill `net` from `learned_stills`, but for its head."""
    _fill(net, learned_stills(net, profile, seed))


def central_tubelets(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """Fill ViViT from `learned_stills`, but for its head: the patch kernel at the middle frame of a tubelet, else 0."""
    _fill(net, learned_stills(net, profile, seed, STILLS_OF_VIT), how="centre")


def averaged_tubelets(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """The same with the kernel inflated: at every frame of a tubelet, divided by their number."""
    _fill(net, learned_stills(net, profile, seed, STILLS_OF_VIT), how="average")


def random_tubelets(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """The same, but the kernel stays as it was drawn."""
    _fill(net, learned_stills(net, profile, seed, STILLS_OF_VIT), without=("head.", "patch_embed."))


def _fill(net: nn.Module, image: nn.Module, how: How | None = None, without: tuple[str, ...] = ("head.",)) -> None:
    """Load the weights of `image` but those whose names begin with one of `without`; kernels as `how` or the network's
    own `image_start` says."""
    weights = {name: weight for name, weight in image.state_dict().items() if not name.startswith(without)}
    with torch.random.fork_rng():  # the blank image network draws its weights
        _, entries, usual, part = cast(Any, net).image_start()
    load_image_weights(net, weights, entries, how or usual, part)


def slices(net: nn.Module, data: Data) -> dict[str, float]:
    """The norm of a ViViT's patch kernel at each frame of a tubelet."""
    norms = cast(Any, net).patch_embed.project.weight.detach().transpose(0, 2).flatten(1).norm(dim=1)
    return {f"slice_{i}": round(float(norm), 4) for i, norm in enumerate(norms)}


def fast_as_drawn(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """The weights of the fast path stay as they were drawn; its norms go on measuring what comes through.

    Blocks start as their shortcuts alone, since their last norm starts at zero: here it starts at one.
    """
    fast = _two_paths(net).paths["fast"].requires_grad_(False)
    for block in fast.modules():
        if isinstance(block, Bottleneck):
            nn.init.ones_(block.c.get_parameter("norm.weight"))


def fast_after_d(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """The fast path has learned set D alone, by the same recipe and seed, and stays so."""
    changes = tuple(change for change in arm.changes if change[0] != "paths")
    alone = replace(arm, set_name="D", changes=(*changes, ("paths", ("fast",))), start=None)
    data = alone.data(profile)
    teacher = alone.build(len(data.classes), seed)
    for _ in learn(teacher, data, profile, seed):
        pass
    fast = _two_paths(net).paths["fast"]
    fast.load_state_dict(teacher.get_submodule("paths.fast").state_dict())
    fast.requires_grad_(False).eval()


def slow_answers(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """The head hears the slow path alone: what the fast path knows has to cross at the joins."""
    net = _two_paths(net)
    weight = net.head.weight  # classes, then the slow path's channels and after them the fast path's
    heard = torch.arange(weight.shape[1]) < 32 * net.config.width
    with torch.no_grad():
        weight.mul_(heard)

    def without(gradient: Tensor) -> Tensor:
        return gradient * heard.to(gradient.device)

    weight.register_hook(without)


def _two_paths(net: nn.Module) -> SlowFast:
    """ValueError for a network without a fast path."""
    if not isinstance(net, SlowFast) or "fast" not in net.paths:
        raise ValueError(f"{type(net).__name__} has no fast path here: build a SlowFast with paths=('slow', 'fast')")
    return net


def time_as_strong(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """Video Swin's attention over time starts with weight 1, not 0: there is no image network that it might disturb."""
    for name, weight in net.named_parameters():
        if name.endswith(".time.weight"):
            nn.init.ones_(weight)


def symmetric_in_time(net: nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    """Video Swin's tables give a key k steps later what they give one k steps earlier, and stay so."""

    class Symmetric(nn.Module):
        def forward(self, table: Tensor) -> Tensor:
            return (table + table.flip(1)) / 2

    for part in list(net.modules()):
        if isinstance(part, RelativeBias):
            parametrize.register_parametrization(part, "table", Symmetric())
