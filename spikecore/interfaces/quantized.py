"""The record of a quantised layer: converters and trainers write it, deployers read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class QuantizedLayer:
    """Integer weights of one synapse layer: `weight ≈ (values - zero_point) * scale`.

    Args:
        values: integer tensor, the shape of the float weight (`[out, in]` or `[out, in, kH, kW]`).
        scale: float tensor, scalar or one per output channel.
        zero_point: integer tensor of `scale`'s shape; zero for symmetric quantisation.
        bits: width of `values`, sign included when `signed`.
        signed: two's complement if True.
        bias: integer tensor `[out]` in units of `scale * input_scale`, or None.
        input_scale: scale of the layer's input; 1.0 for spikes.
    """

    values: Tensor
    scale: Tensor
    zero_point: Tensor
    bits: int
    signed: bool = True
    bias: Tensor | None = None
    input_scale: float = 1.0
