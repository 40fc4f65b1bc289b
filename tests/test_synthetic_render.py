"""What the generated clips show: motions true to their names, no direction in a single frame, exact flow and masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.synthetic import motion
from course_lib.synthetic.appearance import CLOTH, FRONT, INSIDE, REACH, WHEEL, paint
from course_lib.synthetic.difficulty import EASY, FULL, Difficulty
from course_lib.synthetic.motion import EVENT, breadth, track
from course_lib.synthetic.render import CLASSES, KINDS, LAWS, PARTNER, SPLITS, Scene, draw, flow, masks, render, scene
from course_lib.synthetic.scene import Actor, place

M, X, V = ({name: label for label, name in enumerate(CLASSES[set])} for set in "MXV")


def differs(frames: np.ndarray, shown: Scene) -> np.ndarray:
    """Where a picture is not the backdrop."""
    return np.abs(frames - 255 * shown.backdrop).max(axis=-1) > 2


def middle(seen: np.ndarray) -> tuple[float, float]:
    y, x = np.nonzero(seen)
    return x.mean(), y.mean()


# Names


def whole_steps(name: str, seed: int) -> np.ndarray:
    """Steps of an object's middle between frames in which all of it is in view, in pixels."""
    shown = scene("M", M[name], seed, frames=24, size=64)
    inner = np.pad(np.ones((60, 60), bool), 2)
    at = [middle(seen) if seen.any() and not (seen & ~inner).any() else (np.nan,) * 2 for seen in masks(shown) > 0]
    steps = np.diff(at, axis=0)
    return steps[~np.isnan(steps[:, 0])]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("name", "axis", "sign"), [("push right", 0, 1), ("push left", 0, -1), ("lower", 1, 1), ("lift", 1, -1)]
)
def test_what_is_pushed_lowered_or_lifted_goes_there_at_every_step(name, axis, sign, seed):
    steps = whole_steps(name, seed)
    assert len(steps) > 1 and (sign * steps[:, axis] > 0.3).all()
    assert np.abs(steps[:, 1 - axis].mean()) < 1


@pytest.mark.parametrize("seed", range(4))
def test_a_bar_turns_clockwise_or_counter_clockwise_as_named(seed):
    for name, sign in (("turn clockwise", 1), ("turn counter-clockwise", -1)):
        angles = []
        for seen in masks(scene("X", X[name], seed, frames=12, size=96, look=6)) > 0:
            y, x = np.nonzero(seen)
            (xx, xy), (_, yy) = np.cov(x, y)
            angles.append(math.atan2(2 * xy, xx - yy) / 2)  # of the long axis; y grows downwards
        turned = np.unwrap(angles, period=math.pi)
        assert (sign * np.diff(turned) > 0).all() and 1.7 < abs(turned[-1] - turned[0]) < 2.85


@pytest.mark.parametrize("seed", range(6))
def test_the_other_objects_do_what_the_name_of_the_class_says(seed):
    def ends(name: str, measure: Callable[[np.ndarray], float]) -> tuple[float, float]:
        first, last = masks(scene("M", M[name], seed, frames=8, size=64))[[0, -1]]
        return measure(first), measure(last)

    def spread(mask: np.ndarray) -> float:
        return sum(part.var() for part in np.nonzero(mask))

    near = ends("approach", lambda mask: (mask > 0).sum())
    assert near[1] > 3 * near[0] and ends("recede", lambda mask: (mask > 0).sum()) == near[::-1]
    apart = ends("meet", spread)
    assert apart[0] > apart[1] + 100 and ends("part", spread) == apart[::-1]
    outside = ends("put in", lambda mask: (mask == 2).sum())  # what goes into the box
    assert outside[0] > 40 and outside[1] == 0 and ends("take out", lambda mask: (mask == 2).sum()) == outside[::-1]
    width = ends("unfold", lambda mask: np.nonzero(mask)[1].std())
    assert width[1] > 1.4 * width[0] and ends("fold", lambda mask: np.nonzero(mask)[1].std()) == width[::-1]


