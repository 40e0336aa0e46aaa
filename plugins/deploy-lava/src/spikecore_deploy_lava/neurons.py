"""Neurons of a net → the numbers of a population, still in units of the net."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from spikecore import nn
from spikecore.nn import RefusedError
from spikecore_deploy_lava.loihi_lif import LoihiLIF
from spikecore_deploy_lava.network import UNITY

MAX_DECAY = UNITY - 1


@dataclass(frozen=True)
class Dynamics:
    """What a neuron does, in units of the net.

        u = (1 - u_loss) u + x        v = (1 - v_loss) v + gain u        fires where v > threshold, or v >= threshold

    Args:
        u_loss, v_loss: shares.
        gain: of the input.
        threshold: a potential.
        start: potentials, one for each channel or one.
        is_strict: fires above the threshold only.
        scale: integer units in 1, where the neuron says it.
        bias: of the neuron itself, one for each channel or one.
    """

    u_loss: Fraction
    v_loss: Fraction
    gain: Fraction
    threshold: Fraction
    start: tuple[Fraction, ...]
    is_strict: bool
    scale: int | None = None
    bias: tuple[float, ...] = (0.0,)


def dynamics_of(neuron: torch.nn.Module) -> Dynamics:
    """Of a neuron, which is mapped by its own type.

    Raises:
        RefusedError: Loihi has nothing for it.
    """
    reader = READERS.get(type(neuron))
    if reader is None:
        raise RefusedError(
            f"Lava's LIF is no {type(neuron).__name__}", f"use {', '.join(sorted(kind.__name__ for kind in READERS))}"
        )
    assert isinstance(neuron, nn.Neuron)
    return reader(_Options(nn.option_values(neuron)))


class _Options:
    """Options of a neuron, one number for all neurons of the layer."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def number(self, name: str) -> Fraction:
        value = self.values[name]
        if isinstance(value, tuple):
            value = self._only(name, value)
        if not torch.isfinite(torch.tensor(float(value))):
            raise RefusedError(f"its option {name} is {value}", "give it a finite value")
        return Fraction(value)

    def _only(self, name: str, values: tuple[Any, ...]) -> float:
        flat = set(torch.as_tensor(values, dtype=torch.float64).flatten().tolist())
        if len(flat) > 1:
            raise RefusedError(
                f"its option {name} has {len(flat)} different values, {min(flat):g} to {max(flat):g}; a "
                "population has one",
                f"give {name} one value for the layer",
            )
        return float(flat.pop())

    def channels(self, name: str) -> tuple[float, ...]:
        """An option that may have a value for each channel."""
        value = self.values[name]
        values = value if isinstance(value, tuple) else (value,)
        if any(isinstance(part, tuple) for part in values):
            raise RefusedError(f"its {name} has a value for each neuron", "give it one for each channel")
        return tuple(float(part) for part in values)

    def check(self) -> None:
        """What a chip that resets to 0 cannot do."""
        if self.values["reset"] == "soft":
            raise RefusedError("it subtracts the threshold, Loihi resets to 0", 'use reset="hard" and v_reset=0')
        for name in ("v_reset", "v_leak"):
            if name in self.values and self.number(name):
                raise RefusedError(f"its {name} is {float(self.number(name)):g}, on Loihi it is 0", f"use {name}=0")

    def dynamics(self, u_loss: Fraction, v_loss: Fraction, gain: Fraction) -> Dynamics:
        self.check()
        start = self.number("v_init") if self.values.get("v_init") is not None else self.number("v_reset")
        is_strict = self.values["fires"] == "above"
        return Dynamics(u_loss, v_loss, gain, self.number("v_threshold"), (start,), is_strict)


def _if(options: _Options) -> Dynamics:
    return options.dynamics(Fraction(1), Fraction(0), Fraction(1))


def _lif(options: _Options) -> Dynamics:
    rate = 1 / options.number("tau")
    return options.dynamics(Fraction(1), rate, rate if options.values["decay_input"] else Fraction(1))


def _plif(options: _Options) -> Dynamics:
    rate = Fraction(float(torch.sigmoid(torch.tensor(float(options.number("w")), dtype=torch.float64))))
    return options.dynamics(Fraction(1), rate, rate if options.values["decay_input"] else Fraction(1))


def _cuba_lif(options: _Options) -> Dynamics:
    return options.dynamics(1 - options.number("c_decay"), 1 - options.number("v_decay"), Fraction(1))


def _loihi_lif(options: _Options) -> Dynamics:
    values, scale = options.values, options.values["scale"]
    bias, start = options.channels("bias"), options.channels("v_init")
    # A threshold is rounded to whole units, as in its step; so is a bias, where it becomes an integer.
    threshold = Fraction(round(options.number("v_threshold") * scale), scale)
    return Dynamics(
        Fraction(values["du"] + 1, UNITY),
        Fraction(values["dv"], UNITY),
        Fraction(1),
        threshold,
        tuple(Fraction(value) for value in start),
        is_strict=True,
        scale=scale,
        bias=bias,
    )


READERS: dict[type, Callable[[_Options], Dynamics]] = {
    nn.IF: _if,
    nn.LIF: _lif,
    nn.ParametricLIF: _plif,
    nn.CubaLIF: _cuba_lif,
    LoihiLIF: _loihi_lif,
}


@dataclass(frozen=True)
class Decay:
    """A loss in 4096ths, as near as the chip has it."""

    value: int
    inexact: str = ""


def decay(loss: Fraction, what: str, offset: int) -> Decay:
    """`value`, whose loss is value + `offset` 4096ths.

    Raises:
        RefusedError: nothing is near it.
    """
    exact = loss * UNITY - offset
    if not -1 < exact <= UNITY:
        raise RefusedError(f"its {what} loses {float(loss):g} in a step", "use a decay from 0 to 1")
    value = min(max(round(exact), 0), MAX_DECAY)
    if value == exact:
        return Decay(value)
    if exact < 0 or (exact < 1 and value == 0):
        raise RefusedError(
            f"its {what} loses {float(loss):.3g} in a step, less than 1/4096", "use a shorter time constant"
        )
    return Decay(value, f"its {what} loses {value + offset}/4096 in a step, not {float(loss):.6g}")
