"""`Sigmoid`: the sigmoid surrogate."""

from __future__ import annotations

from dataclasses import dataclass

from spikecore.dynamics import Operand, sigmoid
from spikecore.nn.surrogates.base import Steepness, Surrogate


class Sigmoid(Surrogate):
    """g(u) = σ(α · u);  g'(u) = α · σ(α · u) · (1 - σ(α · u)).

    Source: Wu et al., Spatio-Temporal Backpropagation for Training High-Performance Spiking Neural Networks (Frontiers
    in Neuroscience 2018), one of its four curves.
    """

    @dataclass(frozen=True)
    class Config(Surrogate.Config):
        alpha: Steepness = 4.0

    @staticmethod
    def derivative(u: Operand, params: Surrogate.Config) -> Operand:
        s = sigmoid(params.alpha * u)
        return params.alpha * s * (1 - s)

    @staticmethod
    def primitive(u: Operand, params: Surrogate.Config) -> Operand:
        return sigmoid(params.alpha * u)