def test_a_cloth_hides_whatever_it_covers_wholly():
    kinds = set()
    for seed in range(30):
        shown = scene("M", M["cover"], seed, frames=8, size=64)
        first, *_, last = (masks(shown) == 1).sum(axis=(1, 2))  # of the object below
        kinds.add(shown.actors[0].kind.name)
        assert first > 60 and last == 0
        np.testing.assert_array_equal(masks(scene("M", M["uncover"], seed, frames=8, size=64)), masks(shown)[::-1])
    assert kinds == {kind.name for kind in KINDS}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.forwards)
def test_a_law_depends_on_progress_and_choices_alone(law):
    u = np.linspace(0, 1, 9)
    for choices in np.random.default_rng(0).random((20, 8)):
        for there, back in zip(law.tracks(u, choices), law.tracks(u[::-1], choices), strict=True):
            for forwards, backwards in zip(there[:5], back[:5], strict=True):
                np.testing.assert_allclose(forwards, backwards[::-1], rtol=1e-12)


def test_time_never_runs_backwards_inside_a_clip_and_speeds_are_as_likely_as_their_mirror_images():
    t, rng = np.linspace(0, 1, 101), np.random.default_rng(0)
    paths = np.stack([motion.ease(t, rng) for _ in range(2000)])
    assert (np.diff(paths) > 0).all() and np.allclose(paths[:, [0, -1]], [0, 1])
    mirrored = 1 - paths[:, ::-1]
    for share in (0.1, 0.5, 0.9):
        quantiles = [np.quantile(some, share, axis=0) for some in (paths, mirrored)]
        np.testing.assert_allclose(*quantiles, atol=0.02)


# Reversal


@pytest.mark.parametrize("set", ["M", "X", "G", "D"])
def test_partners_are_each_others_reverse_in_picture_and_masks_bit_for_bit(set):
    for label in range(0, len(CLASSES[set]), 2):
        one, other = (scene(set, c, (7, label), size=32) for c in (label, PARTNER[set][label]))
        np.testing.assert_array_equal(draw(one), draw(other)[::-1])
        np.testing.assert_array_equal(masks(one), masks(other)[::-1])
        assert not np.array_equal(draw(one), draw(other))


def first_frames(label: int, seeds: Iterable[int], known: bool, difficulty: Difficulty) -> np.ndarray:
    """One small grey picture a clip: its first frame, or if that is not `known`, any of its frames."""
    found = []
    for seed in seeds:
        number = 0 if known else seed // 2 % 4  # (even seeds train, odd ones test)
        frame = render("M", label, seed, frames=2 if known else 4, size=32, difficulty=difficulty)[number]
        found.append(frame.max(axis=-1).reshape(16, 2, 16, 2).mean(axis=(1, 3)) / 255)
    return np.stack(found)


def tells(law: int, known: bool, clips: int = 800, difficulty: Difficulty = FULL) -> float:
    """How often a small network, trained on single frames, tells forwards from backwards in others (no pairs)."""
    torch.manual_seed(0)
    seeds = np.arange(2 * clips).reshape(2, clips)
    frames = np.concatenate([first_frames(2 * law + side, seeds[side].tolist(), known, difficulty) for side in (0, 1)])
    x = torch.tensor((frames - frames.mean()) / frames.std(), dtype=torch.float32).flatten(1)
    direction = torch.arange(2).repeat_interleave(clips)
    train = torch.arange(2 * clips) % 2 == 0
    net = nn.Sequential(nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 2))
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(x[train]), direction[train])
        optimiser.zero_grad(), loss.backward(), optimiser.step()
    return (net(x[~train]).argmax(1) == direction[~train]).double().mean().item()


