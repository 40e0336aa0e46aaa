"""LIF with integer spikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from spikecore.dynamics import spike
from spikecore.errors import OptionError
from spikecore.interfaces import Inner, NeuronCapabilities, Range
from spikecore.nn import LIF, Neuron, Surrogate, leaky_charge, reset_after
from spikecore_neuron_zoo.surrogates import MultiLevelSpikeCount


class ILIF(Neuron):
    """LIF that fires as often in one step as its potential allows: integer spikes, 0 to D.

    h = v - (v - v_leak) / tau + x
    s = round(h / v_threshold), limited to [0, D]
    v = h - s v_threshold

    `tau` in steps; D is `max_spike_count` of the surrogate; halves are rounded to even. `v` starts at `v_reset`; soft
    reset only, in the same step. An integer spike s is inferred as s unit spikes within one step.

    Returns:
        Spike counts, whole numbers from 0 to D, of the input's shape `[T, B, ...]` and dtype.

    Raises:
        OptionError: the surrogate gives spikes of 0 and 1.

    Gradients: to x, every learnable parameter and the initial state; ds/dh is the surrogate's, over v_threshold.

    Source: Luo et al., Integer-valued training and spike-driven inference spiking neural network for high-performance
    and energy-efficient object detection (ECCV 2024).

    Parity: spikingjelly's ILIFNode (v_reset=0); tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> ILIF()(torch.tensor([[0.4], [1.7], [9.0], [0.3]])).flatten().tolist()
        [0.0, 2.0, 4.0, 2.0]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(spiking=False)
    state = {"v": "v_init"}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config(LIF.Config):
        """
        Args:
            surrogate: the rounding, with its largest count, and its derivative.
            reset: soft only: a count says how often the threshold is subtracted.
        """

        tau: Annotated[float, Range(gt=1.0)] = 4 / 3
        decay_input: bool = False
        fires: Literal["at"] = "at"
        reset: Literal["soft"] = "soft"
        surrogate: Annotated[Surrogate, Inner("surrogate")] = MultiLevelSpikeCount()  # noqa: RUF009  (immutable)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        surrogate = self.config.surrogate
        if surrogate.capabilities.heaviside:
            raise OptionError(
                f"ILIF: {type(surrogate).__name__} gives spikes of 0 and 1, integer spikes need one that rounds: "
                "surrogate = {name = 'multi_level_spike_count', max_spike_count = 4}"
            )

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        h = leaky_charge(state.v, x, params)
        s = spike(h / params.v_threshold, params.surrogate)
        return s, {"v": reset_after(s, h, params)}
