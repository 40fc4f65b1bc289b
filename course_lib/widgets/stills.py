"""Where the explorer puts its frames, in which colours, and the still picture that stands in for it.

Okabe and Ito's colours are told apart by readers with any common colour blindness.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from course_lib.grid import Grid

QUERY = "#0072B2"  # blue
STEPS = ("#D55E00", "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#F0E442")  # vermillion, sky blue, green, purple, ...
BACKGROUND, INK = "#14181d", "#e6edf3"  # the frames lie on a dark table in light and in dark themes
TINT = 0.7  # how far a colour covers the picture
GREY = {"dark": 20, "dim": 0.55}  # under a mask the picture turns grey: brightness -> dark + dim * brightness
MARGIN, GAP, LABEL, HEIGHT, LARGEST = 12, 12, 22, 560, 48  # screen pixels; LARGEST of a patch
STILL_WIDTH = 720  # smaller than on the screen, since every notebook stores it
RAMP = ((72, 30, 120), (58, 84, 160), (30, 146, 140), (96, 202, 100), (253, 231, 60))  # never grey, ever brighter


class Layout(NamedTuple):
    """Frames in lines, like text; lengths in screen pixels."""

    grid: Grid
    columns: int
    patch: int

    @classmethod
    def fit(cls, grid: Grid, width: int) -> Layout:
        """The largest patches with which all frames fit into `width`, in a height that fits on a screen.

        Lines are as even as they can be: 8 frames stand as 4 and 4, not as 7 and 1.
        """
        for patch in range(LARGEST, 1, -1):
            room = max(1, min((width - 2 * MARGIN + GAP) // (grid.w * patch + GAP), grid.t))
            lines = -(-grid.t // room)
            layout = cls(grid, -(-grid.t // lines), patch)
            if layout.size[0] <= width and layout.size[1] <= HEIGHT:
                break
        return layout

    @property
    def size(self) -> tuple[int, int]:
        lines = -(-self.grid.t // self.columns)
        return (
            2 * MARGIN + self.columns * (self.grid.w * self.patch + GAP) - GAP,
            2 * MARGIN + lines * (LABEL + self.grid.h * self.patch + GAP) - GAP,
        )

    def corner(self, frame: int) -> tuple[int, int]:
        """Left and top of a frame; its label stands above."""
        line, column = divmod(frame, self.columns)
        return (
            MARGIN + column * (self.grid.w * self.patch + GAP),
            MARGIN + LABEL + line * (LABEL + self.grid.h * self.patch + GAP),
        )

    def centre(self, token: int) -> tuple[float, float]:
        """The middle of a patch."""
        frame, row, column = np.unravel_index(token, self.grid)
        left, top = self.corner(int(frame))
        return left + (column + 0.5) * self.patch, top + (row + 0.5) * self.patch


def ramp() -> UInt8[np.ndarray, "256 4"]:
    """Weight level -> red, green, blue, opacity: zero is a violet veil, the strongest bright yellow."""
    at = np.linspace(0, 255, len(RAMP))
    colour = [np.interp(np.arange(256), at, channel) for channel in zip(*RAMP, strict=True)]
    return np.stack([*colour, np.linspace(0.5, 0.95, 256) * 255], axis=-1).round().astype(np.uint8)


def sprite(frames: UInt8[np.ndarray, "t H W 3"], layout: Layout) -> bytes:
    """All frames in one JPEG, one below the other, no larger than a fine screen can show."""
    height, width = layout.grid.h * layout.patch * 2, layout.grid.w * layout.patch * 2
    pictures = [Image.fromarray(frame) for frame in frames]
    if pictures[0].height > height:
        pictures = [picture.resize((width, height), Image.Resampling.LANCZOS) for picture in pictures]
    file = io.BytesIO()
    Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures])).save(
        file, "JPEG", quality=92, subsampling=0
    )
    return file.getvalue()


def still(
    frames: UInt8[np.ndarray, "t H W 3"],
    layout: Layout,
    query: int,
    masks: Sequence[tuple[str, str, Bool[np.ndarray, " n"]]],
    title: str,
) -> bytes:
    """A PNG of the frames with the tokens of every (words, colour, mask) tinted; where masks meet, in stripes."""
    width, height = layout.size
    grid, side = layout.grid, layout.patch
    sheet = Image.new("RGB", (width, height + 2 * LABEL + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for t, frame in enumerate(frames):
        left, top = layout.corner(t)
        grey = (
            Image.fromarray(frame).convert("L").point(lambda level: GREY["dark"] + GREY["dim"] * level).convert("RGB")
        )
        sheet.paste(grey.resize((grid.w * side, grid.h * side), Image.Resampling.BOX), (left, top))
        draw.text((left, top - 5), f"t = {t}", INK, font, anchor="ls")

    tint = Image.new("RGB", sheet.size)
    cover = Image.new("L", sheet.size)
    paint, lay = ImageDraw.Draw(tint), ImageDraw.Draw(cover)
    for token in range(grid.size):
        colours = [QUERY] if token == query else [colour for _, colour, mask in masks if mask[token]]
        x, y = (round(centre - side / 2) for centre in layout.centre(token))
        for k, colour in enumerate(colours):
            stripe = (x + side * k // len(colours), y, x + side - 1, y + side - 1)
            paint.rectangle(stripe, colour)
            lay.rectangle(stripe, 255 if token == query else round(255 * TINT))
    sheet.paste(tint, mask=cover)
    x, y = (round(centre - side / 2) for centre in layout.centre(query))
    draw.rectangle((x - 1, y - 1, x + side, y + side), outline="white", width=2)

    draw.text((MARGIN, height + LABEL - 8), title, INK, font, anchor="ls")
    x = MARGIN
    for words, colour in (("query", QUERY), *((words, colour) for words, colour, _ in masks)):
        draw.rectangle((x, height + LABEL + 3, x + 12, height + LABEL + 15), colour)
        draw.text((x + 18, height + LABEL + 14), words, INK, font, anchor="ls")
        x += 18 + round(draw.textlength(words, font)) + 24
    file = io.BytesIO()
    sheet.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()
