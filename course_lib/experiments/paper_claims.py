"""What the papers claim: 40 claims, the figures that were published, and what our recorded runs are asked about them.

K400 is Kinetics-400, SSv2 Something-Something v2; figures are top-1 in percent. A claim without comparisons was not
run. To add some: `compare(what, expected, set, measure, less, more)`, the arms named as `records.by_seed` takes them,
what is expected of `more` minus `less` as "more", "less", "same" or "no less"; then lesson and sources. What tests
another sentence than the claim's has `control=True`. In brackets stands what our runs leave out.
"""

from __future__ import annotations

from course_lib.experiments.claims_page import Claim, Comparison, Records, compare, within_run
from course_lib.experiments.inputs import late_fusion
from course_lib.experiments.records import matching, training_loss
from course_lib.grid import Grid
from course_lib.layers.nonlocal_block import NO_BLOCKS
from course_lib.models.mvit import POOLING

PAIR, TOP1 = "pair_accuracy", "accuracy"


def arm(**named: object) -> dict[str, object]:
    """How runs are told from others, by what `records.by_seed` knows of them."""
    return named


SPACE, JOINT, DIVIDED = (arm(network="timesformer_tiny", attention=name) for name in ("space", "joint", "divided"))
DIVIDED_ON_D = DIVIDED | arm(attention=None)  # which it is if nothing is said
NO_CODE, CODE = (arm(network="vtn_tiny", positions=positions, steps=1500) for positions in ("none", None))
IN_ORDER, SHUFFLED = (arm(positions="learned", trained_on=trained_on) for trained_on in (None, "shuffled_frames"))
CODELESS = IN_ORDER | arm(positions="none")
COLOURS, FLOW = (arm(colours=colours, shown=None) for colours in (None, 2))
R2D, FR2D, SPLIT = (arm(network="r2plus1d_tiny", convolutions=row) for row in ("r2d", "fr2d", None))
THREE = arm(convolutions="r3d", width=None)
SPLIT_SHORT = arm(convolutions="r2plus1d", middle_relu=None)
C2D, I3D = arm(network="nonlocal_tiny"), arm(network="i3d")
BLOCKLESS, SOFTMAX = arm(nonlocal_after=repr(NO_BLOCKS)), arm(affinity="softmax")
POOLED = {kind: arm(pooling=kind) for kind in POOLING}
SEPARABLE, JOINTLY = (arm(attention=name) for name in ("separable", "joint"))
TOP_K, BY_LOT = (arm(start=start, pool=None) for start in (None, "random_rows"))
AVERAGE = arm(pool="average")
SLOW, FAST, BOTH = (arm(paths=paths, alpha=8, start=None) for paths in ("('slow',)", "('fast',)", None))

STEPS_MEAN, STEPS_READ = (arm(model=2, time_depth=depth, tubelet=None, pool="gap") for depth in (0, None))
CENTRAL, INFLATION, RANDOM = (
    arm(start=f"{way}_tubelets", embed="tubelet") for way in ("central", "averaged", "random")
)
UNIFORM = CENTRAL | arm(embed="uniform")
UNSHIFTED, SHIFTED = (arm(window=repr(Grid(2, 4, 4)), shifted=axes, shown=None, start=None) for axes in ("hw", "thw"))
ONE_WINDOW = arm(window=repr(Grid(4, 4, 4)), attention="joint", shown=None, start=None)


def with_flow(found: Records) -> list[float]:
    """On D: flow fused with colours, minus the next seed's colours fused with them: two networks both times."""
    colours, flow = ({run["seed"]: run["scores"] for run in matching(found, "D", **what)} for what in (COLOURS, FLOW))
    seeds = sorted(set(colours) & set(flow))
    gains = []
    for seed, later in zip(seeds, seeds[1:] + seeds[:1], strict=True):
        labels, first = colours[seed]["labels"], colours[seed]["logits"]
        two, twice = (late_fusion(labels, first, other["logits"]) for other in (flow[seed], colours[later]))
        gains.append(two - twice)
    return gains if len(seeds) > 1 else []


