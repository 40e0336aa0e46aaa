"""What depends on parameters alone is computed once for each block of lanes, not at every step.

What is then left of it and alike for all lanes (truth values, what there was no row for) is computed once for each row:
in the loop over lanes it would keep compilers from making vector code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from spikecore.dynamics import Graph, Node
from spikecore.dynamics.graph import CONST, INPUT
from spikecore.dynamics.printing import needed

DERIVED = "derived."
ALIKE = "alike."


def hoist(graphs: Sequence[Graph], wanted: Iterable[str], limit: int) -> tuple[Graph, list[Graph]]:
    """`(before, rests)`: of `graphs` each, with inputs `derived.0`, … which are the outputs of `before`.

    Args:
        graphs: a step, or gradients of one; they share what is hoisted.
        wanted: the outputs that matter, of each.
        limit: how many values may be hoisted; the rest stays where it is.
    """
    wanted = tuple(wanted)
    merged, outputs = _merged(graphs, wanted)

    def is_row(node: Node) -> bool:
        return not node.is_bool

    before, rest = _cut(merged, merged.outputs, lambda name: name.startswith("param."), is_row, DERIVED, limit)
    return before, [Graph(rest.nodes, each) for each in outputs]


def hoist_alike(graph: Graph, wanted: Iterable[str], alike: Callable[[str], bool]) -> tuple[Graph, Graph]:
    """The same for one graph and all that depends on the inputs that are `alike` for all lanes."""
    return _cut(graph, wanted, alike, lambda node: True, ALIKE, len(graph.nodes))


def _cut(
    graph: Graph,
    wanted: Iterable[str],
    is_given: Callable[[str], bool],
    may_move: Callable[[Node], bool],
    prefix: str,
    limit: int,
) -> tuple[Graph, Graph]:
    wanted = tuple(wanted)
    live = needed(graph, wanted)
    fixed: list[bool] = []
    for node in graph.nodes:
        is_source = node.op == CONST or (node.op == INPUT and is_given(str(node.value)))
        fixed.append(is_source or (node.op != INPUT and all(fixed[a] for a in node.args)))
    outputs = {graph.outputs[name] for name in wanted}
    read = {a for index in live if not fixed[index] for a in graph.nodes[index].args if a in live} | outputs
    found = [
        index
        for index in sorted(read)
        if fixed[index] and graph.nodes[index].op not in (INPUT, CONST) and may_move(graph.nodes[index])
    ][:limit]
    names = {index: f"{prefix}{place}" for place, index in enumerate(found)}
    nodes = tuple(
        Node(INPUT, value=names[i], is_bool=node.is_bool) if i in names else node for i, node in enumerate(graph.nodes)
    )
    return Graph(graph.nodes, {name: index for index, name in names.items()}), Graph(nodes, graph.outputs)


def _merged(graphs: Sequence[Graph], wanted: Sequence[str]) -> tuple[Graph, list[dict[str, int]]]:
    """One graph in which equal expressions of all of them are one, and the outputs of each."""
    nodes: list[Node] = []
    known: dict[tuple[object, ...], int] = {}
    outputs = []
    for graph in graphs:
        new: list[int] = []
        for node in graph.nodes:
            moved = replace(node, args=tuple(new[a] for a in node.args))
            value = node.value.hex() if isinstance(node.value, float) else node.value
            key = (moved.op, moved.args, value, moved.is_bool)
            if key not in known:
                known[key] = len(nodes)
                nodes.append(moved)
            new.append(known[key])
        outputs.append({name: new[graph.outputs[name]] for name in wanted})
    all_outputs = {f"{i}.{name}": index for i, each in enumerate(outputs) for name, index in each.items()}
    return Graph(tuple(nodes), all_outputs), outputs
