"""Click a patch of a clip and see which patches a layer joins it to: any layer of any network, as a relation.

The page answers by itself (static/*.js): masks travel as group numbers or along axes, recorded weights as one byte
each. Only when weights are too many for the page does it ask the kernel, for the rows of a patch and its neighbours.
"""

from __future__ import annotations

import base64
import gc
import html
import json
import os
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from tqdm import tqdm

from course_lib.analysis.relations import Reads, Relation, reach_of
from course_lib.analysis.rollout import rollout
from course_lib.analysis.tokens import shares
from course_lib.analysis.weights import KEPT
from course_lib.figures import picture
from course_lib.files import atomic_write
from course_lib.widgets import stills
from course_lib.widgets.rows import packed
from course_lib.widgets.sources import ONE, VIEWS, Sources, chain, checked, colours_of, described, stays, views, weighs

STATIC = Path(__file__).parent / "static"
SCRIPT = "\n".join(
    (STATIC / f"{part}.js").read_text(encoding="utf-8") for part in ("space", "relations", "words", "paint", "explorer")
)
MOST_ROWS = 9  # a patch and those around it
MOST_IN_A_PAGE = 2_000_000  # bytes of weights, compressed
MOST_WORKED_OUT = 40_000_000  # bytes of weights of a layer: a row may cost a pass through the network
Hiding = Callable[[Relation, np.ndarray], str]


class Refused(ValueError, traitlets.TraitError):
    """A value that the explorer cannot show. As a TraitError it makes the widget keep its last good value."""


