"""SEW-ResNet: the shortcut joins the block's spikes element by element.

    out = connect(residual(x), shortcut(x))         residual: (conv → norm → neuron) twice, or three times
    add: A + S        and: A · S        iand: (1 - A) · S           A: the residual branch, S: the shortcut

Every neuron follows its norm directly, so every layer is a `ConvBNNeuron`. With `add` the values between blocks are
counts, not 0 or 1.

Source: Fang et al. 2021, Deep Residual Learning in Spiking Neural Networks, https://arxiv.org/abs/2102.04159.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore import nn
from spikecore.errors import OptionError
from spikecore.interfaces import ModelInfo
from spikecore_zoo_resnet import plans
from spikecore_zoo_resnet.parts import MakeNeuron, conv_bn_neuron
from spikecore_zoo_resnet.residual_net import ResidualNet

REFERENCE = "Fang et al. 2021, Deep Residual Learning in Spiking Neural Networks, https://arxiv.org/abs/2102.04159"


def join(branch: Tensor, shortcut: Tensor, connect: str) -> Tensor:
    """The two paths of a block as one.

    Args:
        branch: spikes of the residual branch, A.
        shortcut: S, of the same shape.
        connect: `add`, `and` or `iand`.
    """
    if connect == "add":
        return branch + shortcut
    if connect == "and":
        return branch * shortcut
    return (1.0 - branch) * shortcut


class SEWBlock(torch.nn.Module):
    """Convolutions, each with norm and neuron; the shortcut as it is, or 1×1 convolution, norm and neuron."""

    def __init__(
        self,
        make_neuron: MakeNeuron,
        in_channels: int,
        planes: int,
        stride: int,
        dilation: int,
        plan: plans.Plan,
        connect: str,
    ) -> None:
        super().__init__()
        inner, out = plan.inner_channels(planes), planes * plan.expansion
        self.connect = connect
        self.conv3 = None
        if plan.is_bottleneck:
            self.conv1 = conv_bn_neuron(make_neuron, in_channels, inner, 1)
            self.conv2 = conv_bn_neuron(make_neuron, inner, inner, 3, stride, plan.groups, dilation)
            self.conv3 = conv_bn_neuron(make_neuron, inner, out, 1)
        else:
            self.conv1 = conv_bn_neuron(make_neuron, in_channels, inner, 3, stride)
            self.conv2 = conv_bn_neuron(make_neuron, inner, out, 3)
        self.downsample = None
        if stride != 1 or in_channels != out:
            self.downsample = conv_bn_neuron(make_neuron, in_channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes or counts `[T, B, C, H, W]`; without T in single-step mode."""
        branch: Tensor = self.conv2(self.conv1(x))
        if self.conv3 is not None:
            branch = self.conv3(branch)
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        return join(branch, shortcut, self.connect)


class SEWResNet(ResidualNet):
    """Base of the nine sizes; see the module."""

    weight_sources: ClassVar[tuple[str, ...]] = ("torchvision", "spikingjelly")

    @dataclass(frozen=True)
    class Config(ResidualNet.Config):
        """
        Args:
            connect: how a block's shortcut joins its spikes: `add`, `and`, `iand`.
        """

        connect: Literal["add", "and", "iand"] = "add"

    def __init__(
        self, make_neuron: Callable[[], Any], input_shape: tuple[int, ...], num_outputs: int, **options: Any
    ) -> None:
        super().__init__(make_neuron, input_shape, num_outputs, **options)
        if self.config.connect != "add":
            _require_spikes(self, self.config.connect)

    def _build_stem(self, make_neuron: MakeNeuron, in_channels: int, width: int) -> None:
        is_small = self.config.stem == "small"
        self.conv1 = conv_bn_neuron(make_neuron, in_channels, width, *((3, 1) if is_small else (7, 2)))
        self.maxpool = torch.nn.Identity() if is_small else nn.MaxPool2d(3, 2, padding=1)

    def _make_block(
        self, make_neuron: MakeNeuron, in_channels: int, planes: int, stride: int, dilation: int
    ) -> torch.nn.Module:
        return SEWBlock(make_neuron, in_channels, planes, stride, dilation, self.plan, self.config.connect)

    def _stem_and_stages(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.conv1(x))
        out: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return out


def _require_spikes(net: torch.nn.Module, connect: str) -> None:
    """Refuse neurons whose outputs are counts or graded: of these, `(1 - A) · S` is negative, and `A · S` no "and".

    Raises:
        OptionError: names the neuron.
    """
    for neuron in net.modules():
        if isinstance(neuron, nn.Neuron) and not neuron.capabilities.spiking:
            raise OptionError(
                f"connect = {connect!r} takes spikes, 0 or 1, and the outputs of {type(neuron).__name__} are counts or "
                "graded: take connect = 'add', or a neuron that gives spikes"
            )


def _info(parameters: int, macs: int) -> ModelInfo:
    return ModelInfo(parameters, macs, (3, 224, 224), 1000, REFERENCE)


class SEWResNet18(SEWResNet):
    """SEW-ResNet-18; see `SEWResNet`."""

    plan = plans.RESNET18
    info = _info(parameters=11_689_512, macs=1_814_073_344)


class SEWResNet34(SEWResNet):
    """SEW-ResNet-34; see `SEWResNet`."""

    plan = plans.RESNET34
    info = _info(parameters=21_797_672, macs=3_663_761_408)


class SEWResNet50(SEWResNet):
    """SEW-ResNet-50; see `SEWResNet`."""

    plan = plans.RESNET50
    info = _info(parameters=25_557_032, macs=4_089_184_256)


class SEWResNet101(SEWResNet):
    """SEW-ResNet-101; see `SEWResNet`."""

    plan = plans.RESNET101
    info = _info(parameters=44_549_160, macs=7_801_405_440)


class SEWResNet152(SEWResNet):
    """SEW-ResNet-152; see `SEWResNet`."""

    plan = plans.RESNET152
    info = _info(parameters=60_192_808, macs=11_513_626_624)


class SEWResNeXt50_32x4d(SEWResNet):
    """SEW-ResNeXt-50 32×4d; see `SEWResNet`."""

    plan = plans.RESNEXT50_32X4D
    info = _info(parameters=25_028_904, macs=4_230_479_872)


class SEWResNeXt101_32x8d(SEWResNet):
    """SEW-ResNeXt-101 32×8d; see `SEWResNet`."""

    plan = plans.RESNEXT101_32X8D
    info = _info(parameters=88_791_336, macs=16_414_015_488)


class SEWWideResNet50_2(SEWResNet):
    """SEW-Wide ResNet-50-2; see `SEWResNet`."""

    plan = plans.WIDE_RESNET50_2
    info = _info(parameters=68_883_240, macs=11_398_021_120)


class SEWWideResNet101_2(SEWResNet):
    """SEW-Wide ResNet-101-2; see `SEWResNet`."""

    plan = plans.WIDE_RESNET101_2
    info = _info(parameters=126_886_696, macs=22_753_050_624)
