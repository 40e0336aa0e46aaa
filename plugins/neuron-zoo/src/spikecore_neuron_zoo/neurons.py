"""Izhikevich and exponential integrate and fire, one Euler step per time step.

Both charge by their own equation, then fire and reset as every neuron of the core does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from spikecore.dynamics import exp
from spikecore.interfaces.component import Range
from spikecore.nn import Neuron, fire_and_reset


class Izhikevich(Neuron):
    """Quadratic integrate and fire with adaptation.

    h  = v + (x + a0 (v - v_rest) (v - v_c) - w) / tau
    w' = w + (a (h - v_rest) - w) / tau_w
    s  = Θ(h - v_threshold);  v is reset;  w = w' + b s

    Dimensionless; time constants in steps. `v` starts at `v_reset`, `w` at `w_rest`.

    Source: Izhikevich, Simple model of spiking neurons (IEEE Transactions on Neural Networks 2003).
    """

    state = {"v": "v_reset", "w": "w_rest"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            tau: time constant of v, in steps.
            v_c: critical potential: above it the quadratic term drives v up.
            a0: strength of the quadratic term.
            v_rest: resting potential.
            w_rest: adaptation before the first step.
            tau_w: time constant of w, in steps.
            a: coupling of w to the potential.
            b: what one spike adds to w.
        """

        tau: Annotated[float, Range(gt=1.0)] = 2.0
        v_c: float = 0.8
        a0: Annotated[float, Range(gt=0.0)] = 1.0
        v_rest: float = -0.1
        w_rest: float = 0.0
        tau_w: Annotated[float, Range(gt=1.0)] = 2.0
        a: float = 0.0
        b: float = 0.0

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        quadratic = params.a0 * (state.v - params.v_rest) * (state.v - params.v_c)
        h = state.v + (x + quadratic - state.w) / params.tau
        w = state.w + (params.a * (h - params.v_rest) - state.w) / params.tau_w
        s, v = fire_and_reset(h, params)
        return s, {"v": v, "w": w + params.b * s}


class EIF(Neuron):
    """Exponential integrate and fire: h = v + (x + v_rest - v + delta_T exp((v - theta_rh) / delta_T)) / tau.

    Dimensionless; `tau` in steps. `v` starts at `v_reset`; fires when h >= v_threshold.

    Source: Fourcaud-Trocmé et al., How spike generation mechanisms determine the neuronal response to fluctuating
    inputs (Journal of Neuroscience 2003).
    """

    state = {"v": "v_reset"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
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
