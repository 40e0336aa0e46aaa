"""Surrogates: what stands in for the derivative of the spike.

    forward:   s = Θ(u)              (u = h - v_threshold; Θ(0) = 1; NaN gives 0)
    backward:  ds/du := g'(u)        declared as `derivative`; `primitive` is g

Both are written in the neuron language, so they run and print everywhere. All of them are even in u and, where
g exists, it goes from 0 to 1. A new surrogate is one class:

    class Triangle(Surrogate):
        @staticmethod
        def derivative(u, params):
            return max(0.0, 1.0 - params.alpha * abs(u))
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from spikecore.dynamics import abs, atan, clamp, erf, exp, sigmoid, sign, spike, where
from spikecore.errors import DynamicsError
from spikecore.interfaces.component import Configurable, Range, make_config, refuse_positional
from spikecore.interfaces.surrogate import SurrogateCapabilities

Steepness = Annotated[float, Range(gt=0.0, lt=math.inf)]


class Surrogate(Configurable):
    """Base: a subclass declares `derivative` and, where it exists, `primitive`. Immutable; equal by type and config.

    Raises:
        DynamicsError: a subclass declares no derivative.
        OptionError: `spiking=False` without a primitive.
    """

    capabilities: ClassVar[SurrogateCapabilities] = SurrogateCapabilities()

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            alpha: steepness.
            spiking: False uses the primitive in the forward pass too, which makes the neuron smooth.
        """

        alpha: Steepness = 1.0
        spiking: bool = True

    config: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.derivative is Surrogate.derivative:
            raise DynamicsError(
                f"surrogate {cls.__qualname__} declares no derivative: add a static method "
                f"derivative(u, params) that returns g'(u)"
            )
        if "capabilities" not in cls.__dict__:
            has_primitive = cls.primitive is not Surrogate.primitive
            cls.capabilities = dataclasses.replace(cls.capabilities, primitive=has_primitive)

    def __init__(self, *args: Any, **options: Any) -> None:
        refuse_positional(type(self), args)
        object.__setattr__(self, "config", make_config(type(self), options))

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        if not config.spiking and cls.primitive is Surrogate.primitive:
            cure = "leave spiking=True, or choose a surrogate whose capabilities say primitive"
            yield "spiking", f"must be true: {cls.__name__} declares no primitive; {cure}"

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: make a new one with another {name}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and bool(self.config == other.config)

    def __hash__(self) -> int:
        return hash((type(self), self.config))

    def __repr__(self) -> str:
        fields = (f"{field.name}={getattr(self.config, field.name)!r}" for field in dataclasses.fields(self.config))
        return f"{type(self).__name__}({', '.join(fields)})"

    def __call__(self, u: Any) -> Any:
        """Spikes of `u`, any shape."""
        return spike(u, self)

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        """g'(u); `params` is the config."""
        raise NotImplementedError

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        """g(u)."""
        raise NotImplementedError

    @staticmethod
    def forward(u: Any, params: Any) -> Any:
        """Θ(u)."""
        return where(u >= 0, 1.0, 0.0, like=u)


class ATan(Surrogate):
    """g(u) = arctan(π/2 · α · u) / π + 1/2;  g'(u) = α / 2 / (1 + (π/2 · α · u)²).

    Source: Fang et al., Incorporating Learnable Membrane Time Constant (ICCV 2021).
    """

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        alpha: Steepness = 2.0

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        scaled = math.pi / 2 * params.alpha * u
        return params.alpha / 2 / (1 + scaled * scaled)

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return atan(math.pi / 2 * params.alpha * u) / math.pi + 0.5


class Sigmoid(Surrogate):
    """g(u) = σ(α · u);  g'(u) = α · σ(α · u) · (1 - σ(α · u)).

    Source: Wu et al., Spatio-Temporal Backpropagation for Training High-Performance Spiking Neural Networks (Frontiers
    in Neuroscience 2018), one of its four curves.
    """

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        alpha: Steepness = 4.0

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        s = sigmoid(params.alpha * u)
        return params.alpha * s * (1 - s)

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return sigmoid(params.alpha * u)


class PiecewiseQuadratic(Surrogate):
    """g'(u) = α - α² · |u| for |u| <= 1/α, else 0;  g(u) = 1/2 + α · u - α²/2 · u² · sgn(u) there, else 0 or 1.

    Source: Esser et al., Convolutional networks for fast, energy-efficient neuromorphic computing (PNAS 2016).
    """

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        a = params.alpha
        return where(abs(u) <= 1 / a, a - a * a * abs(u), 0.0)

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        scaled = clamp(params.alpha * u, -1.0, 1.0)
        return 0.5 + scaled - 0.5 * scaled * scaled * sign(scaled)


class PiecewiseExp(Surrogate):
    """g'(u) = α/2 · exp(-α · |u|);  g(u) = exp(α · u) / 2 for u < 0, else 1 - exp(-α · u) / 2.

    Source: Neftci, Mostafa and Zenke, Surrogate gradient learning in spiking neural networks (2019).
    """

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        return params.alpha / 2 * exp(-params.alpha * abs(u))

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        tail = 0.5 * exp(-params.alpha * abs(u))
        return where(u < 0, tail, 1 - tail)


class SoftSign(Surrogate):
    """g(u) = (α · u / (1 + |α · u|) + 1) / 2;  g'(u) = 1 / (2 · α · (1/α + |u|)²).

    Source: the fast sigmoid of Zenke and Ganguli, SuperSpike (Neural Computation 2018), scaled to an area of 1.
    """

    known_as = ("fast_sigmoid", "FastSigmoid")

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        alpha: Steepness = 2.0

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        d = 1 / params.alpha + abs(u)
        return 1 / (2 * params.alpha * (d * d))

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        scaled = params.alpha * u
        return 0.5 * (scaled / (1 + abs(scaled)) + 1)


class SuperSpike(Surrogate):
    """g'(u) = α / (1 + |u|)²; no primitive from 0 to 1 (its integral is 2α).

    Source: Zenke and Ganguli, SuperSpike (Neural Computation 2018).
    """

    known_as = ("fast_sigmoid", "FastSigmoid", "SuperSpike")

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        d = 1 + abs(u)
        return params.alpha / (d * d)


class Erf(Surrogate):
    """g(u) = (1 + erf(α · u)) / 2;  g'(u) = α / √π · exp(-α² · u²).

    Source: Wu et al., Spatio-Temporal Backpropagation for Training High-Performance Spiking Neural Networks (Frontiers
    in Neuroscience 2018), one of its four curves: the normal distribution with standard deviation 1 / (√2 · α).
    """

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        alpha: Steepness = 2.0

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        scaled = params.alpha * u
        return params.alpha / math.sqrt(math.pi) * exp(-(scaled * scaled))

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return 0.5 * (1 + erf(params.alpha * u))


class Rect(Surrogate):
    """g'(u) = α for |u| < 1/(2α), else 0;  g(u) = α · u + 1/2, limited to [0, 1].

    Source: Wu et al., Spatio-Temporal Backpropagation for Training High-Performance Spiking Neural Networks (Frontiers
    in Neuroscience 2018), one of its four curves.
    """

    @staticmethod
    def derivative(u: Any, params: Any) -> Any:
        return where(abs(u) < 0.5 / params.alpha, params.alpha, 0.0, like=u)

    @staticmethod
    def primitive(u: Any, params: Any) -> Any:
        return clamp(params.alpha * u + 0.5, 0.0, 1.0)
