"""Spiking ResNet: the ANN's residual net with neurons in the place of its activations.

    out = neuron(residual(x) + shortcut(x))         residual: conv → norm → neuron → conv → norm

The last norm of a block and its neuron have the sum between them, so these two cannot be one `ConvBNNeuron`; the other
convolutions of a block, and the stem, are.

Source: Hu et al. 2018, Spiking Deep Residual Network, https://arxiv.org/abs/1805.01352; sizes of He et al. 2015, Deep
Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from spikecore import nn
from spikecore.interfaces import ModelInfo
from spikecore_zoo_resnet import plans
from spikecore_zoo_resnet.parts import MakeNeuron, conv_bn, conv_bn_neuron
from spikecore_zoo_resnet.residual_net import ResidualNet

REFERENCE = "Hu et al. 2018, Spiking Deep Residual Network, https://arxiv.org/abs/1805.01352"


class SpikingBlock(torch.nn.Module):
    """Convolutions with norms, and neurons between them and after the sum with the shortcut."""

    def __init__(
        self, make_neuron: MakeNeuron, in_channels: int, planes: int, stride: int, dilation: int, plan: plans.Plan
    ) -> None:
        super().__init__()
        inner, out = plan.inner_channels(planes), planes * plan.expansion
        self.conv2: torch.nn.Module
        self.conv3 = None
        if plan.is_bottleneck:
            self.conv1 = conv_bn_neuron(make_neuron, in_channels, inner, 1)
            self.conv2 = conv_bn_neuron(make_neuron, inner, inner, 3, stride, plan.groups, dilation)
            self.conv3 = conv_bn(inner, out, 1)
        else:
            self.conv1 = conv_bn_neuron(make_neuron, in_channels, inner, 3, stride)
            self.conv2 = conv_bn(inner, out, 3)
        self.downsample = None
        if stride != 1 or in_channels != out:
            self.downsample = conv_bn(in_channels, out, 1, stride)
        self.neuron = make_neuron()

    def forward(self, x: Tensor) -> Tensor:
        """Spikes `[T, B, C, H, W]`; without T in single-step mode."""
        branch: Tensor = self.conv2(self.conv1(x))
        if self.conv3 is not None:
            branch = self.conv3(branch)
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.neuron(branch + shortcut)
        return out


class SpikingResNet(ResidualNet):
    """Base of the nine sizes; see the module."""

    weight_sources: ClassVar[tuple[str, ...]] = ("torchvision", "spikingjelly")

    def _build_stem(self, make_neuron: MakeNeuron, in_channels: int, width: int) -> None:
        is_small = self.config.stem == "small"
        self.conv1 = conv_bn_neuron(make_neuron, in_channels, width, *((3, 1) if is_small else (7, 2)))
        self.maxpool = torch.nn.Identity() if is_small else nn.MaxPool2d(3, 2, padding=1)

    def _make_block(
        self, make_neuron: MakeNeuron, in_channels: int, planes: int, stride: int, dilation: int
    ) -> torch.nn.Module:
        return SpikingBlock(make_neuron, in_channels, planes, stride, dilation, self.plan)

    def _stem_and_stages(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.conv1(x))
        out: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return out


def _info(parameters: int, macs: int) -> ModelInfo:
    return ModelInfo(parameters, macs, (3, 224, 224), 1000, REFERENCE)


class SpikingResNet18(SpikingResNet):
    """Spiking ResNet-18; see `SpikingResNet`."""

    plan = plans.RESNET18
    info = _info(parameters=11_689_512, macs=1_814_073_344)


class SpikingResNet34(SpikingResNet):
    """Spiking ResNet-34; see `SpikingResNet`."""

    plan = plans.RESNET34
    info = _info(parameters=21_797_672, macs=3_663_761_408)


class SpikingResNet50(SpikingResNet):
    """Spiking ResNet-50; see `SpikingResNet`."""

    plan = plans.RESNET50
    info = _info(parameters=25_557_032, macs=4_089_184_256)


class SpikingResNet101(SpikingResNet):
    """Spiking ResNet-101; see `SpikingResNet`."""

    plan = plans.RESNET101
    info = _info(parameters=44_549_160, macs=7_801_405_440)


class SpikingResNet152(SpikingResNet):
    """Spiking ResNet-152; see `SpikingResNet`."""

    plan = plans.RESNET152
    info = _info(parameters=60_192_808, macs=11_513_626_624)


class SpikingResNeXt50_32x4d(SpikingResNet):
    """Spiking ResNeXt-50 32×4d; see `SpikingResNet`."""

    plan = plans.RESNEXT50_32X4D
    info = _info(parameters=25_028_904, macs=4_230_479_872)


class SpikingResNeXt101_32x8d(SpikingResNet):
    """Spiking ResNeXt-101 32×8d; see `SpikingResNet`."""

    plan = plans.RESNEXT101_32X8D
    info = _info(parameters=88_791_336, macs=16_414_015_488)


class SpikingWideResNet50_2(SpikingResNet):
    """Spiking Wide ResNet-50-2; see `SpikingResNet`."""

    plan = plans.WIDE_RESNET50_2
    info = _info(parameters=68_883_240, macs=11_398_021_120)


class SpikingWideResNet101_2(SpikingResNet):
    """Spiking Wide ResNet-101-2; see `SpikingResNet`."""

    plan = plans.WIDE_RESNET101_2
    info = _info(parameters=126_886_696, macs=22_753_050_624)
