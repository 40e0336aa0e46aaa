"""Quantization: straight-through functions, quantizers, training with quantized weights, integer records.

from spikecore_ann2snn.quantize import straight_through, LearnedStep, prepare_training, finish_training
"""

from spikecore_ann2snn.quantize import straight_through
from spikecore_ann2snn.quantize.fixed_point import FixedPointLIF
from spikecore_ann2snn.quantize.integers import integer_scale, to_integers
from spikecore_ann2snn.quantize.quantizers import FixedPoint, LearnedStep, MinMax
from spikecore_ann2snn.quantize.training import finish_training, prepare_training

__all__ = [
    "FixedPoint",
    "FixedPointLIF",
    "LearnedStep",
    "MinMax",
    "finish_training",
    "integer_scale",
    "prepare_training",
    "straight_through",
    "to_integers",
]
