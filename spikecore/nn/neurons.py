"""IF and LIF: charge → fire → reset, in that order, within one step.

charge   h = f(v, x)
fire     s = Θ(h - v_threshold)
reset    hard: v = (1 - s) h + s v_reset        soft: v = h - s v_threshold
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from spikecore.dynamics import detach, spike
from spikecore.interfaces.component import Range
from spikecore.nn.neuron import Neuron


def fire_and_reset(h: Any, params: Any) -> tuple[Any, Any]:
    """`(s, v)` from the charged potential `h`."""
    s = spike(h - params.v_threshold, params.surrogate)
    reset_by = detach(s) if params.detach_reset else s
    if params.reset == "hard":
        return s, (1 - reset_by) * h + reset_by * params.v_reset
    return s, h - reset_by * params.v_threshold


class IF(Neuron):
    """Integrate and fire: h = v + x; `v` starts at `v_reset`; fires when h >= v_threshold."""

    state = {"v": "v_reset"}  # noqa: RUF012

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        s, v = fire_and_reset(state.v + x, params)
        return s, {"v": v}


class LIF(Neuron):
    """Leaky integrate and fire, Euler: h = v + (x - (v - v_reset)) / tau.

    With `decay_input=False` the input is not divided: h = v - (v - v_reset) / tau + x. `tau` is in steps; `v` starts at
    `v_reset` in both reset modes; fires when h >= v_threshold.
    """

    state = {"v": "v_reset"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            tau: membrane time constant, in steps.
            decay_input: the input is leaked as well.
        """

        tau: Annotated[float, Range(gt=1.0)] = 2.0
        decay_input: bool = True

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        leak = state.v - params.v_reset
        h = state.v + (x - leak) / params.tau if params.decay_input else state.v - leak / params.tau + x
        s, v = fire_and_reset(h, params)
        return s, {"v": v}
