"""Surrogate: the spike nonlinearity, and the derivative that replaces its own in the backward pass.

    forward:   s = Θ(u),  Θ(u) = 1 if u >= 0 else 0,  u = h - v_threshold
    backward:  ds/du := g'(u), the declared `derivative`

Both are written once, in the neuron language (`spikecore.dynamics`), so every backend can print them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable


@dataclass(frozen=True)
class SurrogateCapabilities:
    """What a surrogate promises.

    Args:
        heaviside: the forward pass is Θ(u), spikes in {0, 1}. False for integer or ternary spikes.
        primitive: `primitive` is declared: g with g' = `derivative`, for non-spiking (smooth) use.
        nonzero: the gradient is not zero at u = 0 and near it.
        stochastic: the forward pass draws random numbers; equal seeds give equal spikes. The neuron language has none,
            so a neuron with it cannot be traced.
    """

    heaviside: bool = True
    primitive: bool = True
    nonzero: bool = True
    stochastic: bool = False


@runtime_checkable
class Surrogate(Protocol):
    """What callers rely on. Immutable: two surrogates of equal type and config are equal."""

    api_version: ClassVar[int]
    Config: ClassVar[type]
    capabilities: ClassVar[SurrogateCapabilities]
    config: Any

    def derivative(self, u: Any, params: Any) -> Any:
        """g'(u), elementwise. `params` has the fields of `Config`."""

    def primitive(self, u: Any, params: Any) -> Any:
        """g(u) with g' = derivative; the forward pass when `Config.spiking` is False."""

    def forward(self, u: Any, params: Any) -> Any:
        """The spike function; Θ(u) unless overridden."""
