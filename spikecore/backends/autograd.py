"""The gradient of a backend's run: one `autograd.Function` around its pair of operators.

`register_autograd` on the operators would break `torch.func.grad`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from spikecore.backends.installed import installed_backend
from spikecore.backends.plain import in_memory, is_plain, refuse_batches
from spikecore.dynamics import Program, reached_in_pass
from spikecore.errors import BackendError
from spikecore.torch_internals import apply_unchecked


def apply_run(
    name: str, key: str, num_states: int, carry: bool, direct: bool, tensors: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a program so that its results have a gradient.

    Args:
        name: of the backend.
        key: of the program.
        num_states: how many of the tensors are states.
        carry: are the final states wanted?
        direct: all tensors are plain ones, see `is_plain`.
        tensors: x, states, parameters.

    Returns:
        `(out, final states, recorded sequences)`.
    """
    if direct:
        apply: Any = _plain_run
    else:
        apply = _Run.apply if torch.compiler.is_compiling() else _TransformedRun.apply
    results = apply(name, key, num_states, carry, *tensors)
    first_recorded = 1 + carry * num_states
    last_recorded = first_recorded + installed_backend(name).num_recorded(key)
    return results[0], list(results[1:first_recorded]), list(results[first_recorded:last_recorded])


def no_derivative(which: str, name: str) -> str:
    """The message about a derivative that backends do not have."""
    return (
        f"{which} derivatives of a neuron on backend {name!r}: only the reference has them; "
        "call set_backend(net, 'torch')"
    )


class _Run(torch.autograd.Function):
    """Forward and backward of one program; tensors in flat tuples, as autograd wants them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(name: str, key: str, num_states: int, carry: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _flat_run(installed_backend(name).run(is_plain(tensors)), key, num_states, carry, *tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        x, *rest = inputs[4:]
        saved = _begin(ctx, inputs, output)
        if torch.compiler.is_compiling() and not installed_backend(ctx.name).backend.reads_input(ctx.key, saved):
            x = _stand_in(x.shape, saved, x)
        ctx.save_for_backward(x, *rest, *saved)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        if not torch.compiler.is_compiling():
            refuse_batches(grads)
        # Only `create_graph=True` can differentiate again. torch.compile does so once, and does not see through an
        # autograd.Function within a backward pass.
        once = torch.compiler.is_compiling() or not torch.is_grad_enabled()
        tensors = ctx.saved_tensors
        if ctx.spared is not None:
            shape, anchor = ctx.spared
            saved = tensors[ctx.num_given - 1 :]
            tensors = (_stand_in(shape, saved, anchor) if once else anchor.sum().expand(shape), *tensors)
        plan = (ctx.name, ctx.key, ctx.num_states, ctx.num_recorded, ctx.num_given)
        arrived: tuple[Tensor | None, ...] = grads[: 1 + ctx.num_finals + ctx.num_recorded]
        if not ctx.num_finals:  # without final states their gradients are missing; they keep their places
            arrived = (arrived[0], *[None] * ctx.num_states, *arrived[1:])
        call: Any = _backward if once else _RunBackward.apply
        results = call(*plan, *tensors, *arrived)
        if not torch.compiler.is_compiling():
            program = installed_backend(ctx.name).programs[ctx.key]
            arriving = tuple([grad is not None for grad in arrived])
            reached = reached_inputs_of(program, arriving, tensors[0].shape[0])
            # What no gradient reaches has none, as under torch's autograd.
            results = [grad if is_reached else None for grad, is_reached in zip(results, reached, strict=True)]
        return (None, None, None, None, *results)


def _flat_run(run: Any, key: str, num_states: int, carry: bool, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    out, finals, recorded, saved = run(key, x, list(rest[:num_states]), list(rest[num_states:]), True, carry)
    return (out, *finals, *recorded, *saved)


class _TransformedRun(_Run):
    """The same outside of torch.compile, which does not take functions with a `jvp`."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Any, ...]:
        raise BackendError(no_derivative("forward-mode", ctx.name))


