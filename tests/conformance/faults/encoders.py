"""Faults planted in encoders."""

import math

import torch

from spikecore.interfaces.encoder import EncoderCapabilities
from tests.conformance.planting import table
from tests.conformance.toys import (
    ToyEncoder,
)

FAULTS, fault = table()


@fault("test_seeds", "another|same seed")
class GlobalGenerator(ToyEncoder):
    """hidden randomness: draws from torch's global generator"""

    def encode(self, x, generator):
        return super().encode(x, None)


@fault("test_the_mean_is_the_input", "has the mean")
class Squared(ToyEncoder):
    """mis-declared capability: the rate is the square of the input"""

    def encode(self, x, generator):
        return super().encode(x * x, generator)


@fault("test_time_comes_first", "expected")
class TimeLast(ToyEncoder):
    """time in the last place"""

    def encode(self, x, generator):
        return super().encode(x, generator).movedim(0, -1)


@fault("test_out_of_range_is_refused", "DID NOT RAISE")
class Unchecked(ToyEncoder):
    """values out of range are taken"""

    def _values(self, x):
        return x.float() / 255 if x.dtype == torch.uint8 else x


@fault("test_decode_gives_the_input_back", "is decoded to")
class Halved(ToyEncoder):
    """a decoder that gives half of the value"""

    def decode(self, spikes):
        return super().decode(spikes) / 2


@fault("test_spikes_are_zero_or_one", "expected \\[0.0, 1.0\\]")
class Graded(ToyEncoder):
    """mis-declared capability: says it spikes, and gives the values themselves"""

    capabilities = EncoderCapabilities()

    def encode(self, x, generator):
        return x.expand(self.config.num_steps, *x.shape)


@fault("test_copies", "saw another input before")
class FirstInput(ToyEncoder):
    """memory: scales by the first input it ever saw"""

    scale = None

    def encode(self, x, generator):
        self.scale = x.mean() if self.scale is None and x.dim() else self.scale
        return super().encode(x * (1 if math.isclose(float(x.mean()), float(self.scale)) else 0.5), generator)


@fault("test_draws_no_random_numbers", "with another seed|without a generator|with the same seed")
class NotDeclared(ToyEncoder):
    """hidden randomness: draws, and does not say so"""

    capabilities = EncoderCapabilities(rate=True, decodable=True)
