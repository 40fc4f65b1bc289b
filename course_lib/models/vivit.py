"""ViViT: A Video Vision Transformer. Tubelets for tokens, and four ways to attend to them.

Arnab, Dehghani, Heigold, Sun, Lucic, Schmid, ICCV 2021, https://arxiv.org/abs/2103.15691. Notebook 07.
Symbols: t, h, w size of a tubelet, n_t, n_h, n_w tokens along each axis, d features, L layers, z tokens, z_cls class
token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.grid import Grid
from course_lib.layers.attention import GridAttention, MultiHeadAttention
from course_lib.layers.blocks import DropPath, Mlp, PatchEmbed, Recomputable, drop_path_rates, xavier_init
from course_lib.layers.inflate import Entry, ImageStart
from course_lib.layers.positions import check_grid, smooth_table
from course_lib.layers.schemes import JOINT, SPACE, TIME, SplitHeads
from course_lib.layers.settings import NetworkConfig, one_of

MODELS = {  # section 3.3: the attention layers of one block, in order
    1: (JOINT,),  # spatio-temporal attention
    2: (SPACE,),  # factorised encoder: a second encoder attends along time, over one vector a step
    3: (TIME, SPACE),  # factorised self-attention. The paper has space first and says that it does not matter
    4: (SplitHeads(TIME, SPACE),),  # factorised dot-product: the first half of the heads along time
}


@dataclass(frozen=True)
class ViViTConfig(NetworkConfig):
    model: int = 1
    frames: int = 32
    size: int | tuple[int, int] = 224
    tubelet: tuple[int, int, int] = (2, 16, 16)  # t, h, w
    embed: str = "tubelet"  # or "uniform": of each t frames the first alone, patch by patch (section 3.2)
    dim: int = 768  # d
    depth: int = 12  # L
    heads: int = 12
    mlp_ratio: int = 4
    time_depth: int = 4  # L_t, of model 2's second encoder; 0: the mean over steps in its place (table 2)
    pool: str = "cls"  # or "gap": the mean of all tokens
    drop_path: float = 0.0
    scratch: bool = False  # ours: loud and smooth position embeddings, which help a net that starts from nothing
    classes: int = 400

    def validate(self) -> None:
        for setting, known in (("model", MODELS), ("embed", ("tubelet", "uniform")), ("pool", ("cls", "gap"))):
            one_of(setting, getattr(self, setting), known)
        if self.time_depth < 0:
            raise ValueError(f"time_depth={self.time_depth}: use 0 for a mean over steps, or more for a second encoder")
        if self.model > 2 and self.pool == "cls":
            raise ValueError(f"model {self.model} has no class token (released): use pool='gap'")
        self.clip.divide(Grid(*self.tubelet))

    @property
    def grid(self) -> Grid:
        return self.clip.divide(Grid(*self.tubelet))


L: dict[str, Any] = dict(dim=1024, depth=24, heads=16)
VARIANTS = {
    "vivit_b_16x2_model1": ViViTConfig(1),
    "vivit_b_16x2_model2": ViViTConfig(2),
    "vivit_b_16x2_model3": ViViTConfig(3, pool="gap"),
    "vivit_b_16x2_model4": ViViTConfig(4, pool="gap"),
    "vivit_l_16x2_model1": ViViTConfig(1, **L),
    "vivit_l_16x2_model2": ViViTConfig(2, time_depth=24, **L),  # released for Kinetics; 4 for SSv2
    "vivit_tiny": ViViTConfig(  # ours: learns the generated clips on a laptop
        frames=8, size=64, dim=64, depth=3, heads=4, time_depth=1, scratch=True, classes=8
    ),
}


class HalfHeads(MultiHeadAttention):
    """Model 4's attention: one half of the heads under one scheme, the other under another, one output projection."""

    def __init__(self, dim: int, heads: int, scheme: SplitHeads):
        super().__init__(dim, heads)
        if heads % 2:
            raise ValueError(f"heads={heads} do not split into halves: use an even number")
        self.scheme = scheme

    def forward(  # type: ignore[override]  # a grid in place of a row
        self, x: Float[Tensor, "b t h w d"]
    ) -> Float[Tensor, "b t h w d"]:
        halves = rearrange(self.qkv(x), "b t h w (qkv half d) -> b t h w (half qkv d)", qkv=3, half=2)
        return self.out(self.scheme.apply(self.core, halves))

    def core(self, x: Float[Tensor, "rows n qkvd"]) -> Float[Tensor, "rows n d"]:
        heads = self.heads // 2
        q, k, v = rearrange(x, "rows n (qkv head d) -> qkv rows head n d", qkv=3, head=heads).unbind()
        return rearrange(self.mix(q, k, v), "rows head n d -> rows n (head d)")


