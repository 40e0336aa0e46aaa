"""What printers of graphs have in common: order, names, one statement for each operation.

A printer for a language is a table and a few words. For C and the languages that descend from it, `CPrinter` has most:

    class MyPrinter(CPrinter):
        operations = {**CPrinter.operations, "exp": "expf({0})"}

Names in the text are made from a reserved prefix and a number, never from a user's names, so that a state called `k` or
`for` cannot clash with anything. Every operation stands in a statement of its own, in the order of the graph, fully
bracketed: nothing is reassociated.
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
"""What reads alike in C and in the languages that descend from it; functions are each printer's own."""


class Printer:
    """Prints graphs as straight-line code. A language says how it declares a value and writes a constant.

    Args:
        is_double: the code computes in float64, not in float32.
    """

    operations: Mapping[str, str] = {}
    """Operation → text, `{0}`, `{1}`, … standing for its arguments. An instance may have its own table, for its
    precision."""

    def __init__(self, is_double: bool = False) -> None:
        self.is_double = is_double

    def declare(self, name: str, text: str, is_bool: bool) -> str:
        """The statement that gives a value its name."""
        raise NotImplementedError("a printer says how its language declares a value")

    def constant(self, value: float, is_bool: bool) -> str:
        """A constant: exact, rounded to float32 first where the code computes in float32; infinities and NaN too."""
        raise NotImplementedError("a printer says how its language writes a constant")

    def number(self, slot: int, value: float) -> str:
        """A constant that has a slot. A printer whose code is shared by all programs of one structure (see
        `Program.structure`) gives the text that reads `Program.numbers[slot]`, rounded to the precision of the code.

        Default: the constant.
        """
        return self.constant(value, is_bool=False)

    def print(
        self, graph: Graph, inputs: Mapping[str, str], wanted: Iterable[str], tag: str = ""
    ) -> tuple[list[str], dict[str, str]]:
        """The statements that compute some outputs of a graph; what they do not need is left out.

        Args:
            graph: the graph.
            inputs: name of an input → the text that reads it. An input that is needed must be there.
            wanted: names of outputs.
            tag: put into the names, for two graphs in one scope.

        Returns:
            `(statements, {output: the text of its value})`.

        Raises:
            BackendError: an operator that is not in `operations`.
        """
        wanted = tuple(wanted)
        live = needed(graph, wanted)
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
                text = self.operations[node.op].format(*(texts[a] for a in _read(node)))
            else:
                raise BackendError(f"{type(self).__name__} does not know the operator {node.op!r}")
            texts[index] = f"{PREFIX}{tag}{index}"
            statements.append(self.declare(texts[index], text, node.is_bool))
        return statements, {name: texts[graph.outputs[name]] for name in wanted}


class CPrinter(Printer):
    """Prints C: `real` is the type in which the code computes, a truth value is an `int`."""

    operations = C_OPERATIONS

    def declare(self, name: str, text: str, is_bool: bool) -> str:
        """A constant of its scope."""
        return f"const {'int' if is_bool else 'real'} {name} = {text};"

    def constant(self, value: float, is_bool: bool) -> str:
        """In hexadecimal, which is exact."""
        if is_bool:
            return "1" if value else "0"
        number = value if self.is_double else single(value)
        if math.isnan(number):
            return "NAN"
        if math.isinf(number):
            return "INFINITY" if number > 0 else "(-INFINITY)"
        text = number.hex() if self.is_double else f"{number.hex()}f"
        return f"({text})" if text.startswith("-") else text


def unknown_operators(program: Program, known: Collection[str]) -> list[str]:
    """The operators that a step or its gradient needs and that are not `known`, such as a printer's `operations`."""
    nodes = (*program.forward.nodes, *program.backward.nodes)
    used = dict.fromkeys(node.op for node in nodes if node.op not in (INPUT, CONST))
    return [name for name in used if name not in known]


def needed(graph: Graph, wanted: Iterable[str]) -> set[int]:
    """The nodes that some outputs depend on. Of a spike that is its value alone."""
    live = {graph.outputs[name] for name in wanted}
    for index in range(len(graph.nodes) - 1, -1, -1):
        if index in live:
            live.update(_read(graph.nodes[index]))
    return live


def _read(node: Node) -> tuple[int, ...]:
    return node.args[:1] if node.op == SPIKE else node.args


def slots_of(graph: Graph, wanted: Iterable[str]) -> list[int]:
    """The slots of the numbers that some outputs depend on."""
    live = needed(graph, wanted)
    return sorted({node.slot for index, node in enumerate(graph.nodes) if index in live and node.slot is not None})


def inputs_of(graph: Graph, wanted: Iterable[str]) -> list[str]:
    """Names of the inputs that some outputs depend on, in the order of the graph."""
    live = needed(graph, wanted)
    return [str(node.value) for index, node in enumerate(graph.nodes) if index in live and node.op == INPUT]
