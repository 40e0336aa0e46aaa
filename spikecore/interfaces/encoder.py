"""Encoder: turns a batch of values into a sequence over time.

x [B, ...] → [T, B, ...],  T = num_steps;   `direct` passes sequences [T, B, ...] through
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class EncoderCapabilities:
    """What an encoder promises.

    Args:
        spiking: outputs are 0 or 1.
        signed: outputs may be -1, 0 or 1 (delta modulation).
        stochastic: draws random numbers, only from the `generator` it is given.
        rate: the mean over time equals the input (within sampling error).
        decodable: `decode` is implemented.
        input_range: values outside raise an error; None accepts any value. uint8 input is read as value / 255.
        takes_sequences: has an option `sequences`; if it is true, the input is `[T, B, ...]` (a dataset of sequences).
        keeps_length: such a sequence keeps its T; otherwise it, too, becomes `num_steps` long.
        keeps_shape: a step has the shape of the input. False where the last axis grows: `[B, ..., N]` →
            `[T, B, ..., N * P]` (population codes).
    """

    spiking: bool = True
    signed: bool = False
    stochastic: bool = False
    rate: bool = False
    decodable: bool = False
    input_range: tuple[float, float] | None = (0.0, 1.0)
    takes_sequences: bool = False
    keeps_length: bool = True
    keeps_shape: bool = True


@runtime_checkable
class Encoder(Protocol):
    """What callers rely on; also a `torch.nn.Module`. Subclass `spikecore.nn.Encoder`."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: EncoderCapabilities
    """A class attribute; an instance may have its own where options decide (the range of a population)."""
    config: Any

    def forward(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """`[B, ...]` → `[num_steps, B, ...]`; with a generator, equal seeds give equal outputs."""

    def decode(self, spikes: Tensor) -> Tensor:
        """`[T, B, ...]` → `[B, ...]`: the value that the sequence stands for, where `capabilities.decodable`."""
