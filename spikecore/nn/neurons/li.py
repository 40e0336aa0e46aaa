"""`LI`: leaky integrator, whose output is its membrane potential.

No threshold, no reset. What to make of the potentials (the last, the mean, the largest) is the business of a readout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from spikecore.interfaces.component import Range
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.nn.neuron import Neuron


class LI(Neuron):
    """Leaky integrator, Euler: LIF without threshold.

    v = v + (x - v) / tau        decay_input=False:  v = v - v / tau + x

    `tau` in steps. `v` starts at 0 and leaks to 0.

    Returns:
        v after each step, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: to x, the initial state and every learnable parameter; nothing here is discontinuous.

    Source: Gerstner et al., Neuronal Dynamics (2014), 1.3.

    Parity: spikingjelly's NonSpikingLIFNode without decode, norse's LIBox; tests/peers/test_other_neurons.py.

    Example:
        >>> import torch
        >>> LI(tau=2.0)(torch.tensor([1.0, 1.0, 0.0]).reshape(3, 1)).flatten().tolist()
        [0.5, 0.75, 0.375]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(spiking=False)
    state = {"v": 0.0}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            tau: membrane time constant, in steps.
            decay_input: the input is leaked as well.
            learnable: names of numeric options to train.
        """

        tau: Annotated[float, Range(gt=1.0, lt=math.inf)] = 2.0
        decay_input: bool = True
        learnable: tuple[str, ...] = ()

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        if params.decay_input:
            v = state.v + (x - state.v) / params.tau
        else:
            v = state.v - state.v / params.tau + x
        return v, {"v": v}
