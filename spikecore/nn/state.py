"""State of a net: where it lives, how long it lives, and how to look at it.

A multi-step call starts from the initial state and leaves nothing behind. Inside `with streaming(net)` state is kept
between calls. Single-step mode always streams: `reset_state(net)` starts a new sequence, `detach_state(net)` cuts the
graph. State is never part of `state_dict()`. Every thread has its own: a sequence begun in one is unknown in another.

A module of your own with state subclasses `Stateful`:

    def forward(self, x):                       # x [B, ...], one step
        state = self.state_for(x)
        out, state = ...
        (out,) = self.keep(state, out)
        return out
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, is_grad_enabled, nn
from torch.compiler import is_compiling

from spikecore.errors import OptionError, StateError, StateGraphError, StateShapeError, StreamingError
from spikecore.nn.memory import Block, Form, Memory, PerThread, Span, State, open_block
from spikecore.torch_internals import apply_unchecked, graph_task, next_node, transforms_active

_NOTHING = torch.empty(0)


class Stateful(nn.Module):
    """Base of modules with state. A subclass gives `initial_state` and calls `state_for` and `keep` in `forward`."""

    step_mode: str = "multi"

    def __init__(self) -> None:
        super().__init__()
        self._local = PerThread()
        self._span = Span()

    @property
    def _memory(self) -> Memory:
        """What this module remembers in this thread."""
        return self._local.memory

    def initial_state(self, x: Tensor) -> State:
        """The state before the first step, for one single-step input `x` `[B, ...]`."""
        raise NotImplementedError

    def start_state(self, x: Tensor) -> State:
        """The same for callers that only read it."""
        return self.initial_state(x)

    def state_forms(self, x: Tensor) -> dict[str, Form]:
        """Shape, device and dtype of the state that the single-step input `x` asks for."""
        return {name: _form(value) for name, value in self.initial_state(x).items()}

    @property
    def state_names(self) -> tuple[str, ...] | None:
        """Names of the state, for checking what `set_state` is given; None where they are not known beforehand."""
        return None

    def check_state(self, where: str, state: Mapping[str, Tensor]) -> None:
        """Refuse a state, right in its names, that this module can never have; `where` is how messages name it."""

    @property
    def keeps_state(self) -> bool:
        """Whether state outlives a call."""
        return self.step_mode == "single" or self._local.memory.streams

    def state_for(self, x: Tensor) -> State:
        """The state to start from with the single-step input `x`.

        Raises:
            StateShapeError: the kept state belongs to another batch shape, device or dtype.
            StateError: the kept state was made under `inference_mode`, and a gradient is wanted; or activation
                checkpointing runs a call again whose state is gone.
        """
        memory = self._local.memory
        state, compiling = memory.state, is_compiling()
        keeps = memory.streams or self.step_mode == "single"
        if not compiling and graph_task() != -1 and not memory.is_explicit:
            self._refuse_second_run(keeps)
        if not keeps or state is None:
            if not memory.is_explicit:
                return self.start_state(x)
            initial = self.initial_state(x)
            if memory.initial is None:
                memory.initial = initial
            return initial
        if compiling:
            self._check_kept(state, x, memory)
            return state
        form = (x.shape, x.device, x.dtype)
        if form != memory.form:
            self._check_kept(state, x, memory)
            memory.form = form
        # Here and in `keep`, `True in [...]`: a generator for `any` costs more, on the path of every step.
        if is_grad_enabled() and True in [value.is_inference() for value in state.values()]:
            raise StateError(
                f"the kept state of {type(self).__name__} was made under torch.inference_mode() and cannot be part of "
                f"a graph: {_cure(memory)}, or make the steps before it under torch.no_grad()"
            )
        return state

    def _check_kept(self, state: State, x: Tensor, memory: Memory) -> None:
        forms = self.state_forms(x)
        for name, value in state.items():
            if _form(value) != forms[name]:
                raise StateShapeError(
                    f"the kept state {name!r} of {type(self).__name__} is {_shown(_form(value))}, the input asks for "
                    f"{_shown(forms[name])}: {_cure(memory)}"
                )

    def _refuse_second_run(self, keeps: bool) -> None:
        """Within a backward pass, only calls that neither find nor leave a state give what they gave before."""
        if keeps or self._span.holds_current_node():
            raise StateError(
                f"a backward pass calls {type(self).__name__} again, whose state has moved on since, or is gone: "
                "activation checkpointing repeats the forward pass. Checkpoint the step of functional(net), which "
                "takes and returns the state: checkpoint(step, params, x, state, use_reentrant=False)"
            )

    def keep(self, state: State, *outputs: Tensor) -> tuple[Tensor, ...]:
        """Remember the final state, if state outlives the call.

        Args:
            state: after the last step of this call; may be empty where it does not outlive the call.
            outputs: all else that the call hands out with a gradient.

        Returns:
            The outputs, to be handed out in their place: a backward pass through any of them, and later through the
            state, is distinguished from the first one.

        Raises:
            StateError: the call is part of a transform of `torch.func`, or of a backward pass.
        """
        memory = self._local.memory
        if not (memory.streams or self.step_mode == "single"):
            memory.state = None
            return outputs
        if not is_compiling():
            if memory.streams:
                self._span.cover(memory.first_node, next_node(), memory.block)
            if not memory.is_explicit:
                if graph_task() != -1:
                    self._refuse_second_run(keeps=True)
                if transforms_active():
                    raise StateError(
                        f"{type(self).__name__} would keep the state of a torch.func transform, which ends before it "
                        "is used: call the step of functional(net), which takes and returns the state"
                    )
                if is_grad_enabled() and True in [value.requires_grad for value in state.values()]:
                    tied = _tie(type(self).__name__, len(outputs), *outputs, *state.values())
                    outputs, state = tied[: len(outputs)], dict(zip(state, tied[len(outputs) :], strict=True))
        memory.state = state
        return outputs

    def pass_by(self, x: Tensor) -> None:
        """For a call that has no use for the state, as of dropout in eval mode: `functional` hands it on unchanged."""
        if self._local.memory.is_explicit:
            self.keep(self.state_for(x))

    def forget(self) -> None:
        """Begin as a new module does: no kept state, in no `streaming` block."""
        self._local, self._span = PerThread(), Span()

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which go on where this module is: with the values of the state, without its graph."""
        memory = self._local.lasting
        values = None if memory.state is None else {name: value.detach() for name, value in memory.state.items()}
        members = {name: value for name, value in self.__dict__.items() if name not in ("_local", "_span")}
        return {**members, _KEPT: (values, memory.block and memory.block.token)}

    def __setstate__(self, members: dict[str, Any]) -> None:
        values, token = members.get(_KEPT, (None, None))
        own = {name: value for name, value in members.items() if name != _KEPT}
        super().__setstate__(own)  # type: ignore[no-untyped-call]
        self.forget()
        if self.step_mode == "single":
            self._local.memory.state = values
        if (block := open_block(token)) is not None:
            self._local.memory.state = values
            block.join(self._local.memory, self._span)


