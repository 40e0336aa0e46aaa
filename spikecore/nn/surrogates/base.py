"""Surrogate gradients: functions that replace the derivative of the spike.

    forward:   s = Θ(u)              (u = h - v_threshold; Θ(0) = 1; NaN gives 0)
    backward:  ds/du := g'(u)        declared as `derivative`; `primitive` is g

Both are written in the neuron language, so they run and print everywhere. Core's derivatives are all even in u; where
g exists, it rises from 0 to 1. A new surrogate is one class:

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

from spikecore.dynamics import Operand, spike, where
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
    may_be_infinite: ClassVar[tuple[str, ...]] = ()

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            alpha: steepness.
            spiking: False uses the primitive in the forward pass too, which makes the neuron smooth.
        """

        alpha: Steepness = 1.0
        spiking: bool = True

    config: Config

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.derivative is Surrogate.derivative:
            raise DynamicsError(
                f"surrogate {cls.__qualname__} declares no derivative: add a static method "
                "derivative(u, params) that returns g'(u)"
            )
        if all(field.name != "spiking" for field in dataclasses.fields(cls.Config)):
            raise DynamicsError(
                f"{cls.__qualname__}.Config has no option 'spiking', which every surrogate has: derive it from "
                "Surrogate.Config, or give it the field spiking: bool = True"
            )
        if "capabilities" not in cls.__dict__:
            has_primitive = cls.primitive is not Surrogate.primitive
            cls.capabilities = dataclasses.replace(cls.capabilities, primitive=has_primitive)

    def __init__(self, *args: Any, **options: Any) -> None:
        refuse_positional(type(self), args)
        object.__setattr__(self, "config", make_config(type(self), options))

    @classmethod
    def option_problems(cls, config: Config) -> Iterable[tuple[str, str]]:
        if not config.spiking and cls.primitive is Surrogate.primitive:
            cure = "leave spiking=True, or choose a surrogate whose capabilities say primitive"
            yield "spiking", f"must be true: {cls.__name__} declares no primitive; {cure}"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: make a new one with another {name}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and bool(self.config == other.config)

    def __hash__(self) -> int:
        return hash((type(self), self.config))

    def __repr__(self) -> str:
        fields = (f"{field.name}={getattr(self.config, field.name)!r}" for field in dataclasses.fields(self.config))
        return f"{type(self).__name__}({', '.join(fields)})"

    def __call__(self, u: Operand) -> Any:
        """Spikes of `u`, any shape."""
        return spike(u, self)

    @staticmethod
    def derivative(u: Operand, params: Surrogate.Config) -> Operand:
        """g'(u); `params` is the config."""
        raise NotImplementedError

    @staticmethod
    def primitive(u: Operand, params: Surrogate.Config) -> Operand:
        """g(u)."""
        raise NotImplementedError

    @staticmethod
    def forward(u: Operand, params: Surrogate.Config) -> Operand:
        """Θ(u)."""
        return where(u >= 0, 1.0, 0.0, like=u)
