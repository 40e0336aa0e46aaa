"""A net → stages on `[T * B, ...]`, in order, and records of what becomes of every operator.

What the chip asks for: at most four axes, shapes that are known when it is compiled, no writing into tensors, and no
loop over time, which is unrolled here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spikecore import nn
from spikecore.interfaces import OperatorRecord
from spikecore.nn import NetGraph, NetNode, NetWalker, Ref, RefusedError, graph_for_deployment
from spikecore_deploy_lynxi.cells import cell_of, unrolled
from spikecore_deploy_lynxi.layers import Tensors, converted

Shape = tuple[int, ...]
Compute = Callable[[Sequence[Tensor], Tensors], Tensor]
MAX_AXES = 4
"""Of any tensor on the chip, batch included."""

BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    **dict.fromkeys(("add", "iadd", ".add()", ".add_()"), torch.add),
    **dict.fromkeys(("sub", "isub", ".sub()", ".sub_()"), torch.sub),
    **dict.fromkeys(("mul", "imul", ".mul()", ".mul_()"), torch.mul),
}
UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys(("relu", ".relu()", "relu_", ".relu_()"), torch.relu),
    **dict.fromkeys(("sigmoid", ".sigmoid()"), torch.sigmoid),
    **dict.fromkeys(("tanh", ".tanh()"), torch.tanh),
}
DYNAMIC = ("nonzero", "unique", "masked_select", "argwhere", "repeat_interleave", "bincount")
"""Functions whose result has a size that depends on values."""
HALF_REASON = "float16: its weights and results are rounded to 11 significant bits"


@dataclass(frozen=True, eq=False)
class Stage:
    """One layer or function.

    Args:
        name: of the result.
        sources: names of the results that it takes; "" is the input of the net.
        shape: of its result, without T and B.
        compute: of these results, each `[T * B, ...]`, and `tensors`.
        tensors: weights and constants.
        neuron: its name in a trace; "" where it is no neuron.
    """

    name: str
    sources: tuple[str, ...]
    shape: Shape
    compute: Compute
    tensors: Tensors = field(default_factory=dict)
    neuron: str = ""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is written.

    Args:
        records: of every operator.
        stages: in order.
        output: name of the result that the net returns.
        lead: T and B.
        input_shape: without T and B.
    """

    records: tuple[OperatorRecord, ...]
    stages: tuple[Stage, ...]
    output: str
    lead: tuple[int, int]
    input_shape: Shape


def planned(model: torch.nn.Module, example_input: Tensor, is_half: bool) -> Plan:
    """Go through the net.

    Args:
        model: left as it is.
        example_input: `[T, B, ...]`.
        is_half: the chip computes in float16.

    Raises:
        NetTraceError: the net cannot be traced.
    """
    graph = graph_for_deployment(model, example_input)
    num_steps, batch = (int(size) for size in example_input.shape[:2])
    planner = _Planner(graph, (num_steps, batch), example_input.dtype, is_half)
    input_shape = tuple(example_input.shape[2:])
    planner.shapes[""] = input_shape
    output = planner.walk("")
    return Plan(tuple(planner.records), tuple(planner.stages), output or "", (num_steps, batch), input_shape)


