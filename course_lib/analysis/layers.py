"""The layers of any network of the course as relations, in the order in which they run.

A network runs once on the meta device. Convolutions tell by themselves what they read (`trace`); an attention layer is
asked for its scheme and for the tokens that it gets, and its fold is run on token numbers, to see which meet in a row.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from course_lib.analysis.arrangement import (
    CLASS,
    OF_FRAME,
    block_of,
    class_numbers,
    extra_tokens,
    in_one_row,
    laid_out,
    meet,
    same_group,
)
from course_lib.analysis.relations import NONE, Bits, Reads, Relation, SameGroup
from course_lib.analysis.shapes import on_meta
from course_lib.analysis.tokens import Extra, Tokens, itself, pixels, sliding
from course_lib.analysis.trace import Tracer
from course_lib.grid import Grid
from course_lib.layers.attention import GridAttention
from course_lib.layers.blocks import PatchEmbed
from course_lib.layers.nonlocal_block import NonLocal
from course_lib.layers.schemes import FLAT_TIME, Band, PooledKeys, Pooling, ShiftedWindows, SplitHeads
from course_lib.models import cvidtr, mvit, video_swin, vidtr, vivit, vtn

Rows = list[tuple[Int[np.ndarray, "row i"], Int[np.ndarray, "row j"]]]  # who asks and who answers, call by call


class Layer(NamedTuple):
    """A relation, the module that it came from and, for attention, the tokens that meet there, part by part."""

    relation: Relation
    module: str = ""
    rows: dict[str, Rows] | None = None


def layer_masks(net: nn.Module) -> list[Relation]:
    """Who can take from whom in every layer of `net`, on the clip that it was built for.

    ValueError for a network that has no convolution and no attention that is known here.
    """
    return [layer.relation for layer in layers(net)]


def layers(net: nn.Module) -> list[Layer]:
    config: Any = getattr(net, "config", None)
    if config is None:
        raise ValueError(f"{type(net).__name__} has no config that tells its clip: give a network of course_lib.models")
    net = on_meta(net)
    colours = getattr(config, "colours", 3)
    clip = torch.empty(1, colours, *config.clip, device="meta")
    return walked(net, clip).layers


def walked(net: nn.Module, clip: Tensor) -> Walk:
    with Tracer(net, clip, pixels(Grid(*clip.shape[2:]))) as tracer, Walk(net, tracer) as walk:
        net(clip)
    walk.take_over()
    return walk


class Walk:
    """Hooks on the attention layers, the patches and whatever thins tokens out, while a traced network runs."""

    def __init__(self, net: nn.Module, tracer: Tracer):
        self.net, self.tracer = net, tracer
        self.layers: list[Layer] = []
        self.tokens: Any = None  # Tokens of a transformer; those of convolutions hang on the tensors
        kinds: dict[type, Any] = {
            PatchEmbed: self.embed,
            GridAttention: self.grid_attention,
            video_swin.WindowAttention: self.grid_attention,
            vivit.HalfHeads: self.grid_attention,
            vidtr.Mix: self.grid_attention,
            vtn.LongformerAttention: self.grid_attention,
            mvit.PooledAttention: self.pooled_attention,
            cvidtr.TopTime: self.top_time,
            cvidtr.Pool: self.pool_frames,
            video_swin.PatchMerging: self.merge,
            NonLocal: self.nonlocal_block,
        }
        self.handles = []
        for name, part in net.named_modules():
            visit = self.embed if isinstance(net, mvit.MViT) and name == "patch_embed" else None
            visit = visit or next((kinds[kind] for kind in type(part).__mro__ if kind in kinds), None)
            if visit is not None:
                self.handles.append(part.register_forward_hook(partial(visit, name)))

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in self.handles:
            handle.remove()

    def take_over(self) -> None:
        """Convolutions that ran since."""
        self.layers += [Layer(found, self.tracer.modules[found.name]) for found in self.tracer.relations]
        self.tracer.relations.clear()

    def tell(
        self, name: str, suffix: str, kind: str, queries: Tokens, keys: Tokens, parts: Any, rows: Any = None, **more
    ):
        self.take_over()
        block = block_of(name)
        relation = Relation(f"{block} {suffix}".strip(), block, kind, queries, keys, parts, **more)
        self.layers.append(Layer(relation, name, rows))

    # ---- where tokens come from

    def embed(self, name: str, part: nn.Module, args: Any, out: Tensor) -> None:
        tokens = self.tracer.relations[-1].queries
        if out.shape[0] > 1:  # a network that takes every frame as an image
            tokens = tokens._replace(sees=(np.eye(out.shape[0], dtype=bool), *tokens.sees[1:]))
            frame_by_frame = {"space": Reads(tokens.sees)}
            patches = self.tracer.relations.pop()
            self.tracer.relations.append(
                replace(patches, queries=tokens, keys=pixels(tokens.clip), parts=frame_by_frame)
            )
        self.tokens = tokens._replace(extra=extra_tokens(self.net, tokens.grid))

    def current(self, tokens: int, classed: bool = False) -> Tokens:
        """The tokens that a layer gets; where they are one a frame, they have become that just now."""
        if self.tokens is None:  # after convolutions
            self.tokens = self.tracer.relations[-1].keys  # in front of the pool that ends a backbone
        before = self.tokens
        if tokens == before.grid.t != before.grid.size:
            height, width = (np.ones((1, length), dtype=bool) for length in before.clip[1:])
            extra = (Extra(CLASS, Grid(1, 1, 1)),) if classed else ()
            self.tokens = Tokens(before.clip, (before.sees[0], height, width), extra)
            if before.extra:
                groups = np.full(before.size, NONE)
                groups[before.extra_numbers(OF_FRAME).ravel()] = np.arange(before.grid.t)
            else:
                groups = before.numbers() // (before.grid.h * before.grid.w)
            asks = np.append(np.arange(before.grid.t), NONE)
            self.tell(
                "frames", "", "pooling", self.tokens, before, {"a vector a frame": SameGroup(asks, groups.ravel())}
            )
        return self.tokens

    # ---- attention

    def grid_attention(self, name: str, part: Any, args: Any, out: Any) -> None:
        """Whatever folds its tokens by `scheme.apply`, with a class token beside them or among them."""
        shape, scheme = args[0].shape[:-1], part.scheme
        cls = args[1] if len(args) > 1 else None
        tokens = self.current(shape.numel(), cls is not None)
        numbers = laid_out(tokens, tuple(shape))
        beside = None if cls is None else class_numbers(tokens, len(cls))
        met, masks = meet(scheme, numbers, beside)
        if isinstance(scheme, SplitHeads):
            halves = (scheme.first, scheme.second)
            parts: dict[str, Any] = {half.name: same_group(half, tokens, numbers, None) for half in halves}
            rows = {half.name: [(row, row)] for half, row in zip(halves, met, strict=True)}
            return self.tell(name, "half time, half space", "attention", tokens, tokens, parts, rows)
        called = scheme.name
        if isinstance(scheme, ShiftedWindows):
            called = "shifted windows" if any(scheme.fit(shape[1:])[1]) else "windows"
            if ".time." in f".{name}.":
                called = "time"
        if isinstance(scheme, Band):
            mask = np.zeros((tokens.size, tokens.size), dtype=bool)
            mask[np.ix_(met[0][0], met[0][0])] = masks[0]
            rows = {called: [(met[0][:, 1:], met[0]), (met[0][:, :1], met[0])]}  # the frames, then the class token
            return self.tell(name, called, "attention", tokens, tokens, {called: Bits.of(mask)}, rows)
        parts = {called: same_group(scheme, tokens, numbers, beside)}
        straight_on = isinstance(part, vidtr.Mix) and part.scheme == FLAT_TIME
        rows = {called: [(row, row) for row in met]}
        self.tell(name, called, "attention", tokens, tokens, parts, rows, straight_on=straight_on)

    def pooled_attention(self, name: str, part: Any, args: Any, out: Tensor) -> None:
        scheme: PooledKeys = part.scheme
        inputs = self.tokens
        asks, answers = (reads(pooling, inputs) for pooling in (scheme.queries, scheme.keys))
        queries, keys = inputs.through(asks.axes), inputs.through(answers.axes)
        everyone = SameGroup(np.zeros(queries.size, int), np.zeros(keys.size, int))
        rows = [(in_one_row(queries), in_one_row(keys))]
        self.tokens = queries
        self.tell(name, "pooled attention", "attention", queries, keys, {"joint": everyone}, {"joint": rows},
                  inputs=inputs, of_keys=answers, of_queries=asks)  # fmt: skip

    def top_time(self, name: str, part: Any, args: Any, out: Any) -> None:
        keys = self.tokens
        clip = np.repeat(keys.sees[0].any(0, keepdims=True), part.keep, axis=0)  # any frame may stay
        queries = self.tokens = keys._replace(sees=(clip, *keys.sees[1:]))
        places = keys.grid.h * keys.grid.w
        nobody = np.full(1, NONE)
        groups = [np.append(np.tile(np.arange(places), t), nobody) for t in (part.keep, keys.grid.t)]
        asks, answers = (tokens.numbers().reshape(-1, places).T for tokens in (queries, keys))
        suffix = f"time, {part.keep} frames kept"
        any_frame = np.full((part.keep, keys.grid.t), True)
        everywhere = itself(keys.grid)
        self.tell(name, suffix, "attention", queries, keys, {"time": SameGroup(*groups)}, {"time": [(asks, answers)]},
                  inputs=keys, of_keys=Reads(everywhere, 1), of_queries=Reads((any_frame, *everywhere[1:]), 1),
                  straight_on=True)  # fmt: skip

    def nonlocal_block(self, name: str, part: NonLocal, args: Any, out: Tensor) -> None:
        seen = self.tracer.seen(args[0])
        assert seen is not None  # whatever a non-local block gets was convolved before
        inputs = keys = seen.settled()
        pooled = Reads(itself(inputs.grid))
        if part.pool_keys:
            pooling = self.tracer.relations.pop()
            keys, pooled = pooling.queries, pooling.parts["space"]
        asks, answers = (torch.as_tensor(tokens.numbers())[None] for tokens in (inputs, keys))
        rows = list(zip(meet(part.scheme, asks)[0], meet(part.scheme, answers)[0], strict=True))
        groups = [np.empty(tokens.size, int) for tokens in (inputs, keys)]
        for (ask, answer), number in [(pair, i) for one in rows for i, pair in enumerate(zip(*one, strict=True))]:
            groups[0][ask], groups[1][answer] = number, number
        reach = [np.zeros((n, n), bool) for n in inputs.grid]
        for axis, joined in enumerate(reach):  # what a group holds along this axis
            at = np.stack([np.unravel_index(row, inputs.grid)[axis] for row in rows[0][0]])
            np.logical_or.at(joined, (at[:, :, None], at[:, None, :]), True)
        called, alone = part.scheme.name, Reads(itself(inputs.grid))
        self.tell(name, called, "attention", inputs, keys, {called: SameGroup(*groups)}, {called: rows},
                  inputs=inputs, of_keys=pooled, of_queries=alone)  # fmt: skip
        self.tracer.place(out, inputs.through(reach))

    # ---- what thins tokens out

    def merge(self, name: str, part: nn.Module, args: Any, out: Tensor) -> None:
        steps = [-(-n // m) for n, m in zip(args[0].shape[1:4], out.shape[1:4], strict=True)]
        called = f"stage {int(name[-1]) + 1} merging"
        self.thin(name, called, called, [(step, step) for step in steps], out)

    def pool_frames(self, name: str, part: cvidtr.Pool, args: Any, out: Tensor) -> None:
        pool: Any = part.pool
        (kernel,), (stride,) = pool.kernel_size, pool.stride
        self.thin(name, f"{block_of(name)} pooling of frames", block_of(name), [(kernel, stride), (1, 1), (1, 1)], out)

    def thin(self, name: str, called: str, block: str, kernels: list[tuple[int, int]], out: Tensor) -> None:
        keys = self.tokens
        padding = [-n % stride for n, (_, stride) in zip(keys.grid, kernels, strict=True)]
        t, h, w = (
            sliding(n + more, *kernel, 0)[:, :n] for n, more, kernel in zip(keys.grid, padding, kernels, strict=True)
        )
        self.tokens = keys.through((t, h, w))
        self.take_over()
        parts = {"time" if kernels[0][1] > 1 else "space": Reads((t, h, w), keys.size - keys.grid.size)}
        self.layers.append(Layer(Relation(called, block, "pooling", self.tokens, keys, parts), name))


def reads(pooling: Pooling, tokens: Tokens) -> Reads:
    t, h, w = (axis.numpy() for axis in pooling.axes(tokens.grid))
    return Reads((t, h, w), len(tokens.extra))
