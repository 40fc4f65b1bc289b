"""Video Transformer Network: an image network frame by frame, then a Longformer over the frames of the whole video.

Neimark, Bar, Zohar, Asselmann, ICCV workshops 2021, https://arxiv.org/abs/2102.00719. Notebook 05.
Symbols: f(x) spatial backbone, g temporal encoder, h head, w attention window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from course_lib.layers.attention import RecordableAttention
from course_lib.layers.blocks import Mlp, Recomputable, vit_init, xavier_init
from course_lib.layers.conv import conv_bn, conv_init
from course_lib.layers.inflate import ImageStart
from course_lib.layers.positions import smooth_table
from course_lib.layers.resnet import stage
from course_lib.layers.schemes import Band
from course_lib.layers.settings import NetworkConfig, one_of
from course_lib.models.nonlocal_net import NonLocalConfig, NonLocalNet
from course_lib.models.timesformer import TimeSformer, TimeSformerConfig

VIT_B = TimeSformerConfig(frames=1, attention="space", drop_path=0.0)  # on one frame: an image ViT
# f(x), and the hidden features of the encoder's MLPs, which the paper's parameter counts imply
BACKBONES: dict[str, tuple[TimeSformerConfig | tuple[int, ...], int]] = {
    "vit_b": (VIT_B, 3072),
    "deit_b": (VIT_B, 3072),  # the same network under other weights
    "r50": ((3, 4, 6, 3), 4096),
    "r101": ((3, 4, 23, 3), 4096),
    "vit_tiny": (replace(VIT_B, dim=64, depth=3, heads=4, scratch="smooth"), 256),
}
POSITION_COUNT = (
    286  # frame numbers beyond start again from 0; then follow the embedding of the class token and that of padding
)


def sines(count: int, dim: int) -> Float[Tensor, "count dim"]:
    """The fixed position embedding of "Attention Is All You Need": sines and cosines of falling frequency."""
    angle = torch.arange(count)[:, None] / 10000 ** (torch.arange(0, dim, 2) / dim)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


# table 3: what the position embeddings start as; only a learned one changes
POSITIONS: dict[str, Callable[[int, int], Tensor]] = {
    "learned": lambda count, dim: torch.empty(count, dim).normal_(std=0.02),
    "fixed": sines,
    "none": torch.zeros,
}


@dataclass(frozen=True)
class VTNConfig(NetworkConfig):
    backbone: str = "vit_b"
    frames: int = 16  # of a training clip; the network takes any number
    size: int | tuple[int, int] = 224
    window: int = 18  # w: half to each side. Released: 18, in the paper: 32
    depth: int = 3
    heads: int = 12
    positions: str = "learned"
    dropout: float = 0.1
    head_dropout: float = 0.5
    scratch: bool = False  # ours: a start for training from nothing, as TimeSformer has one
    classes: int = 400

    def validate(self) -> None:
        one_of("backbone", self.backbone, BACKBONES)
        one_of("positions", self.positions, POSITIONS)


VARIANTS = {
    "vtn_vit_b": VTNConfig(),
    "vtn_deit_b": VTNConfig("deit_b"),
    "vtn_r50": VTNConfig("r50", heads=16),
    "vtn_r101": VTNConfig("r101", heads=16),
    "vtn_tiny": VTNConfig(  # ours: learns the generated clips on a laptop
        "vit_tiny",
        frames=8,
        size=64,
        window=8,
        depth=2,
        heads=4,
        dropout=0.0,
        head_dropout=0.0,
        scratch=True,
        classes=8,
    ),
}


class FrameViT(TimeSformer):
    """f(x): the class token of each frame after the last norm."""

    def __init__(self, config: TimeSformerConfig):
        super().__init__(config)
        self.dim, self.head = config.dim, nn.Identity()

    def forward(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b T d"]:
        features = super().forward(rearrange(clip, "b c t h w -> (b t) c 1 h w"))
        return rearrange(features, "(b t) d -> b t d", t=clip.shape[2])


class FrameResNet(nn.Module):
    """f(x): the mean over the places of each frame. No kernel sees two frames."""

    dim = 2048
    res2: nn.Sequential
    res3: nn.Sequential
    res4: nn.Sequential
    res5: nn.Sequential

    def __init__(self, depths: tuple[int, ...]):
        super().__init__()
        self.depths = depths
        self.stem, dim = conv_bn(3, 64, (1, 7, 7), (1, 2, 2)), 64
        for i, depth in enumerate(depths):
            inner = 64 * 2**i
            self.add_module(f"res{i + 2}", stage(dim, inner, 4 * inner, [1] * depth, 1 if i == 0 else 2, {}))
            dim = 4 * inner
        self.apply(conv_init)

    def forward(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b T d"]:
        x = F.max_pool3d(self.stem(clip), (1, 3, 3), (1, 2, 2), (0, 1, 1))
        return reduce(self.res5(self.res4(self.res3(self.res2(x)))), "b d t h w -> b t d", "mean")

    def image_start(self) -> ImageStart:
        """A C2D: a ResNet."""
        return ImageStart(NonLocalNet(NonLocalConfig(depths=self.depths)))


class LongformerAttention(RecordableAttention):
    """A band over the frames; the class token sees all and is seen by all, and looks with projections of its own."""

    def __init__(self, dim: int, heads: int, scheme: Band, dropout: float):
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} does not split into heads={heads} equal parts: use a multiple of {heads}")
        self.heads, self.scheme, self.dropout = heads, scheme, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_global, self.kv_global = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "b t d"], cls: Float[Tensor, "b 1 d"]
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b 1 d"]]:
        y = self.scheme.apply(self.row, x, cls)
        assert isinstance(y, tuple)  # a class token went in
        return y

    def row(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n n"]) -> Float[Tensor, "b n d"]:
        """The class token is the first of the row. Frames see it by its ordinary key and value."""

        def split(projected: Tensor, parts: int) -> tuple[Tensor, ...]:
            return rearrange(projected, "b n (p head d) -> p b head n d", p=parts, head=self.heads).unbind()

        rate = self.dropout if self.training else 0.0
        q, k, v = split(self.qkv(x), 3)
        frames = self.mix(q[:, :, 1:], k, v, mask[:, None, 1:], dropout=rate)
        (q,), (k, v) = split(self.q_global(x[:, :1]), 1), split(self.kv_global(x), 2)
        cls = self.mix(q, k, v, dropout=rate)
        return self.out(rearrange(torch.cat([cls, frames], dim=2), "b head n d -> b n (head d)"))


class Block(Recomputable):
    """Attention, then MLP; each added, then normed (BERT's order)."""

    def __init__(self, dim: int, hidden: int, heads: int, window: int, dropout: float):
        super().__init__()
        self.attention = LongformerAttention(dim, heads, Band(window // 2), dropout)
        self.norm, self.mlp = nn.LayerNorm(dim, eps=1e-12), Mlp(dim, hidden)
        self.norm_mlp, self.dropout = nn.LayerNorm(dim, eps=1e-12), nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b t d"], cls: Float[Tensor, "b 1 d"]
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b 1 d"]]:
        dx, dcls = self.attention(x, cls)
        x, cls = self.norm(x + self.dropout(dx)), self.norm(cls + self.dropout(dcls))
        x, cls = (self.norm_mlp(z + self.dropout(self.mlp(z))) for z in (x, cls))
        return x, cls


class VTN(nn.Module):
    """Clip in, logits out. Give the frames' numbers in their video where they do not count 0, 1, 2, ..."""

    numbered = True  # training and testing on videos give them
    averages_logits = True  # over views, as its released test: softmax before the mean is the other way

    def __init__(self, config: VTNConfig):
        super().__init__()
        self.config = c = config
        backbone, hidden = BACKBONES[c.backbone]
        self.backbone = (
            FrameResNet(backbone) if isinstance(backbone, tuple) else FrameViT(replace(backbone, size=c.size))
        )
        dim = self.backbone.dim
        self.cls = nn.Parameter(torch.empty(dim).normal_(std=0.02))
        table = POSITIONS[c.positions](POSITION_COUNT + 2, dim)
        self.time_embed = nn.Parameter(table, requires_grad=c.positions == "learned")
        self.type_embed = nn.Parameter(torch.empty(2, dim).normal_(std=0.02))  # of frames, of the class token
        self.norm_embed, self.dropout = nn.LayerNorm(dim, eps=1e-12), nn.Dropout(c.dropout)
        self.blocks = nn.ModuleList(Block(dim, hidden, c.heads, c.window, c.dropout) for _ in range(c.depth))
        self.head = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Dropout(c.head_dropout), nn.Linear(dim, c.classes)
        )
        start = xavier_init if c.scratch else vit_init
        self.blocks.apply(start)
        self.head.apply(start)
        if c.scratch and c.positions == "learned":
            nn.init.normal_(self.time_embed, std=1.0)
            self.time_embed.data[: c.frames] = smooth_table((c.frames,), dim)

    def forward(
        self, clip: Float[Tensor, "b 3 T H W"], frames: Int[Tensor, "b T"] | None = None
    ) -> Float[Tensor, "b classes"]:
        x = self.backbone(clip)
        if frames is None:
            frames = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
        x = x + self.time_embed[frames % POSITION_COUNT] + self.type_embed[0]
        cls = repeat(self.cls + self.time_embed[POSITION_COUNT] + self.type_embed[1], "d -> b 1 d", b=x.shape[0])
        x, cls = self.dropout(self.norm_embed(x)), self.dropout(self.norm_embed(cls))
        for block in self.blocks:
            x, cls = block(x, cls)
        return self.head(cls[:, 0])

    def image_start(self) -> ImageStart:
        """That of the backbone; the encoder starts from nothing."""
        return self.backbone.image_start()._replace(part="backbone.")
