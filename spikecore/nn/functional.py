"""The explicit form of a net: parameters and state go in, output and state come out, nothing is kept.

    step, init_state = functional(net)
    out, state = step(params, x, state)

For `torch.func`, `torch.export`, activation checkpointing and compilers, which want functions without memory; and for
threads and asyncio tasks that advance sequences of their own through one net.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction

from spikecore.errors import StateError
from spikecore.nn.memory import State
from spikecore.nn.state import carried, checked_state, stateful
from spikecore.torch_internals import backward_function, graph_task

NetState = dict[str, State]
Step = Callable[[Mapping[str, Tensor], Any, Mapping[str, Mapping[str, Tensor]]], tuple[Any, NetState]]
InitState = Callable[[Any], NetState]


def functional(net: nn.Module) -> tuple[Step, InitState]:
    """`(step, init_state)` of any net.

    `step(params, x, state) -> (out, state)` runs the net once in its step mode: one step of `[B, ...]`, or a sequence
    `[T, B, ...]` of which `state` is then before the first and after the last step. `params` are all parameters and
    buffers by name, `state` is a dictionary by qualified module name. `init_state(example_input) -> state` gives the
    state before the first step, for inputs like the example.

    Gradients flow through `params`, `x` and `state`. The net itself stays as it is: its own state, and `recorded` of
    its neurons, are untouched. (Batch norm in training mode updates the buffers that it is given, in place.)

    Threads may call `step` at once. With the net's own `params` they run side by side. Other `params` are put into
    the net while its step runs, so such a step waits for all others; a plain call of the net from another thread does
    not wait, and must not come at that time.

    Args:
        net: any module; `x` may be whatever its `forward` takes as its one argument.

    Raises:
        StateError: in `step`: `params` or `state` do not belong to this net; or the step runs in
            `checkpoint(..., use_reentrant=True)`, which cuts the gradient through the state.
        StateShapeError: in `step`: the state belongs to another batch shape, device or dtype.

    Example:
        >>> from spikecore.nn import LIF
        >>> lif = LIF(tau=2.0, step_mode="single", learnable=("tau",))
        >>> step, init_state = functional(lif)
        >>> x, params = torch.full((1, 1), 1.5), dict(lif.named_parameters())
        >>> state = init_state(x)
        >>> out, state = step(params, x, state)
        >>> out.item(), state[""]["v"].item()
        (0.0, 0.75)
        >>> out, state = step(params, x, state)
        >>> out.item(), state[""]["v"].item()
        (1.0, 0.0)
    """

    def step(params: Mapping[str, Tensor], x: Any, state: Mapping[str, Mapping[str, Tensor]]) -> tuple[Any, NetState]:
        _check_names(net, params)
        given = checked_state(stateful(net), state)
        missing = [name or "(the net itself)" for name, value in given.items() if value is None]
        if missing:
            raise StateError(f"no state for {', '.join(missing)}: start from init_state(example_input)")
        _refuse_reentrant(given)
        with carried(net, is_functional=True) as memories:
            for name, memory in memories.items():
                memory.state = given[name]
            out = _call(net, params, x)
            return out, {name: dict(memory.state or {}) for name, memory in memories.items()}

    def init_state(example_input: Any) -> NetState:
        buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}  # batch norm counts what it sees
        with torch.no_grad(), carried(net, is_functional=True) as memories:
            _call(net, buffers, example_input)
            unused = [name for name, memory in memories.items() if memory.initial is None]
            if unused:
                raise StateError(f"the net did not call {', '.join(unused)}, so the form of its state is not known")
            return {name: dict(memory.initial or {}) for name, memory in memories.items()}

    return step, init_state


def _own_tensors(net: nn.Module) -> dict[str, Tensor]:
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def _check_names(net: nn.Module, params: Mapping[str, Tensor]) -> None:
    wanted = _own_tensors(net).keys()
    if wanted == params.keys():
        return
    missing, unknown = sorted(wanted - params.keys()), sorted(params.keys() - wanted)
    problems = [f"without {', '.join(missing)}"] if missing else []
    problems += [f"with unknown {', '.join(unknown)}"] if unknown else []
    raise StateError(
        f"params {' and '.join(problems)}: expected every parameter and buffer, "
        "{**dict(net.named_parameters()), **dict(net.named_buffers())}"
    )


def _refuse_reentrant(state: Mapping[str, State | None]) -> None:
    """Refuse a step that a reentrant checkpoint repeats in its backward pass.

    It ran the step first without a graph, and sees no tensors in dictionaries: a state from there has no gradient.

    Raises:
        StateError: a reentrant checkpoint repeats the step.
    """
    if torch.compiler.is_compiling() or graph_task() == -1:  # -1: this thread is in no backward pass
        return
    is_reentrant = backward_function() is CheckpointFunction
    values: list[Tensor] = []
    for kept in state.values():
        if kept is not None:
            values.extend(kept.values())
    if is_reentrant and not all(value.requires_grad for value in values):
        raise StateError(
            "checkpoint(step, ..., use_reentrant=True) lets no gradient through the state, which it does not see in "
            "its dictionary: call checkpoint(step, params, x, state, use_reentrant=False) for the step of "
            "functional(net)"
        )


# Threads take turns: torch.func.functional_call puts tensors into the net while it runs, which other threads would see.


class _Turns:
    """Lets any number of threads use a net as it is, or one of them with other tensors in it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users: dict[int, int] = {}  # thread → calls of it that run
        self._changer: int | None = None

    @contextmanager
    def taken(self, to_change: bool) -> Iterator[None]:
        """Inside, no other thread changes the net; with `to_change`, none uses it either. Nests within a thread."""
        thread = threading.get_ident()

        def is_free() -> bool:
            if self._changer not in (None, thread):
                return False
            return not (to_change and any(user != thread for user in self._users))

        with self._changed:
            self._changed.wait_for(is_free)
            self._users[thread] = self._users.get(thread, 0) + 1
            before = self._changer
            self._changer = thread if to_change else before
        try:
            yield
        finally:
            with self._changed:
                self._changer = before
                self._users[thread] -= 1
                if not self._users[thread]:
                    del self._users[thread]
                self._changed.notify_all()


_TURNS: WeakKeyDictionary[nn.Module, _Turns] = WeakKeyDictionary()
_MAKING_TURNS = threading.Lock()


def _call(net: nn.Module, tensors: Mapping[str, Tensor], x: Any) -> Any:
    """`net(x)` with these parameters and buffers instead of its own."""
    if torch.compiler.is_compiling():
        return torch.func.functional_call(net, dict(tensors), (x,))
    with _MAKING_TURNS:
        turns = _TURNS.setdefault(net, _Turns())
    with turns.taken(to_change=False):
        own = _own_tensors(net)
        if all(own[name] is tensor for name, tensor in tensors.items()):
            return net(x)
    with turns.taken(to_change=True):
        return torch.func.functional_call(net, dict(tensors), (x,))
