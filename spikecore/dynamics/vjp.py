"""The vector-Jacobian product of one step, as a graph.

Reverse mode: nodes are visited from the last to the first, so the gradient of a node is complete before its rule
distributes it to the arguments. Rules use the same operations in the same order as torch's own derivatives, so a
printed backward pass and autograd differ only by the rounding of fused sums. `spike(value, u, d)` passes `g * d` to `u`
and nothing to its other arguments; `detach` passes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from spikecore.dynamics.builder import Builder, copy_into
from spikecore.dynamics.graph import CONST, DETACH, INPUT, SPIKE, Graph, Node, Program

Rule = Callable[[Builder, int, Sequence[int], int], list[int | None]]
"""(builder, gradient, arguments, value of the node) → the gradient of each argument; None where nothing passes."""


def vjp(forward: Graph, seeds: Iterable[str], wanted: Iterable[str], may_miss: bool = False) -> Graph:
    """The backward pass of `forward`.

    Args:
        forward: one step.
        seeds: outputs whose gradients flow in, as inputs `grad.NAME`.
        wanted: inputs whose gradients are computed, as outputs `grad.NAME`; 0 if no output depends on the input.
        may_miss: adds an input `arrives.NAME` for each seed, a truth value that says whether its gradient exists.
            Terms with a missing gradient are left out, as autograd leaves them out. A zero in its place would be
            wrong: zero times infinity is NaN.
    """
    builder = Builder()
    values = copy_into(builder, forward, lower=True)
    gradients: dict[int, int] = {}
    arrives: dict[int, int] = {}
    nothing = builder.const(-0.0)  # c + -0.0 is c for every c

    def add(node: int, gradient: int, arrival: int | None) -> None:
        if node in gradients:
            gradient = builder.op("add", gradients[node], gradient)
        gradients[node] = gradient
        if arrival is not None:
            arrives[node] = builder.op("or", arrives[node], arrival) if node in arrives else arrival

    arrival: int | None
    for name in seeds:
        gradient, arrival = builder.input(f"grad.{name}"), None
        if may_miss:
            arrival = builder.input(f"arrives.{name}", is_bool=True)
            gradient = builder.op("where", arrival, gradient, nothing)
        add(forward.outputs[name], gradient, arrival)
    for index in range(len(forward.nodes) - 1, -1, -1):
        node = forward.nodes[index]
        if index not in gradients or node.op in (INPUT, CONST):
            continue
        gradient, arrival = gradients[index], arrives.get(index)
        shares = _shares(builder, node, gradient, [values[a] for a in node.args], values[index])
        for argument, share in zip(node.args, shares, strict=True):
            if share is None:
                continue
            if arrival is not None and share != gradient:
                share = builder.op("where", arrival, share, nothing)
            add(argument, share, arrival)
    zero = builder.const(0.0)
    outputs: dict[str, int] = {}
    for name in wanted:
        node_index = forward.inputs.get(name)
        outputs[f"grad.{name}"] = zero if node_index is None else gradients.get(node_index, zero)
    return builder.graph(outputs)


def with_gaps(program: Program, arriving: Iterable[str] | None = None) -> Graph:
    """The backward pass of a program for steps at which gradients are missing.

    Args:
        program: the program.
        arriving: the outputs whose gradients exist. By default inputs of the graph say so at run time, see `may_miss`
            of `vjp`.
    """
    wanted = [name.removeprefix("grad.") for name in program.backward.outputs]
    if arriving is None:
        return vjp(program.forward, list(program.forward.outputs), wanted, may_miss=True)
    return vjp(program.forward, arriving, wanted)


def reached_inputs(forward: Graph, seeds: Iterable[str], through_flat: bool = False) -> frozenset[str]:
    """The inputs that a gradient reaches when those of the outputs `seeds` flow in.

    Args:
        forward: one step.
        seeds: outputs whose gradients flow in.
        through_flat: whether it passes functions whose derivative is 0 everywhere, too. The result is then a gradient
            of zeros, as under torch's autograd, and not none.
    """
    live = {forward.outputs[name] for name in seeds}
    for index in range(len(forward.nodes) - 1, -1, -1):
        if index in live:
            live.update(_passing(forward.nodes[index], through_flat))
    return frozenset(name for name, index in forward.inputs.items() if index in live)


def _passing(node: Node, through_flat: bool) -> Sequence[int]:
    """The arguments to which a node passes its gradient."""
    if through_flat and node.op in FLAT:
        return node.args
    if node.op in PASSES_NOTHING:
        return ()
    if node.op == SPIKE:
        return node.args[1:2]
    if node.op == "where":
        return node.args[1:]
    return node.args


def _shares(b: Builder, node: Node, g: int, args: Sequence[int], out: int) -> list[int | None]:
    rule = RULES.get(node.op)
    return [None] * len(args) if rule is None else rule(b, g, args, out)


def _div(b: Builder, g: int, args: Sequence[int], out: int) -> list[int | None]:
    return [b.op("div", g, args[1]), b.op("mul", b.op("neg", g), b.op("div", out, args[1]))]


def _sqrt(b: Builder, g: int, args: Sequence[int], out: int) -> list[int | None]:
    return [b.op("div", g, b.op("mul", b.const(2.0), out))]


def _tanh(b: Builder, g: int, args: Sequence[int], out: int) -> list[int | None]:
    return [b.op("mul", g, b.op("sub", b.const(1.0), b.op("mul", out, out)))]


def _sigmoid(b: Builder, g: int, args: Sequence[int], out: int) -> list[int | None]:
    return [b.op("mul", b.op("mul", g, b.op("sub", b.const(1.0), out)), out)]


def _atan(b: Builder, g: int, args: Sequence[int], out: int) -> list[int | None]:
    return [b.op("div", g, b.op("add", b.op("mul", args[0], args[0]), b.const(1.0)))]


def _erf(b: Builder, g: int, args: Sequence[int], out: int) -> list[int | None]:
    bell = b.op("exp", b.op("neg", b.op("mul", args[0], args[0])))
    return [b.op("mul", b.op("mul", b.const(2 / math.sqrt(math.pi)), bell), g)]


def _extreme(loses: str) -> Rule:
    """The rule of min or max, as in torch: the argument that `loses` gets nothing, equal ones half each, NaN all."""

    def rule(b: Builder, g: int, args: Sequence[int], out: int) -> list[int | None]:
        first, second = args
        half = b.op("where", b.op("eq", first, second), b.op("div", g, b.const(2.0)), g)
        zero = b.const(0.0)
        return [
            b.op("where", b.op(loses, first, second), zero, half),
            b.op("where", b.op(loses, second, first), zero, half),
        ]

    return rule


def _clamp(b: Builder, g: int, args: Sequence[int], out: int) -> list[int | None]:
    a, low, high = args
    zero = b.const(0.0)
    inside = b.op("and", b.op("ge", a, low), b.op("le", a, high))
    below = b.op("and", b.op("lt", low, high), b.op("lt", a, low))
    above = b.op("or", b.op("gt", a, high), b.op("lt", high, low))
    return [b.op("where", test, g, zero) for test in (inside, below, above)]


def _where(b: Builder, g: int, args: Sequence[int], out: int) -> list[int | None]:
    zero = b.const(0.0)
    return [None, b.op("where", args[0], g, zero), b.op("where", args[0], zero, g)]


RULES: dict[str, Rule] = {
    "add": lambda b, g, args, out: [g, g],
    "sub": lambda b, g, args, out: [g, b.op("neg", g)],
    "mul": lambda b, g, args, out: [b.op("mul", g, args[1]), b.op("mul", g, args[0])],
    "div": _div,
    "neg": lambda b, g, args, out: [b.op("neg", g)],
    "exp": lambda b, g, args, out: [b.op("mul", g, out)],
    "log": lambda b, g, args, out: [b.op("div", g, args[0])],
    "sqrt": _sqrt,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "abs": lambda b, g, args, out: [b.op("mul", g, b.op("sign", args[0]))],
    "sin": lambda b, g, args, out: [b.op("mul", g, b.op("cos", args[0]))],
    "cos": lambda b, g, args, out: [b.op("mul", g, b.op("neg", b.op("sin", args[0])))],
    "atan": _atan,
    "erf": _erf,
    "min": _extreme("gt"),
    "max": _extreme("lt"),
    "clamp": _clamp,
    "where": _where,
    SPIKE: lambda b, g, args, out: [None, b.op("mul", g, args[2]), None],
}
"""Operations without a rule pass no gradient: comparisons, logic, `sign`, `floor`, `round`, `detach`."""

FLAT = frozenset({"sign", "floor", "round"})
"""Their derivative is 0 wherever they have one."""
PASSES_NOTHING = FLAT | {"lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", DETACH}