def more_on_i3d(found: Records) -> list[float]:
    """On V: by how much blocks gain more on I3D than on C2D."""
    four = [
        {run["seed"]: run["scores"][TOP1] for run in matching(found, "V", **net | part)}
        for net in (C2D, I3D)
        for part in (BLOCKLESS, SOFTMAX)
    ]
    seeds = sorted(set.intersection(*map(set, four)))
    return [(four[3][seed] - four[2][seed]) - (four[1][seed] - four[0][seed]) for seed in seeds]


def by_shares(network: str, title: str) -> tuple[Comparison, ...]:
    """How far I3D is ahead of a network, each having seen the same share of D's clips; with all, as a control."""
    return tuple(
        compare(
            f"D, top-1, {words} clips: I3D minus {title}",
            "same" if share is None else "more",
            "D",
            TOP1,
            arm(network=network, changes={}, share=share),
            arm(network="i3d_tiny", changes={}, share=share, steps=200),
            control=share is None,
        )
        for share, words in ((1 / 80, "24"), (1 / 32, "60"), (None, "all"))
    )


def telling_rows(found: Records) -> list[float]:
    """By how much more often than not, of two rows at one place, that of a telling frame varies more than filler's."""
    return [run["scores"]["events_vary_more"] - 0.5 for run in matching(found, "L", **TOP_K)]


I3D_200, I3D_400 = (arm(network="i3d_tiny", share=1 / 80, steps=steps) for steps in (200, 400))

