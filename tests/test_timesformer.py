"""TimeSformer: what the paper and its released code say of it."""

from __future__ import annotations

import pytest
import torch

from course_lib.analysis.cost import cost
from course_lib.analysis.reach import then
from course_lib.grid import Grid
from course_lib.layers.inflate import load_image_weights
from course_lib.models import build, names
from course_lib.models.timesformer import ATTENTION, VARIANTS

# parameters at Something-Something's 174 classes, as table 1 prints them (millions)
TABLE_1 = {"space": 85.9, "joint": 85.9, "divided": 121.4, "local_global": 121.4, "axial": 156.8}
# multiply-adds of one view: tables 1 and 2 print TFLOPs of 3 views
PUBLISHED_GMACS = {"timesformer_b_8x224": 590 / 3, "timesformer_hr_16x448": 5110 / 3, "timesformer_l_96x224": 7140 / 3}


def on_paper(name: str, **changes):
    with torch.device("meta"):
        return build(name, **changes)


def tiny(**changes):
    torch.manual_seed(0)
    return build("timesformer_tiny", **changes).eval()


def wake(net):
    """Leave the start: random numbers in every parameter that begins at zero."""
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def clip(net, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, *net.config.clip, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("attention", "millions"), TABLE_1.items())
def test_parameters_are_those_of_table_1(attention, millions):
    count = sum(p.numel() for p in on_paper("timesformer_b_8x224", attention=attention, classes=174).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("attention", ATTENTION)
def test_one_block_reaches_the_whole_clip_unless_it_stays_in_its_frame(attention):
    grid = Grid(2, 4, 4)
    reached = torch.eye(grid.size, dtype=torch.bool)
    for scheme in ATTENTION[attention](grid):
        reached = then(reached, scheme.mask(grid))
    assert bool(reached.all()) == (attention != "space")


def test_every_norm_has_vits_epsilon():
    """The golden logits cannot tell it in the last norm: there it moves them by less than their tolerance."""
    norms = [part for part in tiny().modules() if isinstance(part, torch.nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-6}


@pytest.mark.parametrize(("name", "gmacs"), PUBLISHED_GMACS.items())
def test_multiply_adds_are_the_published_ones(name, gmacs):
    net = on_paper(name)
    assert cost(net, (1, 3, *net.config.clip)).macs / 1e9 == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize(("attention", "gmacs"), [("divided", 196), ("joint", 180), ("space", 141)])
def test_at_8x224_divided_costs_more_operations_than_joint(attention, gmacs):
    """The figures of the mmaction2 re-implementation; the paper's words suggest the opposite."""
    net = on_paper("timesformer_b_8x224", attention=attention)
    assert cost(net, (1, 3, *net.config.clip)).macs / 1e9 == pytest.approx(gmacs, abs=0.6)


def test_multiply_adds_include_the_attention_products():
    """One layer by hand: q k v and out, D^2 each; up and down, 4 D^2 each; a pair, D for q k^T and D for weights v."""
    net, dim, n = on_paper("timesformer_b_8x224", attention="joint", depth=1), 768, 1 + 8 * 196
    patches, head = 8 * 196 * dim * 16 * 16 * 3, dim * 400
    assert cost(net, (1, 3, 8, 224, 224)).macs == patches + n * 12 * dim**2 + 2 * n**2 * dim + head


@pytest.mark.parametrize("attention", ATTENTION)
def test_clip_in_logits_out(attention):
    net = tiny(attention=attention)
    assert net(clip(net, 2)).shape == (2, net.config.classes)


@pytest.mark.parametrize("attention", ATTENTION)
def test_every_attention_learns_two_clips_by_heart(attention):
    net = tiny(attention=attention, depth=2, dim=32).train()
    clips, labels = clip(net, 2), torch.tensor([0, 1])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(net(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05, f"loss is still {loss.item():.3f} after 30 steps"


@pytest.mark.parametrize("attention", ATTENTION)
def test_every_parameter_gets_a_gradient(attention):
    net = wake(tiny(attention=attention))
    net(clip(net)).square().sum().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead


@pytest.mark.parametrize("attention", ATTENTION)
def test_evaluation_is_deterministic_and_training_drops_paths(attention):
    net = wake(tiny(attention=attention, drop_path=0.5))
    x = clip(net)
    assert torch.equal(net(x), net(x))
    net.train()
    once = net(x)
    assert not all(torch.equal(net(x), once) for _ in range(8))  # two draws may be alike by chance


def alike(table: torch.Tensor) -> float:
    """Mean correlation of neighbours along the first axis."""
    rows = table.flatten(1)
    return torch.cosine_similarity(rows[1:], rows[:-1]).mean().item()


def test_a_start_from_nothing_is_loud_and_a_smooth_one_has_neighbours_alike_too():
    nets = {scratch: tiny(scratch=scratch) for scratch in (False, True, "smooth")}
    for scratch, places, moments in ((False, 0.02, 0.0), (True, 0.5, 1.0), ("smooth", 1.0, 1.0)):
        net = nets[scratch]
        assert net.pos_embed.weight.std().item() == pytest.approx(places, rel=0.1)
        assert net.time_embed.weight.std().item() == pytest.approx(moments, rel=0.1)
    for scratch, least, most in ((True, -0.2, 0.2), ("smooth", 0.4, 0.9)):
        for table in (nets[scratch].pos_embed.weight, nets[scratch].time_embed.weight):
            assert least < alike(table) < most
    with pytest.raises(ValueError, match="unknown scratch 'smoth': did you mean 'smooth'"):
        tiny(scratch="smoth")


def test_space_only_is_blind_to_the_order_of_frames():
    """F1: a net that treats frames one by one and averages cannot tell a clip from its reverse or any shuffle."""
    net = wake(tiny(attention="space")).double()
    x = clip(net, 2).double()
    for order in (torch.arange(7, -1, -1), torch.randperm(8, generator=torch.Generator().manual_seed(0))):
        torch.testing.assert_close(net(x[:, :, order]), net(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", [name for name in ATTENTION if name != "space"])
def test_all_other_attention_sees_the_order_of_frames(attention):
    net = wake(tiny(attention=attention)).double()
    x = clip(net).double()
    assert (net(x) - net(x.flip(2))).abs().max() > 1e-6  # the blind net is below 1e-12


@pytest.mark.parametrize("attention", ATTENTION)
def test_at_the_start_order_cannot_matter(attention):
    """F4: as released, time code and new projections begin at zero: no scheme can tell a clip from its reverse."""
    net = tiny(attention=attention, scratch=False).double()
    x = clip(net).double()
    torch.testing.assert_close(net(x.flip(2)), net(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("attention", [name for name in ATTENTION if name != "local_global"])
def test_at_the_start_no_shuffle_matters_either(attention):
    """Local + global is the exception: it compares every second frame, so it sees which frames stand at even places."""
    net = tiny(attention=attention, scratch=False).double()
    x = clip(net).double()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x[:, :, order]), net(x), rtol=0, atol=1e-12)


def test_divided_attention_at_the_start_is_the_image_transformer_it_came_from():
    """On a still video, a net inflated from an image net gives the image net's answer."""
    image = tiny(attention="space", frames=1)
    video = tiny(attention="divided", scratch=False)
    report = load_image_weights(video, image.state_dict(), video.image_start().entries)
    assert {name.split(".")[-2] for name in report.fresh} == {"project", "time_embed"}
    still = clip(image)
    torch.testing.assert_close(video(still.expand(-1, -1, 8, -1, -1)), image(still))
    copied = video.blocks[0].first[0].attention.qkv.weight
    assert torch.equal(copied, image.blocks[0].attention.qkv.weight)


def test_released_rule_the_class_token_sits_out_the_time_attention():
    """The paper's eq. 11 lets it in; the released weights were trained without."""
    net = wake(tiny())
    seen = []
    net.blocks[0].first[0].attention.register_forward_hook(lambda part, inputs, output: seen.append(len(inputs)))
    net(clip(net))
    assert seen == [1]


def test_names_are_known_and_unknown_ones_get_near_names():
    assert set(VARIANTS) <= set(names())
    with pytest.raises(ValueError, match=r"unknown network 'timesformer_b_8x244'.*timesformer_b_8x224"):
        build("timesformer_b_8x244")
    with pytest.raises(ValueError, match=r"no setting 'depht': did you mean 'depth'"):
        build("timesformer_tiny", depht=3)
    with pytest.raises(ValueError, match=r"unknown attention 'divide': did you mean 'divided'"):
        build("timesformer_tiny", attention="divide")


def test_a_clip_longer_shorter_or_larger_than_built_for_is_refused():
    net = tiny()
    with pytest.raises(ValueError, match="t=4 tokens, the network was built for t=8"):
        net(torch.zeros(1, 3, 4, 64, 64))
    with pytest.raises(ValueError, match="h=5 tokens, the network was built for h=4"):
        net(torch.zeros(1, 3, 8, 80, 64))
    with pytest.raises(ValueError, match="w=60 is not a multiple of 16"):
        net(torch.zeros(1, 3, 8, 64, 60))
    with pytest.raises(ValueError, match="h=224 is not a multiple of 15"):
        build("timesformer_b_8x224", patch=15)
