"""What a forward pass may keep so that the backward pass needs neither x nor a second run of the steps.

A spike's derivative depends on u, the distance to the threshold. Where the gradient of a whole step can be computed
from u, spikes and parameters, u alone is kept (never the potential itself: rounded to 16 bits, u still tells on which
side of the threshold it was). With u = h - c, h is recovered as u + c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from spikecore.dynamics.graph import CONST, INPUT, SPIKE, Graph, Node, Program
from spikecore.dynamics.passes.numbering import Numbering
from spikecore.dynamics.printing import inputs_of

KEPT = "kept"
"""The output of the forward graph that is kept, and the input of the backward graph that reads it."""


def keeping(program: Program, gaps: Graph | None = None) -> tuple[Graph, Graph] | None:
    """`(forward with the output "kept", backward with the input "kept")`; None where u is not enough.

    The class of programs: one spike, and a gradient in which x and the states occur only within u (and within the h of
    u = h - c, c free of both). IF and LIF belong to it, with a learnable threshold too; a learnable time constant,
    whose gradient contains x, and a quadratic charge do not.

    Args:
        program: the program.
        gaps: rewrite this backward pass, at which gradients may be missing, instead of the program's own.
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
    wanted = [name for name in backward.outputs if not name.startswith("grad.param.") or _is_learned(program, name)]
    if any(name == "x" or name.startswith("state.") for name in inputs_of(backward, wanted)):
        return None
    forward = Graph(program.forward.nodes, {**program.forward.outputs, KEPT: distance})
    return forward, backward


def _is_learned(program: Program, output: str) -> bool:
    return any(param.learnable and output == f"grad.param.{param.name}" for param in program.params)


def _depends(graph: Graph, index: int) -> bool:
    """Does a node depend on x or on a state?"""
    names = inputs_of(Graph(graph.nodes, {"": index}), [""])
    return any(name == "x" or name.startswith("state.") for name in names)


def _is_infinite(node: Node) -> bool:
    return node.op == CONST and not math.isfinite(float(node.value or 0.0))


def _recover(c: int, nodes: list[Node]) -> int:
    """h = u + c. A learned c that is infinite hides h; 0 stands for it, so that 0 * h is not NaN."""
    nodes.append(Node("add", (0, c)))
    h = len(nodes) - 1
    if nodes[c].op == CONST:
        return h
    nodes += [Node("abs", (c,)), Node(CONST, value=math.inf), Node(CONST, value=0.0)]
    nodes += [Node("lt", (h + 1, h + 2), is_bool=True), Node("where", (h + 4, h, h + 3))]
    return h + 5


def _copy(graph: Graph, index: int, nodes: list[Node]) -> int:
    """Append a node of `graph`, and what it depends on, to `nodes`."""
    node = graph.nodes[index]
    args = tuple(_copy(graph, a, nodes) for a in node.args)
    nodes.append(replace(node, args=args))
    return len(nodes) - 1


def _replace(graph: Graph, numbers: Sequence[int], nodes: list[Node], given: Mapping[int, int]) -> Graph:
    """The graph behind `nodes`; its expressions whose number is in `given` are replaced by nodes that stand there."""
    new: list[int] = []
    for node, number in zip(graph.nodes, numbers, strict=True):
        if number in given:
            new.append(given[number])
            continue
        nodes.append(replace(node, args=tuple(new[a] for a in node.args)))
        new.append(len(nodes) - 1)
    return Graph(tuple(nodes), {name: new[index] for name, index in graph.outputs.items()})
