"""Neurons, surrogates and state: the modules that user code imports."""

from spikecore.nn.encoders import Direct, Encoder, Latency, Poisson
from spikecore.nn.fold import FoldTime, fold_time
from spikecore.nn.neuron import Neuron, set_backend
from spikecore.nn.neurons import IF, LIF
from spikecore.nn.state import (
    Stateful,
    detach_state,
    get_state,
    reset_state,
    set_state,
    set_step_mode,
    streaming,
)
from spikecore.nn.surrogates import ATan, Sigmoid, Surrogate

__all__ = [
    "IF",
    "LIF",
    "ATan",
    "Direct",
    "Encoder",
    "FoldTime",
    "Latency",
    "Neuron",
    "Poisson",
    "Sigmoid",
    "Stateful",
    "Surrogate",
    "detach_state",
    "fold_time",
    "get_state",
    "reset_state",
    "set_backend",
    "set_state",
    "set_step_mode",
    "streaming",
]
