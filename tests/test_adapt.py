"""From a released checkpoint to a task of one's own: what fits is copied, what can be is resized, the rest is fresh."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from reference import recipe
from test_images import DIM, plain_vit, timm_vit
from torch import Tensor, nn

from course_lib.grid import Grid
from course_lib.models import build
from course_lib.official import load
from course_lib.official.adapt import fit
from course_lib.official.images import start_from_images

RECORDS = Path(__file__).parent / "reference"
RELEASED = [  # record, network, changes, source: one of every kind of position embedding and head
    ("timesformer_divided_8x224", "timesformer_b_8x224", {}, "timesformer"),
    ("hf_vivit_b_16x2", "vivit_b_16x2_model1", {}, "huggingface"),
    ("scenic_vivit_model2_fe_b_16x2", "vivit_b_16x2_model2", {}, "scenic"),
    ("vidtr_s_8x224", "vidtr_s_8x224", {}, "gluonmm"),
    ("cvidtr_s_8x224", "cvidtr_s_8x224", {}, "gluonmm"),
    ("pyslowfast_mvit_b_small_8x112", "mvit_b_16x4", {"frames": 8, "size": 112}, "pyslowfast"),
    ("pyslowfast_mvitv2_s_16x4", "mvitv2_s_16x4", {}, "pyslowfast"),
    ("videoswin_t_small_16x112", "video_swin_t_32x224", {}, "videoswin"),
    ("vtn_vit_b", "vtn_vit_b", {}, "vtn"),
    ("SLOWFAST_8x8_R50", "slowfast_r50_8x8", {}, "pyslowfast"),
    ("r2plus1d_18", "r2plus1d_18", {}, "torchvision"),
    ("i3d_inception", "i3d_inception", {}, "piergiaj"),
    ("i3d_inception_hassony", "i3d_inception", {}, "hassony2"),
    ("ptv_slow_r50", "slow_r50_8x8", {}, "pytorchvideo"),
    ("pytorchvideo_mvit_base_16x4", "mvit_b_16x4", {}, "pytorchvideo"),
]
each_release = pytest.mark.parametrize(("record", "name", "changes", "source"), RELEASED, ids=[r[0] for r in RELEASED])


def released(record: str) -> dict[str, Tensor]:
    return recipe.state_dict(recipe.record(RECORDS / f"{record}.json"))


def is_head(name: str) -> bool:
    return name.startswith("head.")


@each_release
def test_at_the_checkpoints_own_size_adaptation_changes_nothing(record, name, changes, source):
    state = released(record)
    strict, adapted = build(name, **changes), build(name, **changes)
    load(strict, state, source)
    report = load(adapted, state, source, adapt=True)
    theirs = strict.state_dict()
    assert all(tensor.equal(theirs[key]) for key, tensor in adapted.state_dict().items() if tensor.is_floating_point())
    assert not report.resized and not report.fresh and not report.left_over


@each_release
def test_other_classes_get_a_fresh_head_and_everything_else_is_copied(record, name, changes, source):
    state = released(record)
    strict, adapted = build(name, **changes), build(name, **changes, classes=7)
    load(strict, state, source)
    theirs, before = strict.state_dict(), {key: x.clone() for key, x in adapted.state_dict().items() if is_head(key)}
    report = load(adapted, state, source, adapt=True)
    for key, tensor in adapted.state_dict().items():
        if tensor.is_floating_point():
            assert tensor.equal(before[key] if is_head(key) else theirs[key]), key
    assert set(report.fresh) == set(before) and not report.resized and len(report.left_over) == len(before)
    headless = {key: x for key, x in state.items() if key not in report.left_over}
    again = load(build(name, **changes, classes=7), headless, source, adapt=True)
    assert again.fresh == report.fresh and not again.left_over
    with pytest.raises(ValueError, match="or load with adapt=True"):
        load(build(name, **changes, classes=7), state, source)


TABLES = [  # network, changes, source, record, what is resized
    ("timesformer_b_8x224", {"frames": 16}, 0, "time_embed.weight 8x768 -> 16x768, nearest in time"),
    ("timesformer_b_8x224", {"size": 256}, 0, "pos_embed.weight 14x14x768 -> 16x16x768, nearest in space"),
    ("timesformer_b_8x224", {"size": (112, 448)}, 0, "pos_embed.weight 14x14x768 -> 7x28x768, nearest in space"),
    ("vivit_b_16x2_model1", {"frames": 64}, 1, "encoder.pos_embed 16x196x768 -> 32x196x768, linear in time"),
    ("vivit_b_16x2_model1", {"size": 320}, 1, "encoder.pos_embed 16x196x768 -> 16x400x768, bilinear in space"),
    ("vivit_b_16x2_model2", {"frames": 64}, 2, "time_encoder.pos_embed 16x1x768 -> 32x1x768, linear in time"),
    ("vidtr_s_8x224", {"frames": 16, "size": 256}, 3, "bilinear in space and linear in time"),
    ("cvidtr_s_8x224", {"size": 160}, 4, "pos_embed 8x196x768 -> 8x100x768, bilinear in space"),
    ("mvit_b_16x4", {"frames": 16, "size": 224}, 5, "pos_embed.weight 28x28x96 -> 56x56x96, bilinear in space"),
    ("mvitv2_s_16x4", {"frames": 32}, 6, "blocks.0.attention.relative.tables.t 15x96 -> 31x96, linear, as released"),
    ("video_swin_t_32x224", {"window": Grid(16, 7, 7)}, 7, "3x15x169 -> 3x31x169, bicubic in space, linear in time"),
    ("vtn_vit_b", {"size": 256}, 8, "backbone.pos_embed.weight 14x14x768 -> 16x16x768, nearest in space"),
]


@pytest.mark.parametrize(("name", "changes", "which", "said"), TABLES, ids=[f"{t[0]}-{t[1]}" for t in TABLES])
def test_what_lies_on_a_grid_is_resized_and_the_report_says_how(name, changes, which, said):
    record, _, _, source = RELEASED[which]
    net = build(name, **changes)
    report = load(net, released(record), source, adapt=True)
    assert any(said in line for line in report.resized), report.resized
    assert not report.fresh and "resized" in str(report)


def test_a_resized_table_is_torchs_interpolation_of_the_released_one():
    state = released("timesformer_divided_8x224")
    net = build("timesformer_b_8x224", size=320)
    load(net, state, "timesformer", adapt=True)
    square = state["model.pos_embed"][:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    wanted = F.interpolate(square, size=(20, 20), mode="nearest")[0].permute(1, 2, 0)
    assert net.pos_embed.weight.equal(wanted) and net.pos_embed.cls.equal(state["model.pos_embed"][0, 0])


def test_vidtrs_class_tokens_keep_their_own_embeddings():
    state = released("vidtr_s_8x224")
    small, large = build("vidtr_s_8x224"), build("vidtr_s_8x224", frames=16, size=256)
    load(small, state, "gluonmm")
    load(large, state, "gluonmm", adapt=True)
    assert large.pos_embed[0, 0].equal(small.pos_embed[0, 0])
    middle = F.interpolate(small.pos_embed[1:, 0].T[None], size=16, mode="linear", align_corners=False)[0].T
    torch.testing.assert_close(large.pos_embed[1:, 0], middle)
    assert large.row[0].equal(small.row[0]) and large.row.shape == (257, 768) and large.column.shape == (16, 768)


# A still clip shown twice as long: the largest change of a logit, in standard deviations of the logits, that each kind
# may have with these made-up weights. What moves is the time embedding between its frames, or the zeros at the ends.
STILL = [
    ("pyslowfast_mvit_b_small_8x112", "mvit_b_16x4", {"frames": 8, "size": 112}, "pyslowfast", 0.6),
    ("videoswin_t_small_16x112", "video_swin_t_32x224", {"frames": 16, "size": 112}, "videoswin", 0.25),
    ("r2plus1d_18", "r2plus1d_18", {"size": 56}, "torchvision", 0.5),
]


@pytest.mark.parametrize(("record", "name", "changes", "source", "most"), STILL, ids=[s[0] for s in STILL])
def test_twice_as_many_frames_of_a_still_clip_give_close_logits(record, name, changes, source, most):
    state = released(record)
    once = build(name, **changes).eval()
    frames = once.config.frames
    twice = build(name, **{**changes, "frames": 2 * frames}).eval()
    load(once, state, source)
    load(twice, state, source, adapt=True)
    still = recipe.clip((1, 3, 1, once.config.size, once.config.size))
    with torch.inference_mode():
        before = once(still.expand(-1, -1, frames, -1, -1))
        after = twice(still.expand(-1, -1, 2 * frames, -1, -1))
    moved = ((after - before).abs().max() / before.std()).item()
    assert moved < most, f"{record}: {moved:.3f}"


def test_a_checkpoint_of_another_network_is_refused_with_what_is_missing():
    with pytest.raises(ValueError, match=r"(?s)do not fit TimeSformer.*missing: model\.cls_token"):
        load(build("timesformer_tiny"), {"model.cls_tokens": torch.zeros(1)}, "timesformer", adapt=True)


def test_a_rectangle_with_as_many_patches_as_the_square_is_not_filled_unasked():
    """14 x 14 = 7 x 28: the numbers would fit, and every place would get another place's embedding."""
    with pytest.raises(ValueError, match="are of squares, this network is for 112 x 448 pixels: load with adapt=True"):
        load(build("timesformer_b_8x224", size=(112, 448)), released("timesformer_divided_8x224"), "timesformer")


