"""Neurons, surrogates and state: the modules that user code imports."""

from spikecore.nn import layers, losses, readouts
from spikecore.nn.encoders import Delta, Direct, Encoder, Latency, Poisson
from spikecore.nn.layers import *  # noqa: F403  (the names in `layers.__all__`)
from spikecore.nn.model import Model, Sequential
from spikecore.nn.neuron import Neuron, set_backend
from spikecore.nn.neurons import IF, LIF, fire_and_reset
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

__all__ = [
    "IF",
    "LIF",
    "ATan",
    "Delta",
    "Direct",
    "Encoder",
    "Erf",
    "Latency",
    "Model",
    "Neuron",
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
    "detach_state",
    "fire_and_reset",
    "get_state",
    "layers",
    "losses",
    "readouts",
    "reset_state",
    "set_backend",
    "set_state",
    "set_step_mode",
    "streaming",
    *layers.__all__,
]
