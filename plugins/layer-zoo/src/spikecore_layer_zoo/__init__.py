"""Layers and encoders beyond the core's, as a plugin of spikecore."""

from spikecore_layer_zoo.attention import MultiDimensionalAttention, TemporalWiseAttention
from spikecore_layer_zoo.dropconnect import DropConnectLinear
from spikecore_layer_zoo.encoders import GaussianTuning, Periodic, Population, RankOrder, WeightedPhase
from spikecore_layer_zoo.norms import (
    BatchNormThroughTime1d,
    BatchNormThroughTime2d,
    BatchNormThroughTime3d,
    NeuNorm,
    TemporalEffectiveBatchNorm1d,
    TemporalEffectiveBatchNorm2d,
    TemporalEffectiveBatchNorm3d,
    ThresholdDependentBatchNorm1d,
    ThresholdDependentBatchNorm2d,
    ThresholdDependentBatchNorm3d,
)
from spikecore_layer_zoo.rnn import SpikingGRU, SpikingLSTM, SpikingVanillaRNN
from spikecore_layer_zoo.time import Delay, SpikeCountToBinary, SynapseFilter, TemporalSum, Voting

__all__ = [
    "BatchNormThroughTime1d",
    "BatchNormThroughTime2d",
    "BatchNormThroughTime3d",
    "Delay",
    "DropConnectLinear",
    "GaussianTuning",
    "MultiDimensionalAttention",
    "NeuNorm",
    "Periodic",
    "Population",
    "RankOrder",
    "SpikeCountToBinary",
    "SpikingGRU",
    "SpikingLSTM",
    "SpikingVanillaRNN",
    "SynapseFilter",
    "TemporalEffectiveBatchNorm1d",
    "TemporalEffectiveBatchNorm2d",
    "TemporalEffectiveBatchNorm3d",
    "TemporalSum",
    "TemporalWiseAttention",
    "ThresholdDependentBatchNorm1d",
    "ThresholdDependentBatchNorm2d",
    "ThresholdDependentBatchNorm3d",
    "Voting",
    "WeightedPhase",
]
