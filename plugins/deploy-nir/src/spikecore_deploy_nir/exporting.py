"""A net → a graph, with a record of what became of every operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from spikecore import nn
from spikecore.errors import ConversionError
from spikecore.interfaces import OperatorRecord
from spikecore.nn import NetGraph, NetNode, NetWalker, Ref, RefusedError, graph_for_deployment
from spikecore_deploy_nir.graph import INPUT, MATRICES, OUTPUT, NirGraph, NirNode
from spikecore_deploy_nir.layers_out import NORMS, flatten_node, folded_norm, written_layer
from spikecore_deploy_nir.modules import Delay, PerNeuron
from spikecore_deploy_nir.names import escaped_name
from spikecore_deploy_nir.neurons_out import written_neuron
from spikecore_deploy_nir.settings import Settings
from spikecore_deploy_nir.shapes import Shape, output_shape

ADDS = ("add", "iadd", ".add()", ".add_()")
WEIGHTED = ("Affine", "Linear", "Conv1d", "Conv2d")
NORM_CURE = "put it right after a Linear or convolution that nothing else uses"


@dataclass(frozen=True)
class Plan:
    """What is written, and why."""

    records: tuple[OperatorRecord, ...]
    graph: NirGraph
    settings: Settings
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Value:
    """A value of the net: the sum of what these nodes give.

    Args:
        sources: names of nodes.
        shape: without T and B.
        lag: neurons on the way to it; None where ways differ.
    """

    sources: tuple[str, ...]
    shape: Shape
    lag: int = 0


def planned(model: torch.nn.Module, example_input: Tensor, settings: Settings) -> Plan:
    """Go through the net.

    Args:
        model: left as it is.
        example_input: `[T, B, ...]`.
        settings: of the file.

    Raises:
        NetTraceError: the net cannot be traced.
    """
    graph = graph_for_deployment(model, example_input)
    lead = (int(example_input.shape[0]), int(example_input.shape[1]))
    planner = _Planner(graph, lead, settings, str(example_input.dtype).removeprefix("torch."))
    shape = tuple(example_input.shape[2:])
    planner.nodes["input"] = NirNode(INPUT, {"shape": np.array(shape, dtype=np.int64)})
    output = planner.walk(_Value(("input",), shape))
    if output is not None:
        planner.end(output)
    return planner.plan()


class _Planner(NetWalker[_Value]):
    def __init__(self, net: NetGraph, lead: tuple[int, int], settings: Settings, dtype: str) -> None:
        super().__init__(net, lead)
        self.settings, self.dtype = settings, dtype
        self.nodes: dict[str, NirNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.names: dict[str, str] = {}
        self.fires_at: set[str] = set()
        self.flattened_neurons: set[str] = set()
        self.notes: list[str] = []

    def shape(self, value: _Value) -> Shape:
        return value.shape

    def unknown(self, name: str, shape: Shape, value: _Value | None) -> _Value:
        return _Value((), shape)

    # the graph

    def end(self, value: _Value) -> None:
        """Refuse what no way leads from, and close the graph."""
        if not any(record.outcome == "refused" for record in self.records):
            self.refuse_unused(value)
        self.nodes["output"] = NirNode(OUTPUT, {"shape": np.array(value.shape, dtype=np.int64)})
        self.edges += [(source, "output") for source in value.sources]

    def refuse_unused(self, output: _Value) -> None:
        """Every node of a file lies on a way to the output."""
        reached = set(output.sources)
        while more := {start for start, end in self.edges if end in reached} - reached:
            reached |= more
        unused = {self.names[name] for name in self.nodes if name not in reached and name != "input"}
        for index, record in enumerate(self.records):
            if record.name in unused:
                reason = "nothing uses what it gives, and every node of a file lies on a way to the output"
                cure = "leave it out of the net"
                self.records[index] = OperatorRecord(record.name, record.operator, "refused", "", reason, cure)

    def plan(self) -> Plan:
        marks = {"fires_at": frozenset(self.fires_at), "flat": frozenset(self.flattened_neurons)}
        settings = replace(self.settings, names=dict(self.names), **marks)
        graph = NirGraph(self.nodes, tuple(self.edges), settings.to_metadata())
        return Plan(tuple(self.records), graph, settings, tuple(dict.fromkeys(self.notes)))

    def written(self, name: str, operator: str, node: str, inexact: str = "") -> None:
        """Record that an operator became this node."""
        self.mapped(name, operator, self.nodes[node].type, inexact)

    def add(self, name: str, node: NirNode, value: _Value) -> _Value:
        """A node that takes `value`."""
        escaped = escaped_name(name, self.nodes)
        return self.add_as(escaped, name, node, value)

    def add_as(self, node_name: str, name: str, node: NirNode, value: _Value) -> _Value:
        try:
            shape = output_shape(node_name, node, value.shape)
        except ConversionError as error:
            raise RefusedError(
                f"a step of the shape {value.shape} does not suit it: {error}", "check its input"
            ) from error
        self.nodes[node_name] = node
        self.names[node_name] = name
        self.edges += [(source, node_name) for source in value.sources]
        return _Value((node_name,), shape, value.lag)

    # operators

    def function(self, node: NetNode, values: Sequence[_Value]) -> _Value:
        if node.operation in ADDS:
            return self.sum_of(node)
        if len(values) != 1:
            raise RefusedError(f"it takes {len(values)} values; nodes take the sum of values", "use a sum")
        raise RefusedError(f"NIR has no {node.operation}", "use a layer that NIR has: Linear, Conv2d, AvgPool2d")

    def sum_of(self, node: NetNode) -> _Value:
        numbers = [part for part in (*node.args, *node.kwargs.values()) if not isinstance(part, Ref)]
        parts = [self.values[part.name] for part in node.args if isinstance(part, Ref)]
        if numbers or len(parts) < 2:
            raise RefusedError("it adds a number, or scales what it adds", "add two tensors")
        if len({part.shape for part in parts}) > 1:
            raise RefusedError("the two have different shapes; edges do not broadcast", "give both the same shape")
        sources = [source for part in parts for source in part.sources]
        if len(set(sources)) < len(sources):
            raise RefusedError(
                "it adds a value to itself, and a graph has one edge between two nodes", "scale the weights"
            )
        if self.settings.profile.lag and len({part.lag for part in parts}) > 1:
            raise RefusedError(
                "its terms pass different numbers of neurons, and each delays by a step in profile 'late'",
                "use another profile",
            )
        self.folded(node.name, node.operation, "edges", "what several edges bring to a node is summed")
        return _Value(tuple(sources), parts[0].shape, max(part.lag for part in parts))

    def flat(self, name: str, operator: str, value: _Value) -> _Value:
        if len(value.shape) == 1:
            self.folded(name, operator, "nothing", "a step has one axis already")
            return value
        result = self.add(name, flatten_node(value.shape), value)
        self.written(name, operator, result.sources[0])
        return result

    def layer(self, name: str, module: torch.nn.Module, value: _Value, node: NetNode | None) -> _Value:
        kind = type(module)
        if self.dtype != self.settings.dtype:  # a net without weights computes in the dtype of its input
            raise RefusedError(
                f"the example input is {self.dtype}, the file is for readers in {self.settings.dtype}",
                "convert net and input"
                + (f", or set dtype={self.dtype} where a reader has it" if self.dtype == "float64" else ""),
            )
        if isinstance(module, nn.Recurrent):
            return self.recurrent(name, module, value)
        if kind in NORMS:
            return self.norm(name, module, value, node)
        if isinstance(module, Delay) and kind is Delay:
            return self.delay(name, module, value)
        if isinstance(module, PerNeuron) and kind is PerNeuron:
            return self.neuron(f"{name}.neuron", module.neuron, value, is_flat=True)
        if isinstance(module, nn.Neuron):
            return self.neuron(name, module, value)
        node_of_layer = written_layer(module, value.shape, self.settings.dtype)
        self.check_bias(node_of_layer, value)
        result = self.add(name, node_of_layer, value)
        self.written(name, kind.__name__, result.sources[0])
        return result

    def check_bias(self, node: NirNode, value: _Value) -> None:
        if self.settings.profile.lag and value.lag and np.any(node.values.get("bias", 0)):
            raise RefusedError(
                "its bias acts from the first step on, spikes before it arrive a step later in profile 'late'",
                "train without bias behind neurons, or use another profile",
            )

    def norm(self, name: str, norm: torch.nn.Module, value: _Value, node: NetNode | None) -> _Value:
        source = value.sources[0] if len(value.sources) == 1 else ""
        weight = self.nodes.get(source)
        if weight is None or weight.type not in WEIGHTED or any(start == source for start, _ in self.edges):
            raise RefusedError("NIR has no batch norm, and there is no weight before it to fold it into", NORM_CURE)
        if node is not None and len(self.net.users(node.inputs[0])) > 1:
            raise RefusedError("what it takes is used elsewhere, without norm", NORM_CURE)
        folded = folded_norm(norm, weight)
        self.check_bias(folded, value)
        self.nodes[source] = folded
        self.folded(name, type(norm).__name__, source, "it is in the weight and bias of the layer before it")
        self.notes.append("Batch norms are folded into weights: sums may be rounded differently than in the net.")
        return value

    def delay(self, name: str, delay: Delay, value: _Value) -> _Value:
        seconds = delay.num_steps.cpu().numpy() * self.settings.dt_s
        result = self.add(name, NirNode("Delay", {"delay": np.array(np.broadcast_to(seconds, value.shape))}), value)
        self.written(name, "Delay", result.sources[0])
        return result

    def neuron(
        self, name: str, neuron: nn.Neuron, value: _Value, is_flat: bool = False, node_name: str | None = None
    ) -> _Value:
        """A neuron; `is_flat`: its options have one value for each place of the flattened step."""
        shape = (math.prod(value.shape),) if is_flat else value.shape
        written = written_neuron(neuron, shape, self.settings)
        node = written.node
        if is_flat:
            node = NirNode(node.type, {key: np.reshape(part, value.shape) for key, part in node.values.items()})
        if self.settings.profile.lag and value.lag and not written.is_silent_at_rest:
            raise RefusedError(
                "it fires without input, before the spikes of the layer before arrive", "raise its threshold"
            )
        node_name = node_name or escaped_name(name, self.nodes)
        result = self.add_as(node_name, name, node, value)
        if is_flat:
            self.flattened_neurons.add(node_name)
        if written.fires_at:
            self.fires_at.add(node_name)
        self.written(name, type(neuron).__name__, node_name, written.inexact)
        return replace(result, lag=value.lag + 1)

    def recurrent(self, name: str, container: nn.Recurrent, value: _Value) -> _Value:
        """A neuron that feeds itself: a cycle of two nodes, or of one."""
        neuron = container.module
        if not isinstance(neuron, nn.Neuron):
            raise RefusedError(f"it has a {type(neuron).__name__} in its loop", "put a single neuron into the loop")
        base = escaped_name(name, (node.partition(".")[0] for node in self.nodes))
        neuron_node = f"{base}.neuron"
        if type(container) is nn.ElementwiseRecurrent and container.combine is torch.add:
            result = self.neuron(f"{name}.module", neuron, value, node_name=neuron_node)
            self.edges.append((neuron_node, neuron_node))
            return result
        if type(container) is nn.LateralRecurrent:
            lateral = written_layer(container.lateral, value.shape, self.settings.dtype)
            self.check_bias(lateral, value)
            if lateral.type not in MATRICES:
                raise RefusedError(f"its lateral is a {lateral.type}; loops go through Linear", "use a Linear")
            result = self.neuron(f"{name}.module", neuron, value, node_name=neuron_node)
            self.close(f"{base}.lateral", f"{name}.lateral", lateral, result)
            return result
        if type(container) is nn.LinearRecurrent:
            return self.linear_recurrent(name, base, container, neuron, value)
        raise RefusedError(
            f"NIR has no {type(container).__name__} with this function", "use LateralRecurrent around a neuron"
        )

    def close(self, node_name: str, name: str, lateral: NirNode, result: _Value) -> None:
        neuron = result.sources[0]
        self.nodes[node_name] = lateral
        self.names[node_name] = name
        self.edges += [(neuron, node_name), (node_name, neuron)]
        self.written(name, "Linear", node_name)

    def linear_recurrent(
        self, name: str, base: str, container: nn.LinearRecurrent, neuron: nn.Neuron, value: _Value
    ) -> _Value:
        """W [x, y] + b as two nodes: one for x, and one in the loop."""
        both = written_layer(container.linear, (container.in_features + container.out_features,), self.settings.dtype)
        self.check_bias(both, value)
        weight = np.asarray(both.values["weight"])
        forward = {**both.values, "weight": weight[:, : container.in_features].copy()}
        taken = self.add_as(f"{base}.linear", f"{name}.linear", NirNode(both.type, forward), value)
        self.written(f"{name}.linear", "Linear", f"{base}.linear")
        result = self.neuron(f"{name}.module", neuron, taken, node_name=f"{base}.neuron")
        back = NirNode("Linear", {"weight": weight[:, container.in_features :].copy()})
        node_name = f"{base}.lateral"
        self.nodes[node_name], self.names[node_name] = back, f"{name}.lateral"
        self.edges += [(f"{base}.neuron", node_name), (node_name, f"{base}.neuron")]
        return result
