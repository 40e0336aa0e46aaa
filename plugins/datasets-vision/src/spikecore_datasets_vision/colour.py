"""Colours: what is done to every pixel, and the random change of brightness, contrast, saturation and hue.

x [B, C, H, W], float32 in 0 .. 1, C = 1 (grey) or 3 (red, green, blue); f [B], one factor for each sample.

blend(a, x, f) = a + f (x - a), cut to 0 .. 1: f = 0 gives a, 1 leaves x alone, more exaggerates
brightness   blend(0, x, f)                   contrast    blend(mean of the grey image, x, f)
saturation   blend(grey image, x, f)          sharpness   blend(smoothed image, x, f)
grey = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)

Parity: Pillow's ImageEnhance and ImageOps, up to rounding to 8 bits; `tests/test_colour.py` compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from spikecore.interfaces import Range
from spikecore_datasets_vision.draws import Draws
from spikecore_datasets_vision.transforms import Transform

GREY = torch.tensor([0.299, 0.587, 0.114])


def _wide(f: Tensor, x: Tensor) -> Tensor:
    return f.to(x.dtype)[:, None, None, None]


def blend(other: Tensor, x: Tensor, f: Tensor) -> Tensor:
    """other + f (x - other), cut to 0 .. 1."""
    return (other + _wide(f, x) * (x - other)).clamp(0, 1)


def grey(x: Tensor) -> Tensor:
    """`[B, 1, H, W]`."""
    return x if x.shape[1] == 1 else (x * GREY.to(x.dtype)[:, None, None]).sum(1, keepdim=True)


def brightness(x: Tensor, f: Tensor) -> Tensor:
    """0 is black."""
    return (x * _wide(f, x)).clamp(0, 1)


def contrast(x: Tensor, f: Tensor) -> Tensor:
    """0 is one even grey."""
    return blend(grey(x).mean((1, 2, 3), keepdim=True), x, f)


def saturation(x: Tensor, f: Tensor) -> Tensor:
    """0 is without colour."""
    return blend(grey(x), x, f) if x.shape[1] == 3 else x


def sharpness(x: Tensor, f: Tensor) -> Tensor:
    """0 is smoothed: each inner pixel with its eight neighbours, at the weights 5 and 1."""
    if min(x.shape[-2:]) < 3:
        return x
    kernel = torch.ones(x.shape[1], 1, 3, 3, dtype=x.dtype)
    kernel[..., 1, 1] = 5
    smooth = x.clone()
    smooth[..., 1:-1, 1:-1] = functional.conv2d(x, kernel / 13, groups=x.shape[1])
    return blend(smooth, x, f)


def hue(x: Tensor, turn: Tensor) -> Tensor:
    """The hue, turned; 1 is all the way round. Saturation and value (of the HSV model) stay."""
    if x.shape[1] != 3:
        return x
    high, low = x.amax(1), x.amin(1)
    span = high - low
    r, g, b = x.unbind(1)
    scale = torch.where(span > 0, span, 1)
    sixth = torch.where(high == r, (g - b) / scale, torch.where(high == g, 2 + (b - r) / scale, 4 + (r - g) / scale))
    sixth = sixth + 6 * turn.to(x.dtype)[:, None, None]
    # Each channel falls from the highest to the lowest value with its distance from the hue, on a circle of six.
    away = [((sixth - own + 3) % 6 - 3).abs() for own in (0, 2, 4)]
    return torch.stack([low + span * (2 - distance).clamp(0, 1) for distance in away], 1)


def auto_contrast(x: Tensor) -> Tensor:
    """Each channel stretched to 0 .. 1."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / torch.where(high > low, high - low, 1), x)


def equalise(x: Tensor) -> Tensor:
    """Each channel, in 256 levels, with a histogram as even as a map of levels to levels can make it."""
    levels = (x * 255).round().long()
    batch, channels = x.shape[:2]
    rows = torch.arange(batch * channels)[:, None] * 256
    counts = torch.bincount((rows + levels.reshape(batch * channels, -1)).flatten(), minlength=batch * channels * 256)
    counts = counts.reshape(batch * channels, 256)
    last = 255 - (counts.flip(1) > 0).long().argmax(1, keepdim=True)
    step = (counts.sum(1, keepdim=True) - counts.gather(1, last)) // 255
    below = counts.cumsum(1) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256))
    return table.gather(1, levels.reshape(batch * channels, -1)).reshape(x.shape).to(x.dtype) / 255


def posterise(x: Tensor, bits: Tensor) -> Tensor:
    """Only the first `bits` of the 8 bits of each value are left."""
    step = torch.exp2(8 - bits.to(x.dtype))[:, None, None, None]
    return ((x * 255).round() / step).floor() * step / 255


def solarise(x: Tensor, threshold: Tensor) -> Tensor:
    """Values from the threshold on are inverted."""
    return torch.where(x >= _wide(threshold, x), 1 - x, x)


@dataclass(frozen=True)
class ColourJitter(Transform):
    """Brightness, contrast, saturation and hue change at random, in this order.

    Args:
        brightness, contrast, saturation: the factor is uniform in max(0, 1 - value) .. 1 + value.
        hue: the turn is uniform in -value .. value; 0.5 is half way round.
    """

    name: ClassVar[str] = "colour_jitter"
    brightness: Annotated[float, Range(ge=0.0, le=10.0)] = 0.4
    contrast: Annotated[float, Range(ge=0.0, le=10.0)] = 0.4
    saturation: Annotated[float, Range(ge=0.0, le=10.0)] = 0.4
    hue: Annotated[float, Range(ge=0.0, le=0.5)] = 0.1

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        for change, spread in (
            (brightness, self.brightness),
            (contrast, self.contrast),
            (saturation, self.saturation),
        ):
            factor = draws.uniform(low=max(0.0, 1 - spread), high=1 + spread)
            x = change(x, factor) if spread else x
        turn = draws.uniform(low=-self.hue, high=self.hue)
        return hue(x, turn) if self.hue else x
