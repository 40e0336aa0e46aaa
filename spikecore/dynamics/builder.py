"""Builds a `Graph`: equal nodes become one, constants fold, dead nodes vanish.

Folding keeps every bit that a device would compute, in float32 and in float64: a constant is folded only where both
precisions agree, and `x * 1`, `x - 0`, `-(-x)` only because they hold for every x, -0.0 and NaN among them.
(`x + 0` does not: -0.0 + 0 is 0.) Nothing is reassociated, no division becomes a product, nothing is contracted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from spikecore.dynamics.graph import CONST, DETACH, INPUT, SPIKE, Graph, Node
from spikecore.dynamics.numbers import same, single
from spikecore.dynamics.ops import OPS
from spikecore.dynamics.source import refuse

COMMUTATIVE = frozenset({"add", "mul", "eq", "ne", "and", "or"})


class Builder:
    """A graph under construction; node indices are only meaningful within one builder."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._known: dict[tuple[object, ...], int] = {}

    def _node(self, node: Node, key: tuple[object, ...]) -> int:
        if key not in self._known:
            self._known[key] = len(self.nodes)
            self.nodes.append(node)
        return self._known[key]

    def input(self, name: str, is_bool: bool = False) -> int:
        """The input of this name."""
        return self._node(Node(INPUT, value=name, is_bool=is_bool), (INPUT, name))

    def const(self, value: float) -> int:
        """A constant; a Python bool is a constant truth value."""
        is_bool = isinstance(value, bool)
        number = float(value)
        return self._node(Node(CONST, value=number, is_bool=is_bool), (CONST, number.hex(), is_bool))

    def number(self, value: float, slot: int) -> int:
        """A constant that is an argument of compiled code: nothing folds on its value."""
        return self._node(Node(CONST, value=value, slot=slot), (CONST, slot))

    def op(self, name: str, *args: int) -> int:
        """An operation on earlier nodes, or what it folds to.

        Raises:
            DynamicsError: a truth value where a number is needed, or the reverse.
        """
        args = self._check_types(name, args)
        folded = self._fold(name, args)
        if folded is not None:
            return folded
        canonical = tuple(sorted(args)) if name in COMMUTATIVE else args
        return self._node(Node(name, args, is_bool=OPS[name].is_bool), (name, *canonical))

    def _check_types(self, name: str, args: tuple[int, ...]) -> tuple[int, ...]:
        """The arguments, or a refusal: the first `bool_args` must be truth values, the others numbers."""
        num_conditions = OPS[name].bool_args
        are_bool = [self.nodes[a].is_bool for a in args]
        if all(are_bool[:num_conditions]) and not any(are_bool[num_conditions:]):
            return args
        if name == "mul" and are_bool.count(True) == 1:  # mask * value, which torch accepts too
            one, zero = self.const(1.0), self.const(0.0)
            if are_bool[0]:
                return self.op("where", args[0], one, zero), args[1]
            return args[0], self.op("where", args[1], one, zero)
        if any(are_bool[num_conditions:]):
            raise refuse(
                f"{name!r} on a truth value: it needs numbers", "write where(condition, 1.0, 0.0) for the number"
            )
        raise refuse(f"{name!r} on a number: it needs a truth value", "write a comparison, such as v > 0.0")

    def _value(self, index: int) -> float | None:
        """The value of a constant that may be folded; None for any other node."""
        node = self.nodes[index]
        if node.op != CONST or node.slot is not None:
            return None
        return node.value if isinstance(node.value, float) else None

    def _fold(self, name: str, args: tuple[int, ...]) -> int | None:
        values = [self._value(a) for a in args]
        numbers = [value for value in values if value is not None]
        # `spike` and `detach` change the gradient, so they stay even where their value is known.
        may_fold = OPS[name].exact and name not in (SPIKE, DETACH)
        if len(numbers) == len(args) and may_fold:
            wide = float(OPS[name].numbers(*numbers))
            narrow = single(float(OPS[name].numbers(*map(single, numbers))))
            # Fold only if code in float32 would have computed the rounded float64 result.
            if same(single(wide), narrow):
                return self.const(bool(wide) if OPS[name].is_bool else wide)
        if name in ("and", "or", "not", "where"):
            return self._fold_logic(name, args, values)
        return self._fold_arithmetic(name, args, values)

    def _fold_logic(self, name: str, args: tuple[int, ...], values: list[float | None]) -> int | None:
        if name == "not":
            inner = self.nodes[args[0]]
            return inner.args[0] if inner.op == "not" else None
        if name == "where":
            if args[1] == args[2]:
                return args[1]
            if values[0] is None:
                return None
            return args[1] if values[0] else args[2]
        if args[0] == args[1]:  # a & a, a | a
            return args[0]
        for value, constant, other in ((values[0], args[0], args[1]), (values[1], args[1], args[0])):
            if value is None:
                continue
            # True & b = b, True | b = True; False & b = False, False | b = b.
            is_neutral = bool(value) == (name == "and")
            return other if is_neutral else constant
        return None

    def _fold_arithmetic(self, name: str, args: tuple[int, ...], values: list[float | None]) -> int | None:
        first = self.nodes[args[0]]
        if name in ("mul", "div") and values[1] == 1:
            return args[0]
        if name == "mul" and values[0] == 1:
            return args[1]
        if name == "sub" and values[1] is not None and same(values[1], 0.0):
            return args[0]
        if name == "add":  # only -0.0 is neutral: -0.0 + 0.0 is 0.0
            for value, other in ((values[0], args[1]), (values[1], args[0])):
                if value is not None and same(value, -0.0):
                    return other
        if name == "neg" and first.op == "neg":
            return first.args[0]
        if name == "abs" and first.op == "neg":
            return self.op("abs", first.args[0])
        if name == "abs" and first.op == "abs":
            return args[0]
        if name == DETACH and first.op in (DETACH, CONST):
            return args[0]
        return None

    def graph(self, outputs: Mapping[str, int]) -> Graph:
        """The graph of these outputs: live nodes only, numbered in the order in which the outputs need them.

        The numbering depends on the equations alone, so equal equations give equal graphs.
        """
        renumbered: dict[int, int] = {}
        nodes: list[Node] = []
        for output in outputs.values():
            # Depth first with a stack of our own: a long chain of operations would exceed Python's recursion limit.
            stack = [output]
            while stack:
                index = stack[-1]
                waiting = [a for a in self.nodes[index].args if a not in renumbered]
                if waiting:
                    stack.append(waiting[0])
                    continue
                stack.pop()
                if index not in renumbered:
                    node = self.nodes[index]
                    renumbered[index] = len(nodes)
                    nodes.append(replace(node, args=tuple(renumbered[a] for a in node.args)))
        return Graph(tuple(nodes), {name: renumbered[index] for name, index in outputs.items()})