def _begin(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """What both ways to set up a context share; returns what the backend saved."""
    ctx.name, ctx.key, ctx.num_states, carry, *tensors = inputs
    ctx.num_given = len(tensors)
    ctx.num_finals = carry * ctx.num_states
    ctx.num_recorded = installed_backend(ctx.name).num_recorded(ctx.key)
    ctx.spared = None
    saved = output[1 + ctx.num_finals + ctx.num_recorded :]
    ctx.mark_non_differentiable(*saved)
    ctx.set_materialize_grads(False)
    return saved


class _PlainRun(torch.autograd.Function):
    """The same where no transform is at work: without `setup_context`, torch does not inspect each call's arguments.

    An x that the backend does not read again is not kept. In its place the context keeps a selection of none of its
    steps (`_anchor`): it takes no memory, but belongs to the graph of x, so a second derivative with respect to x still
    passes through here and is refused.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        name, key, num_states, carry, x, *rest = inputs
        output = _flat_run(installed_backend(name).run(direct=True), key, num_states, carry, x, *rest)
        saved = _begin(ctx, inputs, output)
        if installed_backend(ctx.name).backend.reads_input(ctx.key, saved):
            ctx.save_for_backward(x, *rest, *saved)
        else:
            ctx.spared = x.shape, _anchor(x)
            ctx.save_for_backward(*rest, *saved)
        return output

    backward = _Run.backward


_plain_run = apply_unchecked(_PlainRun)


@cache
def _no_steps(device: torch.device) -> Tensor:
    return torch.empty(0, dtype=torch.int64, device=device)


def _anchor(x: Tensor) -> Tensor:
    """No step of x: no memory, and x's place in the graph."""
    if not x.requires_grad:
        return x.new_empty(0)
    with torch.enable_grad():
        return torch.index_select(x, 0, _no_steps(x.device))


def _stand_in(shape: Sequence[int], saved: Sequence[Tensor], like: Tensor) -> Tensor:
    """Something of x's shape and dtype (which is that of `like`) that takes no memory of its own."""
    for tensor in saved:
        if tensor.shape == shape and tensor.dtype == like.dtype:
            return tensor
    return like.new_empty(()).expand(shape)


class _RunBackward(torch.autograd.Function):
    """The backward pass; differentiating it again is refused."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        name: str, key: str, num_states: int, num_recorded: int, num_given: int, *tensors: Any
    ) -> tuple[Tensor, ...]:
        return _backward(name, key, num_states, num_recorded, num_given, *tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.name = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        raise BackendError(no_derivative("second", ctx.name))


@lru_cache(maxsize=4096)
def reached_inputs_of(program: Program, arriving: tuple[bool, ...], steps: int) -> list[bool]:
    """Does a gradient reach x, each initial state, each parameter?"""
    reached = reached_in_pass(program, arriving, steps)
    names = ["x", *(f"state.{name}" for name in program.states), *(f"param.{param.name}" for param in program.params)]
    return [name in reached for name in names]


def _backward(
    name: str, key: str, num_states: int, num_recorded: int, num_given: int, *tensors: Any
) -> tuple[Tensor, ...]:
    """`tensors`: x, states, params; what was saved; gradients of out, final states, recorded sequences, or None."""
    direct = is_plain(tensors)
    if not direct and not torch.compiler.is_compiling():
        tensors = tuple(in_memory(tensor) for tensor in tensors)
        direct = is_plain(tensors)
    given, rest = tensors[:num_given], tensors[num_given:]
    num_grads = 1 + num_states + num_recorded
    saved, grads = rest[: len(rest) - num_grads], rest[len(rest) - num_grads :]
    grad_x, grad_states, grad_params = installed_backend(name).run_bwd(direct)(
        key,
        list(saved),
        given[0],
        list(given[1 : 1 + num_states]),
        list(given[1 + num_states :]),
        grads[0],
        list(grads[1 : 1 + num_states]),
        list(grads[1 + num_states :]),
    )
    return (grad_x, *grad_states, *grad_params)
