"""A net → stages on `[T * B, ...]`, in order, and records of what becomes of every operator.

What the chip asks for: at most four axes, shapes that are known when it is compiled, no writing into tensors, and no
loop over time, which is unrolled here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spikecore import nn
from spikecore.interfaces import OperatorRecord
from spikecore.nn import NetGraph, NetNode, Ref, RefusedError, trace_net
from spikecore_deploy_lynxi.cells import cell_of, unrolled
from spikecore_deploy_lynxi.layers import IDENTITIES, Tensors, converted

Shape = tuple[int, ...]
Compute = Callable[[Sequence[Tensor], Tensors], Tensor]
MAX_AXES = 4
"""Of any tensor on the chip, batch included."""

FLATTENS = (".flatten()", "flatten", ".reshape()", "reshape", ".view()")
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
VIEWS = (*FLATTENS, "Flatten", *(kind.__name__ for kind in IDENTITIES))
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
    net = copy.deepcopy(model).eval().requires_grad_(False)
    nn.set_step_mode(net, "multi")
    graph = trace_net(net, example_input)
    num_steps, batch = (int(size) for size in example_input.shape[:2])
    planner = _Planner(graph, (num_steps, batch), example_input.dtype, is_half)
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
    return Plan(
        tuple(planner.records), tuple(planner.stages), name or "", (num_steps, batch), tuple(planner.shapes[""])
    )


@dataclass
class _Planner:
    net: NetGraph
    lead: tuple[int, int]
    dtype: torch.dtype
    is_half: bool
    records: list[OperatorRecord] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)

    # records

    def mapped(self, name: str, operator: str, target: str, inexact: str = "") -> None:
        reasons = [reason for reason in (inexact, HALF_REASON if self.is_half else "") if reason]
        outcome = OperatorRecord(name, operator, "mapped", target)
        if reasons:
            outcome = OperatorRecord(name, operator, "approximated", target, "; ".join(reasons))
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

    def take(self, node: NetNode) -> None:
        result: str | None = None
        before = len(self.records)
        sources = tuple(self.values[name] for name in node.inputs if name in self.values)
        with self.refusing(node.name, node.operation):
            result = self.result_of(node, sources)
        if result is None:
            if len(self.records) == before:
                self.refuse(node.name, node.operation, "a part of it is refused", "see its parts")
            # Only a shape, so that what follows is looked at as well.
            shape = node.shape or ()
            is_folded = shape[:1] == (math.prod(self.lead),) and shape[:2] != self.lead
            result = node.name
            self.shapes[result] = tuple(shape[1:] if is_folded else shape[2:])
        self.values[node.name] = result

    def result_of(self, node: NetNode, sources: tuple[str, ...]) -> str | None:
        unknown = [name for name in node.inputs if name not in self.values and self.net[name].value is None]
        if self.dtype != torch.float32:
            raise RefusedError(f"the example input is {self.dtype}", "give float32")
        if node.operation.strip(".()") in DYNAMIC:
            raise RefusedError(
                "the size of its result depends on values; the chip needs shapes that are known before",
                "use a mask of fixed size: multiply with 0 and 1",
            )
        if unknown:
            raise RefusedError(f"it takes {', '.join(unknown)}, which is no value of a layer", "use layers instead")
        if node.is_inplace:
            self.check_overwriting(node)
        if node.operation in BINARY:
            return self.binary(node)
        if len(sources) != 1:
            raise RefusedError(f"it takes {len(sources)} values", "use layers and sums")
        if node.kind == "module":
            assert node.module is not None
            return self.module(node.name, node.module, sources[0], node)
        if node.operation in FLATTENS:
            return self.flattened(node, sources[0])
        if node.operation in UNARY:
            function = UNARY[node.operation]
            result = self.add(node.name, sources, self.shapes[sources[0]], lambda taken, own: function(taken[0]))
            self.mapped(node.name, node.operation, node.operation.strip("._()"))
            return result
        raise RefusedError(
            f"there is no form of {node.operation} for the chip", "use a layer of torch or of spikecore, or a neuron"
        )

    def check_overwriting(self, node: NetNode) -> None:
        """What is written into must not be read again: a result of its own takes its place."""
        name = node.inputs[0]
        while True:
            readers = [user.name for user in self.net.users(name) if user.name != node.name]
            before = self.net[name]
            readers = [reader for reader in readers if not self.is_above(reader, node)]
            if readers:
                raise RefusedError(
                    f"it writes into the value {name!r}, which {', '.join(readers)} reads as well; the chip loses "
                    "such writes",
                    "write the result to a new tensor: inplace=False, or x = x + y",
                )
            if before.operation not in VIEWS or not before.inputs:
                return
            name = before.inputs[0]  # a view shares the memory of what it was taken from

    def is_above(self, name: str, node: NetNode) -> bool:
        """Whether `name` is a view on the way to what `node` writes into."""
        above = self.net[node.inputs[0]]
        while True:
            if above.name == name:
                return True
            if above.operation not in VIEWS or not above.inputs:
                return False
            above = self.net[above.inputs[0]]

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
        count, rows = math.prod(self.shapes[source]), math.prod(self.lead)
        result = self.add(name, (source,), (count,), lambda taken, own: taken[0].reshape(rows, count))
        self.records.append(OperatorRecord(name, operator, "mapped", "reshape"))
        return result

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

    def layer(self, name: str, module: torch.nn.Module, source: str) -> str:
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
