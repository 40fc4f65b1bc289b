"""The experiments, one function a claim: which arms it compares in a profile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from course_lib.experiments.frames import by_views, in_any_order, pairs_of_frames, shuffled_frames, single_frames
from course_lib.experiments.inputs import difference, grey, logits_of, two_stills
from course_lib.experiments.keeping import among_filler, event_frames, random_rows, rows_by_kind
from course_lib.experiments.recipes import RECIPES, Recipe
from course_lib.experiments.runs import Arm
from course_lib.experiments.starts import (
    averaged_tubelets,
    central_tubelets,
    fast_after_d,
    fast_as_drawn,
    inflated,
    random_tubelets,
    slices,
    slow_answers,
    symmetric_in_time,
    time_as_strong,
)
from course_lib.grid import Grid
from course_lib.layers.nonlocal_block import AFFINITIES, NO_BLOCKS
from course_lib.models.mvit import VIT
from course_lib.models.slowfast import JOINS
from course_lib.profiles import STANDS_FOR, Profile
from course_lib.synthetic.difficulty import EASY, FULL


def c1(profile: Profile) -> tuple[Arm, ...]:
    """Attention inside single frames is enough where looks decide, and not where motion does."""
    network = "timesformer_b_8x224" if profile.full else "timesformer_tiny"
    return tuple(
        Arm(network, set_name, (("attention", attention), ("scratch", True)))
        for set_name in ("A", "M")
        for attention in ("space", "divided", "joint")
    )


SHORT = Recipe(150, 16, 1e-3)  # half of what r2plus1d_tiny needs, so that networks can still differ
SHORTER = Recipe(100, 16, 1e-3)
FACTORED: tuple[tuple[tuple[str, object], ...], ...] = (
    (("convolutions", "r3d"),),
    (("convolutions", "r2plus1d"),),
    (("convolutions", "r2plus1d"), ("middle_relu", False)),
    (("convolutions", "r3d"), ("depths", (2, 2, 2, 2)), ("width", 8)),
)


def c9(profile: Profile) -> tuple[Arm, ...]:
    """Factored convolutions train better than 3x3x3 ones of as many parameters. Two controls: factored without the norm
    and ReLU between its halves, and 3x3x3 with as many ReLUs, deeper and narrower."""
    if profile.full:
        return tuple(Arm("r2plus1d_18_paper", "D", changes) for changes in FACTORED[:2])
    return tuple(Arm("r2plus1d_tiny", "D", changes, recipe=SHORT) for changes in FACTORED)


WAYS = (0.2, 1.4)  # about 2 and 14 pixels from one given frame to the next


def c10(profile: Profile) -> tuple[Arm, ...]:
    """3D convolutions early in the network or late, against how far things move from frame to frame."""
    network = "r2plus1d_18_paper" if profile.full else "r2plus1d_tiny"
    return tuple(
        Arm(network, "D", (("convolutions", row),), replace(EASY, way=way), recipe=SHORTER)
        for way in WAYS
        for row in ("mc3", "rmc3")
    )


FEW, SOME = (Recipe(steps, 16, 1e-3) for steps in (50, 100))  # i3d_tiny needs 200


def i3d(profile: Profile) -> tuple[str, tuple[tuple[str, object], ...]]:
    """The network of C7 and C11 and its changes: generated clips have too few frames for 64."""
    return ("i3d_inception", (("frames", 8),)) if profile.full else ("i3d_tiny", ())


def c7(profile: Profile) -> tuple[Arm, ...]:
    """A motion input helps a weak motion model: colours, grey, differences and exact flow, each alone;
    their logits are recorded, so that any of them can be added to those of the colours (late fusion)."""
    network, always = i3d(profile)
    return tuple(
        Arm(network, set_name, always + changes, recipe=SOME, shown=shown, measure=logits_of)
        for set_name in ("D", "L")
        for changes, shown in (((), None), ((), grey), ((), difference), ((("colours", 2),), None))
    )


def c11(profile: Profile) -> tuple[Arm, ...]:
    """Inflated image weights help, unless there is time to learn without: two starts and a short schedule, and the
    inflated start with the network's own schedule, which from nothing is in `tiny`."""
    network, always = i3d(profile)
    return (
        *(
            Arm(network, set_name, always, recipe=FEW, start=start)
            for set_name in ("L", "D")
            for start in (None, inflated)
        ),
        *(Arm(network, set_name, always, start=inflated) for set_name in ("L", "D")),
    )


