"""Where the explorer puts its frames, in which colours, and the still picture that stands in for it.

Okabe and Ito's colours are told apart by readers with any common colour blindness.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from course_lib.analysis.tokens import Tokens, shares
from course_lib.figures import png_of
from course_lib.grid import Grid

QUERY = "#0072B2"  # blue
STEPS = ("#D55E00", "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#F0E442")  # vermillion, sky blue, green, purple, ...
BACKGROUND, INK = "#14181d", "#e6edf3"  # the frames lie on a dark table in light and in dark themes
TINT = 0.7  # how far a colour covers the picture
GREY = {"dark": 20, "dim": 0.55}  # under a mask the picture turns grey: brightness -> dark + dim * brightness
MARGIN, GAP, LABEL, HEIGHT, LARGEST = 12, 12, 22, 560, 48  # screen pixels; LARGEST of a patch
GRILLE = round(0.22 * 255)  # the opacity of the lines between tokens
PANEL = 224  # as wide as a panel may be for any grid
TEXT = 150  # room for the name of extra tokens
SPRITE, MANY = 448, 60_000  # the largest side of a frame that is sent; the most tokens that a still draws
STILL = (720, 420)  # smaller than on the screen, since every notebook stores it, and as flat as a slide
STILL_LETTERS, LINE = 18, 26  # of a still's words: as large as a page's at 640 pixels, and read on a slide
NEGATIVE = "#3b7dd8"  # of affinities below zero
RAMP = ((72, 30, 120), (58, 84, 160), (30, 146, 140), (96, 202, 100), (253, 231, 60))  # never grey, ever brighter


class Tile(NamedTuple):
    """Extra tokens in the picture: left, top, side of a tile, how many in a line, how many in all, their name."""

    x: int
    y: int
    side: int
    columns: int
    many: int
    name: str


class Layout(NamedTuple):
    """One panel for each step of time, in lines like text, and extra tokens below; lengths in screen pixels.

    static/space.js lays out by the same rules.
    """

    grid: Grid
    panel: tuple[int, int]  # width and height
    columns: int
    tiles: tuple[Tile, ...] = ()
    top: int = 0

    @classmethod
    def fit(cls, tokens: Tokens, width: int, height: int = HEIGHT, top: int = 0) -> Layout:
        """The largest panels with which all of them fit into `width` and `height`.

        Lines are as even as they can be: 8 panels stand as 4 and 4, not as 7 and 1. Patches are whole pixels where a
        panel has at least one for each.
        """
        grid, tall = tokens.grid, tokens.clip.h / tokens.clip.w
        cells = range(max(LARGEST, PANEL // grid.w), 0, -1)
        whole = [grid.w * cell for cell in cells if grid.w * cell <= LARGEST * 14]
        for wide in [*whole, *range(min(grid.w, whole[-1]) - 8 if whole else 112, 15, -8)]:
            rows = round(wide * tall / grid.h) * grid.h  # whole pixels for patches that are not square, too
            panel = (wide, rows or round(wide * tall))
            room = max(1, min((width - 2 * MARGIN + GAP) // (wide + GAP), grid.t))
            layout = cls(grid, panel, -(-grid.t // -(-grid.t // room)), (), top).with_tiles(tokens, width)
            if layout.size[0] <= width and layout.size[1] <= height:
                break
        return layout

    def with_tiles(self, tokens: Tokens, width: int) -> Layout:
        tiles: list[Tile] = []
        x, y = MARGIN, self.bottom + LABEL
        for extra in tokens.extra:
            t, h, w = extra.shape
            side = (
                26 if extra.shape.size == 1 else max(2, min(12, self.panel[1] // h) if h * w > 1 else min(18, 500 // t))
            )
            columns = w if h * w > 1 else t
            wide = max(columns * side, TEXT)
            if x > MARGIN and x + wide > width - MARGIN:
                x, y = MARGIN, max(tile.y + -(-tile.many // tile.columns) * tile.side for tile in tiles) + LABEL
            tiles.append(Tile(x, y, side, columns, extra.shape.size, extra.name))
            x += wide + 2 * GAP
        return self._replace(tiles=tuple(tiles))

    @property
    def lines(self) -> int:
        return -(-self.grid.t // self.columns)

    @property
    def bottom(self) -> int:
        """Under the last line of panels."""
        return self.top + MARGIN + self.lines * (LABEL + self.panel[1] + GAP) - GAP

    @property
    def size(self) -> tuple[int, int]:
        low = [tile.y + -(-tile.many // tile.columns) * tile.side for tile in self.tiles]
        wide = [tile.x + max(tile.columns * tile.side, TEXT) for tile in self.tiles]
        right = MARGIN + self.columns * (self.panel[0] + GAP) - GAP
        return max(right, *wide, 0) + MARGIN, max([self.bottom, *low]) + MARGIN - self.top

    def corner(self, step: int) -> tuple[int, int]:
        """Left and top of a panel; its label stands above."""
        line, column = divmod(step, self.columns)
        return (
            MARGIN + column * (self.panel[0] + GAP),
            self.top + MARGIN + LABEL + line * (LABEL + self.panel[1] + GAP),
        )

    def box(self, token: int) -> tuple[float, float, float, float]:
        """Left, top, width and height of a token, extra ones too."""
        if token < self.grid.size:
            step, row, column = np.unravel_index(token, self.grid)
            (left, top), wide, high = self.corner(int(step)), self.panel[0] / self.grid.w, self.panel[1] / self.grid.h
            return left + float(column) * wide, top + float(row) * high, wide, high
        token -= self.grid.size
        for tile in self.tiles:
            if token < tile.many:
                line, place = divmod(token, tile.columns)
                return tile.x + place * tile.side, tile.y + line * tile.side, tile.side, tile.side
            token -= tile.many
        raise IndexError(f"no token {token} in the picture")

    def centre(self, token: int) -> tuple[float, float]:
        x, y, wide, high = self.box(token)
        return x + wide / 2, y + high / 2


def frame_of(step: int, steps: int, frames: int) -> int:
    """The frame in the middle of a step's share of the clip."""
    return (2 * step + 1) * frames // (2 * steps)


