"""The reference `torch`: a plain loop over `x.unbind(0)` under torch's own autograd.

Neurons on this backend call `loop` with their step itself, no operator and no graph between, so that something
independent checks every other backend. (`unbind`, because indexing `x[t]` makes the backward pass quadratic in T.)
`TorchBackend` is the same with the programs that backends are given: it interprets both graphs with torch's operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from spikecore.dynamics.evaluate import evaluate
from spikecore.dynamics.vjp import reached, with_gaps
from spikecore.errors import BackendError
from spikecore.interfaces.backend import BackendCapabilities, Support
from spikecore.interfaces.component import Configurable, make_config

if TYPE_CHECKING:
    from spikecore.dynamics import Graph, Program

State = dict[str, Tensor]
Step = Callable[[Tensor, State, dict[str, Any]], tuple[Tensor, State]]
HALF = (torch.float16, torch.bfloat16)


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
        return x.clone(), state, empty  # as empty as x, and in its graph
    return torch.stack(outs), state, {name: torch.stack(values) for name, values in recorded.items()}


class TorchBackend(Configurable):
    """Interprets every program, on every device and dtype of torch; slow, and the measure of the others."""

    capabilities: ClassVar[BackendCapabilities] = BackendCapabilities(priority=0, devices=("cpu", "cuda"))

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)
        self._programs: dict[str, Program] = {}
        self._pruned: dict[tuple[str, frozenset[str]], Graph] = {}

    def supports(self, program: Program, device: torch.device, dtype: torch.dtype) -> Support:
        """Everything."""
        return Support(True)

    def learn(self, program: Program) -> None:
        """See `interfaces.backend.Backend.learn`."""
        self._programs[program.key] = program

    def saved_like(self, key: str, x: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        """Nothing is saved; the backward pass runs the steps again."""
        return []

    def reads_input(self, key: str, saved: Sequence[Tensor]) -> bool:
        """It runs the steps again."""
        return True

    def run(
        self, key: str, x: Tensor, states: Sequence[Tensor], params: Sequence[Tensor], save: bool, carry: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """See `interfaces.backend.Backend.run`."""
        program = self._program(key)
        given = _param_inputs(program, params, x.dim() - 1)

        def step(current: Tensor, state: State, _: dict[str, Any]) -> tuple[Tensor, State]:
            return _step(program, current, state, given)

        with torch.no_grad():
            state = dict(zip(program.states, states, strict=True))
            out, final, recorded = loop(step, x, state, {}, program.record)
        # T = 0 hands the initial state through; outputs never alias inputs.
        finals = [final[name].clone() if final[name] is state[name] else final[name] for name in program.states]
        return out, finals if carry else [], [recorded[name] for name in program.record], []

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
        """See `interfaces.backend.Backend.run_bwd`."""
        program = self._program(key)
        given = _param_inputs(program, params, x.dim() - 1)
        learned = [param for param in program.params if param.learnable]
        sums = [torch.zeros_like(tensor) for tensor in params]
        position = {param.name: index for index, param in enumerate(program.params)}
        with torch.no_grad():
            before = [dict(zip(program.states, states, strict=True))]
            for current in x.unbind(0):
                before.append(_step(program, current, before[-1], given)[1])
            grads = {n: g for n, g in zip(program.states, grad_states, strict=True) if g is not None}
            grad_x = torch.zeros_like(x)
            for t in range(x.shape[0] - 1, -1, -1):
                for name, sequence in zip(program.record, grad_recorded, strict=True):
                    if sequence is not None:
                        grads[name] = grads[name] + sequence[t] if name in grads else sequence[t]
                arriving = {f"state.{name}": value for name, value in grads.items()}
                if grad_out is not None:
                    arriving["out"] = _wide(grad_out[t])
                found = evaluate(
                    self._backward(program, frozenset(arriving)),
                    {
                        "x": _wide(x[t]),
                        **{f"state.{name}": value for name, value in before[t].items()},
                        **given,
                        **{f"grad.{name}": value for name, value in arriving.items()},
                    },
                )
                reaches = reached(program.forward, arriving)
                grad_x[t] = found["grad.x"]
                grads = {
                    name: _like(found[f"grad.state.{name}"], before[t][name])
                    for name in program.states
                    if f"state.{name}" in reaches
                }
                for param in learned:
                    share = _like(
                        found[f"grad.param.{param.name}"], before[t][program.states[0]] if program.states else x[t]
                    )
                    axes = [axis for axis in range(share.dim()) if not (param.per_channel and axis == 1)]
                    sums[position[param.name]] += share.sum(axes)
        finals = [  # never an input itself, as with T = 0
            grads[name].clone() if name in grads else torch.zeros_like(state)
            for name, state in zip(program.states, states, strict=True)
        ]
        return grad_x, finals, sums

    def _backward(self, program: Program, arriving: frozenset[str]) -> Graph:
        """The gradient of a step at which only these outputs' gradients arrive."""
        known = self._pruned.setdefault((program.key, arriving), program.backward)
        if known is program.backward and len(arriving) < len(program.forward.outputs):
            known = self._pruned[program.key, arriving] = with_gaps(program, sorted(arriving))
        return known

    def _program(self, key: str) -> Program:
        if key not in self._programs:
            raise BackendError(f"backend 'torch' knows no neuron under the key {key!r}; call `learn` first")
        return self._programs[key]


def _step(program: Program, x: Tensor, state: State, params: Mapping[str, Tensor]) -> tuple[Tensor, State]:
    wide = _wide(x)
    given = {"x": wide, **{f"state.{name}": value for name, value in state.items()}, **params}
    found = evaluate(program.forward, given)
    following = {name: _like(found[f"state.{name}"], state[name]) for name in program.states}
    return _like(found["out"], wide).to(x.dtype), following


def _like(value: Any, like: Tensor) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.full((), value, dtype=like.dtype, device=like.device)
    return tensor.expand(like.shape)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in HALF else x


def _param_inputs(program: Program, params: Sequence[Tensor], rank: int) -> dict[str, Tensor]:
    """Per-channel values shaped to follow axis 1 of a step of this rank."""
    return {
        f"param.{param.name}": value.reshape(-1, *([1] * (rank - 2))) if param.per_channel else value
        for param, value in zip(program.params, params, strict=True)
    }
