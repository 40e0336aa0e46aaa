"""Plain convolutional spiking nets: spiking VGG and its variants, and the nets of PLIF."""

from spikecore_zoo_vgg.cifar10_dvs import CIFAR10DVSVGG
from spikecore_zoo_vgg.ottt import OTTTSpikingVGG, OTTTSpikingVGGWS
from spikecore_zoo_vgg.plif import PLIFNet
from spikecore_zoo_vgg.vgg import SpikingVGG

__all__ = ["CIFAR10DVSVGG", "OTTTSpikingVGG", "OTTTSpikingVGGWS", "PLIFNet", "SpikingVGG"]