def ramp() -> UInt8[np.ndarray, "256 4"]:
    """Level from uniform to the strongest -> red, green, blue, opacity: from a violet veil to bright yellow."""
    at = np.linspace(0, 255, len(RAMP))
    colour = [np.interp(np.arange(256), at, channel) for channel in zip(*RAMP, strict=True)]
    return np.stack([*colour, np.linspace(0.5, 0.95, 256) * 255], axis=-1).round().astype(np.uint8)


def sprite(frames: UInt8[np.ndarray, "t H W 3"]) -> bytes:
    """All frames in one JPEG, one below the other, no larger than a fine screen can show."""
    pictures = [Image.fromarray(frame) for frame in frames]
    share = min(1.0, SPRITE / max(pictures[0].size), (65_000 / len(frames)) / pictures[0].height)
    if share < 1:
        size = (max(1, round(pictures[0].width * share)), max(1, round(pictures[0].height * share)))
        pictures = [picture.resize(size, Image.Resampling.LANCZOS) for picture in pictures]
    file = io.BytesIO()
    Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures])).save(
        file, "JPEG", quality=92, subsampling=0
    )
    return file.getvalue()


class Painted(NamedTuple):
    """Tokens of one colour in the picture, and what the legend says of them."""

    words: str
    colour: str
    mask: Bool[np.ndarray, " n"]


