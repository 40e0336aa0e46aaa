"""From the net's output over time to one number per output: how a decision is read.

out [T, B, K] → [B, K]

rate      mean over time of the output: a linear readout of the firing rates of the last hidden layer, since
          1/T Σ_t (W s[t] + b) = W (1/T Σ_t s[t]) + b
last      v[T-1]            v: membrane potential of a non-spiking readout neuron fed with the output
max       max_t v[t]
mean      1/T Σ_t v[t]
max_abs   v farthest from 0, with its sign

The readout neuron integrates without leak (tau = 0), or leaks with tau:  v[t] = v[t-1] + (x[t] - v[t-1]) / tau.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from spikecore import nn as spiking

Decoder = Literal["rate", "last", "max", "mean", "max_abs"]
OVER_TIME = {
    "rate": spiking.readouts.rate,
    "last": spiking.readouts.last,
    "max": spiking.readouts.max_over_time,
    "mean": spiking.readouts.rate,
    "max_abs": spiking.readouts.max_abs_over_time,
}


class Readout(nn.Module):
    """See this module. It has no parameters; in a streaming net its potential is carried on.

    Args:
        decoder: one of the above.
        tau: of the readout neuron, in steps; 0: no leak.
    """

    def __init__(self, decoder: Decoder = "rate", tau: float = 2.0) -> None:
        super().__init__()
        self.decoder = decoder
        self.neuron: nn.Module | None = None
        if decoder != "rate":
            self.neuron = spiking.NonSpikingIF() if tau == 0 else spiking.LI(tau=tau)

    def forward(self, out: Tensor) -> Tensor:
        """`[T, B, K]` → `[B, K]`."""
        potential = out if self.neuron is None else self.neuron(out)
        decoded: Tensor = OVER_TIME[self.decoder](potential)
        return decoded
