"""The encoders of core, one per file."""

from spikecore.nn.encoders.base import Encoder
from spikecore.nn.encoders.delta import Delta
from spikecore.nn.encoders.direct import Direct
from spikecore.nn.encoders.latency import Latency
from spikecore.nn.encoders.poisson import Poisson

__all__ = ["Delta", "Direct", "Encoder", "Latency", "Poisson"]
