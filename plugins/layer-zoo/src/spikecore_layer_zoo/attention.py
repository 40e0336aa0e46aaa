"""Attention over time, channels and places of a whole sequence. Not elementwise: weights join all T steps.

temporal            x[t] σ(f(mean x[t]) + f(max x[t])),      f = W2 ReLU(W1 ·) over T, mean and max over all else
channel             the same over C, mean and max over T, H, W
place               x σ(conv([mean x, max x])), mean and max over T and C

They need the whole sequence at once, so they run in multi-step mode only and take one T.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikecore.errors import OptionError, ShapeError


class _Squeeze(torch.nn.Module):
    """σ(f(mean) + f(max)) for one axis of size `size`; the two layers of f have no bias."""

    def __init__(self, name: str, size: int, reduction: int) -> None:
        super().__init__()
        if not 1 <= reduction <= size:
            raise OptionError(
                f"{name}: reduction must be >= 1 and <= {size}, the size that it reduces; got {reduction}"
            )
        self.inner = torch.nn.Linear(size, size // reduction, bias=False)
        self.outer = torch.nn.Linear(size // reduction, size, bias=False)

    def forward(self, mean: Tensor, largest: Tensor) -> Tensor:
        """`[B, size]` twice → weights `[B, size]`."""
        both = [self.outer(torch.relu(self.inner(part))) for part in (mean, largest)]
        return torch.sigmoid(both[0] + both[1])


class TemporalWiseAttention(torch.nn.Module):
    """Scales each step by what the whole sequence says of it.

    Args:
        num_steps: T.
        reduction: T / reduction is the width of the hidden layer.

    Raises:
        OptionError: `reduction` is larger than T.
        ShapeError: the input is not `[T, B, ...]` with that T and at least one more axis.

    Source: Yao et al., Temporal-wise Attention Spiking Neural Networks for Event Streams Classification (ICCV 2021),
    3.3.
    """

    def __init__(self, num_steps: int, reduction: int = 16) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.squeeze = _Squeeze("TemporalWiseAttention", num_steps, reduction)

    def weights(self, x: Tensor) -> Tensor:
        """`[T, B]`, each in 0 .. 1."""
        flat = x.flatten(2)
        scores: Tensor = self.squeeze(flat.mean(2).T, flat.amax(2).T)
        return scores.T

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, ...]` → the same shape."""
        if x.dim() < 3 or len(x) != self.num_steps:
            raise ShapeError(
                f"TemporalWiseAttention takes [{self.num_steps}, B, N, ...], as num_steps={self.num_steps} says, "
                f"got {tuple(x.shape)}"
            )
        return x * self.weights(x).reshape(*x.shape[:2], *[1] * (x.dim() - 2))


class MultiDimensionalAttention(torch.nn.Module):
    """Attention over time, then channels, then places, then ReLU.

    Args:
        num_steps: T.
        channels: C.
        reduction_t, reduction_c: T / reduction_t and C / reduction_c are the widths of the hidden layers.
        kernel_size: of the convolution over places; odd.
        use_temporal, use_channel, use_spatial: which of the three are there.

    Raises:
        OptionError: a reduction larger than what it reduces, or an even kernel.
        ShapeError: the input is not `[T, B, C, H, W]` with that T and C.

    Source: Yao et al., Attention Spiking Neural Networks (IEEE TPAMI 2023), 3.3.
    """

    def __init__(
        self,
        num_steps: int,
        channels: int,
        reduction_t: int = 16,
        reduction_c: int = 16,
        kernel_size: int = 3,
        use_temporal: bool = True,
        use_channel: bool = True,
        use_spatial: bool = True,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise OptionError(f"MultiDimensionalAttention: kernel_size must be odd, got {kernel_size}")
        self.num_steps, self.channels = num_steps, channels
        self.temporal = TemporalWiseAttention(num_steps, reduction_t) if use_temporal else None
        self.channel = _Squeeze("MultiDimensionalAttention", channels, reduction_c) if use_channel else None
        self.place = torch.nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False) if use_spatial else None

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → the same shape, not negative."""
        if x.dim() != 5 or len(x) != self.num_steps or x.shape[2] != self.channels:
            raise ShapeError(
                f"MultiDimensionalAttention takes [{self.num_steps}, B, {self.channels}, H, W], got {tuple(x.shape)}"
            )
        if self.temporal is not None:
            x = self.temporal(x)
        if self.channel is not None:
            weights = self.channel(x.mean((0, 3, 4)), x.amax((0, 3, 4)))
            x = x * weights[:, :, None, None]
        if self.place is not None:
            both = torch.stack([x.mean((0, 2)), x.amax((0, 2))], 1)
            x = x * torch.sigmoid(self.place(both)).unsqueeze(0)
        return torch.relu(x)
