"""The Izhikevich neuron, in the scaled quadratic form of 2007."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from spikecore.interfaces import Range
from spikecore.nn import Neuron, fire_and_reset


class Izhikevich(Neuron):
    """Quadratic integrate and fire with adaptation.

    h  = v + (x + a0 (v - v_rest) (v - v_c) - w) / tau
    w' = w + (a (u - v_rest) - w) / tau_w        update="simultaneous": u = v        update="sequential": u = h
    s  = Θ(h - v_threshold);  v is reset;  w = w' + b s

    One forward Euler step per time step, both variables from the state before it; `sequential` gives w the new
    potential, which shortens the intervals of spikes by some percent at a step of 1 ms. Time constants in steps. `v`
    starts at `v_reset`, `w` at `w_rest`; fires when h >= v_threshold; reset in the same step. Parameter sets published
    as (C, k, v_r, v_t, v_peak, a, b, c, d) are used with a step of 1 ms as tau=C, a0=k, v_rest=v_r, v_c=v_t,
    v_threshold=v_peak, tau_w=1/a, a=b, b=d, v_reset=c.

    In float32 v is exact to about 1e-4 of its range after 32 steps, whoever computes it: the quadratic term amplifies
    rounding. Use float64 to compare implementations.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Gradients: to x, every learnable parameter and the initial states; through the spike by the surrogate, in the reset
    and in w.

    Source: Izhikevich, Dynamical systems in neuroscience (2007), section 8.1.4, eq. 8.5 and 8.6; Simple model of
    spiking neurons (IEEE Transactions on Neural Networks 2003).

    Parity: spikingjelly's IzhikevichNode with update="sequential"; norse's izhikevich_feed_forward_step;
    tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> Izhikevich(tau=4.0, b=1.0, tau_w=20.0)(torch.full((9, 1), 2.0)).flatten().tolist()
        [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    """

    state = {"v": "v_init", "w": "w_rest"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            v_reset: target of the hard reset, and initial `v` unless `v_init` is given.
            tau: time constant of v, in steps.
            v_c: critical potential: above it the quadratic term drives v up.
            a0: strength of the quadratic term.
            v_rest: resting potential.
            w_rest: adaptation before the first step.
            tau_w: time constant of w, in steps.
            a: coupling of w to the potential.
            b: what one spike adds to w.
            update: `simultaneous`: w changes by the potential before the step; `sequential`: by the charged one.
        """

        tau: Annotated[float, Range(gt=1.0)] = 2.0
        v_c: float = 0.8
        a0: Annotated[float, Range(gt=0.0)] = 1.0
        v_rest: float = -0.1
        w_rest: float = 0.0
        tau_w: Annotated[float, Range(gt=1.0)] = 2.0
        a: float = 0.0
        b: float = 0.0
        update: Literal["simultaneous", "sequential"] = "simultaneous"

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        quadratic = params.a0 * (state.v - params.v_rest) * (state.v - params.v_c)
        h = state.v + (x + quadratic - state.w) / params.tau
        seen = h if params.update == "sequential" else state.v
        w = state.w + (params.a * (seen - params.v_rest) - state.w) / params.tau_w
        s, v = fire_and_reset(h, params)
        return s, {"v": v, "w": w + params.b * s}
