"""Leaky integrate and analog fire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from spikecore.dynamics import exp, sigmoid, tanh, where
from spikecore.interfaces import NeuronCapabilities
from spikecore.nn import LIF, Neuron, fire_and_reset, leaky_charge

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": lambda u: where(u <= 0, 0.0, u),
    "leaky_relu": lambda u: where(u < 0, 0.01 * u, u),
    "selu": lambda u: _SELU_SCALE * where(u > 0, u, _SELU_ALPHA * (exp(where(u > 0, 0.0, u)) - 1)),
    "sigmoid": sigmoid,
    "tanh": tanh,
    "identity": lambda u: u,
}


class LIAF(Neuron):
    """LIF that outputs an analog value: spikes only reset it.

    h = LIF charge of (v, x)
    s = Θ(h - v_threshold);  v is reset by s
    out = f(h - v_threshold), or f(h) with `threshold_related=False`

    `tau` in steps. `v` starts at `v_reset`; s is 1 when h >= v_threshold; reset in the same step.

    Returns:
        f of the potential, of the input's shape `[T, B, ...]` and dtype; not spikes.

    Gradients: through f to h; through s by the surrogate, in the reset only.

    Source: Wu et al., LIAF-Net: Leaky integrate and analog fire network for lightweight and efficient spatiotemporal
    information processing (IEEE TNNLS 2021).

    Parity: spikingjelly's LIAFNode; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> LIAF(tau=2.0)(torch.full((3, 1), 1.5)).flatten().tolist()
        [0.0, 0.125, 0.0]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(spiking=False)
    state = {"v": "v_init"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(LIF.Config):
        """
        Args:
            activation: f.
            threshold_related: f sees the distance to the threshold.
        """

        activation: Literal["relu", "leaky_relu", "selu", "sigmoid", "tanh", "identity"] = "relu"
        threshold_related: bool = True

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        h = leaky_charge(state.v, x, params)
        _, v = fire_and_reset(h, params)
        seen = h - params.v_threshold if params.threshold_related else h
        return ACTIVATIONS[params.activation](seen), {"v": v}
