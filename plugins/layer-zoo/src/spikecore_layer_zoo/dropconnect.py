"""Drop-connect: weights are dropped, not outputs.

training     y = (M ∘ W) x + (m ∘ b),  M, m ~ Bernoulli(1 - p), drawn for every sample
evaluation   y = E over u ~ N(μ, σ²) of activation(u),   μ = (1 - p) (W x + b),   σ² = p (1 - p) (W² x² + b²)

The expectation is taken over `num_samples` draws, as in the paper; torch's generator of the input's device draws them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikecore import nn
from spikecore.errors import OptionError, ShapeError
from spikecore_layer_zoo.steps import check_rank


class DropConnectLinear(nn.Stateful):
    """A linear layer whose weights drop out; see the module's equations.

    Args:
        in_features, out_features, bias: as torch.nn.Linear.
        p: probability that a weight is dropped.
        num_samples: draws in evaluation.
        invariant: the mask stays for a whole sequence; otherwise each step draws its own.
        activation: applied to the outputs; within the expectation in evaluation. None for none.
        step_mode: `multi` or `single`.

    Raises:
        OptionError: p is outside 0 .. 1, or `num_samples` below 1.
        ShapeError: the input is not `[T, B, in_features]` (`[B, in_features]` in single-step mode).

    Source: Wan et al., Regularization of Neural Networks using DropConnect (ICML 2013), 3.2 and algorithm 2.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        p: float = 0.5,
        num_samples: int = 1024,
        invariant: bool = False,
        activation: torch.nn.Module | None = None,
        step_mode: str = "multi",
    ) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise OptionError(f"DropConnectLinear: p must be >= 0 and <= 1, got {p!r}")
        if num_samples < 1:
            raise OptionError(f"DropConnectLinear: num_samples must be >= 1, got {num_samples!r}")
        nn.set_step_mode(self, step_mode)
        self.linear = torch.nn.Linear(in_features, out_features, bias)
        self.activation = torch.nn.Identity() if activation is None else activation
        self.p, self.num_samples, self.invariant = p, num_samples, invariant

    def _masks(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        weight, bias = self.linear.weight, self.linear.bias
        keep = {"weight": torch.empty((batch, *weight.shape), dtype=like.dtype, device=like.device)}
        if bias is not None:
            keep["bias"] = torch.empty((batch, *bias.shape), dtype=like.dtype, device=like.device)
        return {name: mask.bernoulli_(1 - self.p) for name, mask in keep.items()}

    def initial_state(self, x: Tensor) -> dict[str, Tensor]:
        """The masks of a whole sequence, `[B, out, in]` and `[B, out]`, where they stay; otherwise nothing."""
        return self._masks(x.shape[0], x) if self.invariant else {}

    def state_forms(self, x: Tensor) -> dict[str, tuple[tuple[int, ...], torch.device, torch.dtype]]:
        """The masks' shape, device and dtype; asking draws no random number."""
        if not self.invariant:
            return {}
        parts = {"weight": self.linear.weight, "bias": self.linear.bias}
        return {n: ((x.shape[0], *p.shape), x.device, x.dtype) for n, p in parts.items() if p is not None}

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, in]` or `[B, in]` by `step_mode` → `[T, B, out]` or `[B, out]`."""
        check_rank(self, x, 2)
        multi = self.step_mode == "multi"
        if x.dim() != 2 + multi or x.shape[-1] != self.linear.in_features:
            form = "[T, B, in_features]" if multi else "[B, in_features]"
            raise ShapeError(
                f"DropConnectLinear takes {form} with in_features={self.linear.in_features}, got {tuple(x.shape)}"
            )
        sequence = x if multi else x.unsqueeze(0)
        one_step = sequence.new_empty(()).expand(sequence.shape[1:])
        if not self.training:
            self.pass_by(one_step)
            return self._expected(x)
        masks = self.state_for(one_step)
        self.keep(masks)
        outs = [self._dropped(step, masks or self._masks(len(step), step)) for step in sequence.unbind(0)]
        if not outs:
            return x.new_empty((*x.shape[:-1], self.linear.out_features))
        return torch.stack(outs) if multi else outs[0]

    def _dropped(self, x: Tensor, masks: dict[str, Tensor]) -> Tensor:
        out = torch.einsum("boi,bi->bo", masks["weight"] * self.linear.weight, x)
        if self.linear.bias is not None:
            out = out + masks["bias"] * self.linear.bias
        activated: Tensor = self.activation(out)
        return activated

    def _expected(self, x: Tensor) -> Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        square = None if bias is None else bias.square()
        mean = (1 - self.p) * torch.nn.functional.linear(x, weight, bias)
        variance = self.p * (1 - self.p) * torch.nn.functional.linear(x.square(), weight.square(), square)
        deviation = variance.clamp(min=0).sqrt()
        total = torch.zeros_like(mean)
        for _ in range(self.num_samples):  # one by one: memory stays that of one output
            total = total + self.activation(mean + deviation * torch.randn_like(mean))
        return total / self.num_samples

    def extra_repr(self) -> str:
        return f"p={self.p}, num_samples={self.num_samples}, invariant={self.invariant}"
