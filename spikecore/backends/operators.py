"""The one front through which torch sees every backend: a pair of operators for each.

    spikecore::run_NAME       (key, x, states, params, save, carry) -> (out, states, recorded, saved)
    spikecore::run_bwd_NAME   (key, saved, x, states, params, grad_out, grad_states, grad_recorded) -> (grads)

The key is a string (the content hash of the equations), so the operators are the same for every neuron and a module
holds nothing that cannot be pickled. Both have fake implementations, for `torch.compile` and `torch.export`, and vmap
rules (see `vmap`). The gradient is one `autograd.Function` around the pair, because `register_autograd` breaks
`torch.func.grad`.

Torch's dispatcher costs several microseconds a call. It is there for transforms, compilers and modes; where none of
them is at work and all tensors are plain ones, the backend is called directly (see `plain`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikecore.backends.plain import has_tangent, in_memory, is_plain, is_transformed
from spikecore.backends.vmap import run_bwd_rule, run_rule
from spikecore.dynamics.vjp import reached
from spikecore.errors import BackendError

if TYPE_CHECKING:
    from spikecore.dynamics import Program
    from spikecore.interfaces.backend import Backend

_LIBRARY = torch.library.Library("spikecore", "FRAGMENT")  # type: ignore[no-untyped-call]
_BACKENDS: dict[str, Backend] = {}
_STEPS: dict[str, Any] = {}  # the method `step` of those that have it
_PROGRAMS: dict[str, Program] = {}
_LEARNED: dict[str, dict[str, Program]] = {}
_IDENTIFIERS: dict[str, str] = {}
_DEFINING = Lock()


def install(name: str, backend: Backend) -> None:
    """Give a backend its operators; a second one under a known name takes the place of the first, with its programs."""
    former = _BACKENDS.get(name)
    if former is not backend:
        for program in _LEARNED.get(name, {}).copy().values():  # another thread may learn meanwhile
            backend.learn(program)
    _BACKENDS[name] = backend
    _STEPS[name] = getattr(backend, "step", None)
    _define(name)


def learn(name: str, program: Program) -> None:
    """Make a program callable by its key on the backend of this name."""
    _PROGRAMS[program.key] = program
    _LEARNED.setdefault(name, {})[program.key] = program
    _BACKENDS[name].learn(program)


def run_program(
    name: str, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], carry: bool = True
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a learned program over `x` `[T, B, ...]` on a backend.

    Returns:
        `(out [T, B, ...], final states, recorded sequences)`, differentiable; without `carry` no final states.

    Raises:
        BackendError: no such backend, a key that it has not learned, or a forward-mode derivative is wanted.
    """
    tensors: Sequence[Tensor] = (x, *states, *params)
    if not (direct := is_plain(tensors)) and not torch.compiler.is_compiling():
        if has_tangent(tensors):
            raise BackendError(_no_derivative("forward-mode", name))
        tensors = [in_memory(tensor) for tensor in tensors]
        direct = is_plain(tensors)
        x, states, params = tensors[0], tensors[1 : 1 + len(states)], tensors[1 + len(states) :]
    # Inside a transform a tensor does not say whether an outer level wants its gradient.
    if torch.is_grad_enabled() and (True in [tensor.requires_grad for tensor in tensors] or is_transformed()):
        apply = _plain_run if direct else _Run.apply if torch.compiler.is_compiling() else _TransformedRun.apply
        found = apply(name, key, len(states), carry, *tensors)
        count = 1 + carry * len(states)
        return found[0], list(found[1:count]), list(found[count : count + _recorded(key)])
    out, finals, recorded, _ = _method("run", name, direct)(key, x, states, params, False, carry)
    return out, finals, recorded


