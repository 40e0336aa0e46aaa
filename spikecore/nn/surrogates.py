"""Surrogates: what stands in for the derivative of the spike.

forward:   s = Θ(u)              (u = h - v_threshold; Θ(0) = 1; NaN gives 0)
backward:  ds/du := g'(u)        declared as `derivative`; `primitive` is g
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from spikecore.dynamics import atan, sigmoid, spike
from spikecore.interfaces.component import Configurable, Range, make_config
from spikecore.interfaces.surrogate import SurrogateCapabilities


class Surrogate(Configurable):
    """Base: declares `derivative` and `primitive`. Immutable; equal when type and config are."""

    capabilities: ClassVar[SurrogateCapabilities] = SurrogateCapabilities()

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            alpha: steepness.
            spiking: False uses the primitive in the forward pass too, which makes the neuron smooth.
        """

        alpha: Annotated[float, Range(gt=0.0)] = 2.0
        spiking: bool = True

    config: Any

    def __init__(self, **options: Any) -> None:
        object.__setattr__(self, "config", make_config(type(self), options))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: make a new one with another {name}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.config == other.config

    def __hash__(self) -> int:
        return hash((type(self), self.config))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(alpha={self.config.alpha:g}, spiking={self.config.spiking})"

    def __call__(self, u: Tensor) -> Tensor:
        """Spikes of `u`, any shape."""
        return spike(u, self)

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        """g'(u)."""
        raise NotImplementedError("a surrogate declares `derivative(u, params)`")

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        """g(u)."""
        raise NotImplementedError("this surrogate declares no `primitive`, so it cannot run with spiking=False")

    @staticmethod
    def forward(u: Any, params: Any) -> Any:
        """Θ(u)."""
        return (u >= 0).to(u.dtype)


class ATan(Surrogate):
    """g(u) = arctan(π/2 · α · u) / π + 1/2;  g'(u) = α / 2 / (1 + (π/2 · α · u)²).

    Source: Fang et al., Incorporating Learnable Membrane Time Constant (ICCV 2021).
    """

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        scaled = math.pi / 2 * params.alpha * u
        return params.alpha / 2 / (1 + scaled * scaled)

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return atan(math.pi / 2 * params.alpha * u) / math.pi + 0.5


class Sigmoid(Surrogate):
    """g(u) = σ(α · u);  g'(u) = α · σ(α · u) · (1 - σ(α · u))."""

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        alpha: Annotated[float, Range(gt=0.0)] = 4.0

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        s = sigmoid(params.alpha * u)
        return params.alpha * s * (1 - s)

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return sigmoid(params.alpha * u)
