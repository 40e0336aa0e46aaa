"""What spiking neurons share: charge → fire → reset, in that order, within one step.

charge   h = f(v, x)
fire     fires="at": s = 1 where h >= v_threshold        fires="above": s = 1 where h > v_threshold
reset    hard: v = (1 - s) h + s v_reset        soft: v = h - s v_threshold
"""

from __future__ import annotations

from typing import Any

from spikecore.dynamics import clamp, detach, spike
from spikecore.nn.hard_reset import LARGEST, hard_reset, runs_as_one


def fire(distance: Any, params: Any) -> Any:
    """The spikes of potentials `distance` above their threshold, by the option `fires`."""
    return spike(distance, params.surrogate, strict=params.fires == "above")


def fire_and_reset(h: Any, params: Any) -> tuple[Any, Any]:
    """`(s, v)` from the charged potential `h`."""
    s = fire(h - params.v_threshold, params)
    return s, reset_after(s, h, params)


def reset_after(s: Any, h: Any, params: Any) -> Any:
    """`v` after the output `s`: for neurons that fire in their own way.

    A hard reset recovers from h = inf; every other value and gradient is that of the equation.
    """
    reset_by: Any = detach(s) if params.detach_reset else s
    if params.reset == "hard":
        if runs_as_one(reset_by, h, params.v_reset):
            return hard_reset(reset_by, h, params.v_reset)
        # 0 * inf is NaN: without the limit, one infinite input would end the neuron. NaN passes through it.
        finite = clamp(h, max=LARGEST)
        return (1 - reset_by) * finite + reset_by * params.v_reset
    return h - reset_by * params.v_threshold


def leaky_charge(v: Any, x: Any, params: Any) -> Any:
    """`h` of LIF, from the options `tau`, `v_leak` and `decay_input`."""
    leak = v - params.v_leak
    if params.decay_input:
        return v + (x - leak) / params.tau
    return v - leak / params.tau + x
