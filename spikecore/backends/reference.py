"""The reference `torch`: a plain loop over the steps of x under torch's own autograd.

Neurons on this backend call `loop` with their step itself, without operators or graphs, so that they can check every
other backend independently. (The loop unbinds x once: indexing `x[t]` makes the backward pass quadratic in T.)
`TorchBackend` runs programs, as other backends do: it interprets both graphs with torch's operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from spikecore.backends.kit.interpreter import Interpreter
from spikecore.backends.memory_format import stack_steps, unbind_steps
from spikecore.interfaces.backend import BackendCapabilities, Support

if TYPE_CHECKING:
    from spikecore.dynamics import Program

State = dict[str, Tensor]
Step = Callable[[Tensor, State, dict[str, Any]], tuple[Tensor, State]]


def loop(
    step: Step, x: Tensor, state: State, params: dict[str, Any], record: Sequence[str] = ()
) -> tuple[Tensor, State, dict[str, Tensor]]:
    """Run `step` over `x` `[T, B, ...]`; results and the gradient of x keep its memory format.

    Returns:
        `(out [T, B, ...], final state, recorded sequences [T, B, ...])`.
    """
    outs: list[Tensor] = []
    recorded: dict[str, list[Tensor]] = {name: [] for name in record}
    for current in unbind_steps(x):
        out, state = step(current, state, params)
        outs.append(out)
        for name, values in recorded.items():
            values.append(state[name])
    if not outs:
        empty = {name: x.new_empty((0, *state[name].shape), dtype=state[name].dtype) for name in record}
        return x.clone(), state, empty  # an empty output that is still connected to the graph of x
    return stack_steps(outs), state, {name: stack_steps(values) for name, values in recorded.items()}


class TorchBackend(Interpreter):
    """Interprets every program, on every device and dtype of torch. Slow; the reference for all others."""

    capabilities: ClassVar[BackendCapabilities] = BackendCapabilities(priority=0, devices=("cpu", "cuda"))

    def supports(self, program: Program, device: torch.device, dtype: torch.dtype) -> Support:
        """Everything."""
        return Support(True)
