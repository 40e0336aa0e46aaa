"""Whether what a graph gives can only be 0 or 1, which backends may then write as bits."""

from __future__ import annotations

from spikecore.dynamics.graph import CONST, DETACH, SPIKE, Graph


def gives_spikes(graph: Graph, output: str) -> bool:
    """Is this output 0 or 1 for every input, NaN and infinities included, by the form of the graph alone?

    It is where it chooses between constants 0 and 1. A number that a program shares its code with others by (a
    constant with a slot) may be anything.
    """
    is_binary: list[bool] = []
    for node in graph.nodes:
        arguments = [is_binary[index] for index in node.args]
        if node.op == CONST:
            binary = node.slot is None and node.value in (0.0, 1.0)
        elif node.op in (DETACH, SPIKE):
            binary = arguments[0]
        else:
            binary = node.op == "where" and arguments[1] and arguments[2]
        is_binary.append(binary)
    return is_binary[graph.outputs[output]]
