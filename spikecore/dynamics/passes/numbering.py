"""Value numbering: equal expressions of one or more graphs get one number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spikecore.dynamics.graph import DETACH, SPIKE, Graph, Node


class Numbering:
    """The distinct expressions of all added graphs; `nodes[number]` computes an expression."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._numbers: dict[tuple[object, ...], int] = {}

    def add(self, node: Node, args: Sequence[int]) -> int:
        """The number of one operation on numbered arguments."""
        # Text rather than a float, so that 0.0 and -0.0 differ and NaN equals itself.
        value = node.value.hex() if isinstance(node.value, float) else node.value
        expression = (node.op, *args, value, node.is_bool, node.slot)
        if expression not in self._numbers:
            self._numbers[expression] = len(self.nodes)
            self.nodes.append(replace(node, args=tuple(args)))
        return self._numbers[expression]

    def add_graph(self, graph: Graph, lower: bool = False) -> list[int]:
        """The number of every node of a graph.

        Args:
            graph: read only.
            lower: give `spike` and `detach` the number of their value, as in a backward graph.
        """
        numbers: list[int] = []
        for node in graph.nodes:
            if lower and node.op in (SPIKE, DETACH):
                numbers.append(numbers[node.args[0]])
            else:
                numbers.append(self.add(node, [numbers[a] for a in node.args]))
        return numbers
