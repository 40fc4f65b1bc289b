"""From a decoded picture to what a player shows: one conversion to RGB, pixels made square, turned and mirrored.

swscale converts, with one thread, so that no result depends on the machine. Of pictures of 4:2:0 with an even height
it takes each chroma sample for four pixels (within 3 of 255 levels of the formula, 1 darker in the mean), of others it
interpolates chroma between rows; the fields of an interlaced picture are converted each for itself.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from course_lib.video.errors import VideoError

if TYPE_CHECKING:
    import av

MOST_PIXELS = 8192 * 4320  # of one picture; a damaged header can ask for gigabytes


class Orientation(NamedTuple):
    """From stored to displayed: rows and columns exchanged first, then shown upside down, or left for right."""

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False

    def apply(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        turned = pixels.transpose(1, 0, 2) if self.transposed else pixels
        return turned[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1]


def orientation(path: Path, picture: av.VideoFrame) -> Orientation:
    """What the display matrix says, of the file (ISO/IEC 14496-12, 6.2.2) or of the codec (SEI display orientation)."""
    found: Any = picture.side_data.get("DISPLAYMATRIX")
    if found is None:
        return Orientation()
    a, b, _, c, d, *_ = np.frombuffer(found, np.int32).tolist()  # x' = a x + c y, y' = b x + d y
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if a == b == c == d == 0:  # players take no notice
        return Orientation()
    if 100 * max(abs(b), abs(c)) <= straight:
        return Orientation(False, d < 0, a < 0)
    if 100 * max(abs(a), abs(d)) <= crossed:
        return Orientation(True, b < 0, c < 0)
    degrees = -picture.rotation
    raise VideoError(path, f"is to be shown turned by {degrees} degrees or askew (display matrix); encode it upright")


def square_size(path: Path, height: int, width: int, aspect: Fraction) -> tuple[int, int]:
    """The size at which pixels of this sample aspect ratio (width / height) become square: larger, never smaller."""
    if aspect > 1:
        width = round(width * aspect)
    else:
        height = round(height / aspect)
    if height * width > MOST_PIXELS:
        raise VideoError(path, f"its sample aspect ratio {aspect} asks for {height} x {width} pixels; encode it again")
    return height, width


def displayed_size(path: Path, picture: av.VideoFrame, aspect: Fraction) -> tuple[int, int]:
    """Height and width of a picture as `ToRGB` gives it."""
    size = square_size(path, picture.height, picture.width, aspect)
    return size[::-1] if orientation(path, picture).transposed else size


class ToRGB:
    """Pictures of one file to arrays, as displayed."""

    def __init__(self, path: Path, aspect: Fraction):
        from av.video.reformatter import VideoReformatter

        self.path, self.aspect, self._swscale = path, aspect, VideoReformatter()

    def __call__(self, picture: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        height, width = square_size(self.path, picture.height, picture.width, self.aspect)
        how = "BILINEAR" if (height, width) == (picture.height, picture.width) else "BICUBIC"
        shown = self._swscale.reformat(picture, width, height, "rgb24", interpolation=how, threads=1)
        return orientation(self.path, picture).apply(shown.to_ndarray())