CHANCE = 4 * math.sqrt(0.25 / 800)  # four standard deviations of a coin thrown once for each of 800 test clips


@pytest.mark.parametrize("difficulty", [FULL, EASY], ids=["full", "easy"])
@pytest.mark.parametrize("law", [i for i, law in enumerate(LAWS) if law.even], ids=lambda i: LAWS[i].forwards)
def test_in_an_even_law_the_first_frame_known_as_the_first_tells_no_direction(law, difficulty):
    assert abs(tells(law, known=True, difficulty=difficulty) - 0.5) < CHANCE


def test_in_another_law_it_does_but_a_frame_of_unknown_number_does_not():
    law = M["approach"] // 2
    assert not LAWS[law].even and tells(law, known=True) > 0.85
    assert abs(tells(law, known=False) - 0.5) < CHANCE


def furthest(one: np.ndarray, other: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance: between 0 (same distribution) and 1."""
    values = np.sort(np.concatenate([one, other]))
    shares = (np.searchsorted(np.sort(part), values, side="right") / len(part) for part in (one, other))
    return np.abs(np.subtract(*shares)).max()


def states(set: str, label: int, frame: int, difficulty: Difficulty = FULL, count: int = 300) -> np.ndarray:
    """Where the object is, how large and how turned, in a frame of each of many clips."""
    found = []
    for seed in range(count * label, count * (label + 1)):
        shown = scene(set, label, seed, frames=16, size=16, difficulty=difficulty)
        one, step = shown.actors[0].track, shown.order[frame]
        found.append((*place(one, step), one.radius[step], one.angle[step] % math.tau))
    return np.array(found)


LIMIT = 1.95 * math.sqrt(2 / 300)  # exceeded once in a thousand comparisons of 300 with 300 (Smirnov)


@pytest.mark.parametrize("law", [i for i, law in enumerate(LAWS) if law.even], ids=lambda i: LAWS[i].forwards)
def test_in_an_even_law_states_are_distributed_alike_at_each_frame_number(law):
    for frame, difficulty in ((0, FULL), (11, FULL), (0, EASY), (11, EASY)):
        there, back = (states("M", 2 * law + side, frame, difficulty) for side in (0, 1))
        for one, other in zip(there.T, back.T, strict=True):
            assert furthest(one, other) < LIMIT


def test_an_object_on_the_torus_is_seen_once_and_most_of_the_time():
    in_view = []
    for seed in range(60):
        shown = scene("M", M["push right"], seed, frames=8, size=32)
        seen = masks(shown) > 0
        assert np.abs(flow(shown)).max() < 12  # pixels: not back across the picture where it comes in again
        columns = seen.any(axis=1)
        assert not (columns[:, 0] & columns[:, -1]).any()
        in_view.append(seen.sum(axis=(1, 2)) > 0.3 * seen.sum(axis=(1, 2)).max())
    assert np.mean(in_view) > 0.7
    assert breadth(0.2) == pytest.approx(1 + 2 * REACH * 0.2)


# Flow and masks


def moving(size: int = 64, backwards: bool = False, **values) -> Scene:
    """A checked square before black."""
    u = np.linspace(0, 1, 5)
    one = track(u, **({"x": 0.5, "y": 0.5, "radius": 0.25} | {name: value(u) for name, value in values.items()}))
    actor = Actor(one, KINDS[1], paint(np.random.default_rng(0), "train"))
    return Scene((actor,), np.zeros((size, size, 3), np.float32), backwards)


@pytest.mark.parametrize(("backwards", "sign"), [(False, 1), (True, -1)])
def test_the_flow_of_a_shift_is_that_shift_and_turns_round_with_time(backwards, sign):
    shown = moving(x=lambda u: 0.45 + 8 * u / 64, y=lambda u: 0.5 - 4 * u / 64, backwards=backwards)
    seen = masks(shown)[:-1] > 0
    vectors = flow(shown)
    assert vectors.shape == (4, 64, 64, 2) and 700 < seen[0].sum() < 850
    np.testing.assert_allclose(vectors[seen], np.broadcast_to([2 * sign, -sign], vectors[seen].shape), atol=1e-4)
    assert not vectors[~seen].any()


def test_the_flow_of_a_turn_a_growth_and_an_opening_is_what_plane_geometry_says():
    centre = np.stack(np.meshgrid(*(np.arange(64) + 0.5 - 32,) * 2), axis=-1)  # x, y of each pixel
    turn = math.radians(40) / 4
    matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    for shown, expected in (
        (moving(angle=lambda u: math.radians(40) * u), centre @ matrix.T - centre),
        (moving(radius=lambda u: 0.2 * 1.1 ** (4 * u)), 0.1 * centre),
        (moving(stretch=lambda u: 0.5 * 1.1 ** (4 * u)), centre * [0.1, 0]),
    ):
        seen = masks(shown)[:-1] > 0
        assert seen[0].sum() > 300
        np.testing.assert_allclose(flow(shown)[seen], np.stack([expected] * 4)[seen], atol=1e-4)


def sampled(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values between the pixels, blended from the four around; x and y in pixels, 0.5 is the first one's middle."""
    height, width = picture.shape[:2]
    grid = torch.tensor(np.stack([2 * x / width - 1, 2 * y / height - 1], axis=-1))[None].double()
    planes = torch.tensor(picture).double().permute(2, 0, 1)[None]
    return nn.functional.grid_sample(planes, grid, align_corners=False)[0].permute(1, 2, 0).numpy()


ALL_AND_WHEELS = [(name, FULL) for name in CLASSES["M"]] + [(f"turn {way}clockwise", EASY) for way in ("", "counter-")]


@pytest.mark.parametrize(("name", "difficulty"), ALL_AND_WHEELS)
def test_the_next_frame_fetched_along_the_flow_is_this_frame(name, difficulty):
    size, errors, without = 96, [], []
    for seed in range(2):
        shown = scene("M", M[name], (seed, 2), frames=24, size=size, difficulty=difficulty)
        frames, seen, vectors = draw(shown), masks(shown), flow(shown)
        y, x = np.mgrid[:size, :size] + 0.5
        for t in range(0, 23, 3):
            to_x, to_y = x + vectors[t, ..., 0], y + vectors[t, ..., 1]
            inside = (seen[t] > 0) & (np.minimum(to_x, to_y) > 1) & (np.maximum(to_x, to_y) < size - 1)
            for number in range(1, len(shown.actors) + 1):
                layer = (seen[t + 1] == number)[..., None].astype(float)
                there = sampled(layer, to_x, to_y)[..., 0] > 0.99  # still seen in the next frame
                both = inside & (seen[t] == number) & there
                fetched = sampled(frames[t + 1], to_x, to_y)
                errors += np.abs(fetched - frames[t])[both].ravel().tolist()
                without += np.abs(frames[t + 1].astype(float) - frames[t])[both].ravel().tolist()
    assert len(errors) > 5000 and np.mean(errors) < 5 and np.mean(errors) < 0.6 * np.mean(without)


@pytest.mark.parametrize("set", CLASSES)
def test_masks_are_where_the_picture_is_not_the_backdrop(set):
    for label in range(len(CLASSES[set])):
        shown = scene(set, label, (3, label), frames=20, size=64)
        seen, changed = masks(shown) > 0, differs(draw(shown), shown)
        near = torch.tensor(seen).double()[:, None]
        near = nn.functional.max_pool2d(near, 5, stride=1, padding=2)[:, 0].numpy() > 0
        assert (changed & ~near)[:, 1:-1, 1:-1].sum() < 0.001 * seen.sum()  # soft edges lie outside, and a thin tip
        assert (changed & seen).sum() > 0.95 * seen.sum() > 0  # a colour of an object may be the backdrop's by chance


def test_the_object_in_front_hides_the_one_behind():
    shown = scene("M", M["cover"], 1, frames=6, size=64)
    numbers = [set(np.unique(mask)) for mask in masks(shown)]
    assert numbers[0] == {0, 1, 2} and numbers[-1] == {0, 2}


# Difficulty


def both(difficulty: Difficulty, label: int, seed: int) -> tuple[Scene, Scene]:
    return tuple(scene("D", label, seed, frames=9, size=64, difficulty=one) for one in (FULL, difficulty))


@pytest.mark.parametrize("seed", range(3))
def test_an_even_law_goes_as_far_as_its_dial_says_around_the_same_middle(seed):
    for label, dial in enumerate(("way", "way", "way", "way", "turn", "turn")):
        values = "angle" if dial == "turn" else "xy"[label // 2]
        far, near = (getattr(one.actors[0].track, values) for one in both(Difficulty(**{dial: 0.5}), label, seed))
        np.testing.assert_allclose(np.ptp(near), 0.5 * np.ptp(far), rtol=1e-9)
        np.testing.assert_allclose(near[[0, -1]].mean(), far[[0, -1]].mean())


def test_the_texture_dial_is_the_contrast_inside_an_object_and_leaves_its_outline():
    def inside(texture: float, kind: int) -> float:
        number = next(seed for seed in range(99) if scene("D", 0, seed, 9, 64).actors[0].kind is KINDS[kind])
        shown = scene("D", 0, number, 9, 64, difficulty=Difficulty(texture=texture, wheel=True))
        np.testing.assert_array_equal(masks(shown), masks(scene("D", 0, number, 9, 64)))
        seen = nn.functional.max_pool2d(-torch.tensor(masks(shown)).double(), 3, 1, 1).numpy() < 0  # not its edge
        return draw(shown)[seen].astype(float).std(axis=0).mean()

    for kind in range(len(KINDS)):
        full, half, none = (inside(texture, kind) for texture in (1.0, 0.5, 0.0))
        assert none < 1 and full > 20 and 0.4 < half / full < 0.6


def test_only_so_many_kinds_occur_as_the_dial_says():
    for shapes in (1, 3, 8):
        dials = Difficulty(shapes=shapes)
        found = {scene("D", 0, seed, 2, 16, difficulty=dials).actors[0].kind.name for seed in range(60)}
        assert found == {kind.name for kind in KINDS[:shapes]}


def test_a_wheel_tells_at_single_places_by_dark_jumps_or_bright_ones_which_way_it_turns():
    for label, sign in ((4, -1), (5, 1)):
        for seed in range(5):
            shown = scene("D", label, seed, 16, 64, difficulty=EASY)
            always = (masks(shown) > 0).all(axis=0)
            steps = np.diff(draw(shown).astype(float).mean(axis=-1)[:, always], axis=0)
            assert always.sum() > 500 and sign * (steps**3).mean() > 1000


@pytest.mark.parametrize("size", [64, 192])
def test_a_wheel_has_all_shades_between_its_two_colours_in_equal_parts_at_any_size(size):
    shown = scene("D", 4, 0, 2, size, difficulty=EASY)
    bright, dark = shown.actors[0].paint
    seen = nn.functional.max_pool2d(-torch.tensor(masks(shown)).double(), 3, 1, 1).numpy() < 0  # not its edge
    mix = (draw(shown)[seen] / 255 - bright) @ (dark - bright) / ((dark - bright) ** 2).sum()
    whole = scene("D", 4, 0, 2, size, difficulty=Difficulty(wheel=True)).actors[0].track
    assert whole.radius[0] == pytest.approx(1.5 * scene("D", 4, 0, 2, size).actors[0].track.radius[0])
    shares = np.histogram(mix, bins=4, range=(-0.01, 1.01))[0] / mix.size
    assert (np.abs(shares - 0.25) < 0.1).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"texture": 1.5}, "texture=1.5: give a contrast from 0 to 1"),
        ({"shapes": 0}, "shapes=0: there are 1 to 8"),
        ({"way": 0}, "way=0: give more than 0"),
        ({"turn": 2.5}, "turn=2.5: .* at most 2"),
        ({"texture": 0}, "texture=0: a plain disc that turns looks still: give wheel=True too"),
    ],
)
def test_a_dial_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Difficulty(**wrong)


