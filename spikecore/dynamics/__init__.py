"""The neuron language: equations written once, traced to a graph, differentiated, printed by backends.

    from spikecore.dynamics import detach, exp, spike, where

Operators work alike on tensors, on symbols (while a step is traced) and on numbers.
"""

from spikecore.dynamics.evaluate import evaluate
from spikecore.dynamics.explain import equations, explain
from spikecore.dynamics.graph import CONST, DETACH, INPUT, SPIKE, Graph, Node, Param, Program
from spikecore.dynamics.namespace import Namespace
from spikecore.dynamics.ops import (
    OPS,
    Op,
    abs,
    atan,
    clamp,
    cos,
    detach,
    erf,
    exp,
    floor,
    log,
    logical_and,
    logical_not,
    logical_or,
    max,
    min,
    round,
    sigmoid,
    sign,
    sin,
    spike,
    sqrt,
    tanh,
    where,
)
from spikecore.dynamics.printing import C_OPERATIONS, Printer, inputs_of, needed
from spikecore.dynamics.trace import trace
from spikecore.dynamics.vjp import reached, with_gaps

__all__ = [
    "CONST",
    "C_OPERATIONS",
    "DETACH",
    "INPUT",
    "OPS",
    "SPIKE",
    "Graph",
    "Namespace",
    "Node",
    "Op",
    "Param",
    "Printer",
    "Program",
    "abs",
    "atan",
    "clamp",
    "cos",
    "detach",
    "equations",
    "erf",
    "evaluate",
    "exp",
    "explain",
    "floor",
    "inputs_of",
    "log",
    "logical_and",
    "logical_not",
    "logical_or",
    "max",
    "min",
    "needed",
    "reached",
    "round",
    "sigmoid",
    "sign",
    "sin",
    "spike",
    "sqrt",
    "tanh",
    "trace",
    "where",
    "with_gaps",
]
