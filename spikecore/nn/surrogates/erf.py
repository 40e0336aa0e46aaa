"""`Erf`: the erf surrogate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spikecore.dynamics import Operand, erf, exp
from spikecore.nn.surrogates.base import Steepness, Surrogate


class Erf(Surrogate):
    """g(u) = (1 + erf(α · u)) / 2;  g'(u) = α / √π · exp(-α² · u²).

    Source: Wu et al., Spatio-Temporal Backpropagation for Training High-Performance Spiking Neural Networks (Frontiers
    in Neuroscience 2018), one of its four curves: the normal distribution with standard deviation 1 / (√2 · α).
    """

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        alpha: Steepness = 2.0

    @staticmethod
    def derivative(u: Operand, params: Surrogate.Config) -> Operand:
        scaled = params.alpha * u
        return params.alpha / math.sqrt(math.pi) * exp(-(scaled * scaled))

    @staticmethod
    def primitive(u: Operand, params: Surrogate.Config) -> Operand:
        return 0.5 * (1 + erf(params.alpha * u))
