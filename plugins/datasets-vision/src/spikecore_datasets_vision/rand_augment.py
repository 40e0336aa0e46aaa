"""RandAugment: a few of fourteen changes, drawn evenly for each sample, all of one strength.

λ = magnitude / 30
identity · auto_contrast · equalise
rotate        ±30° λ                      shear_x, shear_y           ±0.3 λ
translate_x, translate_y  ±0.45 λ of the side
brightness, contrast, saturation, sharpness   factor 1 ± 0.9 λ
posterise     8 - 4 λ bits, rounded       solarise                   from the level 256 (1 - λ) on

Source: Cubuk et al., RandAugment: Practical Automated Data Augmentation with a Reduced Search Space (NeurIPS 2020); the
changes are its Figure 1's, their strongest forms those of Cubuk et al., AutoAugment (CVPR 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from spikecore.interfaces import Range
from spikecore_datasets_vision import colour
from spikecore_datasets_vision.draws import Draws
from spikecore_datasets_vision.transforms import Shade, Transform

STRONGEST = 30.0


def affine(x: Tensor, matrix: Tensor, fill: float = 0.0) -> Tensor:
    """Each image moved by its matrix, by linear interpolation.

    Args:
        x: `[B, C, H, W]`.
        matrix: `[B, 2, 3]`: place in the result → place in x, both (x, y) in pixels from the middle.
        fill: what comes in from outside.
    """
    height, width = x.shape[-2:]
    scale = torch.tensor([[1, height / width, 2 / width], [width / height, 1, 2 / height]], dtype=torch.float64)
    grid = functional.affine_grid((matrix * scale).to(x.dtype), list(x.shape), align_corners=False)
    return functional.grid_sample(x - fill, grid, padding_mode="zeros", align_corners=False) + fill


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b, x], 1), torch.stack([c, d, y], 1)], 1)


def rotation(angle: Tensor) -> Tensor:
    """By degrees, against the clock."""
    turn, none = torch.deg2rad(angle), torch.zeros_like(angle)
    return _matrix(turn.cos(), -turn.sin(), turn.sin(), turn.cos(), none, none)


def shear(x: Tensor, y: Tensor) -> Tensor:
    """Rows move by x times their height, columns by y times their place."""
    one, none = torch.ones_like(x), torch.zeros_like(x)
    return _matrix(one, x, y, one, none, none)


def translation(x: Tensor, y: Tensor) -> Tensor:
    """In pixels, to the left and up."""
    one, none = torch.ones_like(x), torch.zeros_like(x)
    return _matrix(one, none, none, one, x, y)


Change = Callable[[Tensor, Tensor, float], Tensor]
"""(images, signed strength [n] in -1 .. 1, fill) → images"""

CHANGES: dict[str, Change] = {
    "identity": lambda x, s, fill: x,
    "auto_contrast": lambda x, s, fill: colour.auto_contrast(x),
    "equalise": lambda x, s, fill: colour.equalise(x),
    "rotate": lambda x, s, fill: affine(x, rotation(30 * s), fill),
    "shear_x": lambda x, s, fill: affine(x, shear(0.3 * s, 0 * s), fill),
    "shear_y": lambda x, s, fill: affine(x, shear(0 * s, 0.3 * s), fill),
    "translate_x": lambda x, s, fill: affine(x, translation(0.45 * x.shape[-1] * s, 0 * s), fill),
    "translate_y": lambda x, s, fill: affine(x, translation(0 * s, 0.45 * x.shape[-2] * s), fill),
    "brightness": lambda x, s, fill: colour.brightness(x, 1 + 0.9 * s),
    "contrast": lambda x, s, fill: colour.contrast(x, 1 + 0.9 * s),
    "saturation": lambda x, s, fill: colour.saturation(x, 1 + 0.9 * s),
    "sharpness": lambda x, s, fill: colour.sharpness(x, 1 + 0.9 * s),
    "posterise": lambda x, s, fill: colour.posterise(x, 8 - (4 * s.abs()).round()),
    "solarise": lambda x, s, fill: colour.solarise(x, (1 - s.abs()) * (256 / 255)),
}


@dataclass(frozen=True)
class RandAugment(Transform):
    """`num_changes` changes in a row, each drawn evenly for each sample; the direction at random.

    Args:
        num_changes: how many.
        magnitude: of all of them; 30 is the strongest.
        fill: what comes in from outside.
    """

    name: ClassVar[str] = "rand_augment"
    num_changes: Annotated[int, Range(ge=1, le=100)] = 2
    magnitude: Annotated[float, Range(ge=0.0, le=STRONGEST)] = 9.0
    fill: Shade = 0.5

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        for _ in range(self.num_changes):
            drawn, strength = draws.integers(len(CHANGES)), draws.sign() * (self.magnitude / STRONGEST)
            out = torch.empty_like(x)
            for number, change in enumerate(CHANGES.values()):
                own = (drawn == number).nonzero()[:, 0]
                if len(own):
                    out[own] = change(x[own], strength[own], self.fill)
            x = out
        return x
