"""The order in which the nodes of a graph are computed: subgraphs opened, loops found, shapes known.

A loop is a neuron that feeds itself, directly or through one Affine or Linear node. What it feeds back arrives one step
later. Any other cycle has no order, and no meaning without a rule for delays that NIR does not give.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spikecore.errors import ConversionError
from spikecore_deploy_nir.graph import INPUT, MATRICES, NEURONS, OUTPUT, NirGraph, NirNode
from spikecore_deploy_nir.shapes import Shape, output_shape


@dataclass(frozen=True)
class Loop:
    """What feeds a neuron's output back.

    Args:
        lateral: the node of the weights; "" where the output itself is fed back.
    """

    lateral: str


@dataclass(frozen=True, eq=False)
class Ordered:
    """A graph that can be computed.

    Args:
        nodes: name → node, without subgraphs.
        order: names, each after those that it takes; without input, output and the weights of loops.
        sources: name → the nodes whose sum it takes; `output` included.
        loops: neuron → what feeds it back.
        shapes_in: name → the shape that it takes, without T and B.
        shapes: name → the shape that it gives.
        input: name of the input node.
        output: name of the output node.
        lags: name → how many neurons lie on the way to its result.
    """

    nodes: Mapping[str, NirNode]
    order: tuple[str, ...]
    sources: Mapping[str, tuple[str, ...]]
    loops: Mapping[str, Loop]
    shapes_in: Mapping[str, Shape]
    shapes: Mapping[str, Shape]
    input: str
    output: str
    lags: Mapping[str, int]

    @property
    def input_shape(self) -> Shape:
        """Of a sample, without T and B."""
        return self.shapes[self.input]


def ordered(graph: NirGraph, preferred: Sequence[str] = ()) -> Ordered:
    """Bring a graph in order.

    Args:
        graph: as it was read.
        preferred: names of nodes; of those that could come next, the first of these comes first.

    Raises:
        ConversionError: it has no input or output, or several; edges that lead nowhere or twice to the same place;
            cycles that are no loops of a neuron; nodes that do not fit each other.
    """
    nodes, edges = _opened(graph)
    _check_edges(nodes, edges)
    inputs = [name for name, node in nodes.items() if node.type == INPUT]
    outputs = [name for name, node in nodes.items() if node.type == OUTPUT]
    if len(inputs) != 1 or len(outputs) != 1:
        raise ConversionError(f"expected one Input and one Output, got inputs {inputs} and outputs {outputs}")
    loops, edges = _without_loops(nodes, edges)
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for start, end in edges:
        sources[end].append(start)
    weights = {loop.lateral for loop in loops.values() if loop.lateral}
    taken = {name: tuple(sources[name]) for name in nodes if name not in weights}
    _check_ends(taken, inputs[0], outputs[0])
    order = _sorted(taken, preferred)
    shapes_in, shapes = _shapes(nodes, taken, order)
    for neuron, loop in loops.items():
        if loop.lateral and output_shape(loop.lateral, nodes[loop.lateral], shapes[neuron]) != shapes[neuron]:
            raise ConversionError(f"node {loop.lateral!r} feeds {neuron!r} back, but gives another shape than it takes")
    lags = _lags(nodes, taken, order)
    inner = tuple(name for name in order if name not in (inputs[0], outputs[0]))
    return Ordered(nodes, inner, taken, loops, shapes_in, shapes, inputs[0], outputs[0], lags)


Edges = list[tuple[str, str]]


def _opened(graph: NirGraph, prefix: str = "") -> tuple[dict[str, NirNode], Edges]:
    """The graph with the nodes of its subgraphs in their place, named `subgraph.node`."""
    nodes: dict[str, NirNode] = {}
    edges = [(prefix + start, prefix + end) for start, end in graph.edges]
    for short, part in graph.nodes.items():
        name = prefix + short
        if isinstance(part, NirNode):
            nodes[name] = part
            continue
        inner, inner_edges = _opened(part, f"{name}.")
        ends = {kind: [node for node in inner if inner[node].type == kind] for kind in (INPUT, OUTPUT)}
        if len(ends[INPUT]) != 1 or len(ends[OUTPUT]) != 1:
            raise ConversionError(f"subgraph {name!r}: expected one Input and one Output, got {ends}")
        begin, finish = ends[INPUT][0], ends[OUTPUT][0]
        entered = [end for start, end in inner_edges if start == begin]
        left = [start for start, end in inner_edges if end == finish]
        if finish in entered:
            raise ConversionError(f"subgraph {name!r}: its input goes straight to its output")
        kept = [edge for edge in inner_edges if begin not in edge and finish not in edge]
        outer: Edges = []
        for start, end in edges:
            starts = left if start == name else [start]
            outer += [(first, last) for first in starts for last in (entered if end == name else [end])]
        edges = outer + kept
        for node, value in inner.items():
            if node in nodes:
                raise ConversionError(f"two nodes are called {node!r}")
            if node not in (begin, finish):
                nodes[node] = value
    return nodes, edges


def _check_edges(nodes: Mapping[str, NirNode], edges: Edges) -> None:
    for edge in edges:
        for end in edge:
            if end not in nodes:
                raise ConversionError(f"the edge {edge} names {end!r}, which is no node")
    twice = {edge for edge, count in Counter(edges).items() if count > 1}
    if twice:
        raise ConversionError(f"edges are there twice: {sorted(twice)}; readers disagree on what that means")


def _without_loops(nodes: Mapping[str, NirNode], edges: Edges) -> tuple[dict[str, Loop], Edges]:
    known = set(edges)
    into: dict[str, list[str]] = {}
    out_of: dict[str, list[str]] = {}
    for start, end in edges:
        into.setdefault(end, []).append(start)
        out_of.setdefault(start, []).append(end)
    loops: dict[str, Loop] = {}
    for name, node in nodes.items():
        if node.type not in NEURONS:
            continue
        ways = [Loop("")] if (name, name) in known else []
        for other in out_of.get(name, ()):
            if nodes[other].type in MATRICES and into[other] == [name] and out_of.get(other) == [name]:
                ways.append(Loop(other))
        if len(ways) > 1:
            raise ConversionError(f"node {name!r} feeds itself in several ways; expected one")
        if ways:
            loops[name] = ways[0]
    weights = {loop.lateral for loop in loops.values() if loop.lateral}
    kept = [(a, b) for a, b in edges if a != b and a not in weights and b not in weights]
    return loops, kept


def _check_ends(sources: Mapping[str, tuple[str, ...]], begin: str, finish: str) -> None:
    used = {source for group in sources.values() for source in group}
    loose = [name for name, group in sources.items() if not group and name != begin]
    unused = [name for name in sources if name not in used and name != finish]
    if loose or unused or sources[begin]:
        raise ConversionError(
            f"every node lies between input and output; without input: {loose}, without use: {unused}"
        )


def _sorted(sources: Mapping[str, tuple[str, ...]], preferred: Sequence[str]) -> tuple[str, ...]:
    ranks: dict[str, int] = {}
    for rank, name in enumerate([*preferred, *sources]):
        ranks.setdefault(name, rank)
    users: dict[str, list[str]] = {}
    missing = {name: len(group) for name, group in sources.items()}
    for name, group in sources.items():
        for source in group:
            users.setdefault(source, []).append(name)
    ready = [(ranks[name], name) for name, count in missing.items() if not count]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        _, name = heapq.heappop(ready)
        order.append(name)
        for user in users.get(name, ()):
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, (ranks[user], user))
    if len(order) < len(sources):
        rest = sorted(set(sources) - set(order))
        raise ConversionError(
            f"the nodes {', '.join(rest)} form a cycle that is no loop of one neuron through one Affine or Linear; "
            "without a rule for delays it has no meaning"
        )
    return tuple(order)


def _shapes(
    nodes: Mapping[str, NirNode], sources: Mapping[str, tuple[str, ...]], order: tuple[str, ...]
) -> tuple[dict[str, Shape], dict[str, Shape]]:
    shapes_in: dict[str, Shape] = {}
    shapes: dict[str, Shape] = {}
    for name in order:
        node = nodes[name]
        if node.type == INPUT:
            shapes[name] = shapes_in[name] = tuple(int(size) for size in node.array("shape").reshape(-1))
            if min(shapes[name], default=1) < 0:
                raise ConversionError(f"node {name!r}: its shape {shapes[name]} has negative sizes")
            continue
        given = {shapes[source] for source in sources[name]}
        if len(given) != 1:
            raise ConversionError(f"node {name!r} takes the sum of {sources[name]}, whose shapes differ: {given}")
        shapes_in[name] = given.pop()
        shapes[name] = output_shape(name, node, shapes_in[name])
    return shapes_in, shapes


def _lags(
    nodes: Mapping[str, NirNode], sources: Mapping[str, tuple[str, ...]], order: tuple[str, ...]
) -> dict[str, int]:
    """The largest number of neurons on the way; the profile `late` asks whether it is the same on every way."""
    lags: dict[str, int] = {}
    for name in order:
        before = max((lags[source] for source in sources[name]), default=0)
        lags[name] = before + (nodes[name].type in NEURONS)
    return lags