def test_as_many_tokens_on_another_grid_are_not_filled_unasked():
    """16 x 14 x 14 = 64 x 7 x 7."""
    changes, state = {"frames": 128, "size": 112}, released("hf_vivit_b_16x2")
    with pytest.raises(ValueError, match=r"of \(16, 14, 14\) tokens has as many vectors .* \(64, 7, 7\)"):
        load(build("vivit_b_16x2_model1", **changes), state, "huggingface")
    report = load(build("vivit_b_16x2_model1", **changes), state, "huggingface", adapt=True)
    assert report.resized == ("encoder.pos_embed 16x196x768 -> 64x49x768, bilinear in space and linear in time",)


@pytest.mark.parametrize("theirs", [{"frames": 10}, {"size": 160}, {"frames": 5, "size": 336}])
def test_a_checkpoint_of_any_frames_and_size_is_known_by_its_tables(theirs):
    golden = recipe.record(RECORDS / "timesformer_divided_8x224.json")
    side = theirs.get("size", 224) // 16
    lengths = {197: side**2 + 1, 8: theirs.get("frames", 8)}
    keys = [(key, [lengths.get(n, n) if "_embed" in key else n for n in shape]) for key, shape in golden["keys"]]
    state = {key: recipe.tensor(key, shape) for key, shape in keys if "blocks." not in key or ".blocks.0." in key}
    net = build("timesformer_b_8x224", depth=1)
    report = load(net, state, "timesformer", adapt=True)
    assert len(report.resized) == len(theirs) and not report.fresh