# Looks


@pytest.mark.parametrize("kind", [*KINDS, CLOTH, INSIDE, FRONT, WHEEL], ids=lambda kind: kind.name)
def test_no_kind_reaches_further_than_it_may(kind):
    y, x = np.mgrid[-2:2:201j, -2:2:201j]
    inside = kind.shape(x, y) < 0
    assert inside.sum() > 400 and np.hypot(x, y)[inside].max() <= REACH


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_shows_that_it_turns(kind):
    shown = moving(angle=lambda u: 1.2 * u)
    shown = Scene((shown.actors[0]._replace(kind=kind),), shown.backdrop)
    first, *others = draw(shown).astype(float)
    seen = masks(shown)[0] > 0
    assert all(np.abs(other - first)[seen].mean() > 10 for other in others)


def test_in_sets_a_and_l_the_motion_does_not_depend_on_the_label_and_in_the_others_the_look_does_not():
    for set in "AL":
        scenes = [scene(set, label, seed=4, frames=4, size=16) for label in range(len(KINDS))]
        assert [one.actors[0].kind for one in scenes] == list(KINDS)
        assert len({tuple(np.concatenate(one.actors[0].track[:5])) for one in scenes}) == 1
    for set in "MVXG":
        scenes = [scene(set, label, seed=4, frames=18, size=16) for label in range(len(CLASSES[set]))]
        own = (actor.kind for one in scenes for actor in one.actors if actor.kind in KINDS)
        assert len({kind.name for kind in own}) == 1


