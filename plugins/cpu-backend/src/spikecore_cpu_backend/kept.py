"""What a forward pass may keep so that the backward pass needs neither x nor a second run of the steps.

A spike's derivative depends on u, the distance to the threshold. Where the gradient of a whole step can be computed
from u, spikes and parameters, u alone is kept (never the potential itself: rounded to 16 bits, u still tells on which
side of the threshold it was). With u = h - c, h is had back as u + c.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from spikecore.dynamics import Graph, Node, Program
from spikecore.dynamics.graph import CONST, DETACH, INPUT, SPIKE
from spikecore.dynamics.printing import inputs_of

KEPT = "kept"


def keeping(program: Program, gaps: Graph | None = None) -> tuple[Graph, Graph] | None:
    """`(forward with the output "kept", backward with the input "kept")`; None where u is not enough.

    With `gaps`, a backward pass at which gradients may be missing, that one is rewritten.

    The class of programs: one spike, and a gradient in which x and the states occur only within u (and within the h of
    u = h - c, c free of both). IF and LIF belong to it, with a learnable threshold too; a learnable time constant,
    whose gradient contains x, and a quadratic charge do not.
    """
    distances = {node.args[1] for node in program.forward.nodes if node.op == SPIKE}
    if len(distances) != 1:
        return None
    (distance,) = distances
    known: dict[tuple[object, ...], int] = {}
    source = program.backward if gaps is None else gaps
    ours, theirs = (_identities(graph, known) for graph in (program.forward, source))
    u = program.forward.nodes[distance]
    nodes: list[Node] = [Node(INPUT, value=KEPT)]
    given = {ours[distance]: 0}
    if u.op == "sub" and not _depends(program.forward, u.args[1]):
        threshold = _copied(program.forward, u.args[1], nodes)
        if not _is_infinite(nodes[threshold]):
            given.setdefault(ours[u.args[0]], _restored(threshold, nodes))
    backward = _rewritten(source, theirs, nodes, given)
    wanted = [name for name in backward.outputs if not name.startswith("grad.param.") or _is_learned(program, name)]
    if any(name == "x" or name.startswith("state.") for name in inputs_of(backward, wanted)):
        return None
    forward = Graph(program.forward.nodes, {**program.forward.outputs, KEPT: distance})
    return forward, backward


def _is_learned(program: Program, output: str) -> bool:
    return any(param.learnable and output == f"grad.param.{param.name}" for param in program.params)


def _identities(graph: Graph, known: dict[tuple[object, ...], int]) -> list[int]:
    """A number for each node, the same for equal expressions of all graphs that share `known`.

    `spike` and `detach` count as the value they stand for, as in the backward graph.
    """
    found: list[int] = []
    for node in graph.nodes:
        if node.op in (SPIKE, DETACH):
            found.append(found[node.args[0]])
            continue
        value = node.value.hex() if isinstance(node.value, float) else node.value
        key = (node.op, value, node.is_bool, *(found[a] for a in node.args))
        found.append(known.setdefault(key, len(known)))
    return found


def _depends(graph: Graph, index: int) -> bool:
    """Does a node depend on x or on a state?"""
    names = inputs_of(Graph(graph.nodes, {"": index}), [""])
    return any(name == "x" or name.startswith("state.") for name in names)


def _is_infinite(node: Node) -> bool:
    return node.op == CONST and not math.isfinite(float(node.value or 0.0))


def _restored(c: int, nodes: list[Node]) -> int:
    """h = u + c. From a learned c that is infinite it cannot be had back; 0 stands for it, so that 0 * h is not NaN."""
    nodes.append(Node("add", (0, c)))
    h = len(nodes) - 1
    if nodes[c].op == CONST:
        return h
    nodes += [Node("abs", (c,)), Node(CONST, value=math.inf), Node(CONST, value=0.0)]
    nodes += [Node("lt", (h + 1, h + 2), is_bool=True), Node("where", (h + 4, h, h + 3))]
    return h + 5


def _copied(graph: Graph, index: int, nodes: list[Node]) -> int:
    node = graph.nodes[index]
    args = tuple(_copied(graph, a, nodes) for a in node.args)
    nodes.append(Node(node.op, args, node.value, node.is_bool))
    return len(nodes) - 1


def _rewritten(graph: Graph, identities: Sequence[int], nodes: list[Node], given: Mapping[int, int]) -> Graph:
    """The graph behind `nodes`, its expressions of some identities replaced by those of them that `given` names."""
    new: list[int] = []
    for node, identity in zip(graph.nodes, identities, strict=True):
        if identity in given:
            new.append(given[identity])
            continue
        nodes.append(Node(node.op, tuple(new[a] for a in node.args), node.value, node.is_bool))
        new.append(len(nodes) - 1)
    return Graph(tuple(nodes), {name: new[index] for name, index in graph.outputs.items()})
