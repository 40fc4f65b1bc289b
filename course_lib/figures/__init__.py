"""Arrays in, matplotlib figures out; never networks.

In a notebook `show` displays a figure with a text for those who cannot see it, `table` displays rows and `source` code.
"""

from __future__ import annotations

import base64
import html
import inspect
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from course_lib.figures.code import narrow

# Okabe and Ito's colours, told apart with every kind of colour vision
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
LINES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)))  # a curve is known by its stroke as well as by its colour
COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE)
WIDEST = 7.3  # inches; on a page of 640 pixels its letters are still read
SLOT = 443 / 72  # inches that a slide of 720 pixels leaves for a figure with a line above and one below it
FROM_THE_LAST_ROW = 16 / 72  # inches of such a slide: letters that are read there
LETTERS = "smallest letters"  # what a PNG says of itself, in its own pixels


def line_style(i: int) -> dict[str, Any]:
    """Colour and stroke of the i-th curve of a figure."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}


def letters(height: float, least: float = 9) -> float:
    """Points of letters that are still read when a slide shows a figure, `height` inches high, as high as it can."""
    return max(least, 72 * FROM_THE_LAST_ROW * height / SLOT)


def show(figure: Figure, alt: str) -> None:
    """Display `figure` under this cell; `alt` says in words what it shows."""
    from IPython.display import display

    display(picture(png(figure), alt), raw=True)


def picture(content: bytes, alt: str) -> dict[str, str]:
    """A PNG as what a notebook stores and shows.

    As HTML, since neither JupyterLab nor nbconvert makes an alt text of an image's metadata. The white frame keeps a
    figure readable in a dark theme.
    """
    data = base64.b64encode(content).decode()
    style = "max-width: 100%; height: auto; background: white"
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}" style="{style}">'
    return {"text/html": image, "text/plain": alt}


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> None:
    """Display rows as a Markdown table, which scrolls by itself where the page is too narrow for it.

    A row that is shorter than the header ends in empty cells: nbconvert shows no table otherwise.
    """
    from IPython.display import Markdown, display

    lines = [header, ["---"] * len(header), *([*row, *[""] * (len(header) - len(row))] for row in rows)]
    text = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
    display(Markdown(f'<div style="overflow-x: auto">\n\n{text}\n\n</div>'))


def source(thing: type | Callable) -> None:
    """Display how the library writes this function or class, no line wider than the page."""
    from IPython.display import Markdown, display

    display(Markdown(f"```python\n{narrow(inspect.getsource(thing))}```"))


def png(figure: Figure, dpi: int = 90) -> bytes:
    """With 256 colours, which halves what a notebook of clips stores and is not seen; it says how small its letters
    are."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
    sizes = [float(text.get_fontsize()) for text in _texts(figure)]
    return png_of(Image.open(drawn).convert("RGB"), min(sizes, default=72) * dpi / 72)


def png_of(picture: Image.Image, smallest_letters: float) -> bytes:
    """A picture as a PNG of 256 colours, which says in how many of its pixels its smallest letters are written."""
    said, file = PngInfo(), io.BytesIO()
    said.add_text(LETTERS, f"{smallest_letters:.1f}")
    picture.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True, pnginfo=said)
    return file.getvalue()


def _texts(artist: Artist) -> Iterator[Text]:
    """The texts of a figure that are drawn."""
    if not artist.get_visible():
        return
    if isinstance(artist, Text) and artist.get_text().strip():
        yield artist
    for child in artist.get_children():
        if not (isinstance(artist, Axes) and isinstance(child, Axis) and not artist.axison):
            yield from _texts(child)