SEES = {"nonlocal_tiny": (("network", "i3d"),)}  # non-local blocks on 2D convolutions know no order
BLIND = (  # the reverse of a clip gets the same logits
    ("timesformer_tiny", (("attention", "space"),)),
    ("nonlocal_tiny", ()),
    ("vtn_tiny", (("positions", "none"),)),
    ("r2plus1d_tiny", (("convolutions", "fr2d"),)),
)


def tiny(profile: Profile) -> tuple[Arm, ...]:
    """Every tiny network learns what lessons use it for: directions on D, looks on L. Those blind to order stay so."""
    return (
        *(Arm(network, "D", SEES.get(network, ())) for network in RECIPES),
        Arm("timesformer_tiny", "D", (("attention", "joint"),)),
        *(Arm(network, "D", changes) for network, changes in BLIND),
        *(Arm(network, "L") for network in RECIPES),
    )


FRAMES_AS_COLOURS = ((("convolutions", "r2d"),), (("convolutions", "r2d"), ("frames", 16)))


def c8(profile: Profile) -> tuple[Arm, ...]:
    """R2D, whose first layer takes the frames for colours, sees the order, and gains nothing by more frames.

    f-R2D, which takes frame by frame, is in `tiny`.
    """
    if profile.full:
        return tuple(Arm("r2d_18", "D", changes) for changes in FRAMES_AS_COLOURS)
    return tuple(Arm("r2plus1d_tiny", "D", changes) for changes in FRAMES_AS_COLOURS)


DIALS: dict[str, tuple[Any, ...]] = {  # of set D, one at a time, all others as in EASY
    "texture": (1.0,),
    "shapes": (8,),
    "way": (0.05, 0.2, 1.4),
    "turn": (0.25, 1.0),
}
TURNED = ("vivit_tiny", "i3d_tiny")


def dials(profile: Profile) -> tuple[Arm, ...]:
    """What each dial of the difficulty does to a transformer and to a convolutional network; at the end all of them.

    At EASY itself they are in `tiny`.
    """
    settings = [*(replace(EASY, **{name: value}) for name in DIALS for value in DIALS[name]), FULL]
    return tuple(Arm(network, "D", (), setting) for network in TURNED for setting in settings)


RATES = (("alpha", 8), ("beta", 8))  # of the paper; the tiny network of `tiny` has 4 and 4
ONE_PATH = {path: (*RATES, ("paths", (path,))) for path in ("slow", "fast")}


def two_paths(profile: Profile) -> tuple[str, Recipe]:
    """The network of lesson 04 and a recipe that leaves room for one of its paths to be better than another."""
    return "slowfast_r50_4x16" if profile.full else "slowfast_tiny", Recipe(200, 16, 1e-3)


def c17(profile: Profile) -> tuple[Arm, ...]:
    """A thin, fast path is poor alone and lifts the slow path; also one that stays as it is."""
    network, short = two_paths(profile)
    return (
        *(
            Arm(network, set_name, changes, recipe=short)
            for set_name in ("L", "D")
            for changes in (ONE_PATH["slow"], ONE_PATH["fast"], RATES)
        ),
        Arm(network, "D", (("alpha", 4), *ONE_PATH["slow"][1:]), recipe=short),  # twice the frames
        *(Arm(network, "D", RATES, recipe=short, start=start) for start in (fast_after_d, fast_as_drawn)),
    )


def c18(profile: Profile) -> tuple[Arm, ...]:
    """Where and how the paths join: what crosses, if the slow path alone is heard."""
    network, short = two_paths(profile)
    return tuple(Arm(network, "D", (*RATES, ("join", join)), recipe=short, start=slow_answers) for join in JOINS)


WITHOUT = ("nonlocal_after", NO_BLOCKS)