class Block(Recomputable):
    """Attention layers one after another, then the MLP; each normed before and added (eqs. 2-6)."""

    def __init__(self, dim: int, heads: int, hidden: int, schemes: Sequence, drop_path: float):
        super().__init__()
        kinds = [HalfHeads if isinstance(scheme, SplitHeads) else GridAttention for scheme in schemes]
        self.norms = nn.ModuleList(nn.LayerNorm(dim, eps=1e-6) for _ in schemes)
        self.attentions = nn.ModuleList(kind(dim, heads, scheme) for kind, scheme in zip(kinds, schemes, strict=True))
        self.norm_mlp = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden, nn.GELU(approximate="tanh"))  # flax's GELU, not the exact one
        self.drop_path = DropPath(drop_path)

    def forward(self, *tokens: Float[Tensor, "b ... d"]) -> tuple[Float[Tensor, "b ... d"], ...]:
        """The grid of patches, and the class token where there is one."""
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            change = attention(*map(norm, tokens))
            change = (change,) if isinstance(change, Tensor) else change
            tokens = tuple(z + self.drop_path(dz) for z, dz in zip(tokens, change, strict=True))
        return tuple(z + self.drop_path(self.mlp(self.norm_mlp(z))) for z in tokens)


class Encoder(nn.Module):
    """Position embeddings, blocks and a norm: tokens of one grid in, one vector out."""

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        grid: Grid,
        depth: int,
        schemes: Sequence,
        *,
        cls: bool,
        drop_path: float,
        scratch: bool,
    ):
        super().__init__()
        self.grid = grid
        table = smooth_table(grid, dim) if scratch else torch.empty(*grid, dim).normal_(std=0.02)
        self.pos_embed = nn.Parameter(table.flatten(1, 2))  # p, eq. 1
        self.cls = nn.Parameter(torch.zeros(dim)) if cls else None  # z_cls
        self.cls_pos_embed = nn.Parameter(torch.empty(dim).normal_(std=0.02)) if cls else None
        self.blocks = nn.ModuleList(
            Block(dim, heads, hidden, schemes, rate) for rate in drop_path_rates(drop_path, depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, z: Float[Tensor, "b t h w d"]) -> Float[Tensor, "b d"]:
        check_grid(z, self.grid)
        tokens: tuple[Tensor, ...] = (z + self.pos_embed.view(*self.grid, -1),)
        if self.cls is not None and self.cls_pos_embed is not None:  # both or neither
            tokens += (repeat(self.cls + self.cls_pos_embed, "d -> b 1 d", b=z.shape[0]),)
        for block in self.blocks:
            tokens = block(*tokens)
        return (
            self.norm(tokens[-1])[:, 0] if len(tokens) == 2 else reduce(self.norm(*tokens), "b t h w d -> b d", "mean")
        )


class ViViT(nn.Module):
    """Clip in, logits out."""

    averages_logits = True  # over views, as its released test: softmax before the mean is the other way

    def __init__(self, config: ViViTConfig):
        super().__init__()
        self.config = c = config
        t, h, w = c.grid
        self.patch_embed = PatchEmbed(c.dim, Grid(*c.tubelet) if c.embed == "tubelet" else Grid(1, *c.tubelet[1:]))
        encoder = partial(
            Encoder, c.dim, c.heads, c.mlp_ratio * c.dim, cls=c.pool == "cls", drop_path=c.drop_path, scratch=c.scratch
        )
        if c.model == 2:
            self.encoder = encoder(Grid(1, h, w), c.depth, MODELS[2])  # step by step, the same weights for all
            self.time_encoder = encoder(Grid(t, 1, 1), c.time_depth, (TIME,)) if c.time_depth else None
        else:
            self.encoder = encoder(c.grid, c.depth, MODELS[c.model])
        self.head = nn.Linear(c.dim, c.classes)
        self.apply(xavier_init)
        nn.init.zeros_(self.head.weight)

    def forward(self, clip: Float[Tensor, "b 3 T H W"]) -> Float[Tensor, "b classes"]:
        c = self.config
        if c.embed == "uniform":
            clip = clip[:, :, :: c.tubelet[0]]
        z = self.patch_embed(clip)
        if c.model == 2:
            steps = self.encoder(rearrange(z, "b t h w d -> (b t) 1 h w d"))
            steps = rearrange(steps, "(b t) d -> b t 1 1 d", t=z.shape[1])
            return self.head(steps.mean((1, 2, 3)) if self.time_encoder is None else self.time_encoder(steps))
        return self.head(self.encoder(z))

    def image_start(self) -> ImageStart:
        """A ViViT of model 1 on one frame: a ViT (section 3.4).

        The patch kernel goes to the middle frame of a tubelet; the position embeddings repeat at every step; model 3
        copies the attention to space and time, as released (the paper starts that of time at zero).
        """
        c, t = self.config, self.encoder.grid.t
        entries: list[Entry] = [("encoder.pos_embed", "encoder.pos_embed", lambda x: x.expand(t, -1, -1))]
        if c.model == 3:
            entries += [
                (f"encoder.blocks.{i}.{part}.1.{name}", f"encoder.blocks.{i}.{part}.0.{name}", None)
                for i, block in enumerate(self.encoder.blocks)
                for part in ("norms", "attentions")
                for name in block.get_submodule(f"{part}.1").state_dict()
            ]
        image = replace(c, model=1, frames=1, tubelet=(1, *c.tubelet[1:]), embed="tubelet", pool="cls")
        return ImageStart(ViViT(image), entries, "centre")
