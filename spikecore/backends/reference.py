"""The reference backend `torch`: a plain loop over `x.unbind(0)`.

Called through `loop`, it runs under torch's own autograd, so that something independent checks every other backend.
(`unbind`, because indexing `x[t]` makes the backward pass quadratic in T.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from spikecore.errors import BackendError
from spikecore.interfaces.backend import BackendCapabilities, Support
from spikecore.interfaces.component import Configurable

if TYPE_CHECKING:
    from spikecore.dynamics import Program

State = dict[str, Tensor]
Step = Callable[[Tensor, State, dict[str, Any]], tuple[Tensor, State]]


def loop(
    step: Step, x: Tensor, state: State, params: dict[str, Any], record: Sequence[str] = ()
) -> tuple[Tensor, State, dict[str, Tensor]]:
    """Run `step` over `x` `[T, B, ...]`.

    Returns:
        `(out [T, B, ...], final state, recorded sequences [T, B, ...])`.
    """
    outs: list[Tensor] = []
    recorded: dict[str, list[Tensor]] = {name: [] for name in record}
    for current in x.unbind(0):
        out, state = step(current, state, params)
        outs.append(out)
        for name, values in recorded.items():
            values.append(state[name])
    if not outs:
        empty = {name: x.new_empty((0, *state[name].shape), dtype=state[name].dtype) for name in record}
        return torch.empty_like(x), state, empty
    return torch.stack(outs), state, {name: torch.stack(values) for name, values in recorded.items()}


class TorchBackend(Configurable):
    """Runs every neuron, on every device and dtype of torch; the measure of the others."""

    capabilities: ClassVar[BackendCapabilities] = BackendCapabilities(priority=0, devices=("cpu", "cuda"))

    def __init__(self) -> None:
        self.config = self.Config()
        self._steps: dict[str, tuple[Step, tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {}

    def learn(
        self, key: str, step: Step, states: Sequence[str], params: Sequence[str] = (), record: Sequence[str] = ()
    ) -> None:
        """Make a step callable by `key`; `states`, `params`: the order of the tensors in `run`."""
        self._steps[key] = step, tuple(states), tuple(params), tuple(record)

    def supports(self, program: Program, device: torch.device, dtype: torch.dtype) -> Support:
        """Everything."""
        return Support(True)

    def run(
        self, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """See `interfaces.backend.Backend.run`; nothing is saved, the backward pass runs the loop again."""
        step, state_names, param_names, record = self._step(key)
        given = dict(zip(state_names, states, strict=True))
        out, final, recorded = loop(step, x, given, dict(zip(param_names, params, strict=True)), record)
        # T = 0 hands the initial state through; outputs never alias inputs.
        finals = [final[name].clone() if final[name] is given[name] else final[name] for name in state_names]
        return out, finals, [recorded[name] for name in record], []

    def run_bwd(
        self,
        key: str,
        saved: Sequence[Tensor],
        x: Tensor,
        states: Sequence[Tensor],
        params: Sequence[Tensor],
        grad_out: Tensor,
        grad_states: Sequence[Tensor],
        grad_recorded: Sequence[Tensor],
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """See `interfaces.backend.Backend.run_bwd`."""
        inputs = [tensor.detach().requires_grad_() for tensor in (x, *states, *params)]
        count = len(states) + 1
        with torch.enable_grad():
            out, final, recorded, _ = self.run(key, inputs[0], inputs[1:count], inputs[count:])
        outputs = [out, *final, *recorded]
        grads = [grad_out, *grad_states, *grad_recorded]
        pairs = [(a, g) for a, g in zip(outputs, grads, strict=True) if a.requires_grad]
        found = torch.autograd.grad([a for a, _ in pairs], inputs, [g for _, g in pairs], allow_unused=True)
        full = [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, found, strict=True)]
        return full[0], full[1:count], full[count:]

    def _step(self, key: str) -> tuple[Step, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        if key not in self._steps:
            raise BackendError(f"backend 'torch' knows no neuron under the key {key!r}; call `learn` first")
        return self._steps[key]
