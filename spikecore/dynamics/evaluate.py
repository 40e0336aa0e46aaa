"""Evaluates a graph on tensors, one torch operation per node: the slow and simple way to run a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from spikecore.dynamics.graph import CONST, INPUT, Graph
from spikecore.dynamics.ops import OPS

Value: TypeAlias = "Tensor | float"


def evaluate(graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Value]:
    """The outputs of a graph on tensors; an output that depends on constants alone is a Python number."""
    values: list[Value] = []
    for node in graph.nodes:
        if node.op == INPUT:
            values.append(inputs[str(node.value)])
        elif node.op == CONST:
            assert isinstance(node.value, float)
            values.append(bool(node.value) if node.is_bool else node.value)
        else:
            values.append(_apply(node.op, [values[a] for a in node.args], inputs))
    return {name: values[index] for name, index in graph.outputs.items()}


def _apply(name: str, args: list[Value], inputs: Mapping[str, Tensor]) -> Value:
    operation = OPS[name]
    if not any(isinstance(a, Tensor) for a in args):
        number: float = operation.numbers(*args)
        return number
    if name == "where" and not isinstance(args[1], Tensor) and not isinstance(args[2], Tensor):
        # torch.where of two numbers would give the default dtype: the result gets that of the step.
        like = next(iter(inputs.values()))
        args[1] = torch.full((), args[1], dtype=like.dtype, device=like.device)
    result: Tensor = operation.tensors(*args)
    return result