def c13(profile: Profile) -> tuple[Arm, ...]:
    """The affinity of a non-local block does not matter: four of them, the plain mean over the clip, and no block."""
    network = "c2d_nl_r50_8x8" if profile.full else "nonlocal_tiny"
    arms = (WITHOUT, *(("affinity", affinity) for affinity in ("uniform", *AFFINITIES[:4])))
    return tuple(Arm(network, "V", (change,), recipe=Recipe(200, 16, 3e-3)) for change in arms)


def c16(profile: Profile) -> tuple[Arm, ...]:
    """Non-local blocks and convolutions over time add up: with and without each, where speeds are to be told apart.

    Where directions are, `tiny` and lesson 02 have it: convolutions learn them, and blocks on C2D cannot.
    """

    def arm(kind: str, part: tuple[str, object]) -> Arm:
        changes = (part,) if kind == "c2d" else (("network", kind), part)
        full = f"{kind}_nl_r50_8x8"
        return Arm(full if profile.full else "nonlocal_tiny", "V", changes, recipe=Recipe(200, 16, 3e-3))

    return tuple(arm(kind, part) for kind in ("c2d", "i3d") for part in (WITHOUT, ("affinity", "softmax")))


def c4(profile: Profile) -> tuple[Arm, ...]:
    """VTN needs no position code, and shuffled frames do no harm, where looks decide; not where the direction does."""
    network = "vtn_vit_b" if profile.full else "vtn_tiny"
    return tuple(
        Arm(
            network,
            set_name,
            (("positions", positions), ("scratch", True)) if profile.full else (("positions", positions),),
            recipe=short,
            trained_on=trained_on,
            measure=in_any_order,
        )
        for set_name, short in (("L", Recipe(150, 32, 1e-3)), ("D", Recipe(500, 16, 1e-3)))
        for positions in ("learned", "none", "fixed")
        for trained_on in (None, shuffled_frames)
    )


def c20(profile: Profile) -> tuple[Arm, ...]:
    """VTN trained on short views serves for one pass over the whole clip, if the answer lies in a view."""
    network = "vtn_vit_b" if profile.full else "vtn_tiny"
    changes = (("frames", 8), ("scratch", True)) if profile.full else ()
    designs = (
        ("L", pairs_of_frames, Recipe(400, 32, 1e-3)),
        ("D", pairs_of_frames, Recipe(1300, 16, 1e-3)),
        ("D", single_frames, Recipe(1300, 16, 1e-3)),
    )
    return tuple(
        Arm(network, set_name, changes, recipe=recipe, start=start, measure=by_views)
        for set_name, start, recipe in designs
    )


FAMILIES = ("vivit_tiny", "mvit_tiny", "video_swin_tiny")  # plain, pooled keys, windows; and i3d
SHARES = (1 / 80, 1 / 32, 1 / 8)  # 24, 60 and 240 clips of 1920


def c28(profile: Profile) -> tuple[Arm, ...]:
    """With little data convolutional networks win on motion: one network of each family on shares of D, as many steps
    for each share; on the least I3D also with those of Video Swin. The whole set is in `tiny`."""
    families = ("vivit_b_16x2_model2", "mvit_b_16x4", "video_swin_t_32x224") if profile.full else FAMILIES
    networks = (i3d(profile), *((name, ()) for name in families))
    longer = () if profile.full else (Arm("i3d_tiny", "D", recipe=RECIPES["video_swin_tiny"][1], share=SHARES[0]),)
    return (*(Arm(network, "D", changes, share=share) for share in SHARES for network, changes in networks), *longer)


def c31(profile: Profile) -> tuple[Arm, ...]:
    """Attention along time, then along space, is as good as joint attention. Notebook 08 counts the memory of both."""
    network = "vidtr_s_8x224" if profile.full else "vidtr_tiny"
    return tuple(
        Arm(network, "L", (("attention", attention),), recipe=Recipe(200, 16, 1e-3))
        for attention in ("separable", "joint")
    )


DROPS = (("frames", 16), ("pools", ((1, 4),)))  # a C-VidTr that goes from 16 frames to 4, once


