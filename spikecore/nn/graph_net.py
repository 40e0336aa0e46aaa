"""Nets made from the graph of another: one in which some nodes are replaced, and one that gives its features."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from spikecore.errors import OptionError
from spikecore.nn.graph import NetGraph
from spikecore.nn.node import NetNode, Ref
from spikecore.nn.state import check_step_mode
from spikecore.nn.tracing import check_leaves, trace_net


class GraphNet(nn.Module):
    """A copy of a traced net in which modules replace some nodes.

    The graph is that of a net that takes a batch `[B, ...]`. In multi-step mode time is folded into the batch once, for
    the whole graph, so that functions such as `x.flatten(1)` mean what they meant; whatever has a step mode, or holds a
    part that has one, sees `[T, B, ...]`. Layers keep the names they had, and a replacement has the name of its node,
    so `state_dict` keys are those of the given net and of the graph.

    Args:
        graph: from `trace_net`; its net is copied and left as it was.
        replaced: node name → module, which is called with the values of the node's `inputs`, in order.
        step_mode: `multi` or `single`; `set_step_mode` changes it, with that of all parts.

    Raises:
        OptionError: the graph has no call of this name, or the step mode is neither.

    Example:
        >>> import torch
        >>> from spikecore.nn import IF
        >>> ann = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> net = GraphNet(trace_net(ann), {"1": IF(reset="soft")})
        >>> net(torch.rand(8, 2, 4)).shape
        torch.Size([8, 2, 3])
    """

    is_one_node = True
    """Within another net; `trace_net` of it alone gives `own_graph`."""

    def __init__(self, graph: NetGraph, replaced: Mapping[str, nn.Module], step_mode: str = "multi") -> None:
        super().__init__()
        check_step_mode(step_mode)
        names = [node.name for node in graph.layers]
        if unknown := [name for name in replaced if name not in names]:
            raise OptionError(f"replaced names {', '.join(map(repr, unknown))}; the graph calls {', '.join(names)}")
        self.step_mode = step_mode
        self.training = graph.net.training
        self._adopt(copy.deepcopy(graph.net), is_leaf=any(node.target == "" for node in graph.nodes))
        paths = self._place(graph, replaced)
        for name, value in graph.constants.items():
            self.register_buffer(name, value.detach().clone())
        nodes = [_bound(node, paths, replaced) for node in graph.nodes]
        over_time = frozenset(node.name for node in nodes if node.kind == "module" and self._has_steps(node))
        self._graph = NetGraph(self, tuple(nodes), graph.output, over_time=over_time)

    def _adopt(self, net: nn.Module, is_leaf: bool) -> None:
        """Take over the parts of a net, under their names."""
        if is_leaf:
            self.add_module("net", net)
            return
        for name, module in net.named_children():
            self.add_module(name, module)
        for name, parameter in net.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in net.named_buffers(recurse=False):
            self.register_buffer(name, buffer, persistent=name not in net._non_persistent_buffers_set)
        for name, value in vars(net).items():
            if isinstance(value, Tensor):
                setattr(self, name, value)

    def _place(self, graph: NetGraph, replaced: Mapping[str, nn.Module]) -> dict[str, str]:
        """Put the replacements where their nodes are; node name → path of the module that it calls."""
        paths: dict[str, str] = {}
        originals: dict[str, nn.Module] = {}
        for node in graph.nodes:
            if node.kind == "module":
                paths[node.name] = str(node.target) or "net"
                originals[node.name] = self.get_submodule(paths[node.name])
        for name, module in replaced.items():
            paths[name] = self._put(name, module)
        overwritten = {paths[name] for name in replaced}
        moved: dict[int, str] = {}
        for name, module in originals.items():
            if name in replaced or paths[name] not in overwritten:
                continue
            # Another use of a layer that has been replaced at its first use: it needs a place of its own.
            if id(module) not in moved:
                moved[id(module)] = self._put(name, module)
            paths[name] = moved[id(module)]
        return paths

    def _put(self, name: str, module: nn.Module) -> str:
        scope, _, own = name.rpartition(".")
        parent = self.get_submodule(scope)
        if hasattr(parent, own) and own not in parent._modules:
            own = f"{own}#1"  # such as `float`, which every module has
        parent.add_module(own, module)
        return f"{scope}.{own}" if scope else own

    def _has_steps(self, node: NetNode) -> bool:
        return any(hasattr(part, "step_mode") for part in self.get_submodule(str(node.target)).modules())

    def forward(self, *inputs: Any) -> Any:
        """`[T, B, ...]` or `[B, ...]` by `step_mode` → what the given net returns for a batch, with T before it.

        Raises:
            ShapeError: the inputs differ in T or B, or an output does not keep the batch as its first axis.
        """
        return self._graph.run(*inputs)

    def own_graph(self) -> NetGraph:
        """The graph that it runs, for `trace_net`: the names are those of the given net, replacements are modules."""
        nodes = []
        for node in self._graph.nodes:
            module = self.get_submodule(str(node.target)) if node.kind == "module" else None
            nodes.append(replace(node, module=module))
        return replace(self._graph, nodes=tuple(nodes))


def _bound(node: NetNode, paths: Mapping[str, str], replaced: Mapping[str, nn.Module]) -> NetNode:
    """The node in the new net, which looks its modules up by their path."""
    if node.name in replaced:
        args = tuple(Ref(name) for name in node.inputs)
        return replace(node, kind="module", target=paths[node.name], args=args, kwargs={}, module=None)
    if node.kind == "module":
        return replace(node, target=paths[node.name], module=None)
    if node.kind == "attribute" and node.name.partition("#")[0] == "constant" and "." not in node.name:
        return replace(node, target=node.name)
    return node


def features(net: nn.Module, names: Sequence[str], leaves: Sequence[type[nn.Module]] = ()) -> nn.Module:
    """A net that returns the values of some nodes of `net`: `{name: tensor}`, in the order of `names`.

    It holds `net` itself: parameters, state and modes are shared, `set_step_mode`, `streaming` and training work on
    either. What comes after the last of the nodes is not computed.

    Args:
        net: any net that `trace_net` takes.
        names: of nodes, as `trace_net(net)` has them: `"layer1"` is none, `"layer1.1.relu#2"` may be.
        leaves: as for `trace_net`.

    Raises:
        OptionError: `names` are no strings or none at all, or `leaves` no classes of modules (inputs go to the result).
        KeyError: there is no such node; the message holds the nearest names.
        NetTraceError: the net cannot be traced.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> {name: tuple(value.shape) for name, value in features(net, ["1", "2"])(torch.rand(5, 4)).items()}
        {'1': (5, 3), '2': (5, 2)}
    """
    if not isinstance(net, nn.Module):
        raise OptionError(f"features: net must be a torch.nn.Module, got {type(net).__name__}: features(net, names)")
    if not isinstance(names, Sequence) or isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise OptionError(f"features: names must be a list of names of nodes, as in ['layer1.1'], got {names!r:.80}")
    if not names:
        raise OptionError("features needs the name of at least one node")
    check_leaves("features", leaves, "inputs go to the net that it returns: features(net, names)(x)")
    return _Features(net, tuple(names), tuple(leaves))


class _Features(nn.Module):
    """`net`, run up to the last of the named nodes; it gives the values of all of them."""

    def __init__(self, net: nn.Module, names: tuple[str, ...], leaves: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self.net, self.names, self.leaves = net, names, leaves
        self.training = net.training
        self._graph, self._modes = self._traced()

    def _traced(self) -> tuple[NetGraph, list[bool]]:
        """The graph up to the last node asked for, and the modes that it belongs to."""
        graph = trace_net(self.net, leaves=self.leaves)
        last = max(graph.nodes.index(graph[name]) for name in self.names)
        part = replace(graph, nodes=graph.nodes[: last + 1], output={name: Ref(name) for name in self.names})
        return part, self._own_modes()

    def _own_modes(self) -> list[bool]:
        return [module.training for module in self.net.modules()]

    def forward(self, *inputs: Any) -> dict[str, Any]:
        if self._modes != self._own_modes():  # `forward` may read self.training, and a trace knows one answer only
            self._graph, self._modes = self._traced()
        kept: dict[str, Any] = {}

        def call(node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            value = self._graph.call(node, args, kwargs)
            if node.name in self.names:
                is_overwritten = any(user.is_inplace for user in self._graph.users(node.name))
                kept[node.name] = value.clone() if is_overwritten and isinstance(value, Tensor) else value
            return value

        whole: dict[str, Any] = self._graph.run(*inputs, call=call)
        return {name: kept.get(name, whole[name]) for name in self.names}
