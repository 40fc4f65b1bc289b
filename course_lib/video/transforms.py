"""Frames to a network's input: scale, crop, flip, normalise. Pure functions; what is random takes a generator.

What moves pixels (resize to flip) takes bytes or numbers and gives back the same kind. Bytes are a tenth of the work
and a quarter of the transport, and rounding them while scaling moves a pixel by one of 255 levels at most. So
transforms scale bytes; with colours=None they hand bytes out, and `ToNetwork` makes numbers of whole batches where the
network is, on a GPU if there is one.

Scaling is bilinear with antialiasing, as Pillow does it: shrunk without it, fine texture flickers from frame to frame
and looks like motion. (PySlowFast scales without, so its tested accuracies may differ in the last digit.)
All frames of a clip are cropped and flipped alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor
from torch.nn.functional import interpolate


class Colours(NamedTuple):
    """Mean and standard deviation of red, green and blue, on the scale 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


KINETICS = Colours((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))  # PySlowFast, TimeSformer, MViT
IMAGENET = Colours((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # Video Swin and most image networks


def to_clip(frames: UInt8[np.ndarray, "*b T H W 3"] | UInt8[Tensor, "*b T H W 3"]) -> Float[Tensor, "*b 3 T H W"]:
    """Bytes 0..255, colours last, to numbers 0..1, colours first."""
    if isinstance(frames, np.ndarray):
        frames = torch.from_numpy(np.require(frames, requirements=("C", "W")))  # frames[::-1] has a negative stride
    return frames.movedim(-1, -4).contiguous().float() / 255


def bytes_first(frames: UInt8[np.ndarray, "T H W 3"]) -> UInt8[Tensor, "3 T H W"]:
    """The same bytes, colours first; nothing is copied where that is possible."""
    return torch.from_numpy(np.require(frames, requirements=("C", "W"))).movedim(-1, 0)


def normalise(
    clip: Float[Tensor, "*b 3 T H W"], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float[Tensor, "*b 3 T H W"]:
    """Subtract the mean, divide by the standard deviation, colour by colour: normalise(clip, *KINETICS)."""
    shape = (3, 1, 1, 1)
    return (clip - clip.new_tensor(mean).view(shape)) / clip.new_tensor(std).view(shape)


def resize(clip: Shaped[Tensor, "3 T H W"], height: int, width: int) -> Shaped[Tensor, "3 T h w"]:
    """Scale every frame to height x width pixels, whatever its shape was."""
    if clip.shape[-2:] == (height, width):
        return clip
    frames = clip.transpose(0, 1)  # T 3 H W: as decoded, colours lie side by side, which the fast path wants
    return interpolate(frames, (height, width), mode="bilinear", antialias=True, align_corners=False).transpose(0, 1)


def short_side(clip: Shaped[Tensor, "3 T H W"], size: int) -> Shaped[Tensor, "3 T h w"]:
    """Scale until the shorter of height and width is `size`, keeping the shape (the longer side rounded down)."""
    height, width = clip.shape[-2:]
    short = min(height, width)
    return resize(clip, height * size // short, width * size // short)


def crop(clip: Shaped[Tensor, "3 T H W"], top: int, left: int, height: int, width: int) -> Shaped[Tensor, "3 T h w"]:
    """The window of height x width pixels whose upper left corner is at (top, left); it must lie within the frame."""
    if min(top, left) < 0 or top + height > clip.shape[-2] or left + width > clip.shape[-1]:
        raise ValueError(
            f"a crop of {height} x {width} at ({top}, {left}) leaves the frame of {_size(clip)}: "
            f"scale the clip up (short_side) or crop less"
        )
    return clip[..., top : top + height, left : left + width]


def centre_crop(clip: Shaped[Tensor, "3 T H W"], size: int) -> Shaped[Tensor, "3 T h w"]:
    """The square in the middle."""
    height, width = clip.shape[-2:]
    return crop(clip, (height - size) // 2, (width - size) // 2, size, size)


def random_crop(clip: Shaped[Tensor, "3 T H W"], size: int, generator: torch.Generator) -> Shaped[Tensor, "3 T h w"]:
    """A square anywhere in the frame."""
    height, width = clip.shape[-2:]
    if size > min(height, width):
        crop(clip, 0, 0, size, size)  # says what does not fit
    return crop(clip, _integer(0, height - size, generator), _integer(0, width - size, generator), size, size)


def random_resized_crop(
    clip: Shaped[Tensor, "3 T H W"],
    size: int,
    generator: torch.Generator,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Shaped[Tensor, "3 T h w"]:
    """A rectangle of random area (share of the frame) and aspect (width / height), scaled to a square.

    Szegedy et al., Going deeper with convolutions, 2015; MViT and Video Swin train with it. Where ten draws do not
    fit into the frame, the largest rectangle in the middle whose aspect is allowed.
    """
    height, width = clip.shape[-2:]
    for _ in range(10):
        share = _uniform(*area, generator) * height * width
        ratio = math.exp(_uniform(math.log(aspect[0]), math.log(aspect[1]), generator))
        h, w = round(math.sqrt(share / ratio)), round(math.sqrt(share * ratio))
        if 0 < h <= height and 0 < w <= width:
            top, left = _integer(0, height - h, generator), _integer(0, width - w, generator)
            return resize(crop(clip, top, left, h, w), size, size)
    ratio = min(max(width / height, aspect[0]), aspect[1])
    h, w = min(height, round(width / ratio)), min(width, round(height * ratio))
    return resize(crop(clip, (height - h) // 2, (width - w) // 2, h, w), size, size)


def three_crops(clip: Shaped[Tensor, "3 T H W"], size: int) -> Shaped[Tensor, "crops 3 T h w"]:
    """Three squares along the longer side: left, centre, right or top, centre, bottom; for testing."""
    height, width = clip.shape[-2:]
    places = [[(extent - size) * k // 2 for k in range(3)] for extent in (height, width)]
    if width >= height:
        places[0] = [places[0][1]] * 3
    else:
        places[1] = [places[1][1]] * 3
    return torch.stack([crop(clip, top, left, size, size) for top, left in zip(*places, strict=True)])


def flip(clip: Shaped[Tensor, "3 T H W"]) -> Shaped[Tensor, "3 T H W"]:
    """Mirror left and right.

    Kinetics' classes do not mind. Something-Something's do ("pushing something from left to right"), and so do the
    generated set M's: the mirrored clip belongs to another class, so there it is switched off.
    """
    return clip.flip(-1)


def whole_frames(
    frames: UInt8[np.ndarray, "T H W 3"], generator: torch.Generator | None = None
) -> Float[Tensor, "3 T H W"]:
    """No scaling, no cropping, nothing random: for generated clips, which have the right size already."""
    return normalise(to_clip(frames), *KINETICS)


def _finish(clip: UInt8[Tensor, "3 T h w"], colours: Colours | None) -> Shaped[Tensor, "3 T h w"]:
    clip = clip.contiguous()
    return clip if colours is None else normalise(clip.float() / 255, *colours)


@dataclass(frozen=True)
class TrainTransform:
    """Random scale, random square, mirrored every second time: how SlowFast and TimeSformer train.

    `short_side`: the range from which the shorter side is drawn, in pixels. `flip`: see the function of that name.
    `colours`: None leaves bytes, for `ToNetwork`.
    """

    size: int = 224
    short_side: tuple[int, int] = (256, 320)
    flip: bool = True
    colours: Colours | None = KINETICS

    def __post_init__(self):
        low, high = self.short_side
        if not 0 < self.size <= low <= high:
            raise ValueError(f"size={self.size}, short_side={self.short_side}: need 0 < size <= lowest <= highest")

    def __call__(
        self, frames: UInt8[np.ndarray, "T H W 3"], generator: torch.Generator | None
    ) -> Shaped[Tensor, "3 T h w"]:
        if generator is None:
            raise ValueError("TrainTransform is random and needs a generator; use EvalTransform where nothing may be")
        clip = short_side(bytes_first(frames), _integer(*self.short_side, generator))
        clip = random_crop(clip, self.size, generator)
        if self.flip and _integer(0, 1, generator):
            clip = flip(clip)
        return _finish(clip, self.colours)


@dataclass(frozen=True)
class EvalTransform:
    """Scale, then the square in the middle, or `crops`=3 squares (see three_crops); nothing random.

    TimeSformer tests at short_side=224, SlowFast at 256. `colours`: None leaves bytes, for `ToNetwork`.
    """

    size: int = 224
    short_side: int = 224
    crops: int = 1
    colours: Colours | None = KINETICS

    def __post_init__(self):
        if not 0 < self.size <= self.short_side:
            raise ValueError(f"size={self.size}, short_side={self.short_side}: need 0 < size <= short_side")
        if self.crops not in (1, 3):
            raise ValueError(f"crops={self.crops}: test with 1 crop, in the middle, or with 3 along the longer side")

    def __call__(
        self, frames: UInt8[np.ndarray, "T H W 3"], generator: torch.Generator | None = None
    ) -> Shaped[Tensor, "*crops 3 T h w"]:
        clip = short_side(bytes_first(frames), self.short_side)
        if self.crops == 1:
            return _finish(centre_crop(clip, self.size), self.colours)
        return torch.stack([_finish(part, self.colours) for part in three_crops(clip, self.size)])


@dataclass(frozen=True)
class ToNetwork:
    """Bytes to normalised numbers, a whole batch at once, on whatever device it lies.

    `flip` mirrors each clip with chance one half, drawn from torch's global generator of the CPU (which a training
    run keeps in its checkpoint). Set it to the `flips` of the data set, and to False for testing.
    """

    colours: Colours = KINETICS
    flip: bool = False

    def __call__(self, clips: UInt8[Tensor, "*b 3 T H W"]) -> Float[Tensor, "*b 3 T H W"]:
        clips = clips.float() / 255
        if self.flip:
            mirrored = (torch.rand(clips.shape[:-4]) < 0.5).to(clips.device)
            clips = torch.where(mirrored[..., None, None, None, None], clips.flip(-1), clips)
        return normalise(clips, *self.colours)


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _size(clip: Tensor) -> str:
    return f"{clip.shape[-2]} x {clip.shape[-1]}"
