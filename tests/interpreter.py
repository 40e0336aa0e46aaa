"""Runs graphs with numpy: an independent reading of what the operations mean, used by tests as a backend too."""

import math

import numpy as np

from spikecore.dynamics.graph import CONST, INPUT

ERF = np.vectorize(math.erf, otypes=[float])
FUNCTIONS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not,
    "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "tanh": np.tanh, "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "abs": np.abs, "sign": lambda a: np.where(np.isnan(a), a.dtype.type(0), np.sign(a)), "floor": np.floor,
    "round": np.round, "sin": np.sin, "cos": np.cos, "atan": np.arctan, "erf": lambda a: ERF(a).astype(a.dtype),
    "min": np.minimum, "max": np.maximum, "clamp": lambda a, low, high: np.minimum(np.maximum(a, low), high),
    "where": np.where, "spike": lambda value, u, derivative: value, "detach": lambda a: a,
}  # fmt: skip


def run_graph(graph, inputs, dtype=np.float64):
    """Values of the outputs, for numpy inputs by name."""
    values = []
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if node.op == INPUT:
                values.append(np.asarray(inputs[node.value], dtype))
            elif node.op == CONST:
                values.append(np.asarray(bool(node.value)) if node.is_bool else dtype(node.value))
            else:
                values.append(np.asarray(FUNCTIONS[node.op](*(values[a] for a in node.args))))
    return {name: values[index] for name, index in graph.outputs.items()}
