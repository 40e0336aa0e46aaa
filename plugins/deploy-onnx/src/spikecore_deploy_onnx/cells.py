"""Layers with state as one step: names of states, their first values, and the nodes of the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from spikecore import name_of, nn
from spikecore.nn import RefusedError
from spikecore_deploy_onnx.body import Array, Body
from spikecore_deploy_onnx.language import emit_graph, unknown_operations
from spikecore_deploy_onnx.layers import emit_layer

Shape = tuple[int, ...]
Step = Callable[[Body, str, Mapping[str, str]], tuple[str, dict[str, str]]]


@dataclass(frozen=True, eq=False)
class Cell:
    """One layer with state.

    Args:
        states: name → first value, `[1, ...]`, which is broadcast over the batch.
        step: adds the nodes of a step for an input and states; the output and the next states.
        neuron: name of the neuron in the net, relative to the layer: "" where it is the layer.
        shape: of its output, without the batch.
    """

    states: Mapping[str, Array]
    step: Step
    neuron: str
    shape: Shape


def cell_of(module: torch.nn.Module, shape: Shape, dtype: str) -> Cell:
    """The step of a neuron or of a loop around one.

    Raises:
        RefusedError: it is none, or its step has operations that ONNX has not.
    """
    if isinstance(module, nn.Neuron):
        return _neuron(module, shape, dtype)
    if type(module) is nn.LateralRecurrent:
        return _loop(
            module, shape, dtype, lambda body, x, y: body.op("Add", [x, _weighted(body, module.lateral, y, shape)])
        )
    if type(module) is nn.ElementwiseRecurrent and module.combine is torch.add:
        return _loop(module, shape, dtype, lambda body, x, y: body.op("Add", [x, y]))
    if type(module) is nn.LinearRecurrent:
        inner = (module.in_features,)

        def join(body: Body, x: str, y: str) -> str:
            both = body.op("Concat", [x, y], axis=-1)
            return emit_layer(body, module.linear, both, (module.in_features + module.out_features,))[0]

        return _loop(module, inner, dtype, join)
    raise RefusedError(
        f"{type(module).__name__} keeps state, and its step is not written in the neuron language",
        "use neurons that are, or a recurrent container around one",
    )


def _weighted(body: Body, lateral: torch.nn.Module, y: str, shape: Shape) -> str:
    return emit_layer(body, lateral, y, shape)[0]


def _loop(container: nn.Recurrent, shape: Shape, dtype: str, join: Callable[[Body, str, str], str]) -> Cell:
    neuron = container.module
    if not isinstance(neuron, nn.Neuron):
        raise RefusedError(f"it has a {type(neuron).__name__} in its loop", "put a single neuron into the loop")
    inner = _neuron(neuron, shape, dtype)
    _try_join(join, dtype)

    def step(body: Body, x: str, states: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        own = {name: value for name, value in states.items() if name != "y"}
        out, following = inner.step(body, join(body, x, states["y"]), own)
        return out, {**following, "y": body.op("Identity", [out])}

    first = np.zeros((1, *inner.shape), dtype)
    return Cell({**inner.states, "y": first}, step, "module", inner.shape)


def _try_join(join: Callable[[Body, str, str], str], dtype: str) -> None:
    """Refuses what it refuses now, when records are made."""
    from spikecore_deploy_onnx.body import Names

    join(Body(Names(), dtype), "x", "y")


def _neuron(neuron: nn.Neuron, shape: Shape, dtype: str) -> Cell:
    name = name_of(neuron)
    if ":" in name or "." in name:
        raise RefusedError(
            f"{type(neuron).__name__} is not registered, so its file would not say what it is",
            "register it: @register, or an entry point",
        )
    if type(neuron).forward is not nn.Neuron.forward:
        raise RefusedError(
            f"{type(neuron).__name__} does more than its step in the neuron language", "use another neuron"
        )
    program = neuron.program()
    unknown = unknown_operations(program.forward)
    if unknown:
        raise RefusedError(f"its step uses {', '.join(unknown)}, for which ONNX has no node here", "use another neuron")
    values = {param.name: _parameter(neuron, param.name, shape, dtype) for param in program.params}
    example = torch.zeros(1, *shape, dtype=getattr(torch, dtype))
    start = {key: tensor.detach().numpy().copy() for key, tensor in neuron.initial_state(example).items()}

    def step(body: Body, x: str, states: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        inputs = {"x": x, **{f"state.{key}": value for key, value in states.items()}}
        inputs |= {f"param.{key}": body.number(value, key) for key, value in values.items()}
        outputs = emit_graph(body, program.forward, inputs)
        following = {key: body.op("Identity", [outputs[f"state.{key}"]]) for key in states}
        return body.op("Identity", [outputs["out"]]), following

    observed = [key for key in program.states if key not in start]
    assert not observed, f"{observed}: the program has states that the neuron does not start"
    return Cell({key: start[key] for key in program.states}, step, "", shape)


def _parameter(neuron: nn.Neuron, name: str, shape: Shape, dtype: str) -> Array:
    """One number, or one for each channel along the first axis after the batch."""
    example = torch.zeros(1, *shape, dtype=getattr(torch, dtype))
    value = getattr(neuron.params_for(example), name)
    return torch.as_tensor(value).detach().numpy().astype(dtype)
