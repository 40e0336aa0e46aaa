"""`NonSpikingIF`: integrator, whose output is its membrane potential."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.nn.neuron import Neuron


class NonSpikingIF(Neuron):
    """Integrator: the running sum of its input.

    v = v + x

    `v` starts at 0.

    Returns:
        v after each step, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: to x and the initial state; nothing here is discontinuous.

    Parity: spikingjelly's NonSpikingIFNode without decode; tests/peers/test_other_neurons.py.

    Example:
        >>> import torch
        >>> NonSpikingIF()(torch.tensor([1.0, 0.5, -2.0]).reshape(3, 1)).flatten().tolist()
        [1.0, 1.5, -0.5]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(spiking=False)
    state = {"v": 0.0}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config:
        """No options."""

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        v = state.v + x
        return v, {"v": v}
