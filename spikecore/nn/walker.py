"""`NetWalker`: goes through the graph of a net and keeps account of every operator. What deployers share.

A deployer's planner subclasses it, says what a layer and a function become, and refuses the rest:

    class Planner(NetWalker[str]):
        def layer(self, name, module, value, node):
            if type(module) is not torch.nn.Linear:
                raise RefusedError(f"the target has no {type(module).__name__}", "use Linear")
            ...
            self.mapped(name, "Linear", "Gemm")
            return name

Containers, blocks, layers that fold time, flattening and layers that do nothing in evaluation mode are taken care of.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from torch import Tensor, nn

from spikecore.errors import NetTraceError, ShapeError
from spikecore.interfaces.deployer import OperatorRecord
from spikecore.nn import layers
from spikecore.nn.block import ConvBNNeuron, LinearBNNeuron
from spikecore.nn.graph import NetGraph
from spikecore.nn.model import parts_of
from spikecore.nn.node import NetNode, Ref, refs
from spikecore.nn.state import Stateful, set_step_mode
from spikecore.nn.tracing import trace_net
from spikecore.torch_internals import has_hooks

Shape = tuple[int, ...]
V = TypeVar("V")
"""What a planner knows of a value of the net: a node's name, a shape, pending weights."""

FLATTENS = (".flatten()", "flatten", ".reshape()", "reshape", ".view()")
IDENTITIES = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
    *(layers.Dropout, layers.Dropout1d, layers.Dropout2d, layers.Dropout3d),
)
"""Layers that do nothing in evaluation mode."""
_VIEWS = (*FLATTENS, "Flatten", *(kind.__name__ for kind in IDENTITIES))
"""What may give the memory of its input, under another shape."""
_CHANNELS_SECOND = tuple(f"torch.nn.modules.{name}" for name in ("batchnorm", "conv", "pooling"))
"""Where PyTorch has its layers that take the second axis as channels."""


class RefusedError(Exception):
    """The target has nothing for an operator; a planner raises it, and `NetWalker` records it.

    Args:
        reason: why.
        cure: what the user can do.
    """

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(f"{reason}; {cure}")
        self.reason, self.cure = reason, cure


def graph_for_deployment(model: nn.Module, example_input: Tensor) -> NetGraph:
    """The graph of a copy of the net, in evaluation and multi-step mode, without gradients.

    Args:
        model: left as it is.
        example_input: `[T, B, ...]`, T and B at least 1.

    Raises:
        ShapeError: the example input is not such a tensor.
        NetTraceError: the net cannot be traced, or has forward hooks.
    """
    if not isinstance(example_input, Tensor):
        raise ShapeError(f"expected an example input [T, B, ...] as a tensor, got {type(example_input).__name__}")
    if example_input.dim() < 2 or not all(example_input.shape):
        raise ShapeError(
            f"expected an example input [T, B, ...] with a step and a sample at least, got {tuple(example_input.shape)}"
        )
    hooked = [name or type(part).__name__ for name, part in model.named_modules() if has_hooks(part)]
    if hooked:
        # A hook may replace what a module takes or gives, and a graph shows no hooks.
        raise NetTraceError(
            f"forward hooks on {', '.join(hooked)}: they may change results, and a target cannot run them; "
            "remove them before deployment (handle.remove(), close a Monitor, or make weight norm or pruning permanent)"
        )
    net = copy.deepcopy(model).eval().requires_grad_(False)
    set_step_mode(net, "multi")
    return trace_net(net, example_input)


