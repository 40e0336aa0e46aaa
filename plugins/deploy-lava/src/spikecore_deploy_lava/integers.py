"""Weights of a net → whole numbers that a synapse of Loihi holds.

of both signs   even numbers, -256 to 254: with its sign, a weight has 8 bits, and the lowest one is cut off
of one sign     0 to 255, or 0 to -255
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from spikecore import nn
from spikecore.interfaces import QuantizedLayer
from spikecore_deploy_lava.network import Doubles

LARGEST = 127
"""Of integers of 8 bits with one scale."""


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of one layer, and the integers they stand for: `value = integers * step`.

    Args:
        value: as the net has them.
        integers, step: exactly so; None where there are no such.
        inexact: why the integers that a device gets differ; "" where they do not.
    """

    value: Doubles
    integers: Doubles | None
    step: float = 1.0
    inexact: str = ""

    def transformed(self, spread: Callable[[Doubles], Doubles], divisor: int = 1) -> Weights:
        """`spread` moves and repeats numbers; all are divided by `divisor`."""
        integers = None if self.integers is None else spread(self.integers)
        return replace(self, value=spread(self.value) / divisor, integers=integers, step=self.step / divisor)


def weights_of(layer: torch.nn.Module) -> Weights:
    """Of a layer with `weight`: from its record, or from the weight itself where it is of whole multiples."""
    value = array_of(layer.weight)  # type: ignore[arg-type]
    record = nn.quantized.read(layer)
    if isinstance(record, QuantizedLayer):
        is_plain = record.axis is None and not bool(record.zero_point.any())
        integers = record.values.cpu().numpy().astype(np.float64)
        step = float(record.scale) if record.axis is None else 1.0
        is_small = bool(np.abs(integers).max(initial=0) <= LARGEST + 1)
        if is_plain and is_small and np.allclose(integers * step, value, rtol=1e-5, atol=step * 1e-5):
            return Weights(value, integers, step)
        exact = exact_weights(value)
        if exact.integers is not None:
            return exact
        why = (
            "its record has a scale for each channel"
            if record.axis is not None
            else f"its record has {record.bits} bits"
        )
        return replace(exact, inexact=f"{why}, a synapse 8 with one scale for all")
    return exact_weights(value)


def exact_weights(value: Doubles) -> Weights:
    """Weights that are whole multiples of a power of two, with 8 bits; others have no integers yet."""
    largest = float(np.abs(value).max(initial=0))
    if largest == 0 or not math.isfinite(largest):
        return Weights(value, np.zeros_like(value) if largest == 0 else None)
    step = 2.0 ** (math.floor(math.log2(largest)) - 6)
    integers = value / step
    if np.array_equal(integers, np.rint(integers)) and largest / step <= LARGEST:
        return Weights(value, integers, step)
    return Weights(value, None)


def rounded_weights(weights: Weights) -> Weights:
    """With integers: where there are none, the nearest ones with the largest weight at 127."""
    if weights.integers is not None:
        return weights
    step = float(np.abs(weights.value).max()) / LARGEST
    integers = np.rint(weights.value / step)
    error = float(np.abs(integers * step - weights.value).max())
    why = f"{weights.inexact}: rounded" if weights.inexact else "its weights are rounded to 8 bits"
    return replace(weights, integers=integers, step=step, inexact=f"{why}, by {error:.3g} at most")


def factor_of(integers: Doubles) -> int:
    """The largest power of two by which all can be multiplied and still fit."""
    factor = 1
    while _fits(integers * (2 * factor)) and factor < 256:
        factor *= 2
    return factor


def held(integers: Doubles) -> tuple[Doubles, int]:
    """(the nearest numbers that a synapse holds, how many of them were out of range)."""
    low, high, step = _range(integers)
    near = np.rint(integers / step) * step
    return np.clip(near, low, high), int(((integers < low) | (integers > high)).sum())


def _fits(integers: Doubles) -> bool:
    return bool(np.array_equal(held(integers)[0], integers))


def _range(integers: Doubles) -> tuple[int, int, int]:
    if bool((integers >= 0).all()):
        return 0, 255, 1
    if bool((integers <= 0).all()):
        return -255, 0, 1
    return -256, 254, 2


def array_of(tensor: torch.Tensor) -> Doubles:
    """A copy in doubles."""
    array: Doubles = tensor.detach().cpu().double().numpy().copy()
    return array
