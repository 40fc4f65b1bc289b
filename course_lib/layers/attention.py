"""Softmax attention, and a way to look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from course_lib.layers.schemes import Scheme

TILE = 64  # tokens


def attention_weights(
    q: Float[Tensor, "*rows n d"],
    k: Float[Tensor, "*rows m d"],
    mask: Bool[Tensor, "*#rows n m"] | None = None,
    bias: Float[Tensor, "*#rows n m"] | None = None,
) -> Float[Tensor, "*rows n m"]:
    """softmax(q k^T / sqrt(d) + bias), nothing where the mask is False."""
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1)


def attend(
    q: Float[Tensor, "*rows n d"],
    k: Float[Tensor, "*rows m d"],
    v: Float[Tensor, "*rows m c"],
    mask: Bool[Tensor, "*#rows n m"] | None = None,
    bias: Float[Tensor, "*#rows n m"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "*rows n c"]:
    """attention_weights(q, k, mask, bias) @ v by the fused kernel: same numbers, no n x m matrix in memory.

    ValueError for values of other rows or tokens than the keys, or for keys of other rows than the queries: a CPU's
    fused kernel does not look, and reads memory that is not theirs.
    """
    recorded = torch.compiler.is_exporting() or torch.jit.is_tracing()  # there sizes are no numbers
    if not recorded and (q.shape[:-2] != k.shape[:-2] or k.shape[:-1] != v.shape[:-1]):
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} do not fit: all three need the same "
            "rows and heads, keys and values the same number of tokens (the last axis but one)"
        )
    if mask is None and bias is None and q.ndim == 4 and q.is_cuda:
        return attend_side_by_side(q, k, v, dropout)
    if mask is not None and bias is not None:
        bias = bias.masked_fill(~mask, float("-inf"))
        mask = None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias if mask is None else mask, dropout_p=dropout)


def attend_side_by_side(
    q: Float[Tensor, "b head n d"], k: Float[Tensor, "b head m d"], v: Float[Tensor, "b head m c"], dropout: float = 0.0
) -> Float[Tensor, "b head n c"]:
    """The same, with as many short rows as fill TILE tokens in one long row, masked from each other; nothing is copied.

    A GPU's fused kernels give every row whole tiles of tokens, of which a row of 8 frames leaves most idle. A CPU is
    faster row by row (tests/benchmarks/bench_attention.py).
    """
    n, m = q.shape[2], k.shape[2]
    recorded = torch.compiler.is_exporting() or torch.jit.is_tracing()  # for any number of rows, which may not divide
    longest = 1 if recorded else TILE // max(n, m)
    share = max([1] + [i for i in range(2, longest + 1) if q.shape[0] % i == 0])  # a list, for torch.compile
    if share == 1:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    rows, columns = (torch.arange(share, device=q.device).repeat_interleave(size) for size in (n, m))
    q, k, v = (rearrange(x, "(b share) head n d -> b head (share n) d", share=share) for x in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=rows[:, None] == columns[None, :], dropout_p=dropout)
    return rearrange(y, "b head (share n) d -> (b share) head n d", share=share)


class RecordableAttention(nn.Module):
    """Attention that `record_attention` can look into; without a recorder the fused kernel runs."""

    recorder: Callable[[Tensor], None] | None = None

    def mix(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None, dropout=0.0
    ) -> Tensor:
        if self.recorder is None:
            return attend(q, k, v, mask, bias, dropout)
        weights = attention_weights(q, k, mask, bias)
        self.recorder(weights.detach())
        return F.dropout(weights, dropout) @ v


class MultiHeadAttention(RecordableAttention):
    """Attention among the tokens of one row. ValueError if `dim` does not split into `heads` equal parts."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0):
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} does not split into heads={heads} equal parts: use a multiple of {heads}")
        self.heads, self.dropout = heads, dropout
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "#b n n"] | None = None,
        bias: Float[Tensor, "*#rows n n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        q, k, v = rearrange(self.qkv(x), "b n (qkv head d) -> qkv b head n d", qkv=3, head=self.heads).unbind()
        mask = None if mask is None else mask[:, None]  # the same for all heads
        y = self.mix(q, k, v, mask, bias, self.dropout if self.training else 0.0)
        return self.out(rearrange(y, "b head n d -> b n (head d)"))


class GridAttention(MultiHeadAttention):
    """Attention on a token grid, arranged by a scheme: GridAttention(dim, heads, SPACE).

    Takes tokens "b *grid d" and perhaps a class token "b 1 d"; returns the same.
    """

    def __init__(self, dim: int, heads: int, scheme: Scheme, dropout: float = 0.0):
        super().__init__(dim, heads, dropout)
        self.scheme = scheme

    def forward(  # type: ignore[override]  # a grid in place of a row
        self, x: Float[Tensor, "b *grid d"], cls: Float[Tensor, "b 1 d"] | None = None
    ) -> Float[Tensor, "b *grid d"] | tuple[Float[Tensor, "b *grid d"], Float[Tensor, "b 1 d"]]:
        return self.scheme.apply(super().forward, x, cls)

    def extra_repr(self) -> str:
        return f"scheme={self.scheme.name}"


@contextmanager
def record_attention(net: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Collect the attention weights "rows head n m" of every layer, by module name, one entry a call.

    ValueError if the network has no attention to record.
    """
    recordable = {name: part for name, part in net.named_modules() if isinstance(part, RecordableAttention)}
    if not recordable:
        raise ValueError(
            f"{type(net).__name__} has no attention to record: its layers do not derive from RecordableAttention"
        )
    weights: dict[str, list[Tensor]] = {name: [] for name in recordable}
    for name, part in recordable.items():
        part.recorder = weights[name].append
    try:
        yield weights
    finally:
        for part in recordable.values():
            del part.recorder