def test_set_a_moves_in_all_the_ways_of_set_x():
    found = []
    for seed in range(80):
        shown = scene("A", 0, seed, frames=8, size=16)
        (actor,) = shown.actors
        changes = [np.ptp(part) / usual for part, usual in zip(actor.track[:4], (0.7, 0.7, 0.1, 0.9), strict=True)]
        found.append((int(np.argmax(changes)), shown.backwards))
    assert {*found} == {(law, backwards) for law in range(4) for backwards in (False, True)}


def test_in_set_l_one_object_is_large_nearly_upright_and_most_of_it_in_sight_in_every_frame():
    widths = {CLASSES["L"][label]: [] for label in range(len(KINDS))}
    for seed in range(40):
        label = seed % len(KINDS)
        shown = scene("L", label, seed, frames=8, size=64)
        (actor,) = shown.actors
        assert np.abs(actor.track.angle).max() < math.radians(25)
        outside = np.abs(np.stack(actor.track[:2]) - 0.5).max() + actor.track.radius[0] - 0.5  # of what a disc would be
        assert outside < 0.5 * actor.track.radius[0]
        seen = (masks(shown) > 0).mean(axis=(1, 2))
        widths[CLASSES["L"][label]].append(seen.min())
    least = {name: min(found) for name, found in widths.items()}
    assert all(least[name] > 0.08 for name in least) and least["striped disc"] > 0.25, least


