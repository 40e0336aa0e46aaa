"""`ATan`: the atan surrogate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spikecore.dynamics import Operand, atan
from spikecore.nn.surrogates.base import Steepness, Surrogate


class ATan(Surrogate):
    """g(u) = arctan(π/2 · α · u) / π + 1/2;  g'(u) = α / 2 / (1 + (π/2 · α · u)²).

    Source: Fang et al., Incorporating Learnable Membrane Time Constant (ICCV 2021).
    """

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        alpha: Steepness = 2.0

    @staticmethod
    def derivative(u: Operand, params: Surrogate.Config) -> Operand:
        scaled = math.pi / 2 * params.alpha * u
        return params.alpha / 2 / (1 + scaled * scaled)

    @staticmethod
    def primitive(u: Operand, params: Surrogate.Config) -> Operand:
        return atan(math.pi / 2 * params.alpha * u) / math.pi + 0.5