def c32(profile: Profile) -> tuple[Arm, ...]:
    """Frames stay whose rows of attention vary most, where most frames are filler: against frames by lot, those that an
    oracle knows to tell, and the average of neighbours."""
    network, always = ("cvidtr_m_16x224", (*DROPS, ("scratch", True))) if profile.full else ("cvidtr_tiny", DROPS)
    return tuple(
        Arm(
            network,
            "L",
            always + changes,
            recipe=Recipe(300, 16, 1e-3),
            start=start,
            shown=among_filler,
            measure=rows_by_kind,
        )
        for changes, start in (((), None), ((), random_rows), ((), event_frames), ((("pool", "average"),), None))
    )


SMALL_MVIT: tuple[str, object] = ("dim", 24)  # half as dear as mvit_tiny
SMALL_VIT: tuple[tuple[str, object], ...] = tuple(
    (VIT | dict(depths=(3,), dim=64, heads=4)).items()
)  # one scale, as dear as joint attention elsewhere
NO_TIME: tuple[tuple[str, object], ...] = (
    ("cube", (1, 7, 7)),
    ("kernel", None),
)  # no kernel of MViT reaches from frame to frame


def c3(profile: Profile) -> tuple[Arm, ...]:
    """Shuffled frames harm MViT and not ViT: tested on them, or trained. Two controls that the paper lacks: ViT on
    cubes of three frames that overlap, MViT without a kernel over time."""
    network = "mvit_b_16x4" if profile.full else "mvit_tiny"
    always: tuple[tuple[str, object], ...] = (("scratch", True), ("frames", 8)) if profile.full else (SMALL_MVIT,)
    vit = (*always, *VIT.items()) if profile.full else SMALL_VIT
    short, wide = Recipe(200, 16, 1e-3), Recipe(250, 32, 1e-3)
    nets = (
        (always, short),
        (vit, wide),
        (tuple((dict(vit) | dict(cube=(3, 16, 16))).items()), wide),
        ((*always, *NO_TIME), short),
    )
    return tuple(
        Arm(network, "L", changes, recipe=recipe, trained_on=trained_on, measure=in_any_order)
        for trained_on in (None, shuffled_frames)
        for changes, recipe in nets
    )


def c34(profile: Profile) -> tuple[Arm, ...]:
    """Keys pooled by a learned kernel, by the greatest or by the mean. The released learned one is followed by a norm,
    the others are not: one control more, the mean with that norm."""
    network, always = ("mvit_b_16x4", ("scratch", True)) if profile.full else ("mvit_tiny", SMALL_MVIT)
    return tuple(
        Arm(network, "D", (always, *changes), recipe=Recipe(100, 16, 1e-3))
        for changes in (
            (("pooling", "conv"),),
            (("pooling", "max"),),
            (("pooling", "average"),),
            (("pooling", "average_norm"),),
        )
    )


COARSE = (  # video_swin_tiny as one stage of 4 x 4 x 4 tokens: a window means the same throughout
    ("patch", Grid(2, 16, 16)),
    ("dim", 64),
    ("depths", (4,)),
    ("heads", (4,)),
)
HASTE = Recipe(500, 16, 1e-3)


def c36(profile: Profile) -> tuple[Arm, ...]:
    """In small windows attention over space and time at once is ahead of one after the other; not where a window is
    the whole clip."""
    return tuple(
        Arm("video_swin_tiny", "D", (*COARSE, ("window", window), ("attention", kind)), recipe=HASTE, start=start)
        for window in (Grid(2, 2, 2), Grid(4, 4, 4))
        for kind, start in (("joint", None), ("factorised", time_as_strong))
    )


def c37(profile: Profile) -> tuple[Arm, ...]:
    """Two windows of frames, with and without a shift in time; one window for all is in C36. What none of them learned:
    two pictures, and G, the order of two events. And what tells time: a table alone, with patches of one frame; patches
    alone, with tables that cannot."""
    one, two = ((*COARSE, ("window", Grid(frames, 4, 4))) for frames in (4, 2))
    single = (("patch", Grid(1, 16, 16)), *COARSE[1:], ("window", Grid(8, 4, 4)))
    events = (("patch", Grid(2, 8, 8)), *COARSE[1:], ("frames", 16), ("window", Grid(4, 4, 4)))
    shifts = [("shifted", shifted) for shifted in ("hw", "thw")]
    return (
        *(Arm("video_swin_tiny", "D", (*two, shift), recipe=HASTE) for shift in shifts),
        Arm("video_swin_tiny", "D", single, recipe=HASTE),
        Arm("video_swin_tiny", "D", (*two, shifts[1]), recipe=HASTE, start=symmetric_in_time),
        *(Arm("video_swin_tiny", "D", (*some, shifts[1]), recipe=HASTE, shown=two_stills) for some in (one, two)),
        *(Arm("video_swin_tiny", "G", (*events, shift), recipe=Recipe(600, 16, 1e-3)) for shift in shifts),
    )


