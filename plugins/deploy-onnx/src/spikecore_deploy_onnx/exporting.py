"""A net → a list of stages, each a layer with or without state, and records of what becomes of every operator.

The stages are written in three forms by `forms.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikecore import nn
from spikecore.interfaces import OperatorRecord
from spikecore.nn import NetGraph, NetNode, NetWalker, Ref, RefusedError, graph_for_deployment
from spikecore_deploy_onnx.body import Body, Names
from spikecore_deploy_onnx.cells import Cell, cell_of
from spikecore_deploy_onnx.layers import emit_layer, has_weights, quantization_error

Shape = tuple[int, ...]
Emit = Callable[[Body, Sequence[str]], str]

BINARY = {"add": "Add", "iadd": "Add", ".add()": "Add", "sub": "Sub", "mul": "Mul", ".mul()": "Mul"}
UNARY = {"relu": "Relu", ".relu()": "Relu", "sigmoid": "Sigmoid", ".sigmoid()": "Sigmoid", "tanh": "Tanh"}


@dataclass(frozen=True)
class Stage:
    """One layer or function.

    Args:
        name: of the result.
        sources: names of the results that it takes; "" is the input of the net.
        shape: of its result, without T and B.
        emit: adds a stateless one to a body, for `[N, ...]`; None for one with state.
        cell: of one with state.
        neuron: its name in a trace; "" where it is no neuron.
    """

    name: str
    sources: tuple[str, ...]
    shape: Shape
    emit: Emit | None = None
    cell: Cell | None = None
    neuron: str = ""


@dataclass(frozen=True)
class Plan:
    """What is written: stages in order, the result that the net returns, and the records."""

    records: tuple[OperatorRecord, ...]
    stages: tuple[Stage, ...]
    output: str
    input_shape: Shape
    dtype: str
    notes: tuple[str, ...]


def planned(model: torch.nn.Module, example_input: Tensor, int8: bool) -> Plan:
    """Go through the net.

    Args:
        model: left as it is.
        example_input: `[T, B, ...]`.
        int8: store weights as 8-bit integers.

    Raises:
        NetTraceError: the net cannot be traced.
    """
    graph = graph_for_deployment(model, example_input)
    lead = (int(example_input.shape[0]), int(example_input.shape[1]))
    dtype = str(example_input.dtype).removeprefix("torch.")
    planner = _Planner(graph, lead, dtype, int8)
    input_shape = tuple(example_input.shape[2:])
    planner.shapes[""] = input_shape
    output = planner.walk("")
    if int8:
        planner.notes.insert(0, "Weights are int8 with one scale per output; sums are computed in floating point.")
    return Plan(tuple(planner.records), tuple(planner.stages), output or "", input_shape, dtype, tuple(planner.notes))


class _Planner(NetWalker[str]):
    """Values are names of results."""

    def __init__(self, net: NetGraph, lead: tuple[int, int], dtype: str, int8: bool) -> None:
        super().__init__(net, lead)
        self.dtype, self.int8 = dtype, int8
        self.stages: list[Stage] = []
        self.shapes: dict[str, Shape] = {}
        self.notes: list[str] = []

    def shape(self, value: str) -> Shape:
        return self.shapes[value]

    def unknown(self, name: str, shape: Shape, value: str | None) -> str:
        self.shapes[name] = shape
        return name

    def add(self, name: str, sources: tuple[str, ...], shape: Shape, **rest: object) -> str:
        self.stages.append(Stage(name, sources, shape, **rest))  # type: ignore[arg-type]
        self.shapes[name] = shape
        return name

    def check_dtype(self) -> None:
        if self.dtype not in ("float32", "float64"):
            raise RefusedError(f"the example input is {self.dtype}", "use float32 or float64")

    # one call of the net

    def function(self, node: NetNode, values: Sequence[str]) -> str:
        self.check_dtype()
        if node.operation in BINARY:
            return self.binary(node)
        if node.operation not in UNARY or node.is_inplace or len(values) != 1:
            return super().function(node, values)
        kind = UNARY[node.operation]
        self.mapped(node.name, node.operation, kind)
        return self.add(
            node.name, (values[0],), self.shapes[values[0]], emit=lambda body, taken: body.op(kind, [taken[0]])
        )

    def binary(self, node: NetNode) -> str:
        parts = [part for part in node.args if isinstance(part, Ref)]
        if len(parts) != 2 or len(node.args) != 2 or node.kwargs:
            raise RefusedError("one of its arguments is a number, or it scales what it adds", "use two tensors")
        sources = tuple(self.values[part.name] for part in parts)
        if len({self.shapes[source] for source in sources}) > 1:
            raise RefusedError("the two have different shapes", "give both the same shape")
        kind = BINARY[node.operation]
        self.mapped(node.name, node.operation, kind)
        return self.add(
            node.name, sources, self.shapes[sources[0]], emit=lambda body, taken: body.op(kind, list(taken))
        )

    def flat(self, name: str, operator: str, value: str) -> str:
        count = math.prod(self.shapes[value])
        self.mapped(name, operator, "Reshape")
        return self.add(
            name, (value,), (count,), emit=lambda body, taken: body.op("Reshape", [taken[0], body.integers(-1, count)])
        )

    def layer(self, name: str, module: torch.nn.Module, value: str, node: NetNode | None) -> str:
        self.check_dtype()
        if isinstance(module, nn.Stateful):
            return self.stateful(name, module, value)
        return self.stateless(name, module, value)

    def stateful(self, name: str, module: torch.nn.Module, source: str) -> str:
        cell = cell_of(module, self.shapes[source], self.dtype)
        neuron = f"{name}.{cell.neuron}" if cell.neuron else name
        self.mapped(neuron, type(module).__name__ if not cell.neuron else type(module.module).__name__, "step")
        if cell.neuron:
            self.mapped(
                f"{name}.feedback" if not hasattr(module, "lateral") else f"{name}.lateral", "feedback", "state"
            )
        return self.add(name, (source,), cell.shape, cell=cell, neuron=neuron)

    def stateless(self, name: str, module: torch.nn.Module, source: str) -> str:
        shape, int8 = self.shapes[source], self.int8

        def emit(body: Body, taken: Sequence[str]) -> str:
            return emit_layer(body, module, taken[0], shape, int8)[0]

        # A trial run, which refuses what cannot be written and tells the shape.
        trial = Body(Names(), self.dtype)
        _, result = emit_layer(trial, module, "x", shape, int8)
        inexact = ""
        if int8 and has_weights(module):
            inexact = "its weights are rounded to int8 with one scale per output"
            error = quantization_error(module)
            self.notes.append(f"Layer {name}: largest error of a weight {error:g}.")
        self.mapped(name, type(module).__name__, trial.nodes[-1].op_type, inexact)
        return self.add(name, (source,), result, emit=emit)
