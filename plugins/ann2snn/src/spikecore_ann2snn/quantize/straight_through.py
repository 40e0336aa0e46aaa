"""Rounding with the gradient of what it rounds: straight-through estimators.

    round, ceil, floor       gradient 1
    clamp                    gradient 1 inside, 0 outside
    step                     round(x / s) s                       gradient 1 to x
    k_bit                    round(x (2^k - 1)) / (2^k - 1)       for x in 0 .. 1; gradient 1
    affine_k_bit             w k_bit(x) + b                       gradients to x, w and b
    unit_range               (x - min x) / (max x - min x + ε)    into 0 .. 1; min and max have no gradient

Source: Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons (2013); Zhou et al., DoReFa-Net
(2016), eq. 5. Parity: spikingjelly.activation_based.quantize; tests/peers/test_ann2snn.py.
"""

from __future__ import annotations

import torch
from torch import Tensor


def round(x: Tensor) -> Tensor:
    """To the nearest whole number, halves to even."""
    return _straight(x, torch.round(x))


def ceil(x: Tensor) -> Tensor:
    """Up to a whole number."""
    return _straight(x, torch.ceil(x))


def floor(x: Tensor) -> Tensor:
    """Down to a whole number."""
    return _straight(x, torch.floor(x))


def clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Into `low .. high`.

    Raises:
        ValueError: `low` is above `high`.
    """
    if not low <= high:
        raise ValueError(f"clamp: low {low} is above high {high}")
    return x.clamp(low, high)


def step(x: Tensor, size: float | Tensor) -> Tensor:
    """To the nearest multiple of `size`.

    Raises:
        ValueError: `size` is not above 0.
    """
    if not bool((torch.as_tensor(size) > 0).all()):
        raise ValueError(f"step: expected a size above 0, got {size}")
    return _straight(x, torch.round(x / size) * size)


def k_bit(x: Tensor, bits: int) -> Tensor:
    """Numbers from 0 to 1 to one of 2^bits values there; others to multiples of the same step, beyond them.

    Raises:
        ValueError: `bits` is not 1 to 32.
    """
    if not 1 <= bits <= 32:
        raise ValueError(f"k_bit: expected 1 to 32 bits, got {bits}")
    levels = 2**bits - 1
    return _straight(x, torch.round(x * levels) / levels)


def affine_k_bit(x: Tensor, bits: int, weight: float | Tensor, bias: float | Tensor) -> Tensor:
    """`weight * k_bit(x) + bias`."""
    return weight * k_bit(x, bits) + bias


def unit_range(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Linearly into 0 .. 1, by the smallest and largest value of the whole tensor."""
    low, high = x.detach().min(), x.detach().max()
    return (x - low) / (high - low + eps)


def _straight(x: Tensor, value: Tensor) -> Tensor:
    """`value`, with the gradient of `x`; exact, where x + (value - x) would be rounded."""
    return value.detach() + (x - x.detach())
