"""The neurons of a file as one step computes them: time constants in steps, gains, potentials.

LIF     h = v + (x - (v - v_leak)) / n           where r is 1; otherwise h = v - (v - v_leak) / n + gain x
CubaLIF current = c current + gain x;  h = d v + (1 - d) v_leak + membrane_gain current
IF      h = v + gain x
LI, CubaLI, I: the same, and the output is v
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikecore.errors import ConversionError
from spikecore_deploy_nir.graph import SPIKING, NirNode
from spikecore_deploy_nir.profiles import Doubles
from spikecore_deploy_nir.settings import Settings
from spikecore_deploy_nir.shapes import Shape, parameter


@dataclass(frozen=True, eq=False)
class Cell:
    """One node; every array is one number or broadcasts over the shape of a step.

    Args:
        type: of the node.
        gain: of the input.
        steps: n; None for IF and I, which do not leak.
        is_scaled: the input is divided by n together with the leak; `gain` is not used then.
        v_leak: what v leaks to, and starts at; 0 without leak.
        v_threshold: fires when v is above it; None where there are no spikes.
        v_reset: where v goes with a spike, if the reset is hard.
        current_left: c; None without synaptic current.
        membrane_gain: of the synaptic current.
    """

    type: str
    gain: Doubles
    steps: Doubles | None
    is_scaled: bool
    v_leak: Doubles
    v_threshold: Doubles | None
    v_reset: Doubles
    current_left: Doubles | None
    membrane_gain: Doubles


ZERO, ONE = np.zeros(()), np.ones(())


def cell_of(name: str, node: NirNode, shape: Shape, settings: Settings) -> Cell:
    """The step of a neuron node.

    Raises:
        ConversionError: a value is no number, has another shape than the input, or cannot be reached with this dt.
    """

    def value(key: str, default: Doubles | None = None) -> Doubles:
        if default is not None and key not in node.values:
            return default
        return parameter(name, node, key, shape)

    profile, r = settings.profile, value("r")
    threshold = value("v_threshold") if node.type in SPIKING else None
    v_reset = value("v_reset", ZERO) if node.type in SPIKING else ZERO
    if node.type in ("IF", "I"):
        gain = r if settings.adds_input else profile.integrator_gain(r, settings.dt_s)
        return Cell(node.type, gain, None, False, ZERO, threshold, v_reset, None, ONE)
    v_leak = value("v_leak")
    if node.type in ("LIF", "LI"):
        steps = _steps(name, "tau", value("tau"), settings)
        is_scaled = profile.scales_input and bool((r == 1).all())
        return Cell(node.type, profile.gain(r, steps), steps, is_scaled, v_leak, threshold, v_reset, None, ONE)
    steps = _steps(name, "tau_mem", value("tau_mem"), settings)
    synapse = _steps(name, "tau_syn", value("tau_syn"), settings)
    gain = profile.gain(value("w_in", ONE), synapse)
    membrane_gain = profile.gain(r, steps)
    return Cell(node.type, gain, steps, False, v_leak, threshold, v_reset, 1 - 1 / synapse, membrane_gain)


def _steps(name: str, key: str, tau_s: Doubles, settings: Settings) -> Doubles:
    if bool((tau_s <= 0).any()):
        raise ConversionError(f"node {name!r}: {key} must be positive, got {float(tau_s.min())}")
    steps = settings.profile.steps(tau_s, settings.dt_s)
    if bool((steps < 1).any()) or not bool(np.isfinite(steps).all()):
        smallest, largest = float(tau_s.min()), float(tau_s.max())
        raise ConversionError(
            f"node {name!r}: {key} lies between {smallest:g} and {largest:g} s, and a step lasts {settings.dt_s:g} s: "
            "profile "
            f"{settings.profile.name!r} needs time constants of at least a step, and finite ones; set dt"
        )
    return steps
