"""Prints graphs as Triton.

Everything is rounded as IEEE 754 defines it: Triton's own `/` and `tl.sqrt` are approximations in float32, `tl.exp` is
one of `2**x`. Functions come from `libdevice`, which torch's CUDA operators use too. `FAST` are the exceptions, on
request only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from spikecore.dynamics import CONST, Graph, Node, Printer

NUMBER = "number"
_ALL = "propagate_nan=tl.PropagateNan.ALL"
_MINIMUM = f"tl.minimum({{0}}, {{1}}, {_ALL})"
_MAXIMUM = f"tl.maximum({{0}}, {{1}}, {_ALL})"

OPERATIONS: Mapping[str, str] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "neg": "{0} * -1.0",  # Triton 3.6's own minus is 0 - a, which loses the sign of zero
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "not": "~{0}",
    "where": "tl.where({0}, {1}, {2})",
    "spike": "{0}",
    "detach": "{0}",
    "abs": "tl.abs({0})",
    "sign": "tl.where({0} > 0.0, ONE, ZERO) - tl.where({0} < 0.0, ONE, ZERO)",
    "floor": "tl.floor({0})",
    "round": "libdevice.rint({0})",
    "exp": "libdevice.exp({0})",
    "log": "libdevice.log({0})",
    "tanh": "libdevice.tanh({0})",
    "sin": "libdevice.sin({0})",
    "cos": "libdevice.cos({0})",
    "atan": "libdevice.atan({0})",
    "erf": "libdevice.erf({0})",
    "min": _MINIMUM,
    "max": _MAXIMUM,
    "clamp": f"tl.minimum({_MAXIMUM}, {{2}}, {_ALL})",
}
SINGLE = {
    "div": "tl.math.div_rn({0}, {1})",
    "sqrt": "tl.math.sqrt_rn({0})",
    "sigmoid": "tl.math.div_rn(ONE, ONE + libdevice.exp({0} * -1.0))",
}
DOUBLE = {
    "div": "{0} / {1}",
    "sqrt": "tl.sqrt({0})",
    "sigmoid": "ONE / (ONE + libdevice.exp({0} * -1.0))",
}
FAST = {
    "exp": "tl.exp({0})",
    "sigmoid": "(ONE / (ONE + tl.exp({0} * -1.0)))",
    "tanh": "(ONE - (ONE + ONE) / (tl.exp({0} * 2.0) + ONE))",
}
"""By the GPU's approximate instructions, which there are for float32 alone."""


class TritonPrinter(Printer):
    """Prints Triton; one instance for each kernel, since it collects the kernel's constants.

    Args:
        is_double: the code computes in float64.
        fast_exp: functions of `FAST` are approximate.
    """

    def __init__(self, is_double: bool = False, fast_exp: bool = False) -> None:
        super().__init__(is_double)
        self.dtype = "tl.float64" if is_double else "tl.float32"
        precise = DOUBLE if is_double else SINGLE
        fast = FAST if fast_exp and not is_double else {}
        self.operations = {**OPERATIONS, **precise, **fast}
        self._constants: dict[str, str] = {}

    def declare(self, name: str, text: str, is_bool: bool) -> str:
        """An assignment."""
        return f"{name} = {text}"

    def constant(self, value: float, is_bool: bool) -> str:
        """The name of a constant of the kernel, see `constants`: a literal would be float32 in some places."""
        literal, dtype = (str(int(value)), "tl.int1") if is_bool else (_literal(value), self.dtype)
        text = f"tl.full((), {literal}, {dtype})"
        if value == 0 and math.copysign(1.0, value) < 0:  # Triton 3.6 makes 0.0 of the literal
            text = f"tl.full((), 0.0, {dtype}) * -1.0"
        return self._constants.setdefault(text, f"constant{len(self._constants)}")

    def number(self, slot: int, value: float) -> str:
        """An argument of the kernel."""
        return f"{NUMBER}{slot}"

    def constants(self) -> list[str]:
        """The statements that define the constants that were printed."""
        return [f"{name} = {text}" for text, name in self._constants.items()]


def multiply_by_powers(graph: Graph) -> Graph:
    """Divisions by a power of two as products, which is exact: a C compiler does so, Triton's exact division not."""
    nodes = list(graph.nodes)
    for index, node in enumerate(graph.nodes):
        if node.op != "div":
            continue
        divisor = graph.nodes[node.args[1]]
        if divisor.op != CONST or divisor.slot is not None:
            continue
        value = float(divisor.value or 0.0)
        # Beyond these limits the reciprocal would not be a normal float32.
        if math.frexp(abs(value))[0] == 0.5 and 2.0**-126 <= abs(value) <= 2.0**126:
            nodes.append(Node(CONST, value=1.0 / value))
            nodes[index] = replace(node, op="mul", args=(node.args[0], len(nodes) - 1))
    return _in_order(Graph(tuple(nodes), graph.outputs), len(graph.nodes))


def _in_order(graph: Graph, num_old: int) -> Graph:
    """The constants behind node `num_old` moved to the front."""
    num_new = len(graph.nodes) - num_old
    if not num_new:
        return graph

    def place(index: int) -> int:
        return index - num_old if index >= num_old else index + num_new

    moved = (*graph.nodes[num_old:], *graph.nodes[:num_old])
    nodes = tuple(replace(node, args=tuple(place(a) for a in node.args)) for node in moved)
    return Graph(nodes, {name: place(index) for name, index in graph.outputs.items()})


def _literal(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return f'float("{value}")'
