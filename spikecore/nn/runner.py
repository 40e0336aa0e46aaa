"""Running a neuron's step: on the backend that was chosen for the input, or in the reference's plain loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikecore.backends.front import run_program, run_step
from spikecore.backends.norm import run_norm_neuron
from spikecore.backends.reference import Step, loop
from spikecore.backends.selection import REFERENCE
from spikecore.dynamics import Namespace, Param, Program, trace
from spikecore.interfaces.backend import NormCall
from spikecore.nn.flattening import Flattening
from spikecore.nn.half import HALF, state_dtype
from spikecore.nn.memory import State

if TYPE_CHECKING:
    from spikecore.nn.batch_statistics import BatchStatistics
    from spikecore.nn.neuron import Neuron

RESERVED = "spikecore_"
SCALE, SHIFT = f"{RESERVED}scale", f"{RESERVED}shift"


def run(
    neuron: Neuron,
    x: Tensor,
    one_step: Tensor,
    state: State,
    affine: tuple[Tensor, Tensor] | None = None,
    norm: BatchStatistics | None = None,
) -> tuple[Tensor, State, list[Tensor]]:
    """`(output, final state, what `record` names)`, of a sequence or of one step by the neuron's step mode.

    Args:
        neuron: whose step, backend and step mode.
        x: `[T, B, ...]` or `[B, ...]`.
        one_step: something that looks like one step of x.
        state: before the first step.
        affine: see `Neuron.forward`.
        norm: the same.
    """
    observed = [name for name in neuron.record if name in neuron.observed]
    backend, key = neuron._choice(x.device, x.dtype, affine is not None)
    if backend == REFERENCE:
        return _run_reference(neuron, x if norm is None else norm.norm_alone(x), one_step, state, observed)
    if observed:
        # To a backend it is a state that no step reads.
        unread = torch.zeros((), dtype=state_dtype(x), device=x.device).expand(one_step.shape)
        state = {**state, **dict.fromkeys(observed, unread)}
    params: list[Tensor] = []
    if affine or neuron._tensors:
        params = [*neuron._tensors_for(one_step).values(), *(affine or ())]
    if norm is not None:
        # Options with one value per neuron flatten all axes into one, on which the norm's channels are lost.
        if not neuron._is_per_neuron:
            normed = _run_normed(neuron, x, norm, [*state.values()], params)
            if normed is not None:
                out, finals, recorded = normed
                return out, _without(dict(zip(state, finals, strict=False)), observed), recorded
        x = norm.norm_alone(x)
    flattening = Flattening(one_step) if neuron._is_per_neuron else None
    if flattening:
        x = flattening.flatten(x)
        state = {name: flattening.flatten(value) for name, value in state.items()}
        params = [flattening.flatten_option(value) for value in params]
    if neuron.step_mode == "single":
        out, finals, recorded = run_step(backend, key, x, [*state.values()], params)
    else:
        out, finals, recorded = run_program(backend, key, x, [*state.values()], params, neuron.keeps_state)
    # Without strict=True: where no state is kept there are no final states, and a checked zip takes twice as long.
    last = dict(zip(state, finals))  # noqa: B905
    if flattening:
        out, last = flattening.restore(out), flattening.restore_all(last)
        recorded = [flattening.restore(sequence) for sequence in recorded]
    return out, _without(last, observed), recorded


def _run_reference(
    neuron: Neuron, x: Tensor, one_step: Tensor, state: State, observed: Sequence[str]
) -> tuple[Tensor, State, list[Tensor]]:
    """As `run`, in the plain loop under autograd."""
    step = stepper(neuron, one_step)
    if neuron.step_mode == "multi":
        out, state, sequences = loop(step, x, state, {}, neuron.record)
        return out, _without(state, observed), list(sequences.values())
    out, state = step(x, state, {})
    for value in (x, *state.values()):
        if out is value:  # the caller may change what it is given
            out = out.clone()
    recorded = [state[name].clone().unsqueeze(0) for name in neuron.record]
    return out, _without(state, observed), recorded


def _run_normed(
    neuron: Neuron, y: Tensor, norm: BatchStatistics, states: list[Tensor], params: list[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]] | None:
    """Norm and neuron in one call, as `run` gives them; None where the backend runs them one by one."""
    single = neuron.step_mode == "single"
    backend, key = neuron._choice(y.device, y.dtype, False)
    gamma, beta = norm.gamma_beta(state_dtype(y))
    sequence = y[None] if single else y
    call = NormCall(key, sequence, gamma, beta, norm.norm.eps, states, params)
    normed = run_norm_neuron(backend, call, neuron.keeps_state)
    if normed is None:
        return None
    norm.update(normed.mean, normed.var, y.numel() // normed.mean.numel())
    return normed.out[0] if single else normed.out, normed.finals, normed.recorded


def _without(state: State, names: Sequence[str]) -> State:
    if not names:
        return state
    return {name: value for name, value in state.items() if name not in names}


def stepper(neuron: Neuron, x: Tensor) -> Step:
    """`step` as a loop calls it: plain dictionaries in and out; half precision in, computed in single.

    Numbers become tensors, and no state is the input itself, which its owner may change.
    """
    # Looked up once, not at every step.
    step, params, dtype, is_half = neuron.step, neuron.params_for(x), x.dtype, x.dtype in HALF
    unwanted = [name for name in neuron.observed if name not in neuron.record]

    def advance(x: Tensor, state: dict[str, Any], _: Any) -> tuple[Tensor, dict[str, Tensor]]:
        wide = x.float() if is_half else x
        out, state = step(wide, Namespace(**state), params)
        if unwanted:
            state = _without(state, unwanted)
        if not isinstance(out, Tensor):
            out = torch.full_like(x, out)
        for name, value in state.items():
            if value is x:
                state = {**state, name: x.clone()}
            elif not isinstance(value, Tensor):
                state = {**state, name: torch.full_like(wide, value)}
        return out if out.dtype == dtype else out.to(dtype), state

    return advance


def trace_step(neuron: Neuron, affine: bool) -> Program:
    """The program of the step; with `affine`, of `step(x * scale + shift, ...)`."""
    params, step = neuron._declared_params(), _add_derived(neuron)
    wanted = [name for name in neuron.observed if name in neuron.record]
    unwanted = [name for name in neuron.observed if name not in neuron.record]
    if unwanted:
        step = _leave_out(step, unwanted)
    if affine:
        params += [Param(SCALE, per_channel=True), Param(SHIFT, per_channel=True)]
        step = _scale_input(step)
    return trace(type(neuron).__name__, step, (*neuron.state, *wanted), neuron._constants, params, neuron.record)


def _add_derived(neuron: Neuron) -> Callable[..., Any]:
    """The step with what `params` has besides constants and tensors."""
    if not (neuron._aliases or neuron._surrogates):
        return neuron.step

    def step(x: Any, state: Any, params: Any) -> Any:
        values = vars(params)
        return neuron.step(x, state, Namespace(**values, **neuron._derived(values)))

    return step


def _leave_out(step: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """The step without the values that it returns for `record` alone and that are not recorded."""

    def lean(x: Any, state: Any, params: Any) -> Any:
        result = step(x, state, params)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
            return result  # `trace` explains what is wrong with it
        return result[0], {name: value for name, value in result[1].items() if name not in names}

    return lean


def _scale_input(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step of x * scale + shift."""

    def scaled(x: Any, state: Any, params: Any) -> Any:
        return step(x * getattr(params, SCALE) + getattr(params, SHIFT), state, params)

    return scaled
