"""Neuron: turns input current into spikes, with state.

    multi step:   x [T, B, ...] → out [T, B, ...]       starts from the initial state, keeps no state afterwards
    single step:  x [B, ...]    → out [B, ...]          streams: keeps its state until `reset_state`

An elementwise neuron declares its states and one pure step in the neuron language; it then runs on every backend:

    state  = {"v": "v_init"}                           name → initial value (a number or a parameter's name)
    step(x, state, params) -> (out, next_state)        charge → fire → reset

A neuron that is not elementwise (attention, recurrent weights) is a stateful torch module with
`capabilities.elementwise = False` and says in its docstring why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

StepMode = Literal["single", "multi"]


@dataclass(frozen=True)
class NeuronCapabilities:
    """What a neuron promises; the conformance suite gates its checks on these.

    Args:
        elementwise: declares `step` in the neuron language, so backends can fuse it.
        spiking: outputs are 0 or 1. False for readouts and graded or integer outputs.
        differentiable: gradients reach the input and the learnable parameters.
        stochastic: draws random numbers; equal seeds give equal outputs.
        step_modes: the step modes it can run in.
        fixed_num_steps: works for one T only, given in its Config.
        dtypes: input dtypes it accepts.
    """

    elementwise: bool = True
    spiking: bool = True
    differentiable: bool = True
    stochastic: bool = False
    step_modes: tuple[StepMode, ...] = ("single", "multi")
    fixed_num_steps: bool = False
    dtypes: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")


@runtime_checkable
class Neuron(Protocol):
    """What callers rely on; also a `torch.nn.Module`. Subclass `spikecore.nn.Neuron` to get all but the step."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[NeuronCapabilities]
    config: Any
    step_mode: StepMode

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """The state before the first step, for one single-step input `x` `[B, ...]`."""

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, ...]` or `[B, ...]` by `step_mode`; the output has the input's shape and dtype."""
