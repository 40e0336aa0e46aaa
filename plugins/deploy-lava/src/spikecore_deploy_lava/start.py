"""Potentials before the first step of Lava.

Spikes reach the layer at depth n after n steps, while its bias acts from the first step on. So the population starts
where n steps of bias alone lead to the potential that the net starts from.
"""

from __future__ import annotations

import numpy as np

from spikecore_deploy_lava.network import ALIGN, STATE_LIMIT, UNITY, Doubles, Model


def truncated(n: Doubles, kept: float) -> Doubles:
    """tz(n, kept): towards zero, in 4096ths; whole numbers up to 2^40 are exact."""
    return np.sign(n) * np.floor(np.abs(n) * kept / UNITY)


def charged(v: Doubles, bias: Doubles, dv: float, model: Model) -> Doubles:
    """The potential after a step without spikes, before firing."""
    if model == "floating_pt":
        return v * (1 - dv) + bias
    return np.clip(truncated(v, UNITY - dv) + bias * ALIGN, 1 - STATE_LIMIT, STATE_LIMIT - 1)


def start_before(wanted: Doubles, bias: Doubles, dv: float, vth: float, lag: int, model: Model) -> Doubles:
    """Where to start so that `lag` steps of bias lead to `wanted`, or as near as possible without firing on the way.

    In fixed point there is always such a number within an unlimited range: a decay takes every value.
    """
    v = np.broadcast_to(wanted, np.broadcast_shapes(wanted.shape, bias.shape)).astype(np.float64)
    # In doubles the way forward may be off by a rounding: stay that far below.
    ceiling = vth - abs(vth) * 1e-9 if model == "floating_pt" else vth * ALIGN
    for step in range(lag):
        if step:
            v = np.minimum(v, ceiling)  # it is compared with the threshold: only the very first value is not
        if model == "floating_pt":
            v = (v - bias) / (1 - dv) if dv < 1 else np.zeros_like(v)
        else:
            target = v - bias * ALIGN
            kept = UNITY - dv
            v = np.sign(target) * np.ceil(np.abs(target) * UNITY / kept) if kept else np.zeros_like(v)
            v = np.clip(v, 1 - STATE_LIMIT, STATE_LIMIT - 1)
    return v


def start_after(v: Doubles, bias: Doubles, dv: float, vth: float, lag: int, model: Model) -> tuple[Doubles, bool]:
    """(potential after `lag` steps of bias, whether something fires meanwhile)."""
    ceiling = vth if model == "floating_pt" else vth * ALIGN
    fires = False
    for _ in range(lag):
        v = charged(v, bias, dv, model)
        fires = fires or bool((v > ceiling).any())
        v = np.where(v > ceiling, 0.0, v)
    return v, fires
