"""Released checkpoints: their names and layouts, and how they become ours.

One file a code base. Each gives `entries(model)`: for every tensor of ours, the official tensor that it is made from
and how (None: as it is), or the several that `how` puts together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import Tensor, nn

from course_lib.layers.inflate import Entry, LoadReport
from course_lib.official import adapt as adapting
from course_lib.official import (
    gluonmm,
    huggingface,
    i3d,
    mvit,
    pyslowfast,
    pytorchvideo,
    scenic,
    timesformer,
    torchvision,
    videoswin,
    vtn,
)
from course_lib.official.read import Checkpoint, State, read, without_wrappers

SOURCES: dict[str, Callable[[nn.Module], Iterator[Entry]]] = {
    "piergiaj": i3d.piergiaj,
    "hassony2": i3d.hassony2,
    "pyslowfast": pyslowfast.entries,
    "pytorchvideo": pytorchvideo.entries,
    "torchvision": torchvision.entries,
    "vtn": vtn.entries,
    "timesformer": timesformer.entries,
    "videoswin": videoswin.entries,
    "scenic": scenic.entries,
    "gluonmm": gluonmm.entries,
    "huggingface": huggingface.entries,
}
OLDER = {  # other layouts of the same release, and what brings them into the form that its entries name
    "pyslowfast": pyslowfast.from_caffe2,
    "scenic": scenic.from_flax,
    "huggingface": huggingface.from_v4,
}
COPIES = {"pytorchvideo": mvit.first_name}  # the first name of a tensor that a release holds under two


def load(
    model: nn.Module, checkpoint: Checkpoint, source: str, part: str | None = None, adapt: bool = False
) -> LoadReport:
    """Fill `model` from an official checkpoint: a file, by its path or open, or what such a file holds, as a dict.

    Every format in use is known by its content (`official.read`); `part` chooses among several state dicts in a file.
    Prefixes of wrappers ("module.") are cut off where the rest fits.

    Strict both ways: ValueError names every official tensor that is missing, unexpected or misshapen, and then nothing
    is loaded. Integer buffers (counters, index tables) may be left over, and so may second copies of a tensor, if they
    equal the first; the report names them. Ours stay as built.

    With `adapt` the model may have other classes, frames, pixels or windows than the checkpoint: the head stays fresh
    where it does not fit or is missing, position embeddings and relative tables are resized; the report says which.
    """
    if source not in SOURCES:
        raise ValueError(f"unknown checkpoint format {source!r}: there are {', '.join(SOURCES)}")
    names = wanted(SOURCES[source](model))
    prefix, state = unwrap(read(checkpoint, part), names, OLDER.get(source, dict))
    ours = model.state_dict()
    if adapt:
        filled, left, resized = _adapted(model, state, source)
    else:
        if why := adapting.misleading(model):
            raise ValueError(f"{why}: load with adapt=True, which resizes them")
        filled, left, problems = _gather_all(model, state, source)
        resized = ()
        if problems:
            raise _misfit(model, source, problems, known=bool(names & state.keys()))
        unfilled = [name for name, tensor in ours.items() if name not in filled and tensor.is_floating_point()]
        assert not unfilled, f"course_lib.official.{source} forgets {unfilled}"
    model.load_state_dict({**ours, **filled})
    fresh = tuple(name for name, tensor in ours.items() if name not in filled and tensor.is_floating_point())
    return LoadReport(tuple(filled), fresh, tuple(left), prefix, resized)


def _gather_all(
    model: nn.Module, state: State, source: str, head: bool = True
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Our tensors, the official names that are left over, and what does not fit, in words; perhaps without the head."""
    entries = list(SOURCES[source](model))
    heads = wanted(entry for entry in entries if entry[0].startswith("head."))
    filled, used, problems = gather(
        model.state_dict(), state, [entry for entry in entries if head or not entry[0].startswith("head.")]
    )
    left = [name for name in state if name not in used]
    first = COPIES.get(source, lambda name: None)
    copies = {name for name in left if first(name) in state and same(state[name], state[first(name)])}
    allowed = copies if head else copies | heads
    problems += [f"unexpected: {name}" for name in left if name not in allowed and state[name].is_floating_point()]
    return filled, left, list(dict.fromkeys(problems))


