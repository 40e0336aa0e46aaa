"""The operators under `torch.func.vmap`.

A mapped axis of `x` or of a state joins the batch axis; a mapped parameter runs once for each of its values.
`x` and what follows it have T in front of B; states do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Operator = Callable[[], Callable[..., Any]]


def _merge(tensor: Any, dim: int | None, size: int, axis: int) -> Any:
    """The mapped axis joined with axis `axis` (the batch); an unmapped tensor is repeated, a missing one missing."""
    if tensor is None:
        return None
    if dim is None:
        tensor = tensor.unsqueeze(axis).expand(*tensor.shape[:axis], size, *tensor.shape[axis:])
    else:
        tensor = tensor.movedim(dim, axis)
    return tensor.flatten(axis, axis + 1)


def _merge_all(tensors: Sequence[Any], dims: Sequence[int | None], size: int, axis: int) -> list[Any]:
    return [_merge(tensor, dim, size, axis) for tensor, dim in zip(tensors, dims, strict=True)]


def _split(tensor: Tensor, size: int, axis: int) -> Tensor:
    """The inverse of `_merge`, with the mapped axis at `axis`."""
    return tensor.reshape(*tensor.shape[:axis], size, -1, *tensor.shape[axis + 1 :])


def _run_separately(
    tensors: Sequence[Any], dims: Sequence[Any], size: int, call: Callable[..., tuple[Any, ...]]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """`call` once for every index of the mapped axis; results stacked along a new first axis."""
    results = []
    for index in range(size):
        sample = [_pick(tensor, dim, index) for tensor, dim in zip(tensors, dims, strict=True)]
        results.append(call(*sample))
    stacked: list[Any] = []
    places: list[Any] = []
    for parts in zip(*results, strict=True):  # one output, a tensor or a list of them, of every index
        if isinstance(parts[0], Tensor):
            stacked.append(torch.stack(parts))
            places.append(0)
        else:
            stacked.append([torch.stack(tensors_of_place) for tensors_of_place in zip(*parts, strict=True)])
            places.append([0] * len(parts[0]))
    return tuple(stacked), tuple(places)


def _pick(tensor: Any, dim: Any, index: int) -> Any:
    """One index of the mapped axis; of a list of tensors, that of each. What is not mapped is whole."""
    if isinstance(tensor, list | tuple):
        return [_pick(part, part_dim, index) for part, part_dim in zip(tensor, dim, strict=True)]
    return tensor if dim is None else tensor.select(dim, index)


def run_rule(operator: Operator) -> Callable[..., Any]:
    """The rule of `run`; `operator()` is the operator itself."""

    def rule(
        info: Any, in_dims: Any, key: str, x: Tensor, states: list[Tensor], params: list[Tensor], *flags: bool
    ) -> Any:
        x_dim, state_dims, param_dims = in_dims[1:4]
        size = info.batch_size
        if any(dim is not None for dim in param_dims):

            def run(*tensors: Any) -> Any:
                return operator()(key, *tensors, *flags)

            return _run_separately((x, states, params), in_dims[1:4], size, run)
        # The mapped axis becomes part of the batch: one call of the operator for all samples.
        out, finals, recorded, saved = operator()(
            key, _merge(x, x_dim, size, 1), _merge_all(states, state_dims, size, 0), params, *flags
        )
        outputs = (
            _split(out, size, 1),
            [_split(final, size, 0) for final in finals],
            [_split(sequence, size, 1) for sequence in recorded],
            saved,  # as it is: only the backward rule, which merges in the same way, reads it
        )
        return outputs, (1, [0] * len(finals), [1] * len(recorded), [None] * len(saved))

    return rule


def run_bwd_rule(operator: Operator) -> Callable[..., Any]:
    """The rule of `run_bwd`."""

    def rule(info: Any, in_dims: Any, key: str, *tensors: Any) -> Any:
        saved, x, states, params, grad_out, grad_states, grad_recorded = tensors
        _, saved_dims, x_dim, state_dims, param_dims, out_dim, grad_state_dims, recorded_dims = in_dims
        size = info.batch_size

        def run(*given: Any) -> Any:
            return operator()(key, *given)

        was_merged = x_dim is not None or any(dim is not None for dim in state_dims)
        if not was_merged or any(dim is not None for dim in (*param_dims, *saved_dims)):
            return _run_separately(tensors, in_dims[1:], size, run)
        if params:  # the sum over the batch must stay apart for each mapped index
            apart = [_split(tensor, size, 1) for tensor in saved]
            return _run_separately((apart, *tensors[1:]), ([1] * len(apart), *in_dims[2:]), size, run)
        grad_x, grad_initial, _ = operator()(
            key,
            saved,
            _merge(x, x_dim, size, 1),
            _merge_all(states, state_dims, size, 0),
            params,
            _merge(grad_out, out_dim, size, 1),
            _merge_all(grad_states, grad_state_dims, size, 0),
            _merge_all(grad_recorded, recorded_dims, size, 1),
        )
        of_states = [_split(tensor, size, 0) for tensor in grad_initial]
        return (_split(grad_x, size, 1), of_states, []), (1, [0] * len(of_states), [])

    return rule
