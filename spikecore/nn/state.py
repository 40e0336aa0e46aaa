"""State of a net: where it lives, how long it lives, and how to look at it.

A multi-step call starts from the initial state and leaves nothing behind. Inside `with streaming(net)` state is kept
between calls. Single-step mode always streams: `reset_state(net)` starts a new sequence, `detach_state(net)` cuts the
graph. State is never part of `state_dict()`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spikecore.errors import OptionError, StateError, StateShapeError, StreamingError


class Stateful(nn.Module):
    """Base of modules with state: `initial_state(x)` for one step's input; `_kept` is the state between calls."""

    step_mode: str = "multi"

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[str, Tensor] | None = None
        self._streams = False

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """The state before the first step, for one single-step input `x` `[B, ...]`."""
        raise NotImplementedError

    @property
    def keeps_state(self) -> bool:
        """Whether state outlives a call."""
        return self._streams or self.step_mode == "single"

    def state_for(self, x: Tensor) -> dict[str, Tensor]:
        """The state to start from with the single-step input `x`.

        Raises:
            StateShapeError: the kept state belongs to another batch shape, device or dtype.
        """
        initial = self.initial_state(x)
        if self._kept is None or not self.keeps_state:
            return initial
        for name, value in self._kept.items():
            ours, theirs = _form(value), _form(initial[name])
            if ours != theirs:
                raise StateShapeError(
                    f"the kept state {name!r} of {type(self).__name__} is {ours}, the input asks for {theirs}: "
                    "call reset_state(net) before a sequence of another batch"
                )
        return self._kept

    def keep(self, state: dict[str, Tensor]) -> None:
        """Remember the final state, if state outlives the call."""
        self._kept = state if self.keeps_state else None


def _form(value: Tensor) -> tuple[tuple[int, ...], torch.device, torch.dtype]:
    return tuple(value.shape), value.device, value.dtype


def _stateful(net: nn.Module) -> dict[str, Stateful]:
    return {name: module for name, module in net.named_modules() if isinstance(module, Stateful)}


@contextmanager
def streaming(net: nn.Module) -> Iterator[nn.Module]:
    """Inside, every call of `net` goes on where the last one ended; entry and exit drop the state.

    Raises:
        StreamingError: `net`, or a part of it, is already streaming.
    """
    modules = _stateful(net).values()
    if any(module._streams for module in modules):
        raise StreamingError("this net is already streaming: leave the outer `with streaming(...)` first")
    for module in modules:
        module._streams, module._kept = True, None
    try:
        yield net
    finally:
        for module in modules:
            module._streams, module._kept = False, None


def reset_state(net: nn.Module) -> None:
    """Start a new sequence: every state is initial again."""
    for module in _stateful(net).values():
        module._kept = None


def detach_state(net: nn.Module) -> None:
    """Keep the values of the state and cut its graph (truncated backpropagation through time)."""
    for module in _stateful(net).values():
        if module._kept is not None:
            module._kept = {name: value.detach() for name, value in module._kept.items()}


def get_state(net: nn.Module) -> dict[str, dict[str, Tensor] | None]:
    """Qualified module name → its kept state; None where it is the initial one."""
    return {name: None if m._kept is None else dict(m._kept) for name, m in _stateful(net).items()}


def set_state(net: nn.Module, state: Mapping[str, Mapping[str, Tensor] | None]) -> None:
    """Put back what `get_state` gave.

    Raises:
        StateError: the modules differ from those of `net`, or `net` keeps no state (multi-step, not streaming).
    """
    modules = _stateful(net)
    if set(modules) != set(state):
        raise StateError(f"expected the state of {sorted(modules)}, got that of {sorted(state)}")
    for name, value in state.items():
        if value is not None and not modules[name].keeps_state:
            raise StateError(f"{name or type(net).__name__} keeps no state now: set it inside `with streaming(net)`")
    for name, value in state.items():
        modules[name]._kept = None if value is None else dict(value)


def set_step_mode(net: nn.Module, step_mode: str) -> None:
    """Switch every module of `net` that has a step mode; kept state is dropped."""
    if step_mode not in ("single", "multi"):
        raise OptionError(f"step_mode must be 'single' or 'multi', got {step_mode!r}")
    reset_state(net)
    for module in net.modules():
        if hasattr(module, "step_mode"):
            setattr(module, "step_mode", step_mode)  # noqa: B010  (nn.Module's __setattr__ is typed for tensors)
