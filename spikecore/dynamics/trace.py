"""From a step function to a `Program`: run it once on symbols, differentiate the graph, hash its content."""

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
"""A version that is part of every key: increment it when the meaning of a graph changes."""


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
        constants: the parameters that are Python values.
        params: the parameters that are tensors.
        record: states whose sequence of post-step values is returned.

    Raises:
        DynamicsError: the neuron language cannot express the step; the message shows the line of the user's code.
    """
    builder = Builder()

    def symbol(text: str) -> Sym:
        return Sym(builder, builder.input(text))

    state_symbols = {state: symbol(f"state.{state}") for state in states}
    param_symbols = {param.name: symbol(f"param.{param.name}") for param in params}
    result = step(symbol("x"), Namespace(**state_symbols), Namespace(**{**constants, **param_symbols}))
    out, next_state = _check_result(name, result, states)

    outputs = {"out": _number(builder, name, "the output", out)}
    for state in states:
        outputs[f"state.{state}"] = _number(builder, name, f"state {state!r}", next_state[state])
    forward, numbers = lift_numbers(builder.graph(outputs))
    return make_program(name, forward, numbers, tuple(states), tuple(params), tuple(record))


def make_program(
    name: str,
    forward: Graph,
    numbers: tuple[float, ...],
    states: tuple[str, ...],
    params: tuple[Param, ...],
    record: tuple[str, ...],
) -> Program:
    """The program of a step's graph: with its gradient and its keys.

    Args:
        name: class name, for messages.
        forward: the step.
        numbers: the values of its slots.
        states: names of the states.
        params: the parameters that are tensors.
        record: states whose sequence of post-step values is returned.
    """
    wanted = ["x"]
    wanted += [f"state.{state}" for state in states]
    wanted += [f"param.{param.name}" for param in params if param.learnable]
    backward = vjp(forward, list(forward.outputs), wanted)

    structure = _structure(forward, backward, states, params, record)
    values = " ".join(number.hex() for number in numbers)
    key = hashlib.sha256(f"{structure}\n{values}".encode()).hexdigest()
    return Program(name, key, structure, numbers, forward, backward, states, params, record)


def _check_result(name: str, result: object, states: Sequence[str]) -> tuple[object, Mapping[str, object]]:
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
        raise DynamicsError(
            f"the step of {name} returned {type(result).__name__}: expected (out, {{'state': next value, ...}})"
        )
    out, next_state = result
    missing = [state for state in states if state not in next_state]
    unknown = [state for state in next_state if state not in states]
    problems: list[str] = []
    if missing:
        problems.append(f"no next value for {', '.join(map(repr, missing))}")
    if unknown:
        problems.append(f"{', '.join(map(repr, unknown))} is not declared in `state`")
    if problems:
        raise DynamicsError(f"the step of {name} returned {' and '.join(problems)} (states: {', '.join(states)})")
    return out, next_state


def _number(builder: Builder, name: str, what: str, value: object) -> int:
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
        elif isinstance(node.value, float):
            value = node.value.hex()  # exact, unlike the decimal form
        else:
            value = node.value or ""
        lines.append(f"{node.op} {node.args} {value} {int(node.is_bool)}")
    return "\n".join([*lines, repr(dict(graph.outputs))])
