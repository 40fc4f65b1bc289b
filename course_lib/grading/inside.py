"""Where inside a module an answer begins to differ: what goes into each of its parts, beside what the library's get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

Calls = dict[nn.Module, list[Tensor]]  # what went into each part, call by call; parts in the order of their first calls


def where_it_differs(theirs: nn.Module, ours: nn.Module, given: Sequence[Tensor]) -> str:
    """A clause about the first part that gets something else in `theirs` than in `ours`, both with equal weights.

    Parts are modules that own weights, paired by the order of these, as in `checks.copy_weights`. Answers may cut and
    fold tensors as they like, so a pair is compared only where both parts are called once and get as many numbers, and
    rows that stand in another order are the same. "" if nothing can be told.
    """
    pairs = [(mine, library) for mine, library in _pairs(theirs, ours) if mine is not theirs and library is not ours]
    mine_all, library_all = [mine for mine, _ in pairs], [library for _, library in pairs]
    with torch.no_grad(), _recorded(mine_all) as have, _recorded(library_all) as want:
        theirs(*given)
        ours(*given)
    of, names = {library: mine for mine, library in pairs}, {part: name for name, part in theirs.named_modules()}
    right = ""
    for library, wanted in want.items():
        mine = of[library]
        name, found = repr(names[mine]), have.get(mine, [])
        if not found:
            return f"{name} is not called"
        if len(found) != 1 or len(wanted) != 1 or found[0].numel() != wanted[0].numel():
            continue
        if not _alike(found[0].flatten().sort().values, wanted[0].flatten().sort().values):
            return f"what goes into {name} differs already" + (f", into {right} it does not" if right else "")
        if found[0].shape == wanted[0].shape and not _alike(_rows(found[0]), _rows(wanted[0])):
            return f"what goes into {name} has the right numbers in another order"
        if found[0].shape == wanted[0].shape and _alike(found[0], wanted[0]):
            right = name
    return f"what goes into {right} is right: look behind it" if right else ""


def _pairs(theirs: nn.Module, ours: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    seen = set()
    for pair in zip(_owners(theirs), _owners(ours), strict=True):
        if pair not in seen:
            seen.add(pair)
            yield pair


def _owners(net: nn.Module) -> list[nn.Module]:
    """Of every weight, the module that owns it."""
    owner = {id(weight): part for part in net.modules() for weight in part.parameters(recurse=False)}
    return [owner[id(weight)] for weight in net.parameters()]


@contextmanager
def _recorded(parts: Sequence[nn.Module]) -> Iterator[Calls]:
    calls: Calls = {}
    with ExitStack() as hooks:
        for part in dict.fromkeys(parts):
            hooks.enter_context(_hooked(part, calls))
        yield calls


@contextmanager
def _hooked(part: nn.Module, calls: Calls) -> Iterator[None]:
    def note(part: nn.Module, args: tuple) -> None:
        if args and isinstance(args[0], Tensor):
            calls.setdefault(part, []).append(args[0].detach())

    hook = part.register_forward_pre_hook(note)
    try:
        yield
    finally:
        hook.remove()


def _rows(x: Tensor) -> Tensor:
    """Its rows along the last axis, in an order that only their numbers decide."""
    rows = x.reshape(-1, x.shape[-1])
    return rows[rows.sum(1).argsort()]


def _alike(one: Tensor, other: Tensor) -> bool:
    spread = max(float(other.std(correction=0)), 1e-12)
    return float((one - other).abs().max()) <= 1e-6 * spread if other.numel() else True
