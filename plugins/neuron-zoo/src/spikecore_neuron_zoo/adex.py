"""Adaptive exponential integrate and fire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from spikecore.dynamics import exp
from spikecore.interfaces import Range
from spikecore.nn import Neuron, fire_and_reset


class AdEx(Neuron):
    """Adaptive exponential integrate and fire: EIF with an adaptation current.

    h = v + (x + v_rest - v + delta_T exp((v - theta_rh) / delta_T) - w) / tau
    w' = w + (a (v - v_rest) - w) / tau_w
    s = Θ(h - v_threshold);  v is reset;  w = w' + b s

    One Euler step per time step, both equations from the state before it; dimensionless, time constants in steps.
    `v` starts at `v_reset`, `w` at 0; fires when h >= v_threshold; reset in the same step. The published form, in
    physical units (C, g_L, E_L, V_T, ...) and with a step of dt, has tau = C / (g_L dt), x = I / g_L, a / g_L and
    b / g_L for a and b, tau_w / dt for tau_w.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Gradients: to x, every learnable parameter and the initial states; through the spike by the surrogate, in the reset
    and in w.

    Source: Brette and Gerstner, Adaptive exponential integrate-and-fire model as an effective description of neuronal
    activity (Journal of Neurophysiology 2005).

    Parity: norse's lif_adex_feed_forward_step where its synapse passes the input on at once; tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> AdEx(tau=4.0, b=0.6, tau_w=10.0)(torch.full((9, 1), 1.5)).flatten().tolist()
        [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    """

    state = {"v": "v_init", "w": 0.0}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            v_reset: target of the hard reset, and initial `v` unless `v_init` is given.
            tau: membrane time constant, in steps.
            delta_T: sharpness of the upswing, in units of the potential.
            theta_rh: rheobase threshold: the potential at which the upswing begins.
            v_rest: resting potential.
            tau_w: time constant of w, in steps.
            a: coupling of w to the potential.
            b: what one spike adds to w.
        """

        v_reset: float = -0.1
        tau: Annotated[float, Range(gt=1.0)] = 2.0
        delta_T: Annotated[float, Range(gt=0.0)] = 1.0
        theta_rh: float = 0.8
        v_rest: float = 0.0
        tau_w: Annotated[float, Range(gt=1.0)] = 2.0
        a: float = 0.0
        b: float = 0.0

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        upswing = params.delta_T * exp((state.v - params.theta_rh) / params.delta_T)
        h = state.v + (x + params.v_rest - state.v + upswing - state.w) / params.tau
        w = state.w + (params.a * (state.v - params.v_rest) - state.w) / params.tau_w
        s, v = fire_and_reset(h, params)
        return s, {"v": v, "w": w + params.b * s}
