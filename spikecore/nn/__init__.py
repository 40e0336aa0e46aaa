"""Neurons, surrogates and state: the modules that user code imports."""

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
    "Neuron",
    "Sigmoid",
    "Stateful",
    "Surrogate",
    "detach_state",
    "get_state",
    "reset_state",
    "set_backend",
    "set_state",
    "set_step_mode",
    "streaming",
]