def vivit(profile: Profile) -> tuple[str, tuple[tuple[str, object], ...]]:
    """The network of C2 and C30 and its changes: generated clips have too few frames for 32."""
    return ("vivit_b_16x2_model1", (("frames", 8), ("scratch", True))) if profile.full else ("vivit_tiny", ())


def c2(profile: Profile) -> tuple[Arm, ...]:
    """Something that relates the steps is worth a lot and costs little: the four models of ViViT against the mean over
    steps, which is blind to order only if a tubelet holds one frame."""
    network, always = vivit(profile)
    encoder, mean = (("model", 2),), (("model", 2), ("time_depth", 0))
    gap = ("pool", "gap")
    arms: tuple[tuple[tuple[str, object], ...], ...] = (
        (*mean, gap),
        (*encoder, gap),
        (*mean, ("tubelet", (1, 16, 16))),
        mean,
        encoder,
        (("model", 1),),
        (("model", 3), gap),
        (("model", 4), gap),
    )
    return tuple(Arm(network, "D", always + changes, recipe=Recipe(1000, 16, 1e-3)) for changes in arms)


def c30(profile: Profile) -> tuple[Arm, ...]:
    """Tubelets are to start from the central frame, not by inflation; and uniform frames in place of tubelets."""
    network, always = vivit(profile)
    always += (("tubelet", (4, 16, 16)),)
    starts = ((central_tubelets, "tubelet"), (averaged_tubelets, "tubelet"), (random_tubelets, "tubelet"))
    return tuple(
        Arm(network, set_name, (*always, ("embed", embed)), recipe=recipe, start=start, measure=slices)
        for set_name, recipe in (("L", Recipe(60, 32, 1e-3)), ("D", Recipe(600, 16, 1e-3)))
        for start, embed in (*starts, (central_tubelets, "uniform"))
    )


CLAIMS: dict[str, Callable[[Profile], tuple[Arm, ...]]] = {
    "C1": c1,
    "C3": c3,
    "C4": c4,
    "C7": c7,
    "C8": c8,
    "C9": c9,
    "C10": c10,
    "C11": c11,
    "C13": c13,
    "C16": c16,
    "C17": c17,
    "C18": c18,
    "C20": c20,
    "C28": c28,
    "C31": c31,
    "C32": c32,
    "C34": c34,
    "C36": c36,
    "C37": c37,
    "C2": c2,
    "C30": c30,
    "tiny": tiny,
    "dials": dials,
}


def on_set(arms: Iterable[Arm], set_name: str) -> tuple[Arm, ...]:
    """The arms on one set; for K and S those on the generated sets that it stands for, on it, without the dials that
    films have not, and without those arms that want exact flow or a share of the clips. ValueError if none is left."""
    arms = tuple(arms)
    if set_name in STANDS_FOR.values():
        meant = [arm for arm in arms if STANDS_FOR.get(arm.set_name) == set_name]
        able = [arm for arm in meant if ("colours", 2) not in arm.changes and arm.share == 1]
        if meant and not able:
            raise ValueError(f"every arm wants exact flow or a share of the clips, which set {set_name} has not")
        here = tuple(dict.fromkeys(replace(arm, set_name=set_name, difficulty=None) for arm in able))
    else:
        here = tuple(arm for arm in arms if arm.set_name == set_name)
    if not here:
        sets = sorted({arm.set_name for arm in arms})
        real = sorted({STANDS_FOR[name] for name in sets if name in STANDS_FOR})
        raise ValueError(f"no arm runs on set {set_name!r}: there are {', '.join([*sets, *real])}")
    return here
