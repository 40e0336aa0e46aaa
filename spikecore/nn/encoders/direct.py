"""`Direct`: the values themselves, at every step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from spikecore.interfaces.encoder import EncoderCapabilities
from spikecore.nn.encoders.base import Encoder


class Direct(Encoder):
    """out[t] = x: the values themselves, every step; the first layer of the net turns them into spikes.

    The repeated sequence is a view of `x` (stride 0 over time), so it costs no memory; it must not be written to.

    Gradients: pass through, summed over time.
    Source: Rueckauer et al., Conversion of Continuous-Valued Deep Networks (Frontiers in Neuroscience 2017), 2.2.

    Example:
        >>> Direct(num_steps=3)(torch.tensor([[0.5]])).flatten().tolist()
        [0.5, 0.5, 0.5]
    """

    capabilities = EncoderCapabilities(spiking=False, rate=True, decodable=True, input_range=None, takes_sequences=True)

    @dataclass(frozen=True)
    class Config(Encoder.Config):
        """
        Args:
            sequences: inputs are sequences `[T, B, ...]` already and pass through, whatever their T.
        """

        sequences: bool = False

    def encode(self, x: Tensor, generator: Generator | None) -> Tensor:
        return x if self.config.sequences else x.expand(int(self.config.num_steps), *x.shape)

    def decode(self, spikes: Tensor) -> Tensor:
        """The mean over time."""
        return self._sequence(spikes).mean(0)
