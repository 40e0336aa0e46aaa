"""Values of images brought to a usual range; chosen in a dataset's `normalise`.

unit       as stored, 0 .. 255 → 0 .. 1
channels   (x - mean) / std, for each channel; mean and std of the training images, unless they are given
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from spikecore.errors import DatasetError, OptionError

if TYPE_CHECKING:
    from spikecore_datasets_vision.dataset import Images

CHUNK = 4096
"""Images counted at a time."""


@dataclass(frozen=True)
class Unit:
    """Values in 0 .. 1."""

    name: ClassVar[str] = "unit"

    def check(self, num_channels: int) -> None:
        """Nothing can be wrong with it."""


@dataclass(frozen=True)
class Channels:
    """(x - mean) / std.

    Args:
        mean, std: of each channel, of values in 0 .. 1; if both are left out, those of the training images as stored.
    """

    name: ClassVar[str] = "channels"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def check(self, num_channels: int) -> None:
        """
        Raises:
            OptionError: there is not one number for each channel, or a standard deviation is not positive.
        """
        if not self.mean and not self.std:
            return
        if len(self.mean) != num_channels or len(self.std) != num_channels:
            raise OptionError(
                f"normalise: 'mean' and 'std' must have {num_channels} numbers, one for each channel; "
                f"got {list(self.mean)} and {list(self.std)}"
            )
        if not all(np.isfinite(self.mean)) or not all(0 < value < np.inf for value in self.std):
            raise OptionError(f"normalise: 'std' must be > 0; got mean {list(self.mean)}, std {list(self.std)}")

    def __call__(self, x: Tensor) -> Tensor:
        mean, std = self._columns(x)
        return (x - mean) / std

    def undone(self, x: Tensor) -> Tensor:
        """x std + mean: the values in 0 .. 1 again, and rounding leaves none outside."""
        mean, std = self._columns(x)
        return (x * std + mean).clamp(0, 1)

    def _columns(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, dtype=x.dtype)[:, None, None] for values in (self.mean, self.std))
        return mean, std


def measure(images: Images) -> Channels:
    """Mean and standard deviation of each channel, of all pixels.

    Raises:
        DatasetError: a channel is the same everywhere.
    """
    channels = images.take(np.arange(1)).shape[1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), CHUNK):
        part = images.take(np.arange(start, min(start + CHUNK, len(images))))
        counts += np.stack([np.bincount(part[:, c].ravel(), minlength=256) for c in range(channels)])
    values = np.arange(256) / 255
    total = counts.sum(1)
    mean = counts @ values / total
    std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(1) / total)
    if not (std > 0).all():
        raise DatasetError("a channel has the same value in all training images: it cannot be normalised")
    return Channels(tuple(mean.tolist()), tuple(std.tolist()))
