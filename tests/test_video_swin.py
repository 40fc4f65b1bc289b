"""Video Swin: what the paper and the released code say of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reference import recipe
from torch import nn

from course_lib.analysis.cost import cost
from course_lib.grid import Grid
from course_lib.layers.attention import record_attention
from course_lib.layers.inflate import load_image_weights
from course_lib.layers.schemes import ShiftedWindows
from course_lib.models import build, names
from course_lib.models.video_swin import (
    ATTENTION,
    VARIANTS,
    PatchMerging,
    RelativeBias,
    TimeAttention,
    VideoSwin,
    WindowAttention,
)
from course_lib.official import load

RECORDS = Path(__file__).parent / "reference"
RUNS = {  # record: network
    "videoswin_t_k400": "video_swin_t_32x224",
    "videoswin_t_small_16x112": "video_swin_t_32x224",
    "videoswin_b_k400": "video_swin_b_32x224",
}
# network, changes, M parameters, G multiply-adds: the paper's table 4, as others quote it, for the changes; else its
# section 4.2 or the released README, whose counter adds the norms
PUBLISHED = [
    ("video_swin_t_32x224", {}, 28.2, 88),
    ("video_swin_t_32x224", {"attention": "split"}, 42.0, 83),
    ("video_swin_t_32x224", {"attention": "factorised"}, 36.5, 95),
    ("video_swin_s_32x224", {}, 49.8, 166),
    ("video_swin_b_32x224", {}, 88.1, 282),
    ("video_swin_b_ssv2_32x224", {}, 88.8, 321),
    ("video_swin_l_32x224", {}, 197.0, 604),
]
TRUE_2D = dict(frames=1, patch=Grid(1, 4, 4), window=Grid(1, 4, 4))
each_attention = pytest.mark.parametrize("attention", ATTENTION)


def on_paper(name: str, **changes) -> VideoSwin:
    with torch.device("meta"):
        return build(name, **changes)


def tiny(**changes) -> VideoSwin:
    """Away from the start: B of the size that training gives it, and no branch that adds nothing."""
    torch.manual_seed(0)
    net = build("video_swin_tiny", **changes).double().eval()
    for part in net.modules():
        if isinstance(part, RelativeBias):
            nn.init.normal_(part.table)
        if isinstance(part, TimeAttention):
            nn.init.ones_(part.weight)
        if isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight)
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.1)
    return net


def clip(*shape: int) -> torch.Tensor:
    return torch.randn(shape or (1, 3, 8, 64, 64), generator=torch.Generator().manual_seed(3)).double()


def test_the_integer_buffers_of_a_released_checkpoint_are_left_over():
    net, golden = on_paper("video_swin_t_32x224"), recipe.record(RECORDS / "torchvision_swin3d_t.json")
    state = {name: torch.empty(shape, device="meta") for name, shape in golden["keys"]}
    state |= {name: torch.zeros(shape, dtype=torch.long) for name, shape in golden["integer_buffers"]}
    assert load(net, state, "torchvision").left_over == tuple(name for name, _ in golden["integer_buffers"])


@pytest.mark.parametrize(("record", "name"), RUNS.items())
def test_every_stage_has_the_grid_window_and_shift_of_the_released_run(record, name):
    rows = recipe.record(RECORDS / f"{record}.json")["config"]["stages"]
    net = on_paper(name)
    found: dict[str, list[tuple[int, ...]]] = {}
    for name, part in net.named_modules():
        if isinstance(part, WindowAttention):
            part.register_forward_hook(
                lambda part, inputs, output, name=name: found.update({name: [inputs[0].shape[1:4], part.scheme]})
            )
    frames, size = rows[0]["grid"][0] * 2, rows[0]["grid"][1] * 4
    net(torch.empty(1, 3, frames, size, size, device="meta"))
    for i, row in enumerate(rows):
        blocks = [found[f"stages.stage{i + 1}.{j}.attention"] for j in range(row["depth"])]
        for j, (grid, scheme) in enumerate(blocks):
            window, shift = scheme.fit(grid)
            assert list(grid) == row["grid"] and list(scheme.padded(grid)) == row["padded_grid"]
            assert list(window) == row["window_used"]
            assert list(shift) == (row["shift_used_in_odd_blocks"] if j % 2 else [0, 0, 0])


@pytest.mark.parametrize(("name", "changes", "millions", "gmacs"), PUBLISHED)
def test_parameters_and_multiply_adds_are_the_published_ones(name, changes, millions, gmacs):
    net = on_paper(name, **changes)
    counted = cost(net, (1, 3, net.config.frames, net.config.size, net.config.size))
    assert counted.parameters / 1e6 == pytest.approx(millions, abs=0.06)
    assert counted.macs / 1e9 == pytest.approx(gmacs, abs=0.8)


def test_the_longer_window_of_ssv2_costs_what_the_released_counter_says():
    net = on_paper("video_swin_b_ssv2_32x224")
    assert cost(net, (1, 3, 32, 224, 224)).macs / 1e9 == pytest.approx(320.356, abs=0.001)
    assert net.stages.stage1[0].attention.bias.table[0].numel() == 31 * 13 * 13


def test_every_norm_has_the_released_epsilon():
    norms = [part for part in tiny(attention="factorised").modules() if isinstance(part, nn.LayerNorm)]
    assert len(norms) == 1 + 3 * 6 + 2 + 1 and {norm.eps for norm in norms} == {1e-5}


def test_the_start_is_the_released_one():
    torch.manual_seed(0)
    net = build("video_swin_t_32x224", depths=(1, 1, 1, 2))
    last = net.stages.stage4[1]
    for weight in (last.attention.qkv.weight, last.mlp.up.weight, last.attention.bias.table):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert net.stages.merge3.reduction.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert net.head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not any(
        p.any() for name, p in net.named_parameters() if name.endswith("bias") and "patch_embed.p" not in name
    )


def test_head_width_is_32_in_every_stage_of_every_released_net():
    for name in VARIANTS:
        net = on_paper(name)
        blocks = [part for part in net.modules() if isinstance(part, WindowAttention)]
        assert {part.qkv.in_features // part.heads for part in blocks} == ({16} if "tiny" in name else {32})


def test_drop_path_grows_from_zero_to_the_released_rate_and_sits_on_every_branch():
    net = on_paper("video_swin_b_32x224")
    rates = [block.drop_path.rate for stage in net.stages if isinstance(stage, nn.Sequential) for block in stage]
    assert rates == pytest.approx([0.3 * i / 23 for i in range(24)])
    net = tiny(drop_path=0.9).train()
    assert not torch.equal(net(clip()), net(clip()))


def test_dropout_acts_in_training_only():
    net = tiny(dropout=0.5)
    assert torch.equal(net(clip()), net(clip()))
    assert not torch.equal(net.train()(clip()), net(clip()))


def test_bias_is_looked_up_by_query_minus_key():
    bias = RelativeBias(1, Grid(2, 1, 3))
    bias.table.data = torch.arange(15.0).view(1, 3, 5)  # row: key one frame later, same frame, one frame earlier
    wanted = [  # tokens: frame 0 columns 0 1 2, then frame 1
        [7, 6, 5, 2, 1, 0],
        [8, 7, 6, 3, 2, 1],
        [9, 8, 7, 4, 3, 2],
        [12, 11, 10, 7, 6, 5],
        [13, 12, 11, 8, 7, 6],
        [14, 13, 12, 9, 8, 7],
    ]
    assert bias(6)[0, 0].tolist() == wanted


def test_a_window_that_shrank_in_time_keeps_its_bias():
    full = RelativeBias(2, Grid(4, 2, 3))
    small = RelativeBias(2, Grid(2, 2, 3))
    small.table.data = full.table.data[:, 2:5]
    assert torch.equal(full(12), small(12))


def test_released_rule_a_window_that_shrank_in_space_reads_the_bias_of_the_first_tokens_of_a_full_one():
    """Two tokens side by side in a window one row of 2 high: read as neighbours, and two below each other likewise."""
    bias = RelativeBias(1, Grid(1, 3, 3))
    assert torch.equal(bias(4), bias(9)[..., :4, :4])
    true = RelativeBias(1, Grid(1, 2, 2))
    true.table.data = bias.table.data.view(1, 1, 5, 5)[..., 1:4, 1:4].reshape(1, 1, 9)
    assert not torch.equal(bias(4), true(4))


def test_merging_takes_the_four_tokens_column_by_column():
    merge = PatchMerging(1).double()
    merge.norm, merge.reduction = nn.Identity(), nn.Identity()
    z = torch.arange(8.0).double().view(1, 1, 2, 4, 1)  # rows 0 1 2 3 and 4 5 6 7
    assert merge(z).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_odd_maps_are_merged_with_zeros_at_the_end():
    merge, z = PatchMerging(4).double(), clip(2, 3, 5, 7, 4)
    padded = torch.zeros(2, 3, 6, 8, 4).double()
    padded[:, :, :5, :7] = z
    assert torch.equal(merge(z), merge(padded)) and merge(z).shape == (2, 3, 3, 4, 8)


@each_attention
@pytest.mark.parametrize("shape", [(1, 3, 7, 62, 61), (2, 3, 3, 34, 95), (1, 3, 1, 5, 5)])
def test_clips_of_any_size_will_do_and_count_as_padded_with_zeros_at_the_end(shape, attention):
    net, x = tiny(attention=attention), clip(*shape)
    t, h, w = (-(-n // size) * size for n, size in zip(shape[2:], net.config.patch, strict=True))
    padded = torch.zeros(*shape[:2], t, h, w).double()
    padded[:, :, : shape[2], : shape[3], : shape[4]] = x
    logits = net(x)
    assert logits.shape == (shape[0], 8) and logits.isfinite().all()
    assert torch.equal(logits, net(padded))


def test_patches_keep_two_frames_together_and_time_is_not_reduced_any_further():
    net, seen = tiny(), []
    net.norm.register_forward_hook(lambda part, inputs, output: seen.append(tuple(output.shape)))
    net(clip())
    assert seen == [(1, 4, 4, 4, 128)]


@each_attention
def test_recording_attention_changes_no_logits(attention):
    net, x = tiny(attention=attention), clip(2, 3, 7, 52, 64)
    with record_attention(net) as weights:
        torch.testing.assert_close(net(x), net.eval()(x))
    assert len(weights) == {"joint": 6, "split": 8, "factorised": 12}[attention] and all(weights.values())


def test_one_graph_for_the_compiler():
    """In a process of its own: here the shape checks sit between the layers."""
    run = subprocess.run([sys.executable, "-c", ONE_GRAPH], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


ONE_GRAPH = """
import torch
from course_lib.models import build
from course_lib.models.video_swin import ATTENTION
for attention in ATTENTION:
    torch.manual_seed(0)
    net = build("video_swin_tiny", attention=attention, depths=(2, 1), heads=(2, 4)).eval()
    clip = torch.randn(1, 3, 7, 52, 64)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(clip), net(clip))
