"""Quantizers as modules: what weights, activations or states pass during training.

scale s, integers q = clamp(round(x / s), Qn, Qp), value q s        Qn = -2^(b-1), Qp = 2^(b-1) - 1  (signed)
                                                                    Qn = 0,        Qp = 2^b - 1      (unsigned)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spikecore.errors import OptionError
from spikecore_ann2snn.quantize import straight_through


def integer_range(bits: int, signed: bool = True) -> tuple[int, int]:
    """Qn and Qp.

    Raises:
        OptionError: `bits` is not 2 to 32 (1 to 32 unsigned).
    """
    if not (2 if signed else 1) <= bits <= 32:
        raise OptionError(f"bits must be {2 if signed else 1} to 32, got {bits}")
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def along(scale: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """A scale `[]` or `[C]`, shaped to multiply `x`, whose channels lie along `axis`."""
    if axis is None or not scale.dim():
        return scale
    shape = [1] * x.dim()
    shape[axis] = -1
    return scale.reshape(shape)


class MinMax(nn.Module):
    """Symmetric, the scale from the largest magnitude at every call: s = max |x| / Qp.

    Args:
        bits: width, the sign included.
        axis: with one scale per index along it; None for one scale.

    Gradients: to x straight through; the scale has none.
    """

    def __init__(self, bits: int = 8, axis: int | None = 0) -> None:
        super().__init__()
        self.bits, self.axis = bits, axis
        self.low, self.high = integer_range(bits)

    def scale_of(self, x: Tensor) -> Tensor:
        """`[]` or `[C]`; of zeros alone, 1."""
        magnitude = x.detach().abs()
        rows = magnitude.reshape(1, -1) if self.axis is None else magnitude.movedim(self.axis, 0).flatten(1)
        scale = rows.amax(1) / self.high
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return scale.squeeze(0) if self.axis is None else scale

    def forward(self, x: Tensor) -> Tensor:
        """The quantized values, of the same shape."""
        scale = along(self.scale_of(x), x, self.axis)
        return straight_through.clamp(straight_through.round(x / scale), self.low, self.high) * scale

    def extra_repr(self) -> str:
        return f"bits={self.bits}, axis={self.axis}"


class LearnedStep(nn.Module):
    """A learned step size: s is a parameter.

    Args:
        like: what it will quantize first; s starts at 2 mean|x| / sqrt(Qp).
        bits: width.
        signed: two's complement, else from 0.
        axis: with one scale per index along it; None for one scale.

    Gradients: to x, 1 where Qn <= x / s <= Qp; to s, q - x / s inside, Qn and Qp outside, times 1 / sqrt(N Qp), N the
    number of values of one scale.

    Source: Esser et al., Learned Step Size Quantization (ICLR 2020), eq. 1-4.
    """

    def __init__(self, like: Tensor, bits: int = 8, signed: bool = True, axis: int | None = None) -> None:
        super().__init__()
        self.bits, self.signed, self.axis = bits, signed, axis
        self.low, self.high = integer_range(bits, signed)
        magnitude = like.detach().abs()
        rows = magnitude.reshape(1, -1) if axis is None else magnitude.movedim(axis, 0).flatten(1)
        start = 2 * rows.mean(1) / math.sqrt(self.high)
        start = torch.where(start > 0, start, torch.ones_like(start))
        self.step_size = nn.Parameter(start.squeeze(0) if axis is None else start)

    def scale_of(self, x: Tensor) -> Tensor:
        """s, `[]` or `[C]`; kept above 0."""
        return self.step_size.detach().abs().clamp(min=torch.finfo(x.dtype).tiny)

    def forward(self, x: Tensor) -> Tensor:
        """The quantized values, of the same shape."""
        number = x.numel() / max(self.step_size.numel(), 1)
        weight = 1 / math.sqrt(max(number * self.high, 1))
        size = self.step_size.abs().clamp(min=torch.finfo(x.dtype).tiny)
        # The value of s with a smaller gradient.
        size = size.detach() + (size - size.detach()) * weight
        scale = along(size, x, self.axis)
        return straight_through.round((x / scale).clamp(self.low, self.high)) * scale

    def extra_repr(self) -> str:
        return f"bits={self.bits}, signed={self.signed}, axis={self.axis}"


class FixedPoint(nn.Module):
    """Fixed point: whole multiples of 2^-fraction in `bits` bits, as chips hold weights and states.

    Gradients: straight through inside the range, 0 outside.
    """

    def __init__(self, bits: int = 8, fraction: int = 4) -> None:
        super().__init__()
        self.bits, self.fraction = bits, fraction
        self.low, self.high = integer_range(bits)

    def forward(self, x: Tensor) -> Tensor:
        """The rounded and saturated values, of the same shape."""
        unit = 2.0**self.fraction
        return straight_through.round(straight_through.clamp(x * unit, self.low, self.high)) / unit

    def extra_repr(self) -> str:
        return f"bits={self.bits}, fraction={self.fraction}"
