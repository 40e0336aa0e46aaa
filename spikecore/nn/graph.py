"""The graph of a net: which layers and functions it calls, in which order, on what.

    graph = trace_net(net, x)
    for node in graph.layers: print(node.name, node.operation, node.shape)

Names are those a user would use. A layer has its qualified name, a function or method that of the module whose
`forward` calls it and its own; a second use of a name is numbered:

    conv1   layer1.0.relu   layer1.0.relu#2   layer1.0.add   flatten

Leaves are torch's layers, neurons, `ConvBNNeuron` and `LinearBNNeuron`, layers that fold time, recurrent containers,
everything else with state, and readouts. Every other call of a function or a method is a node of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from spikecore.errors import NetTraceError, OptionError, ShapeError
from spikecore.nn.layers.fold import fold
from spikecore.nn.state import carried
from spikecore.nn.tracer import CONSTANT, PLACE, SCOPE, NetTracer

Kind = Literal["input", "attribute", "module", "function", "method"]
Call = Callable[["NetNode", tuple[Any, ...], dict[str, Any]], Any]
_IN_PLACE = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor")


@dataclass(frozen=True)
class Ref:
    """An argument that is the value of another node."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True, eq=False)
class NetNode:
    """One call.

    Args:
        name: unique in the graph.
        kind: `input`: an argument of `forward`; `attribute`: a parameter, buffer or constant; `module`, `function` or
            `method`: a call.
        target: the argument's name; the qualified name of the parameter or module; the function; the method's name.
        args: of the call; values of other nodes, also inside tuples, lists, dictionaries and slices, are `Ref`s.
        kwargs: likewise.
        scope: qualified name of the module whose `forward` makes the call; "" for the net itself.
        place: `file:line` of the call in the user's code; "" where torch's own code makes it.
        module: the module that is called.
        shape: of the result for the example inputs, where it is a tensor; None without example.
        dtype: likewise.
        value: of the result for the example inputs where it is no tensor, such as a size.
    """

    name: str
    kind: Kind
    target: str | Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    scope: str = ""
    place: str = ""
    module: nn.Module | None = None
    shape: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None
    value: Any = None

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the nodes whose values it takes, each once, in the order of the arguments."""
        names: dict[str, None] = {}
        _mapped((self.args, dict(self.kwargs)), lambda ref: names.setdefault(ref.name))
        return tuple(names)

    @property
    def is_call(self) -> bool:
        """Whether it computes something."""
        return self.kind in ("module", "function", "method")

    @property
    def operation(self) -> str:
        """What is called, for messages: `Conv2d`, `relu`, `.flatten()`."""
        if self.kind == "module":
            return type(self.module).__name__
        if self.kind == "method":
            return f".{self.target}()"
        return str(self.target) if isinstance(self.target, str) else _function_name(self.target)

    @property
    def is_inplace(self) -> bool:
        """Whether it writes into a tensor that it is given."""
        if self.kind == "module":
            return bool(getattr(self.module, "inplace", False))
        name = str(self.target) if self.kind == "method" else _function_name(self.target)
        is_dunder = name.endswith("__")
        return bool(self.kwargs.get("inplace")) or name in _IN_PLACE or (name.endswith("_") and not is_dunder)

    def __str__(self) -> str:
        return f"{self.name} ({self.operation})" + (f" at {self.place}" if self.place else "")


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
        kept = set(_refs(self.output))
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

    def _is_steady(self, argument: Any) -> bool:
        """Whether an argument is a weight, or made of weights alone: the same at every step."""
        return isinstance(argument, Ref) and argument.name not in self._timed

    def _with_time(self, node: NetNode, value: Any, lead: tuple[int, int]) -> Any:
        if isinstance(value, Tensor) and (not value.dim() or value.shape[0] != lead[0] * lead[1]):
            raise ShapeError(
                f"{node} sees time, and is given {tuple(value.shape)} with {lead[0]} * {lead[1]} samples folded: the "
                "batch must be the first axis of whatever enters a module with a step mode"
            )
        return _unfolded(value, lead)

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
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(self._by_name)}"
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
        own_call = call or self.call
        if not self.folds_time:
            return self._walk(inputs, own_call)
        lead = _lead(inputs)

        def call_with_time(node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if node.name not in (self.over_time or ()):
                return own_call(node, args, kwargs)
            # A weight may happen to be as long as T * B.
            args = tuple(
                value if self._is_steady(given) else self._with_time(node, value, lead)
                for given, value in zip(node.args, args, strict=True)
            )
            named = {
                key: value if self._is_steady(node.kwargs[key]) else self._with_time(node, value, lead)
                for key, value in kwargs.items()
            }
            return _folded(own_call(node, args, named))

        return fold(lambda *folded: self._walk(folded, call_with_time), inputs, {}, type(self.net).__name__)

    @property
    def folds_time(self) -> bool:
        """Whether `run` takes `[T, B, ...]` and folds time into the batch."""
        return self.over_time is not None and getattr(self.net, "step_mode", "single") == "multi"

    def _walk(self, inputs: Sequence[Any], call: Call) -> Any:
        given, values = iter(inputs), dict[str, Any]()

        def value_of(ref: Ref) -> Any:
            return values[ref.name]

        for node in self.nodes:
            if node.kind == "input":
                value = next(given)
            elif node.kind == "attribute":
                value = self.attribute(node)
            else:
                value = call(node, _mapped(node.args, value_of), _mapped(dict(node.kwargs), value_of))
            values[node.name] = value
            del value  # nothing but `values` may keep it
            for name in self._last_use.get(node.name, ()):
                del values[name]
        return _mapped(self.output, value_of)

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


def trace_net(net: nn.Module, *example_inputs: Any, leaves: Sequence[type[nn.Module]] = ()) -> NetGraph:
    """The graph of a net, in the mode (train or eval) and step mode it is in. The net is left as it was.

    Arguments of `forward` that have a default take it, unless there is an example input for them.

    Args:
        net: any module. Those that torch.compile or a parallel wrapper made are looked through.
        example_inputs: what `forward` takes; with them the nodes know their shapes and dtypes. They run through the net
            once, without gradient; its state, buffers and torch's random numbers stay as they were.
        leaves: classes of modules to take as one node, such as those whose `forward` cannot be traced.

    Raises:
        OptionError: `leaves` are no classes of modules.
        NetTraceError: `forward` does what a trace cannot follow, such as branching on values or shapes; shows its line.
            Also for example inputs that are too few, too many or do not fit.

    Example:
        >>> from spikecore.nn import LIF
        >>> net = nn.Sequential(nn.Linear(4, 3), LIF())
        >>> [node.name for node in trace_net(net)]
        ['input', '0', '1']
        >>> trace_net(net, torch.zeros(5, 2, 4))["1"].shape
        (5, 2, 3)
    """
    check_leaves("trace_net", leaves, "inputs come before it, as in trace_net(net, x)")
    net = _unwrapped(net)
    own_graph = getattr(net, "own_graph", None)
    if own_graph is not None:
        graph: NetGraph = own_graph()
    else:
        tracer = NetTracer(net, tuple(leaves), len(example_inputs) or None)
        graph = _named(net, tracer.traced(), tracer.constants)
    return _with_shapes(graph, example_inputs) if example_inputs else graph


def check_leaves(function: str, leaves: object, cure: str) -> None:
    """Refuse what are no classes of modules.

    Raises:
        OptionError: with `cure`, for the case that something else was meant.
    """
    if isinstance(leaves, list | tuple | set | frozenset) and all(
        isinstance(leaf, type) and issubclass(leaf, nn.Module) for leaf in leaves
    ):
        return
    raise OptionError(
        f"{function}: leaves must be a list of classes of modules, as in [MyLayer], got {type(leaves).__name__}; {cure}"
    )


def _unwrapped(net: nn.Module) -> nn.Module:
    compiled = getattr(net, "_orig_mod", None)
    if isinstance(compiled, nn.Module):
        return _unwrapped(compiled)
    if type(net).__module__.startswith("torch.nn.parallel."):
        return _unwrapped(net.module)  # type: ignore[arg-type]
    return net


def _named(net: nn.Module, graph: fx.Graph, constants: Sequence[Tensor]) -> NetGraph:
    """From fx's nodes to ours."""
    modules = dict(net.named_modules())
    # A layer has its own name even where a function of that name comes before it.
    taken = {*modules, *(name for name, _ in (*net.named_parameters(), *net.named_buffers()))}
    names: dict[fx.Node, str] = {}
    nodes: list[NetNode] = []
    values: dict[str, Tensor] = {}
    attributes: dict[str, str] = {}
    called: set[str] = set()
    output: Any = None

    def referred(part: Any) -> Any:
        return Ref(names[part]) if isinstance(part, fx.Node) else part

    def argument(value: Any) -> Any:
        mapped: Any = fx.node.map_aggregate(value, referred)
        return _without_fx_types(mapped)

    for node in graph.nodes:
        if node.op == "output":
            output = argument(node.args[0])
            continue
        if node.op == "get_attr" and node.target in attributes:
            names[node] = attributes[node.target]  # a parameter is one node, however often it is read
            continue
        is_first = node.op == "get_attr" or (node.op == "call_module" and node.target not in called)
        base = _base_name(node)
        name = base if is_first and CONSTANT not in node.meta else _free(base, taken)
        if node.op == "call_module":
            called.add(node.target)
        taken.add(name)
        names[node] = name
        if node.op == "get_attr":
            attributes[node.target] = name
        if CONSTANT in node.meta:
            values[name] = constants[node.meta[CONSTANT]]
        kinds: dict[str, Kind] = {"placeholder": "input", "get_attr": "attribute", "call_module": "module"}
        kind = kinds.get(node.op) or ("function" if node.op == "call_function" else "method")
        nodes.append(
            NetNode(
                name,
                kind,
                node.target,
                argument(node.args) if node.op != "placeholder" else (),
                argument(node.kwargs),
                node.meta[SCOPE] if node.op.startswith("call_") else "",
                _place(node) if node.op.startswith("call_") else "",
                modules[node.target] if node.op == "call_module" else None,
            )
        )
    return NetGraph(net, tuple(nodes), output, values)


