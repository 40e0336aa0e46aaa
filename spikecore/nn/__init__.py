"""Neurons, surrogates and state: the modules that user code imports."""

from spikecore.backends.selection import configure_backend
from spikecore.nn import layers, losses, readouts
from spikecore.nn.block import ConvBNNeuron, LinearBNNeuron
from spikecore.nn.encoders import Delta, Direct, Encoder, Latency, Poisson
from spikecore.nn.functional import functional
from spikecore.nn.half import widened
from spikecore.nn.layers import *  # noqa: F403  (the names in `layers.__all__`)
from spikecore.nn.model import Model, Sequential
from spikecore.nn.neuron import Neuron
from spikecore.nn.neurons import (
    IF,
    LI,
    LIF,
    CubaLIF,
    NonSpikingIF,
    ParametricLIF,
    fire_and_reset,
    leaky_charge,
    reset_after,
)
from spikecore.nn.placement import set_backend
from spikecore.nn.state import (
    Stateful,
    detach_state,
    get_state,
    reset_state,
    set_state,
    set_step_mode,
    streaming,
)
from spikecore.nn.surrogates import (
    ATan,
    Erf,
    PiecewiseExp,
    PiecewiseQuadratic,
    Rect,
    Sigmoid,
    SoftSign,
    SuperSpike,
    Surrogate,
)
from spikecore.nn.torch_neuron import TorchNeuron

__all__ = [
    "IF",
    "LI",
    "LIF",
    "ATan",
    "ConvBNNeuron",
    "CubaLIF",
    "Delta",
    "Direct",
    "Encoder",
    "Erf",
    "Latency",
    "LinearBNNeuron",
    "Model",
    "Neuron",
    "NonSpikingIF",
    "ParametricLIF",
    "PiecewiseExp",
    "PiecewiseQuadratic",
    "Poisson",
    "Sequential",
    "Rect",
    "Sigmoid",
    "SoftSign",
    "Stateful",
    "SuperSpike",
    "Surrogate",
    "TorchNeuron",
    "detach_state",
    "fire_and_reset",
    "functional",
    "get_state",
    "layers",
    "leaky_charge",
    "losses",
    "readouts",
    "reset_after",
    "reset_state",
    "configure_backend",
    "set_backend",
    "set_state",
    "set_step_mode",
    "streaming",
    "widened",
    *layers.__all__,
]
