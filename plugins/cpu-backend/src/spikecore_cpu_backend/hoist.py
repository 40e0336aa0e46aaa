"""What depends on parameters alone is computed once for each block of lanes, not at every step."""

from __future__ import annotations

from collections.abc import Iterable

from spikecore.dynamics import Graph, Node
from spikecore.dynamics.graph import CONST, INPUT
from spikecore.dynamics.printing import needed

DERIVED = "derived."


def hoist(graph: Graph, wanted: Iterable[str], limit: int) -> tuple[Graph, Graph]:
    """`(before, rest)`: `rest` is `graph` with inputs `derived.0`, … which are the outputs of `before`.

    Args:
        graph: a step or its gradient.
        wanted: the outputs that matter.
        limit: how many values may be hoisted; the rest stays where it is.
    """
    wanted = tuple(wanted)
    live = needed(graph, wanted)
    fixed: list[bool] = []
    for node in graph.nodes:
        is_parameter = node.op == INPUT and str(node.value).startswith("param.")
        fixed.append(is_parameter or node.op == CONST or (node.op != INPUT and all(fixed[a] for a in node.args)))
    outputs = {graph.outputs[name] for name in wanted}
    read = {a for index in live if not fixed[index] for a in graph.nodes[index].args if a in live} | outputs
    found = [
        index
        for index in sorted(read)
        if fixed[index] and graph.nodes[index].op not in (INPUT, CONST) and not graph.nodes[index].is_bool
    ][:limit]
    names = {index: f"{DERIVED}{place}" for place, index in enumerate(found)}
    nodes = tuple(Node(INPUT, value=names[i]) if i in names else node for i, node in enumerate(graph.nodes))
    return Graph(graph.nodes, {name: index for index, name in names.items()}), Graph(nodes, graph.outputs)
