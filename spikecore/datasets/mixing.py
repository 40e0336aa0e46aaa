"""Samples of a batch mixed with each other; labels become shares of the classes.

mixup    x = λ x + (1 - λ) x';      label = λ own + (1 - λ) other
cutmix   a box of x is that of x';  label = share of the area outside the box · own + share inside · other
λ ~ Beta(α, α);  x' is the batch in a random order

Sources: Zhang et al., mixup (ICLR 2018); Yun et al., CutMix (ICCV 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from spikecore.errors import OptionError
from spikecore.interfaces.component import Range
from spikecore.interfaces.dataset import Batch

Rng = np.random.Generator


class Mix:
    """Base of the ways to mix a batch with itself."""

    name: ClassVar[str]
    p: float

    def mix(self, x: Tensor, other: Tensor, rng: Rng) -> tuple[Tensor, float]:
        """x mixed with `other`, of the same shape, and the share that the label of `other` gets."""
        raise NotImplementedError(f"{type(self).__name__} declares no mix")


@dataclass(frozen=True)
class Mixup(Mix):
    """Every sample is a weighted mean of two.

    Args:
        alpha: of the Beta distribution.
        p: probability that a batch is mixed at all.
    """

    name: ClassVar[str] = "mixup"
    alpha: Annotated[float, Range(gt=0.0, lt=math.inf)] = 0.2
    p: Annotated[float, Range(ge=0.0, le=1.0)] = 1.0

    def mix(self, x: Tensor, other: Tensor, rng: Rng) -> tuple[Tensor, float]:
        share = float(rng.beta(self.alpha, self.alpha))
        return share * x + (1 - share) * other, 1 - share


@dataclass(frozen=True)
class CutMix(Mix):
    """A box of every sample is that of another one; over all steps, where samples are sequences.

    The box has √(1 - λ) of each side, its centre is uniform, and it is clipped at the border.

    Args:
        alpha: of the Beta distribution.
        p: probability that a batch is mixed at all.
    """

    name: ClassVar[str] = "cutmix"
    alpha: Annotated[float, Range(gt=0.0, lt=math.inf)] = 1.0
    p: Annotated[float, Range(ge=0.0, le=1.0)] = 1.0

    def box(self, height: int, width: int, rng: Rng) -> tuple[slice, slice]:
        """Rows and columns of the box."""
        share = (1 - rng.beta(self.alpha, self.alpha)) ** 0.5
        spans = []
        for side in (height, width):
            half, middle = share * side / 2, rng.random() * side
            spans.append(slice(max(0, round(middle - half)), min(side, round(middle + half))))
        return spans[0], spans[1]

    def mix(self, x: Tensor, other: Tensor, rng: Rng) -> tuple[Tensor, float]:
        height, width = x.shape[-2:]
        rows, columns = self.box(height, width, rng)
        x = x.clone()
        x[..., rows, columns] = other[..., rows, columns]
        return x, (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)


def mix_batch(
    batch: Batch, kinds: Sequence[Mix], num_classes: int, is_sequence: bool, generator: torch.Generator
) -> Batch:
    """The batch mixed with itself by one of `kinds`, drawn evenly; labels as shares `[B, num_classes]`.

    Args:
        batch: x `[B, C, H, W]`, or `[T, B, C, H, W]` when `is_sequence`; labels int64 `[B]`.
        kinds: at least one.
        num_classes: number of labels.
        is_sequence: x has a time axis in front.
        generator: everything is drawn from it.

    Raises:
        OptionError: the samples are no images.

    Example:
        >>> batch = Batch(torch.arange(2.0).reshape(2, 1, 1, 1), torch.tensor([0, 1]))
        >>> mixed = mix_batch(batch, [Mixup(alpha=1.0)], 2, False, torch.Generator())
        >>> bool(torch.equal(mixed.x.flatten(), mixed.label[:, 1]))
        True
    """
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    chosen = kinds[int(rng.integers(len(kinds)))] if len(kinds) > 1 else kinds[0]
    shares = torch.nn.functional.one_hot(batch.stacked, num_classes).float()
    if rng.random() >= chosen.p:
        return batch._replace(label=shares)
    if batch.x.dim() != 4 + is_sequence:
        shape = tuple(batch.x.shape[1 + is_sequence :])
        raise OptionError(f"{chosen.name} needs samples of which each step is [C, H, W]; these are {shape}")
    order = torch.from_numpy(rng.permutation(len(shares)))
    x, share = chosen.mix(batch.x, batch.x[:, order] if is_sequence else batch.x[order], rng)
    mask = batch.mask if batch.mask is None else batch.mask | batch.mask[:, order]
    return Batch(x, shares * (1 - share) + shares[order] * share, mask)
