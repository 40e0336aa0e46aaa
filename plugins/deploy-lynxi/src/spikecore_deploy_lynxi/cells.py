"""Layers with state, unrolled: one step after the other, the state handed on as a value and never written into.

x holds all steps, `[T * B, ...]`, step after step: a step is a slice of B rows, and the results are concatenated. No
tensor has an axis for time, so a step may have three axes besides the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spikecore import name_of, nn
from spikecore.dynamics import CONST, INPUT, OPS, Graph
from spikecore.nn import RefusedError
from spikecore_deploy_lynxi.layers import Converted, Tensors, converted

Shape = tuple[int, ...]
States = dict[str, Tensor]
Step = Callable[[Tensor, States, Tensors], tuple[Tensor, States]]
Value = Tensor | float
TENSORS_ONLY = ("where", "min", "max")
"""Operations whose numbers must be tensors: torch would make them while it runs."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One layer with state.

    Args:
        tensors: parameters; first states by the name of the state, after "first_", without batch.
        states: their names.
        step: `(x [B, ...], states, tensors) -> (output, next states)`.
        neuron: name of the neuron in the net, relative to the layer: "" where it is the layer.
        shape: of its output, without the batch.
        largest_number: of the constants in its equations, by size.
    """

    tensors: Tensors
    states: tuple[str, ...]
    step: Step
    neuron: str
    shape: Shape
    largest_number: float


def unrolled(cell: Cell, num_steps: int, batch: int) -> Callable[[Tensor, Tensors], Tensor]:
    """The layer over all steps, `[T * B, ...]`."""

    def function(x: Tensor, own: Tensors) -> Tensor:
        states = {name: own[f"first_{name}"] for name in cell.states}
        outs = []
        for step in range(num_steps):
            out, states = cell.step(x[step * batch : (step + 1) * batch], states, own)
            outs.append(out)
        return torch.cat(outs)

    return function


def cell_of(module: torch.nn.Module, shape: Shape, batch: int) -> Cell:
    """The step of a neuron or of a loop around one.

    Raises:
        RefusedError: it is none, or its step is not written in the neuron language.
    """
    if isinstance(module, nn.Neuron):
        return _neuron(module, shape, batch)
    if type(module) is nn.LateralRecurrent:
        return _loop(module, shape, batch, converted(module.lateral), lambda x, y, back: x + back(y))
    if type(module) is nn.ElementwiseRecurrent and module.combine is torch.add:
        return _loop(module, shape, batch, None, lambda x, y, back: x + y)
    if type(module) is nn.LinearRecurrent:
        inner = (*shape[:-1], module.in_features)
        return _loop(module, inner, batch, converted(module.linear), lambda x, y, back: back(torch.cat([x, y], dim=-1)))
    raise RefusedError(
        f"{type(module).__name__} keeps state, and its step is not written in the neuron language",
        "use registered neurons, or a recurrent container around one",
    )


def _neuron(neuron: nn.Neuron, shape: Shape, batch: int) -> Cell:
    name = name_of(neuron)
    if ":" in name or "." in name:
        raise RefusedError(f"{type(neuron).__name__} is not registered", "register it: @register, or an entry point")
    if type(neuron).forward is not nn.Neuron.forward:
        raise RefusedError(
            f"{type(neuron).__name__} does more than its step in the neuron language", "use another neuron"
        )
    program = neuron.program()
    example = torch.zeros(batch, *shape)
    params = neuron.params_for(example)
    tensors = {}
    for param in program.params:
        tensors[f"param_{param.name}"] = torch.as_tensor(getattr(params, param.name)).detach().clone()
    first = neuron.initial_state(example)
    names = tuple(key for key in program.states if key in first)  # not what is only recorded
    for key in names:
        tensors[f"first_{key}"] = first[key].detach().clone().contiguous()
    graph = program.forward
    order = _needed(graph)
    tensors |= _number_tensors(graph, order)

    def step(x: Tensor, states: States, own: Tensors) -> tuple[Tensor, States]:
        inputs = {"x": x, **{f"state.{key}": value for key, value in states.items()}}
        inputs |= {f"param.{param.name}": own[f"param_{param.name}"] for param in program.params}
        values = _evaluated(graph, order, inputs, own)
        outputs = {key: values[index] for key, index in graph.outputs.items()}
        return _like(outputs["out"], x), {key: _like(outputs[f"state.{key}"], x) for key in names}

    return Cell(tensors, names, step, "", shape, _largest_number(graph, order))


def _like(value: Value, x: Tensor) -> Tensor:
    """A result that depends on constants alone is a number."""
    return value if isinstance(value, Tensor) else x * 0 + value


def _needed(graph: Graph) -> list[int]:
    """Indices of the nodes that outputs depend on, in order. What gives a spike its derivative is left out."""
    needed: set[int] = set()
    waiting = list(graph.outputs.values())
    while waiting:
        index = waiting.pop()
        if index in needed:
            continue
        needed.add(index)
        node = graph.nodes[index]
        waiting += node.args[:1] if node.op in ("spike", "detach") else node.args
    return sorted(needed)


def _number_tensors(graph: Graph, order: list[int]) -> dict[str, Tensor]:
    """Constants that torch takes as tensors only, by the name under which they are kept."""
    tensors = {}
    for index in order:
        node = graph.nodes[index]
        if node.op not in TENSORS_ONLY:
            continue
        for argument in node.args:
            other = graph.nodes[argument]
            if other.op == CONST and not other.is_bool:
                tensors[f"number_{argument}"] = torch.tensor(float(other.value))  # type: ignore[arg-type]
    return tensors


def _largest_number(graph: Graph, order: list[int]) -> float:
    """The largest constant by size, but for bounds of a clamp, which mean "as large as there is"."""
    used: set[int] = set()
    for index in order:
        node = graph.nodes[index]
        used |= set(node.args[:1] if node.op == "clamp" else node.args)
    values = [graph.nodes[index].value for index in used if graph.nodes[index].op == CONST]
    return max((abs(float(value)) for value in values if value is not None), default=0.0)


def _evaluated(graph: Graph, order: list[int], inputs: Mapping[str, Tensor], own: Tensors) -> dict[int, Value]:
    """Every needed node, one torch operation each."""
    values: dict[int, Value] = {}
    for index in order:
        node = graph.nodes[index]
        if node.op == INPUT:
            values[index] = inputs[str(node.value)]
        elif node.op == CONST:
            assert isinstance(node.value, float)
            values[index] = bool(node.value) if node.is_bool else node.value
        elif node.op in ("spike", "detach"):
            values[index] = values[node.args[0]]
        else:
            values[index] = _applied(node.op, node.args, values, own)
    return values


def _applied(name: str, arguments: tuple[int, ...], values: Mapping[int, Value], own: Tensors) -> Value:
    operation = OPS[name]
    given = [values[argument] for argument in arguments]
    if not any(isinstance(value, Tensor) for value in given):
        number: float = operation.numbers(*given)
        return number
    if name in TENSORS_ONLY:
        given = [own.get(f"number_{argument}", value) for argument, value in zip(arguments, given, strict=True)]
    elif name == "clamp" and not any(isinstance(bound, Tensor) for bound in given[1:]):
        return _clamped(given)
    result: Tensor = operation.tensors(*given)
    return result


def _clamped(given: list[Value]) -> Tensor:
    x, low, high = given
    assert isinstance(x, Tensor)
    bounds: dict[str, float] = {}
    for key, bound in (("min", low), ("max", high)):
        # The largest number of float32 keeps a product finite; in float16 that is the largest number of float16.
        most = torch.finfo(x.dtype).max
        if math.isfinite(float(bound)):
            bounds[key] = min(max(float(bound), -most), most)
    return torch.clamp(x, bounds.get("min"), bounds.get("max")) if bounds else x


def _loop(
    container: nn.Recurrent,
    shape: Shape,
    batch: int,
    back: Converted | None,
    join: Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor],
) -> Cell:
    neuron = container.module
    if not isinstance(neuron, nn.Neuron):
        raise RefusedError(f"it has a {type(neuron).__name__} in its loop", "put a single neuron into the loop")
    inner = _neuron(neuron, shape, batch)
    weights = {} if back is None else {f"back_{name}": tensor for name, tensor in back.tensors.items()}

    def feedback(y: Tensor, own: Tensors) -> Tensor:
        assert back is not None
        return back.function(y, {name: own[f"back_{name}"] for name in back.tensors})

    def step(x: Tensor, states: States, own: Tensors) -> tuple[Tensor, States]:
        current = join(x, states["y"], lambda y: feedback(y, own))
        out, following = inner.step(current, {name: states[name] for name in inner.states}, own)
        return out, {**following, "y": out}

    tensors = {**inner.tensors, **weights, "first_y": torch.zeros(batch, *inner.shape)}
    return Cell(tensors, (*inner.states, "y"), step, "module", inner.shape, inner.largest_number)
