"""The graph of a net: which layers and functions it calls, in which order, on what. `spikecore.nn.tracing` makes it.

    graph = trace_net(net, x)
    for node in graph.layers: print(node.name, node.operation, node.shape)

Names are those a user would use. A layer has its qualified name, a function or method that of the module whose
`forward` calls it and its own; a second use of a name is numbered:

    conv1   layer1.0.relu   layer1.0.relu#2   layer1.0.add   flatten
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

from torch import Tensor, nn

from spikecore.errors import ShapeError
from spikecore.nn.layers.fold import fold
from spikecore.nn.node import NetNode, Ref, refs, replace_refs

Call = Callable[[NetNode, tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True, eq=False)
class NetGraph:
    """What `trace_net` gives. Iterates over its nodes in the order of execution; `graph[name]` is one of them.

    Args:
        net: the traced net.
        nodes: in the order of execution.
        output: what the net returns: a `Ref`, or tuples, lists and dictionaries of such.
        constants: tensors that `forward` makes by itself, by the name of their node.
        over_time: of a `GraphNet`, the nodes that see time; in multi-step mode it is folded into the batch for all
            others. None for any other net.
    """

    net: nn.Module
    nodes: tuple[NetNode, ...]
    output: Any
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    over_time: frozenset[str] | None = None

    @cached_property
    def _by_name(self) -> dict[str, NetNode]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _last_use(self) -> dict[str, list[str]]:
        """Name of a node → values that no later node needs."""
        last: dict[str, str] = {}
        for node in self.nodes:
            last.update(dict.fromkeys(node.inputs, node.name))
            last.setdefault(node.name, node.name)
        kept = set(refs(self.output))
        done: dict[str, list[str]] = {}
        for value, node_name in last.items():
            if value not in kept:
                done.setdefault(node_name, []).append(value)
        return done

    @cached_property
    def _timed(self) -> frozenset[str]:
        """Names of the nodes whose values depend on the inputs."""
        names: set[str] = set()
        for node in self.nodes:
            if node.kind == "input" or any(name in names for name in node.inputs):
                names.add(node.name)
        return frozenset(names)

    def _has_no_time(self, argument: object) -> bool:
        """Whether an argument is a weight, or made of weights alone: the same at every step."""
        return isinstance(argument, Ref) and argument.name not in self._timed

    def _with_time(self, node: NetNode, value: Any, lead: tuple[int, int]) -> Any:
        """An argument of a node that sees time: `[T * B, ...]` as `[T, B, ...]`."""
        if isinstance(value, Tensor) and (not value.dim() or value.shape[0] != lead[0] * lead[1]):
            raise ShapeError(
                f"{node} sees time, and is given {tuple(value.shape)} with {lead[0]} * {lead[1]} samples folded: the "
                "batch must be the first axis of whatever enters a module with a step mode"
            )
        return unfolded(value, lead)

    def __iter__(self) -> Iterator[NetNode]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> NetNode:
        """The node of this name.

        Raises:
            KeyError: there is none; the message holds the nearest names.
        """
        node = self._by_name.get(name)
        if node is None:
            near = difflib.get_close_matches(name, self._by_name, n=3)
            inside = [other for other in self._by_name if other.startswith(f"{name}.")]
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(self._by_name)}"
            if inside:  # a module whose parts are nodes; the likest names may lie anywhere else
                hint = f"it is made of {len(inside)} nodes, {inside[0]!r} to {inside[-1]!r}"
            raise KeyError(f"the graph of {type(self.net).__name__} has no node {name!r}: {hint}")
        return node

    @property
    def inputs(self) -> tuple[NetNode, ...]:
        """The arguments of `forward` that are inputs, in order."""
        return tuple(node for node in self.nodes if node.kind == "input")

    @property
    def layers(self) -> tuple[NetNode, ...]:
        """The calls: all nodes but inputs and attributes."""
        return tuple(node for node in self.nodes if node.is_call)

    def users(self, name: str) -> tuple[NetNode, ...]:
        """The nodes that take the value of this one."""
        return tuple(node for node in self.nodes if name in node.inputs)

    def attribute(self, node: NetNode) -> Any:
        """The tensor that an `attribute` node stands for, as it is now."""
        if node.name in self.constants:
            return self.constants[node.name]
        return reduce(getattr, str(node.target).split("."), self.net)

    def call(self, node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do what a node does."""
        if node.kind == "module":
            module = node.module if node.module is not None else self.net.get_submodule(str(node.target))
            return module(*args, **kwargs)
        if node.kind == "method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def run(self, *inputs: Any, call: Call | None = None) -> Any:
        """What the net computes, node by node; a value is let go after its last use.

        Args:
            inputs: one for each of `self.inputs`.
            call: `(node, args, kwargs) -> value`, for every call; by default `self.call`. Calibration, counting and
                conversion put theirs here.

        Raises:
            TypeError: another number of inputs.
            ShapeError: of a `GraphNet`: inputs differ in T or B, or a result does not keep the batch as its first axis.
        """
        if len(inputs) != len(self.inputs):
            names = ", ".join(node.name for node in self.inputs)
            raise TypeError(f"the graph takes {len(self.inputs)} inputs ({names}), got {len(inputs)}")
        do = call or self.call
        if not self.folds_time:
            return self._walk(inputs, do)
        lead = lead_of(inputs)

        def do_over_time(node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if node.name not in (self.over_time or ()):
                return do(node, args, kwargs)

            def with_time(argument: Any, value: Any) -> Any:
                # A weight has no time, even where it happens to be as long as T * B.
                return value if self._has_no_time(argument) else self._with_time(node, value, lead)

            timed = tuple(with_time(argument, value) for argument, value in zip(node.args, args, strict=True))
            timed_kwargs = {key: with_time(node.kwargs[key], value) for key, value in kwargs.items()}
            return _fold_results(do(node, timed, timed_kwargs))

        return fold(lambda *folded: self._walk(folded, do_over_time), inputs, {}, type(self.net).__name__)

    @property
    def folds_time(self) -> bool:
        """Whether `run` takes `[T, B, ...]` and folds time into the batch."""
        return self.over_time is not None and getattr(self.net, "step_mode", "single") == "multi"

    def _walk(self, inputs: Sequence[Any], call: Call) -> Any:
        given = iter(inputs)
        values: dict[str, Any] = {}

        def value_of(ref: Ref) -> Any:
            return values[ref.name]

        for node in self.nodes:
            if node.kind == "input":
                value = next(given)
            elif node.kind == "attribute":
                value = self.attribute(node)
            else:
                value = call(node, replace_refs(node.args, value_of), replace_refs(dict(node.kwargs), value_of))
            values[node.name] = value
            del value  # nothing but `values` may keep it
            for name in self._last_use.get(node.name, ()):
                del values[name]
        return replace_refs(self.output, value_of)

    def __str__(self) -> str:
        rows = [("name", "operation", "takes", "shape")]
        for node in self.nodes:
            shape = ""
            if node.shape is not None:
                shape = "×".join(map(str, node.shape)) or "()"
            operation = node.operation if node.is_call else node.kind
            rows.append((node.name, operation, ", ".join(node.inputs), shape))
        # Every column is as wide as its widest cell.
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def lead_of(inputs: Sequence[Any]) -> tuple[int, int]:
    """T and B of the first tensor."""
    for value in inputs:
        if isinstance(value, Tensor):
            return int(value.shape[0]), int(value.shape[1])
    return 0, 0


def unfolded(value: Any, lead: tuple[int, int]) -> Any:
    """`[T * B, ...]` → `[T, B, ...]`; anything else as it is."""
    has_time = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == lead[0] * lead[1]
    return value.reshape(*lead, *value.shape[1:]) if has_time else value


def _fold_results(value: Any) -> Any:
    """Every tensor `[T, B, ...]` as `[T * B, ...]`, alone or in tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return value.flatten(0, 1)
    if isinstance(value, tuple | list):
        parts = [_fold_results(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: _fold_results(part) for key, part in value.items()}
    return value
