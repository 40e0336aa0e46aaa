"""From a step function to a `Program`: run it once on symbols, differentiate, name it by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spikecore.dynamics.builder import Builder
from spikecore.dynamics.graph import Graph, Param, Program
from spikecore.dynamics.namespace import Namespace
from spikecore.dynamics.passes.arguments import lift_numbers
from spikecore.dynamics.sym import Sym, as_node
from spikecore.dynamics.vjp import vjp
from spikecore.errors import DynamicsError

FORM = 2
"""Part of every key: raised when the meaning of a graph changes."""


def trace(
    name: str,
    step: Callable[[Any, Any, Any], tuple[Any, Mapping[str, Any]]],
    states: Sequence[str],
    constants: Mapping[str, Any],
    params: Sequence[Param] = (),
    record: Sequence[str] = (),
) -> Program:
    """The program of a neuron.

    Args:
        name: class name, for messages.
        step: `step(x, state, params) -> (out, next state)`, pure.
        states: names of the states.
        constants: what `params` holds as plain values.
        params: what `params` holds as tensors.
        record: states whose sequence is wanted.

    Raises:
        DynamicsError: the step does what the neuron language cannot express; shows the user's own source line.
    """
    builder = Builder()

    def symbol(text: str) -> Sym:
        return Sym(builder, builder.input(text))

    state = Namespace(**{each: symbol(f"state.{each}") for each in states})
    given = Namespace(**{**constants, **{p.name: symbol(f"param.{p.name}") for p in params}})
    result = step(symbol("x"), state, given)
    out, following = _checked(name, result, states)
    outputs = {"out": _number(builder, name, "the output", out)}
    for each in states:
        outputs[f"state.{each}"] = _number(builder, name, f"state {each!r}", following[each])
    forward, numbers = lift_numbers(builder.graph(outputs))
    wanted = ["x", *(f"state.{each}" for each in states), *(f"param.{p.name}" for p in params if p.learnable)]
    backward = vjp(forward, list(outputs), wanted)
    structure = _structure(forward, backward, tuple(states), tuple(params), tuple(record))
    values = " ".join(number.hex() for number in numbers)
    key = hashlib.sha256(f"{structure}\n{values}".encode()).hexdigest()
    return Program(name, key, structure, numbers, forward, backward, tuple(states), tuple(params), tuple(record))


def _checked(name: str, result: Any, states: Sequence[str]) -> tuple[Any, Mapping[str, Any]]:
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
        raise DynamicsError(
            f"the step of {name} returned {type(result).__name__}: expected (out, {{'state': next value, ...}})"
        )
    missing = [each for each in states if each not in result[1]]
    unknown = [each for each in result[1] if each not in states]
    if missing or unknown:
        problems = [f"no next value for {', '.join(map(repr, missing))}"] if missing else []
        problems += [f"{', '.join(map(repr, unknown))} is not declared in `state`"] if unknown else []
        raise DynamicsError(f"the step of {name} returned {' and '.join(problems)} (states: {', '.join(states)})")
    return result


def _number(builder: Builder, name: str, what: str, value: Any) -> int:
    index = as_node(builder, value, f"{what} of {name}")
    if builder.nodes[index].is_bool:
        raise DynamicsError(
            f"{what} of {name} is a truth value: it needs a number; write where(condition, 1.0, 0.0, like=x), "
            "or spike(u, params.surrogate) for a spike with a gradient"
        )
    return index


def _structure(
    forward: Graph, backward: Graph, states: tuple[str, ...], params: tuple[Param, ...], record: tuple[str, ...]
) -> str:
    text = [f"form {FORM}", _text(forward), _text(backward), repr(states), repr(record)]
    text += [f"{param.name} {param.per_channel} {param.learnable}" for param in params]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def _text(graph: Graph) -> str:
    lines = []
    for node in graph.nodes:
        if node.slot is not None:
            value = f"slot {node.slot}"
        else:
            value = node.value.hex() if isinstance(node.value, float) else node.value or ""
        lines.append(f"{node.op} {node.args} {value} {int(node.is_bool)}")
    return "\n".join([*lines, repr(dict(graph.outputs))])
