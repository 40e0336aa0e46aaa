"""Hoisting: values that depend on parameters alone are computed once per block of lanes, not at every step.

Values that cannot be hoisted that far but are uniform (the same for all lanes: truth values, values beyond the limit)
are computed once per row: inside the loop over lanes they would keep compilers from vectorising it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from spikecore.dynamics.graph import CONST, INPUT, Graph, Node
from spikecore.dynamics.passes.numbering import Numbering
from spikecore.dynamics.printing import live_nodes

DERIVED = "derived."
UNIFORM = "uniform."


def hoist(graphs: Sequence[Graph], wanted: Iterable[str], limit: int) -> tuple[Graph, list[Graph]]:
    """Split graphs at the values that depend on parameters alone.

    Args:
        graphs: a step, or gradients of one; they share the hoisted values.
        wanted: the outputs of every graph that matter.
        limit: how many values may be hoisted; the others stay where they are.

    Returns:
        `(before, rests)`: the outputs `derived.0`, … of `before` are inputs of the graphs in `rests`.
    """
    wanted = tuple(wanted)
    merged, outputs = _merge(graphs, wanted)

    def is_number(node: Node) -> bool:
        return not node.is_bool  # a row holds numbers

    before, rest = _cut(merged, merged.outputs, lambda name: name.startswith("param."), is_number, DERIVED, limit)
    return before, [Graph(rest.nodes, outs) for outs in outputs]


def hoist_uniform(graph: Graph, wanted: Iterable[str], is_uniform: Callable[[str], bool]) -> tuple[Graph, Graph]:
    """Likewise, for one graph and the values that depend on uniform inputs only; their names are `uniform.0`, …"""
    return _cut(graph, wanted, is_uniform, lambda node: True, UNIFORM, len(graph.nodes))


def _cut(
    graph: Graph,
    wanted: Iterable[str],
    is_given: Callable[[str], bool],
    may_move: Callable[[Node], bool],
    prefix: str,
    limit: int,
) -> tuple[Graph, Graph]:
    wanted = tuple(wanted)
    live = live_nodes(graph, wanted)
    fixed: list[bool] = []  # for each node: does it depend on constants and given inputs alone?
    for node in graph.nodes:
        is_source = node.op == CONST or (node.op == INPUT and is_given(str(node.value)))
        fixed.append(is_source or (node.op != INPUT and all(fixed[a] for a in node.args)))
    # The border between the two graphs: fixed nodes that are outputs, or are read by a node that is not fixed.
    read = {graph.outputs[name] for name in wanted}
    for index in live:
        if not fixed[index]:
            read.update(a for a in graph.nodes[index].args if a in live)
    moved = []
    for index in sorted(read):
        node = graph.nodes[index]
        if fixed[index] and node.op not in (INPUT, CONST) and may_move(node):
            moved.append(index)
    names = {index: f"{prefix}{place}" for place, index in enumerate(moved[:limit])}
    rest = list(graph.nodes)
    for index, name in names.items():
        rest[index] = Node(INPUT, value=name, is_bool=rest[index].is_bool)
    return Graph(graph.nodes, {name: index for index, name in names.items()}), Graph(tuple(rest), graph.outputs)


def _merge(graphs: Sequence[Graph], wanted: Sequence[str]) -> tuple[Graph, list[dict[str, int]]]:
    """`(one graph in which equal expressions of all graphs are one node, the outputs of every graph in it)`."""
    numbering = Numbering()
    outputs: list[dict[str, int]] = []
    all_outputs: dict[str, int] = {}
    for place, graph in enumerate(graphs):
        numbers = numbering.add_graph(graph)
        outputs.append({name: numbers[graph.outputs[name]] for name in wanted})
        all_outputs |= {f"{place}.{name}": index for name, index in outputs[-1].items()}
    return Graph(tuple(numbering.nodes), all_outputs), outputs
