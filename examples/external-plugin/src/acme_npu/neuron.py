"""The cell of the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from spikecore.dynamics import clamp
from spikecore.interfaces import Range
from spikecore.nn import Neuron
from spikecore.nn.neurons import fire_and_reset


class AcmeCell(Neuron):
    """A leaky neuron whose potential saturates: h = clamp(keep v + x, -limit, limit); fires at v_threshold."""

    state: ClassVar[dict[str, Any]] = {"v": "v_init"}

    @dataclass(frozen=True)
    class Config(Neuron.Config):
        """
        Args:
            keep: share of the potential that is left after a step.
            limit: where the potential saturates; above v_threshold, or the cell never fires.
        """

        keep: Annotated[float, Range(ge=0.0, le=1.0)] = 0.75
        limit: Annotated[float, Range(gt=0.0)] = 4.0

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> Any:
        """One step."""
        h = clamp(params.keep * state.v + x, -params.limit, params.limit)
        s, v = fire_and_reset(h, params)
        return s, {"v": v}
