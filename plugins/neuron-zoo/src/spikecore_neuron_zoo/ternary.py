"""Integrate and fire with ternary spikes, with and without leak.

Both fire up at the threshold and down at its negative. Two spikes of the surrogate that is chosen make one ternary
spike, so every surrogate with spikes of 0 and 1 works here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from spikecore.dynamics import clamp
from spikecore.interfaces import NeuronCapabilities
from spikecore.nn import LIF, Neuron, fire, leaky_charge, reset_after

LOWEST = -3.4028234663852886e38
"""The lowest finite number of float32, in which states are kept at least."""


def _fire_and_reset(h: Any, params: Any) -> tuple[Any, Any]:
    up = fire(h - params.v_threshold, params)
    down = fire(-h - params.v_threshold, params)
    if params.reset == "hard":
        # `reset_after` limits h from above, where its neurons fire; these fire below as well, and 0 * -inf is NaN.
        return up - down, reset_after(up + down, clamp(h, min=LOWEST), params)
    return up - down, reset_after(up - down, h, params)


class TernaryIF(Neuron):
    """Integrate and fire with spikes -1, 0 and 1.

    h = v + x
    s = Θ(h - v_threshold) - Θ(-h - v_threshold)
    hard: v = (1 - |s|) h + |s| v_reset;  soft: v = h - s v_threshold

    `v` starts at `v_reset`; fires up when h >= v_threshold, down when h <= -v_threshold; reset in the same step.

    Returns:
        Spikes, -1, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Gradients: ds/dh = g'(h - v_threshold) + g'(-h - v_threshold), d|s|/dh = g'(h - v_threshold) - g'(-h - v_threshold).

    Source: Guo et al., Ternary spike: Learning ternary spikes for spiking neural networks (AAAI 2024).

    Parity: spikingjelly's TernaryIFNode; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> TernaryIF()(torch.tensor([[0.6], [0.6], [-0.7], [-0.7]])).flatten().tolist()
        [0.0, 1.0, 0.0, -1.0]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(spiking=False)
    state = {"v": "v_init"}  # noqa: RUF012

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        s, v = _fire_and_reset(state.v + x, params)
        return s, {"v": v}


class TernaryLIF(Neuron):
    """Leaky integrate and fire with spikes -1, 0 and 1.

    h = LIF charge of (v, x)
    s = Θ(h - v_threshold) - Θ(-h - v_threshold)
    hard: v = (1 - |s|) h + |s| v_reset;  soft: v = h - s v_threshold

    `tau` in steps. `v` starts at `v_reset`; fires up when h >= v_threshold, down when h <= -v_threshold; reset in the
    same step.

    Returns:
        Spikes, -1, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Gradients: ds/dh = g'(h - v_threshold) + g'(-h - v_threshold), d|s|/dh = g'(h - v_threshold) - g'(-h - v_threshold).

    Source: Guo et al., Ternary spike: Learning ternary spikes for spiking neural networks (AAAI 2024).

    Parity: spikingjelly's TernaryLIFNode; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> TernaryLIF(tau=2.0)(torch.tensor([[1.2], [1.5], [-2.0], [-0.7]])).flatten().tolist()
        [0.0, 1.0, -1.0, 0.0]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(spiking=False)
    state = {"v": "v_init"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(LIF.Config):
        """Options of LIF."""

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        s, v = _fire_and_reset(leaky_charge(state.v, x, params), params)
        return s, {"v": v}
