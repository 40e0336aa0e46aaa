"""Numbers as arguments: programs that differ only in the values of their options share one structure.

A constant of a step becomes an argument (a node with a `slot`) unless a compiler gains from knowing its value:

* 0, 1 and -1, infinities, NaN and truth values: graphs fold and simplify on them;
* a power of two as divisor: compilers turn the division into a product, which is exact;
* the limits of `clamp`: its gradient folds on them.

This pass runs after constant folding, which uses Python's double precision, so results are bit-identical to those of a
graph with constants. Two options with the same value share one slot; that is a different structure.
"""

from __future__ import annotations

import math
from dataclasses import replace

from spikecore.dynamics.graph import CONST, Graph

KEPT_VALUES = (0.0, 1.0, -1.0)
"""Stay constants, since graphs simplify on them."""


def lift_numbers(graph: Graph) -> tuple[Graph, tuple[float, ...]]:
    """`(graph with slots, the number of each slot)`.

    Args:
        graph: a step, folded.
    """
    divisors: set[int] = set()
    limits: set[int] = set()
    for node in graph.nodes:
        if node.op == "div":
            divisors.add(node.args[1])
        if node.op == "clamp":
            limits.update(node.args[1:])
    nodes = list(graph.nodes)
    numbers: list[float] = []
    for index, node in enumerate(graph.nodes):
        if node.op != CONST or node.is_bool or index in limits:
            continue
        value = float(node.value or 0.0)
        if value in KEPT_VALUES or not math.isfinite(value):
            continue
        if index in divisors and _is_power_of_two(value):
            continue
        nodes[index] = replace(node, slot=len(numbers))
        numbers.append(value)
    return Graph(tuple(nodes), graph.outputs), tuple(numbers)


def _is_power_of_two(value: float) -> bool:
    """`frexp` gives a mantissa from 0.5 up to 1: it is 0.5 for powers of two alone, negative exponents too."""
    return math.frexp(abs(value))[0] == 0.5
