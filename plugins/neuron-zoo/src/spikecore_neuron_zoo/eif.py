"""Exponential integrate and fire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from spikecore.dynamics import exp
from spikecore.interfaces import Range
from spikecore.nn import Neuron, fire_and_reset


class EIF(Neuron):
    """Exponential integrate and fire.

    h = v + (x + v_rest - v + delta_T exp((v - theta_rh) / delta_T)) / tau
    s = Θ(h - v_threshold);  v is reset

    One Euler step per time step, dimensionless, `tau` in steps. `v` starts at `v_reset`; fires when h >= v_threshold;
    reset in the same step.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Gradients: to x, every learnable parameter and the initial state; through the spike by the surrogate.

    Source: Fourcaud-Trocmé et al., How spike generation mechanisms determine the neuronal response to fluctuating
    inputs (Journal of Neuroscience 2003).

    Parity: spikingjelly's EIFNode; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> EIF(tau=4.0)(torch.full((6, 1), 1.0)).flatten().tolist()
        [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    """

    state = {"v": "v_init"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            v_reset: target of the hard reset, and initial `v` unless `v_init` is given.
            tau: membrane time constant, in steps.
            delta_T: sharpness of the upswing, in units of the potential.
            theta_rh: rheobase threshold: the potential at which the upswing begins.
            v_rest: resting potential.
        """

        v_reset: float = -0.1
        tau: Annotated[float, Range(gt=1.0)] = 2.0
        delta_T: Annotated[float, Range(gt=0.0)] = 1.0
        theta_rh: float = 0.8
        v_rest: float = 0.0

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        upswing = params.delta_T * exp((state.v - params.theta_rh) / params.delta_T)
        s, v = fire_and_reset(state.v + (x + params.v_rest - state.v + upswing) / params.tau, params)
        return s, {"v": v}
