"""`SuperSpike`: the superspike surrogate."""

from __future__ import annotations

from spikecore.dynamics import Operand, abs
from spikecore.nn.surrogates.base import Surrogate


class SuperSpike(Surrogate):
    """g'(u) = α / (1 + |u|)²; no primitive from 0 to 1 (its integral is 2α).

    Source: Zenke and Ganguli, SuperSpike (Neural Computation 2018).
    """

    known_as = ("fast_sigmoid", "FastSigmoid")

    @staticmethod
    def derivative(u: Operand, params: Surrogate.Config) -> Operand:
        d = 1 + abs(u)
        return params.alpha / (d * d)
