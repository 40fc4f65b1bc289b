"""Which places of a clip every convolution and pooling can see: followed through a network while it runs.

Nothing is told about a network here. Its own calls of conv3d, max_pool3d, pad, cat ... carry along what is seen, so
strides, padding, skips and joins are those that it computes; on the meta device this costs no arithmetic.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from course_lib.analysis.relations import Reads, Relation
from course_lib.analysis.tokens import Axes, Tokens, itself, sliding, through

SAME = {"relu", "relu_", "batch_norm", "dropout", "contiguous", "layer_norm"}  # place by place
MOVES = {"reshape", "permute", "view", "__getitem__", "index_select", "flatten", "unsqueeze"}  # no arithmetic


DROPPED = ("layers", "conv", "paths", "project")  # words of a module's path that say nothing to a reader


class Seen(NamedTuple):
    """What a tensor "b c t h w" knows: the tokens that it was last computed to, and where they have been moved."""

    tokens: Tokens
    at: Axes  # for every place of the tensor, the places of `tokens` that lie there

    @property
    def moved(self) -> bool:
        return any(not np.array_equal(*pair) for pair in zip(self.at, itself(self.tokens.grid), strict=True))

    def settled(self) -> Tokens:
        """The places of the tensor as tokens of their own."""
        return self.tokens.through(self.at) if self.moved else self.tokens


def fresh(tokens: Tokens) -> Seen:
    return Seen(tokens, itself(tokens.grid))


class Tracer(TorchFunctionMode):
    """Collects a relation for every convolution or pooling that reads more than one place, in the order they run.

    Within `with Tracer(net, clip, tokens) as tracer: net(clip)`. `tracer.seen(x)` tells about a tensor.
    """

    def __init__(self, net: nn.Module, clip: Tensor, tokens: Tokens):
        super().__init__()
        self.relations: list[Relation] = []
        self.modules: dict[str, str] = {}  # relation -> the path of the module that computed it
        self.outputs: dict[str, Tensor] = {}  # relation -> what it computed
        self.inside: list[str] = []  # the modules that run now
        self.known: dict[int, tuple[Tensor, Seen]] = {id(clip): (clip, fresh(tokens))}  # the tensor keeps its id
        self.waiting: dict[int, tuple[Tensor, Seen, torch.Size, list[Callable[[Tensor], Tensor]]]] = {}
        self.numbers: dict[int, tuple[Tensor, Tensor]] = {}  # what index tensors on the meta device hold
        self.handles = []
        for name, part in net.named_modules():
            self.handles.append(part.register_forward_pre_hook(lambda *_, name=name: self.inside.append(name)))
            self.handles.append(part.register_forward_hook(lambda *_: self.inside.pop() and None))

    def __exit__(self, *error: Any) -> None:
        for handle in self.handles:
            handle.remove()
        super().__exit__(*error)

    def seen(self, x: Any) -> Seen | None:
        return self.known[id(x)][1] if isinstance(x, Tensor) and id(x) in self.known else None

    def know(self, x: Tensor, seen: Seen) -> None:
        self.known[id(x)] = (x, seen)

    def place(self, x: Tensor, tokens: Tokens) -> None:
        """Tell what a tensor holds that something else than convolutions has computed."""
        self.know(x, fresh(tokens))

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", "").lstrip("_") if "getitem" not in str(func) else "__getitem__"
        x = args[0] if args else None
        if name == "to" and isinstance(x, Tensor) and out.is_meta and not x.is_meta:
            self.numbers[id(out)] = (out, x)
        if name in ("conv3d", "max_pool3d", "avg_pool3d", "max_pool3d_with_indices") and self.seen(x):
            self.slide(name, x, out, args, kwargs)
        elif name == "pad" and self.seen(x):
            self.pad(x, out, *args[1:], **kwargs)
        elif name in ("cat", "concat"):
            self.merge(x, out)
        elif name in ("add", "add_", "__add__", "iadd", "radd"):
            self.merge([one for one in args if isinstance(one, Tensor)], out)
        elif name in SAME and self.seen(x):
            self.know(out, self.seen(x))
        elif name in MOVES and isinstance(x, Tensor):
            self.move(func, x, out, args, kwargs)
        return out

    def slide(self, name: str, x: Tensor, out: Tensor, args: tuple, kwargs: dict) -> None:
        seen = self.known[id(x)][1]
        if name == "conv3d":
            values = dict(zip(("input", "weight", "bias", "stride", "padding"), args, strict=False)) | kwargs
            kernel = tuple(values["weight"].shape[2:])
            stride, padding = three(values.get("stride", 1)), three(values.get("padding", 0))
        else:
            values = dict(zip(("input", "kernel_size", "stride", "padding"), args, strict=False)) | kwargs
            kernel = three(values["kernel_size"])
            stride, padding = three(values.get("stride") or kernel), three(values.get("padding", 0))
        slides = [sliding(*axis) for axis in zip(x.shape[2:], kernel, stride, padding, strict=True)]
        if tuple(map(len, slides)) != tuple(out.shape[2:]):
            raise ValueError(f"{self.inside[-1]}: {name} gives {tuple(out.shape[2:])}, not {[*map(len, slides)]}")
        reads = through(slides, seen.at)
        if math.prod(kernel) == math.prod(stride) == 1:
            return self.know(out, Seen(seen.tokens, reads))
        tokens = seen.tokens.through(reads)
        t, h, w = (k > 1 or s > 1 for k, s in zip(kernel, stride, strict=True))
        over = "time and space" if t and (h or w) else "time" if t else "space"
        kind = "convolution" if name == "conv3d" else "pooling"
        self.tell(kind, tokens, seen.tokens, over, reads, out)
        self.know(out, fresh(tokens))

    def tell(self, kind: str, queries: Tokens, keys: Tokens, part: str, reads: Axes, out: Tensor) -> None:
        name, block = plain(self.inside[-1], kind)
        alike = sum(re.fullmatch(rf"{re.escape(name)}( \d+)?", other) is not None for other in self.modules)
        name = f"{name} {alike + 1}" if alike else name
        self.modules[name], self.outputs[name] = self.inside[-1], out
        self.relations.append(Relation(name, block, kind, queries, keys, {part: Reads(reads)}))

    def pad(self, x: Tensor, out: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> None:
        seen, at = self.known[id(x)][1], []
        sides = [*pad, *[0] * (6 - len(pad))]
        for axis, before, after in zip(seen.at, sides[4::-2], sides[5::-2], strict=True):
            edges = (axis[:1], axis[-1:]) if mode == "replicate" else (np.zeros_like(axis[:1]),) * 2
            at.append(np.concatenate([edges[0].repeat(before, 0), axis, edges[1].repeat(after, 0)]))
        self.know(out, Seen(seen.tokens, (at[0], at[1], at[2])))

    def merge(self, parts: Any, out: Tensor) -> None:
        """Sums, and channels side by side. What comes moved from elsewhere is a layer: SlowFast's joins are."""
        known = [(part, found) for part in parts if (found := self.seen(part))]
        if not known or out.ndim != 5:
            return
        seen = [found for _, found in known]
        settled = [one.settled() for one in seen]
        t, h, w = (np.logical_or.reduce(axes) for axes in zip(*(one.sees for one in settled), strict=True))
        tokens = settled[0]._replace(sees=(t, h, w))
        for part, one in known:
            if one.moved and any(other.tokens is not one.tokens for other in seen):
                self.tell("pooling", tokens, one.tokens, "time", one.at, part)
        self.know(out, fresh(tokens))

    def move(self, func: Callable, x: Tensor, out: Tensor, args: tuple, kwargs: dict) -> None:
        """Ask a tensor of numbers where it ends up, when five axes are five axes again."""
        if seen := self.seen(x):
            origin, shape = seen, x.shape
            moves: list[Callable[[Tensor], Tensor]] = []
        elif id(x) in self.waiting:
            _, origin, shape, moves = self.waiting[id(x)]
        else:
            return
        rest = [self.numbers[id(one)][1] if id(one) in self.numbers else one for one in args[1:]]
        moves = [*moves, lambda numbers: func(numbers, *rest, **kwargs)]
        if not isinstance(out, Tensor) or out.ndim != 5:
            self.waiting[id(out)] = (out, origin, shape, moves)
            return
        at = []
        for axis in range(2, 5):
            numbers = torch.arange(shape[axis]).view([-1 if i == axis else 1 for i in range(5)]).expand(shape)
            for move in moves:
                numbers = move(numbers)
            rows = numbers.movedim(axis, 0).flatten(1)
            at.append(torch.zeros(len(rows), shape[axis], dtype=torch.bool).scatter(1, rows, True).numpy())
        self.know(out, Seen(origin.tokens, through(at, origin.at)))


def three(value: Any) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)


def plain(path: str, kind: str) -> tuple[str, str]:
    """A module's path as words, blocks counted from 1, and the block that it lies in."""
    *outer, last = [word for word in path.split(".") if word not in DROPPED] or [""]
    words, block = [], ""
    for word in [*outer, last]:
        if number := re.fullmatch(r"(block)?(\d+)", word):
            if word is last and number[1] is None:
                continue  # a part of a Sequential
            words.append(f"block {int(number[2]) + 1}")
            block = " ".join(words)
        elif number := re.fullmatch(r"nonlocal(\d+)", word):
            words.append(f"non-local block after block {int(number[1]) + 1}")
        else:
            words.append("join after" if word == "joins" else word.replace("_", " "))
    name = " ".join(words).strip()
    if kind == "pooling" and "pool" not in name and "join" not in name:
        name = f"{name} pool".strip()
    return name, block or " ".join(words[:1] if words[:1] != ["join after"] else words[:2]) or name
