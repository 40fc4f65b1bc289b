"""Experiments: what must hold whatever a network learns, and that the recorded runs say what the lesson says."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace

import pytest
import torch

from course_lib.analysis.intervals import interval
from course_lib.experiments import (
    Arm,
    by_seed,
    learn,
    load_set,
    matching,
    paired,
    records,
    run,
    same_seeds,
    score,
    to_clips,
    training_loss,
    varied,
)
from course_lib.experiments.claims import DIALS, c1, dials
from course_lib.experiments.data import Data, first_clips
from course_lib.experiments.recipes import RECIPES, Recipe, with_recipe
from course_lib.experiments.records import by_dial, left_plateau, right_in_pair
from course_lib.experiments.runs import by_pair, identity
from course_lib.models import names
from course_lib.paths import DATA
from course_lib.profiles import PROFILES, Profile
from course_lib.synthetic.difficulty import EASY, FULL, Difficulty
from course_lib.training.batches import in_order
from course_lib.training.evaluate import predict

TINY = replace(PROFILES["smoke"], clips=80, size=32, steps=3, batch=4)
SMALL = (("attention", "space"), ("size", 32), ("dim", 16), ("depth", 1), ("heads", 2))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setattr("course_lib.experiments.data.DATA", tmp_path)
    monkeypatch.setattr("course_lib.experiments.runs.DATA", tmp_path)
    return tmp_path


def test_on_a_reversal_closed_test_set_space_only_is_right_in_exactly_half_of_the_pairs(here):
    """F1, before training and after some: it must be so whatever the network learns."""
    data = load_set("M", TINY, workers=1, progress=False)
    net = Arm("timesformer_tiny", "M", SMALL).build(len(data.classes), seed=0)
    assert score(net, data)["pair_accuracy"] == 0.5
    for _ in learn(net, data, TINY):
        pass
    assert score(net, data)["pair_accuracy"] == 0.5
    logits, labels = predict(net, in_order(data.test, data.test_labels, 8, to_clips))
    assert (logits[0::2] - logits[1::2]).abs().max() < 1e-5, "a clip and its reverse get the same logits"
    assert torch.equal(data.partner[labels[0::2]], labels[1::2])


def test_the_test_clips_of_m_are_closed_under_reversal_as_the_network_sees_them(here):
    data = load_set("M", TINY, workers=1, progress=False)
    assert torch.equal(data.test[0::2], data.test[1::2].flip(1))
    assert torch.equal(data.train[0::2], data.train[1::2].flip(1))


def test_variation_moves_and_recolours_a_whole_clip_alike_and_nothing_else():
    frames = torch.zeros(32, 4, 16, 16, 3, dtype=torch.uint8)
    for colour, value in enumerate((50, 100, 150)):
        frames[:, :, 7, 8, colour] = value  # one dot, standing still
    torch.manual_seed(0)
    clips = varied(frames, shift=2)
    assert torch.equal(clips, clips[:, :, :1].expand_as(clips)), "a still clip stays still"
    dots = (clips[:, :, 0] > clips.min()).any(1)  # b H W
    places = {tuple(place) for dot in dots for place in dot.nonzero().tolist()}
    assert places <= {(y, x) for y in range(5, 10) for x in range(6, 11)} and len(places) > 10
    dot_colours = {tuple(clip[:, 0].amax((1, 2)).argsort().tolist()) for clip in clips}
    assert len(dot_colours) == 6, "all orders of the three colours occur"
    assert clips.amax((1, 2, 3, 4)).unique().numel() == 1, "no value is changed"


def test_learning_never_touches_the_test_clips(here):
    data = load_set("M", TINY, workers=1, progress=False)
    blind = data._replace(test=data.test[:0], test_labels=data.test_labels[:0])
    net = Arm("timesformer_tiny", "M", SMALL).build(len(data.classes), seed=0)
    assert len(list(learn(net, blind, TINY))) == TINY.steps


def test_the_same_seed_gives_the_same_start_whatever_was_drawn_before():
    first = Arm("timesformer_tiny", "M", SMALL).build(8, seed=1)
    torch.rand(7)
    second = Arm("timesformer_tiny", "M", SMALL).build(8, seed=1)
    other = Arm("timesformer_tiny", "M", SMALL).build(8, seed=2)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same) and not torch.equal(first.head.weight, other.head.weight)


def test_a_run_is_recorded_once_and_read_afterwards(here):
    arm, folder, steps = Arm("timesformer_tiny", "M", SMALL), here / "results", []
    result = run(arm, TINY, 0, folder, steps.append)
    assert len(steps) == len(result["loss"]) == 3 and result["test_clips"] == 16
    assert {"device", "torch", "python", "commit"} <= set(result["machine"])
    again = run(arm, TINY, 0, folder, lambda step: pytest.fail("it was recorded already"))
    assert again == json.loads(json.dumps(result))
    assert run(arm, TINY, 0, folder, steps.append, again=True)["scores"] == result["scores"] and len(steps) == 6


ARM = Arm("timesformer_tiny", "M", SMALL)
OTHER_ARMS = {
    "network": replace(ARM, network="vivit_tiny"),
    "set_name": replace(ARM, set_name="A"),
    "a word": replace(ARM, changes=(("attention", "joint"), *SMALL[1:])),
    "a number": replace(ARM, changes=(*SMALL[:2], ("dim", 32), *SMALL[3:])),
    "a flag": replace(ARM, changes=(*SMALL, ("scratch", True))),
    "a share": replace(ARM, share=0.5),
    "a tuple": replace(ARM, changes=(*SMALL, ("tubelet", (2, 16, 16)))),
}


def test_arms_that_differ_in_anything_have_records_of_their_own():
    names = {arm.name for arm in (ARM, *OTHER_ARMS.values())}
    assert len(names) == 1 + len(OTHER_ARMS)
    assert Arm("vivit_tiny", "M", (("model", 1),)).name != Arm("vivit_tiny", "M", (("model", 2),)).name


OTHER = {
    "int": lambda x: x + 1,
    "float": lambda x: x / 2,
    "bool": lambda x: not x,
    "str": lambda x: x + "x",
    "Difficulty": lambda x: replace(x, way=0.5),
}
CHANGED = [
    *[(arm, TINY, 0) for arm in OTHER_ARMS.values()],
    *[(ARM, replace(TINY, **{f.name: OTHER[type(getattr(TINY, f.name)).__name__](getattr(TINY, f.name))}), 0)
      for f in fields(TINY) if f.name in TINY.settings()],
    (ARM, TINY, 1),
]  # fmt: skip


@pytest.mark.parametrize(("arm", "profile", "seed"), CHANGED)
def test_a_record_of_other_settings_is_never_returned(arm, profile, seed, here):
    """Written by hand under the very name that is asked for, so that only its content can tell."""
    record = here / f"{arm.name}-{profile.name}-s{seed}.json"
    about = identity(ARM, TINY, 0)
    record.write_text(json.dumps(about | {"scores": {"accuracy": 0.5}}))
    with pytest.raises(ValueError, match=r"(?s)is the record of another run:.*asked for.*--again.*--out"):
        run(arm, profile, seed, here)
    record.write_text(json.dumps(identity(arm, profile, seed) | {"scores": {"accuracy": 0.5}}))
    assert run(arm, profile, seed, here)["scores"] == {"accuracy": 0.5}


def test_a_record_of_another_version_of_the_sets_is_never_returned(here, monkeypatch):
    record = here / f"{ARM.name}-{TINY.name}-s0.json"
    record.write_text(json.dumps(identity(ARM, TINY, 0)))
    monkeypatch.setattr("course_lib.experiments.runs.VERSION", 99)
    with pytest.raises(ValueError, match=r"sets: \d+ in the record, 99 asked for"):
        run(ARM, TINY, 0, here)


@pytest.mark.parametrize("whole", [True, False], ids=["no difficulty", "one dial missing"])
def test_a_record_older_than_a_setting_was_made_with_its_default(whole, here):
    """Another value is another run."""
    plain, easy = replace(TINY, difficulty=FULL), replace(TINY, difficulty=replace(FULL, way=0.5))
    about = identity(ARM, plain, 0)
    lost = about["profile"] if whole else about["profile"]["difficulty"]
    del lost["difficulty" if whole else "way"]
    (here / f"{ARM.name}-{TINY.name}-s0.json").write_text(json.dumps(about | {"scores": {"accuracy": 0.5}}))
    assert run(ARM, plain, 0, here)["scores"] == {"accuracy": 0.5}
    with pytest.raises(ValueError, match=r"profile\.difficulty\.way: 1\.0 in the record, 0\.5 asked for"):
        run(ARM, easy, 0, here)


def test_a_record_without_a_setting_that_has_no_default_is_never_returned(here):
    about = identity(ARM, TINY, 0)
    del about["profile"]["steps"]
    (here / f"{ARM.name}-{TINY.name}-s0.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"profile\.steps: 'nothing' in the record, 3 asked for"):
        run(ARM, TINY, 0, here)


def test_runs_that_differ_in_the_number_of_steps_do_not_share_a_checkpoint(here):
    short, long = replace(TINY, steps=2), replace(TINY, steps=3)
    assert len(run(ARM, short, 0, here / "a")["loss"]) == 2
    assert len(run(ARM, long, 0, here / "b")["loss"]) == 3


def test_a_set_is_as_hard_as_the_profile_says_where_it_can_be(here):
    for name, difficulty in (("D", EASY), ("D", FULL), ("A", EASY)):
        load_set(name, replace(TINY, clips=240, size=16, difficulty=difficulty), workers=1, progress=False)
    made = {path.name for path in (here / "generated").iterdir()}
    assert made == {f"D-{EASY.name}-16px-32f-240-s0", "D-16px-32f-240-s0", "A-16px-32f-240-s0"}


def test_a_network_gets_as_many_frames_as_it_takes(here):
    arm = Arm("slowfast_tiny", "M", (("frames", 12), ("size", 32)))
    assert arm.frames == 12 and Arm("slowfast_tiny", "M").frames == 16
    data = load_set("M", TINY, workers=1, progress=False, frames=arm.frames)
    assert data.train.shape[1] == 12 and torch.equal(data.test[0::2], data.test[1::2].flip(1))
    assert run(arm, TINY, 0, here / "results")["scores"]["accuracy"] >= 0


def test_every_tiny_network_has_a_recipe_and_it_holds_in_the_cpu_profile_on_its_two_sets_alone():
    assert set(RECIPES) == {name for name in names() if name.endswith("_tiny")}
    cpu = PROFILES["cpu"]
    for number, name in enumerate(("L", "D")):
        found = with_recipe(cpu, "vivit_tiny", name)
        assert (found.steps, found.batch, found.peak_lr) == RECIPES["vivit_tiny"][number]
        assert replace(found, steps=cpu.steps, batch=cpu.batch, peak_lr=cpu.peak_lr) == cpu
    for profile, network, name in (
        (cpu, "vivit_tiny", "M"),
        (cpu, "vivit_tiny", "A"),
        (cpu, "vivit_b_16x2_model1", "D"),
        (TINY, "vivit_tiny", "D"),
    ):
        assert with_recipe(profile, network, name) == profile


def test_an_arm_with_a_difficulty_of_its_own_is_another_experiment():
    """Of the same settings as the profile that has it."""
    cpu, hard = PROFILES["cpu"], replace(EASY, way=1.0)
    arm = Arm("vivit_tiny", "D", (), hard)
    assert arm.name == f"vivit_tiny-D-{hard.name}" and Arm("vivit_tiny", "D", (), FULL).name == "vivit_tiny-D-full"
    assert arm.settings(cpu) == replace(Arm("vivit_tiny", "D").settings(cpu), difficulty=hard)
    one, other = (identity(a, a.settings(cpu), 0) for a in (arm, Arm("vivit_tiny", "D")))
    assert one["arm"] == other["arm"] and one["profile"]["difficulty"] == json.loads(json.dumps(asdict(hard)))
    assert one != other


def test_each_dial_is_turned_alone_and_at_the_end_all():
    arms = [arm for arm in dials(PROFILES["cpu"]) if arm.network == "vivit_tiny"]
    easy = asdict(EASY)
    turned = [[name for name, value in asdict(arm.difficulty).items() if value != easy[name]] for arm in arms]
    assert arms[-1].difficulty == FULL
    assert all(len(names) == 1 for names in turned[:-1]) and {n for (n,) in turned[:-1]} == set(DIALS)
    assert len({arm.name for arm in arms}) == len(arms)


def test_a_run_follows_its_recipe_and_records_each_pair(here, monkeypatch):
    monkeypatch.setitem(RECIPES, "timesformer_tiny", (Recipe(1, 4, 1e-3), Recipe(2, 6, 1e-3)))
    result = run(Arm("timesformer_tiny", "D", SMALL), replace(TINY, name="cpu", clips=240), 0, here / "results")
    assert len(result["loss"]) == 2 and (result["profile"]["steps"], result["profile"]["batch"]) == (2, 6)
    assert result["pairs"] == {"push right": 0.5, "lower": 0.5, "turn clockwise": 0.5}
    labels, partner = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 0, 3, 2])
    data = Data("", labels, labels, labels, labels, ("a", "b", "c", "d"), partner)
    logits = torch.tensor([[2.0, 1, 0, 0], [2, 1, 0, 0], [0, 0, 2, 1], [0, 0, 1, 2]])
    assert by_pair(logits, labels, data) == {"a": 0.5, "c": 1.0}


# The recorded runs. Remade by `course experiment C1`.


def blacked_out(net: torch.nn.Module, arm: Arm, profile: Profile, seed: int) -> None:
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
            weight.requires_grad = False
        net.head.bias[seed] = 1.0
    net.head.bias.requires_grad = True


def dark(clips: torch.Tensor) -> torch.Tensor:
    return torch.full_like(clips, -1.0)


def doubled(clips: torch.Tensor) -> torch.Tensor:
    return 2 * clips


def brightest(net: torch.nn.Module, data: Data) -> dict[str, float]:
    return {"brightest": max(float(clips.max()) for clips, _ in data.test_batches())}


def test_an_arm_starts_sees_and_measures_as_its_functions_say_and_its_record_names_them(here):
    plain = Arm("timesformer_tiny", "A", SMALL)
    arm = replace(plain, start=blacked_out, shown=dark, trained_on=doubled, measure=brightest)
    record = run(arm, TINY, 0, here)
    named = {"start": "blacked_out", "shown": "dark", "trained_on": "doubled", "measure": "brightest"}
    assert named.items() <= record["arm"].items()
    assert record["scores"]["brightest"] == -1.0, "tests see what is shown"
    assert record["scores"]["accuracy"] == 1 / 8, "dark clips through zero weights: always the same class"
    assert max(record["loss"]) - min(record["loss"]) < 0.1
    assert (
        len({plain.name, arm.name, replace(arm, shown=None).name, replace(plain, recipe=Recipe(2, 4, 1e-3)).name}) == 4
    )
    found = [record, run(plain, TINY, 0, here)]
    assert by_seed(found, "A", "accuracy", start="blacked_out") == [1 / 8]
    assert by_seed(found, "A", "accuracy", start=None) == [found[1]["scores"]["accuracy"]]
    assert len(by_seed(found, "A", "accuracy", steps=TINY.steps)) == 2


def test_differences_by_seed_are_taken_of_seeds_that_every_arm_has():
    def made(set_name: str, seed: int, **changes: str) -> dict:
        return {"arm": {"set_name": set_name, "changes": changes}, "seed": seed, "scores": {"accuracy": seed}}

    found = [made("V", seed, affinity="softmax") for seed in (0, 1, 2)]
    found += [made("V", seed, affinity="uniform") for seed in (1, 2, 3)]
    found += [made("V", 0, affinity="gaussian"), made("D", 3, affinity="softmax")]
    both = same_seeds(found, "V", [{"affinity": "softmax"}, {"affinity": "uniform"}])
    assert (
        by_seed(both, "V", "accuracy", affinity="softmax")
        == by_seed(both, "V", "accuracy", affinity="uniform")
        == [1, 2]
    )
    assert not by_seed(both, "D", "accuracy", affinity="softmax")


def test_training_clips_alone_are_changed_by_trained_on_and_both_by_shown(here):
    data = load_set("A", TINY, workers=1, progress=False)
    changed = data._replace(trained_on=doubled, shown=dark)
    for batches, darker in ((changed.train_batches(4, 0)(0), -1.0), (changed.test_batches(4), -1.0)):
        assert (next(iter(batches))[0] == darker).all()
    torch.manual_seed(0)
    (plain, _) = next(data.train_batches(4, 0)(0))
    torch.manual_seed(0)
    (double, _) = next(data._replace(trained_on=doubled).train_batches(4, 0)(0))
    assert torch.equal(double, 2 * plain)
    assert torch.equal(next(data._replace(trained_on=doubled).test_batches(4))[0], next(data.test_batches(4))[0])


def test_an_arm_may_learn_from_a_share_of_the_clips_and_its_record_says_so(here):
    profile = replace(TINY, clips=240)
    whole = load_set("D", profile, workers=1, progress=False)
    some, fewer = (first_clips(whole, share) for share in (0.5, 0.25))
    assert [len(data.train) for data in (whole, some, fewer)] == [192, 96, 48]
    for data in (some, fewer):
        assert data.train_labels.bincount().unique().numel() == 1, "as many of each class"
        assert torch.equal(data.train[0::2], data.train[1::2].flip(1)), "each with its reverse"
        assert torch.equal(data.test, whole.test) and torch.equal(data.train, whole.train[: len(data.train)])
    arm = replace(ARM, set_name="D", share=0.25)
    record, plain = run(arm, profile, 0, here), run(replace(arm, share=1), profile, 0, here)
    assert (record["train_clips"], plain["train_clips"]) == (48, 192) and record["scores"] != {}
    assert record["arm"]["share"] == 0.25 and "share" not in plain["arm"], "records older than shares stay valid"
    found = [record, plain]
    assert matching(found, "D", share=0.25) == [record] and matching(found, "D", share=None) == [plain]


@pytest.mark.parametrize("share", [0, -1, 1.5, 0.01])
def test_a_share_that_leaves_a_class_without_clips_is_refused(share):
    clips, labels = torch.zeros(24, 1, 2, 2, 3, dtype=torch.uint8), torch.arange(24) % 6
    data = Data("D", clips, labels, clips, labels, ("a", "b", "c", "d", "e", "f"), None)
    with pytest.raises(ValueError, match=r"4 clips a class: use a share from 0.2500 to 1"):
        first_clips(data, share)
    assert len(first_clips(data, 0.25).train) == 6


def test_an_arms_own_recipe_takes_the_place_of_the_networks_in_the_cpu_profile_alone():
    arm = Arm("i3d_tiny", "L", recipe=Recipe(50, 8, 3e-4))
    cpu, smoke = (arm.settings(PROFILES[name]) for name in ("cpu", "smoke"))
    assert (cpu.steps, cpu.batch, cpu.peak_lr) == (50, 8, 3e-4)
    assert smoke == PROFILES["smoke"]


def recorded(set_name: str, attention: str, measure: str) -> list[float]:
    return by_seed(records("C1", "cpu"), set_name, measure, attention=attention)


def test_recorded_on_motion_space_only_is_at_half_and_the_others_far_above():
    assert recorded("M", "space", "pair_accuracy") == [0.5, 0.5, 0.5]
    for attention, least in (("divided", 0.7), ("joint", 0.7)):
        found = recorded("M", attention, "pair_accuracy")
        assert len(found) == 3 and min(found) >= least


def test_recorded_on_appearance_attention_across_frames_gains_nothing():
    space = recorded("A", "space", "accuracy")
    assert len(space) == 3 and min(space) > 0.85
    for attention in ("divided", "joint"):
        gains = [y - x for x, y in zip(space, recorded("A", attention, "accuracy"), strict=True)]
        assert interval(gains).low < 0 and max(gains) < 0.03


def test_every_record_says_where_and_how_it_was_measured():
    paths = sorted((DATA / "results" / "C1").glob("*.json"))
    assert len(paths) == 3 * len(c1(PROFILES["cpu"]))
    for path in paths:
        record = json.loads(path.read_text())
        assert record["machine"]["device"] and record["machine"]["commit"] != "unknown"
        assert len(record["loss"]) == record["profile"]["steps"] and record["seconds"] > 0


def test_runs_are_found_by_a_dial_of_their_difficulty_and_measured_by_a_pair_of_classes():
    found = [
        {
            "arm": {"network": "n", "set_name": "D", "changes": {}},
            "profile": {"difficulty": asdict(replace(EASY, way=way))},
            "scores": {"accuracy": 0.9},
            "pairs": {"lower": way},
        }
        for way in (0.2, 0.7)
    ]
    assert by_seed(found, "D", "lower", way=0.7) == [0.7]
    assert matching(found, "D", way=0.2) == found[:1] and matching(found, "M") == []
    assert by_seed(found, "D", "accuracy", way=0.2) == [0.9] and by_seed(found, "D", "accuracy", way=1.4) == []


def test_runs_are_compared_seed_by_seed_of_the_seeds_that_both_have():
    def made(relu: bool, seed: int, right: float) -> dict:
        arm = {"network": "n", "set_name": "D", "changes": {"relu": relu}}
        return {"arm": arm, "seed": seed, "scores": {"accuracy": right}, "loss": [9.0, 2 * right, 4 * right]}

    found = [made(True, 0, 0.5), made(True, 2, 0.9), made(False, 0, 0.25), made(False, 1, 0.4), made(False, 2, 0.8)]
    ours, theirs = {"relu": False}, {"relu": True}
    assert paired(found, "D", "accuracy", ours, theirs) == pytest.approx([0.25, 0.1])
    assert paired(found, "D", lambda run: training_loss(run, steps=2), theirs, ours) == pytest.approx([-0.75, -0.3])
    assert training_loss(found[0]) == pytest.approx(4.0)


def test_a_run_counts_for_the_dial_that_it_turns_and_one_at_the_easy_end_for_all():
    def record(network: str, difficulty: Difficulty, score: float, set_name: str = "D", **changes: object) -> dict:
        arm = {"network": network, "set_name": set_name, "changes": changes}
        return {"arm": arm, "profile": {"difficulty": asdict(difficulty)}, "scores": {"pair_accuracy": score}}

    found = by_dial(
        [
            record("one", EASY, 0.9),
            record("one", replace(EASY, way=1.0), 0.8),
            record("one", replace(EASY, shapes=8), 0.7),
            record("one", FULL, 0.6),
            record("one", EASY, 0.5, attention="space"),
            record("one", EASY, 0.4, set_name="M"),
            record("other", EASY, 0.3),
        ],
        ("way", "shapes"),
        ("one",),
        right_in_pair,
    )
    assert found == {"way": {"one": [(0.7, 0.9), (1.0, 0.8)]}, "shapes": {"one": [(1, 0.9), (8, 0.7)]}}


def test_a_run_leaves_the_plateau_when_its_loss_falls_below_half_of_what_the_way_costs():
    falls = [1.8] * 10 + [0.69] * 20 + [0.0] * 20
    assert left_plateau({"loss": falls}, window=10) == 35  # 0.345 is the mean of the last ten: five of each
    assert left_plateau({"loss": falls}, window=1) == 31
    assert left_plateau({"loss": falls[:30]}, window=10) == 30  # never: all its steps
