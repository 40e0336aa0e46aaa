"""What printers of graphs share: order, names, one statement per operation.

A printer for a language is a table of operations and two methods. For C and languages derived from it, `CPrinter` has
most of it:

    class MyPrinter(CPrinter):
        operations = {**CPrinter.operations, "exp": "expf({0})"}

Names in the printed text consist of a reserved prefix and a number, never of a user's names, so a state called `k` or
`for` cannot clash with anything. Every operation becomes one statement, in the order of the graph and fully bracketed,
so nothing is reassociated.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from spikecore.dynamics.graph import CONST, INPUT, SPIKE, Graph, Node, Program
from spikecore.dynamics.numbers import single
from spikecore.errors import BackendError

PREFIX = "sc_"

C_OPERATIONS: Mapping[str, str] = {
    "add": "({0} + {1})",
    "sub": "({0} - {1})",
    "mul": "({0} * {1})",
    "div": "({0} / {1})",
    "neg": "(-{0})",
    "lt": "({0} < {1})",
    "le": "({0} <= {1})",
    "gt": "({0} > {1})",
    "ge": "({0} >= {1})",
    "eq": "({0} == {1})",
    "ne": "({0} != {1})",
    "and": "({0} & {1})",
    "or": "({0} | {1})",
    "not": "(!{0})",
    "where": "({0} ? {1} : {2})",
    "spike": "{0}",
    "detach": "{0}",
}
"""Operations that are written alike in C and in languages derived from it; functions differ between them."""


class Printer:
    """Prints graphs as straight-line code. A subclass for a language defines `declare` and `constant`.

    Args:
        is_double: the code computes in float64, not in float32.
    """

    operations: Mapping[str, str] = {}
    """Operation → text, in which `{0}`, `{1}`, … are its arguments. An instance may have a table of its own, as where
    the names of functions depend on the precision."""

    def __init__(self, is_double: bool = False) -> None:
        self.is_double = is_double

    def declare(self, name: str, text: str, is_bool: bool) -> str:
        """The statement that gives a value its name."""
        raise NotImplementedError(f"{type(self).__name__} must implement declare()")

    def constant(self, value: float, is_bool: bool) -> str:
        """The text of a constant, infinities and NaN included: exact, after rounding to the precision of the code."""
        raise NotImplementedError(f"{type(self).__name__} must implement constant()")

    def number(self, slot: int, value: float) -> str:
        """The text of a constant that has a slot.

        Default: the constant itself. A printer whose code is shared by all programs of one structure (see
        `Program.structure`) returns text that reads `Program.numbers[slot]`, rounded to the precision of the code.
        """
        return self.constant(value, is_bool=False)

    def print(
        self, graph: Graph, inputs: Mapping[str, str], wanted: Iterable[str], tag: str = ""
    ) -> tuple[list[str], dict[str, str]]:
        """The statements that compute some outputs of a graph, and only what these outputs need.

        Args:
            graph: the graph.
            inputs: name of an input → the text that reads it; holds at least the inputs that are needed.
            wanted: names of outputs.
            tag: becomes part of the names, so that two graphs can share a scope.

        Returns:
            `(statements, {output: the text of its value})`.

        Raises:
            BackendError: an operator that is not in `operations`.
        """
        wanted = tuple(wanted)
        live = live_nodes(graph, wanted)
        texts: dict[int, str] = {}
        statements: list[str] = []
        for index, node in enumerate(graph.nodes):
            if index not in live:
                continue
            if node.op == CONST:
                assert isinstance(node.value, float)
                if node.slot is not None:
                    texts[index] = self.number(node.slot, node.value)
                else:
                    texts[index] = self.constant(node.value, node.is_bool)
                continue
            if node.op == INPUT:
                text = inputs[str(node.value)]
            elif node.op in self.operations:
                text = self.operations[node.op].format(*(texts[a] for a in _arguments_read(node)))
            else:
                raise BackendError(f"{type(self).__name__} does not know the operator {node.op!r}")
            texts[index] = f"{PREFIX}{tag}{index}"
            statements.append(self.declare(texts[index], text, node.is_bool))
        return statements, {name: texts[graph.outputs[name]] for name in wanted}


class CPrinter(Printer):
    """Prints C. `real` is the type in which the code computes; a truth value is an `int`."""

    operations = C_OPERATIONS

    def declare(self, name: str, text: str, is_bool: bool) -> str:
        """A `const` variable."""
        ctype = "int" if is_bool else "real"
        return f"const {ctype} {name} = {text};"

    def constant(self, value: float, is_bool: bool) -> str:
        """A hexadecimal number, which is exact."""
        if is_bool:
            return "1" if value else "0"
        number = value if self.is_double else single(value)
        if math.isnan(number):
            return "NAN"
        if math.isinf(number):
            return "INFINITY" if number > 0 else "(-INFINITY)"
        suffix = "" if self.is_double else "f"
        text = f"{number.hex()}{suffix}"
        return f"({text})" if text.startswith("-") else text


def unknown_operators(program: Program, known: Collection[str]) -> list[str]:
    """The operators of a step and its gradient that are not among `known`, such as a printer's `operations`."""
    unknown: list[str] = []
    for node in (*program.forward.nodes, *program.backward.nodes):
        is_operator = node.op not in (INPUT, CONST)
        if is_operator and node.op not in known and node.op not in unknown:
            unknown.append(node.op)
    return unknown


def live_nodes(graph: Graph, wanted: Iterable[str]) -> set[int]:
    """The nodes that some outputs depend on."""
    live = {graph.outputs[name] for name in wanted}
    for index in range(len(graph.nodes) - 1, -1, -1):
        if index in live:
            live.update(_arguments_read(graph.nodes[index]))
    return live


def _arguments_read(node: Node) -> tuple[int, ...]:
    """The arguments that code for a node reads: a spike is its value; its distance and derivative are not computed."""
    return node.args[:1] if node.op == SPIKE else node.args


def slots_of(graph: Graph, wanted: Iterable[str]) -> list[int]:
    """The slots of the numbers that some outputs depend on."""
    slots: set[int] = set()
    for index in live_nodes(graph, wanted):
        slot = graph.nodes[index].slot
        if slot is not None:
            slots.add(slot)
    return sorted(slots)


def inputs_of(graph: Graph, wanted: Iterable[str]) -> list[str]:
    """Names of the inputs that some outputs depend on, in the order of the graph."""
    live = live_nodes(graph, wanted)
    return [str(node.value) for index, node in enumerate(graph.nodes) if index in live and node.op == INPUT]