STRICT = "build the model with the checkpoint's classes, frames, size and attention, or load with adapt=True"


def _misfit(model: nn.Module, source: str, problems: list[str], known: bool, remedy: str = STRICT) -> ValueError:
    shown = problems[:40] + ([f"... and {len(problems) - 40} more"] if len(problems) > 40 else [])
    if not known:
        remedy = f"none of its names is {source}'s for it: is it of another network or source, or under a prefix?"
    return ValueError(
        f"{len(problems)} tensors of this {source} checkpoint do not fit {type(model).__name__}; {remedy}:\n  "
        + "\n  ".join(shown)
    )


def _adapted(model: nn.Module, state: State, source: str) -> tuple[dict[str, Tensor], list[str], tuple[str, ...]]:
    """Our tensors, what is left over, and what was resized; ValueError if it belongs to no network of this kind."""
    problems = None
    entries = list(SOURCES[source](model))
    rows = {
        name: state[official].numel() // state[official].shape[-1]
        for name, official, _ in entries
        if isinstance(official, str) and official in state and name.endswith("_embed.weight")
    }
    for other in adapting.relatives(model, rows):
        theirs, left, found = _gather_all(other, state, source, head=False)
        problems = found if problems is None else problems
        if not found:
            break
    else:
        known = bool(wanted(entries) & state.keys())
        raise _misfit(model, source, problems or [], known, "no frames, size or window that was tried makes them fit")
    heads = [entry for entry in entries if entry[0].startswith("head.")]
    fitting, used, wrong = gather(model.state_dict(), state, heads)
    if not wrong:  # as a whole: a head of which one tensor fits is another task's
        theirs, left = theirs | fitting, [name for name in left if name not in used]
    filled, resized = adapting.fit(model, other, theirs)
    return filled, left, tuple(resized)


def unwrap(
    state: Mapping[str, Tensor], names: set[str], rename: Callable[[Mapping[str, Tensor]], State] = dict
) -> tuple[str, State]:
    """The state dict without the prefix of a wrapper, as far as that brings more of the names to light, and renamed;
    the prefix comes first."""
    tried = [(prefix, rename(bare)) for prefix, bare in without_wrappers(state)]
    return max(tried, key=lambda one: len(names & one[1].keys()))


def wanted(entries: Iterable[Entry]) -> set[str]:
    """The official names that a network is made from."""
    return {name for _, official, _ in entries for name in _parts(official)}


def _parts(official: str | tuple[str, ...]) -> tuple[str, ...]:
    return (official,) if isinstance(official, str) else official


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.equal(b)


def gather(
    ours: Mapping[str, Tensor], state: Mapping[str, Tensor], entries: Iterable[Entry]
) -> tuple[dict[str, Tensor], set[str], list[str]]:
    """Our tensors made from official ones, the names of those, and what is missing or misshapen, in words."""
    filled: dict[str, Tensor] = {}
    used: set[str] = set()
    problems: list[str] = []
    for name, official, how in entries:
        parts = _parts(official)
        used.update(parts)
        missing = [part for part in parts if part not in state]
        if missing:
            problems += [f"missing: {part}" for part in missing]
            continue
        wanted, given = ours[name].shape, [state[part] for part in parts]
        try:
            filled[name] = given[0] if how is None else how(*given)
            found = filled[name].shape
        except (RuntimeError, ValueError, IndexError):  # the official tensor does not even have the right axes
            found = given[0].shape
        if found != wanted:
            shapes = ", ".join(f"{part} {tuple(state[part].shape)}" for part in parts)
            problems.append(f"misshapen: {shapes} for {name} {tuple(wanted)}")
    return filled, used, problems
