"""Click a patch of a clip and see which patches attention joins it to, scheme by scheme, layer by layer.

The page answers by itself (static/explorer.js): masks travel as one group number a token, learned weights as one byte
each. Only when the weights are too large for the page does it ask the kernel, for one row at a time.
"""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from jaxtyping import UInt8

from course_lib.figures import picture
from course_lib.files import atomic_write
from course_lib.grid import Grid
from course_lib.widgets import stills
from course_lib.widgets.groups import Steps, attended, attended_twice, checked_groups, last_two
from course_lib.widgets.weights import MapLike, checked_map

STATIC = Path(__file__).parent / "static"
VIEWS = ("one layer", "two layers", "learned")
MOST_ROWS = 9  # a patch and those around it


class Refused(ValueError, traitlets.TraitError):
    """A value that the explorer cannot show. As a TraitError it makes the widget keep its last good value."""


class AttentionExplorer(anywidget.AnyWidget):
    """An interactive picture of who attends to whom in a clip.

    frames: one picture for each token time. grid: the token grid (t, h, w).
    schemes: name -> the attention layers of one block in the order they are applied, each with the group number of
        every token (row-major in t, h, w); two tokens attend to each other iff their numbers are equal.
    maps: layer name -> recorded weights of a network whose scheme is `maps_scheme`.
    width: pixels that the notebook cell offers. whole_map_bytes: larger maps stay in the kernel, which is then asked
        for the row of one query at a time.

    To read and to set: scheme, view ("one layer", "two layers", "learned"), step (a layer of the scheme, "" for all),
    layer (a name of maps), head (-1 for their mean), pinned and hover (token number, -1 for none). `readout` holds
    the words under the picture. ValueError if shapes or names do not fit.
    """

    _esm = STATIC / "explorer.js"
    _css = STATIC / "explorer.css"

    # given once
    grid: Any = traitlets.List().tag(sync=True)
    geometry = traitlets.Dict().tag(sync=True)
    colours = traitlets.Dict().tag(sync=True)
    ramp = traitlets.Bytes().tag(sync=True)
    sprite = traitlets.Bytes().tag(sync=True)
    schemes: Any = traitlets.List().tag(sync=True)
    groups = traitlets.Bytes().tag(sync=True)
    layers: Any = traitlets.List().tag(sync=True)
    weights: Any = traitlets.List().tag(sync=True)  # of every map, CheckedMap.packed; empty if the kernel keeps them
    maps_scheme = traitlets.Unicode().tag(sync=True)
    # what is shown
    scheme = traitlets.Unicode().tag(sync=True)
    view = traitlets.Unicode(VIEWS[0]).tag(sync=True)
    step = traitlets.Unicode().tag(sync=True)
    layer = traitlets.Unicode().tag(sync=True)
    head = traitlets.Int(-1).tag(sync=True)
    hover = traitlets.Int(-1).tag(sync=True)
    pinned = traitlets.Int(-1).tag(sync=True)
    readout = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        frames: UInt8[np.ndarray, "t H W 3"],
        grid: tuple[int, int, int],
        schemes: Mapping[str, Steps],
        maps: Mapping[str, MapLike] | None = None,
        maps_scheme: str = "",
        *,
        width: int = 960,
        whole_map_bytes: int = 4_000_000,
        **shown: Any,
    ) -> None:
        grid = Grid(*grid)
        self._frames = _checked_frames(frames, grid)
        layout = stills.Layout.fit(grid, width)
        self._groups = checked_groups(schemes, grid)
        self._maps = {name: checked_map(name, attention, grid.size) for name, attention in (maps or {}).items()}
        if maps_scheme and maps_scheme not in self._groups:
            raise Refused(f"maps_scheme '{maps_scheme}' is none of the schemes: {_listed(self._groups)}")
        self._map_bytes = sum(found.weights.size for found in self._maps.values())
        whole = self._map_bytes <= whole_map_bytes

        names = list(dict.fromkeys(name for steps in self._groups.values() for name in steps))
        colour = {name: stills.STEPS[i % len(stills.STEPS)] for i, name in enumerate(names)}
        self._middle = int(np.ravel_multi_index([length // 2 for length in grid], grid))
        super().__init__(
            grid=list(grid),
            geometry={
                "columns": layout.columns,
                "patch": layout.patch,
                "size": list(layout.size),
                "corners": [list(layout.corner(frame)) for frame in range(grid.t)],
            },
            colours={"query": stills.QUERY, "background": stills.BACKGROUND, "tint": stills.TINT} | stills.GREY,
            ramp=stills.ramp().tobytes(),
            sprite=stills.sprite(self._frames, layout),
            schemes=[
                {"name": scheme, "steps": [{"name": step, "colour": colour[step]} for step in steps]}
                for scheme, steps in self._groups.items()
            ],
            groups=b"".join(group.tobytes() for steps in self._groups.values() for group in steps.values()),
            layers=[{"name": name, "heads": found.heads} for name, found in self._maps.items()],
            weights=[found.packed() for found in self._maps.values()] if whole else [],
            maps_scheme=maps_scheme,
            **{
                "scheme": maps_scheme or next(iter(self._groups)),
                "layer": next(iter(self._maps), ""),
                "pinned": self._middle,
                **shown,
            },
        )
        self.on_msg(lambda _, message, buffers: self.send(*self._answer(message)))

    @traitlets.validate("scheme", "view", "step", "layer", "head", "hover", "pinned")
    def _known(self, proposal: Any) -> Any:
        name, value = proposal.trait.name, proposal.value
        if name in ("hover", "pinned", "head"):
            count = self._heads if name == "head" else Grid(*self.grid).size
            if not -1 <= value < count:
                meaning = "the mean of the heads" if name == "head" else "no patch"
                numbers = f"0 to {count - 1} (there are {count}), or " if count else ""
                raise Refused(f"{name}={value}: choose {numbers}-1 for {meaning}")
            return value
        choices = {
            "scheme": list(self._groups),
            "view": list(VIEWS if self._maps else VIEWS[:2]),
            "step": ["", *self._groups.get(self.scheme, ())],
            "layer": list(self._maps) or [""],
        }[name]
        if value not in choices:
            way_out = "; pass maps to see learned weights" if name == "view" and value == VIEWS[2] else ""
            raise Refused(f"{name}={value!r} is unknown here: choose from {_listed(choices)}{way_out}")
        return value

    @traitlets.observe("scheme", "layer")
    def _drop_what_is_gone(self, _change: Any) -> None:
        """A new scheme has other steps and a new layer may have fewer heads: fall back to all of them."""
        if self.step not in self._groups[self.scheme]:
            self.step = ""
        if self.head >= self._heads:
            self.head = -1

    @property
    def _heads(self) -> int:
        return self._maps[self.layer].heads if self.layer in self._maps else 0

    def _answer(self, message: Any) -> tuple[dict[str, Any], list[bytes]]:
        """Rows of learned weights, every head of them. What the page asks for is checked, never trusted."""
        layer, queries = (message.get("layer"), message.get("queries")) if isinstance(message, dict) else (None, None)
        tokens = Grid(*self.grid).size
        if not isinstance(layer, str) or layer not in self._maps:
            return {"kind": "refused", "reason": f"no layer {layer!r}: there are {_listed(self._maps)}"}, []
        if not isinstance(queries, list) or not 0 < len(queries) <= MOST_ROWS:
            return {"kind": "refused", "reason": f"ask for a list of 1 to {MOST_ROWS} queries, not {queries!r:.80}"}, []
        for query in queries:
            if type(query) is not int or not 0 <= query < tokens:
                return {"kind": "refused", "reason": f"no token {query!r:.80}: choose 0 to {tokens - 1}"}, []
        rows = [self._maps[layer].packed(query).values() for query in queries]
        return {"kind": "rows", "layer": layer, "queries": queries}, [part for row in rows for part in row]

    def _still(self) -> tuple[bytes, str]:
        """The stored picture and its description: the mask of the pinned patch, else of the middle one."""
        grid, steps = Grid(*self.grid), self._groups[self.scheme]
        query = self.pinned if self.pinned >= 0 else self._middle
        t, row, column = (int(i) for i in np.unravel_index(query, grid))
        colour = {step["name"]: step["colour"] for scheme in self.schemes for step in scheme["steps"]}
        names, numbers = list(steps), list(steps.values())
        if self.view == "two layers":
            last, before = last_two(numbers)
            direct, reached = attended(last, query), attended_twice(last, before, query)
            masks = [(f"{names[-1]}: {direct.sum()} tokens", colour[names[-1]], direct)]
            masks.append((f"two layers: {reached.sum()} tokens", colour[names[-2:][0]], reached & ~direct))
            how = "two layers in a row"
        else:
            shown = [name for name in names if self.step in ("", name)]
            found = {name: attended(steps[name], query) for name in shown}
            masks = [(f"{name}: {mask.sum()} tokens", colour[name], mask) for name, mask in found.items()]
            how = "one layer"
        title = f"{self.scheme} attention, {how}, from the patch at time {t}, row {row}, column {column}"
        alt = (
            f"{grid.t} frames of a clip, {grid.h} x {grid.w} patches each. Coloured: {title}. "
            f"Of {grid.size} tokens it reaches: {', '.join(words for words, _, _ in masks)}."
        )
        return stills.still(self._frames, stills.Layout.fit(grid, stills.STILL_WIDTH), query, masks, title), alt

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, and beside it a still for readers without a kernel.

        As HTML, since neither JupyterLab nor nbconvert makes an alt text of an image's metadata.
        """
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return data | picture(*self._still()), metadata

    def save_html(self, path: str | os.PathLike[str], title: str = "Attention explorer") -> Path:
        """Write the explorer, as it stands, as one page that needs neither kernel nor network nor library.

        ValueError if the learned weights are too large to lie in a page.
        """
        if self._maps and not self.weights:
            raise Refused(
                f"a page cannot ask the kernel, and the weights of {len(self._maps)} layers, {self._map_bytes:,} "
                "bytes, were kept out of it: pass fewer layers in maps, or a larger whole_map_bytes"
            )
        state = {name: _as_json(getattr(self, name)) for name in AttentionExplorer.class_own_traits(sync=True)}
        still, alt = self._still()
        parts = {
            "title": html.escape(title),
            "style": str(self._css),
            "alt": html.escape(alt),
            "still": base64.b64encode(still).decode(),
            "state": json.dumps(state | {"hover": -1}).replace("</", "<\\/"),
            "script": str(self._esm),
        }
        page = (STATIC / "page.html").read_text(encoding="utf-8")
        head, *rest = page.split("{{")
        page = head + "".join(parts[name] + text for name, text in (piece.split("}}", 1) for piece in rest))
        atomic_write(Path(path), page.encode())
        return Path(path)


def _checked_frames(frames: np.ndarray, grid: Grid) -> np.ndarray:
    if min(grid) < 1:
        raise Refused(f"grid {tuple(grid)}: every length must be at least 1")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise Refused(f"frames must be uint8 (t, H, W, 3), have {frames.dtype} {frames.shape}")
    if len(frames) != grid.t:
        raise Refused(
            f"{len(frames)} frames for {grid.t} token times of grid {tuple(grid)}: pass one picture for each token "
            "time, for tubelets of k frames frames[::k]"
        )
    patch = Grid(*frames.shape[:3]).divide(grid)
    if patch.h != patch.w:
        raise Refused(
            f"frames of {frames.shape[1]} x {frames.shape[2]} pixels in {grid.h} x {grid.w} patches make patches of "
            f"{patch.h} x {patch.w}: crop the frames so that patches are square"
        )
    return frames


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


def _as_json(value: Any) -> Any:
    """Bytes become {"base64": ...}, at any depth."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {name: _as_json(part) for name, part in value.items()}
    return [_as_json(part) for part in value] if isinstance(value, list) else value
