"""Divisions by numbers, as torch computes them on a GPU.

For `x / number` torch's CUDA operators compute `x * (1 / number)`; its CPU operators divide. The product may differ
from the quotient in the last bit. A kernel for GPUs has to fire where torch on a GPU fires, so it does the same.
"""

from __future__ import annotations

from dataclasses import replace

from spikecore.dynamics import CONST, Graph, Node


def multiply_by_reciprocals(graph: Graph) -> Graph:
    """Divisions by a constant or a numeric option as products with its reciprocal.

    A division by a parameter, which is a tensor, stays: torch divides there on a GPU, too.
    """
    nodes: list[Node] = []
    places: list[int] = []  # of the nodes of `graph` among the new ones
    reciprocals: dict[Node, int] = {}
    for node in graph.nodes:
        args = tuple(places[index] for index in node.args)
        new = replace(node, args=args)
        if node.op == "div":
            divisor = nodes[args[1]]
            if divisor.op == CONST and nodes[args[0]].op != CONST:
                if divisor not in reciprocals:
                    nodes.append(Node(CONST, value=1.0))
                    nodes.append(Node("div", (len(nodes) - 1, args[1])))
                    reciprocals[divisor] = len(nodes) - 1
                new = replace(node, op="mul", args=(args[0], reciprocals[divisor]))
        nodes.append(new)
        places.append(len(nodes) - 1)
    return Graph(tuple(nodes), {name: places[index] for name, index in graph.outputs.items()})
