"""Records of quantized layers and neurons: converters and trainers write them, deployers read them.

A record does not change what a module computes: it holds the integers that represent the module on a device. It is
stored on the module as `module.quantized`; `spikecore.nn.quantized` writes and reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """Integer weights of one synapse layer.

        weight ≈ (values - zero_point) * scale           bias ≈ bias_values * scale * input_scale

    Args:
        values: integers in the shape of the float weight (`[out, in]` or `[out, in, kH, kW]`).
        scale: floating point, `[]`, or `[C]` along `axis`.
        zero_point: integers of `scale`'s shape; zero for symmetric quantization.
        bits: width of `values`, the sign included when `signed`; 1 to 32.
        signed: two's complement if True, else 0 to 2^bits - 1.
        axis: of `values`, along which `scale` has one entry per channel; None with one scale for all.
        bias: integers `[out]` in units of `scale * input_scale`, or None.
        input_scale: what one unit of the layer's input stands for; 1.0 for spikes.
    """

    values: Tensor
    scale: Tensor
    zero_point: Tensor
    bits: int
    signed: bool = True
    axis: int | None = None
    bias: Tensor | None = None
    input_scale: float = 1.0

    def dequantize(self) -> Tensor:
        """`(values - zero_point) * scale`, in the dtype of `scale`."""
        scale, zero_point = self.scale, self.zero_point
        if self.axis is not None:
            shape = [1] * self.values.dim()
            shape[self.axis] = -1
            scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        # 32-bit values minus a zero point may need 33 bits.
        return (self.values.long() - zero_point.long()).to(scale.dtype) * scale


@dataclass(frozen=True, eq=False)
class QuantizedNeuron:
    """Integer constants of one neuron layer.

        state ← state * decay / 2^decay_bits + input         fires where v >= threshold         v ≈ v_integer * scale

    Args:
        threshold: integer, `[]`, or `[C]` along axis 1 of a step.
        scale: floating point, `[]` or `[C]`: what one unit of the integer state stands for.
        decays: state name → integers, `[]` or `[C]`, 0 to 2^decay_bits: what is left of the state after a step.
        decay_bits: fractional bits of `decays`.
        state_bits: width of the state, the sign included; 2 to 64.
        v_reset: integer, `[]` or `[C]`, or None where the reset is soft or to 0.
    """

    threshold: Tensor
    scale: Tensor
    decays: Mapping[str, Tensor] = field(default_factory=dict)
    decay_bits: int = 12
    state_bits: int = 24
    v_reset: Tensor | None = None
