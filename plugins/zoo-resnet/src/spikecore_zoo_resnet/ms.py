"""MS-ResNet: the shortcut carries the input of the neurons, so that the sum is one of membrane currents.

    out = residual(x) + shortcut(x)                 residual: (neuron → conv → norm) twice

Neurons come before the convolutions, so no layer is a `ConvBNNeuron`. The stem is convolution and norm; a neuron
follows the last block. With the `imagenet` stem the first block has stride 2 and a convolution in its shortcut, where
other residual nets have a max pooling: a maximum of currents is no operation on spikes. This is our
reading of the paper; its numbers of parameters are the same either way, to the digits that it gives.

Source: Hu et al. 2021, Advancing Spiking Neural Networks towards Deep Residual Learning,
https://arxiv.org/abs/2112.08954.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikecore.interfaces import ModelInfo
from spikecore_zoo_resnet import plans
from spikecore_zoo_resnet.parts import MakeNeuron, conv_bn
from spikecore_zoo_resnet.residual_net import ResidualNet

REFERENCE = (
    "Hu et al. 2021, Advancing Spiking Neural Networks towards Deep Residual Learning, https://arxiv.org/abs/2112.08954"
)


class MSBlock(torch.nn.Module):
    """Neuron, convolution and norm, twice; the shortcut as it is, or 1×1 convolution and norm."""

    def __init__(self, make_neuron: MakeNeuron, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.neuron1 = make_neuron()
        self.conv1 = conv_bn(in_channels, planes, 3, stride)
        self.neuron2 = make_neuron()
        self.conv2 = conv_bn(planes, planes, 3)
        self.downsample = None
        if stride != 1 or in_channels != planes:
            self.downsample = conv_bn(in_channels, planes, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Currents `[T, B, C, H, W]`; without T in single-step mode."""
        branch: Tensor = self.conv1(self.neuron1(x))
        branch = self.conv2(self.neuron2(branch))
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        return branch + shortcut


class MSResNet(ResidualNet):
    """Base of the three sizes; see the module."""

    def _build_stem(self, make_neuron: MakeNeuron, in_channels: int, width: int) -> None:
        self.conv1 = conv_bn(in_channels, width, *((3, 1) if self.config.stem == "small" else (7, 2)))

    def _make_block(
        self, make_neuron: MakeNeuron, in_channels: int, planes: int, stride: int, dilation: int
    ) -> torch.nn.Module:
        # No size has blocks of three convolutions, the only ones that dilate: `option_problems`.
        return MSBlock(make_neuron, in_channels, planes, stride)

    def _stride(self, stage: int) -> int:
        return 1 if stage == 1 and self.config.stem == "small" else 2

    def _build_end(self, make_neuron: MakeNeuron) -> None:
        self.neuron = make_neuron()

    def _stem_and_stages(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        out: Tensor = self.neuron(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        return out


def _info(parameters: int, macs: int) -> ModelInfo:
    return ModelInfo(parameters, macs, (3, 224, 224), 1000, REFERENCE)


class MSResNet18(MSResNet):
    """MS-ResNet-18; see `MSResNet`."""

    plan = plans.RESNET18
    info = _info(parameters=11_693_736, macs=1_826_918_400)


class MSResNet34(MSResNet):
    """MS-ResNet-34; see `MSResNet`."""

    plan = plans.RESNET34
    info = _info(parameters=21_801_896, macs=3_676_606_464)


class MSResNet104(MSResNet):
    """MS-ResNet-104; see `MSResNet`."""

    plan = plans.RESNET104
    info = _info(parameters=77_284_264, macs=11_768_991_744)
