"""`ReLU`: no spiking neuron at all, so that the artificial net of the same shape costs one option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from spikecore.dynamics import where
from spikecore.interfaces.neuron import NeuronCapabilities
from spikecore.nn.neuron import Neuron


class ReLU(Neuron):
    """Rectifier without state: each step is computed independently.

    out = max(x, 0)

    With one time step (`encoder.num_steps = 1`) any model becomes the artificial net of the same shape. NaN stays NaN.

    Returns:
        max(x, 0), of the input's shape `[T, B, ...]` (or `[B, ...]`) and dtype.

    Gradients: to x: 1 where x > 0, else 0, also at 0.

    Parity: torch.nn.ReLU, in every bit; tests/nn/test_relu.py.

    Example:
        >>> import torch
        >>> ReLU()(torch.tensor([1.0, 0.5, -2.0]).reshape(3, 1)).flatten().tolist()
        [1.0, 0.5, 0.0]
    """

    capabilities: ClassVar[NeuronCapabilities] = NeuronCapabilities(spiking=False)
    state = {}  # noqa: RUF012

    @dataclass(frozen=True)
    class Config:
        """No options."""

    @staticmethod
    def step(x: Any, state: Any, params: Any) -> tuple[Any, dict[str, Any]]:
        return where(x <= 0.0, 0.0, x), {}
