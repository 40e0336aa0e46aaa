"""Residual spiking nets: spiking ResNet, SEW-ResNet and MS-ResNet."""

from spikecore_zoo_resnet.ms import MSResNet
from spikecore_zoo_resnet.sew import SEWResNet
from spikecore_zoo_resnet.spiking import SpikingResNet

__all__ = ["MSResNet", "SEWResNet", "SpikingResNet"]
