"""How the papers train: one recipe each, as data. Every value is that of the released code, which differs from some
papers, or says what it is instead.

    recipe("video_swin_t_32x224", "K")           # the paper's
    recipe("video_swin_t_32x224", "K", "short")  # shortened, for one GPU

Sources are files of GitHub repositories: PySlowFast is facebookresearch/SlowFast, whose defaults (Nesterov's momentum
0.9, no decay of batch norms, a clock of 30 frames a second, three crops of ten clips) hold where a file says nothing.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from course_lib.models import NETWORKS, configure
from course_lib.training.recipe import Recipe, changed
from course_lib.video.transforms import IMAGENET, Colours

MINUS_TO_ONE = Colours((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SLOWFAST = Recipe(
    source="PySlowFast configs/Kinetics/SLOWFAST_8x8_R50.yaml; SLOW_*, SLOWFAST_4x16_R50.yaml have the same solver",
    aims_at="K400 77.0, slowfast_r50_8x8, 10x3 (paper, table 2)",
    lr=0.1,
    epochs=196,
    warmup=34,
    first_lr=0.01,
    cosine_from="start",
    dropout=0.5,
    strides={32: 2, 64: 2, 4: 16, 8: 8},
    precise_bn=200,
    test_size=256,
)
MVIT = Recipe(
    source="PySlowFast configs/Kinetics/MVIT_B_16x4_CONV.yaml, MVITv2_S_16x4.yaml, MVITv2_B_32x3.yaml: 16 clips a "
    "node, each twice, rate times nodes; 5 clips, 1 crop in MVITv2 and in both papers' tables",
    aims_at="K400 78.4, mvit_b_16x4, 5x1 (paper, table 4); 81.0, mvitv2_s_16x4; 82.9, mvitv2_b_32x3 (v2, table 10)",
    optimizer="adamw",
    lr=1e-4,
    lr_clips=16,
    weight_decay=0.05,
    spared="vectors",  # ZERO_WD_1D_PARAM
    grad_clip=1.0,
    batch=256,  # 16 nodes, so that the rate is the 1.6e-3 of the paper
    epochs=200,
    warmup=30,
    first_lr=1e-6,
    last_lr=1e-6,
    dropout=0.5,
    label_smoothing=0.1,
    mixup=0.8,
    cutmix=1.0,
    repeats=2,
    strides={16: 4, 32: 3, 40: 3},
    area=(0.08, 1.0),
    randaugment=7,  # rand-m7-n4-mstd0.5-inc1
    erasing=0.25,
    views=(5, 1),
)
VIDEO_SWIN = Recipe(
    source="SwinTransformer/Video-Swin-Transformer swin_tiny_patch244_window877_kinetics400_1k.py: 8 GPUs of 8 clips a "
    "step (mmaction/apis/train.py parts them in 4 for update_interval); mmcv lets the longest matching key win, so "
    "norms decay and tables learn at the head's rate",
    aims_at="K400 78.8, video_swin_t_32x224, 4x3 (paper, table 1)",
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.02,
    spared="tables",
    backbone_lr=0.1,
    batch=64,
    epochs=30,
    warmup=2.5,
    first_lr=1e-4,  # mmcv's warmup_ratio
    cosine_from="start",
    dropout=0.5,
    drop_path=0.1,
    strides={32: 2},
    fps=None,
    short_side=(256, 256),
    area=(0.08, 1.0),
    colours=IMAGENET,
    views=(4, 3),
    test_short_side=224,
)
TIMESFORMER = Recipe(
    source="facebookresearch/TimeSformer configs/Kinetics/TimeSformer_divST_8x32_224.yaml, the same on SSv2",
    aims_at="K400 78.0, timesformer_b_8x224, 1x3 (paper, table 5)",
    lr=0.005,
    lr_clips=8,
    batch=8,
    epochs=15,
    schedule="steps",
    milestones=(11, 14),
    strides={8: 32, 16: 16, 96: 4},
    views=(1, 3),
    test_short_side=224,
)
VIVIT = Recipe(
    source="google-research/scenic vivit/configs/kinetics400/vivit_base_k400.py; momentum without Nesterov's form",
    aims_at="K400 80.0, vivit_b_16x2_model1, 4 clips (paper, table 2); 79.9, 4x3 (its README)",
    lr=0.1,
    nesterov=False,
    weight_decay=0,
    spared="nothing",
    grad_clip=1.0,
    epochs=30,
    warmup=2.5,
    cosine_from="start",
    strides={32: 2},
    fps=25,
    short_side=(230, 340),  # 0.9 to 1.33 times 256
    colour=0.8,
    grey=0.1,
    colours=MINUS_TO_ONE,
    views=(4, 3),
)
VIDTR = Recipe(
    source="amazon-science/gluonmm vidtr_s_8x8_patch16_224_k400.yaml: 8 GPUs of 3 clips; torch's SGD "
    "without Nesterov's form, decay of everything",
    aims_at="K400 77.7, vidtr_s_8x224, 10x3 (paper, table 2)",
    lr=0.01,
    lr_clips=24,
    batch=24,
    nesterov=False,
    weight_decay=1e-5,
    spared="nothing",
    epochs=50,
    schedule="steps",
    milestones=(25, 40),
    strides={8: 8, 16: 4, 32: 2},
    fps=None,  # kinetics_datasets.py counts the file's frames
    colours=IMAGENET,
    test_short_side=224,
)
RECIPES = {  # paper, network or family of the paper, "+ssv2" for Something-Something v2: the longest that fits is taken
    "i3d": Recipe(
        source="paper, implementation details (momentum 0.9, 64 frames at 25 a second, side 256, 110 000 steps) and "
        "piergiaj/pytorch-i3d train_i3d.py (decay); the paper has no rate, and lowers it when validation stalls: the "
        "rate is SlowFast's, the falls at 20 and 26 are ours",
        aims_at="K400 71.1 on the test set, i3d_inception from ImageNet, whole video (paper, table 3); 68.4 without",
        nesterov=False,
        weight_decay=1e-7,
        epochs=30,  # 110 000 steps of 64 clips
        schedule="steps",
        milestones=(20, 26),
        dropout=0.5,
        strides={64: 1},
        fps=25,
        short_side=(256, 256),
        colours=MINUS_TO_ONE,
        views=(1, 1),
        test_frames=250,
    ),
    "nonlocal": replace(
        SLOWFAST,
        source="PySlowFast configs/Kinetics/I3D_8x8_R50.yaml, C2D_8x8_R50.yaml, I3D_NLN_8x8_R50.yaml: from nothing",
        aims_at="K400 73.5, i3d_r50_8x8; 74.0, i3d_nl_r50_8x8, 10x3 (PySlowFast's model zoo)",
        strides={8: 8, 32: 2},
    ),
    "r2plus1d": Recipe(
        source="paper, section 4.1: 45 epochs of a million clips, 10 of them a climb, then a tenth every 10; 0.01 for "
        "32 clips of a GPU. facebookresearch/VMZ c2/scripts/train_r2plus1d_kinetics.sh (decay; 35 epochs there)",
        aims_at="K400 68.0, r2plus1d_18 of 16 frames, 10x1 (paper, table 2)",
        lr=0.01,
        lr_clips=32,
        batch=256,
        epochs=188,  # 45 million of 240 000 clips
        schedule="steps",
        milestones=(83, 125, 167),
        warmup=42,
        strides={8: 1, 16: 1, 32: 1},
        short_side=(256, 320),  # 128 to 160 where the network sees 112
        views=(10, 1),
    ),
    "slowfast": SLOWFAST,
    "slowfast+ssv2": replace(
        SLOWFAST,
        source="PySlowFast configs/SSv2/SLOWFAST_16x8_R50.yaml, which starts from slowfast_r50_8x8 of Kinetics",
        aims_at="SSv2 63.0, slowfast_r50_16x8_ssv2, 1x1 (PySlowFast's model zoo; views as in its file)",
        lr=0.03,
        lr_clips=16,
        batch=16,
        weight_decay=1e-6,
        epochs=22,
        schedule="steps",
        milestones=(14, 18),
        warmup=0.19,
        first_lr=1e-4,
        sync_bn=True,
        views=(1, 1),
    ),
    "vtn": Recipe(
        source="bomri/SlowFast configs/Kinetics/VIT_B_VTN.yaml",
        aims_at="K400 78.6, vtn_vit_b, the whole video once (paper, table 1)",
        lr=0.001,
        lr_clips=16,
        batch=16,
        epochs=25,
        schedule="steps",
        milestones=(13, 24),
        strides={16: 8},
        fps=25,
        views=(1, 1),
        test_frames=250,
    ),
    "timesformer": TIMESFORMER,
    "timesformer_hr": replace(
        TIMESFORMER,
        source="facebookresearch/TimeSformer configs/Kinetics/TimeSformer_divST_16x16_448.yaml, the same on SSv2",
        aims_at="K400 79.7, timesformer_hr_16x448, 1x3 (paper, table 5)",
        short_side=(224, 256),  # 448 to 512 where the network sees 448
    ),
    "vivit": VIVIT,
    "vivit_b_16x2_model2": replace(
        VIVIT,
        source="google-research/scenic vivit/configs/kinetics400/vivit_base_factorised_encoder.py",
        aims_at="K400 78.8, vivit_b_16x2_model2, 4 clips (paper, table 2); 78.4, 4x3 (its README)",
        lr=0.05,
    ),
    "vidtr": VIDTR,
    "cvidtr": replace(
        VIDTR,
        source="amazon-science/gluonmm cvidtr_s_8x8_patch16_224_k400.yaml: as VidTr, but 8 GPUs of 8 clips",
        aims_at="K400 75.7, cvidtr_s_8x224, 10x3 (paper, table 3)",
        lr_clips=64,
        batch=64,
    ),
    "mvit": MVIT,
    "mvitv2+ssv2": replace(
        MVIT,
        source="PySlowFast configs/SSv2/MVITv2_S_16x4.yaml, which starts from mvitv2_s_16x4 of Kinetics",
        aims_at="SSv2 68.2, mvitv2_s_16x4, 1x3 (v2, table 13)",
        optimizer="sgd",
        lr=0.0025,
        weight_decay=1e-4,
        grad_clip=1e9,
        batch=64,  # ours: the file's 16 are those of one node, and it does not say how many there were
        epochs=100,
        warmup=3,
        first_lr=1e-4,
        drop_path=0.4,
        repeats=1,
        area=None,  # the file has no TRAIN_JITTER_SCALES_RELATIVE, so the short side is what is drawn
        views=(1, 3),
        test_short_side=224,
    ),
    "video_swin": VIDEO_SWIN,
    "video_swin_b": replace(
        VIDEO_SWIN,
        source="SwinTransformer/Video-Swin-Transformer swin_base_patch244_window877_kinetics400_1k.py",
        aims_at="K400 80.6, video_swin_b_32x224 from ImageNet-1K, 4x3 (paper, table 1)",
        weight_decay=0.05,
        drop_path=0.3,
    ),
    "video_swin+ssv2": replace(
        VIDEO_SWIN,
        source="SwinTransformer/Video-Swin-Transformer swin_base_patch244_window1677_sthv2.py, from Kinetics",
        aims_at="SSv2 69.6, video_swin_b_ssv2_32x224, 1x3 (paper, table 3)",
        lr=3e-4,
        weight_decay=0.05,
        epochs=60,
        first_lr=3e-5,  # a tenth of this rate
        drop_path=0.4,
        label_smoothing=0.1,
        randaugment=7,
        erasing=0.25,
        views=(1, 3),
    ),
}
PAPERS = {  # class of network: its paper
    "I3D": "i3d",
    "NonLocalNet": "nonlocal",
    "R2Plus1D": "r2plus1d",
    "SlowFast": "slowfast",
    "VTN": "vtn",
    "TimeSformer": "timesformer",
    "ViViT": "vivit",
    "VidTr": "vidtr",
    "CVidTr": "cvidtr",
    "MViT": "mvit",
    "VideoSwin": "video_swin",
}
FROM_IMAGES = {
    "timesformer",
    "vtn",
    "vivit",
    "vidtr",
    "cvidtr",
    "video_swin",
}  # papers whose rate supposes a start from images
KINDS = ("paper", "short")
SHORT_EPOCHS, SHORT_BATCH = 12, 32


def recipe(network: str, data: str = "K", kind: str = "paper", changes: dict[str, str] | None = None) -> Recipe:
    """The recipe of a network on set `data`, shortened if `kind` is "short"; `changes` are texts, as `--set` has them.

    ValueError for an unknown network, kind, key or value.
    """
    configure(network)  # says near names
    if kind not in KINDS:
        raise ValueError(f"no recipe {kind!r}: use {' or '.join(KINDS)}")
    paper = PAPERS[NETWORKS[network][0].__name__]
    fitting = [
        name
        for name in RECIPES
        if (stem := name.removesuffix("+ssv2")) and (stem == paper or network.startswith(stem))
        if data == "S" or stem == name
    ]
    found = RECIPES[max(fitting, key=lambda name: (name.endswith("+ssv2"), len(name)))]
    if data == "S":
        found = replace(found, flip=False)
        if found.aims_at.startswith("K400"):
            found = replace(found, aims_at="nothing published on SSv2: by the recipe of K400")
    if data != "K" and not data.endswith(".csv"):  # sampled over the whole video: there is one clip in time
        found = replace(found, views=(1, found.views[1]), test_frames=None)
    if kind == "short":
        found = shortened(found)
    return changed(found, changes or {})


def shortened(recipe: Recipe) -> Recipe:
    """The same in fewer epochs and with fewer clips a step, for one GPU: the climb and the falls in proportion."""
    epochs = min(recipe.epochs, SHORT_EPOCHS)
    share = epochs / recipe.epochs
    return replace(
        recipe,
        epochs=epochs,
        warmup=recipe.warmup * share,
        milestones=tuple(epoch * share for epoch in recipe.milestones),
        batch=min(recipe.batch, SHORT_BATCH),
        repeats=1,
        precise_bn=min(recipe.precise_bn, 50),
    )


def network_changes(network: str, recipe: Recipe) -> dict[str, Any]:
    """Dropout and drop path as the network's own config calls them; a network without them has none to set."""
    config = configure(network)
    names = {field.name for field in fields(config)}
    head = "head_dropout" if "head_dropout" in names else "dropout"
    wanted = {head: recipe.dropout, "drop_path": recipe.drop_path}
    lacking = [name for name, value in wanted.items() if value and name not in names]
    if lacking:
        raise ValueError(f"{network} has no {', '.join(lacking)}, which the recipe sets: leave it out")
    return {name: value for name, value in wanted.items() if value is not None and name in names}
