"""Turn the weights of an image network into the weights of a video network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

How = Literal["average", "centre"]
Entry = tuple[str, str | tuple[str, ...], Callable[..., Tensor] | None]  # ours, the tensors it is made from, how


class ImageStart(NamedTuple):
    """What a network's `image_start` gives: the image network that its paper starts from, unfilled; how our tensors
    are made from those of that network, where it is not the one of the same name as it is; how kernels are inflated;
    and which part of ours starts so, "backbone.", if not the whole.
    """

    image: nn.Module
    entries: Iterable[Entry] = ()
    how: How = "average"
    part: str = ""


def inflate_conv(weight: Float[Tensor, "o i h w"], frames: int, how: How = "average") -> Float[Tensor, "o i t h w"]:
    """Give a 2-D kernel a time axis of `frames`.

    average: every frame gets weight / frames, so that a still video gives the image's answer (I3D, section 2.4).
    centre: only the middle frame gets the weight, so that the network starts as an image network (ViViT, eq. 9).
    """
    if frames < 1:
        raise ValueError(f"a kernel needs at least one frame, not {frames}")
    if how == "average":
        return repeat(weight, "o i h w -> o i t h w", t=frames) / frames
    if how != "centre":
        raise ValueError(f"how must be 'average' or 'centre', not {how!r}")
    kernel = weight.new_zeros(*weight.shape[:2], frames, *weight.shape[2:])
    kernel[:, :, frames // 2] = weight
    return kernel


@dataclass(frozen=True)
class LoadReport:
    """Which of our tensors got weights, which keep their fresh start, and which given tensors found no place; the
    prefix of a wrapper ("module.") that was cut off their names; and, in words, what was resized on the way."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    stripped: str = ""
    resized: tuple[str, ...] = ()

    def line(self, file: object) -> str:
        """In short, of a network that starts from `file`."""
        return f"start: {file}, {len(self.loaded)} tensors; fresh: {', '.join(self.fresh) or 'none'}"

    def __str__(self) -> str:
        def some(names: tuple[str, ...]) -> str:
            return ", ".join(names[:4]) + (f", ... {len(names) - 4} more" if len(names) > 4 else "")

        lines = [f"{len(self.loaded)} tensors loaded"]
        lines += [f"{len(self.fresh)} fresh: {some(self.fresh)}"] if self.fresh else []
        lines += [f"{len(self.left_over)} left over: {some(self.left_over)}"] if self.left_over else []
        lines += [f"{len(self.resized)} resized: {some(self.resized)}"] if self.resized else []
        lines += [f"names without the prefix {self.stripped!r}"] if self.stripped else []
        return "\n".join(lines)


def load_image_weights(
    net: nn.Module,
    weights: Mapping[str, Tensor],
    entries: Iterable[Entry] = (),
    how: How = "average",
    part: str = "",
) -> LoadReport:
    """Fill `net` from the tensors of an image network by our own names; `entries` and `part` as in `ImageStart`.

    Names that no entry has start from the tensor of the same name, if there is one. A kernel without a time axis,
    or with one of length 1, is inflated, `how` as in `inflate_conv`. ValueError names every tensor whose shape does not
    fit; nothing is loaded then.
    """
    ours, filled, wrong = net.state_dict(), {}, []
    sources = {name: (source, make) for name, source, make in entries}
    used: set[str] = set()
    for name, old in ours.items():
        inner = name.removeprefix(part)
        source, make = sources.get(inner, (inner, None))
        parts = (source,) if isinstance(source, str) else source
        if not name.startswith(part) or any(x not in weights for x in parts):
            continue
        new = make(*(weights[x] for x in parts)) if make else weights[parts[0]]
        used.update(parts)
        if new.ndim == old.ndim == 5 and new.shape[2] == 1:
            new = new[:, :, 0]
        if new.ndim == 4 and old.ndim == 5:
            new = inflate_conv(new, old.shape[2], how)
        if new.shape == old.shape:
            filled[name] = new
        else:
            wrong.append(f"{name}: needs {tuple(old.shape)}, {source} has {tuple(new.shape)}")
    if wrong:
        raise ValueError("image weights do not fit (resize them first, or leave them out):\n  " + "\n  ".join(wrong))
    net.load_state_dict({**ours, **filled})
    return LoadReport(
        tuple(filled), tuple(n for n in ours if n not in filled), tuple(n for n in weights if n not in used)
    )
