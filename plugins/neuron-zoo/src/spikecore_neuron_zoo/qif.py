"""Quadratic integrate and fire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from spikecore.interfaces import Range
from spikecore.nn import Neuron, fire_and_reset


class QIF(Neuron):
    """Quadratic integrate and fire.

    h = v + (x + a0 (v - v_rest) (v - v_c)) / tau
    s = Θ(h - v_threshold);  v is reset

    One Euler step per time step, dimensionless, `tau` in steps. Below `v_c` the potential returns to `v_rest`, above it
    runs away. `v` starts at `v_reset`; fires when h >= v_threshold; reset in the same step.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Gradients: to x, every learnable parameter and the initial state; through the spike by the surrogate.

    Source: Latham et al., Intrinsic dynamics in neuronal networks I (Journal of Neurophysiology 2000).

    Parity: spikingjelly's QIFNode; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> QIF(tau=4.0)(torch.full((6, 1), 1.5)).flatten().tolist()
        [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    """

    state = {"v": "v_init"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            v_reset: target of the hard reset, and initial `v` unless `v_init` is given.
            tau: membrane time constant, in steps.
            v_c: critical potential: above it the quadratic term drives v up.
            a0: strength of the quadratic term.
            v_rest: resting potential.
        """

        v_reset: float = -0.1
        tau: Annotated[float, Range(gt=1.0)] = 2.0
        v_c: float = 0.8
        a0: Annotated[float, Range(gt=0.0)] = 1.0
        v_rest: float = 0.0

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        quadratic = params.a0 * (state.v - params.v_rest) * (state.v - params.v_c)
        s, v = fire_and_reset(state.v + (x + quadratic) / params.tau, params)
        return s, {"v": v}
