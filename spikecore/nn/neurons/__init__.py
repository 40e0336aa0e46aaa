"""The neurons of core, one per file, and the equations that spiking neurons share."""

from spikecore.nn.neurons.cuba_lif import CubaLIF
from spikecore.nn.neurons.equations import fire, fire_and_reset, leaky_charge, reset_after
from spikecore.nn.neurons.integrate_and_fire import IF
from spikecore.nn.neurons.leaky import Leaky
from spikecore.nn.neurons.li import LI
from spikecore.nn.neurons.lif import LIF
from spikecore.nn.neurons.non_spiking_if import NonSpikingIF
from spikecore.nn.neurons.plif import ParametricLIF
from spikecore.nn.neurons.relu import ReLU

__all__ = [
    "IF",
    "LI",
    "LIF",
    "CubaLIF",
    "Leaky",
    "NonSpikingIF",
    "ParametricLIF",
    "ReLU",
    "fire",
    "fire_and_reset",
    "leaky_charge",
    "reset_after",
]