class _Planner(NetWalker[str]):
    """Values are names of results."""

    def __init__(self, net: NetGraph, lead: tuple[int, int], dtype: torch.dtype, is_half: bool) -> None:
        super().__init__(net, lead)
        self.dtype, self.is_half = dtype, is_half
        self.stages: list[Stage] = []
        self.shapes: dict[str, Shape] = {}

    def shape(self, value: str) -> Shape:
        return self.shapes[value]

    def unknown(self, name: str, shape: Shape, value: str | None) -> str:
        self.shapes[name] = shape
        return name

    def mapped(self, name: str, operator: str, target: str, inexact: str = "") -> None:
        reasons = [reason for reason in (inexact, HALF_REASON if self.is_half else "") if reason]
        super().mapped(name, operator, target, "; ".join(reasons))

    def add(
        self,
        name: str,
        sources: tuple[str, ...],
        shape: Shape,
        compute: Compute,
        tensors: Tensors | None = None,
        neuron: str = "",
    ) -> str:
        for size in (*(self.shapes[source] for source in sources), shape):
            _check_axes(size)
        if self.is_half:
            for key, tensor in (tensors or {}).items():
                _check_half(f"its {key}", float(tensor.abs().max()) if tensor.numel() else 0.0)
        self.stages.append(Stage(name, sources, shape, compute, tensors or {}, neuron))
        self.shapes[name] = shape
        return name

    # one call of the net

    def function(self, node: NetNode, values: Sequence[str]) -> str:
        self.check_dtype()
        if node.operation.strip(".()") in DYNAMIC:
            raise RefusedError(
                "the size of its result depends on values; the chip needs shapes that are known before",
                "use a mask of fixed size: multiply with 0 and 1",
            )
        if node.operation in BINARY:
            return self.binary(node)
        if node.operation in UNARY and len(values) == 1:
            function = UNARY[node.operation]
            result = self.add(node.name, (values[0],), self.shapes[values[0]], lambda taken, own: function(taken[0]))
            self.mapped(node.name, node.operation, node.operation.strip("._()"))
            return result
        return super().function(node, values)

    def check_dtype(self) -> None:
        if self.dtype != torch.float32:
            raise RefusedError(f"the example input is {self.dtype}", "give float32")

    def binary(self, node: NetNode) -> str:
        parts = [part for part in node.args if isinstance(part, Ref)]
        if len(parts) != 2 or len(node.args) != 2 or node.kwargs:
            raise RefusedError("one of its arguments is a number, or it scales what it adds", "use two tensors")
        sources = tuple(self.values[part.name] for part in parts)
        if len({self.shapes[source] for source in sources}) > 1:
            raise RefusedError("the two have different shapes", "give both the same shape")
        function = BINARY[node.operation]
        result = self.add(node.name, sources, self.shapes[sources[0]], lambda taken, own: function(taken[0], taken[1]))
        self.mapped(node.name, node.operation, function.__name__)
        return result

    def flat(self, name: str, operator: str, value: str) -> str:
        count, rows = math.prod(self.shapes[value]), math.prod(self.lead)
        result = self.add(name, (value,), (count,), lambda taken, own: taken[0].reshape(rows, count))
        super().mapped(name, operator, "reshape")  # exact in float16 as well
        return result

    def layer(self, name: str, module: torch.nn.Module, value: str, node: NetNode | None) -> str:
        self.check_dtype()
        if isinstance(module, nn.Stateful):
            return self.stateful(name, module, value)
        return self.stateless(name, module, value)

    def stateful(self, name: str, module: torch.nn.Module, source: str) -> str:
        num_steps, batch = self.lead
        _check_axes(self.shapes[source])
        cell = cell_of(module, self.shapes[source], batch)
        function = unrolled(cell, num_steps, batch)
        one = unrolled(cell, 1, batch)
        _tried(lambda: one(torch.zeros(batch, *self.shapes[source]), cell.tensors))
        if self.is_half:
            _check_half("its equations", cell.largest_number)
        neuron = f"{name}.{cell.neuron}" if cell.neuron else name
        result = self.add(name, (source,), cell.shape, lambda taken, own: function(taken[0], own), cell.tensors, neuron)
        operator = type(module.module).__name__ if cell.neuron else type(module).__name__
        self.mapped(neuron, operator, f"{num_steps} steps")
        if cell.neuron:
            for part in ("lateral", "linear"):
                if hasattr(module, part):
                    self.mapped(f"{name}.{part}", type(getattr(module, part)).__name__, f"{num_steps} steps")
        return result

    def stateless(self, name: str, module: torch.nn.Module, source: str) -> str:
        _check_axes(self.shapes[source])
        layer = converted(module)
        shape = self.shapes[source]
        # A trial run tells the shape, and refuses what cannot be computed.
        out = _tried(lambda: layer.function(torch.zeros(1, *shape), layer.tensors))
        result = self.add(
            name,
            (source,),
            tuple(out.shape[1:]),
            lambda taken, own: layer.function(taken[0], own),
            layer.tensors,
        )
        self.mapped(name, type(module).__name__, layer.target, layer.inexact)
        return result


def _tried(function: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad():
        try:
            return function()
        except (RuntimeError, ValueError, IndexError) as error:
            text = str(error).strip().splitlines()[0]
            raise RefusedError(f"it does not run on [T * B, ...]: {text}", "give it the shape that it takes") from error


def _check_half(what: str, largest: float) -> None:
    limit = torch.finfo(torch.float16).max
    if largest > limit:
        raise RefusedError(
            f"{what} holds the number {largest:g}; float16 ends at {limit:g}", "use dtype=float32, or scale the net"
        )


def _check_axes(shape: Shape) -> None:
    axes = len(shape) + 1
    if axes > MAX_AXES:
        raise RefusedError(
            f"a tensor of {axes} axes, [T * B, {', '.join(map(str, shape))}]; the chip takes {MAX_AXES} at most",
            "merge axes of a step before it: flatten, or 2-D layers instead of 3-D ones",
        )
