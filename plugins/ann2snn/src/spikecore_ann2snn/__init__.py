"""Trained networks into spiking ones, and quantization."""

from spikecore_ann2snn.converter import Ann2SNN
from spikecore_ann2snn.neurons import FewSpikeReLU, SpikingLeakyReLU, SpikingReLU
from spikecore_ann2snn.qcfs import QCFS
from spikecore_ann2snn.quantized_relus import with_quantized_relus
from spikecore_ann2snn.temporal import TemporalDifference

__all__ = [
    "QCFS",
    "Ann2SNN",
    "FewSpikeReLU",
    "SpikingLeakyReLU",
    "SpikingReLU",
    "TemporalDifference",
    "with_quantized_relus",
]
