"""A Closer Look at Spatiotemporal Convolutions: which blocks of a ResNet need to convolve over time, and how.

Tran, Wang, Torresani, Ray, LeCun, Paluri, CVPR 2018, https://arxiv.org/abs/1711.11248. Notebook 03.
Symbols: t, d length of a kernel in time and in space, N_i channels after block i, M_i channels between the spatial and
the temporal half of a (2+1)D convolution, L frames.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.layers.conv import conv_bn, conv_init, sliding_mean, with_norm
from course_lib.layers.settings import NetworkConfig, one_of

CONVOLUTIONS = {  # figure 1: what conv1, conv2_x .. conv5_x convolve over
    "r2d": ("all", "2d", "2d", "2d", "2d"),  # conv1 swallows all frames at once
    "fr2d": ("2d", "2d", "2d", "2d", "2d"),
    "r3d": ("3d", "3d", "3d", "3d", "3d"),
    "mc2": ("3d", "2d", "2d", "2d", "2d"),
    "mc3": ("3d", "3d", "2d", "2d", "2d"),
    "mc4": ("3d", "3d", "3d", "2d", "2d"),
    "mc5": ("3d", "3d", "3d", "3d", "2d"),
    "rmc2": ("2d", "3d", "3d", "3d", "3d"),
    "rmc3": ("2d", "2d", "3d", "3d", "3d"),
    "rmc4": ("2d", "2d", "2d", "3d", "3d"),
    "rmc5": ("2d", "2d", "2d", "2d", "3d"),
    "r2plus1d": ("2+1d", "2+1d", "2+1d", "2+1d", "2+1d"),
    "r2plus1d_bottleneck": ("2d", "1+2d", "1+2d", "1+2d", "1+2d"),  # pytorchvideo's R50: time before space
}
# Stride of the first block of conv2_x .. conv5_x (table 1). In time only where the group convolves over time.
SPACE_STRIDE, TIME_STRIDE = (1, 2, 2, 2), (1, 2, 2, 2)
SPACE_STRIDE_BOTTLENECK, TIME_STRIDE_BOTTLENECK = (2, 2, 2, 2), (1, 1, 2, 2)
R18, R34 = (2, 2, 2, 2), (3, 4, 6, 3)  # blocks of conv2_x .. conv5_x; R50 has R34's, of three convolutions each


@dataclass(frozen=True)
class R2Plus1DConfig(NetworkConfig):
    convolutions: str = "r2plus1d"  # a row of CONVOLUTIONS
    frames: int = 8  # L
    size: int | tuple[int, int] = 112
    depths: tuple[int, ...] = R18
    width: int = 64
    shared_middle: bool = False  # torchvision takes M once a block, for both its convolutions: 31.5 M instead of 33.3
    middle_relu: bool = True  # norm and ReLU between the halves of a factored convolution; False: two in a row
    eps: float = 1e-3  # of the norms, as the authors released them; torchvision has 1e-5
    dropout: float = 0.0
    classes: int = 400

    def validate(self) -> None:
        one_of("convolutions", self.convolutions, CONVOLUTIONS)

    @property
    def bottleneck(self) -> bool:
        return self.convolutions == "r2plus1d_bottleneck"


VARIANTS = {
    **{f"{row}_18": R2Plus1DConfig(row) for row in CONVOLUTIONS if row != "r2plus1d_bottleneck"},
    "r3d_18": R2Plus1DConfig("r3d", frames=16, eps=1e-5),  # torchvision's three
    "mc3_18": R2Plus1DConfig("mc3", frames=16, eps=1e-5),
    "r2plus1d_18": R2Plus1DConfig(frames=16, shared_middle=True, eps=1e-5),
    "r2plus1d_18_paper": R2Plus1DConfig(),
    "r2d_34": R2Plus1DConfig("r2d", depths=R34),
    "r3d_34": R2Plus1DConfig("r3d", depths=R34),
    "r2plus1d_34": R2Plus1DConfig(depths=R34),
    "r2plus1d_r50_16x4": R2Plus1DConfig("r2plus1d_bottleneck", 16, 224, depths=R34, eps=1e-5, dropout=0.5),
    "r2plus1d_tiny": R2Plus1DConfig(  # ours: learns the generated clips on a laptop
        size=64, depths=(1, 1, 1, 1), width=12, eps=1e-5, classes=8
    ),
}


def middle(dim: int, out: int) -> int:
    """M_i: a (2+1)D convolution this wide has the parameters of the 3x3x3 one that it replaces (section 3.5)."""
    t = d = 3
    return t * d * d * dim * out // (d * d * dim + t * out)


def convolution(
    kind: str,
    dim: int,
    out: int,
    width: int = 0,
    *,
    kernel: int = 3,
    time: int = 1,
    space: int = 1,
    eps: float = 1e-5,
    relu: bool = True,
) -> nn.Module:
    """What the words in CONVOLUTIONS mean. `width` lies between the halves, with a norm and a ReLU unless `relu` is
    False; `time` and `space` are strides."""

    def over_space(dim: int, out: int) -> nn.Conv3d:
        return nn.Conv3d(dim, out, (1, kernel, kernel), (1, space, space), (0, kernel // 2, kernel // 2), bias=False)

    def over_time(dim: int, out: int) -> nn.Conv3d:
        return nn.Conv3d(dim, out, (3, 1, 1), (time, 1, 1), (1, 0, 0), bias=False)

    bend = relu and "+" in kind
    between = dict(norm=nn.BatchNorm3d(width, eps=eps), relu=nn.ReLU(inplace=True)) if bend else {}
    match kind:
        case "2d":
            return over_space(dim, out)
        case "3d":
            padding = (1, kernel // 2, kernel // 2)
            return nn.Conv3d(dim, out, (3, kernel, kernel), (time, space, space), padding, bias=False)
        case "2+1d":
            return nn.Sequential(OrderedDict(space=over_space(dim, width), **between, time=over_time(width, out)))
        case "1+2d":
            return nn.Sequential(OrderedDict(time=over_time(dim, width), **between, space=over_space(width, out)))
    raise ValueError(f"no convolution is called {kind!r}")


class Block(nn.Module):
    """Two convolutions of one kind, added to the input. The strides belong to the first."""

    def __init__(
        self,
        kind: str,
        dim: int,
        out: int,
        time: int,
        space: int,
        eps: float = 1e-5,
        shared_middle: bool = False,
        middle_relu: bool = True,
    ):
        super().__init__()
        first = middle(dim, out)
        second = first if shared_middle else middle(out, out)
        conv = partial(convolution, kind, eps=eps, relu=middle_relu)
        self.first = with_norm(conv(dim, out, first, time=time, space=space), out, eps=eps)
        self.second = with_norm(conv(out, out, second), out, relu=False, eps=eps)
        self.shortcut = shortcut(dim, out, time, space, eps)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b out u v w2"]:
        return F.relu(self.second(self.first(x)) + self.shortcut(x), inplace=True)


class BottleneckBlock(nn.Module):
    """1x1x1 down, a convolution of one kind, 1x1x1 up, added to the input; the last norm starts at zero."""

    def __init__(self, kind: str, dim: int, out: int, time: int, space: int, eps: float):
        super().__init__()
        inner = out // 4
        self.a = conv_bn(dim, inner, (1, 1, 1), eps=eps)
        self.b = with_norm(convolution(kind, inner, inner, inner, time=time, space=space, eps=eps), inner, eps=eps)
        self.c = conv_bn(inner, out, (1, 1, 1), relu=False, eps=eps)
        self.shortcut = shortcut(dim, out, time, space, eps)
        nn.init.zeros_(self.c.get_parameter("norm.weight"))

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b out u v w2"]:
        return F.relu(self.c(self.b(self.a(x))) + self.shortcut(x), inplace=True)


def shortcut(dim: int, out: int, time: int, space: int, eps: float) -> nn.Module:
    same = dim == out and time == space == 1
    return nn.Identity() if same else conv_bn(dim, out, (1, 1, 1), (time, space, space), relu=False, eps=eps)


class R2Plus1D(nn.Module):
    """Clip in, logits out: every network of the paper's table, and the R50 form that others released."""

    conv2: nn.Sequential
    conv3: nn.Sequential
    conv4: nn.Sequential
    conv5: nn.Sequential

    def __init__(self, config: R2Plus1DConfig):
        super().__init__()
        self.config = c = config
        stem, *groups = CONVOLUTIONS[c.convolutions]
        if stem == "all":
            conv: nn.Module = nn.Conv3d(3, c.width, (c.frames, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        else:  # released: 45 of 64 channels between the halves of conv1, where the formula would give 83
            between = c.width * 45 // 64
            conv = convolution(stem, 3, c.width, between, kernel=7, space=2, eps=c.eps, relu=c.middle_relu)
        self.conv1 = with_norm(conv, c.width, eps=c.eps)
        block: Callable[..., nn.Module] = partial(
            Block, eps=c.eps, shared_middle=c.shared_middle, middle_relu=c.middle_relu
        )
        wider, times, spaces = 1, TIME_STRIDE, SPACE_STRIDE
        if c.bottleneck:
            block = partial(BottleneckBlock, eps=c.eps)
            wider, times, spaces = 4, TIME_STRIDE_BOTTLENECK, SPACE_STRIDE_BOTTLENECK
        dim = c.width
        for i, (kind, depth, time, space) in enumerate(zip(groups, c.depths, times, spaces, strict=True)):
            out, time = c.width * wider * 2**i, 1 if kind == "2d" else time
            blocks = [block(kind, dim, out, time, space)]
            blocks += [block(kind, out, out, 1, 1) for _ in range(depth - 1)]
            self.add_module(f"conv{i + 2}", nn.Sequential(*blocks))
            dim = out
        self.dropout, self.head = nn.Dropout(c.dropout), nn.Linear(dim, c.classes)
        self.apply(conv_init)

    def places(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b t h w classes"]:
        """Logits at every window of the head: one window, all there is, but for R50 on larger clips than built for.

        ValueError if R2D gets another number of frames than its conv1 swallows.
        """
        c = self.config
        if c.convolutions == "r2d" and clip.shape[2] != c.frames:
            frames = clip.shape[2]
            raise ValueError(
                f"conv1 swallows {c.frames} frames at once, this clip has {frames}: build with frames={frames}"
            )
        x = self.conv5(self.conv4(self.conv3(self.conv2(self.conv1(clip)))))
        window = (c.frames // 4, c.clip.h // 32, c.clip.w // 32) if c.bottleneck else tuple(x.shape[2:])
        return self.head(self.dropout(rearrange(sliding_mean(x, window), "b c t h w -> b t h w c")))

    def forward(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        return reduce(self.places(clip), "b t h w classes -> b classes", "mean")

    def probabilities(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        """As the released test gives them: softmax at every window of the head, then the mean over windows."""
        return reduce(self.places(clip).softmax(dim=-1), "b t h w classes -> b classes", "mean")