def _place(node: fx.Node) -> str:
    file, line = node.meta[PLACE]
    return f"{file}:{line}" if file else ""


def _base_name(node: fx.Node) -> str:
    target = node.target
    if CONSTANT in node.meta:
        return "constant"
    if node.op in ("placeholder", "get_attr"):
        return str(target)
    if node.op == "call_module":
        return str(target) or "net"
    own = str(target) if isinstance(target, str) else _function_name(target)
    if target is getattr and isinstance(node.args[1], str):
        own = node.args[1]
    scope = node.meta[SCOPE]
    return f"{scope}.{own}" if scope else own


def _function_name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _free(base: str, taken: set[str]) -> str:
    if base not in taken:
        return base
    count = 2
    while f"{base}#{count}" in taken:
        count += 1
    return f"{base}#{count}"


def _without_fx_types(value: Any) -> Any:
    """fx's immutable lists and dictionaries as plain ones."""
    if isinstance(value, tuple):
        parts = [_without_fx_types(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_without_fx_types(part) for part in value]
    if isinstance(value, dict):
        return {key: _without_fx_types(part) for key, part in value.items()}
    return value


def _mapped(value: Any, function: Callable[[Ref], Any]) -> Any:
    """`value` with every `Ref` inside replaced by what `function` makes of it."""
    if isinstance(value, Ref):
        return function(value)
    if isinstance(value, tuple):
        parts = [_mapped(part, function) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_mapped(part, function) for part in value]
    if isinstance(value, dict):
        return {key: _mapped(part, function) for key, part in value.items()}
    if isinstance(value, slice):
        return slice(*(_mapped(part, function) for part in (value.start, value.stop, value.step)))
    return value


def _refs(value: Any) -> list[str]:
    names: list[str] = []
    _mapped(value, lambda ref: names.append(ref.name))
    return names


def _lead(inputs: Sequence[Any]) -> tuple[int, int]:
    """T and B of the first tensor."""
    for value in inputs:
        if isinstance(value, Tensor):
            return int(value.shape[0]), int(value.shape[1])
    return 0, 0


def _unfolded(value: Any, lead: tuple[int, int]) -> Any:
    """`[T * B, ...]` → `[T, B, ...]`; anything else as it is."""
    has_time = isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == lead[0] * lead[1]
    return value.reshape(*lead, *value.shape[1:]) if has_time else value


def _folded(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.flatten(0, 1)
    if isinstance(value, tuple | list):
        parts = [_folded(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: _folded(part) for key, part in value.items()}
    return value


class _Walk(nn.Module):
    """A graph as a module, so that `functional_call` can lend it buffers."""

    def __init__(self, graph: NetGraph, call: Call) -> None:
        super().__init__()
        self.net = graph.net
        self._graph, self._call = graph, call

    def forward(self, *inputs: Any) -> Any:
        return self._graph.run(*inputs, call=self._call)


def _with_shapes(graph: NetGraph, inputs: tuple[Any, ...]) -> NetGraph:
    results: dict[str, Any] = {}

    def call(node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            value = graph.call(node, args, kwargs)
        except Exception as error:
            raise NetTraceError(
                f"the example inputs do not pass {node} of {type(graph.net).__name__}: "
                f"{type(error).__name__}: {error}\n  give inputs as `forward` takes them in this step mode"
            ) from error
        has_batch_alone = graph.folds_time and node.name not in (graph.over_time or ())
        results[node.name] = _Form.of(_unfolded(value, _lead(inputs)) if has_batch_alone else value)
        return value

    buffers = {f"net.{name}": buffer.clone() for name, buffer in graph.net.named_buffers()}
    devices = [value.device for value in inputs if isinstance(value, Tensor) and value.is_cuda]
    inputs = tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)
    with torch.no_grad(), torch.random.fork_rng(devices=devices), carried(graph.net):
        torch.func.functional_call(_Walk(graph, call), buffers, inputs)
    for node in graph.nodes:
        if not node.is_call:
            value = inputs[graph.inputs.index(node)] if node.kind == "input" else graph.attribute(node)
            results[node.name] = _Form.of(value)
    nodes = [replace(node, **vars(results[node.name])) for node in graph.nodes]
    return replace(graph, nodes=tuple(nodes))


@dataclass(frozen=True)
class _Form:
    """What a node knows of its result."""

    shape: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None
    value: Any = None

    @classmethod
    def of(cls, value: Any) -> _Form:
        if isinstance(value, Tensor):
            return cls(tuple(value.shape), value.dtype)
        if isinstance(value, torch.Size):
            return cls(value=tuple(value))
        return cls(value=value) if isinstance(value, int | float | str | torch.dtype | torch.device) else cls()
