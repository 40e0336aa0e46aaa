"""Resonate and fire: subthreshold oscillation, so that the input's timing decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from spikecore.dynamics import cos, exp, sin
from spikecore.interfaces import Range
from spikecore.nn import Neuron, fire_and_reset


class ResonateAndFire(Neuron):
    """A damped oscillator z = u + i v that fires when its imaginary part reaches the threshold.

    z[t] = exp(b + i omega) z[t-1] + x[t]                    the exact solution between inputs
    h_u = exp(b) (cos(omega) u - sin(omega) v) + x
    h_v = exp(b) (sin(omega) u + cos(omega) v)
    s = Θ(h_v - v_threshold);  v is reset;  u = h_u

    `b` and `omega` (radians) are per step. `v` starts at `v_reset`, `u` at 0; fires when h_v >= v_threshold; reset in
    the same step. An input acts on v one step later, through the rotation. (The published reset also sets u to 0.)

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` and dtype.

    Gradients: to x, every learnable parameter and the initial states; through the spike by the surrogate.

    Source: Izhikevich, Resonate-and-fire neurons (Neural Networks 2001).

    Parity: spikingjelly's RAFNode (b dt and omega dt for b and omega); tests/peers/test_zoo.py.

    Example:
        >>> import math, torch
        >>> twice = torch.tensor([0.7, 0.0, 0.0, 0.0, 0.7, 0.0, 0.0]).reshape(-1, 1)
        >>> ResonateAndFire(b=-0.02, omega=math.pi / 2)(twice).flatten().tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    """

    state = {"v": "v_init", "u": 0.0}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            b: damping per step, not above 0.
            omega: angle per step, in radians.
        """

        b: Annotated[float, Range(le=0.0)] = -0.2
        omega: Annotated[float, Range(gt=0.0)] = 1.0

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        decay = exp(params.b)
        along, across = decay * cos(params.omega), decay * sin(params.omega)
        s, v = fire_and_reset(across * state.u + along * state.v, params)
        return s, {"v": v, "u": along * state.u - across * state.v + x}