def test_a_network_fine_tuned_on_a_rectangle_fills_the_same_network_again():
    """7 x 20 patches make no square, so the table can only be this rectangle's."""
    golden = recipe.record(RECORDS / "timesformer_divided_8x224.json")
    keys = [(key, [7 * 20 + 1 if n == 197 else n for n in shape]) for key, shape in golden["keys"]]
    state = {key: recipe.tensor(key, shape) for key, shape in keys if "blocks." not in key or ".blocks.0." in key}
    for adapt in (False, True):
        net = build("timesformer_b_8x224", depth=1, size=(112, 320))
        report = load(net, state, "timesformer", adapt=adapt)
        assert not report.fresh and not report.resized
        assert net.pos_embed.weight.flatten(0, 1).equal(state["model.pos_embed"][0, 1:])


def test_swin_of_384_pixels_gives_its_tables_of_12_to_windows_of_7():
    """In the published files of 384 pixels windows are 8 x 12 x 12: 15 x 23 x 23 rows a table."""
    golden = recipe.record(RECORDS / "videoswin_t_small_16x112.json")
    tables = {15 * 13 * 13: 15 * 23 * 23, 8 * 7 * 7: 8 * 12 * 12}
    keys = [(key, [tables.get(n, n) if "relative" in key else n for n in shape]) for key, shape in golden["keys"]]
    state = {key: recipe.tensor(key, shape) for key, shape in keys}
    net = build("video_swin_t_32x224")
    report = load(net, state, "videoswin", adapt=True)
    assert len(report.resized) == sum(net.config.depths) and not report.fresh
    assert "3x15x529 -> 3x15x169, bicubic in space, linear in time" in report.resized[0]
    (name,) = [key for key in state if key.endswith("layers.0.blocks.0.attn.relative_position_bias_table")]
    table = rearrange(state[name], "(t h w) head -> t head h w", t=15, h=23)  # each time by itself
    wanted = F.interpolate(table, size=(13, 13), mode="bicubic", align_corners=False)
    (ours,) = [x for key, x in net.state_dict().items() if key.endswith("bias.table")][:1]
    torch.testing.assert_close(ours, rearrange(wanted, "t head h w -> head t (h w)"))


