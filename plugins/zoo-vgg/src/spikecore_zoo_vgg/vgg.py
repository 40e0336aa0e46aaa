"""Spiking VGG: the ANN's net with neurons in the place of its activations, with and without norms.

    features     (convolution 3×3 → norm, if any → neuron)+ → max pooling 2×2, five times; mean over a grid of 7×7
    classifier   linear → neuron → dropout → linear → neuron → dropout → linear

Each convolution with its neuron is a `ConvBNNeuron`; without norms its norm is the identity.

Source: Simonyan and Zisserman 2014, Very Deep Convolutional Networks, https://arxiv.org/abs/1409.1556 (columns A, B, D
and E); Sengupta et al. 2019, Going Deeper in Spiking Neural Networks, https://arxiv.org/abs/1802.02627.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch

from spikecore import nn
from spikecore.interfaces import ModelCapabilities, ModelInfo, Range
from spikecore_zoo_vgg.plain_net import PlainNet, initialize, numbered

REFERENCE = "Sengupta et al. 2019, Going Deeper in Spiking Neural Networks, https://arxiv.org/abs/1802.02627"
STAGE_FACTORS = (1, 2, 4, 8, 8)
"""Channels of a stage, as multiples of those of the first."""
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Size → convolutions of each stage."""


class SpikingVGG(PlainNet):
    """Base of the eight sizes; see the module."""

    capabilities: ClassVar[ModelCapabilities] = ModelCapabilities(min_input_size=32, input_rank=3)
    weight_sources: ClassVar[tuple[str, ...]] = ("torchvision", "spikingjelly")
    depths: ClassVar[tuple[int, ...]]
    has_norms: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            width: channels of the first stage; the later ones have 2, 4, 8 and 8 times as many.
            grid: height and width of what the classifier takes.
            hidden: width of its two inner layers.
            dropout: probability behind each of these.
        """

        width: Annotated[int, Range(ge=1)] = 64
        grid: Annotated[int, Range(ge=1)] = 7
        hidden: Annotated[int, Range(ge=1)] = 4096
        dropout: Annotated[float, Range(ge=0.0, lt=1.0)] = 0.5

    def __init__(
        self, make_neuron: Callable[[], Any], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        layers: list[torch.nn.Module] = []
        channels = input_shape[0]
        for factor, depth in zip(STAGE_FACTORS, self.depths, strict=True):
            out = self.config.width * factor
            for _ in range(depth):
                norm = torch.nn.BatchNorm2d(out) if self.has_norms else torch.nn.Identity()
                layers.append(nn.ConvBNNeuron(torch.nn.Conv2d(channels, out, 3, padding=1), norm, make_neuron()))
                channels = out
            layers.append(nn.MaxPool2d(2))
        hidden, grid = self.config.hidden, self.config.grid
        self.features = torch.nn.Sequential(*layers, nn.AdaptiveAvgPool2d(grid))
        self.classifier = torch.nn.Sequential(
            nn.Linear(channels * grid * grid, hidden),
            make_neuron(),
            nn.Dropout(self.config.dropout),
            nn.Linear(hidden, hidden),
            make_neuron(),
            nn.Dropout(self.config.dropout),
            nn.Linear(hidden, num_outputs),
        )
        initialize(self, self.has_norms)

    def their_names(self, source: str) -> dict[str, str]:
        """torchvision and SpikingJelly count alike; neurons stand where the ANN has its activations."""
        names = {}
        num_layers = 3 if self.has_norms else 2
        for block, number in numbered(self.features, {"ConvBNNeuron": num_layers}):
            names[f"features.{block}.conv"] = f"features.{number}"
            if self.has_norms:
                names[f"features.{block}.norm"] = f"features.{number + 1}"
            if isinstance(self.features.get_submodule(block), nn.ConvBNNeuron):
                names[f"features.{block}.neuron"] = f"features.{number + num_layers - 1}"
        for index in (1, 4):
            names[f"classifier.{index}"] = f"classifier.{index}"
        return names


def _info(parameters: int, macs: int) -> ModelInfo:
    return ModelInfo(parameters, macs, (3, 224, 224), 1000, REFERENCE)


class SpikingVGG11(SpikingVGG):
    """Spiking VGG-11; see `SpikingVGG`."""

    depths = DEPTHS[11]
    info = _info(parameters=132_863_336, macs=7_609_090_048)


class SpikingVGG11BN(SpikingVGG):
    """Spiking VGG-11 with batch norms; see `SpikingVGG`."""

    depths = DEPTHS[11]
    has_norms = True
    info = _info(parameters=132_868_840, macs=7_609_090_048)


class SpikingVGG13(SpikingVGG):
    """Spiking VGG-13; see `SpikingVGG`."""

    depths = DEPTHS[13]
    info = _info(parameters=133_047_848, macs=11_308_466_176)


class SpikingVGG13BN(SpikingVGG):
    """Spiking VGG-13 with batch norms; see `SpikingVGG`."""

    depths = DEPTHS[13]
    has_norms = True
    info = _info(parameters=133_053_736, macs=11_308_466_176)


class SpikingVGG16(SpikingVGG):
    """Spiking VGG-16; see `SpikingVGG`."""

    depths = DEPTHS[16]
    info = _info(parameters=138_357_544, macs=15_470_264_320)


class SpikingVGG16BN(SpikingVGG):
    """Spiking VGG-16 with batch norms; see `SpikingVGG`."""

    depths = DEPTHS[16]
    has_norms = True
    info = _info(parameters=138_365_992, macs=15_470_264_320)


class SpikingVGG19(SpikingVGG):
    """Spiking VGG-19; see `SpikingVGG`."""

    depths = DEPTHS[19]
    info = _info(parameters=143_667_240, macs=19_632_062_464)


class SpikingVGG19BN(SpikingVGG):
    """Spiking VGG-19 with batch norms; see `SpikingVGG`."""

    depths = DEPTHS[19]
    has_norms = True
    info = _info(parameters=143_678_248, macs=19_632_062_464)
