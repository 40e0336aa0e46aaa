"""`Delta`: spikes that encode changes of the value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Generator, Tensor

from spikecore.backends.memory_format import stack_steps
from spikecore.errors import InputError
from spikecore.interfaces.component import Range
from spikecore.interfaces.encoder import EncoderCapabilities
from spikecore.nn.encoders.base import Encoder


class Delta(Encoder):
    """Delta modulation: a spike of either sign when the value has moved a threshold away from the running estimate.

    out[t] = +1 if x[t] - e >= θ,  -1 if x[t] - e <= -θ,  else 0;    e ← e + θ out[t],    e = 0 at the start

    The estimate is what a receiver adds up, so errors do not accumulate: |x - e| < θ as soon as the estimate has caught
    up, which takes |x| / θ steps from the start. A static input `[B, ...]` is held for `num_steps` steps.

    Gradients: none.

    Example:
        >>> Delta(num_steps=4, threshold=0.25)(torch.tensor([[0.5]])).flatten().tolist()
        [1.0, 1.0, 0.0, 0.0]
    """

    capabilities = EncoderCapabilities(
        spiking=False, signed=True, decodable=True, input_range=None, takes_sequences=True
    )

    @dataclass(frozen=True)
    class Config(Encoder.Config):
        """
        Args:
            threshold: θ, in the unit of the input.
            sequences: inputs are sequences `[T, B, ...]`, whatever their T.
        """

        threshold: Annotated[float, Range(gt=0.0)] = 0.1
        sequences: bool = False

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        x = x.detach()
        if bool(x.isnan().any()):
            raise InputError("Delta takes numbers, got NaN: no spike could say how far it has moved; clean the input")
        sequence = x if self.config.sequences else x.expand(self.config.num_steps, *x.shape)
        if not len(sequence):
            return torch.empty_like(sequence)
        threshold = self.config.threshold
        # Counts are exact, a running sum of thresholds is not.
        count = torch.zeros(sequence.shape[1:], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        spikes = []
        for value in sequence.unbind(0):
            error = value - threshold * count
            spike = (error >= threshold).to(count) - (error <= -threshold).to(count)
            count = count + spike
            spikes.append(spike.to(x.dtype))
        return stack_steps(spikes)

    def decode(self, spikes: Tensor) -> Tensor:
        """The estimate at the end: θ times the sum over time."""
        return self._sequence(spikes).sum(0) * float(self.config.threshold)
