"""`PiecewiseQuadratic`: the piecewise quadratic surrogate."""

from __future__ import annotations

from spikecore.dynamics import Operand, abs, clamp, sign, where
from spikecore.nn.surrogates.base import Surrogate


class PiecewiseQuadratic(Surrogate):
    """g'(u) = α - α² · |u| for |u| <= 1/α, else 0;  g(u) = 1/2 + α · u - α²/2 · u² · sgn(u) there, else 0 or 1.

    Source: Esser et al., Convolutional networks for fast, energy-efficient neuromorphic computing (PNAS 2016).
    """

    @staticmethod
    def derivative(u: Operand, params: Surrogate.Config) -> Operand:
        a = params.alpha
        return where(abs(u) <= 1 / a, a - a * a * abs(u), 0.0)

    @staticmethod
    def primitive(u: Operand, params: Surrogate.Config) -> Operand:
        scaled = clamp(params.alpha * u, -1.0, 1.0)
        return 0.5 + scaled - 0.5 * scaled * scaled * sign(scaled)