PAPER_CLAIMS: dict[str, Claim] = {
    "C1": Claim(
        "Attention inside single frames is nearly as good as attention in space and time on Kinetics, and fails on "
        "Something-Something.",
        "TimeSformer, Table 1, K400 / SSv2: space 76.9 / 36.6, joint 77.4 / 58.5, divided 78.0 / 59.5.",
        "06",
        (
            compare("M, in the pair: divided minus space", "more", "M", PAIR, SPACE, DIVIDED),
            compare("M, in the pair: joint minus space", "more", "M", PAIR, SPACE, JOINT),
            compare("A, top-1: divided minus space", "same", "A", TOP1, SPACE, DIVIDED),
            compare("A, top-1: joint minus space", "same", "A", TOP1, SPACE, JOINT),
        ),
        ("C1",),
    ),
    "C2": Claim(
        "A temporal model on top of features of frames is cheap and worth a lot.",
        "ViViT, Table 2, K400 / Epic Kitchens: second encoder 78.8 / 43.7, mean over steps 75.8 / 38.8.",
        "07",
        (compare("D, in the pair: second encoder minus mean over steps", "more", "D", PAIR, STEPS_MEAN, STEPS_READ),),
        ("C2",),
    ),
    "C3": Claim(
        "Shuffling the frames of test clips ruins MViT and leaves ViT alone. (What it proves, two controls ask: ViT on "
        "cubes of 3 frames, MViT without a kernel over time.)",
        "MViT, Table 9, K400, in order / shuffled at test: MViT-B 77.2 / 70.1, ViT-B 68.5 / 68.4.",
        "09",
        tuple(
            Comparison(
                f"L, top-1, {title}: in order minus shuffled",
                expected,
                within_run("L", TOP1, "shuffled_accuracy", cube=cube, trained_on=None),
                control=control,
            )
            for title, expected, cube, control in (
                ("MViT", "more", None, False),
                ("ViT", "same", "(1, 16, 16)", False),
                ("ViT on cubes of 3 frames", "more", "(3, 16, 16)", True),
                ("MViT without a kernel over time", "more", "(1, 7, 7)", True),
            )
        ),
        ("C3",),
    ),
    "C4": Claim(
        "Without a position code VTN is as good or better, and shuffled frames do no harm.",
        "VTN, Table 3, K400, in order / shuffled: learned 78.4 / 78.8, fixed 78.3 / 78.5, none 78.6 / 78.9.",
        "05",
        (
            compare("D, in the pair: no code minus learned", "no less", "D", PAIR, CODE, NO_CODE),
            compare("L, top-1: no code minus learned", "no less", "L", TOP1, IN_ORDER, CODELESS),
            compare(
                "D, in the pair, learned: trained on shuffled minus in order", "no less", "D", PAIR, IN_ORDER, SHUFFLED
            ),
            compare("L, top-1, learned: trained on shuffled minus in order", "no less", "L", TOP1, IN_ORDER, SHUFFLED),
        ),
        ("C4", "tiny"),
    ),
    "C5": Claim(
        "A position code in time matters on Something-Something and hardly on Kinetics. (Our runs are of VTN.)",
        "TimeSformer, Table 4, K400 / SSv2: none 75.4 / 45.8, space 77.8 / 52.5, space and time 78.0 / 59.5.",
        "05",
        (
            compare("D, in the pair: learned code minus none", "more", "D", PAIR, NO_CODE, CODE),
            compare("L, top-1: learned code minus none", "same", "L", TOP1, CODELESS, IN_ORDER),
        ),
        ("C4", "tiny"),
    ),
    "C6": Claim("Left-right flips must be off where directions are classes."),
    "C7": Claim(
        "A motion input helps a weak motion model. (That a strong one does without it was not run.)",
        "I3D, Table 3, K400 test: colours 71.1, flow 63.4, both 74.2. SlowFast, Table 5c, its fast path: colours 75.6, "
        "grey 75.5, differences 74.5, flow 73.8.",
        "01",
        (
            Comparison("D, top-1: flow added to colours, minus other colours added", "more", with_flow),
            compare("D, top-1: flow minus colours", "more", "D", TOP1, COLOURS, FLOW),
            compare("L, top-1: flow minus colours", "less", "L", TOP1, COLOURS, FLOW, control=True),
        ),
        ("C7",),
    ),
    "C8": Claim(
        "3D beats 2D at equal depth; frames stacked as colours get no better with more frames.",
        "R(2+1)D, Table 2, K400 with 8 / 16 frames: R2D 59.5 / 58.9, f-R2D 59.4 / 60.5, R3D 61.8 / 64.2.",
        "03",
        (
            compare("D, in the pair: R(2+1)D minus f-R2D", "more", "D", PAIR, FR2D, SPLIT),
            compare(
                "D, in the pair: R2D, 16 frames minus 8",
                "same",
                "D",
                PAIR,
                R2D | arm(frames=None),
                R2D | arm(frames=16),
            ),
        ),
        ("C8", "tiny"),
    ),
    "C9": Claim(
        "Split convolutions train better than 3x3x3 ones of as many parameters.",
        "R(2+1)D, Table 2, K400 with 8 / 16 frames: R3D-18 61.8 / 64.2, R(2+1)D-18 64.8 / 68.0.",
        "03",
        (
            compare(
                "D, loss of training: R(2+1)D minus R3D",
                "less",
                "D",
                training_loss,
                THREE,
                SPLIT_SHORT,
                unit="nats",
                scale=1,
            ),
            compare("D, top-1: R(2+1)D minus R3D", "more", "D", TOP1, THREE, SPLIT_SHORT),
        ),
        ("C9",),
    ),
    "C10": Claim(
        "Whether 3D convolutions come early or late in the network hardly matters. (That part of it is enough was not "
        "run.)",
        "R(2+1)D, Table 2, K400 with 8 / 16 frames: MC3 62.9 / 64.7, rMC3 62.3 / 65.0.",
        "03",
        tuple(
            compare(
                f"D, top-1, {pixels} pixels a frame: late minus early",
                "same",
                "D",
                TOP1,
                arm(convolutions="mc3", way=way),
                arm(convolutions="rmc3", way=way),
            )
            for way, pixels in ((0.2, 2), (1.4, 14))
        ),
        ("C10",),
    ),
    "C11": Claim(
        "A start from images helps, unless there is time to learn without it.",
        "I3D, Table 3, K400 test: 68.4 from nothing, 71.1 from ImageNet. SlowFast, Table 6, 3D R50: ImageNet 73.4, "
        "from nothing 69.4 by the old recipe, 73.5 by its own.",
        "01",
        tuple(
            compare(
                f"L, top-1, {steps} steps: from stills minus from nothing",
                expected,
                "L",
                TOP1,
                arm(network="i3d_tiny", start=None, steps=steps),
                arm(network="i3d_tiny", start="inflated", steps=steps),
            )
            for steps, expected in ((50, "more"), (200, "same"))
        ),
        ("C11", "tiny"),
    ),
    "C12": Claim("Tests on longer clips than those of the training hurt; a short fine-tune repairs it."),
    "C13": Claim(
        "The form of the affinity does not matter.",
        "Non-local, Table 2a, K400: no block 71.8, gaussian 72.5, embedded 72.7, dot product 72.9, concatenation 72.8.",
        "02",
        (
            compare("V, top-1: dot product minus softmax", "same", "V", TOP1, SOFTMAX, arm(affinity="dot_product")),
            compare("V, top-1: gaussian minus softmax", "same", "V", TOP1, SOFTMAX, arm(affinity="gaussian")),
            compare("V, top-1: concatenation minus softmax", "same", "V", TOP1, SOFTMAX, arm(affinity="concatenation")),
            compare("V, top-1: plain mean minus softmax", "same", "V", TOP1, SOFTMAX, arm(affinity="uniform")),
            compare(
                "V, top-1: plain mean minus no block",
                "more",
                "V",
                TOP1,
                BLOCKLESS,
                arm(affinity="uniform"),
                control=True,
            ),
        ),
        ("C13",),
    ),
    "C14": Claim("More non-local blocks help, and not merely as depth."),
    "C15": Claim("Non-local blocks over space and time beat those over one of them."),
    "C16": Claim(
        "Non-local blocks and convolutions over time add up.",
        "Non-local, Tables 2e and 2f, R50, K400: C2D 71.8, I3D 73.3, with blocks 73.8 and 74.9.",
        "02",
        (
            compare("V, top-1: blocks on C2D minus none", "more", "V", TOP1, C2D | BLOCKLESS, C2D | SOFTMAX),
            compare("V, top-1: blocks on I3D minus none", "more", "V", TOP1, I3D | BLOCKLESS, I3D | SOFTMAX),
            Comparison("V, top-1: gain on I3D minus gain on C2D", "same", more_on_i3d),
        ),
        ("C16",),
    ),
    "C17": Claim(
        "A thin, fast path is poor alone and lifts the slow path.",
        "SlowFast, Tables 5a and 5b, K400: slow 72.6, fast 51.7, both 75.6.",
        "04",
        (
            compare("D, top-1: both paths minus slow alone", "more", "D", TOP1, SLOW, BOTH),
            compare("D, top-1: both paths minus fast alone", "more", "D", TOP1, FAST, BOTH),
            compare("L, top-1: fast alone minus slow alone", "less", "L", TOP1, SLOW, FAST),
        ),
        ("C17",),
    ),
    "C18": Claim(
        "It matters whether and how the paths join. (Where, and how many channels cross, was not varied.)",
        "SlowFast, Table 5a, K400: no join 73.5, time to channel, summed 74.5 or side by side 74.3, every eighth frame "
        "75.4, strided convolution 75.6.",
        "04",
        tuple(
            compare(
                f"D, in the pair: t_conv minus {join}",
                expected,
                "D",
                PAIR,
                arm(join=join),
                arm(join="t_conv"),
                control=expected == "same",
            )
            for join, expected in (
                ("none", "more"),
                ("t_sample", "same"),
                ("ttoc_sum", "more"),
                ("ttoc_concat", "more"),
            )
        ),
        ("C18",),
    ),
    "C19": Claim("A deeper temporal encoder brings VTN nothing."),
    "C20": Claim(
        "One pass over the whole video serves VTN, which was trained on short clips, as well as many views.",
        "VTN, Tables 6 and 7, K400, views / one pass: SlowFast 8x8 R50 77.0 / 68.4, Non-local I3D 74.1 / 72.2, R50-VTN "
        "70.9 / 71.2, ViT-B-VTN 78.6 / 78.6.",
        "05",
        (  # on D no network of this claim left chance, so that there is nothing to compare
            Comparison(
                "L, top-1, trained on pairs of frames: one pass minus views of 2",
                "no less",
                within_run("L", TOP1, "views_of_2_accuracy", start="pairs_of_frames"),
            ),
        ),
        ("C20",),
        counted="One pass costs half the multiply-adds of 30 views, counted in lesson 05. On D, where the answer is a "
        "direction, no network trained on so short clips left chance: accuracies are compared on L alone.",
    ),
    "C21": Claim("The image network of VTN must be tuned."),
    "C22": Claim("Learned attention generalises better than uniform attention."),
    "C23": Claim(
        "Divided attention is at least as accurate as joint attention.",
        "TimeSformer, Table 1, K400 / SSv2: divided 78.0 / 59.5, 121.4 M parameters, joint 77.4 / 58.5, 85.9 M.",
        "06",
        (
            compare("D, in the pair: divided minus joint", "no less", "D", PAIR, JOINT, DIVIDED_ON_D),
            compare("M, in the pair: divided minus joint", "no less", "M", PAIR, JOINT, DIVIDED),
            compare("A, top-1: divided minus joint", "no less", "A", TOP1, JOINT, DIVIDED),
        ),
        ("C1", "tiny"),
    ),
    "C24": Claim(
        "Divided attention is cheaper once there are many tokens.",
        "TimeSformer, Figure 3; mmaction2 prints 196 G multiply-adds for divided and 180 G for joint attention at 8 "
        "frames of 224 pixels.",
        "06",
        counted="Counted in lesson 06: the lines cross between 10 and 11 frames, or at 266 pixels.",
    ),
    "C25": Claim("Axial and local-global attention are worse."),
    "C26": Claim("The order of attention in time and in space hardly matters."),
    "C27": Claim("More frames always help, more pixels to a point; larger patches hurt."),
    "C28": Claim(
        "With little data convolutional networks win on motion.",
        "TimeSformer, Figure 4, SSv2: it leads SlowFast only with three quarters of the data or more.",
        "11",
        (
            *by_shares("vivit_tiny", "ViViT"),
            *by_shares("mvit_tiny", "MViT"),
            *by_shares("video_swin_tiny", "Video Swin"),
            compare(
                "D, top-1, 24 clips: I3D with 400 steps minus 200", "same", "D", TOP1, I3D_200, I3D_400, control=True
            ),
        ),
        ("C28", "tiny"),
    ),
    "C29": Claim("Full attention is best with much data, the factorised encoder with little."),
    "C30": Claim(
        "Tubelets are to start from the central frame, not by inflation or at random, and beat uniform frames.",
        "ViViT, Table 1, K400: random 73.2, inflation 77.6, uniform frames 78.5, central frame 79.2. Video Swin, "
        "Table 8: inflation 78.8, central frame 78.8.",
        "07",
        (
            compare("L, top-1: central frame minus inflation", "more", "L", TOP1, INFLATION, CENTRAL),
            compare("L, top-1: central frame minus random", "more", "L", TOP1, RANDOM, CENTRAL),
            compare("L, top-1: central frame minus uniform frames", "more", "L", TOP1, UNIFORM, CENTRAL),
        ),
        ("C30",),
    ),
    "C31": Claim(
        "Attention apart in time and space saves 3.3 times the memory at no loss.",
        "VidTr, Table 4b, 8 frames, K400: joint 7.6 GB, 77.5; apart 2.3 GB, 77.7; in space alone 2.1 GB, 74.7.",
        "08",
        (compare("L, top-1: separable minus joint", "no less", "L", TOP1, JOINTLY, SEPARABLE),),
        ("C31",),
        counted="Memory is counted in lesson 08: written out, joint attention keeps 2.4 times as much for the backward "
        "pass at 8 frames and 8.5 times at 32; in a fused kernel it keeps less than separable attention.",
    ),
    "C32": Claim(
        "Keep the frames whose rows of attention vary most, in place of a mean.",
        "VidTr, Table 4d, K400: average 74.9, strided convolution 75.4, topK_std 75.7.",
        "08",
        (
            Comparison("of two rows, the telling one varies more: share minus one half", "more", telling_rows),
            compare("L among filler, top-1: topK_std minus by lot", "more", "L", TOP1, BY_LOT, TOP_K),
            compare("L among filler, top-1: topK_std minus average", "more", "L", TOP1, AVERAGE, TOP_K),
        ),
        ("C32",),
    ),
    "C33": Claim("Pooling keys and values is nearly free."),
    "C34": Claim(
        "Learned pooling beats the maximum, the maximum the mean.",
        "MViT, Table 15, K400, kernels one longer than the stride: conv 78.3, max 77.2, average 75.4.",
        "09",
        (
            compare("D, in the pair: conv minus max", "more", "D", PAIR, POOLED["max"], POOLED["conv"]),
            compare("D, in the pair: max minus average", "more", "D", PAIR, POOLED["average"], POOLED["max"]),
            compare(
                "D, in the pair: average with conv's norm minus average",
                "same",
                "D",
                PAIR,
                POOLED["average"],
                POOLED["average_norm"],
                control=True,
            ),
        ),
        ("C34",),
    ),
    "C35": Claim("Relative positions and the residual pooled query are what MViTv2 adds."),
    "C36": Claim(
        "Inside local windows joint attention beats split and factorised attention. (Split was not run.)",
        "Video Swin, Table 4, K400: joint 78.8, split 76.4, factorised 78.5.",
        "10",
        tuple(
            compare(
                f"D, in the pair, windows of {words}: joint minus factorised",
                expected,
                "D",
                PAIR,
                arm(window=repr(box), attention="factorised"),
                arm(window=repr(box), attention="joint"),
                control=expected == "less",
            )
            for words, box, expected in (
                ("2x2x2 tokens", Grid(2, 2, 2), "more"),
                ("the whole clip", Grid(4, 4, 4), "less"),  # if the size of the window reconciles it with C23
            )
        ),
        ("C36",),
    ),
    "C37": Claim(
        "Windows that are longer in time help, and so do windows that shift in time.",
        "Video Swin, Tables 5 and 6, K400: windows of 4, 8 and 16 steps (of two frames) 78.6, 78.8 and 79.1; no shift "
        "in time 78.5, with it 78.8.",
        "10",
        (
            compare("D, in the pair, two windows of frames: shifted minus not", "more", "D", PAIR, UNSHIFTED, SHIFTED),
            compare("D, in the pair: one window minus two, shifted", "no less", "D", PAIR, SHIFTED, ONE_WINDOW),
        ),
        ("C37", "C36"),
        counted="Without a shift in time the order of whole windows of frames changes no logit: lesson 10 proves and "
        "measures it. Whether a shift makes that order learnable was not seen: on G, with one seed an arm, networks "
        "with a shift and without were at chance, 49.4 % and 48.5 % in the pair.",
    ),
    "C38": Claim("The body of a network is to be trained ten times more slowly than its head."),
    "C39": Claim("The pyramid of MViT and its local cubes stand in for pretraining."),
    "C40": Claim("To leave out the norm on a skip that widens costs points."),
}