def test_what_cannot_be_adapted_is_refused_with_a_way_out_that_is_not_adapt():
    state = {key: x for key, x in released("r2plus1d_18").items()}
    state.pop("layer1.0.conv1.0.0.weight")
    with pytest.raises(ValueError, match="no frames, size or window that was tried makes them fit"):
        load(build("r2plus1d_18"), state, "torchvision", adapt=True)
    with pytest.raises(ValueError, match="none of its names is torchvision's for it"):
        load(build("r2plus1d_18"), {"x": torch.zeros(1)}, "torchvision", adapt=True)


def test_r2d_whose_first_kernel_swallows_all_frames_says_that_it_cannot_be_resized():
    eight, sixteen = build("r2d_18"), build("r2d_18", frames=16)
    with pytest.raises(ValueError, match=r"conv1\.conv\.weight: .* and no rule to resize it"):
        fit(sixteen, eight, eight.state_dict())


# Image checkpoints


def test_a_vit_for_other_pixels_starts_a_network_with_its_embeddings_resized():
    state = timm_vit(size=96)
    net = build("timesformer_tiny", attention="space", frames=1)
    with pytest.raises(ValueError, match="adapt=True"):
        start_from_images(net, state)
    report = start_from_images(net, state, adapt=True)
    assert report.resized == ("pos_embed 6x6 -> 4x4, bicubic",)
    square = state["pos_embed"][:, 1:].unflatten(1, (6, 6)).permute(0, 3, 1, 2)
    wanted = F.interpolate(square, size=(4, 4), mode="bicubic", align_corners=False, antialias=True)[0]
    torch.testing.assert_close(net.pos_embed.weight, wanted.permute(1, 2, 0))  # as timm resizes it


def test_a_distilled_deit_starts_a_network_without_its_second_token():
    plain = timm_vit()
    cls, rest = plain["pos_embed"].split([1, 16], dim=1)
    extra = {
        "dist_token": torch.ones(1, 1, DIM),
        "head_dist.weight": torch.ones(9, DIM),
        "head_dist.bias": torch.ones(9),
    }
    state = plain | extra | {"pos_embed": torch.cat([cls, torch.full((1, 1, DIM), 9.0), rest], dim=1)}
    net = build("timesformer_tiny", attention="space", frames=1, drop_path=0.0).eval()
    report = start_from_images(net, state, adapt=True)
    assert {"dist_token", "head_dist.weight", "head_dist.bias"} <= set(report.left_over)
    net.head = nn.Identity()
    image = torch.randn(2, 3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(net(image), plain_vit(plain, image[:, :, 0]), rtol=1e-4, atol=1e-4)
