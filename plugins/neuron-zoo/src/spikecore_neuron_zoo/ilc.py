"""Neurons with intra-layer connections: the spikes of one step feed the layer itself in the next.

    c[t] = x[t] + W s[t-1] + b        within each group of neurons; c[0] = x[0]
    s[t], state = the plain neuron's step on c[t]

They are not elementwise: a neuron's input depends on its group's outputs, so the steps run one after the other.

Source: Chen et al., Fully spiking actor network with intralayer connections for reinforcement learning (IEEE TNNLS
2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from spikecore.dynamics import Namespace
from spikecore.interfaces import Inner, Range
from spikecore.nn import IF, LIF, ATan, Neuron, Surrogate, TorchNeuron, widened


class IntraLayer(TorchNeuron):
    """Base: a subclass names the plain neuron and has its options, `num_groups` and `group_size`."""

    plain: ClassVar[type[Neuron]]
    why_torch = "its spikes feed other neurons of the layer"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """
        Args:
            num_groups: groups of neurons that are connected among themselves (an action each, in a policy).
            group_size: neurons in a group.
            v_threshold: fires when h >= v_threshold.
            v_reset: initial `v`, target of the hard reset.
            reset: `hard` or `soft`.
            detach_reset: no gradient through `s` in the reset.
            surrogate: the derivative of the spike.
        """

        num_groups: Annotated[int, Range(ge=1)]
        group_size: Annotated[int, Range(ge=1)]
        v_threshold: float = 1.0
        v_reset: float = 0.0
        reset: Literal["hard", "soft"] = "hard"
        detach_reset: bool = False
        surrogate: Annotated[Surrogate, Inner("surrogate")] = ATan()  # noqa: RUF009  (immutable)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        groups, size = self.config.num_groups, self.config.group_size
        bound = 1 / math.sqrt(size)
        self.weight = nn.Parameter(torch.empty(groups, size, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups * size).uniform_(-bound, bound))

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """The plain neuron's, and `feedback` = 0."""
        self.check_channels(x.flatten(1) if x.dim() > 1 else x, self.config.num_groups * self.config.group_size)
        numbers = {"feedback": 0.0, **self.plain.state, "v": self.config.v_reset}
        options = {"dtype": widened(x).dtype, "device": x.device}
        return {name: torch.full(x.shape, value, **options) for name, value in numbers.items()}

    def run(self, x: Tensor, state: dict[str, Tensor], added: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """See `TorchNeuron.run`; `added` `[T, 1, N]` joins the spikes, on their way out and back."""
        fixed = {"fires": "at", "v_leak": self.config.v_reset}
        params, outs = Namespace(**fixed, **vars(self.config)), []
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        for t, current in enumerate(x.unbind(0)):
            s, following = self.plain.step(current + state["feedback"], Namespace(**state), params)
            s = s if added is None else s + added[t]
            grouped = s.reshape(-1, *weight.shape[:2])
            feedback = torch.einsum("bgi,goi->bgo", grouped, weight).reshape(s.shape) + bias.reshape(s.shape[1:])
            state = {"feedback": feedback, **{name: following[name] for name in self.plain.state}}
            outs.append(s)
        return torch.stack(outs) if outs else torch.empty_like(x), state


class ILCIF(IntraLayer):
    """IF with intra-layer connections.

    c[t] = x[t] + W s[t-1] + b within each group, c[0] = x[0];  h = v + c;  s = Θ(h - v_threshold);  v is reset

    A step is `[B, num_groups · group_size]`; W, one `group_size`² matrix per group, and b are learnable. `v` starts at
    `v_reset`; fires when h >= v_threshold; reset in the same step; the feedback arrives one step later. It is not
    elementwise (see this module's docstring).

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, N]` and dtype.

    Raises:
        ShapeError: a step does not have num_groups · group_size features.

    Gradients: to x, W, b and the initial state; through the spike by the surrogate, in the feedback too.

    Source: Chen et al. (IEEE TNNLS 2024).

    Parity: spikingjelly's ILCIFNode, whose `conn` holds W and b; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> neuron = ILCIF(num_groups=1, group_size=2)
        >>> _ = neuron.weight.data.copy_(torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])), neuron.bias.data.zero_()
        >>> neuron(torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])).tolist()  # the first one makes the second one fire
        [[[1.0, 0.0]], [[0.0, 1.0]]]
    """

    plain = IF

    @dataclass(frozen=True, kw_only=True)
    class Config(IntraLayer.Config):
        """No more options."""


class ILCLIF(IntraLayer):
    """LIF with intra-layer connections.

    c[t] = x[t] + W s[t-1] + b within each group, c[0] = x[0];  h = LIF charge of (v, c);  s = Θ(h - v_threshold);
    v is reset

    As `ILCIF`, with the leak of LIF; `tau` in steps. It is not elementwise (see this module's docstring).

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, N]` and dtype.

    Raises:
        ShapeError: a step does not have num_groups · group_size features.

    Gradients: to x, W, b and the initial state; through the spike by the surrogate, in the feedback too.

    Source: Chen et al. (IEEE TNNLS 2024).

    Parity: spikingjelly's ILCLIFNode with v_decay = 1 - 1 / tau and v_reset = 0; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> neuron = ILCLIF(num_groups=1, group_size=2)
        >>> _ = neuron.weight.data.fill_(0.5), neuron.bias.data.zero_()
        >>> neuron(torch.tensor([[[1.0, 0.5]], [[0.0, 0.5]]])).tolist()
        [[[1.0, 0.0]], [[0.0, 1.0]]]
    """

    plain = LIF

    @dataclass(frozen=True, kw_only=True)
    class Config(IntraLayer.Config):
        """
        Args:
            tau: membrane time constant, in steps.
            decay_input: the input is leaked as well.
        """

        tau: Annotated[float, Range(gt=1.0)] = 4.0
        decay_input: bool = False
