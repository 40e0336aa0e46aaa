"""What a forward pass keeps so that the backward pass needs neither x nor a second run of the steps.

A spike's derivative depends on u, the distance to the threshold. If the gradient of a whole step can be computed from
u, spikes and parameters, only u is kept. The potential would not do: u rounded to 16 bits still has the right sign, so
it tells whether the neuron fired. With u = h - c, h is recovered as u + c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from spikecore.dynamics.graph import CONST, INPUT, SPIKE, Graph, Node, Program
from spikecore.dynamics.passes.numbering import Numbering
from spikecore.dynamics.printing import inputs_of, live_nodes

KEPT = "kept"
"""The output of the forward graph that is kept, and the input of the backward graph that reads it."""


def keep_distance(program: Program, gaps: Graph | None = None) -> tuple[Graph, Graph] | None:
    """`(forward with the output "kept", backward with the input "kept")`, or None if u is not enough.

    It is enough for programs with one spike whose gradient contains x and the states only within u, and within the h of
    u = h - c where c depends on neither. IF and LIF are such programs, also with a learnable threshold. A learnable
    time constant, whose gradient contains x, and a quadratic charge are not.

    Args:
        program: the program.
        gaps: a backward pass with missing gradients (`with_gaps`), to be rewritten instead of the program's own.
    """
    distances = {node.args[1] for node in program.forward.nodes if node.op == SPIKE}
    if len(distances) != 1:
        return None
    (distance,) = distances
    source = program.backward if gaps is None else gaps
    numbering = Numbering()
    forward_numbers = numbering.add_graph(program.forward, lower=True)
    source_numbers = numbering.add_graph(source, lower=True)
    u = program.forward.nodes[distance]
    nodes: list[Node] = [Node(INPUT, value=KEPT)]
    given = {forward_numbers[distance]: 0}
    if u.op == "sub" and not _depends(program.forward, u.args[1]):
        threshold = _copy(program.forward, u.args[1], nodes)
        if not _is_infinite(nodes[threshold]):
            given.setdefault(forward_numbers[u.args[0]], _recover(threshold, nodes))
    backward = _replace(source, source_numbers, nodes, given)
    fixed = {f"grad.param.{param.name}" for param in program.params if not param.learnable}
    wanted = [name for name in backward.outputs if name not in fixed]
    if _reads_sequence(backward, wanted):
        return None
    forward = Graph(program.forward.nodes, {**program.forward.outputs, KEPT: distance})
    return forward, backward


def _reads_sequence(graph: Graph, wanted: Sequence[str]) -> bool:
    """Do some outputs depend on x or on a state?"""
    return any(name == "x" or name.startswith("state.") for name in inputs_of(graph, wanted))


def _depends(graph: Graph, index: int) -> bool:
    """Does a node depend on x or on a state?"""
    return _reads_sequence(Graph(graph.nodes, {"node": index}), ["node"])


def _is_infinite(node: Node) -> bool:
    return node.op == CONST and not math.isfinite(float(node.value or 0.0))


def _recover(c: int, nodes: list[Node]) -> int:
    """Append h = u + c, or 0 where a learned c is infinite, and return its index.

    With c infinite, u no longer determines h; 0 takes its place so that 0 * h is not NaN.
    """

    def append(node: Node) -> int:
        nodes.append(node)
        return len(nodes) - 1

    h = append(Node("add", (0, c)))  # node 0 is u
    if nodes[c].op == CONST:  # finite, as the caller has checked
        return h
    size = append(Node("abs", (c,)))
    infinity = append(Node(CONST, value=math.inf))
    zero = append(Node(CONST, value=0.0))
    is_finite = append(Node("lt", (size, infinity), is_bool=True))
    return append(Node("where", (is_finite, h, zero)))


def _copy(graph: Graph, index: int, nodes: list[Node]) -> int:
    """Append a node of `graph`, with everything it depends on, to `nodes`, and return its index there."""
    live = live_nodes(Graph(graph.nodes, {"node": index}), ["node"])
    new: dict[int, int] = {}
    for old in sorted(live):  # arguments come before what uses them
        node = graph.nodes[old]
        nodes.append(replace(node, args=tuple(new[a] for a in node.args)))
        new[old] = len(nodes) - 1
    return new[index]


def _replace(graph: Graph, numbers: Sequence[int], nodes: list[Node], given: Mapping[int, int]) -> Graph:
    """`graph` appended to `nodes`; an expression whose value number is in `given` becomes the node named there."""
    new: list[int] = []
    for node, number in zip(graph.nodes, numbers, strict=True):
        if number in given:
            new.append(given[number])
            continue
        nodes.append(replace(node, args=tuple(new[a] for a in node.args)))
        new.append(len(nodes) - 1)
    return Graph(tuple(nodes), {name: new[index] for name, index in graph.outputs.items()})
