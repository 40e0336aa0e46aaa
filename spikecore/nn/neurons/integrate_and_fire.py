"""`IF`: integrate and fire, without a leak."""

from __future__ import annotations

from typing import Any

from spikecore.nn.neuron import Neuron
from spikecore.nn.neurons.equations import fire_and_reset


class IF(Neuron):
    """Integrate and fire.

    h = v + x

    No leak; the input is not scaled. `v` starts at `v_init`, which is `v_reset` unless given, in both reset modes;
    fires when h >= v_threshold (`fires="above"`: h > v_threshold); reset in the same step.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: to x, the initial state and every learnable parameter; through the spike by the surrogate, in the reset
    too unless `detach_reset`.

    Source: Gerstner et al., Neuronal Dynamics (2014), 1.3, without the leak.

    Parity: spikingjelly's IFNode; tests/peers/test_neurons.py.

    Example:
        >>> import torch
        >>> IF(reset="soft")(torch.full((4, 1), 0.5)).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    known_as = ("IFNode", "IAF")
    state = {"v": "v_init"}  # noqa: RUF012
    observed = ("h",)

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        h = state.v + x
        s, v = fire_and_reset(h, params)
        return s, {"v": v, "h": h}
