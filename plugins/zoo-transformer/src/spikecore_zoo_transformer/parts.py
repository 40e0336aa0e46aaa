"""What the three families are built from: convolutions over images, and over tokens `[T, B, D, N]`.

Tokens are the places of an image, one after the other, so that a linear layer over them is a convolution of size 1,
whose norm and neuron it makes one block with.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import torch

from spikecore import nn

MakeNeuron = Callable[[], torch.nn.Module]


def image_block(make_neuron: MakeNeuron, in_channels: int, out_channels: int, size: int = 3) -> nn.ConvBNNeuron:
    """Convolution of an image that keeps its size, norm, neuron."""
    conv = torch.nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=False)
    return nn.ConvBNNeuron(conv, torch.nn.BatchNorm2d(out_channels), make_neuron())


def image_conv_bn(in_channels: int, out_channels: int, size: int = 3, stride: int = 1) -> torch.nn.Sequential:
    """Convolution of an image and norm, where no neuron follows directly; keys `conv.` and `norm.`."""
    conv = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)
    return torch.nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(out_channels)))


def token_block(make_neuron: MakeNeuron, in_channels: int, out_channels: int) -> nn.ConvBNNeuron:
    """Linear layer over tokens, norm, neuron."""
    conv = torch.nn.Conv1d(in_channels, out_channels, 1, bias=False)
    return nn.ConvBNNeuron(conv, torch.nn.BatchNorm1d(out_channels), make_neuron())


def token_conv_bn(in_channels: int, out_channels: int) -> torch.nn.Sequential:
    """Linear layer over tokens and norm, where no neuron follows directly; keys `conv.` and `norm.`."""
    conv = nn.Conv1d(in_channels, out_channels, 1, bias=False)
    return torch.nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm1d(out_channels)))


def num_patches(input_shape: tuple[int, ...], patch_size: int) -> int:
    """How many patches an image `[C, H, W]` has when every halving rounds up."""
    height, width = input_shape[1:]
    return math.ceil(height / patch_size) * math.ceil(width / patch_size)


def halving() -> nn.MaxPool2d:
    """Max pooling 3×3 of stride 2; a size n becomes n / 2, rounded up."""
    return nn.MaxPool2d(3, 2, padding=1)


def initialize(net: torch.nn.Module) -> None:
    """Convolutions: normal with variance 2 / fan-out (He et al. 2015); linear layers: normal, 0.02, biases 0."""
    for part in net.modules():
        if isinstance(part, torch.nn.Conv1d | torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, torch.nn.Linear):
            torch.nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                torch.nn.init.zeros_(part.bias)
