"""LIF that fires once for every whole threshold in its potential, and whose potential has a lower bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from spikecore.dynamics import detach, floor, max, spike, where
from spikecore.interfaces import Inner, NeuronCapabilities, Range
from spikecore.nn import Neuron, PiecewiseExp, Surrogate


class FloorLIF(Neuron):
    """LIF with several spikes per step: as many as the times the threshold fits into its potential.

    h = decay v + x        scale_input=True: h = decay v + (1 - decay) x
    s = floor(h / v_threshold) where h >= v_threshold, else 0
    v = max(h - s v_threshold, v_min)

    This is how Sinabs trains nets for Speck and DynapCNN, whose neurons are `decay=1` (no leak) with `v_min=-1`. `v`
    starts at 0; soft reset only, in the same step. `ilif` rounds in place of the floor.

    Returns:
        Spike counts, whole numbers from 0 on, of the input's shape `[T, B, ...]` and dtype.

    Gradients: to x, every learnable parameter and the initial state. ds/dh is the surrogate's at h - v_threshold, also
    where several spikes leave; below v_min no gradient passes through v. With a smooth surrogate (spiking=False) s is
    the surrogate's primitive: one spike at most.

    Source: Sheik and others, Sinabs (2019-), LIF with MultiSpike, MembraneSubtract and min_v_mem.

    Parity: Sinabs's IAF and LIF (decay = exp(-1 / tau_mem), scale_input = norm_input); tests/peers/test_zoo.py.

    Example:
        >>> import torch
        >>> neuron = FloorLIF(v_min=-1.0, record=("v",))
        >>> neuron(torch.tensor([[2.5], [0.5], [-4.0], [1.5]])).flatten().tolist()
        [2.0, 1.0, 0.0, 0.0]
        >>> neuron.recorded["v"].flatten().tolist()
        [0.5, 0.0, -1.0, 0.5]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(spiking=False)
    state = {"v": 0.0}  # noqa: RUF012
    observed = ("h",)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            decay: what is left of `v` after one step, 0 to 1; 1 for integrate and fire.
            scale_input: the input is multiplied by 1 - decay.
            v_threshold: what one spike takes from the potential.
            v_min: lower bound of `v` after the reset; None for none.
            surrogate: the derivative of the count.
            learnable: names of numeric options to train.
        """

        decay: Annotated[float, Range(ge=0.0, le=1.0)] = 1.0
        scale_input: bool = False
        v_threshold: Annotated[float, Range(gt=0.0)] = 1.0
        v_min: float | None = None
        surrogate: Annotated[Surrogate, Inner("surrogate")] = PiecewiseExp(alpha=2.0)  # noqa: RUF009  (immutable)
        learnable: tuple[str, ...] = ()

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        current = (1 - params.decay) * x if params.scale_input else x
        h = params.decay * state.v + current
        first = spike(h - params.v_threshold, params.surrogate)
        s = first
        if params.surrogate.config.spiking:
            # The first spike carries the gradient; the others are counted beside it.
            others = where(h >= params.v_threshold, floor(h / params.v_threshold) - first, 0.0)
            s = first + detach(others)
        v = h - s * params.v_threshold
        if params.v_min is not None:
            v = max(v, params.v_min)
        return s, {"v": v, "h": h}