def run_step(
    name: str, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The same for one step `x` `[B, ...]`: `(out [B, ...], final states, recorded [1, B, ...])`."""
    step, tensors = _STEPS.get(name), (x, *states, *params)
    wants_grad = torch.is_grad_enabled() and True in [tensor.requires_grad for tensor in tensors]
    if step is not None and not wants_grad and is_plain(tensors):
        found: tuple[Tensor, list[Tensor]] | None = step(key, x, states, params)
        if found is not None:
            return *found, []
    out, finals, recorded = run_program(name, key, x[None], states, params)
    return out[0], finals, recorded


def _method(which: str, name: str, direct: bool) -> Any:
    """The backend's own method, or the operator where something needs to see one."""
    return getattr(_BACKENDS[name], which) if direct and name in _BACKENDS else _operator(which, name)


def _no_derivative(which: str, name: str) -> str:
    return (
        f"{which} derivatives of a neuron on backend {name!r}: only the reference has them; "
        "call set_backend(net, 'torch')"
    )


class _Run(torch.autograd.Function):
    """Forward and backward of one program; tensors in flat tuples, as autograd wants them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(name: str, key: str, num_states: int, carry: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _flat_run(_method("run", name, is_plain(tensors)), key, num_states, carry, *tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        x, *rest = inputs[4:]
        saved = _begin(ctx, inputs, output)
        if torch.compiler.is_compiling() and not _BACKENDS[ctx.name].reads_input(ctx.key, saved):
            x = _stand_in(x.shape, saved, x)
        ctx.save_for_backward(x, *rest, *saved)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
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
        if not ctx.num_finals:
            arrived = (arrived[0], *[None] * ctx.num_states, *arrived[1:])
        call: Any = _backward if once else _RunBackward.apply
        found = call(*plan, *tensors, *arrived)
        if not torch.compiler.is_compiling():
            arriving = tuple(grad is not None for grad in arrived)
            reaches = _reaches(ctx.key, tensors[0].shape[0], arriving)
            found = [grad if reached else None for grad, reached in zip(found, reaches, strict=True)]
        return (None, None, None, None, *found)


def _flat_run(run: Any, key: str, num_states: int, carry: bool, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    out, finals, recorded, saved = run(key, x, list(rest[:num_states]), list(rest[num_states:]), True, carry)
    return (out, *finals, *recorded, *saved)


class _TransformedRun(_Run):
    """The same outside of torch.compile, which does not take functions with a `jvp`."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Any, ...]:
        raise BackendError(_no_derivative("forward-mode", ctx.name))


def _begin(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """What both ways to set up a context share; returns what the backend saved."""
    ctx.name, ctx.key, ctx.num_states, carry, *tensors = inputs
    ctx.num_given = len(tensors)
    ctx.num_finals = carry * ctx.num_states
    ctx.num_recorded = _recorded(ctx.key)
    ctx.spared = None
    saved = output[1 + ctx.num_finals + ctx.num_recorded :]
    ctx.mark_non_differentiable(*saved)
    ctx.set_materialize_grads(False)
    return saved


class _PlainRun(torch.autograd.Function):
    """The same where no transform is at work: without `setup_context`, torch does not inspect each call's arguments.

    An x that the backend does not read again is not kept. None of its steps is, which has no memory but a place in the
    graph: whoever differentiates twice with respect to x must come by here and be refused.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        name, key, num_states, carry, x, *rest = inputs
        output = _flat_run(_method("run", name, True), key, num_states, carry, x, *rest)
        saved = _begin(ctx, inputs, output)
        if _BACKENDS[ctx.name].reads_input(ctx.key, saved):
            ctx.save_for_backward(x, *rest, *saved)
        else:
            ctx.spared = x.shape, _anchor(x)
            ctx.save_for_backward(*rest, *saved)
        return output

    backward = _Run.backward


_plain_run: Any = super(torch.autograd.Function, _PlainRun).apply
"""Without what `apply` does for transforms."""


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
        raise BackendError(_no_derivative("second", ctx.name))


@lru_cache(maxsize=4096)
def _reaches(key: str, steps: int, arriving: tuple[bool, ...]) -> list[bool]:
    """Does a gradient reach x, each initial state, each parameter? What it does not reach has none, as under autograd.

    Args:
        key: of the program.
        steps: T.
        arriving: is there a gradient of out, of each final state, of each recorded sequence?
    """
    program = _PROGRAMS[key]
    states, recorded = arriving[1 : 1 + len(program.states)], arriving[1 + len(program.states) :]
    present = {f"state.{name}" for name, arrives in zip(program.states, states, strict=True) if arrives}
    always = {f"state.{name}" for name, arrives in zip(program.record, recorded, strict=True) if arrives}
    if arriving[0]:
        always.add("out")
    found: set[str] = {"x"} if not steps and arriving[0] else set()
    for _ in range(steps):
        names = reached(program.forward, present | always)
        found |= names
        following = {name for name in names if name.startswith("state.")}
        if following == present:
            break
        present = following
    return [
        "x" in found,
        *(f"state.{name}" in present for name in program.states),
        *(f"param.{param.name}" in found for param in program.params),
    ]


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
    grad_x, grad_states, grad_params = _method("run_bwd", name, direct)(
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


def _like(tensor: Tensor) -> Tensor:
    """What a backend returns is contiguous, whatever the strides of its inputs."""
    return tensor.new_empty(tensor.shape)


def _recorded(key: str) -> int:
    return len(_PROGRAMS[key].record)


def _detached(tensors: Sequence[Tensor]) -> list[Tensor]:
    """An exported program calls the operators with the tensors of the user's own graph."""
    return [tensor.detach() for tensor in tensors]


def _operator(which: str, name: str) -> Any:
    if name not in _IDENTIFIERS:
        raise BackendError(f"backend {name!r} is not installed in this process: run the net once, or name it again")
    return getattr(torch.ops.spikecore, f"{which}_{_IDENTIFIERS[name]}")


def _define(name: str) -> None:
    """The operators of one backend, once; torch keeps them for the life of the process."""
    with _DEFINING:
        if name not in _IDENTIFIERS:
            identifier = re.sub(r"\W", "_", name)
            _define_as(name, identifier)
            _IDENTIFIERS[name] = identifier


def _define_as(name: str, identifier: str) -> None:
    run, run_bwd = f"run_{identifier}", f"run_bwd_{identifier}"
    define: Any = _LIBRARY.define
    implement: Any = _LIBRARY.impl
    define(
        f"{run}(str key, Tensor x, Tensor[] states, Tensor[] params, bool save, bool carry) "
        "-> (Tensor, Tensor[], Tensor[], Tensor[])"
    )
    define(
        f"{run_bwd}(str key, Tensor[] saved, Tensor x, Tensor[] states, Tensor[] params, Tensor? grad_out, "
        "Tensor?[] grad_states, Tensor?[] grad_recorded) -> (Tensor, Tensor[], Tensor[])"
    )

    def forward(key: str, x: Tensor, states: list[Tensor], params: list[Tensor], save: bool, carry: bool) -> Any:
        return _BACKENDS[name].run(key, x.detach(), _detached(states), _detached(params), save, carry)

    def backward(
        key: str, saved: list[Tensor], x: Tensor, states: list[Tensor], params: list[Tensor], *grads: Any
    ) -> Any:
        return _BACKENDS[name].run_bwd(key, saved, x.detach(), _detached(states), _detached(params), *grads)

    def fake(key: str, x: Tensor, states: list[Tensor], params: list[Tensor], save: bool, carry: bool) -> Any:
        program = _PROGRAMS[key]
        names = [program.states.index(state) for state in program.record]
        recorded = [states[index].new_empty((x.shape[0], *states[index].shape)) for index in names]
        saved = _BACKENDS[name].saved_like(key, x, states) if save else []
        return _like(x), [_like(state) for state in states if carry], recorded, saved

    def fake_bwd(
        key: str, saved: list[Tensor], x: Tensor, states: list[Tensor], params: list[Tensor], *grads: Any
    ) -> Any:
        return _like(x), [_like(state) for state in states], [_like(param) for param in params]

    implement(run, forward, "CompositeExplicitAutograd")
    implement(run_bwd, backward, "CompositeExplicitAutograd")
    torch.library.register_fake(f"spikecore::{run}", fake, lib=_LIBRARY)
    torch.library.register_fake(f"spikecore::{run_bwd}", fake_bwd, lib=_LIBRARY)
    torch.library.register_vmap(f"spikecore::{run}", run_rule(lambda: _operator("run", name)), lib=_LIBRARY)
    torch.library.register_vmap(f"spikecore::{run_bwd}", run_bwd_rule(lambda: _operator("run_bwd", name)), lib=_LIBRARY)
