"""Parallel spiking neurons: no reset, so all steps are one matrix product over time.

h = W x + b          over the time axis, one W for all neurons
s = Θ(h)             b holds the negative threshold

They are not elementwise: an output depends on many steps of the input, which one step of the neuron language cannot
see. In return there is no loop over time.

Source: Fang et al., Parallel spiking neurons with high efficiency and ability to learn long-term dependencies (NeurIPS
2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from spikecore.errors import OptionError, ShapeError, StateError
from spikecore.interfaces import Inner, NeuronCapabilities, Range, SameAs
from spikecore.nn import ATan, Surrogate, TorchNeuron, widened

WHY = "each output depends on many steps of the input"


def _over_time(weight: Tensor, x: Tensor) -> Tensor:
    """`weight` `[T', T]` times `x` `[T, B, ...]` → `[T', B, ...]`."""
    return (weight @ x.flatten(1)).unflatten(1, x.shape[1:]) if x.dim() > 2 else weight @ x


def _along(bias: Tensor, x: Tensor) -> Tensor:
    return bias.to(x.dtype).reshape(-1, *([1] * (x.dim() - 1)))


class _FixedSteps(TorchNeuron):
    """A weight `[T, T]` and a bias `[T]` for sequences of T steps."""

    why_torch = WHY

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        num_steps = self.config.num_steps
        self.weight = nn.Parameter(torch.empty(num_steps, num_steps))
        self.bias = nn.Parameter(torch.full((num_steps,), -1.0))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def _refuse(self, num_steps: int) -> None:
        if num_steps != self.config.num_steps:
            raise ShapeError(
                f"{type(self).__name__} has a weight for each pair of its num_steps={self.config.num_steps} steps, got "
                f"{num_steps} steps: feed sequences of that length, or make it with num_steps={num_steps}"
            )


class PSN(_FixedSteps):
    """Parallel spiking neuron: every step sees all steps, later ones too.

    h = W x + b, W [T, T] and b [T] learnable;  s = Θ(h)

    For sequences of `num_steps` = T steps only, in multi-step mode. There is no potential, no reset and no state: every
    call is a window of its own, inside `streaming` too. It is not elementwise (see this module's docstring).

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Raises:
        ShapeError: another number of steps.

    Gradients: to x, W and b; through the spike by the surrogate.

    Source: Fang et al. (NeurIPS 2023).

    Parity: spikingjelly's PSN; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> neuron = PSN(num_steps=2)
        >>> _ = neuron.weight.data.copy_(torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
        >>> neuron(torch.tensor([[0.6], [0.8]])).flatten().tolist()
        [1.0, 0.0]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(
        elementwise=False, step_modes=("multi",), fixed_num_steps=True
    )

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            num_steps: T.
            surrogate: the derivative of the spike.
        """

        num_steps: Annotated[int, Range(ge=1), SameAs("encoder.num_steps")]
        surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()  # noqa: RUF009  (immutable)

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def run(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `TorchNeuron.run`."""
        self._refuse(x.shape[0])
        h = _over_time(self.weight.to(x.dtype), x) + _along(self.bias, x)
        return self.config.surrogate(h), {}


class MaskedPSN(_FixedSteps):
    """Parallel spiking neuron whose steps learn to see the last `order` steps only.

    h = (W ∘ M) x + b,  M = lambda mask + (1 - lambda),  mask[i, j] = 1 where 0 <= i - j < order, else 0;  s = Θ(h)

    lambda goes from 0 (PSN) to 1 (causal) while training: `set_lambda`. For sequences of `num_steps` steps. With
    lambda = 1 it also runs step by step, and inside `streaming` in parts; below, outputs depend on later inputs and
    only the whole sequence is accepted. After `num_steps` steps the next sequence begins, from nothing. There is no
    potential and no reset. It is not elementwise (see this module's docstring).

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Raises:
        OptionError: single-step mode with lambda < 1.
        ShapeError: another number of steps.
        StateError: a part goes beyond the end of the sequence.

    Gradients: to x, W and b; through the spike by the surrogate.

    Source: Fang et al. (NeurIPS 2023).

    Parity: spikingjelly's MaskedPSN; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> neuron = MaskedPSN(num_steps=3, order=2, masking=1.0)
        >>> _ = neuron.weight.data.fill_(0.6)
        >>> neuron(torch.ones(3, 1)).flatten().tolist()
        [0.0, 1.0, 1.0]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(elementwise=False, fixed_num_steps=True)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            num_steps: T.
            order: how many steps an output sees in the end, the present one among them.
            masking: lambda, to begin with.
            surrogate: the derivative of the spike.
        """

        num_steps: Annotated[int, Range(ge=1), SameAs("encoder.num_steps")]
        order: Annotated[int, Range(ge=1)] = 2
        masking: Annotated[float, Range(ge=0.0, le=1.0)] = 0.0
        surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()  # noqa: RUF009  (immutable)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register_buffer("masking", torch.tensor(self.config.masking))
        back = torch.arange(self.config.num_steps)
        distance = back[:, None] - back[None, :]
        mask = ((distance >= 0) & (distance < self.config.order)).to(self.weight.dtype)
        self.register_buffer("mask", mask, persistent=False)

    def set_lambda(self, value: float) -> None:
        """Set lambda, 0 to 1.

        Raises:
            OptionError: it is outside.
        """
        if not 0.0 <= value <= 1.0:
            raise OptionError(f"lambda of MaskedPSN must be from 0 to 1, got {value!r}")
        self.masking.fill_(value)

    def masked_weight(self) -> Tensor:
        """W ∘ M."""
        masked: Tensor = self.weight * (self.masking * self.mask + (1 - self.masking))
        return masked

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """`past`, the sequence so far `[num_steps, B, ...]`; `t`, the number of steps that are over."""
        past = torch.zeros((self.config.num_steps, *x.shape), dtype=widened(x).dtype, device=x.device)
        return {"past": past, "t": past.new_zeros(())}

    def run(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `TorchNeuron.run`."""
        total = self.config.num_steps
        start = int(state["t"]) % total if self.keeps_state else 0  # a value that torch.compile cannot know
        stop = start + x.shape[0]
        if start and stop > total:
            raise StateError(
                f"MaskedPSN has num_steps={total} and {start} of them are over, got {x.shape[0]} more: feed parts that "
                "end where a sequence ends, or call reset_state(net) before the next one"
            )
        in_parts = self.keeps_state and float(self.masking) == 1
        if self.step_mode == "single" and not in_parts:
            raise OptionError("MaskedPSN runs step by step when lambda is 1: call set_lambda(1.0), or use 'multi'")
        if not in_parts or stop > total:
            self._refuse(x.shape[0])
        weight = self.masked_weight().to(x.dtype)
        past = torch.cat([state["past"][:start], x])
        h = _over_time(weight[start:stop, :stop], past) + _along(self.bias[start:stop], x)
        rest = state["past"].new_zeros((total - stop, *x.shape[1:]))
        return self.config.surrogate(h), {"past": torch.cat([past, rest]), "t": torch.full_like(state["t"], stop)}


class SlidingPSN(TorchNeuron):
    """Parallel spiking neuron with one kernel of `order` taps that slides over time.

    h[t] = Σ_i w[i] x[t - order + 1 + i] + b,  i = 0 … order - 1, x = 0 before the first step;  s = Θ(h)

    For any number of steps, in both step modes; state is the last `order - 1` inputs. w and b are learnable; b starts
    at -1, w at 2^(i - order + 1), or random with `exp_init=False`. There is no potential and no reset. It is not
    elementwise (see this module's docstring).

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Gradients: to x, w, b and the kept inputs; through the spike by the surrogate.

    Source: Fang et al. (NeurIPS 2023).

    Parity: spikingjelly's SlidingPSN; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> SlidingPSN(order=2)(torch.tensor([[0.7], [0.7], [0.5], [1.0]])).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    why_torch = WHY

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            order: taps of the kernel.
            exp_init: start from powers of two, else from a uniform distribution.
            surrogate: the derivative of the spike.
        """

        order: Annotated[int, Range(ge=1)] = 4
        exp_init: bool = True
        surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()  # noqa: RUF009  (immutable)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        order = self.config.order
        weight = 2.0 ** torch.arange(-order + 1.0, 1.0)
        if not self.config.exp_init:
            nn.init.kaiming_uniform_(weight.unsqueeze(0), a=math.sqrt(5))
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.tensor(-1.0))

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """`past`: the last `order - 1` inputs, 0."""
        return {"past": torch.zeros((self.config.order - 1, *x.shape), dtype=widened(x).dtype, device=x.device)}

    def run(self, x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `TorchNeuron.run`."""
        seen = torch.cat([state["past"], x])
        h = _over_time(self._band(x.shape[0], seen.shape[0]).to(x.dtype), seen) + self.bias.to(x.dtype)
        return self.config.surrogate(h), {"past": seen[x.shape[0] :]}

    def _band(self, rows: int, columns: int) -> Tensor:
        """The kernel as a matrix: row t holds it from column t on."""
        device = self.weight.device
        tap = torch.arange(columns, device=device) - torch.arange(rows, device=device)[:, None]
        inside = (tap >= 0) & (tap < self.config.order)
        return torch.where(inside, self.weight[tap.clamp(0, self.config.order - 1)], 0.0)
