"""Gated LIF: learnable gates mix the ways in which a LIF may leak, take its input and reset."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from spikecore.dynamics import sigmoid, spike
from spikecore.errors import OptionError, ShapeError
from spikecore.interfaces import Inner, NeuronCapabilities, Range, SameAs
from spikecore.nn import ATan, Neuron, Surrogate

Fraction = Annotated[float, Range(gt=0.0, lt=1.0)]
HALF = (torch.float16, torch.bfloat16)


def _gate(name: str) -> tuple[str, Callable[[float], float]]:
    """The parameter behind an option in (0, 1): its sigmoid is the option, so it stays there while it is trained."""
    return f"gate_{name}", lambda value: math.log(value / (1 - value))


GATES = {name: _gate(name) for name in ("alpha", "beta", "gamma", "tau", "v_threshold", "leak", "v_subtract")}


class Gated(Neuron):
    """Base of both: all but the input's conductance."""

    state = {"v": 0.0, "s": 0.0}  # noqa: RUF012
    trained = GATES

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            alpha: 1 leaks exponentially, 0 linearly.
            beta: 1 scales the input by the conductance, 0 takes it as it is.
            gamma: 1 resets to 0, 0 subtracts.
            tau: share of v that an exponential leak keeps.
            v_threshold: fires when v >= v_threshold.
            leak: what a linear leak takes away.
            v_subtract: what a spike subtracts.
            surrogate: the derivative of the spike.
        """

        alpha: Fraction = 0.5
        beta: Fraction = 0.5
        gamma: Fraction = 0.5
        tau: Fraction = 0.25
        v_threshold: Fraction = 0.5
        leak: Fraction = 0.0625
        v_subtract: Fraction = 0.5
        surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()  # noqa: RUF009  (immutable)

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        alpha, gamma = sigmoid(params.gate_alpha), sigmoid(params.gate_gamma)
        decayed = (1 - alpha * (1 - sigmoid(params.gate_tau))) * state.v
        linear = (1 - alpha) * sigmoid(params.gate_leak)
        reset = decayed * gamma * state.s + (1 - gamma) * sigmoid(params.gate_v_subtract) * state.s
        v = decayed - linear + x - reset
        s = spike(v - sigmoid(params.gate_v_threshold), params.surrogate)
        return s, {"v": v, "s": s}


class GLIF(Gated):
    """Gated LIF with one conductance for all steps.

    i = x (1 - beta (1 - conductance))
    d = (1 - alpha (1 - tau)) v                        exponential leak
    v = d - (1 - alpha) leak + i - gamma d s - (1 - gamma) v_subtract s
    s = Θ(v - v_threshold)

    On the right v and s are those of the step before: the reset by gamma (to 0) and 1 - gamma (by `v_subtract`) happens
    as the next step begins, as published, so the recorded v is that before the reset. `tau` here is the share of v that
    stays. v and s start at 0; fires when v >= v_threshold.

    All options from alpha to conductance are in (0, 1) and trained: each is the sigmoid of a parameter,
    `param_gate_alpha` and so on, one for all neurons or one per channel. Paper and peer start alpha, beta and gamma
    near 1/2 at random.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Gradients: to x, the parameters and the initial states; through the spike by the surrogate, in the reset too.

    Source: Yao et al., GLIF: A unified gated leaky integrate-and-fire neuron for spiking neural networks (NeurIPS
    2022).

    Parity: spikingjelly's GatedLIFNode with equal conductances; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> GLIF(alpha=0.9, beta=0.1, gamma=0.9)(torch.full((4, 1), 0.4)).flatten().tolist()
        [0.0, 0.0, 1.0, 0.0]
    """

    @dataclass(frozen=True)
    class Config(Gated.Config):
        """
        Args:
            conductance: scale of the input.
        """

        conductance: Fraction = 0.5

    trained = {**GATES, "conductance": _gate("conductance")}  # noqa: RUF012

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        closed = sigmoid(params.gate_beta) * (1 - sigmoid(params.gate_conductance))
        return Gated.step(x * (1 - closed), state, params)


class TimedGLIF(Gated):
    """Gated LIF with a conductance of its own for every step, as published.

    As `GLIF`, with conductance[t] = sigmoid(conductances[t]) learnable, one for each of `num_steps` steps (and each
    channel, where `beta` has one per channel), 1/2 at first. It scales the whole input at once; the recurrence is then
    a declared, elementwise step, which backends fuse. For sequences of `num_steps` steps only, in multi-step mode;
    inside `streaming`, v and s carry over between calls.

    Returns:
        Spikes, 0 or 1, of the input's shape `[num_steps, B, ...]` and dtype.

    Raises:
        ShapeError: another number of steps.
        OptionError: single-step mode: a step would not know its number.

    Gradients: to x, the conductances, the other parameters and the initial states.

    Source: Yao et al. (NeurIPS 2022).

    Parity: spikingjelly's GatedLIFNode; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> TimedGLIF(num_steps=3)(torch.full((3, 1), 0.5)).flatten().tolist()
        [0.0, 1.0, 0.0]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(step_modes=("multi",), fixed_num_steps=True)

    @dataclass(frozen=True, kw_only=True)
    class Config(Gated.Config):
        """
        Args:
            num_steps: T.
        """

        num_steps: Annotated[int, Range(ge=1), SameAs("encoder.num_steps")]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        beta = self.config.beta
        channels = (len(beta),) if isinstance(beta, tuple) else ()
        self.conductances = nn.Parameter(torch.zeros(self.config.num_steps, *channels))

    def forward(self, x: Tensor) -> Tensor:
        """`[num_steps, B, ...]` → spikes of the same shape and dtype."""
        if self.step_mode == "single":
            raise OptionError(
                "TimedGLIF has a conductance for each step of a sequence, so it takes whole sequences: use step_mode "
                "'multi', or GLIF, whose conductance is the same for all steps"
            )
        if not x.is_floating_point() or x.dim() < 2:
            return super().forward(x)  # which says what is wrong
        if x.shape[0] != self.config.num_steps:
            raise ShapeError(
                f"TimedGLIF has a conductance for each of its num_steps={self.config.num_steps} steps, got "
                f"{tuple(x.shape)}: feed sequences of that length, or make it with num_steps={x.shape[0]}"
            )
        # Half-precision input is widened before it is scaled: a scaled input that is rounded moves spikes.
        wide = x.float() if x.dtype in HALF else x
        params = self.params_for(wide[0])
        conductances = self.conductances.to(wide.dtype).sigmoid()
        shape = (len(conductances), 1, *conductances.shape[1:])
        conductances = conductances.reshape(*shape, *([1] * (x.dim() - len(shape))))
        return super().forward(wide * (1 - params.gate_beta.sigmoid() * (1 - conductances))).to(x.dtype)
