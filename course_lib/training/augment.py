"""What training does to the pixels of a clip, the same to all its frames: scale, crop, mirror, RandAugment, colours,
erasing. Bytes in, bytes out; all that is random comes from the generator of the item.

RandAugment (Cubuk et al., 2020) is that of timm's "rand-m7-n4-mstd0.5-inc1", which MViT and Video Swin train with: of
fifteen operations n are drawn, each is done with chance one half, at a magnitude around m of 10. Pillow does the work,
as it does in timm. Here it sees the crop; PySlowFast gives it the whole frame before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from course_lib.video.transforms import (
    Colours,
    bytes_first,
    flip,
    random_crop,
    random_resized_crop,
    short_side,
)

Picture = Image.Image
Change = Callable[[Picture], Picture]


@dataclass(frozen=True)
class TrainAugment:
    """A clip as one step of training shows it: transform(frames, generator) -> bytes 3 T h w.

    `sides`: of which the shorter side's length is drawn; then a square anywhere or, with `area`, a rectangle of such a
    share of the frame, scaled. `magnitude` and `ops`: of RandAugment; 0 for none. `colour`, `grey`, `erasing`:
    probabilities. `colours`: of the noise that an erased box is filled with.
    """

    size: int
    sides: tuple[int, int]
    area: tuple[float, float] | None = None
    flip: bool = True
    magnitude: int = 0
    ops: int = 4
    colour: float = 0
    grey: float = 0
    erasing: float = 0
    colours: Colours = Colours((0.45,) * 3, (0.225,) * 3)

    def __call__(
        self, frames: UInt8[np.ndarray, "T H W 3"], generator: torch.Generator | None
    ) -> UInt8[Tensor, "3 T h w"]:
        if generator is None:
            raise ValueError("TrainAugment is random and needs a generator: use EvalTransform where nothing may be")
        low, high = self.sides
        side = low + int(torch.randint(high - low + 1, (), generator=generator))
        clip = short_side(bytes_first(frames), side)
        if self.area is None:
            clip = random_crop(clip, self.size, generator)
        else:
            clip = random_resized_crop(clip, self.size, generator, self.area)
        # one stream for what follows: Python's numbers are handier than tensors of one number
        draw = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        if self.flip and draw.random() < 0.5:
            clip = flip(clip)
        changes = rand_augment(self.magnitude, self.ops, draw) if self.magnitude else []
        if draw.random() < self.colour:
            changes.append(colour_change(draw))
        if draw.random() < self.grey:
            changes.append(lambda picture: picture.convert("L").convert("RGB"))
        if changes:
            clip = torch.stack([_changed(frame, changes) for frame in clip.unbind(1)], dim=1)
        if draw.random() < self.erasing:
            clip = erase(clip, draw, self.colours)
        return clip.contiguous()


def _changed(frame: UInt8[Tensor, "3 h w"], changes: list[Change]) -> UInt8[Tensor, "3 h w"]:
    picture = Image.fromarray(frame.movedim(0, -1).contiguous().numpy())
    for change in changes:
        picture = change(picture)
    return torch.from_numpy(np.array(picture)).movedim(-1, 0)


def rand_augment(magnitude: int, ops: int, draw: np.random.Generator) -> list[Change]:
    """`ops` operations at magnitudes around `magnitude`, of which each is there with chance one half."""
    names = draw.choice(list(OPERATIONS), ops)
    chosen = []
    for name in names:
        level = float(np.clip(draw.normal(magnitude, 0.5), 0, 10)) / 10
        sign = 1 if draw.random() < 0.5 else -1
        if draw.random() < 0.5:
            chosen.append(_operation(OPERATIONS[name], level, sign))
    return chosen


def _operation(made: Callable[[Picture, float, int], Picture], level: float, sign: int) -> Change:
    return lambda picture: made(picture, level, sign)


def _enhanced(kind: Callable) -> Callable[[Picture, float, int], Picture]:
    return lambda picture, level, sign: kind(picture).enhance(max(0.1, 1 + sign * 0.9 * level))


def _moved(matrix: Callable[[Picture, float], tuple[float, ...]]) -> Callable[[Picture, float, int], Picture]:
    return lambda picture, level, sign: picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        matrix(picture, sign * level),
        Image.Resampling.BICUBIC,
        fillcolor=(128, 128, 128),
    )


OPERATIONS: dict[str, Callable[[Picture, float, int], Picture]] = {  # of a level from 0 to 1 and a sign
    "auto contrast": lambda picture, level, sign: ImageOps.autocontrast(picture),
    "equalize": lambda picture, level, sign: ImageOps.equalize(picture),
    "invert": lambda picture, level, sign: ImageOps.invert(picture),
    "rotate": lambda picture, level, sign: picture.rotate(
        sign * 30 * level, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128)
    ),
    "posterize": lambda picture, level, sign: ImageOps.posterize(picture, max(1, 4 - int(4 * level))),
    "solarize": lambda picture, level, sign: ImageOps.solarize(picture, 256 - int(256 * level)),
    "solarize add": lambda picture, level, sign: picture.point(
        [min(255, value + int(110 * level)) if value < 128 else value for value in range(256)] * 3
    ),
    "colour": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear x": _moved(lambda picture, level: (1, 0.3 * level, 0, 0, 1, 0)),
    "shear y": _moved(lambda picture, level: (1, 0, 0, 0.3 * level, 1, 0)),
    "translate x": _moved(lambda picture, level: (1, 0, 0.45 * level * picture.width, 0, 1, 0)),
    "translate y": _moved(lambda picture, level: (1, 0, 0, 0, 1, 0.45 * level * picture.height)),
}


def colour_change(draw: np.random.Generator) -> Change:
    """Brightness up to 32 of 255 up or down, contrast and saturation 0.6 to 1.4 times, hue a fifth of the circle at
    most: what scenic's ViViT has."""
    brighter, hue = draw.uniform(-32, 32), draw.uniform(-0.2, 0.2)
    contrast, saturation = draw.uniform(0.6, 1.4, 2)

    def change(picture: Picture) -> Picture:
        picture = picture.point([int(np.clip(value + brighter, 0, 255)) for value in range(256)] * 3)
        picture = ImageEnhance.Color(ImageEnhance.Contrast(picture).enhance(contrast)).enhance(saturation)
        h, s, v = picture.convert("HSV").split()
        turned = h.point([int(value + 256 * hue) % 256 for value in range(256)])
        return Image.merge("HSV", (turned, s, v)).convert("RGB")

    return change


def erase(clip: UInt8[Tensor, "3 T h w"], draw: np.random.Generator, colours: Colours) -> UInt8[Tensor, "3 T h w"]:
    """Noise in a rectangle of 2 % to a third of the frame, in all frames at the same place (random erasing, Zhong et
    al., 2020; the mode "pixel" of timm, as PySlowFast has it). Ten draws that do not fit leave the clip as it is."""
    height, width = clip.shape[-2:]
    for _ in range(10):
        share, ratio = draw.uniform(0.02, 1 / 3), np.exp(draw.uniform(np.log(0.3), np.log(1 / 0.3)))
        h, w = round((share * height * width * ratio) ** 0.5), round((share * height * width / ratio) ** 0.5)
        if h < height and w < width:
            top, left = int(draw.integers(height - h + 1)), int(draw.integers(width - w + 1))
            noise = draw.standard_normal((clip.shape[1], h, w, 3)) * colours.std + colours.mean
            box = torch.from_numpy((255 * noise).clip(0, 255).astype(np.uint8)).movedim(-1, 0)
            clip = clip.clone()
            clip[..., top : top + h, left : left + w] = box
            return clip
    return clip
