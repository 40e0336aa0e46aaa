"""The one front through which neurons reach every backend.

Torch's dispatcher costs several microseconds a call. It is there for transforms, compilers and modes; where none of
them is at work and all tensors are plain ones, the backend is called directly (see `plain`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spikecore.backends.autograd import apply_run, no_derivative
from spikecore.backends.installed import install, installed_backend, learn
from spikecore.backends.memory_format import from_rows, is_channels_last, to_rows
from spikecore.backends.plain import has_tangent, in_memory, is_plain, is_transformed
from spikecore.errors import BackendError

__all__ = ["install", "installed_backend", "learn", "run_program", "run_step"]


def run_program(
    name: str, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], carry: bool = True
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a learned program over `x` `[T, B, ...]` on a backend.

    The results have the memory format of x, if that is channels-last; the backend is given rows, see `memory_format`.

    Returns:
        `(out [T, B, ...], final states, recorded sequences)`, differentiable; without `carry` no final states.

    Raises:
        BackendError: no such backend, a key that it has not learned, or a forward-mode derivative is wanted.
    """
    if is_channels_last(x, 1):
        shape = x.shape[1:]
        out, finals, recorded = run_program(
            name, key, to_rows(x, 1), [to_rows(state, 0) for state in states], params, carry
        )
        finals = [from_rows(final, shape, 0) for final in finals]
        return from_rows(out, shape, 1), finals, [from_rows(sequence, shape, 1) for sequence in recorded]
    tensors: Sequence[Tensor] = (x, *states, *params)
    direct = is_plain(tensors)
    if not direct and not torch.compiler.is_compiling():
        if has_tangent(tensors):
            raise BackendError(no_derivative("forward-mode", name))
        tensors = [in_memory(tensor) for tensor in tensors]
        direct = is_plain(tensors)
        x, states, params = tensors[0], tensors[1 : 1 + len(states)], tensors[1 + len(states) :]
    # Inside a transform a tensor does not say whether an outer level wants its gradient.
    if torch.is_grad_enabled() and (True in [tensor.requires_grad for tensor in tensors] or is_transformed()):
        return apply_run(name, key, len(states), carry, direct, tensors)
    out, finals, recorded, _ = installed_backend(name).run(direct)(key, x, states, params, False, carry)
    return out, finals, recorded


def run_step(
    name: str, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The same for one step `x` `[B, ...]`: `(out [B, ...], final states, recorded [1, B, ...])`."""
    tensors = (x, *states, *params)
    wants_grad = torch.is_grad_enabled() and True in [tensor.requires_grad for tensor in tensors]
    if not wants_grad and is_plain(tensors):
        step = installed_backend(name).backend.step
        if is_channels_last(x, 0):
            results = step(key, to_rows(x, 0), [to_rows(state, 0) for state in states], params)
            if results is not None:
                out, finals = results
                return from_rows(out, x.shape, 0), [from_rows(final, x.shape, 0) for final in finals], []
        else:
            results = step(key, x, states, params)
            if results is not None:
                return *results, []
    out, finals, recorded = run_program(name, key, x[None], states, params)
    return out[0], finals, recorded
