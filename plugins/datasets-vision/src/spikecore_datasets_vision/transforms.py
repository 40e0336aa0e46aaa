"""Changes to images, each a frozen dataclass with a name; chosen in a dataset's `transforms` and `augment`.

augment      random, for the training split only; drawn anew for every (seed, epoch, index), so a run repeats itself
transforms   the same every time, for every split; behind the augmentation

x [B, C, H, W], float32 in 0 .. 1 → the same, H and W as `size` says. All samples of a batch at once; a batch of one is
a slice of a batch. Mixing (`mixup`, `cutmix`) joins samples and is in `mixing`; colours are in `colour`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from spikecore.errors import OptionError
from spikecore.interfaces import Range
from spikecore_datasets_vision.draws import Draws

Size = tuple[int, int]
Probability = Annotated[float, Range(ge=0.0, le=1.0)]
Length = Annotated[int, Range(ge=1, le=1 << 16)]
OrSame = Annotated[int, Range(ge=0, le=1 << 16)]
"""A length; 0 leaves it as it is."""
Shade = Annotated[float, Range(ge=0.0, le=1.0)]


class Transform:
    """Base of all."""

    name: ClassVar[str]

    def size(self, size: Size) -> Size:
        """`(H, W)` behind it.

        Raises:
            OptionError: it cannot be done to images of this size.
        """
        return size

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        """The images, changed."""
        raise NotImplementedError(f"{type(self).__name__} declares no __call__")


@dataclass(frozen=True)
class Resize(Transform):
    """Another size, by linear interpolation over the area that a new pixel covers.

    Args:
        height, width: of the result.
    """

    name: ClassVar[str] = "resize"
    height: Length
    width: Length

    def size(self, size: Size) -> Size:
        return self.height, self.width

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        if x.shape[-2:] == (self.height, self.width):
            return x
        resized = functional.interpolate(x, (self.height, self.width), mode="bilinear", antialias=True)
        return resized.clamp(0, 1)


@dataclass(frozen=True)
class Pad(Transform):
    """A margin on every side.

    Args:
        pixels: its width.
        fill: its value.
    """

    name: ClassVar[str] = "pad"
    pixels: Length
    fill: Shade = 0.0

    def size(self, size: Size) -> Size:
        return size[0] + 2 * self.pixels, size[1] + 2 * self.pixels

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        return functional.pad(x, (self.pixels,) * 4, value=self.fill)


@dataclass(frozen=True)
class Crop(Transform):
    """The middle of the image.

    Args:
        height, width: what is left.
    """

    name: ClassVar[str] = "crop"
    height: Length
    width: Length

    def size(self, size: Size) -> Size:
        _fits(self.name, (self.height, self.width), size)
        return self.height, self.width

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        top, left = (x.shape[-2] - self.height) // 2, (x.shape[-1] - self.width) // 2
        return x[..., top : top + self.height, left : left + self.width]


@dataclass(frozen=True)
class RandomCrop(Transform):
    """Crops a random part of the image, after adding a margin.

    Args:
        height, width: what is left; 0 is as many as there were before the margin.
        padding: width of the margin.
        margin: what it holds: `fill`, or the image as in a mirror.
        fill: a value.
    """

    name: ClassVar[str] = "random_crop"
    height: OrSame = 0
    width: OrSame = 0
    padding: OrSame = 0
    margin: Literal["fill", "mirror"] = "fill"
    fill: Shade = 0.0

    def size(self, size: Size) -> Size:
        height, width = self.height or size[0], self.width or size[1]
        _fits(self.name, (height, width), (size[0] + 2 * self.padding, size[1] + 2 * self.padding))
        if self.margin == "mirror" and self.padding >= min(size):
            raise OptionError(f"{self.name}: a mirrored margin of {self.padding} needs larger images than {size}")
        return height, width

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        height, width = self.size((x.shape[-2], x.shape[-1]))
        if self.padding:
            mode = "constant" if self.margin == "fill" else "reflect"
            value = self.fill if self.margin == "fill" else None
            x = functional.pad(x, (self.padding,) * 4, mode=mode, value=value)
        top = draws.integers(x.shape[-2] - height + 1)
        left = draws.integers(x.shape[-1] - width + 1)
        windows = x.unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(len(x)), :, top, left]


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """Crops a part of random area and shape, and resizes it by linear interpolation.

    Area in `min_area` .. `max_area` of the image, uniform; width / height in `min_ratio` .. `max_ratio`, uniform in its
    logarithm; of ten such parts the first that fits is taken, the whole image where none does.

    Source: Szegedy et al., Going Deeper with Convolutions (CVPR 2015), section 6.

    Args:
        height, width: of the result; 0 is as many as there were.
        min_area, max_area: shares of the image.
        min_ratio, max_ratio: of width to height.
    """

    name: ClassVar[str] = "random_resized_crop"
    height: OrSame = 0
    width: OrSame = 0
    min_area: Annotated[float, Range(gt=0.0, le=1.0)] = 0.08
    max_area: Annotated[float, Range(gt=0.0, le=1.0)] = 1.0
    min_ratio: Annotated[float, Range(gt=0.0, lt=math.inf)] = 3 / 4
    max_ratio: Annotated[float, Range(gt=0.0, lt=math.inf)] = 4 / 3

    def size(self, size: Size) -> Size:
        _in_order(self.name, ("min_area", self.min_area), ("max_area", self.max_area))
        _in_order(self.name, ("min_ratio", self.min_ratio), ("max_ratio", self.max_ratio))
        return self.height or size[0], self.width or size[1]

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        full = (x.shape[-2], x.shape[-1])
        area, ratio = (self.min_area, self.max_area), (self.min_ratio, self.max_ratio)
        top, left, height, width, has_fit = boxes(draws, full, area, ratio)
        top, left = torch.where(has_fit, top, 0), torch.where(has_fit, left, 0)
        height, width = torch.where(has_fit, height, full[0]), torch.where(has_fit, width, full[1])
        matrix = torch.zeros(len(x), 2, 3, dtype=torch.float64)
        matrix[:, 0, 0], matrix[:, 1, 1] = width / full[1], height / full[0]
        matrix[:, 0, 2] = (2 * left + width) / full[1] - 1
        matrix[:, 1, 2] = (2 * top + height) / full[0] - 1
        shape = (*x.shape[:2], *self.size(full))
        grid = functional.affine_grid(matrix.to(x.dtype), list(shape), align_corners=False)
        return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class RandomFlip(Transform):
    """Mirrors the image at random.

    Args:
        axis: `x` exchanges left and right, `y` top and bottom.
        p: probability.
    """

    name: ClassVar[str] = "random_flip"
    axis: Literal["x", "y"] = "x"
    p: Probability = 0.5

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        flipped = x.flip(-1 if self.axis == "x" else -2)
        return torch.where(draws.chance(self.p)[:, None, None, None], flipped, x)


@dataclass(frozen=True)
class RandomErasing(Transform):
    """Replaces a box of the image at random.

    Source: Zhong et al., Random Erasing Data Augmentation (AAAI 2020); its defaults.

    Args:
        p: probability.
        min_area, max_area: of the box, as shares of the image; uniform.
        min_ratio: of its height to its width, which lies between this and its inverse, uniform in the logarithm.
        content: `noise`, each value uniform in 0 .. 1, or `fill`.
        fill: a value.
    """

    name: ClassVar[str] = "random_erasing"
    p: Probability = 0.5
    min_area: Annotated[float, Range(gt=0.0, le=1.0)] = 0.02
    max_area: Annotated[float, Range(gt=0.0, le=1.0)] = 0.4
    min_ratio: Annotated[float, Range(gt=0.0, le=1.0)] = 0.3
    content: Literal["noise", "fill"] = "noise"
    fill: Shade = 0.0

    def size(self, size: Size) -> Size:
        _in_order(self.name, ("min_area", self.min_area), ("max_area", self.max_area))
        return size

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        chosen = draws.chance(self.p)
        area, ratio = (self.min_area, self.max_area), (self.min_ratio, 1 / self.min_ratio)
        top, left, height, width, has_fit = boxes(draws, (x.shape[-2], x.shape[-1]), area, ratio)
        rows, columns = torch.arange(x.shape[-2]), torch.arange(x.shape[-1])
        inside = (rows >= top[:, None]) & (rows < (top + height)[:, None])
        across = (columns >= left[:, None]) & (columns < (left + width)[:, None])
        mask = inside[:, :, None] & across[:, None, :] & (chosen & has_fit)[:, None, None]
        content = draws.uniform(*x.shape[1:]).to(x.dtype) if self.content == "noise" else torch.tensor(self.fill)
        return torch.where(mask[:, None], content, x)


def boxes(
    draws: Draws, size: Size, area: tuple[float, float], ratio: tuple[float, float], attempts: int = 10
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """For each sample a random box within `size`: top, left, height, width, and whether one of the attempts fits.

    Args:
        draws: of the samples.
        size: of the image.
        area: least and largest share of the image; uniform.
        ratio: least and largest width / height; uniform in the logarithm.
        attempts: boxes that are drawn for each sample; the first that fits is taken.
    """
    pixels = size[0] * size[1] * draws.uniform(attempts, low=area[0], high=area[1])
    shape = draws.uniform(attempts, low=math.log(ratio[0]), high=math.log(ratio[1])).exp()
    height, width = (pixels / shape).sqrt().round().long(), (pixels * shape).sqrt().round().long()
    fits = (height >= 1) & (height <= size[0]) & (width >= 1) & (width <= size[1])
    first = fits.long().argmax(1, keepdim=True)
    height, width = height.gather(1, first)[:, 0], width.gather(1, first)[:, 0]
    has_fit = fits.any(1)
    top = draws.integers((size[0] - height + 1).clamp(min=1))
    left = draws.integers((size[1] - width + 1).clamp(min=1))
    return top, left, height, width, has_fit


def _fits(name: str, wanted: Size, size: Size) -> None:
    if wanted[0] > size[0] or wanted[1] > size[1]:
        raise OptionError(f"{name}: H, W = {wanted} is larger than the image, {size}")


def _in_order(name: str, low: tuple[str, float], high: tuple[str, float]) -> None:
    if low[1] > high[1]:
        raise OptionError(f"{name}: option {low[0]!r} is {low[1]:g}, more than {high[0]!r}, {high[1]:g}")