def still(
    frames: UInt8[np.ndarray, "T H W 3"], tokens: Tokens, asking: Box | None, painted: Sequence[Painted], title: str
) -> bytes:
    """A PNG of the frames with tokens tinted, in stripes where colours meet; `asking` is outlined, in screen pixels."""
    tokens, painted = coarse(tokens, painted)
    layout = Layout.fit(tokens, *STILL)
    font = ImageFont.load_default(size=STILL_LETTERS)
    legend = [("the patch that asks", QUERY), *((one.words, one.colour) for one in painted)]
    lengths = [24 + math.ceil(font.getlength(words)) for words, _ in legend]
    word = max(math.ceil(font.getlength(word)) for word in title.split())
    width, height = max(layout.size[0], 480, max(word, *lengths) + 2 * MARGIN), layout.size[1]
    places = in_lines(lengths, width)
    titles = broken(title, width - 2 * MARGIN, font)
    low = height + len(titles) * LINE  # where the legend begins
    sheet = Image.new("RGB", (width, low + (1 + places[-1][1]) * LINE + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for step in range(layout.grid.t):
        left, top = layout.corner(step)
        at = frame_of(step, layout.grid.t, len(frames))
        grey = Image.fromarray(frames[at]).convert("L").point(lambda level: GREY["dark"] + GREY["dim"] * level)
        sheet.paste(grey.convert("RGB").resize(layout.panel, Image.Resampling.BOX), (left, top))
        draw.text((left, top - 5), f"t = {at}", INK, font, anchor="ls")
    for tile in layout.tiles:
        draw.text((tile.x, tile.y - 5), tile.name, INK, font, anchor="ls")
        for i in range(tile.many):
            left, top = tile.x + i % tile.columns * tile.side, tile.y + i // tile.columns * tile.side
            draw.rectangle((left, top, left + tile.side - 2, top + tile.side - 2), "#39424e")

    tint, cover = Image.new("RGB", sheet.size), Image.new("L", sheet.size)
    paint, lay = ImageDraw.Draw(tint), ImageDraw.Draw(cover)
    for token in range(tokens.size):
        colours = [one.colour for one in painted if one.mask[token]]
        x, y, wide, high = layout.box(token)
        for k, colour in enumerate(colours):
            stripe = (round(x + wide * k / len(colours)), round(y), round(x + wide) - 1, round(y + high) - 1)
            if stripe[2] >= stripe[0] and stripe[3] >= stripe[1]:
                paint.rectangle(stripe, colour)
                lay.rectangle(stripe, round(255 * TINT))
    sheet.paste(tint, mask=cover)
    sheet.paste("black", mask=grille(layout, sheet.size))
    for x, y, wide, high in asked_boxes(layout, tokens, asking):
        draw.rectangle((x - 2, y - 2, x + wide + 1, y + high + 1), outline=QUERY, width=2)
        draw.rectangle((x - 1, y - 1, x + wide, y + high), outline="white", width=1)

    for line, words in enumerate(titles):
        draw.text((MARGIN, height + line * LINE + 18), words, INK, font, anchor="ls")
    for (words, colour), (at, line) in zip(legend, places, strict=True):
        top = low + line * LINE
        draw.rectangle((at, top + 4, at + 16, top + 20), colour)
        draw.text((at + 24, top + 18), words, INK, font, anchor="ls")
    return png_of(sheet, STILL_LETTERS)


def broken(text: str, most: int, font: Any) -> list[str]:
    """Lines of words, none longer than `most` pixels unless it is one word."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > most:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def in_lines(lengths: Sequence[int], width: int) -> list[tuple[int, int]]:
    """Where things of these lengths stand, one after another: pixels from the left, and the number of the line."""
    places, at, line = [], MARGIN, 0
    for length in lengths:
        if at > MARGIN and at + length > width - MARGIN:
            at, line = MARGIN, line + 1
        places.append((at, line))
        at += length + 2 * GAP
    return places


def grille(layout: Layout, size: tuple[int, int]) -> Image.Image:
    """Thin lines between the tokens of a panel, where they are large enough for it, as static/paint.js draws them."""
    lines = Image.new("L", size)
    pen, (_, rows, columns), (wide, high) = ImageDraw.Draw(lines), layout.grid, layout.panel
    if min(wide / columns, high / rows) < 8:
        return lines
    for step in range(layout.grid.t):
        left, top = layout.corner(step)
        for y in (top + round(i * high / rows) - 1 for i in range(1, rows)):
            pen.line((left, y, left + wide - 1, y), GRILLE)
        for x in (left + round(j * wide / columns) - 1 for j in range(1, columns)):
            pen.line((x, top, x, top + high - 1), GRILLE)
    return lines


def coarse(tokens: Tokens, painted: Sequence[Painted]) -> tuple[Tokens, Sequence[Painted]]:
    """Single pixels are too many to draw: shares of the clip, coloured where any of their pixels is."""
    if tokens.grid.size <= MANY:
        return tokens, painted
    grid = Grid(tokens.grid.t, *(min(length, 56) for length in tokens.grid[1:]))
    t, h, w = shares(tokens.grid, grid).sees
    part = shares(tokens.clip, grid)._replace(extra=tokens.extra)
    found = []
    for words, colour, mask in painted:
        x = mask[: tokens.grid.size].reshape(tokens.grid).astype(np.float32)
        x = np.einsum("abc,ta,hb,wc->thw", x, *(axis.astype(np.float32) for axis in (t, h, w)), optimize=True) > 0
        found.append(Painted(words, colour, np.append(x.ravel(), mask[tokens.grid.size :])))
    return part, found


class Box(NamedTuple):
    """Who asks: a share of the clip, from 0 to 1 along each axis, or an extra token by name and number."""

    start: tuple[float, float, float] = (0, 0, 0)
    stop: tuple[float, float, float] = (0, 0, 0)
    extra: str = ""
    number: int = 0


def asked_boxes(layout: Layout, tokens: Tokens, asking: Box | None) -> list[tuple[int, int, int, int]]:
    """Where the one who asks stands among the tokens that answer: once in every panel of its share of time."""
    if asking is None:
        return []
    if asking.extra:
        tiles = [tile for tile in layout.tiles if tile.name == asking.extra and asking.number < tile.many]
        return [
            (tile.x + asking.number % tile.columns * tile.side, tile.y + asking.number // tile.columns * tile.side,
             tile.side - 1, tile.side - 1) for tile in tiles
        ]  # fmt: skip
    found = []
    for step in range(layout.grid.t):
        if step / layout.grid.t < asking.stop[0] - 1e-9 and (step + 1) / layout.grid.t > asking.start[0] + 1e-9:
            left, top = layout.corner(step)
            x0, x1 = (round(left + at[2] * layout.panel[0]) for at in (asking.start, asking.stop))
            y0, y1 = (round(top + at[1] * layout.panel[1]) for at in (asking.start, asking.stop))
            found.append((x0, y0, x1 - x0, y1 - y0))
    return found