"""


def tables(net: VideoSwin) -> list[nn.Parameter]:
    return [part.table for part in net.modules() if isinstance(part, RelativeBias)]


@each_attention
def test_f8_with_tables_symmetric_in_time_and_patches_of_one_frame_the_net_is_blind_to_reversal(attention):
    """Even windows, moved by half, that tile the clip lie alike from both ends."""
    net, x = tiny(attention=attention, patch=Grid(1, 4, 4)), clip(2, 3, 8, 64, 64)
    assert (net(x) - net(x.flip(2))).abs().max() > 1e-4  # signed displacements tell before from after
    for table in tables(net):
        table.data = (table.data + table.data.flip(1)) / 2
    torch.testing.assert_close(net(x.flip(2)), net(x), rtol=0, atol=1e-12)
    order = torch.tensor([1, 0, 2, 3, 4, 5, 6, 7])
    assert (net(x) - net(x[:, :, order])).abs().max() > 1e-4  # a shuffle it still sees: distances have changed


def test_windows_of_an_odd_number_of_steps_break_f8():
    """Half of three is rounded down: they shift by one step from the front and by two from the back."""
    for steps, frames, sees in ((2, 8, False), (4, 8, False), (8, 8, False), (3, 9, True), (3, 6, True)):
        net, x = tiny(patch=Grid(1, 4, 4), window=Grid(steps, 2, 2)), clip(2, 3, frames, 32, 32)
        for table in tables(net):
            table.data = (table.data + table.data.flip(1)) / 2
        assert ((net(x) - net(x.flip(2))).abs().max() > 1e-4) == sees, steps


def test_the_released_rule_for_windows_that_shrink_in_space_breaks_f8():
    """There a step in time is read as one in space, of which a table symmetric in time knows the sign."""
    x = clip(2, 3, 8, 32, 32)
    for window, sees in ((Grid(2, 2, 2), False), (Grid(2, 4, 4), True)):  # the last stage has 2 x 2 tokens a frame
        net = tiny(patch=Grid(1, 4, 4), window=window)
        for table in tables(net):
            table.data = (table.data + table.data.flip(1)) / 2
        assert ((net(x) - net(x.flip(2))).abs().max() > 1e-4) == sees


def test_patches_of_two_frames_see_reversal_even_with_symmetric_tables():
    net, x = tiny(), clip(2, 3, 8, 64, 64)
    for table in tables(net):
        table.data = (table.data + table.data.flip(1)) / 2
    assert (net(x) - net(x.flip(2))).abs().max() > 1e-4


@pytest.mark.parametrize(("shifted", "moves"), [("thw", True), ("hw", False), ("none", False)])
def test_without_a_shift_in_time_whole_windows_of_frames_may_be_exchanged(shifted, moves):
    net, x = tiny(shifted=shifted), clip(2, 3, 8, 64, 64)
    change = (net(x) - net(x.roll(4, 2))).abs().max()
    assert change > 1e-4 if moves else change < 1e-12
    assert (net(x) - net(x.roll(2, 2))).abs().max() > 1e-4  # halves of two windows


def test_windows_shift_along_the_named_axes_in_every_second_block():
    for shifted, steps in (("thw", (1, 2, 2)), ("hw", (0, 2, 2)), ("none", (0, 0, 0))):
        blocks = [part for part in tiny(shifted=shifted).modules() if isinstance(part, WindowAttention)]
        assert [part.scheme.shift for part in blocks] == [(0, 0, 0), steps] * 3
    with pytest.raises(ValueError, match="shifted"):
        tiny(shifted="t")


def test_with_patches_and_windows_of_one_frame_the_answer_is_the_mean_over_the_frames():
    net, x = tiny(**TRUE_2D), clip(1, 3, 4, 64, 64)
    frames = torch.cat([net(x[:, :, i : i + 1]) for i in range(4)])
    torch.testing.assert_close(net(x)[0], frames.mean(0))


@pytest.mark.parametrize("how", ["average", "centre"])
@pytest.mark.parametrize("attention", ["joint", "factorised"])
def test_inflated_from_an_image_swin_a_still_video_gives_the_image_answer(attention, how):
    image, video = tiny(**TRUE_2D), build("video_swin_tiny", attention=attention).double().eval()
    report = load_image_weights(video, image.state_dict(), video.image_start().entries, how)
    assert not report.left_over and {name.split(".")[3] for name in report.fresh} <= {"time"}
    still = clip(2, 3, 1, 64, 64)
    wanted = image(still)
    assert wanted.std() > 0.1
    for frames in (2, 4, 8):  # of which 2 and 4 shrink the window
        torch.testing.assert_close(video(still.expand(-1, -1, frames, -1, -1)), wanted)


def test_inflation_repeats_the_image_table_for_every_displacement_in_time():
    image, video = tiny(**TRUE_2D), tiny(window=Grid(4, 4, 4))
    load_image_weights(video, image.state_dict(), video.image_start().entries)
    for small, large in zip(tables(image), tables(video), strict=True):
        assert large.shape[1] == 7
        assert all(large[:, t].equal(small[:, 0]) for t in range(7))
    kernel = image.patch_embed.project.weight[:, :, 0]
    assert all(video.patch_embed.project.weight[:, :, t].equal(kernel / 2) for t in range(2))


def test_windows_of_another_size_in_space_get_their_table_resized():
    image, video = tiny(**TRUE_2D), tiny(window=Grid(2, 7, 7))
    ramp = torch.arange(7.0).double()
    for table in tables(image):
        table.data = ramp.expand(7, 7).reshape(1, 1, 49).expand_as(table).clone()
    assert not load_image_weights(video, image.state_dict(), video.image_start().entries).fresh
    x = 4.5 * 7 / 13 - 0.5  # where cell 4 of 13 lies among the old 7: between 1 and 2; cubic convolution, a = -0.75
    near = [1.25 * d**3 - 2.25 * d**2 + 1 for d in (x - 1, 2 - x)]
    far = [-0.75 * (d**3 - 5 * d**2 + 8 * d - 4) for d in (x, 3 - x)]
    wanted = 0 * far[0] + 1 * near[0] + 2 * near[1] + 3 * far[1]
    for table in tables(video):
        rows = table.detach().view(-1, 13)
        torch.testing.assert_close(rows, rows[:1].expand_as(rows))
        assert rows[0, 6].item() == pytest.approx(3)  # the middle stays the middle
        assert rows[0, 4].item() == pytest.approx(wanted)


def test_only_an_image_net_is_inflated():
    config = tiny().image_start().image.config
    assert config.patch == (1, 4, 4) and config.window == (1, 4, 4)


def test_new_time_attention_starts_by_adding_nothing():
    torch.manual_seed(0)
    net = build("video_swin_tiny", attention="factorised").double().eval()
    space = build("video_swin_tiny", window=Grid(1, 4, 4)).double().eval()
    space.load_state_dict({k: v for k, v in net.state_dict().items() if k in space.state_dict()})
    torch.testing.assert_close(net(clip()), space(clip()))


@pytest.mark.parametrize("attention", ["split", "factorised"])
def test_time_attention_of_its_own_sees_all_frames_at_one_place_and_space_attention_one_frame(attention):
    net = on_paper("video_swin_t_32x224", attention=attention)
    schemes = {name: part.scheme for name, part in net.named_modules() if isinstance(part, WindowAttention)}
    time = {name: scheme for name, scheme in schemes.items() if "time" in name}
    assert len(time) == {"split": 2, "factorised": 12}[attention]
    assert set(time.values()) == {ShiftedWindows((16, 1, 1), (0, 0, 0))}
    space = [schemes[name] for name in schemes if name not in time]
    assert set(space) == {ShiftedWindows((1, 7, 7), (0, 0, 0)), ShiftedWindows((1, 7, 7), (0, 3, 3))}


def test_names_are_known_and_settings_that_do_not_fit_are_refused():
    assert set(VARIANTS) <= set(names())
    with pytest.raises(ValueError, match="unknown attention 'factorized': did you mean 'factorised'"):
        build("video_swin_tiny", attention="factorized")
    with pytest.raises(ValueError, match="3 depths and 2 heads: give one of each for every stage"):
        build("video_swin_tiny", heads=(2, 4))
    with pytest.raises(ValueError, match="dim=32 does not split into heads=3"):
        build("video_swin_tiny", heads=(3, 4, 8))
    with pytest.raises(ValueError, match=r"window \(0, 4, 4\) must be 1 or more"):
        build("video_swin_tiny", window=Grid(0, 4, 4))


@pytest.mark.parametrize("attention", ["split", "factorised"])
def test_attention_over_all_frames_takes_no_more_frames_than_it_was_built_for(attention):
    net = tiny(attention=attention)
    assert net(clip(1, 3, 4, 32, 32)).shape == (1, 8)
    with pytest.raises(ValueError, match=r"t=5 tokens.* up to t=4: sample fewer frames, or .* frames=10"):
        net(clip(1, 3, 10, 32, 32))


@pytest.mark.parametrize("source", ["videoswin", "torchvision"])
def test_what_was_never_released_has_no_format(source):
    with pytest.raises(ValueError, match="no checkpoint with attention='split' was released"):
        load(build("video_swin_tiny", attention="split"), {}, source)


def test_the_format_is_for_this_network_alone():
    with pytest.raises(ValueError, match="no videoswin format is known for this SlowFast"):
        load(build("slowfast_tiny"), {}, "videoswin")
