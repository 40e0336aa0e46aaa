"""Integers for core's records: weights, biases, thresholds and decays."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from spikecore import nn as snn
from spikecore.errors import ConversionError
from spikecore.interfaces import QuantizedLayer, QuantizedNeuron
from spikecore.nn import IF, LIF
from spikecore_ann2snn.quantize.quantizers import along, integer_range

Method = Literal["max", "mse"]
_CANDIDATES = 40
"""Scales that recipe mse tries: these shares of the largest magnitude, from 0.2 up to 1."""


def channel_axis(layer: nn.Module) -> int:
    """The axis of a layer's weight that counts its outputs."""
    return 1 if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) else 0


def integer_scale(weight: Tensor, bits: int, axis: int | None, method: Method = "max") -> Tensor:
    """The scale of symmetric integers of a weight: `[]`, or one per index along `axis`.

    max   the largest magnitude is the largest integer
    mse   the one of some smaller ones with the least squared error
    """
    _, high = integer_range(bits)
    rows = weight.detach().reshape(1, -1) if axis is None else weight.detach().movedim(axis, 0).flatten(1)
    largest = rows.abs().amax(1)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    best = largest / high
    if method == "mse":
        least = _error(rows, best, bits)
        for index in range(1, _CANDIDATES):
            scale = largest / high * (1 - 0.8 * index / _CANDIDATES)
            error = _error(rows, scale, bits)
            best = torch.where(error < least, scale, best)
            least = torch.minimum(error, least)
    return best.squeeze(0) if axis is None else best


def _error(rows: Tensor, scale: Tensor, bits: int) -> Tensor:
    return (to_integers(rows, scale, bits, 0).to(rows.dtype) * scale.unsqueeze(1) - rows).square().sum(1)


def to_integers(x: Tensor, scale: Tensor, bits: int, axis: int | None) -> Tensor:
    """`clamp(round(x / scale))` in the smallest type that holds `bits` bits."""
    low, high = integer_range(bits)
    kind = torch.int8 if bits <= 8 else torch.int16 if bits <= 16 else torch.int32
    return torch.round(x.detach().double() / along(scale.double(), x, axis)).clamp(low, high).to(kind)


def layer_record(
    layer: nn.Module, bits: int, scale: Tensor, axis: int | None, input_scale: float = 1.0
) -> QuantizedLayer:
    """The integers of a layer's weight and bias.

    Raises:
        ConversionError: the bias does not fit 32 bits.
    """
    weight: Tensor = layer.weight  # type: ignore[assignment]
    values = to_integers(weight, scale, bits, axis)
    bias = None
    if isinstance(layer.bias, Tensor):
        exact = torch.round(layer.bias.detach().double() / (scale.double() * input_scale))
        if bool((exact.abs() > 2**31 - 1).any()):
            raise ConversionError(
                f"a bias is {float(exact.abs().max()):.3g} times the unit of its layer's sums, more than 32 bits hold"
            )
        bias = exact.to(torch.int32).expand(layer.bias.shape).contiguous()
    return QuantizedLayer(
        values, scale.detach().clone(), torch.zeros_like(scale, dtype=torch.int32), bits, True, axis, bias, input_scale
    )


def write_weights(layer: nn.Module, record: QuantizedLayer) -> None:
    """Give a layer the values that the integers stand for, and the record."""
    with torch.no_grad():
        layer.weight.copy_(record.dequantize())  # type: ignore[operator]
        if record.bias is not None:
            layer.bias.copy_(record.bias.to(record.scale.dtype) * record.scale * record.input_scale)  # type: ignore[operator]
    snn.quantized.attach(layer, record)


def neuron_record(
    neuron: nn.Module, scale: Tensor, decay_bits: int, state_bits: int, input_scale: float = 1.0
) -> QuantizedNeuron | None:
    """The integers of a neuron behind a layer of this scale; None for neurons that have no such form.

    `initial_state` has the one number that a record does not hold.

    IF     v ← v + Σ w            unit of v: scale
    LIF    v ← v (1 - 1/τ) + Σ w  unit of v: scale, with decay_input scale / τ
    """
    if type(neuron) not in (IF, LIF):
        return None
    config = neuron.config
    if isinstance(config.v_threshold, tuple) and scale.dim() and len(config.v_threshold) != len(scale):
        return None
    unit = scale.detach().double() * input_scale
    decay = torch.ones((), dtype=torch.float64)
    if isinstance(neuron, LIF):
        tau = _number(neuron, "tau")
        decay = 1 - 1 / tau
        if config.decay_input:
            unit = unit / tau
        if (config.v_reset if config.v_leak is None else config.v_leak) != 0:
            return None  # a leak towards anything but 0 has no such form
    threshold = _number(neuron, "v_threshold") / unit
    reset = _number(neuron, "v_reset") / unit
    limit = 2 ** (state_bits - 1) - 1
    if bool((threshold.abs() > limit).any()):
        raise ConversionError(
            f"a threshold is {float(threshold.max()):.3g} units of its layer's sums, more than {state_bits} bits hold: "
            "widen state_bits"
        )
    whole = torch.round(threshold).clamp(min=1).to(torch.int64)
    unit = unit.expand(whole.shape) if whole.dim() else unit
    is_zero = not bool((reset != 0).any()) or config.reset == "soft"
    return QuantizedNeuron(
        whole,
        unit.to(torch.get_default_dtype()).contiguous(),
        {"v": torch.round(decay * 2**decay_bits).to(torch.int64)},
        decay_bits,
        state_bits,
        None if is_zero else torch.round(reset).to(torch.int64).expand(whole.shape).contiguous(),
    )


def initial_state(neuron: nn.Module, unit: Tensor) -> Tensor:
    """Where the state of IF or LIF starts, in whole units of it."""
    option = "v_init" if getattr(neuron, "param_v_init", neuron.config.v_init) is not None else "v_reset"
    return torch.round(_number(neuron, option) / unit.double())


def _number(neuron: nn.Module, option: str) -> Tensor:
    trained = getattr(neuron, f"param_{option}", None)
    value = trained.detach() if isinstance(trained, Tensor) else getattr(neuron.config, option)
    return torch.as_tensor(value, dtype=torch.float64)
