"""The neuron language → ONNX: one node for each operation of a traced step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from spikecore.dynamics import CONST, INPUT, Graph
from spikecore_deploy_onnx.body import Body

SIMPLE: Mapping[str, str] = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "neg": "Neg",
    "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "eq": "Equal",
    "and": "And", "or": "Or", "not": "Not", "where": "Where",
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "sigmoid": "Sigmoid", "abs": "Abs", "sign": "Sign",
    "floor": "Floor", "round": "Round", "sin": "Sin", "cos": "Cos", "atan": "Atan", "erf": "Erf",
    "min": "Min", "max": "Max",
}  # fmt: skip
"""Operations that are one node with the same arguments."""


def _not_equal(body: Body, a: str, b: str) -> str:
    return body.op("Not", [body.op("Equal", [a, b])])


def _clamp(body: Body, a: str, low: str, high: str) -> str:
    # Min and Max of ONNX give NaN for NaN, as the language does; Clip leaves it open.
    return body.op("Min", [body.op("Max", [a, low]), high])


SPECIAL: Mapping[str, Callable[..., str]] = {
    "ne": _not_equal,
    "clamp": _clamp,
    "spike": lambda body, value, u, derivative: value,
    "detach": lambda body, a: a,
}


def unknown_operations(graph: Graph) -> list[str]:
    """Operations of a step that have no node."""
    return sorted({node.op for node in graph.nodes} - {INPUT, CONST, *SIMPLE, *SPECIAL})


def emit_graph(body: Body, graph: Graph, inputs: Mapping[str, str]) -> dict[str, str]:
    """Add the nodes that the outputs need.

    Args:
        body: where to.
        graph: of a step, with all operations known.
        inputs: name in the graph (`x`, `state.v`, `param.tau`) → name in the body.

    Returns:
        Output of the graph → name in the body.
    """
    needed = _needed(graph)
    names: dict[int, str] = {}
    for index, node in enumerate(graph.nodes):
        if index not in needed:
            continue
        if node.op == INPUT:
            names[index] = inputs[str(node.value)]
        elif node.op == CONST:
            assert isinstance(node.value, float)
            value = np.array(bool(node.value)) if node.is_bool else None
            names[index] = body.number(node.value) if value is None else body.constant(value)
        elif node.op in SPECIAL:
            names[index] = SPECIAL[node.op](body, *(names.get(argument, "") for argument in node.args))
        else:
            names[index] = body.op(SIMPLE[node.op], [names[argument] for argument in node.args])
    return {name: names[index] for name, index in graph.outputs.items()}


def _needed(graph: Graph) -> set[int]:
    """Indices of the nodes that outputs depend on. A spike is its value: what gives its derivative is left out."""
    needed: set[int] = set()
    waiting = list(graph.outputs.values())
    while waiting:
        index = waiting.pop()
        if index in needed:
            continue
        needed.add(index)
        node = graph.nodes[index]
        waiting += node.args[:1] if node.op in ("spike", "detach") else node.args
    return needed
