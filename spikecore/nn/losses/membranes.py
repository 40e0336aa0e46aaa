"""Losses of membrane potentials, and temporal-efficient training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from spikecore.nn.losses.base import (
    CrossEntropyConfig,
    Finite,
    Loss,
    MSEConfig,
    Share,
    cross_entropy,
    cross_entropy_each_step,
    levels,
)
from spikecore.nn.readouts import last, max_over_time, rate

OVER: dict[str, Callable[[Tensor], Tensor]] = {
    "max": max_over_time,
    "mean": rate,
    "last": last,
}


class MembraneCrossEntropy(Loss):
    """CE of membrane potentials: of their maximum, mean or last value over time, or of each step.

    `over="every"` is 1/T Σ_t CE(out[t], y), which is also `TET(mse_weight=0)`.

    Gradients: for `max`, to the step of the maximum; for `last`, to the last step.

    Example:
        >>> v = torch.tensor([[[2.0, 0.0]], [[1.0, 0.0]]])
        >>> round(MembraneCrossEntropy(over="max")(v, torch.tensor([0])).item(), 4)
        0.1269
    """

    readout = "max"

    @dataclass(frozen=True)
    class Config(CrossEntropyConfig):
        """
        Args:
            over: what is compared with the label.
        """

        over: Literal["max", "mean", "last", "every"] = "max"

    def per_sample(self, out: Tensor, target: Tensor) -> Tensor:
        over, smoothing = self.config.over, self.config.label_smoothing
        if over == "every":
            return cross_entropy_each_step(out, target, smoothing)
        return cross_entropy(OVER[over](out), target, smoothing)


class MembraneMSE(Loss):
    """MSE of membrane potentials against y': of each step, or of their maximum, mean or last value.

    Example:
        >>> v = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
        >>> MembraneMSE()(v, torch.tensor([0])).item()
        0.25
    """

    readout = "max"

    @dataclass(frozen=True)
    class Config(MSEConfig):
        """
        Args:
            over: what is compared with the target.
        """

        over: Literal["max", "mean", "last", "every"] = "every"

    def per_sample(self, out: Tensor, target: Tensor) -> Tensor:
        wanted = levels(out[0], target, self.config.on, self.config.off)
        if self.config.over == "every":
            return (out - wanted).square().mean((0, 2))
        return (OVER[self.config.over](out) - wanted).square().mean(1)


class TET(Loss):
    """Temporal-efficient training: the loss of each step, averaged over time.

        L = (1 - λ)/T Σ_t CE(out[t], y) + λ/T Σ_t MSE(out[t], level)

    The second term holds all outputs near one level (usually the threshold), against outliers; λ is `mse_weight`.

    Gradients: of each step by itself; no step is averaged away by the others.
    Source: Deng et al., Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting (ICLR 2022).

    Example:
        >>> out = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
        >>> round(TET()(out, torch.tensor([0])).item(), 4)
        0.5032
    """

    @dataclass(frozen=True)
    class Config(CrossEntropyConfig):
        """
        Args:
            mse_weight: λ.
            level: what the second term holds the outputs to.
        """

        mse_weight: Share = 0.0
        level: Finite = 1.0

    def per_sample(self, out: Tensor, target: Tensor) -> Tensor:
        weight = float(self.config.mse_weight)
        entropy = cross_entropy_each_step(out, target, self.config.label_smoothing)
        if not weight:
            return entropy
        spread = (out - float(self.config.level)).square().mean((0, 2))
        return (1 - weight) * entropy + weight * spread