class NetWalker(ABC, Generic[V]):
    """Goes through a net, from its first call to its last.

    Args:
        net: in multi-step mode, traced with an example input.
        lead: T and B of the example input.

    `records` holds what became of every operator, in the net's order.
    """

    def __init__(self, net: NetGraph, lead: tuple[int, int]) -> None:
        self.net, self.lead = net, lead
        self.records: list[OperatorRecord] = []
        self.values: dict[str, V] = {}

    # what a planner says

    @abstractmethod
    def shape(self, value: V) -> Shape:
        """Of one step of a value, without T and B."""

    @abstractmethod
    def layer(self, name: str, module: nn.Module, value: V, node: NetNode | None) -> V | None:
        """What a layer or neuron makes of `value`; adds its records. None where a part of it was refused.

        Args:
            name: of the operator.
            module: is mapped by its own type: a subclass may compute something else.
            value: what it takes.
            node: the call, where the module is called by itself; None within a container that is one call.

        Raises:
            RefusedError: the target has nothing for it.
        """

    @abstractmethod
    def flat(self, name: str, operator: str, value: V) -> V:
        """`value`, whose steps have several axes, with one axis."""

    @abstractmethod
    def unknown(self, name: str, shape: Shape, value: V | None) -> V:
        """A value to go on with behind a refused operator, so that later operators get their own records."""

    def function(self, node: NetNode, values: Sequence[V]) -> V:
        """What a call becomes that is no layer with one input and flattens nothing.

        Raises:
            RefusedError: the target has nothing for it.
        """
        if len(values) != 1:
            raise RefusedError(f"it takes {len(values)} values", "use layers, one after the other")
        raise RefusedError(f"the target has no {node.operation}", "use a layer in its place")

    # the way

    def walk(self, start: V) -> V | None:
        """Go through all calls.

        Args:
            start: the net's input.

        Returns:
            The net's output; None where it is no single value, which is then refused.
        """
        first, *others = self.net.inputs
        self.values[first.name] = start
        for other in others:
            self.refuse(other.name, "input", "the target takes one input", "give the net one input")
        for node in self.net.layers:
            if node.value is None:  # others are numbers, such as `x.dim()`
                self._take(node)
        output = self.net.output
        value = self.values.get(output.name) if isinstance(output, Ref) else None
        if value is not None and isinstance(output, Ref):
            self._check_output(output.name)
        if value is None:
            last = self.records.pop() if self.records else OperatorRecord("net", "net", "mapped", "net")
            self.refuse(last.name, last.operator, "the net returns something else than one value", "return one tensor")
        return value

    def mapped(self, name: str, operator: str, target: str, inexact: str = "") -> None:
        """Record that the target has it; with `inexact`, that it has something near it, and why not the same."""
        if inexact:
            self.records.append(OperatorRecord(name, operator, "approximated", target, inexact))
        else:
            self.records.append(OperatorRecord(name, operator, "mapped", target))

    def folded(self, name: str, operator: str, target: str, reason: str) -> None:
        """Record that it is part of another operator."""
        self.records.append(OperatorRecord(name, operator, "folded", target, reason))

    def refuse(self, name: str, operator: str, reason: str, cure: str) -> None:
        """Record that the target has nothing for it."""
        self.records.append(OperatorRecord(name, operator, "refused", "", reason, cure))

    @contextmanager
    def refusing(self, name: str, operator: str) -> Iterator[None]:
        """Record a `RefusedError` of the body."""
        try:
            yield
        except RefusedError as refused:
            self.refuse(name, operator, refused.reason, refused.cure)

    def _take(self, node: NetNode) -> None:
        """One call of the net."""
        values = [self.values[name] for name in node.inputs if name in self.values]
        missing = [name for name in node.inputs if name not in self.values and self.net[name].value is None]
        result: V | None = None
        before = len(self.records)
        with self.refusing(node.name, node.operation):
            if missing:
                raise RefusedError(f"it takes {', '.join(missing)}, which is no value of a layer", "use layers instead")
            self._check_overwriting(node)
            self._check_lead(node)
            if node.module is not None and len(values) == 1:
                result = self.module(node.name, node.module, values[0], node)
            elif node.operation in FLATTENS and len(values) == 1:
                result = self.flattened(node, values[0])
            else:
                result = self.function(node, values)
        if result is None:
            if len(self.records) == before:
                self.refuse(node.name, node.operation, "a part of it is refused", "see its parts")
            shape = node.shape or ()
            is_folded = shape[:1] == (math.prod(self.lead),) and shape[:2] != self.lead  # [T * B, ...], not [T, B, ...]
            one_step = shape[1:] if is_folded else shape[2:]
            result = self.unknown(node.name, tuple(one_step), values[0] if values else None)
        self.values[node.name] = result

    def _check_output(self, name: str) -> None:
        shape, records = self.net[name].shape, self.records
        if shape is None or tuple(shape[:2]) == self.lead or any(record.outcome == "refused" for record in records):
            return
        operator = records.pop().operator if records and records[-1].name == name else self.net[name].operation
        reason = f"the net returns {tuple(shape)}, which does not begin with T and B, {self.lead}"
        self.refuse(name, operator, reason, "return [T, B, ...]")

    def _check_lead(self, node: NetNode) -> None:
        """T and B must lie where a layer expects them; a target has them there whatever the net did to them."""
        module, given = node.module, node.inputs[:1]
        if module is None or not given or self.net[given[0]].shape is None:
            return
        shape = tuple(self.net[given[0]].shape or ())
        if isinstance(module, Stateful) and shape[:2] != self.lead:
            raise RefusedError(
                f"it takes {shape}, which does not begin with T and B, {self.lead}", "reshape to [T, B, ...] before it"
            )
        is_unfolded = given[0] in self.values and len(shape) == 2 + len(self.shape(self.values[given[0]]))
        # A `GraphNet` folds time into the batch for every node that does not see time, whatever shape is written down.
        is_folded_there = self.net.folds_time and node.name not in (self.net.over_time or ())
        if type(module).__module__ in _CHANNELS_SECOND and is_unfolded and not is_folded_there:
            kind = type(module).__name__
            raise RefusedError(
                f"PyTorch's {kind} takes [N, C, ...]; given {shape}, it takes the batch for channels",
                f"use {kind} of spikecore.nn, which folds time into the batch, or FoldTime",
            )

    def _check_overwriting(self, node: NetNode) -> None:
        """What is written into must not be read again: on the target, a result of its own takes its place."""
        if not (node.is_inplace or _begins_in_place(node.module)):
            return
        order = {other.name: index for index, other in enumerate(self.net.nodes)}
        name = node.inputs[0]
        while True:
            readers = []
            for user in self.net.users(name):
                if user.name == node.name or self._is_above(user.name, node):
                    continue
                # What read the value before has its result, unless that is a view, which changes with the value.
                if order[user.name] > order[node.name] or user.operation in _VIEWS:
                    readers.append(user.name)
            if name in refs(self.net.output):
                readers.append("the output")
            if readers:
                raise RefusedError(
                    f"it writes into the value {name!r}, which {', '.join(readers)} reads as well; a target has no "
                    "such writes",
                    "write the result to a new tensor: inplace=False, or x = x + y",
                )
            before = self.net[name]
            if before.operation not in _VIEWS or not before.inputs:
                return
            name = before.inputs[0]  # a view shares the memory of what it was taken from

    def _is_above(self, name: str, node: NetNode) -> bool:
        """Whether `name` is a view on the way to what `node` writes into."""
        above = self.net[node.inputs[0]]
        while True:
            if above.name == name:
                return True
            if above.operation not in _VIEWS or not above.inputs:
                return False
            above = self.net[above.inputs[0]]

    def module(self, name: str, module: nn.Module, value: V, node: NetNode | None = None) -> V | None:
        """A layer, a neuron, or something with parts; None where a part was refused."""
        kind = type(module)
        if kind is layers.FoldTime:
            inner: nn.Module = module.module  # type: ignore[assignment]
            path = f"{name}.module" if type(inner) is nn.Sequential else name
            return self.module(path, inner, value, node)
        if isinstance(module, nn.Sequential) and kind is nn.Sequential:
            return self.chain([(f"{name}.{key}", part) for key, part in parts_of(module).items()], value)
        if isinstance(module, ConvBNNeuron | LinearBNNeuron) and kind in (ConvBNNeuron, LinearBNNeuron):
            parts = [(f"{name}.{module.layer_name}", module.layer), (f"{name}.norm", module.norm)]
            return self.chain([*parts, (name, module.neuron)], value)
        if kind in IDENTITIES:
            self.folded(name, kind.__name__, "nothing", "it does nothing in evaluation mode")
            return value
        if kind in (nn.Flatten, layers.Flatten):
            return self._flatten_layer(name, module, value, node)
        return self.layer(name, module, value, node)

    def chain(self, parts: Sequence[tuple[str, nn.Module]], value: V) -> V | None:
        """Layers one after the other, with their names; None where one was refused."""
        result: V | None = value
        for path, part in parts:
            if result is None:
                self.refuse(path, type(part).__name__, "what comes before it is refused", "see there")
                continue
            given, result = result, None
            with self.refusing(path, type(part).__name__):
                result = self.module(path, part, given)
        return result

    def flattened(self, node: NetNode, value: V) -> V:
        """A call that flattens.

        Raises:
            RefusedError: it flattens something else than a whole step.
        """
        count = math.prod(self.shape(value))
        shape = node.shape or ()
        # Other leading axes, such as [B, T], would mix samples and steps.
        if tuple(shape) not in ((*self.lead, count), (math.prod(self.lead), count)):
            raise RefusedError(
                f"it gives {tuple(shape)}; only flattening a whole step is supported", "flatten whole steps"
            )
        return self._flat(node.name, node.operation, value)

    def _flatten_layer(self, name: str, module: nn.Module, value: V, node: NetNode | None) -> V:
        if node is not None and node.module is module:
            return self.flattened(node, value)
        # Within a folded chain: axes are those of `[N, C, ...]`.
        axes = len(self.shape(value))
        rank = axes + 1
        start = int(module.start_dim) % rank  # type: ignore[arg-type]
        end = int(module.end_dim) % rank  # type: ignore[arg-type]
        if (start, end) != (1, axes):
            raise RefusedError("only flattening a whole step is supported", "use Flatten(1, -1)")
        return self._flat(name, type(module).__name__, value)

    def _flat(self, name: str, operator: str, value: V) -> V:
        if len(self.shape(value)) == 1:
            self.folded(name, operator, "nothing", "a step has one axis already")
            return value
        return self.flat(name, operator, value)


def _begins_in_place(module: nn.Module | None) -> bool:
    """Whether the first of folded layers writes into what it is given, a view of what the fold is given."""
    if not isinstance(module, layers.FoldTime):
        return False
    inner = module.module
    first = inner[0] if isinstance(inner, nn.Sequential) and len(inner) else inner
    return bool(getattr(first, "inplace", False))
