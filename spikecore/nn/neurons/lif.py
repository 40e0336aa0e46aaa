"""`LIF`: leaky integrate and fire."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from spikecore.interfaces.component import DefaultsTo, Range
from spikecore.nn.neuron import Neuron
from spikecore.nn.neurons.equations import fire_and_reset, leaky_charge


class LIF(Neuron):
    """Leaky integrate and fire, Euler.

    h = v + (x - (v - v_leak)) / tau        decay_input=False:  h = v - (v - v_leak) / tau + x

    `tau` in steps. `v` starts at `v_init` and the leak pulls it to `v_leak`, both `v_reset` unless given, in both reset
    modes; fires when h >= v_threshold (`fires="above"`: h > v_threshold); reset in the same step.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: to x, the initial state and every learnable parameter; through the spike by the surrogate, in the reset
    too unless `detach_reset`.

    Source: Gerstner et al., Neuronal Dynamics (2014), 1.3.

    Parity: spikingjelly's LIFNode, with a soft reset at v_reset=0 only (theirs leaks to 0 then);
    tests/peers/test_neurons.py.

    Example:
        >>> import torch
        >>> lif = LIF(tau=2.0, record=("v",))
        >>> lif(torch.full((4, 1), 1.5)).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
        >>> lif.recorded["v"].flatten().tolist()
        [0.75, 0.0, 0.75, 0.0]
    """

    known_as = ("LIFNode",)
    renamed = {"beta": "tau = 1 / (1 - beta) with decay_input=False"}  # noqa: RUF012
    state = {"v": "v_init"}  # noqa: RUF012
    observed = ("h",)

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            tau: membrane time constant, in steps; 1 keeps nothing of `v`.
            decay_input: the input is leaked as well.
            v_leak: what the leak pulls `v` to; None for `v_reset`.
        """

        tau: Annotated[float, Range(ge=1.0, lt=math.inf)] = 2.0
        decay_input: bool = True
        v_leak: Annotated[float | None, DefaultsTo("v_reset")] = None

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        h = leaky_charge(state.v, x, params)
        s, v = fire_and_reset(h, params)
        return s, {"v": v, "h": h}
