"""Running a neuron's step: on the backend that was chosen for the input, or in the reference's plain loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikecore.backends.front import run_program, run_step
from spikecore.backends.reference import Step, loop
from spikecore.backends.selection import REFERENCE
from spikecore.dynamics import Namespace, Param, Program, trace
from spikecore.nn.half import HALF
from spikecore.nn.memory import State

if TYPE_CHECKING:
    from spikecore.nn.neuron import Neuron

RESERVED = "spikecore_"
SCALE, SHIFT = f"{RESERVED}scale", f"{RESERVED}shift"


def run(
    neuron: Neuron, x: Tensor, one_step: Tensor, state: State, affine: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, State, list[Tensor]]:
    """`(output, final state, what `record` names)`, of a sequence or of one step by the neuron's step mode.

    Args:
        neuron: whose step, backend and step mode.
        x: `[T, B, ...]` or `[B, ...]`.
        one_step: something that looks like one step of x.
        state: before the first step.
        affine: see `Neuron.forward`.
    """
    single = neuron.step_mode == "single"
    backend, key = neuron._choice(x.device, x.dtype, affine is not None)
    if backend != REFERENCE:
        params = [*neuron._tensors_for(one_step).values(), *(affine or ())] if affine or neuron._tensors else []
        if single:
            out, finals, recorded = run_step(backend, key, x, [*state.values()], params)
        else:
            out, finals, recorded = run_program(backend, key, x, [*state.values()], params, neuron.keeps_state)
        return out, dict(zip(state, finals)), recorded  # noqa: B905  (a checked zip takes twice as long)
    step = stepper(neuron, one_step)
    if not single:
        out, state, sequences = loop(step, x, state, {}, neuron.record)
        return out, state, list(sequences.values())
    out, state = step(x, state, {})
    for value in (x, *state.values()):
        if out is value:  # a caller may change what it is given
            out = out.clone()
    return out, state, [state[name].clone().unsqueeze(0) for name in neuron.record]


def stepper(neuron: Neuron, x: Tensor) -> Step:
    """`step` as a loop calls it: plain dictionaries in and out; half precision in, computed in single.

    Numbers become tensors, and no state is the input itself, which its owner may change.
    """
    step, params, dtype, is_half = neuron.step, neuron.params_for(x), x.dtype, x.dtype in HALF

    def advance(x: Tensor, state: dict[str, Any], _: Any) -> tuple[Tensor, dict[str, Tensor]]:
        wide = x.float() if is_half else x
        out, state = step(wide, Namespace(**state), params)
        if not isinstance(out, Tensor):
            out = torch.full_like(x, out)
        for name, value in state.items():
            if value is x:
                state = {**state, name: x.clone()}
            elif not isinstance(value, Tensor):
                state = {**state, name: torch.full_like(wide, value)}
        return out if out.dtype == dtype else out.to(dtype), state

    return advance


def traced(neuron: Neuron, affine: bool) -> Program:
    """The program of the step; with `affine`, of `step(x * scale + shift, ...)`."""
    params, step = neuron._declared_params(), neuron.step
    if affine:
        params += [Param(SCALE, per_channel=True), Param(SHIFT, per_channel=True)]
        step = _scaled(step)
    return trace(type(neuron).__name__, step, tuple(neuron.state), neuron._constants, params, neuron.record)


def _scaled(step: Callable[..., Any]) -> Callable[..., Any]:
    def scaled(x: Any, state: Any, params: Any) -> Any:
        return step(x * getattr(params, SCALE) + getattr(params, SHIFT), state, params)

    return scaled
