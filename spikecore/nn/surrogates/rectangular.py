"""`Rect`: the rectangular surrogate."""

from __future__ import annotations

from spikecore.dynamics import Operand, abs, clamp, where
from spikecore.nn.surrogates.base import Surrogate


class Rect(Surrogate):
    """g'(u) = α for |u| < 1/(2α), else 0;  g(u) = α · u + 1/2, limited to [0, 1].

    Source: Wu et al., Spatio-Temporal Backpropagation for Training High-Performance Spiking Neural Networks (Frontiers
    in Neuroscience 2018), one of its four curves.
    """

    @staticmethod
    def derivative(u: Operand, params: Surrogate.Config) -> Operand:
        return where(abs(u) < 0.5 / params.alpha, params.alpha, 0.0, like=u)

    @staticmethod
    def primitive(u: Operand, params: Surrogate.Config) -> Operand:
        return clamp(params.alpha * u + 0.5, 0.0, 1.0)
