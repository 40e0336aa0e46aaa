"""`PiecewiseExp`: the piecewise exponential surrogate."""

from __future__ import annotations

from spikecore.dynamics import Operand, abs, exp, where
from spikecore.nn.surrogates.base import Surrogate


class PiecewiseExp(Surrogate):
    """g'(u) = α/2 · exp(-α · |u|);  g(u) = exp(α · u) / 2 for u < 0, else 1 - exp(-α · u) / 2.

    Source: Neftci, Mostafa and Zenke, Surrogate gradient learning in spiking neural networks (2019).
    """

    @staticmethod
    def derivative(u: Operand, params: Surrogate.Config) -> Operand:
        return params.alpha / 2 * exp(-params.alpha * abs(u))

    @staticmethod
    def primitive(u: Operand, params: Surrogate.Config) -> Operand:
        tail = 0.5 * exp(-params.alpha * abs(u))
        return where(u < 0, tail, 1 - tail)
