"""The convolutional net of deep Q-learning on Atari, with spiking neurons in the place of its rectifiers.

conv 32 8×8 /4 → neuron → conv 64 4×4 /2 → neuron → conv 64 3×3 → neuron → linear 512 → neuron → linear

Source: Mnih et al., Human-level control through deep reinforcement learning (Nature 2015), Methods; spiking:
Chen et al., Deep Reinforcement Learning with Spiking Q-learning (2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from spikecore.errors import ShapeError
from spikecore.interfaces import ModelCapabilities, Range
from spikecore.nn import Model, fold_time

LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, kernel and stride."""
SMALLEST = 36


class AtariConvNet(Model):
    """The convolutional net of deep Q-learning on Atari, with spiking neurons; layers as in this module.

    Raises:
        ShapeError: the input shape is not `[C, H, W]`, or too small.
    """

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities(min_input_size=SMALLEST, input_rank=3)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            hidden: width of the linear layer.
            gain: of the initial weights, over torch's own, with which a neuron of threshold 1 would be silent.
        """

        hidden: Annotated[int, Range(ge=1)] = 512
        gain: Annotated[float, Range(gt=0.0, lt=math.inf)] = 8.0

    def __init__(
        self, make_neuron: Callable[[], nn.Module], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        channels, height, width = input_shape
        if min(height, width) < SMALLEST:
            raise ShapeError(
                f"AtariConvNet takes [C, H, W] with H, W >= {SMALLEST}, got {tuple(input_shape)}: use larger "
                "frames, or the model convnet"
            )
        layers: list[nn.Module] = []
        for out, kernel, stride in LAYERS:
            layers += [fold_time(self._livelier(nn.Conv2d(channels, out, kernel, stride))), make_neuron()]
            channels = out
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        linear = self._livelier(nn.Linear(channels * height * width, self.config.hidden))
        layers += [nn.Flatten(-3), linear, make_neuron()]
        self.layers = nn.Sequential(*layers, nn.Linear(self.config.hidden, num_outputs))

    @torch.no_grad()
    def _livelier(self, layer: nn.Conv2d | nn.Linear) -> nn.Module:
        layer.weight *= self.config.gain
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """`[T, B, C, H, W]` → `[T, B, num_outputs]`; without T in single-step mode."""
        out: Tensor = self.layers(x)
        return out
