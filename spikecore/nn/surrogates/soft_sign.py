"""`SoftSign`: the soft sign surrogate."""

from __future__ import annotations

from dataclasses import dataclass

from spikecore.dynamics import Operand, abs
from spikecore.nn.surrogates.base import Steepness, Surrogate


class SoftSign(Surrogate):
    """g(u) = (α · u / (1 + |α · u|) + 1) / 2;  g'(u) = 1 / (2 · α · (1/α + |u|)²).

    Source: the fast sigmoid of Zenke and Ganguli, SuperSpike (Neural Computation 2018), scaled to an area of 1.
    """

    known_as = ("fast_sigmoid", "FastSigmoid")

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        alpha: Steepness = 2.0

    @staticmethod
    def derivative(u: Operand, params: Surrogate.Config) -> Operand:
        d = 1 / params.alpha + abs(u)
        return 1 / (2 * params.alpha * (d * d))

    @staticmethod
    def primitive(u: Operand, params: Surrogate.Config) -> Operand:
        scaled = params.alpha * u
        return 0.5 * (scaled / (1 + abs(scaled)) + 1)
