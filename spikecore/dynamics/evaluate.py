"""A graph on tensors, one torch operation per node: the slow and plain reading of a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spikecore.dynamics.graph import CONST, INPUT, Graph
from spikecore.dynamics.ops import OPS


def evaluate(graph: Graph, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """The outputs of a graph on tensors; what depends on constants alone stays a number."""
    values: list[Any] = []
    for node in graph.nodes:
        if node.op == INPUT:
            values.append(inputs[str(node.value)])
        elif node.op == CONST:
            values.append(bool(node.value) if node.is_bool else node.value)
        else:
            values.append(_apply(node.op, [values[a] for a in node.args], inputs))
    return {name: values[index] for name, index in graph.outputs.items()}


def _apply(name: str, args: list[Any], inputs: Mapping[str, Tensor]) -> Any:
    operation = OPS[name]
    if not any(isinstance(a, Tensor) for a in args):
        return operation.numbers(*args)
    if name == "where" and not any(isinstance(a, Tensor) for a in args[1:]):
        like = next(iter(inputs.values()))  # two numbers: the dtype of the step
        args[1] = torch.full((), args[1], dtype=like.dtype, device=like.device)
    return operation.tensors(*args)
