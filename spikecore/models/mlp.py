"""A spiking multilayer perceptron: flatten → (linear → neuron)* → linear."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from spikecore.interfaces.component import Range
from spikecore.interfaces.model import ModelCapabilities
from spikecore.nn import Model


class MLP(Model):
    """Fully connected; the output is a current per output and step, `[T, B, num_outputs]`."""

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities()

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            hidden: width of each hidden layer.
        """

        hidden: Annotated[tuple[int, ...], Range(ge=1)] = (256,)

    def __init__(
        self, make_neuron: Callable[[], nn.Module], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        self.input_rank = len(input_shape)
        layers: list[nn.Module] = []
        width = math.prod(input_shape)
        for hidden in self.config.hidden:
            layers += [nn.Linear(width, hidden), make_neuron()]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, *input_shape]` → `[T, B, num_outputs]`; without T in single-step mode."""
        out: Tensor = self.layers(x.flatten(x.dim() - self.input_rank))
        return out
