"""The six nets of PLIF, one for each data set, of few wide convolutions; the classes are voted for by spikes.

    features     (convolution 3×3 → norm → neuron)+ → max pooling 2×2, some times
    classifier   dropout → linear → neuron → dropout → linear → neuron → vote

A class has ten output neurons; its score is the mean of their spikes, from 0 to 1 in each step. Neurons are those that
`make_neuron` gives, ParametricLIF in the paper: `neuron.name=plif`.

Source: Fang et al. 2021, Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking Neural Networks,
https://arxiv.org/abs/2007.05785.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from spikecore import nn
from spikecore.interfaces import ModelCapabilities, ModelInfo, Range
from spikecore_zoo_vgg.plain_net import PlainNet, initialize, numbered

REFERENCE = (
    "Fang et al. 2021, Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking Neural Networks, "
    "https://arxiv.org/abs/2007.05785"
)


class Vote(torch.nn.Module):
    """The mean over each class's neurons, which stand side by side.

    Args:
        votes: neurons of a class.
    """

    def __init__(self, votes: int) -> None:
        super().__init__()
        self.votes = votes

    def forward(self, spikes: Tensor) -> Tensor:
        """`[..., votes · classes]` → `[..., classes]`."""
        return torch.unflatten(spikes, -1, (-1, self.votes)).mean(-1)

    def extra_repr(self) -> str:
        """Shown by `print`."""
        return f"votes={self.votes}"


class PLIFNet(PlainNet):
    """Base of the six nets; see the module."""

    weight_sources: ClassVar[tuple[str, ...]] = ("spikingjelly",)
    depths: ClassVar[tuple[int, ...]]
    """Convolutions before each pooling."""

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            channels: of every convolution.
            hidden: width of the inner linear layer.
            votes: output neurons of a class.
            dropout: probability before each linear layer.
        """

        channels: Annotated[int, Range(ge=1)] = 128
        hidden: Annotated[int, Range(ge=1)] = 2048
        votes: Annotated[int, Range(ge=1)] = 10
        dropout: Annotated[float, Range(ge=0.0, lt=1.0)] = 0.5

    def __init__(
        self, make_neuron: Callable[[], Any], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        channels, height, width = input_shape
        config = self.config
        layers: list[torch.nn.Module] = []
        for depth in self.depths:
            for _ in range(depth):
                conv = torch.nn.Conv2d(channels, config.channels, 3, padding=1, bias=False)
                layers.append(nn.ConvBNNeuron(conv, torch.nn.BatchNorm2d(config.channels), make_neuron()))
                channels = config.channels
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        self.features = torch.nn.Sequential(*layers)
        self.classifier = torch.nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(channels * height * width, config.hidden),
            make_neuron(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, num_outputs * config.votes),
            make_neuron(),
            Vote(config.votes),
        )
        initialize(self)

    def their_names(self, source: str) -> dict[str, str]:
        """SpikingJelly has one chain, `conv_fc`, with a flattening between the two parts."""
        names, number = {}, 0
        for block, number in numbered(self.features, {"ConvBNNeuron": 3}):
            if isinstance(self.features.get_submodule(block), nn.ConvBNNeuron):
                names[f"features.{block}.conv"] = f"conv_fc.{number}"
                names[f"features.{block}.norm"] = f"conv_fc.{number + 1}"
                names[f"features.{block}.neuron"] = f"conv_fc.{number + 2}"
        first = number + 2  # the last pooling, then the flattening
        for index in (1, 2, 4, 5):
            names[f"classifier.{index}"] = f"conv_fc.{first + index}"
        return names


def _capabilities(num_poolings: int) -> ModelCapabilities:
    # Its outputs are means of spikes, so they are no values of any size.
    return ModelCapabilities(min_input_size=2**num_poolings, input_rank=3, targets=("class",))


def _info(parameters: int, macs: int, input_shape: tuple[int, ...], num_outputs: int = 10) -> ModelInfo:
    return ModelInfo(parameters, macs, input_shape, num_outputs, REFERENCE)


class PLIFMNIST(PLIFNet):
    """For MNIST, 28²: two convolutions; see `PLIFNet`."""

    capabilities = _capabilities(2)
    depths = (1, 1)
    info = _info(13_201_124, 42_854_400, (1, 28, 28))


class PLIFFashionMNIST(PLIFNet):
    """For Fashion-MNIST, 28²: two convolutions; see `PLIFNet`."""

    capabilities = _capabilities(2)
    depths = (1, 1)
    info = _info(13_201_124, 42_854_400, (1, 28, 28))


class PLIFNMNIST(PLIFNet):
    """For N-MNIST, 34² in two polarities: two convolutions; see `PLIFNet`."""

    capabilities = _capabilities(2)
    depths = (1, 1)
    info = _info(17_134_436, 62_260_224, (2, 34, 34))


class PLIFCIFAR10(PLIFNet):
    """For CIFAR-10, 32²: six convolutions; see `PLIFNet`."""

    capabilities = _capabilities(2)
    depths = (3, 3)
    info = _info(36_720_484, 1_701_781_504, (3, 32, 32))

    @dataclass(frozen=True)
    class Config(PLIFNet.Config):
        """As for the others, wider."""

        channels: Annotated[int, Range(ge=1)] = 256


class PLIFCIFAR10DVS(PLIFNet):
    """For CIFAR10-DVS, 128² in two polarities: four convolutions; see `PLIFNet`."""

    capabilities = _capabilities(4)
    depths = (1, 1, 1, 1)
    info = _info(4_691_812, 834_717_696, (2, 128, 128))

    @dataclass(frozen=True)
    class Config(PLIFNet.Config):
        """As for the others, with fewer inner neurons."""

        hidden: Annotated[int, Range(ge=1)] = 512


class PLIFDVSGesture(PLIFNet):
    """For DVS Gesture, 128² in two polarities: five convolutions; see `PLIFNet`."""

    capabilities = _capabilities(5)
    depths = (1, 1, 1, 1, 1)
    info = _info(1_698_926, 841_014_272, (2, 128, 128), 11)

    @dataclass(frozen=True)
    class Config(PLIFNet.Config):
        """As for the others, with fewer inner neurons."""

        hidden: Annotated[int, Range(ge=1)] = 512
