"""`QCFS`: the quantized rectifier, trained as an ANN's activation and converted without loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from spikecore.dynamics import clamp, detach, floor
from spikecore.interfaces import NeuronCapabilities, Range
from spikecore.nn import Neuron


class QCFS(Neuron):
    """Quantized clip-floor-shift activation without state: each step is computed independently.

    out = θ clip(floor(L x / θ + φ) / L, 0, 1)

    θ is `v_threshold`, which is trained unless `learnable` is empty, L is `levels`, φ is `shift`. An integrate-and-fire
    neuron with soft reset, threshold θ and initial potential φ θ has this mean output after T = L steps of constant
    input. With one time step any model becomes the artificial net of the same shape: `neuron.name = "qcfs"`.

    Returns:
        Values 0, θ/L, ..., θ, of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: straight through the floor: to x, 1 inside the clip, else 0; to θ, 1 above the clip, and inside the
    error of rounding, out/θ - x/θ.

    Source: Bu et al., Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency SNNs (ICLR 2022), eq. 15.

    Example:
        >>> QCFS(levels=4, v_threshold=1.0)(torch.tensor([0.3, -1.0, 0.4, 2.0]).reshape(4, 1)).flatten().tolist()
        [0.25, 0.0, 0.5, 1.0]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(spiking=False)
    state = {}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            levels: L, the number of steps between 0 and θ.
            v_threshold: θ, the largest output.
            shift: φ; 0.5 rounds to the nearest level.
            learnable: names of numeric options to train.
        """

        levels: Annotated[int, Range(ge=1)] = 8
        v_threshold: Annotated[float, Range(gt=0.0)] = 4.0
        shift: Annotated[float, Range(ge=0.0, le=1.0)] = 0.5
        learnable: tuple[str, ...] = ("v_threshold",)

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        # Within one level of the clip, so that an infinite input does not become inf - inf below.
        level = clamp(x / params.v_threshold * params.levels + params.shift, -1.0, params.levels + 2.0)
        # Straight through: the value is that of the floor, the gradient that of the level before rounding.
        rounded = floor(level) + (level - detach(level))
        return clamp(rounded / params.levels, 0.0, 1.0) * params.v_threshold, {}

    def threshold(self) -> Tensor:
        """θ as it is now: `[]`, or `[C]`."""
        trained = getattr(self, "param_v_threshold", None)
        if isinstance(trained, Tensor):
            return trained.detach().clone()
        return torch.as_tensor(self.config.v_threshold, dtype=torch.get_default_dtype())
