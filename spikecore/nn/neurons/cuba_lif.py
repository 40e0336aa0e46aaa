"""`CubaLIF`: LIF behind a synaptic current."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from spikecore.interfaces.component import Range
from spikecore.nn.neuron import Neuron
from spikecore.nn.neurons.equations import fire_and_reset


class CubaLIF(Neuron):
    """Current-based LIF: the input feeds a synaptic current, the current feeds the membrane.

    current = c_decay · current + x
    h       = v_decay · v + current

    The input is not scaled. `current` starts at 0 and is not reset; `v` starts at `v_init`, which is `v_reset` unless
    given, and decays to 0 (not to `v_reset`); fires when h >= v_threshold (`fires="above"`: h > v_threshold), which is
    0.5 by default; reset in the same step.

    Returns:
        Spikes, 0 or 1, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: to x, the initial state and every learnable parameter; through the spike by the surrogate, in the reset
    too unless `detach_reset`.

    Source: Davies et al., Loihi: A neuromorphic manycore processor with on-chip learning (IEEE Micro 2018).

    Parity: spikingjelly's CUBALIFNode (default surrogate: rectangular) and snntorch's Synaptic at v_reset=0;
    tests/peers/test_other_neurons.py.

    Example:
        >>> import torch
        >>> cuba = CubaLIF(record=("v", "current"))
        >>> cuba(torch.tensor([0.25, 0.25, 0.0]).reshape(3, 1)).flatten().tolist()
        [0.0, 1.0, 0.0]
        >>> cuba.recorded["current"].flatten().tolist()
        [0.25, 0.375, 0.1875]
        >>> cuba.recorded["v"].flatten().tolist()
        [0.25, 0.0, 0.1875]
    """

    known_as = ("CUBALIFNode", "synaptic")
    renamed = {"alpha": "c_decay = alpha", "beta": "v_decay = beta"}  # noqa: RUF012
    state = {"current": 0.0, "v": "v_init"}  # noqa: RUF012
    observed = ("h",)

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            c_decay: what is left of the current after one step, 0 to 1.
            v_decay: what is left of the membrane potential after one step, 0 to 1.
        """

        v_threshold: float = 0.5
        c_decay: Annotated[float, Range(ge=0.0, le=1.0)] = 0.5
        v_decay: Annotated[float, Range(ge=0.0, le=1.0)] = 0.75

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        current = params.c_decay * state.current + x
        h = params.v_decay * state.v + current
        s, v = fire_and_reset(h, params)
        return s, {"current": current, "v": v, "h": h}
