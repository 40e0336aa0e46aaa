"""A net → a list of stages, each a layer with or without state, and records of what becomes of every operator.

The stages are written in three forms by `forms.py`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spikecore import nn
from spikecore.interfaces import OperatorRecord
from spikecore.nn import NetGraph, NetNode, Ref, trace_net
from spikecore_deploy_onnx.body import Body, Names
from spikecore_deploy_onnx.cells import Cell, cell_of
from spikecore_deploy_onnx.layers import IDENTITIES, emit_layer, has_weights, quantization_error
from spikecore_deploy_onnx.refusal import RefusedError

Shape = tuple[int, ...]
Emit = Callable[[Body, Sequence[str]], str]

FLATTENS = (".flatten()", "flatten", ".reshape()", "reshape", ".view()")
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
    net = copy.deepcopy(model).eval().requires_grad_(False)
    nn.set_step_mode(net, "multi")
    graph = trace_net(net, example_input)
    planner = _Planner(graph, tuple(example_input.shape[:2]), str(example_input.dtype).removeprefix("torch."), int8)
    planner.shapes[""] = tuple(example_input.shape[2:])
    planner.values[graph.inputs[0].name] = ""
    for node in graph.layers:
        if node.value is None:
            planner.take(node)
    output = graph.output
    name = planner.values.get(output.name) if isinstance(output, Ref) else None
    if name is None and planner.records:
        last = planner.records.pop()
        planner.refuse(last.name, last.operator, "the net returns something else than one value", "return one tensor")
    if int8:
        planner.notes.insert(0, "Weights are int8 with one scale per output; sums are computed in floating point.")
    return Plan(
        tuple(planner.records),
        tuple(planner.stages),
        name or "",
        planner.shapes[""],
        planner.dtype,
        tuple(planner.notes),
    )


@dataclass
class _Planner:
    net: NetGraph
    lead: tuple[int, ...]
    dtype: str
    int8: bool
    records: list[OperatorRecord] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    # records

    def mapped(self, name: str, operator: str, target: str, inexact: str = "") -> None:
        outcome: OperatorRecord
        if inexact:
            outcome = OperatorRecord(name, operator, "approximated", target, inexact)
        else:
            outcome = OperatorRecord(name, operator, "mapped", target)
        self.records.append(outcome)

    def folded(self, name: str, operator: str, reason: str) -> None:
        self.records.append(OperatorRecord(name, operator, "folded", "nothing", reason))

    def refuse(self, name: str, operator: str, reason: str, cure: str) -> None:
        self.records.append(OperatorRecord(name, operator, "refused", "", reason, cure))

    @contextmanager
    def refusing(self, name: str, operator: str) -> Iterator[None]:
        try:
            yield
        except RefusedError as refused:
            self.refuse(name, operator, refused.reason, refused.cure)

    # stages

    def add(self, name: str, sources: tuple[str, ...], shape: Shape, **rest: object) -> str:
        self.stages.append(Stage(name, sources, shape, **rest))  # type: ignore[arg-type]
        self.shapes[name] = shape
        return name

    def take(self, node: NetNode) -> None:
        """One call of the net."""
        unknown = [name for name in node.inputs if name not in self.values and self.net[name].value is None]
        sources = tuple(self.values[name] for name in node.inputs if name in self.values)
        result: str | None = None
        before = len(self.records)
        with self.refusing(node.name, node.operation):
            if self.dtype not in ("float32", "float64"):
                raise RefusedError(f"the example input is {self.dtype}", "use float32 or float64")
            if unknown:
                raise RefusedError(f"it takes {', '.join(unknown)}, which is no value of a layer", "use layers instead")
            if node.operation in BINARY:
                result = self.binary(node)
            elif len(sources) != 1:
                raise RefusedError(f"it takes {len(sources)} values", "use layers and sums")
            elif node.kind == "module":
                assert node.module is not None
                result = self.module(node.name, node.module, sources[0], node)
            elif node.operation in FLATTENS:
                result = self.flattened(node, sources[0])
            elif node.operation in UNARY and not node.is_inplace:
                kind = UNARY[node.operation]
                result = self.add(
                    node.name, sources, self.shapes[sources[0]], emit=lambda body, taken: body.op(kind, [taken[0]])
                )
                self.mapped(node.name, node.operation, kind)
            else:
                raise RefusedError(
                    f"there is no node for {node.operation} here", "use a layer of torch or of spikecore"
                )
        if result is None:
            if len(self.records) == before:
                self.refuse(node.name, node.operation, "a part of it is refused", "see its parts")
            shape = node.shape or ()
            is_folded = shape[:1] == (math.prod(self.lead),) and shape[:2] != self.lead
            result = self.add(node.name, sources[:1] or ("",), tuple(shape[1:] if is_folded else shape[2:]))
        self.values[node.name] = result

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

    def flattened(self, node: NetNode, source: str) -> str:
        count = math.prod(self.shapes[source])
        shape = node.shape or ()
        if tuple(shape[-1:]) != (count,) or math.prod(shape) != count * math.prod(self.lead) or len(shape) > 3:
            raise RefusedError(
                f"it gives {tuple(shape)}; only flattening a whole step is supported", "flatten whole steps"
            )
        return self.flat(node.name, node.operation, source)

    def flat(self, name: str, operator: str, source: str) -> str:
        if len(self.shapes[source]) == 1:
            self.folded(name, operator, "a step has one axis already")
            return source
        count = math.prod(self.shapes[source])
        self.mapped(name, operator, "Reshape")
        return self.add(
            name, (source,), (count,), emit=lambda body, taken: body.op("Reshape", [taken[0], body.integers(-1, count)])
        )

    def module(self, name: str, module: torch.nn.Module, source: str, node: NetNode | None = None) -> str | None:
        """A layer, a neuron, or something with parts; None where a part was refused."""
        kind = type(module)
        if kind is nn.FoldTime:
            path = f"{name}.module" if type(module.module) is torch.nn.Sequential else name
            return self.module(path, module.module, source, node)  # type: ignore[arg-type]
        if kind is torch.nn.Sequential:
            return self.chain([(f"{name}.{key}", part) for key, part in module.named_children()], source)
        if isinstance(module, nn.ConvBNNeuron | nn.LinearBNNeuron):
            parts = [(f"{name}.{module.layer_name}", module.layer), (f"{name}.norm", module.norm)]
            return self.chain([*parts, (name, module.neuron)], source)
        if kind in IDENTITIES:
            self.folded(name, kind.__name__, "it does nothing in evaluation mode")
            return source
        if kind in (torch.nn.Flatten, nn.Flatten):
            if node is not None and node.module is module:
                return self.flattened(node, source)
            axes = len(self.shapes[source])
            if (module.start_dim % (axes + 1), module.end_dim % (axes + 1)) != (1, axes):  # type: ignore[operator]
                raise RefusedError("only flattening a whole step is supported", "use Flatten(1, -1)")
            return self.flat(name, kind.__name__, source)
        if isinstance(module, nn.Stateful):
            return self.stateful(name, module, source)
        return self.layer(name, module, source)

    def chain(self, parts: Sequence[tuple[str, torch.nn.Module]], source: str) -> str | None:
        result: str | None = source
        for path, part in parts:
            if result is None:
                self.refuse(path, type(part).__name__, "what comes before it is refused", "see there")
                continue
            given, result = result, None
            with self.refusing(path, type(part).__name__):
                result = self.module(path, part, given)
        return result

    def stateful(self, name: str, module: torch.nn.Module, source: str) -> str:
        cell = cell_of(module, self.shapes[source], self.dtype)
        neuron = f"{name}.{cell.neuron}" if cell.neuron else name
        self.mapped(neuron, type(module).__name__ if not cell.neuron else type(module.module).__name__, "step")
        if cell.neuron:
            self.mapped(
                f"{name}.feedback" if not hasattr(module, "lateral") else f"{name}.lateral", "feedback", "state"
            )
        return self.add(name, (source,), cell.shape, cell=cell, neuron=neuron)

    def layer(self, name: str, module: torch.nn.Module, source: str) -> str:
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
