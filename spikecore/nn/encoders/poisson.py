"""`Poisson`: spikes at random, with the value as their probability."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from spikecore.interfaces.encoder import EncoderCapabilities
from spikecore.nn.encoders.base import Encoder


class Poisson(Encoder):
    """out[t] = 1 with probability x, independently: a Bernoulli process, the Poisson process in discrete time.

    x = 0 never spikes and x = 1 spikes every step. The number of spikes is binomial (T, x).

    Gradients: none.

    Example:
        >>> Poisson(num_steps=2)(torch.tensor([[0.0, 1.0]])).tolist()
        [[[0.0, 1.0]], [[0.0, 1.0]]]
    """

    capabilities = EncoderCapabilities(stochastic=True, rate=True, decodable=True)

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        device = x.device if generator is None else generator.device
        # Drawn in at least float32: half precision has too few numbers in [0, 1) for small rates.
        dtype = torch.promote_types(x.dtype, torch.float32)
        u = torch.rand((self.config.num_steps, *x.shape), generator=generator, device=device, dtype=dtype)
        return (u.to(x.device) < x.detach()).to(x.dtype)

    def decode(self, spikes: Tensor) -> Tensor:
        """The rate: the mean over time. Its standard error is sqrt(x (1 - x) / T)."""
        return self._sequence(spikes).mean(0)
