"""Neurons of a net → nodes. Options that a node has no word for are refused, not dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikecore import nn
from spikecore.nn import RefusedError
from spikecore_deploy_nir.graph import NirNode, Value
from spikecore_deploy_nir.profiles import Doubles, invert, next_below
from spikecore_deploy_nir.settings import Settings
from spikecore_deploy_nir.shapes import Shape

TRAINING = ("surrogate", "detach_reset", "learnable")
"""Options that change gradients only."""


@dataclass(frozen=True)
class Written:
    """A neuron as a node.

    Args:
        node: the node.
        fires_at: its threshold was lowered by one number.
        inexact: why it computes something slightly different; "" where it does not.
        is_silent_at_rest: without input it stays where it starts and does not fire.
    """

    node: NirNode
    fires_at: bool = False
    inexact: str = ""
    is_silent_at_rest: bool = True


def written_neuron(neuron: nn.Neuron, shape: Shape, settings: Settings) -> Written:
    """The node of a neuron.

    Args:
        neuron: mapped by its own type; a subclass may compute something else.
        shape: of a step, without the batch.
        settings: of the file.

    Raises:
        RefusedError: NIR, or the profile, has nothing for it.
    """
    writer = WRITERS.get(type(neuron))
    if writer is None:
        raise RefusedError(
            f"NIR has no neuron for {type(neuron).__name__}", f"use {', '.join(sorted(t.__name__ for t in WRITERS))}"
        )
    return writer(_Options(nn.option_values(neuron), shape, settings))


class _Options:
    """The options of a neuron as arrays of the shape of a step."""

    def __init__(self, values: dict[str, Any], shape: Shape, settings: Settings) -> None:
        self.values, self.shape, self.settings = values, shape, settings

    def array(self, name: str) -> Doubles:
        numbers = np.asarray(self.values[name], dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise RefusedError(f"its option {name} is not finite ({self.values[name]})", "give it a finite value")
        if numbers.ndim > 1 and numbers.shape != self.shape:
            raise RefusedError(
                f"its option {name} has the shape {numbers.shape}, a step {self.shape}",
                "give it one value for each place",
            )
        if numbers.ndim == 1 and numbers.shape[0] != (self.shape[0] if self.shape else 1):
            raise RefusedError(
                f"its option {name} has {numbers.shape[0]} values for the shape {self.shape}", "give one"
            )
        is_per_channel = numbers.ndim == 1
        spread = numbers.reshape(-1, *[1] * (len(self.shape) - 1)) if is_per_channel else numbers
        return np.array(np.broadcast_to(spread, self.shape))

    def mapped(self, array: Doubles, function: Callable[[float], float]) -> Doubles:
        """`function` of every number; equal numbers are computed once."""
        unique, places = np.unique(array, return_inverse=True)
        return np.array([function(float(number)) for number in unique])[places].reshape(array.shape)

    def rounded(self, array: Doubles) -> Doubles:
        return array.astype(self.settings.dtype).astype(np.float64)

    def check_starts_at(self, name: str, place: Doubles, where: str) -> None:
        start = self.array("v_init") if self.values.get("v_init") is not None else self.array("v_reset")
        if not np.array_equal(self.rounded(start), self.rounded(place)):
            raise RefusedError(
                f"it starts at v_init = {_short(start)}; readers of NIR start {name} at {where}, here {_short(place)}",
                f"set v_init={_short(place)}",
            )

    def threshold(self) -> tuple[Doubles, bool]:
        """The threshold of a reader that fires above it, and whether it was lowered for that."""
        is_soft = self.values["reset"] == "soft"
        if self.values["reset"] != self.settings.profile.reset:
            raise RefusedError(
                f"reset={self.values['reset']!r}: profile {self.settings.profile.name!r} resets "
                + ("to a value; NIR's equations know no soft reset" if is_soft else "by subtraction"),
                'use reset="hard", or --set profile=decay_soft for readers that subtract'
                if is_soft
                else 'use reset="soft", or another profile',
            )
        threshold = self.array("v_threshold")
        if self.values["fires"] == "above":
            return self.rounded(threshold), False
        if is_soft:
            raise RefusedError(
                "it fires at the threshold, readers of NIR above it; a lowered threshold would be subtracted too, "
                "and v would drift by one rounding with every spike",
                'use fires="above" with reset="soft"',
            )
        return self.mapped(threshold, lambda value: next_below(value, self.settings.dtype)), True

    def seconds(self, name: str, steps: Doubles) -> Doubles:
        """Time constants in seconds, such that a reader gets these steps back exactly."""
        profile, dt = self.settings.profile, self.settings.dt_s

        def tau(wanted: float) -> float:
            guess = profile.seconds(wanted, dt)
            if guess <= 0 or not np.isfinite(guess):
                raise RefusedError(
                    f"{name} stands for {wanted:g} steps, a time constant that profile {profile.name!r} does not have",
                    "use a larger one, or the profile euler" if wanted <= 1 else "let it decay",
                )
            value = invert(
                wanted, guess, lambda tau_s: float(profile.steps(np.float64(tau_s), dt)), self.settings.dtype
            )
            if value is None:
                raise RefusedError(
                    f"{name}: no time constant in seconds gives {wanted:g} steps of {dt:g} s again",
                    "use a dt that is a power of two, such as 2**-10",
                )
            return value

        return self.mapped(steps, tau)

    def decays(self, name: str) -> tuple[Doubles, Doubles]:
        """(time constants in seconds, in steps) of an option that says what is left of a state after a step."""
        profile, dt = self.settings.profile, self.settings.dt_s

        def left(tau_s: float) -> float:
            return float(1 - 1 / profile.steps(np.float64(tau_s), dt))

        def tau(share: float) -> float:
            if not 0 <= share < 1 or (profile.is_exact and share == 0):
                raise RefusedError(f"{name} = {share:g} has no time constant in profile {profile.name!r}", "change it")
            value = invert(share, profile.seconds(1 / (1 - share), dt), left, self.settings.dtype)
            if value is None:
                raise RefusedError(
                    f"{name}: no time constant in seconds leaves {share:g} after {dt:g} s",
                    "use another dt, such as 2**-10",
                )
            return value

        seconds = self.mapped(self.array(name), tau)
        return seconds, profile.steps(seconds, dt)


def _short(array: Doubles) -> str:
    values = np.unique(array)
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


def _is_silent(start: Doubles, threshold: Doubles) -> bool:
    return bool((start <= threshold).all())


def _if(options: _Options) -> Written:
    threshold, fires_at = options.threshold()
    zero = np.zeros(options.shape)
    options.check_starts_at("IF", zero, "0")
    values: dict[str, Value] = {"r": np.full(options.shape, _integrator_r(options)), "v_threshold": threshold}
    _add_reset(values, options)
    return Written(NirNode("IF", values), fires_at, is_silent_at_rest=_is_silent(zero, threshold))


def _integrator_r(options: _Options) -> float:
    settings = options.settings
    return 1.0 if settings.adds_input else settings.profile.integrator_resistance(settings.dt_s)


def _add_reset(values: dict[str, Value], options: _Options) -> None:
    """v_reset, unless it is 0: readers take 0 where it is missing, and old ones refuse files that have it."""
    if options.settings.profile.reset == "soft":
        return
    v_reset = options.rounded(options.array("v_reset"))
    if v_reset.any():
        values["v_reset"] = v_reset


def _lif(options: _Options) -> Written:
    return _leaky(options, options.array("tau"), "tau")


def _plif(options: _Options) -> Written:
    rate = 1 / (1 + np.exp(-options.array("w")))
    written = _leaky(options, 1 / rate, "w")
    inexact = "it multiplies by σ(w), a reader divides by tau = 1 / σ(w): results may differ in the last bit"
    return Written(written.node, written.fires_at, inexact, written.is_silent_at_rest)


def _leaky(options: _Options, steps: Doubles, name: str) -> Written:
    threshold, fires_at = options.threshold()
    v_leak = options.rounded(options.array("v_leak"))
    options.check_starts_at("LIF", v_leak, "v_leak")
    tau = options.seconds(name, steps)
    values: dict[str, Value] = {"tau": tau, "r": _resistance(options, tau, options.values["decay_input"])}
    values |= {"v_leak": v_leak, "v_threshold": threshold}
    _add_reset(values, options)
    return Written(NirNode("LIF", values), fires_at, is_silent_at_rest=_is_silent(v_leak, threshold))


def _resistance(options: _Options, tau_s: Doubles, divides_input: bool) -> Doubles:
    """The r with which a reader treats the input as the neuron does."""
    profile = options.settings.profile
    steps = profile.steps(tau_s, options.settings.dt_s)
    if not divides_input:
        return steps if profile.scales_input else np.ones(options.shape)
    if not profile.scales_input:
        raise RefusedError(
            f"decay_input=True divides the input by tau, profile {profile.name!r} does not",
            "use decay_input=False, or another profile",
        )
    return np.ones(options.shape)


def _li(options: _Options) -> Written:
    tau = options.seconds("tau", options.array("tau"))
    values: dict[str, Value] = {"tau": tau, "r": _resistance(options, tau, options.values["decay_input"])}
    values["v_leak"] = np.zeros(options.shape)
    return Written(NirNode("LI", values))


def _cuba_lif(options: _Options) -> Written:
    threshold, fires_at = options.threshold()
    zero, profile = np.zeros(options.shape), options.settings.profile
    options.check_starts_at("CubaLIF", zero, "v_leak")
    tau_syn, synapse = options.decays("c_decay")
    tau_mem, steps = options.decays("v_decay")
    ones = np.ones(options.shape)
    values: dict[str, Value] = {
        "tau_syn": tau_syn,
        "tau_mem": tau_mem,
        "r": steps if profile.scales_input else ones,
        "v_leak": zero,
        "v_threshold": threshold,
        "w_in": synapse if profile.scales_input else ones,
    }
    _add_reset(values, options)
    return Written(NirNode("CubaLIF", values), fires_at, is_silent_at_rest=_is_silent(zero, threshold))


def _integrator(options: _Options) -> Written:
    return Written(NirNode("I", {"r": np.full(options.shape, _integrator_r(options))}))


WRITERS: dict[type, Callable[[_Options], Written]] = {
    nn.IF: _if,
    nn.LIF: _lif,
    nn.ParametricLIF: _plif,
    nn.CubaLIF: _cuba_lif,
    nn.LI: _li,
    nn.NonSpikingIF: _integrator,
}
