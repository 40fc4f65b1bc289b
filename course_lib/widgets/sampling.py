"""Choose a sampling rule and see which frames of a clip it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
import numpy as np
from jaxtyping import Int, UInt8

from course_lib.figures import picture, png
from course_lib.figures.clips import picks, strips

Rule = Callable[[int], Int[np.ndarray, "_"]]  # an epoch's number -> frame numbers


class SamplingExplorer(widgets.VBox):
    """A menu of rules, a slider for the epoch (random rules draw anew in each), and the frames that are taken.

    film: every frame of one clip. rules: name -> the frame numbers of an epoch. title: the clip's class.
    """

    def __init__(
        self, film: UInt8[np.ndarray, "T H W 3"], rules: Mapping[str, Rule], title: str = "", epochs: int = 20
    ):
        self.film, self.rules, self.title = film, rules, title
        self.rule = widgets.Dropdown(options=list(rules), description="rule")
        self.epoch = widgets.IntSlider(0, 0, epochs, description="epoch", continuous_update=False)
        self.words, self.shown = widgets.HTML(), widgets.HTML()
        super().__init__([widgets.HBox([self.rule, self.epoch]), self.words, self.shown])
        self.rule.observe(self._draw, "value")
        self.epoch.observe(self._draw, "value")
        self._draw()

    def _draw(self, _change: Any = None) -> None:
        self.words.value = self._alt()
        self.shown.value = self._still()

    def _frames(self) -> Int[np.ndarray, "_"]:
        return self.rules[self.rule.value](self.epoch.value)

    def _alt(self) -> str:
        return f"{self.rule.value}, epoch {self.epoch.value}: frames {', '.join(map(str, self._frames()))}"

    def _still(self) -> str:
        chosen, alt = self._frames(), self._alt()
        marks = picture(png(picks({self.rule.value: [chosen]}, len(self.film)), dpi=70), f"Marks on a line. {alt}")
        frames = picture(png(strips([self.film[chosen]], [self.title], chosen.tolist()), dpi=70), f"Pictures. {alt}")
        return f"{marks['text/html']}<br>{frames['text/html']}"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The live widget, and beside it a still for readers without a kernel."""
        data = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/plain": self._alt(), "text/html": self._still()}
