"""A backend that evaluates graphs one operation at a time: the smallest one that runs every neuron.

The forward pass evaluates the step's graph for each t. The backward pass computes the states again, then steps back
through time with the graph of the gradient, phase by phase (see `dynamics.phases`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spikecore.backends.kit.checks import check_support
from spikecore.backends.kit.dtypes import widen
from spikecore.dynamics import OPS, Graph, Param, Program, evaluate, gradient_at, phases, reached_inputs
from spikecore.interfaces.backend import Backend, Support


class Interpreter(Backend):
    """Runs every program with torch's operations.

    A subclass replaces `evaluate`, or adds to it; it sees every graph with all its inputs.
    """

    def supports(self, program: Program, device: torch.device, dtype: torch.dtype) -> Support:
        """Every program of operators that core knows, on the declared devices and dtypes."""
        return check_support(self.capabilities, OPS, program, device, dtype)

    def evaluate(self, graph: Graph, inputs: Mapping[str, Tensor]) -> Mapping[str, Any]:
        """The outputs of a graph, elementwise.

        Args:
            graph: a step, or its gradient.
            inputs: a tensor for each input, of one step `[B, ...]` or one that broadcasts to it.

        Returns:
            For each output a tensor that broadcasts to one step, or a number where it is the same everywhere.
        """
        return evaluate(graph, inputs)

    def run(
        self, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], save: bool, carry: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """See `Backend.run`; nothing is saved."""
        program = self.program(key)
        given = _param_inputs(program, params, x.dim() - 1)
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        state = dict(zip(program.states, states, strict=True))
        recorded = {name: state[name].new_empty((len(x), *state[name].shape)) for name in program.record}
        with torch.no_grad():
            for t, current in enumerate(x.unbind(0)):
                out[t], state = self._step(program, current, state, given)
                for name in program.record:
                    recorded[name][t] = state[name]
        # Copies: what is returned is contiguous and never shares memory with an input, also when T is 0.
        finals = [_copy(state[name]) for name in program.states if carry]
        return out, finals, list(recorded.values()), []

    def run_bwd(
        self,
        key: str,
        saved: Sequence[Tensor],
        x: Tensor,
        states: Sequence[Tensor],
        params: Sequence[Tensor],
        grad_out: Tensor | None,
        grad_states: Sequence[Tensor | None],
        grad_recorded: Sequence[Tensor | None],
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """See `Backend.run_bwd`."""
        program = self.program(key)
        given = _param_inputs(program, params, x.dim() - 1)
        grad_x = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
        sums = [torch.zeros(param.shape, dtype=param.dtype, device=param.device) for param in params]
        arriving = [grad is not None for grad in (grad_out, *grad_states, *grad_recorded)]
        grads = {name: grad for name, grad in zip(program.states, grad_states, strict=True) if grad is not None}
        t = len(x)
        with torch.no_grad():
            before = self._history(program, x, states, given)
            for phase in phases(program, arriving, len(x)):
                gradient = gradient_at(program, phase.arriving)
                reaches = reached_inputs(program.forward, phase.arriving)
                for _ in range(phase.num_steps):
                    t -= 1
                    for name, sequence in zip(program.record, grad_recorded, strict=True):
                        if sequence is not None:
                            grads[name] = grads[name] + sequence[t] if name in grads else sequence[t]
                    inputs = {**_step_inputs(x[t], before[t], given)}
                    inputs |= {f"grad.state.{name}": grad for name, grad in grads.items()}
                    if grad_out is not None:
                        inputs["grad.out"] = widen(grad_out[t])
                    values = self.evaluate(gradient, inputs)
                    grad_x[t] = values["grad.x"]
                    grads = {}
                    for name in program.states:
                        if f"state.{name}" in reaches:
                            grads[name] = _expand(values[f"grad.state.{name}"], before[t][name])
                    for total, param in zip(sums, program.params, strict=True):
                        if param.learnable:
                            share = _expand(values[f"grad.param.{param.name}"], widen(x[t]))
                            total += _sum_for(param, share)
        firsts = []
        for name, state in zip(program.states, states, strict=True):
            firsts.append(_copy(grads[name]) if name in grads else torch.zeros_like(_copy(state)))
        return grad_x, firsts, sums

    def _history(
        self, program: Program, x: Tensor, states: Sequence[Tensor], given: Mapping[str, Tensor]
    ) -> list[dict[str, Tensor]]:
        """The states before each step, and those after the last."""
        before = [dict(zip(program.states, states, strict=True))]
        for current in x.unbind(0):
            before.append(self._step(program, current, before[-1], given)[1])
        return before

    def _step(
        self, program: Program, x: Tensor, state: Mapping[str, Tensor], given: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        values = self.evaluate(program.forward, _step_inputs(x, state, given))
        following = {name: _expand(values[f"state.{name}"], state[name]) for name in program.states}
        return _expand(values["out"], widen(x)).to(x.dtype), following


def _step_inputs(x: Tensor, state: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"x": widen(x), **{f"state.{name}": value for name, value in state.items()}, **given}


def _param_inputs(program: Program, params: Sequence[Tensor], rank: int) -> dict[str, Tensor]:
    """The tensor parameters; per-channel ones shaped to follow axis 1 of a step of this rank."""
    inputs = {}
    for param, value in zip(program.params, params, strict=True):
        inputs[f"param.{param.name}"] = value.reshape(-1, *[1] * (rank - 2)) if param.per_channel else value
    return inputs


def _sum_for(param: Param, share: Tensor) -> Tensor:
    """The gradient of a parameter from that of one step `[B, ...]`: summed over all axes that it does not follow."""
    axes = list(range(share.dim()))
    if param.per_channel:
        axes.remove(1)
    return share.sum(axes)


def _expand(value: Any, like: Tensor) -> Tensor:
    """A result that depends on constants alone is a number."""
    tensor = value if isinstance(value, Tensor) else torch.full((), value, dtype=like.dtype, device=like.device)
    return tensor.expand(like.shape)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)
