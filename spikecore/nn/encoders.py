"""Encoders: `[B, ...]` → `[T, B, ...]`, T = num_steps. uint8 input is read as value / 255."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from spikecore.errors import ShapeError
from spikecore.interfaces.component import Configurable, Range, make_config
from spikecore.interfaces.encoder import EncoderCapabilities


class Encoder(Configurable, nn.Module):
    """Base: checks the range of the input; a subclass writes `encode`."""

    capabilities: ClassVar[EncoderCapabilities] = EncoderCapabilities()

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            num_steps: T, the length of the sequence.
        """

        num_steps: Annotated[int, Range(ge=1)] = 4

    def __init__(self, **options: Any) -> None:
        nn.Module.__init__(self)
        self.config = make_config(type(self), options)

    def forward(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """`[B, ...]` → `[num_steps, B, ...]`.

        Raises:
            ShapeError: a value outside `capabilities.input_range`.
        """
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        bounds = self.capabilities.input_range
        if bounds is not None and x.numel() and not bool(((x >= bounds[0]) & (x <= bounds[1])).all()):
            raise ShapeError(
                f"{type(self).__name__} takes values in [{bounds[0]:g}, {bounds[1]:g}], got "
                f"{x.min().item():g} to {x.max().item():g}: scale the data first"
            )
        return self.encode(x, generator)

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        """The encoding itself, for checked floating-point input."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return repr(self.config).partition("(")[2].rstrip(")")


class Direct(Encoder):
    """The value itself, at every step; the first layer of the net learns the code."""

    capabilities = EncoderCapabilities(spiking=False, rate=True, decodable=True, input_range=None)

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        return x.expand(self.config.num_steps, *x.shape)

    def decode(self, spikes: Tensor) -> Tensor:
        """The mean over time."""
        return spikes.mean(0)


class Poisson(Encoder):
    """A spike at every step with probability x, x in [0, 1]."""

    capabilities = EncoderCapabilities(stochastic=True, rate=True, decodable=True)

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        noise = torch.empty((self.config.num_steps, *x.shape), dtype=x.dtype)
        return (noise.uniform_(generator=generator).to(x.device) < x).to(x.dtype)

    def decode(self, spikes: Tensor) -> Tensor:
        """The firing rate."""
        return spikes.mean(0)


class Latency(Encoder):
    """One spike, the earlier the larger x: at step round((num_steps - 1) (1 - x)), x in [0, 1]."""

    capabilities = EncoderCapabilities(decodable=True)

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        last = self.config.num_steps - 1
        when = torch.round(last * (1 - x))
        steps = torch.arange(last + 1, device=x.device).view(-1, *([1] * x.dim()))
        spikes: Tensor = steps == when
        return spikes.to(x.dtype)

    def decode(self, spikes: Tensor) -> Tensor:
        """1 - t / (num_steps - 1), within half a step."""
        last: int = max(self.config.num_steps - 1, 1)
        return 1 - spikes.argmax(0).to(spikes.dtype) / last