def test_the_same_seed_means_other_clips_in_train_test_and_sets():
    clips = [render(set, 0, 4, frames=20, size=16, split=split).tobytes() for set in CLASSES for split in SPLITS]
    clips.append(render("X", 0, 4, frames=20, size=16, split="paired").tobytes())
    assert len({*clips}) == len(clips) == 15


def hues(split: str) -> np.ndarray:
    """Degrees, as seen in the pictures: the median over an object's bright, unmixed pixels."""
    found = []
    for seed in range(40):
        picture = render("M", M["approach"], seed, frames=3, size=64, split=split)[1].astype(float)
        high, low = picture.max(axis=-1), picture.min(axis=-1)
        r, g, b = picture[high > 215].T
        span = (high - low)[high > 215]
        sixth = np.select(
            [r == high[high > 215], g == high[high > 215]], [(g - b) / span % 6, (b - r) / span + 2], (r - g) / span + 4
        )
        found.append(np.median(sixth) * 60)
    return np.array(found)


def test_train_and_test_take_their_hues_from_disjoint_pools():
    train, test = (hues(split) % 60 for split in SPLITS)  # six equal arcs
    assert ((train < 41) | (train > 59)).all() and ((test > 44) & (test < 56)).all()
    assert np.ptp(train[train < 50]) > 25  # the pool is used


