"""`trace_net`: from a net to its graph.

Leaves are torch's layers, neurons, `ConvBNNeuron` and `LinearBNNeuron`, layers that fold time, recurrent containers,
everything else with state, and readouts. Every other call of a function or a method is a node of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikecore.errors import NetTraceError, OptionError
from spikecore.nn.graph import Call, NetGraph, lead_of, unfolded
from spikecore.nn.node import Kind, NetNode, Ref, function_name
from spikecore.nn.state import carried
from spikecore.nn.tracer import CONSTANT, PLACE, SCOPE, NetTracer

KINDS: dict[str, Kind] = {
    "placeholder": "input",
    "get_attr": "attribute",
    "call_module": "module",
    "call_function": "function",
    "call_method": "method",
}
"""What fx calls a node → its kind."""


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
        graph = _net_graph(net, tracer.traced(), tracer.constants)
    return _with_shapes(graph, example_inputs) if example_inputs else graph


def check_leaves(function: str, leaves: object, cure: str) -> None:
    """Refuse what are no classes of modules.

    Raises:
        OptionError: with `cure`, for the case that something else was meant.
    """
    if isinstance(leaves, list | tuple | set | frozenset):
        are_classes = all(isinstance(leaf, type) and issubclass(leaf, nn.Module) for leaf in leaves)
        if are_classes:
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


def _net_graph(net: nn.Module, graph: fx.Graph, constants: Sequence[Tensor]) -> NetGraph:
    """From fx's nodes to ours, with the names that a user would choose."""
    modules = dict(net.named_modules())
    # A layer has its own name even where a function of that name comes before it.
    taken = {*modules, *dict(net.named_parameters()), *dict(net.named_buffers())}
    names: dict[fx.Node, str] = {}
    nodes: list[NetNode] = []
    values: dict[str, Tensor] = {}
    attributes: dict[str, str] = {}
    called: set[str] = set()
    output: Any = None

    def ref_of(part: Any) -> Any:
        return Ref(names[part]) if isinstance(part, fx.Node) else part

    def argument(value: Any) -> Any:
        with_refs: Any = fx.node.map_aggregate(value, ref_of)
        return _without_fx_types(with_refs)

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
        is_call = node.op.startswith("call_")
        nodes.append(
            NetNode(
                name,
                KINDS[node.op],
                node.target,
                args=() if node.op == "placeholder" else argument(node.args),
                kwargs=argument(node.kwargs),
                scope=node.meta[SCOPE] if is_call else "",
                place=_place(node) if is_call else "",
                module=modules[node.target] if node.op == "call_module" else None,
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
    own = str(target) if isinstance(target, str) else function_name(target)
    if target is getattr and isinstance(node.args[1], str):
        own = node.args[1]
    scope = node.meta[SCOPE]
    return f"{scope}.{own}" if scope else own


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
        is_folded = graph.folds_time and node.name not in (graph.over_time or ())
        results[node.name] = _Form.of(unfolded(value, lead_of(inputs)) if is_folded else value)
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