def copy_into(
    builder: Builder, graph: Graph, lower: bool = False, given: Mapping[str, int] = MappingProxyType({})
) -> list[int]:
    """Write a graph's nodes into a builder.

    Args:
        builder: gets the nodes.
        graph: read only.
        lower: replace `spike` and `detach`, which affect the gradient only, by their value.
        given: name of an input → the node of `builder` that replaces it.

    Returns:
        For each node of `graph`, its index in `builder`.
    """
    new: list[int] = []
    for node in graph.nodes:
        if node.op == INPUT:
            name = str(node.value)
            new.append(given[name] if name in given else builder.input(name, node.is_bool))
        elif node.op == CONST:
            assert isinstance(node.value, float)
            if node.slot is not None:
                new.append(builder.number(node.value, node.slot))
            else:
                new.append(builder.const(bool(node.value) if node.is_bool else node.value))
        elif lower and node.op in (SPIKE, DETACH):
            new.append(new[node.args[0]])
        else:
            new.append(builder.op(node.op, *(new[a] for a in node.args)))
    return new


def lower_graph(graph: Graph) -> Graph:
    """The same function without `spike` and `detach`."""
    builder = Builder()
    new = copy_into(builder, graph, lower=True)
    return builder.graph({name: new[index] for name, index in graph.outputs.items()})