def test_a_backdrop_has_a_texture_but_is_never_as_bright_as_an_object():
    for seed in range(10):
        behind = scene("M", 0, seed, size=64).backdrop.max(axis=-1)
        assert behind.max() < 0.56 and behind.std() > 0.06


# Speed


def turns(name: str, seed: int) -> np.ndarray:
    """By how many radians the object has moved along its circle, from frame to frame, measured in the masks."""
    shown = scene("V", V[name], seed, frames=64, size=64)
    # A kind's centre of gravity is not its middle, but the same distance off in every frame.
    at = np.array([middle(mask > 0) for mask in masks(shown)])
    one = shown.actors[0].track
    begin = shown.order[0]
    off = at[0] - 64 * np.array([one.x[begin], one.y[begin]])
    x, y = (at - off).T / 64 - 0.5
    return np.unwrap(np.arctan2(y, x))


@pytest.mark.parametrize("seed", range(5))
def test_in_set_v_the_name_of_the_class_is_true(seed):
    still = render("V", V["stands still"], seed, frames=8, size=32)
    assert (still == still[0]).all()
    paths = {
        name: np.abs(np.diff(turns(name, seed)[[0, -1]])).item() for name in ("drifts slowly", "drifts", "drifts fast")
    }
    assert 0.4 < paths["drifts slowly"] < 1.1 < 1.4 < paths["drifts"] < 2.4 < 2.9 < paths["drifts fast"] < 4.5
    for times, name in enumerate(("swings once", "swings twice", "swings three times", "swings four times"), 1):
        path = turns(name, seed) - turns(name, seed)[0]
        out = np.abs(path) > np.abs(path).max() / 2
        assert np.count_nonzero(np.diff(out.astype(int)) == 1) == times and np.abs(path[-1]) < 0.1
        assert 0.4 < np.abs(path).max() < 1.7


def test_in_set_v_objects_go_either_way_and_swings_of_every_number_may_be_as_fast():
    ways, speeds = [], []
    for seed in range(40):
        one = [
            scene("V", label, seed, frames=33, size=16).actors[0].track for label in (V["drifts"], V["swings twice"])
        ]
        angle = np.unwrap(np.arctan2(one[0].y - 0.5, one[0].x - 0.5))
        ways.append(angle[-1] > angle[0])
        speeds.append(np.hypot(np.diff(one[1].x), np.diff(one[1].y)).sum())
    assert 10 < sum(ways) < 30 and max(speeds) > 2.2 * min(speeds)


@pytest.mark.parametrize("frame", [0, 11])
def test_in_set_v_a_single_frame_has_the_same_distribution_in_every_class(frame):
    first, *others = (states("V", label, frame).T for label in range(len(V)))
    for other in others:
        assert all(furthest(a, b) < LIMIT for a, b in zip(first, other, strict=True))


# Order