class AttentionExplorer(anywidget.AnyWidget):
    """An interactive picture of who takes from whom in a clip.

    frames: the clip, uint8 (T, H, W, 3), as many frames as the relations tell of.
    relations: a name (a scheme, a network) -> its layers in order, masks or weights
        (`analysis.layers`, `analysis.weights`).
    facts: name -> what stands beside it when sources are compared ("multiply-adds" -> "590 G").
    hiding: for sources with weights; gets a layer and the row of a query, tells how far the score drops without what
        is attended to most. width: pixels that the notebook cell offers. whole_rows_bytes: more rows than that stay in
        the kernel, which is then asked.

    To read and to set: source, layer, view ("one layer", "whole block", "whole network"), head (from 1, or 0
    for the mean), compared (names of sources, shown below each other), pinned and hover: a pixel of the frames [frame,
    row, column], an extra token ["class token", number], or [] for none. `readout` holds the words under the picture.
    ValueError if something does not fit.
    """

    _esm = SCRIPT
    _css = STATIC / "explorer.css"

    # given once
    clip: Any = traitlets.List().tag(sync=True)
    width = traitlets.Int().tag(sync=True)
    colours = traitlets.Dict().tag(sync=True)
    ramp = traitlets.Bytes().tag(sync=True)
    sprite = traitlets.Bytes().tag(sync=True)
    sources: Any = traitlets.List().tag(sync=True)
    tables: Any = traitlets.List().tag(sync=True)
    rows: Any = traitlets.Dict().tag(sync=True)  # "source number/layer number/view" -> rows of all queries, or empty
    hides = traitlets.Bool().tag(sync=True)
    lacks = traitlets.Unicode().tag(sync=True)  # what a page without a kernel has no room for
    # what is shown
    source = traitlets.Unicode().tag(sync=True)
    layer = traitlets.Unicode().tag(sync=True)
    view = traitlets.Unicode(ONE).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    compared: Any = traitlets.List().tag(sync=True)
    hover: Any = traitlets.List().tag(sync=True)
    pinned: Any = traitlets.List().tag(sync=True)
    readout = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        frames: np.ndarray,
        relations: Sources,
        *,
        facts: Mapping[str, Mapping[str, str]] | None = None,
        hiding: Hiding | None = None,
        width: int = 960,
        whole_rows_bytes: int = 4_000_000,
        **shown: Any,
    ) -> None:
        try:
            self.relations = checked(relations)
        except ValueError as error:
            raise Refused(str(error)) from error
        self._frames = _checked_frames(frames, self.relations)
        self._hiding = hiding
        found, tables = described(self.relations, facts or {})
        weighing = [key for key in self._keys if key[2] == ONE and not stays(self._relation(*key))]
        few = sum(self._entries(*key) for key in weighing) <= whole_rows_bytes
        first = shown.get("source", next(iter(self.relations)))
        super().__init__(
            clip=list(frames.shape[:3]),
            width=width,
            colours={"query": stills.QUERY, "background": stills.BACKGROUND, "tint": stills.TINT,
                     "negative": stills.NEGATIVE} | stills.GREY,
            ramp=stills.ramp().tobytes(),
            sprite=stills.sprite(self._frames),
            sources=found,
            tables=tables,
            rows={"/".join(map(str, key)): self._all_rows(*key) for key in weighing} if few else {},
            hides=hiding is not None,
            **{
                "source": first,
                "layer": self._default_layer(first) if first in self.relations else "",
                "pinned": [length // 2 for length in frames.shape[:3]],
                **shown,
            },
        )  # fmt: skip
        self.on_msg(lambda _, message, buffers: self.send(*self._answer(message)))

    # ---- what may be set

    @traitlets.validate("source", "layer", "view", "head", "compared", "hover", "pinned")
    def _known(self, proposal: Any) -> Any:
        name, value = proposal.trait.name, proposal.value
        if name in ("hover", "pinned"):
            return self._checked_place(name, value)
        if name == "head":
            heads = self._heads()
            if not 0 <= value <= heads:
                raise Refused(f"head={value}: heads count from 1 to {heads}, and 0 is their mean")
            return value
        if name == "compared":
            if unknown := [one for one in value if one not in self.relations]:
                raise Refused(f"compared={unknown!r} is unknown here: choose from {_listed(self.relations)}")
            return value
        layers = self.relations.get(self.source, [])
        choices = {
            "source": list(self.relations),
            "layer": [layer.name for layer in layers],
            "view": list(VIEWS),
        }[name]
        if value not in choices:
            raise Refused(f"{name}={value!r} is unknown here: choose from {_listed(choices)}")
        return value

    def _checked_place(self, name: str, value: Any) -> Any:
        if value == []:
            return value
        if len(value) == 2 and isinstance(value[0], str):
            extras = {extra.name: extra.shape.size for layers in self.relations.values() for layer in layers
                      for extra in (*layer.queries.extra, *layer.keys.extra)}  # fmt: skip
            if value[0] in extras and type(value[1]) is int and 0 <= value[1] < extras[value[0]]:
                return value
            raise Refused(f"{name}={value!r}: extra tokens are [name, number] with the names {_listed(extras)}")
        if len(value) == 3 and all(type(at) is int and 0 <= at < n for at, n in zip(value, self.clip, strict=True)):
            return value
        raise Refused(
            f"{name}={value!r}: give [frame, row, column] inside the frames {tuple(self.clip)}, or [] for none"
        )

    @traitlets.observe("source", "layer")
    def _drop_what_is_gone(self, _change: Any) -> None:
        """Another source has other layers, and another layer other views and heads."""
        names = [layer.name for layer in self.relations[self.source]]
        if self.layer not in names:
            self.layer = self._default_layer(self.source)
        if self.view not in views(self.relations[self.source], names.index(self.layer)):
            self.view = ONE
        if self.head > self._heads():
            self.head = 0

    def _default_layer(self, source: str) -> str:
        """The first that attends, else the first."""
        layers = self.relations[source]
        return next((layer.name for layer in layers if layer.kind == "attention"), layers[0].name)

    def _here(self) -> Relation | None:
        return next((layer for layer in self.relations.get(self.source, ()) if layer.name == self.layer), None)

    def _heads(self) -> int:
        layer = self._here()
        if layer is None or not weighs(layer):
            return 0
        return sum(part.heads for name, part in layer.parts.items() if name != KEPT)

    def token(self, place: list[Any], layer: Relation) -> int | None:
        """The token of a layer that asks where `place` is; None if it has no such token."""
        if not place:
            return None
        if isinstance(place[0], str):
            if place[0] not in [extra.name for extra in layer.queries.extra]:
                return None
            numbers = layer.queries.extra_numbers(place[0]).ravel()
            return int(numbers[place[1]]) if place[1] < len(numbers) else None
        at = [i * n // length for i, n, length in zip(place, layer.queries.grid, self.clip, strict=True)]
        return int(np.ravel_multi_index(at, layer.queries.grid))

    # ---- rows of weights

    @cached_property
    def _keys(self) -> list[tuple[int, int, str]]:
        """Source, layer and view of everything that has weights."""
        return [
            (s, i, view)
            for s, layers in enumerate(self.relations.values())
            for i, layer in enumerate(layers)
            if weighs(layer)
            for view in views(layers, i)
        ]

    @cached_property
    def _composed(self) -> dict[tuple[int, int, str], Relation]:
        return {}

    def _relation(self, source: int, layer: int, view: str) -> Relation:
        layers = list(self.relations.values())[source]
        if view == ONE:
            return layers[layer]
        key = (source, layer, view)
        if key not in self._composed:
            found = chain(layers, layer, view)
            assert found is not None
            self._composed[key] = rollout(found, f"{layers[layer].name}, {view}")
        return self._composed[key]

    def _entries(self, source: int, layer: int, view: str) -> int:
        """About how many bytes all rows take; of what is worked out row by row, at most."""
        relation = self._relation(source, layer, view)
        if stays(relation):
            return relation.queries.size * relation.keys.size * 5
        calls = [call for part in relation.parts.values() for call in part.calls]
        return sum(call.weights.size + call.weights[:, 0].size * 4 for call in calls)

    def _all_rows(self, source: int, layer: int, view: str) -> dict[str, bytes]:
        relation = self._relation(source, layer, view)
        found = [packed(relation.parts.values(), query) for query in range(relation.queries.size)]
        begin = np.cumsum([0, *map(len, found)]).astype("<i4")
        return {"begin": begin.tobytes(), "rows": b"".join(found)}

    def _answer(self, message: Any) -> tuple[dict[str, Any], list[bytes]]:
        """Rows of weights, every part and head of them. What the page asks for is checked, never trusted."""
        asked = message if isinstance(message, dict) else {}
        source, layer, view, queries = (asked.get(name) for name in ("source", "layer", "view", "queries"))
        key = (source, layer, view)
        if type(source) is not int or type(layer) is not int or not isinstance(view, str) or key not in self._keys:
            return _refusal(f"no weights for source {source!r:.40}, layer {layer!r:.40}, view {view!r:.40}")
        if not isinstance(queries, list) or not 0 < len(queries) <= MOST_ROWS:
            return _refusal(f"ask for a list of 1 to {MOST_ROWS} queries, not {queries!r:.80}")
        relation = self._relation(*key)
        for query in queries:
            if type(query) is not int or not 0 <= query < relation.queries.size:
                return _refusal(f"no token {query!r:.80}: choose 0 to {relation.queries.size - 1}")
        if asked.get("kind") == "hide" and self._hiding is not None:
            weights = [part.row(queries[0]).mean(0) for name, part in relation.parts.items() if name != KEPT]
            return {"kind": "hidden", "text": self._hiding(relation, np.mean(weights, axis=0))}, []
        reply = {"kind": "rows", "source": source, "layer": layer, "view": view, "queries": queries}
        return reply, [packed(relation.parts.values(), query) for query in queries]

    # ---- without a page

    def _still(self) -> tuple[bytes, str]:
        """The stored picture and its description, for the pinned patch, else for the middle one."""
        layers, layer = self.relations[self.source], self._here()
        assert layer is not None
        place = self.pinned or [length // 2 for length in self.clip]
        query = self.token(place, layer)
        painted: list[stills.Painted] = []
        keys, said = layer.keys, f"no such token takes part in {layer.name}"
        if query is not None:
            painted, keys = self._painted(layers, layer, query)
            said = ", ".join(f"{one.words}" for one in painted) or "it takes from nobody here"
        who = (
            f"{place[0]} {place[1]}"
            if isinstance(place[0], str)
            else "the patch at frame {}, row {}, column {}".format(*place)
        )
        takes = "used" if layer.kind == "gradient" else "takes from"
        title = f"{self.source}, {layer.name}, {self.view}: what {who} {takes}"
        drawn, asking = keys.grid, layer.queries.grid
        what = "tokens"
        if layer.kind == "attention" and self.view == ONE and drawn != asking:  # keys are pooled, or fewer tokens go on
            what = f"keys; {asking.t} x {asking.h} x {asking.w} tokens ask"
        alt = (
            f"{len(self._frames)} frames of a clip in {drawn.t} steps of {drawn.h} x {drawn.w} {what}. {title}. {said}."
        )
        return stills.still(self._frames, keys, self._box(place, layer, query), painted, title), alt

    def _painted(self, layers: list[Relation], layer: Relation, query: int) -> tuple[list[stills.Painted], Any]:
        """Masks as they are; of weights, those above uniform; with signs, those of at least half the largest size."""
        colours = colours_of(self.relations)
        index = layers.index(layer)
        if self.view != ONE and not weighs(layer):
            found = chain(layers, index, self.view)
            if found is None:  # what a convolution sees of the clip
                pixels, seen = Reads(layer.queries.sees).row(query), layer.queries.clip
                return [stills.Painted(f"sees {pixels.mean():.0%} of the clip", stills.STEPS[0], pixels)], shares(
                    seen, seen
                )
            reached = reach_of(found, query)
            words = f"{reached.sum()} of {reached.size} tokens reach it"
            return [stills.Painted(words, colours[next(iter(found[0].parts))], reached)], found[0].inputs or found[
                0
            ].keys
        relation = self._relation(list(self.relations).index(self.source), index, self.view)
        painted = []
        for name, part in relation.parts.items():
            row = part.row(query)
            if name == KEPT:
                continue
            if row.ndim == 1:
                painted.append(stills.Painted(f"{name}: {row.sum()} of {row.size} tokens", colours[name], row))
                continue
            weights = row.mean(0)
            if (weights < 0).any():  # affinities, which have no equal share
                strong = np.abs(weights) >= np.abs(weights).max() / 2
                for sign, colour, some in (
                    ("plus", colours.get(name, stills.STEPS[0]), strong & (weights > 0)),
                    ("minus", stills.NEGATIVE, strong & (weights < 0)),
                ):
                    words = f"{name}: {some.sum()} of {row.shape[1]} strongly, with a {sign} sign"
                    painted.append(stills.Painted(words, colour, some))
                continue
            above = weights > 1 / max(1, (row != 0).any(0).sum())
            what = "places" if layer.kind == "gradient" else "tokens"
            words = f"{name}: {above.sum()} of {row.shape[1]} {what} get more than an equal share"
            painted.append(stills.Painted(words, colours.get(name, stills.STEPS[0]), above))
        return painted, relation.keys

    def _box(self, place: list[Any], layer: Relation, query: int | None) -> stills.Box | None:
        if query is None or isinstance(place[0], str):
            return stills.Box(extra=place[0], number=place[1]) if isinstance(place[0], str) else None
        grid = layer.queries.grid
        at = np.unravel_index(query, grid)
        start, stop = ([(int(i) + more) / n for i, n in zip(at, grid, strict=True)] for more in (0, 1))
        return stills.Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and beside it a still for readers without a kernel.

        As HTML, since neither JupyterLab nor nbconvert makes an alt text of an image's metadata.
        """
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return data | picture(*self._still()), metadata

    def page_state(self, most_bytes: int = 10_000_000) -> dict[str, Any]:
        """The explorer as it stands, for a page that has no kernel to ask: rows of weights are in it, bytes as
        {"base64": ...}.

        most_bytes: of weights, compressed. What is shown comes first, then attention, then gradients, and of these
        whatever has fewer rows. The page does not offer what finds no room, and says how much that is. ValueError if
        what is shown finds none.
        """
        rows, room = {}, most_bytes
        for key in tqdm(self._by_need(), "weights of a page", unit="layer", leave=False, delay=3):
            found = self._all_rows(*key) if self._entries(*key) <= MOST_WORKED_OUT else None
            size = len(zlib.compress(found["rows"])) if found else self._entries(*key)
            if found and size <= room:
                rows[key] = found
                room -= size
            elif key in self._on_show():
                source, layer, view = key
                name = self.sources[source]["layers"][layer]["name"]
                raise Refused(
                    f"a page cannot ask the kernel, and the weights of '{name}', {view}, are about "
                    f"{size:,} bytes: show a smaller layer, or pass a larger most_bytes"
                )
        state = {name: _as_json(getattr(self, name)) for name in AttentionExplorer.class_own_traits(sync=True)}
        for s, i, view in self._keys:
            if (s, i, view) not in rows:
                state["sources"][s]["layers"][i]["absent"].append(view)
        state |= {"hover": [], "hides": False, "lacks": self._lacks(set(rows))}
        state["rows"] = {"/".join(map(str, key)): _as_json(rows[key]) for key in self._keys if key in rows}
        return state

    def _on_show(self) -> set[tuple[int, int, str]]:
        """What the page opens with, of that which has weights."""
        shown = set()
        for name in self.compared or [self.source]:
            layers = self.relations[name]
            names = [layer.name for layer in layers]
            i = names.index(self.layer if self.layer in names else self._default_layer(name))
            view = self.view if self.view in views(layers, i) else ONE
            shown.add((list(self.relations).index(name), i, view))
        return shown & set(self._keys)

    def _by_need(self) -> list[tuple[int, int, str]]:
        shown = self._on_show()

        def need(key: tuple[int, int, str]) -> tuple[bool, bool, int]:
            relation = self._relation(*key)
            return key not in shown, relation.kind == "gradient", relation.queries.size

        return sorted(self._keys, key=need)

    def _lacks(self, there: set[tuple[int, int, str]]) -> str:
        """Words on what a page does not hold, source by source."""
        said = []
        for s, name in enumerate(self.relations):
            every = [key for key in self._keys if key[0] == s]
            if missing := len(set(every) - there):
                said.append(f"{len(every) - missing} of {len(every)} in '{name}'")
        room = "Of the views of layers with weights this page has room for"
        return f"{room} {', '.join(said)}; the notebook has them all." if said else ""

    def save_html(
        self, path: str | os.PathLike[str], title: str = "Attention explorer", most_bytes: int = 10_000_000
    ) -> Path:
        """Write the explorer, as it stands, as one page that needs neither kernel nor network nor library.

        most_bytes and ValueError as for `page_state`.
        """
        state = self.page_state(most_bytes)
        still, alt = self._still()
        parts = {
            "title": html.escape(title),
            "style": str(self._css),
            "alt": html.escape(alt),
            "still": base64.b64encode(still).decode(),
            "state": json.dumps(state).replace("</", "<\\/"),
            "script": str(self._esm),
        }
        page = (STATIC / "page.html").read_text(encoding="utf-8")
        head, *rest = page.split("{{")
        page = head + "".join(parts[name] + text for name, text in (piece.split("}}", 1) for piece in rest))
        atomic_write(Path(path), page.encode())
        return Path(path)


def write_states(path: str | os.PathLike[str]) -> None:
    """Write what each explorer of this process would show in a page, by its widget's id, as JSON.

    One that shows more weights than a page should load is left out.
    """
    states = {}
    for explorer in gc.get_objects():
        if issubclass(type(explorer), AttentionExplorer):  # isinstance would wake weak references that have died
            with suppress(Refused):
                states[explorer.model_id] = explorer.page_state(most_bytes=MOST_IN_A_PAGE)
    Path(path).write_text(json.dumps(states), encoding="utf-8")


def _checked_frames(frames: np.ndarray, relations: Mapping[str, list[Relation]]) -> np.ndarray:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or min(frames.shape) < 1:
        raise Refused(f"frames must be uint8 (T, H, W, 3), have {frames.dtype} {frames.shape}")
    for source, layers in relations.items():
        for layer in layers:
            t, h, w = layer.queries.clip
            if abs(frames.shape[1] * w - frames.shape[2] * h) > max(h, w) or len(frames) % min(t, len(frames)):
                raise Refused(
                    f"frames {frames.shape[:3]} do not show the clip {tuple(layer.queries.clip)} of '{source}': crop "
                    "them to the same form, and give as many frames, or a multiple"
                )
    return frames


def _refusal(reason: str) -> tuple[dict[str, Any], list[bytes]]:
    return {"kind": "refused", "reason": reason}, []


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


def _as_json(value: Any) -> Any:
    """Bytes become {"base64": ...}, at any depth."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {name: _as_json(part) for name, part in value.items()}
    return [_as_json(part) for part in value] if isinstance(value, list) else value