_KEPT = "_kept"
"""Under which a copy holds the values of the state and the token of the `streaming` block."""


def _cure(memory: Memory) -> str:
    if memory.is_functional:
        return "start from the state that init_state(example_input) gives for inputs like this one"
    return "call reset_state(net) to start a new sequence"


class _Tie(torch.autograd.Function):
    """The identity, as one node behind everything that a call hands out.

    The first backward pass through any output frees what this node saved. One that comes later through the state finds
    it gone, before it meets torch's own freed nodes. `detach` within gives outputs that may be changed in place.
    """

    @staticmethod
    def forward(ctx: Any, name: str, num_outputs: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.name, ctx.num_outputs = name, num_outputs
        tied = tuple([tensor.detach() for tensor in tensors])
        needs_grad = ctx.needs_input_grad[2:]  # without the name and the number of outputs
        if not all(needs_grad):
            constants = [tensor for tensor, needed in zip(tied, needs_grad, strict=True) if not needed]
            ctx.mark_non_differentiable(*constants)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(_NOTHING)
        return tied

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        try:
            _ = ctx.saved_tensors
        except RuntimeError:
            if all(grad is None for grad in grads[ctx.num_outputs :]):
                raise  # not through the state: the same loss twice, which torch explains well
            raise StateGraphError(
                f"this backward pass reaches back through the kept state of {ctx.name} into an earlier call, whose "
                "graph an earlier backward pass has freed: call detach_state(net) after each backward pass to keep the "
                "values and cut the graph, or reset_state(net) to start a new sequence"
            ) from None
        return None, None, *grads


_tie = apply_unchecked(_Tie)
"""Never within a transform, so without what `apply` does for those."""


def _form(value: Tensor) -> Form:
    return tuple(value.shape), value.device, value.dtype


def _shown(form: Form) -> str:
    shape, device, dtype = form
    return f"{shape} {str(dtype).removeprefix('torch.')} on {device}"


def stateful(net: nn.Module) -> dict[str, Stateful]:
    """Qualified name → module, of every module of `net` with state."""
    return {name: module for name, module in net.named_modules() if isinstance(module, Stateful)}


@contextmanager
def streaming(net: nn.Module) -> Iterator[nn.Module]:
    """Inside, every call of `net` goes on where the last one ended; entry and exit drop the state.

    Args:
        net: any module; all modules with state inside it are meant.

    Raises:
        StreamingError: `net`, or a part of it, is already streaming.

    Example:
        >>> from spikecore.nn import LIF
        >>> lif, x = LIF(tau=2.0), torch.full((4, 1), 0.75)
        >>> with streaming(lif):
        ...     first = lif(x[:2])
        ...     print(get_state(lif)[""]["v"])
        tensor([0.5625])
        >>> get_state(lif)
        {'': None}
    """
    modules = stateful(net).values()
    if any(module._local.memory.streams for module in modules):
        raise StreamingError("this net is already streaming: leave the outer `with streaming(...)` first")
    block = Block()
    # They must be held: a thread that ends takes its memories along, and this block may be left in another one.
    memories = [module._local.memory for module in modules]
    for memory, module in zip(memories, modules, strict=True):
        memory.state = None
        block.join(memory, module._span)
    try:
        yield net
    finally:
        block.close()


@contextmanager
def carried(net: nn.Module, is_functional: bool = False) -> Iterator[dict[str, Memory]]:
    """Inside, every module keeps its state in a memory of its own, empty at first, and what it had is put back after.

    This is so in the current thread only. Whoever enters puts states in, takes them out, and answers for their graph.
    """
    modules = stateful(net)
    before = {name: module._local.memory for name, module in modules.items()}
    memories = {name: Memory(below=memory, is_functional=is_functional) for name, memory in before.items()}
    compiling = is_compiling()
    for name, module in modules.items():
        module._local.memory = memories[name]
        if not compiling:
            memories[name].begin_streaming(module._span)
    try:
        yield memories
    finally:
        for name, module in modules.items():
            module._local.memory = before[name]
            if not compiling:
                memories[name].end_streaming()
    if not is_functional:
        for name, memory in memories.items():
            before[name].take(memory.recorded)


@contextmanager
def recording_steps(modules: Iterable[Stateful]) -> Iterator[None]:
    """Inside, what single steps `[1, B, ...]` record is put together; after it, each module has recorded `[T, B, ...]`.

    A module that was not called has recorded nothing.
    """
    memories = [module._local.memory for module in modules]
    outer = [memory.pieces for memory in memories]
    for memory in memories:
        memory.pieces = []
    joined: list[State] = []
    try:
        yield
        joined = [_joined(memory.pieces or []) for memory in memories]
    finally:
        for memory, pieces in zip(memories, outer, strict=True):
            memory.pieces = pieces
    for memory, recorded in zip(memories, joined, strict=True):
        memory.take(recorded)


def _joined(pieces: list[State]) -> State:
    pieces = [piece for piece in pieces if piece]  # without the steps at which the module was not called
    if not pieces:
        return {}
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


def reset_state(net: nn.Module) -> None:
    """Start a new sequence: every state is initial again."""
    for module in stateful(net).values():
        module._local.memory.state = None


def detach_state(net: nn.Module) -> None:
    """Keep the values of the state and cut its graph (truncated backpropagation through time)."""
    for module in stateful(net).values():
        memory = module._local.memory
        if memory.state is not None:
            memory.state = {name: value.detach() for name, value in memory.state.items()}


def get_state(net: nn.Module) -> dict[str, State | None]:
    """Qualified module name → its kept state; None where it is the initial one. The tensors are not copied."""
    kept = {name: module._local.memory.state for name, module in stateful(net).items()}
    return {name: None if state is None else dict(state) for name, state in kept.items()}


def set_state(net: nn.Module, state: Mapping[str, Mapping[str, Tensor] | None]) -> None:
    """Restore what `get_state` returned. The next call checks whether it fits the batch.

    The tensors are not copied. No call writes into them, and nor should you afterwards.

    Raises:
        StateError: the modules or the names within differ from those of `net`, a value is no floating-point tensor, or
            `net` keeps no state (multi-step, not streaming). Nothing is set then.
        StateShapeError: the states of one module differ in device or dtype, or are in half precision.
    """
    modules = stateful(net)
    checked = checked_state(modules, state)
    for name, value in checked.items():
        if value is not None and not modules[name].keeps_state:
            raise StateError(f"{name or type(net).__name__} keeps no state now: set it inside `with streaming(net)`")
    for name, value in checked.items():
        memory = modules[name]._local.memory
        memory.state, memory.form = value, None


def checked_state(
    modules: Mapping[str, Stateful], state: Mapping[str, Mapping[str, Tensor] | None]
) -> dict[str, State | None]:
    """`state` as dictionaries in the modules' own order.

    Raises:
        StateError: see `set_state`.
    """
    if set(modules) != set(state):
        raise StateError(f"expected the state of the modules {sorted(modules)}, got that of {sorted(state)}")
    return {name: None if value is None else _checked(name, modules[name], value) for name, value in state.items()}


def _checked(name: str, module: Stateful, state: Mapping[str, Tensor]) -> State:
    where = type(module).__name__ + (f" at {name!r}" if name else "")
    wanted = module.state_names
    if wanted is not None and set(wanted) != set(state):
        raise StateError(f"the state of {where} is {', '.join(wanted)}; got {', '.join(state) or 'nothing'}")
    for key, value in state.items():
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            got = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
            raise StateError(f"state {key!r} of {where} must be a floating-point tensor, got {got}")
    module.check_state(where, state)
    return {key: state[key] for key in (wanted or state)}


def check_step_mode(step_mode: str) -> None:
    """Refuse what is no step mode.

    Raises:
        OptionError: it is neither `single` nor `multi`.
    """
    if step_mode not in ("single", "multi"):
        raise OptionError(f"step_mode must be 'single' or 'multi', got {step_mode!r}")


def set_step_mode(net: nn.Module, step_mode: str) -> None:
    """Switch every module of `net` that has a step mode; kept state is dropped.

    Raises:
        OptionError: it is neither `single` nor `multi`.
    """
    check_step_mode(step_mode)
    reset_state(net)
    for module in net.modules():
        if hasattr(module, "step_mode"):
            setattr(module, "step_mode", step_mode)  # noqa: B010  (nn.Module's __setattr__ is typed for tensors)
