"""Encoders turn a batch of values into a sequence over time.

x [B, ...] → [T, B, ...],  T = num_steps

direct    out[t] = x                                        the same values every step; sequences pass through
poisson   out[t] = 1 with probability x, else 0             independent in time and place
latency   one spike, the earlier the larger x               t(x) linear or logarithmic
delta     +1 / -1 when x has moved away from what the spikes so far add up to

uint8 input is read as value / 255; values outside `capabilities.input_range` are refused. Random numbers come only from
the `generator`, on its own device, so a seed gives the same spikes wherever the input lies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Generator, Tensor, nn

from spikecore.errors import InputError, ShapeError
from spikecore.interfaces.component import Configurable, Range, make_config, refuse_positional
from spikecore.interfaces.encoder import EncoderCapabilities
from spikecore.interfaces.options import fields_of
from spikecore.nn.half import not_a_tensor


class Encoder(Configurable, nn.Module):
    """Base of encoders: checks the input, then calls `encode`.

    Args:
        options: the fields of `Config`.
    """

    capabilities: EncoderCapabilities = EncoderCapabilities()

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            num_steps: T, the length of the sequence.
        """

        num_steps: Annotated[int, Range(ge=1)] = 4

    config: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        refuse_positional(type(self), args)
        nn.Module.__init__(self)
        self.config = make_config(type(self), options)

    @classmethod
    def idle_options(cls, config: Any) -> Iterable[tuple[str, str]]:
        if getattr(config, "sequences", False):
            yield "num_steps", "with sequences = true the length is that of the input"

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        """The encoding of checked floating-point values."""
        raise NotImplementedError(f"{type(self).__name__} must implement encode(x, generator)")

    def decode(self, spikes: Tensor) -> Tensor:
        """`[T, B, ...]` → `[B, ...]`: the value that the sequence stands for, where `capabilities.decodable`."""
        raise NotImplementedError(f"{type(self).__name__} has no decode: capabilities.decodable is False")

    def forward(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """`[B, ...]` → `[num_steps, B, ...]`, in the dtype of `x` (the default dtype for uint8).

        Raises:
            TypeError: `x` is neither floating point nor uint8.
            ShapeError: `x` has no batch axis.
            InputError: a value is outside `capabilities.input_range`, or NaN.
        """
        return self.encode(self._values(x), generator)

    def _values(self, x: Tensor) -> Tensor:
        name, is_sequence = type(self).__name__, getattr(self.config, "sequences", False)
        if not isinstance(x, Tensor):
            raise TypeError(not_a_tensor(name, x))
        if x.dtype == torch.uint8:
            x = x.to(torch.get_default_dtype()) / 255
        if not x.is_floating_point():
            raise TypeError(
                f"{name} takes floating-point values or uint8 (read as value / 255), got {x.dtype}: call .float() on it"
            )
        if x.dim() < 1 + is_sequence:
            form = "a sequence [T, B, ...]" if is_sequence else "a batch [B, ...]"
            raise ShapeError(f"{name} takes {form}, got {tuple(x.shape)}: add the missing axis with unsqueeze(0)")
        bounds = self.capabilities.input_range
        if bounds is not None and x.numel():
            low, high = (float(value) for value in torch.aminmax(x.detach()))
            if not (bounds[0] <= low and high <= bounds[1]):  # also true for NaN, which aminmax passes on
                raise InputError(
                    f"{name} takes values from {bounds[0]:g} to {bounds[1]:g}, got {low:g} to {high:g}: "
                    "rescale the input, e.g. (x - x.min()) / (x.max() - x.min())"
                )
        return x

    def _sequence(self, spikes: Tensor, num_steps: int | None = None) -> Tensor:
        if not spikes.is_floating_point():
            raise TypeError(
                f"{type(self).__name__}.decode takes floating-point values, got {spikes.dtype}: call .float() on them"
            )
        if spikes.dim() < 2 or not spikes.shape[0] or (num_steps is not None and spikes.shape[0] != num_steps):
            wanted = "T >= 1" if num_steps is None else f"T = {num_steps}"
            raise ShapeError(f"{type(self).__name__}.decode takes [T, B, ...] with {wanted}, got {tuple(spikes.shape)}")
        return spikes

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in fields_of(self.config).items())