def events(label: int, seed: int, frames: int, gap: int) -> tuple[list[tuple[int, int]], list[str]]:
    """When something happens (first frame, number of frames), and what, as seen in the pictures."""
    shown = scene("G", label, seed, frames, 48, gap=gap)
    clip, seen = draw(shown), masks(shown) > 0
    kinds, counts = np.unique(clip.reshape(frames, -1), axis=0, return_counts=True)
    rest = kinds[counts.argmax()].reshape(clip.shape[1:])
    busy = (clip != rest).any(axis=(1, 2, 3))
    at_rest = seen[~busy][0]
    runs, names = [], []
    for begin in np.flatnonzero(np.diff(busy.astype(int), prepend=0) == 1):
        length = next((n for n, b in enumerate(busy[begin:]) if not b), frames - begin)
        peaks = range(begin + EVENT // 2, begin + length, EVENT)  # two events without a gap make one run
        for peak in peaks:
            grown = seen[peak].sum() / at_rest.sum()
            risen = middle(at_rest)[1] - middle(seen[peak])[1]
            names.append("swell" if grown > 1.5 else "hop" if risen > 8 else "nod")
        runs.append((int(begin), length))
    return runs, names


@pytest.mark.parametrize("label", range(6))
@pytest.mark.parametrize(("gap", "frames"), [(1, 32), (9, 32), (22, 32), (20, 40)])
def test_two_events_in_the_order_of_the_name_lie_so_many_frames_apart_and_nothing_else_happens(label, gap, frames):
    for seed in range(3):
        runs, names = events(label, seed, frames, gap)
        assert " then ".join(names) == CLASSES["G"][label]
        (first, one), (second, other) = runs
        assert one == other == EVENT and second - first - EVENT == gap


@pytest.mark.parametrize("label", range(6))
def test_each_event_is_its_own_reverse(label):
    for seed in range(4):
        clip = render("G", label, seed, 40, 48, gap=20).astype(int)
        for begin, length in events(label, seed, 40, 20)[0]:
            event = clip[begin : begin + length]
            assert np.abs(event - event[::-1]).max() <= 1  # rounding


def test_without_a_gap_one_event_follows_the_other():
    for label in range(6):
        runs, names = events(label, 1, 32, 0)
        assert [length for _, length in runs] == [2 * EVENT] and " then ".join(names) == CLASSES["G"][label]


def test_events_begin_anywhere_in_the_clip():
    begins = [events(0, seed, 32, 19)[0][0][0] for seed in range(24)]
    assert {*begins} == {0, 1, 2, 3}


# Refusals


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"set_name": "Z"}, "no set 'Z': use one of A, M, V, X, G"),
        ({"size": 63}, "size=63 .* use an even size"),
        ({"size": 8}, "size=8 .* use an even size from 16 up"),
        ({"frames": 1}, "frames=1 .* use 2 or more"),
        ({"label": 16}, "label=16 .* use 0 to 15"),
        ({"label": -1}, "label=-1 .* use 0 to 15"),
        ({"split": "val"}, "no split 'val' in set M: use one of train, test"),
        ({"split": "paired"}, "no split 'paired' in set M"),
        ({"set_name": "X", "split": "val"}, "use one of train, test, paired"),
        ({"look": 3}, "look=3: only in set X"),
        ({"set_name": "X", "look": 8}, "look=8 is no look: use 0 to 7"),
        ({"gap": 3}, "gap=3: only set G has a gap, set M has none"),
        ({"set_name": "G", "gap": 23}, "gap=23 does not fit into frames=32 .* use 0 to 22, or 33 frames"),
        ({"set_name": "G", "gap": -1}, "gap=-1 does not fit .* use 0 to 22$"),
        ({"set_name": "G", "frames": 16}, "gap=8 does not fit into frames=16 .* use 0 to 6, or 18 frames"),
        ({"set_name": "G", "frames": 8}, "frames=8 cannot hold two events of 5 frames: use 10 or more"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_way_out(wrong, message):
    with pytest.raises(ValueError, match=message):
        render(**({"set_name": "M", "label": 0, "seed": 0} | wrong))
