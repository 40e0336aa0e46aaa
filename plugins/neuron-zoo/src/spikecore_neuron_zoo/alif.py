"""Leaky integrate and fire with an adaptive threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from spikecore.interfaces import Range
from spikecore.nn import LIF, Neuron, fire, leaky_charge, reset_after


class ALIF(Neuron):
    """LIF whose threshold rises with every spike and decays back.

    h  = LIF charge of (v, x)
    s  = Θ(h - (v_threshold + beta a))
    a' = a - a / tau_a + s;  v is reset (soft: by v_threshold, without the adaptation)

    `tau` and `tau_a` in steps. `v` starts at `v_reset`, `a` at 0; fires when h >= v_threshold + beta a; reset in the
    same step. With rho = 1 - 1 / tau_a, a' = rho a + s is the published form.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Gradients: to x, every learnable parameter and the initial states; through the spike by the surrogate, in the reset
    (unless `detach_reset`) and in a.

    Source: Bellec et al., A solution to the learning dilemma for recurrent networks of spiking neurons (Nature
    Communications 2020), Methods.

    Parity: norse's lsnn_feed_forward_step, which is late by one step and has beta / rho for beta;
    tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> ALIF(beta=0.5, tau_a=10.0)(torch.full((9, 1), 2.1)).flatten().tolist()
        [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    """

    state = {"v": "v_init", "a": 0.0}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(LIF.Config):
        """
        Args:
            tau_a: time constant of the adaptation, in steps.
            beta: what one spike adds to the threshold.
        """

        tau_a: Annotated[float, Range(gt=1.0)] = 20.0
        beta: float = 0.2

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        h = leaky_charge(state.v, x, params)
        s = fire(h - (params.v_threshold + params.beta * state.a), params)
        return s, {"v": reset_after(s, h, params), "a": state.a - state.a / params.tau_a + s}
