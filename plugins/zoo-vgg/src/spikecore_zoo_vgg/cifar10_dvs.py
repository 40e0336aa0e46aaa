"""The VGG for CIFAR10-DVS of TET, 48² in two polarities.

    features     (convolution 3×3 → norm → neuron) twice → mean pooling 2×2, four times;
                 64-128, 256-256, 512-512, 512-512 channels
    classifier   linear

Source: Deng et al. 2022, Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting,
https://arxiv.org/abs/2202.11946 (VGGSNN).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch

from spikecore import nn
from spikecore.interfaces import ModelCapabilities, ModelInfo, Range
from spikecore_zoo_vgg.plain_net import PlainNet, initialize

REFERENCE = (
    "Deng et al. 2022, Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting, "
    "https://arxiv.org/abs/2202.11946"
)
STAGE_FACTORS = ((1, 2), (4, 4), (8, 8), (8, 8))
"""Channels of each convolution, as multiples of those of the first."""


class CIFAR10DVSVGG(PlainNet):
    """The VGG for CIFAR10-DVS of temporal efficient training, 48² in two polarities; layers as in this module."""

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities(min_input_size=16, input_rank=3)
    info: ClassVar[ModelInfo] = ModelInfo(9_271_498, 1_361_654_784, (2, 48, 48), 10, REFERENCE)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            width: channels of the first convolution; the others have 2, 4 and 8 times as many.
        """

        width: Annotated[int, Range(ge=1)] = 64

    def __init__(
        self, make_neuron: Callable[[], Any], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        layers: list[torch.nn.Module] = []
        channels, height, width = input_shape
        for factors in STAGE_FACTORS:
            for factor in factors:
                out = self.config.width * factor
                conv = torch.nn.Conv2d(channels, out, 3, padding=1)
                layers.append(nn.ConvBNNeuron(conv, torch.nn.BatchNorm2d(out), make_neuron()))
                channels = out
            layers.append(nn.AvgPool2d(2))
            height, width = height // 2, width // 2
        self.features = torch.nn.Sequential(*layers)
        self.classifier = torch.nn.Sequential(nn.Linear(channels * height * width, num_outputs))
        initialize(self)
