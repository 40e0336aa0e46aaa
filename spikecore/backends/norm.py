"""Batch norm with the statistics of the batch and a neuron as one call of a backend, with its gradient.

Only plain tensors come here: a compiler, a transform or a mode sees torch's norm and the neuron's operator instead, so
there is no pair of operators for the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from spikecore.backends.autograd import no_derivative, reached_inputs_of
from spikecore.backends.front import run_program
from spikecore.backends.installed import installed_backend
from spikecore.backends.memory_format import from_rows, is_channels_last, to_rows
from spikecore.backends.plain import in_memory, is_plain, refuse_batches
from spikecore.errors import BackendError
from spikecore.interfaces.backend import NormCall
from spikecore.torch_internals import apply_unchecked


@dataclass(frozen=True)
class Normed:
    """What one call gives.

    Args:
        out: `[T, B, C, ...]`.
        finals: the states after the last step.
        recorded: recorded sequences.
        mean: of y over all axes but the channels', `[C]`.
        var: of the population, `[C]`.
    """

    out: Tensor
    finals: list[Tensor]
    recorded: list[Tensor]
    mean: Tensor
    var: Tensor


def run_norm_neuron(name: str, call: NormCall, carry: bool) -> Normed | None:
    """Norm y `[T, B, C, ...]` and run a learned program over it; see `Backend.norm_neuron`.

    The results have the memory format of y and a gradient (mean and var have none).

    Returns:
        The results, or None where the backend leaves norm and neuron to be run one by one.

    Raises:
        BackendError: no such backend, or a key that it has not learned.
    """
    if is_channels_last(call.y, 1):
        return _run_rows(name, call, carry)
    tensors = [call.y, call.gamma, call.beta, *call.states, *call.params]
    if not is_plain(tensors):
        return None
    wants_grad = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    backend = installed_backend(name).backend
    with torch.no_grad():
        results = backend.norm_neuron(call, wants_grad, carry)
    if results is None:
        return None
    out, finals, recorded, mean, var, saved = results
    if wants_grad:
        wants_states = any(state.requires_grad for state in call.states)
        plan = _Plan(name, call.key, call.eps, len(call.states), len(recorded), len(tensors), carry, wants_states)
        out, *others = _apply(plan, (out, *finals, *recorded), saved, *tensors)
        finals, recorded = others[: len(finals)], others[len(finals) :]
    return Normed(out, finals, recorded, mean, var)


def _run_rows(name: str, call: NormCall, carry: bool) -> Normed | None:
    """The same for channels-last y: over its rows, whose results get the shape and the format of y."""
    shape = call.y.shape[1:]
    rows = replace(call, y=to_rows(call.y, 1), states=[to_rows(state, 0) for state in call.states])
    normed = run_norm_neuron(name, rows, carry)
    if normed is None:
        return None
    return Normed(
        from_rows(normed.out, shape, 1),
        [from_rows(final, shape, 0) for final in normed.finals],
        [from_rows(sequence, shape, 1) for sequence in normed.recorded],
        normed.mean,
        normed.var,
    )


@dataclass(frozen=True)
class _Plan:
    """What the backward pass must know of the call; `num_given`: y, gamma, beta, states, params."""

    name: str
    key: str
    eps: float
    num_states: int
    num_recorded: int
    num_given: int
    carry: bool
    wants_states: bool

    def call(self, y: Tensor, gamma: Tensor | None, beta: Tensor | None, *others: Tensor) -> NormCall:
        """The call, of the tensors that it was given."""
        states, params = others[: self.num_states], others[self.num_states :]
        return NormCall(self.key, y, gamma, beta, self.eps, states, params)


class _NormNeuron(torch.autograd.Function):
    """The gradient of results that are there already."""

    @staticmethod
    def forward(
        ctx: Any, plan: _Plan, results: tuple[Tensor, ...], saved: Sequence[Tensor], *given: Tensor | None
    ) -> tuple[Tensor, ...]:
        ctx.plan = plan
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *saved)
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        refuse_batches(grads)
        plan: _Plan = ctx.plan
        tensors = ctx.saved_tensors
        arrived = grads if plan.carry else (grads[0], *[None] * plan.num_states, *grads[1:])
        # Only `create_graph=True` can differentiate again.
        call: Any = _NormNeuronBackward.apply if torch.is_grad_enabled() else _backward
        results = call(plan, *tensors, *arrived)
        program = installed_backend(plan.name).programs[plan.key]
        arriving = tuple(grad is not None for grad in arrived)
        of_x, *others = reached_inputs_of(program, arriving, tensors[0].shape[0])
        # What no gradient reaches has none, as under torch's autograd.
        reached = (of_x, of_x, of_x, *others)
        grad_given = [grad if is_reached else None for grad, is_reached in zip(results, reached, strict=True)]
        return (None, None, None, *grad_given)


_apply = apply_unchecked(_NormNeuron)


class _NormNeuronBackward(torch.autograd.Function):
    """The backward pass; differentiating it again is refused."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.plan = plan
        return _backward(plan, *tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        raise BackendError(no_derivative("second", ctx.plan.name))


def _backward(plan: _Plan, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """`tensors`: y, gamma, beta, states, params; what was saved; gradients of out, final states, recorded sequences."""
    if not is_plain(tensors):
        tensors = tuple(in_memory(tensor) for tensor in tensors)
    num_grads = 1 + plan.num_states + plan.num_recorded
    given, grads = tensors[: plan.num_given], tensors[len(tensors) - num_grads :]
    if not is_plain(tensors):  # several gradients at once, as vmap gives them
        return _one_by_one(plan, given, grads)
    saved: Any = tensors[plan.num_given : len(tensors) - num_grads]
    tensors_of_call: Any = given  # gamma and beta alone may be None
    grad_y, grad_gamma, grad_beta, grad_states, grad_params = installed_backend(plan.name).backend.norm_neuron_grad(
        plan.call(*tensors_of_call),
        list(saved),
        grads[0],
        list(grads[1 : 1 + plan.num_states]),
        list(grads[1 + plan.num_states :]),
        plan.wants_states,
    )
    if not plan.wants_states:
        return (grad_y, grad_gamma, grad_beta, *[None] * plan.num_states, *grad_params)
    return (grad_y, grad_gamma, grad_beta, *grad_states, *grad_params)


def _one_by_one(
    plan: _Plan, given: Sequence[Tensor | None], grads: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The same gradients by torch's norm and the neuron's operators, which know all transforms."""
    places = [index for index, tensor in enumerate(given) if tensor is not None]
    wanted = [index for index, grad in enumerate(grads) if grad is not None]

    def results(*tensors: Tensor) -> tuple[Tensor, ...]:
        placed: list[Any] = [None] * len(given)
        for index, tensor in zip(places, tensors, strict=True):
            placed[index] = tensor
        call = plan.call(*placed)
        norm = torch.nn.functional.batch_norm
        flat = norm(call.y.flatten(0, 1), None, None, call.gamma, call.beta, training=True, eps=call.eps)
        out, finals, recorded = run_program(plan.name, plan.key, flat.view(call.y.shape), call.states, call.params)
        outputs = (out, *finals, *recorded)
        return tuple(outputs[index] for index in wanted)

    pull = torch.func.vjp(results, *(given[index] for index in places))[1]
    gradients = iter(pull(tuple(grads[index] for index in wanted)))
    return tuple(None if tensor is None else next(gradients) for tensor in given)
