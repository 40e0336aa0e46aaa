"""Layers that act along time without weights of their own, or with one.

delay            y[t] = x[t - d],  0 before
voting           y = mean over groups of neighbouring outputs
synapse filter   o[t] = o[t-1] - (1 - x[t]) o[t-1] / tau + x[t]
counts           integer spikes ↔ trains of 0 and 1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from spikecore import nn
from spikecore.errors import InputError, OptionError, ShapeError
from spikecore.interfaces import NeuronCapabilities, Range
from spikecore_layer_zoo.steps import check_rank


class Delay(nn.Stateful):
    """y[t] = x[t - d]; 0 for the first d steps.

    Args:
        num_steps: d, at least 0.
        step_mode: `multi` or `single`.

    Raises:
        OptionError: `num_steps` is negative or not whole.
        ShapeError: the input has too few axes.
        StateShapeError: what is delayed belongs to another batch shape, device or dtype.

    Example:
        >>> Delay(2)(torch.arange(1.0, 5.0).view(4, 1)).flatten().tolist()
        [0.0, 0.0, 1.0, 2.0]
    """

    def __init__(self, num_steps: int, step_mode: str = "multi") -> None:
        super().__init__()
        if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 0:
            raise OptionError(f"Delay: num_steps must be a whole number of at least 0, got {num_steps!r}")
        nn.set_step_mode(self, step_mode)
        self.num_steps = num_steps

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """`queue` `[d, B, ...]`: what is still on its way, 0 at first."""
        return {"queue": torch.zeros((self.num_steps, *x.shape), dtype=x.dtype, device=x.device)}

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, ...]` or `[B, ...]` by `step_mode` → the same shape."""
        multi = self.step_mode == "multi"
        check_rank(self, x, 1)
        sequence = x if multi else x.unsqueeze(0)
        queue = self.state_for(sequence.new_empty(()).expand(sequence.shape[1:]))["queue"]
        whole = torch.cat([queue, sequence])
        out, rest = whole[: len(sequence)], whole[len(sequence) :]
        (out,) = self.keep({"queue": rest}, out)
        return out if multi else out[0]

    def extra_repr(self) -> str:
        return f"num_steps={self.num_steps}"


class Voting(torch.nn.Module):
    """y[..., i] = mean of x[..., i n : (i + 1) n]: n outputs vote for a class. No time, no state.

    Args:
        size: n, the number of voters of each class.

    Raises:
        OptionError: `size` is not a whole number of at least 1.
        ShapeError: the last axis is not a multiple of `size`.

    Source: Fang et al., Incorporating Learnable Membrane Time Constant (ICCV 2021), 4.1.
    """

    def __init__(self, size: int = 10) -> None:
        super().__init__()
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise OptionError(f"Voting: size must be a whole number of at least 1, got {size!r}")
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """`[..., C n]` → `[..., C]`."""
        if not x.dim() or x.shape[-1] % self.size:
            raise ShapeError(f"Voting takes a last axis that is a multiple of {self.size}, got {tuple(x.shape)}")
        return x.reshape(*x.shape[:-1], x.shape[-1] // self.size, self.size).mean(-1)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class SynapseFilter(nn.Neuron):
    """o[t] = o[t-1] - (1 - x[t]) o[t-1] / tau + x[t]: a current that leaks only where no spike arrives.

    Written in the neuron language, so it is fused on every backend; its output is graded, and there is no threshold.
    `o` starts at 0. Input `[T, B, ...]`, or `[B, ...]` in single-step mode.

    Source: Diehl and Cook, Unsupervised learning of digit recognition (Frontiers in Computational Neuroscience 2015).

    Example:
        >>> SynapseFilter(tau=2.0)(torch.tensor([[1.0], [0.0], [0.0]])).flatten().tolist()
        [1.0, 0.5, 0.25]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(spiking=False)
    state: ClassVar[Mapping[str, float | str]] = {"o": 0.0}

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            tau: time constant of the leak, in steps.
            learnable: `("tau",)` to train it.
        """

        tau: Annotated[float, Range(gt=1.0)] = 100.0
        learnable: tuple[str, ...] = ()

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        o = state.o - (1 - x) * state.o / params.tau + x
        return o, {"o": o}


class _Slots(torch.nn.Module):
    """Base of the two that translate between integer spikes and trains of 0 and 1.

    Args:
        num_slots: D, steps of the train for one step of integers.
        always: translate while training as well.
    """

    def __init__(self, num_slots: int, always: bool = False) -> None:
        super().__init__()
        if isinstance(num_slots, bool) or not isinstance(num_slots, int) or num_slots < 1:
            raise OptionError(f"{type(self).__name__}: num_slots must be a whole number >= 1, got {num_slots!r}")
        self.num_slots = num_slots
        self.always = always

    @property
    def translates(self) -> bool:
        """Whether a call translates; in training mode integers stay integers unless `always`."""
        return self.always or not self.training

    def extra_repr(self) -> str:
        return f"num_slots={self.num_slots}, always={self.always}"


class SpikeCountToBinary(_Slots):
    """A count k in 0 .. D at step t → D steps, the first k of them 1: `[T, B, ...]` → `[T D, B, ...]`.

    Integer neurons (`ilif`) train with counts and run with spikes; in training mode the counts pass through.

    Args:
        num_slots: D.
        always: translate while training too. The translation has no gradient.

    Raises:
        InputError: a value is not a whole number in 0 .. D.

    Source: Luo et al., Integer-Valued Training and Spike-Driven Inference (ECCV 2024).

    Example:
        >>> SpikeCountToBinary(3, always=True)(torch.tensor([[2.0], [0.0]])).flatten().tolist()
        [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, ...]` → `[T D, B, ...]`, or `x` itself while training."""
        if not self.translates:
            return x
        if x.dim() < 1:
            raise ShapeError(f"SpikeCountToBinary takes a sequence [T, ...], got {tuple(x.shape)}")
        counts = x.detach()
        if not bool(((counts >= 0) & (counts <= self.num_slots) & (counts == counts.round())).all()):
            raise InputError(f"SpikeCountToBinary takes whole numbers from 0 to num_slots={self.num_slots}")
        slots = torch.arange(self.num_slots, device=x.device).reshape(1, -1, *[1] * (x.dim() - 1))
        return (slots < counts.unsqueeze(1)).to(x.dtype).flatten(0, 1)


class TemporalSum(_Slots):
    """Sums each D steps: `[T D, B, ...]` → `[T, B, ...]`; the inverse of `SpikeCountToBinary`.

    Between the two, a linear layer without bias gives the same result on counts and on spikes.

    Args:
        num_slots: D.
        always: sum while training too; otherwise the input, still counts then, passes through.

    Raises:
        ShapeError: the number of steps is not a multiple of D.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`[T D, B, ...]` → `[T, B, ...]`, or `x` itself while training."""
        if not self.translates:
            return x
        if x.dim() < 1 or x.shape[0] % self.num_slots:
            raise ShapeError(f"TemporalSum takes a multiple of num_slots={self.num_slots} steps, got {tuple(x.shape)}")
        return x.reshape(x.shape[0] // self.num_slots, self.num_slots, *x.shape[1:]).sum(1)
