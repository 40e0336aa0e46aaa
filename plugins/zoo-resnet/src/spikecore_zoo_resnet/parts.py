"""What the three families are built from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch

from spikecore import nn

MakeNeuron = Callable[[], torch.nn.Module]


def convolution(
    in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1, dilation: int = 1
) -> torch.nn.Conv2d:
    """A convolution without bias that keeps the size of the image, but for its stride."""
    padding = size // 2 * dilation
    return torch.nn.Conv2d(in_channels, out_channels, size, stride, padding, dilation, groups, bias=False)


def conv_bn_neuron(
    make_neuron: MakeNeuron,
    in_channels: int,
    out_channels: int,
    size: int,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
) -> nn.ConvBNNeuron:
    """Convolution, norm and neuron as one block, which a backend may fuse."""
    conv = convolution(in_channels, out_channels, size, stride, groups, dilation)
    return nn.ConvBNNeuron(conv, torch.nn.BatchNorm2d(out_channels), make_neuron())


def conv_bn(in_channels: int, out_channels: int, size: int, stride: int = 1) -> torch.nn.Sequential:
    """Convolution and norm, where no neuron follows directly; its keys are those of a block: `conv.` and `norm.`."""
    conv = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)
    return torch.nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(out_channels)))


def initialize(net: torch.nn.Module, last_norms: list[torch.nn.Module]) -> None:
    """Weights of convolutions: normal with variance 2 / fan-out (He et al. 2015).

    Args:
        net: whose convolutions are meant.
        last_norms: of the residual branches; their weights become 0, so that every block begins as its shortcut.
    """
    for part in net.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    for norm in last_norms:
        torch.nn.init.zeros_(norm.get_parameter("weight"))
