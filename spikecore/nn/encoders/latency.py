"""`Latency`: one spike per value, the earlier the larger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor

from spikecore.interfaces.component import Range
from spikecore.interfaces.encoder import EncoderCapabilities
from spikecore.nn.encoders.base import Encoder


class Latency(Encoder):
    """One spike per value, at t(x); x = 1 spikes at step 0 and x = 0 at the last step.

    linear:   t = round((T - 1) (1 - x))
    log:      t = round(T - 1 - ln(α x + 1)),   α = e^(T - 1) - 1

    Gradients: none.
    Parity: the formulas of SpikingJelly's latency encoder (rounding half to even).

    Example:
        >>> Latency(num_steps=3)(torch.tensor([[0.0, 0.5, 1.0]]))[:, 0].T.tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """

    capabilities = EncoderCapabilities(decodable=True)

    @dataclass(frozen=True)
    class Config(Encoder.Config):
        """
        Args:
            num_steps: T; at least two, since a single moment tells nothing.
            curve: how the moment depends on the value.
        """

        num_steps: Annotated[int, Range(ge=2)] = 4
        curve: Literal["linear", "log"] = "linear"

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        last = self.config.num_steps - 1
        wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        if self.config.curve == "linear":
            time: Tensor = last * (1 - wide)
        else:
            # ln(α x + 1) = ln(x e^(T-1) + (1 - x)), which does not overflow for large T.
            time = last - torch.logaddexp(wide.log() + last, (1 - wide).log())
        steps = torch.arange(self.config.num_steps, device=x.device).reshape(-1, *[1] * x.dim())
        return (steps == time.round()).to(x.dtype)

    def decode(self, spikes: Tensor) -> Tensor:
        """The value whose moment is that of the first spike; 0 without a spike.

        linear:  1 - t / (T - 1)        log:  (e^(T - 1 - t) - 1) / α
        """
        num_steps = self.config.num_steps
        fired = self._sequence(spikes, num_steps) != 0
        steps = torch.arange(num_steps, device=spikes.device, dtype=torch.float64)
        last = num_steps - 1
        if self.config.curve == "linear":
            value = 1 - steps / last
        else:
            # (e^(last - t) - 1) / (e^last - 1), both divided by e^last, which overflows for large T. steps[0] is 0.
            value = torch.exp(-steps) * torch.expm1(steps - last) / torch.expm1(steps[0] - last)
        values = value.to(spikes.dtype).reshape(-1, *[1] * (spikes.dim() - 1))
        return torch.where(fired, values, 0).amax(0)  # values fall with time, so the largest is the first spike's
