"""A small spiking convolutional net: (conv 3×3 → batch norm → neuron → average pool 2×2)* → linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from spikecore.errors import ShapeError
from spikecore.interfaces.component import Range
from spikecore.interfaces.model import ModelCapabilities
from spikecore.nn import Model, fold_time


class ConvNet(Model):
    """For images `[C, H, W]`; each block halves H and W.

    Raises:
        ShapeError: the input shape is not `[C, H, W]`, or too small for the number of blocks.
    """

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities(min_input_size=4, input_rank=3)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            channels: channels of each block.
            norm_momentum: of the batch norms: the share of the latest batch in the running statistics, which an
                evaluation uses. They start at variance 1, and what comes here has one of about 0.02: with torch's 0.1
                an epoch of 20 batches leaves 0.9 ** 20 = 12 % of the start in them, which silences a layer in its
                first evaluation; with 0.2 it is 1 %.
        """

        channels: Annotated[tuple[int, ...], Range(ge=1)] = (16, 32)
        norm_momentum: Annotated[float, Range(gt=0.0, le=1.0)] = 0.2

    def __init__(
        self, make_neuron: Callable[[], nn.Module], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        smallest = 2 ** len(self.config.channels)
        if min(input_shape[1:]) < smallest:
            raise ShapeError(f"ConvNet takes [C, H, W] with H, W >= {smallest}, got {tuple(input_shape)}")
        layers: list[nn.Module] = []
        channels, height, width = input_shape
        for out in self.config.channels:
            norm = nn.BatchNorm2d(out, momentum=self.config.norm_momentum)
            convolution = nn.Sequential(nn.Conv2d(channels, out, 3, padding=1, bias=False), norm)
            layers += [fold_time(convolution), make_neuron(), fold_time(nn.AvgPool2d(2))]
            channels, height, width = out, height // 2, width // 2
        self.layers = nn.Sequential(*layers, nn.Flatten(-3), nn.Linear(channels * height * width, num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → `[T, B, num_outputs]`; without T in single-step mode."""
        out: Tensor = self.layers(x)
        return out
