"""Neurons, surrogates and state: the modules that user code imports."""

from typing import Any as _Any

from spikecore.backends.memory_format import filled_like, stack_steps, unbind_steps
from spikecore.backends.packing import packed_spikes
from spikecore.backends.selection import configure_backend
from spikecore.nn import layers, losses, quantized, readouts
from spikecore.nn.bit_net import optimize
from spikecore.nn.block import ConvBNNeuron, LinearBNNeuron
from spikecore.nn.checkpointing import checkpoint_layers, checkpoint_time, run_all
from spikecore.nn.encoders import Delta, Direct, Encoder, Latency, Poisson
from spikecore.nn.functional import functional
from spikecore.nn.graph import NetGraph
from spikecore.nn.graph_net import GraphNet, features
from spikecore.nn.half import widened
from spikecore.nn.layers import *  # noqa: F403  (the names in `layers.__all__`)
from spikecore.nn.missing import no_such_name as _no_such_name
from spikecore.nn.model import Model, Sequential
from spikecore.nn.neuron import Neuron
from spikecore.nn.neurons import (
    IF,
    LI,
    LIF,
    CubaLIF,
    Leaky,
    NonSpikingIF,
    ParametricLIF,
    ReLU,
    fire,
    fire_and_reset,
    leaky_charge,
    reset_after,
)
from spikecore.nn.node import NetNode, Ref
from spikecore.nn.option_values import option_values
from spikecore.nn.placement import set_backend
from spikecore.nn.products import set_products
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
from spikecore.nn.tracing import trace_net
from spikecore.nn.walker import NetWalker, RefusedError, graph_for_deployment

__all__ = [
    "IF",
    "LI",
    "LIF",
    "ATan",
    "ConvBNNeuron",
    "CubaLIF",
    "Leaky",
    "Delta",
    "Direct",
    "Encoder",
    "Erf",
    "GraphNet",
    "Latency",
    "LinearBNNeuron",
    "Model",
    "NetGraph",
    "NetNode",
    "NetWalker",
    "Neuron",
    "NonSpikingIF",
    "ParametricLIF",
    "PiecewiseExp",
    "PiecewiseQuadratic",
    "Poisson",
    "ReLU",
    "Sequential",
    "Rect",
    "Ref",
    "RefusedError",
    "Sigmoid",
    "SoftSign",
    "Stateful",
    "SuperSpike",
    "Surrogate",
    "TorchNeuron",
    "checkpoint_layers",
    "checkpoint_time",
    "detach_state",
    "features",
    "filled_like",
    "fire",
    "fire_and_reset",
    "functional",
    "get_state",
    "graph_for_deployment",
    "layers",
    "leaky_charge",
    "losses",
    "optimize",
    "option_values",
    "packed_spikes",
    "quantized",
    "readouts",
    "reset_after",
    "reset_state",
    "run_all",
    "configure_backend",
    "set_backend",
    "set_products",
    "set_state",
    "set_step_mode",
    "stack_steps",
    "streaming",
    "trace_net",
    "unbind_steps",
    "widened",
    *layers.__all__,
]


def __getattr__(name: str) -> _Any:
    exported = [value for value in globals().values() if isinstance(value, type)]
    raise AttributeError(_no_such_name(name, exported))
