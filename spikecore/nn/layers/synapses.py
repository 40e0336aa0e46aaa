"""Convolutions and linear maps over time; arguments and `state_dict` keys are those of the torch layers.

WS... layers standardise their weights, one output channel at a time:

    ŵ = g (w - mean(w)) / sqrt(N var(w) + eps)        N = fan-in; mean, population variance over the fan-in

Source of weight standardisation: Brock et al., Characterizing Signal Propagation to Close the Performance Gap in
Unnormalized ResNets (ICLR 2021), eq. 1 (scaled weight standardisation).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikecore.nn.layers.fold import FoldsTime
from spikecore.nn.products import EventConv2d, EventLinear
from spikecore.torch_internals import convolve


class Conv1d(FoldsTime, nn.Conv1d):
    """`torch.nn.Conv1d` over `[T, B, C, L]`."""

    ranks = (3,)


class Conv2d(FoldsTime, EventConv2d, nn.Conv2d):
    """`torch.nn.Conv2d` over `[T, B, C, H, W]`.

    Where the input is spikes, the product may run by events; see `products` in the docs of spike products.
    """

    ranks = (4,)


class Conv3d(FoldsTime, nn.Conv3d):
    """`torch.nn.Conv3d` over `[T, B, C, D, H, W]`."""

    ranks = (5,)


class ConvTranspose1d(FoldsTime, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` over `[T, B, C, L]`; `output_size` is the spatial size."""

    ranks = (3,)


class ConvTranspose2d(FoldsTime, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` over `[T, B, C, H, W]`; `output_size` is the spatial size."""

    ranks = (4,)


class ConvTranspose3d(FoldsTime, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` over `[T, B, C, D, H, W]`; `output_size` is the spatial size."""

    ranks = (5,)


class Linear(FoldsTime, EventLinear, nn.Linear):
    """`torch.nn.Linear` over `[T, B, ..., in_features]`; `products` as of `Conv2d`."""

    ranks = range(2, 64)


class _StandardisedWeight(nn.Module):
    """Mixin before a convolution or linear layer: it learns the parameter `weight` and computes with ŵ."""

    weight: Tensor
    gain: nn.Parameter | None

    def __init__(self, *args: Any, gain: bool = True, eps: float = 1e-4, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.eps = eps
        self.gain = None
        if gain:
            num_outputs = self.weight.shape[0]
            shape = (num_outputs, *[1] * (self.weight.dim() - 1))  # one factor per output, broadcast over the fan-in
            self.gain = nn.Parameter(self.weight.new_ones(shape))

    def standardised_weight(self) -> Tensor:
        """ŵ, in the shape of `weight`."""
        axes = tuple(range(1, self.weight.dim()))
        variance, mean = torch.var_mean(self.weight, axes, correction=0, keepdim=True)
        weight = (self.weight - mean) * torch.rsqrt(variance * self.weight[0].numel() + self.eps)
        return weight if self.gain is None else weight * self.gain


class _StandardisedConv(_StandardisedWeight):
    def forward(self, input: Tensor) -> Tensor:
        return convolve(self, input, self.standardised_weight())


class _StandardisedLinear(_StandardisedWeight):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.standardised_weight(), self.bias)  # type: ignore[arg-type]


class WSConv1d(FoldsTime, _StandardisedConv, nn.Conv1d):
    """`Conv1d` with standardised weights; `gain` is a learned factor per output channel."""

    ranks = (3,)


class WSConv2d(FoldsTime, _StandardisedConv, nn.Conv2d):
    """`Conv2d` with standardised weights; `gain` is a learned factor per output channel."""

    ranks = (4,)


class WSConv3d(FoldsTime, _StandardisedConv, nn.Conv3d):
    """`Conv3d` with standardised weights; `gain` is a learned factor per output channel."""

    ranks = (5,)


class WSLinear(FoldsTime, _StandardisedLinear, nn.Linear):
    """`Linear` with standardised weights; `gain` is a learned factor per output feature."""

    ranks = range(2, 64)
