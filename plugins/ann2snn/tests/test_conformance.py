"""The conformance suites on every component of this plugin."""

from spikecore.testing.suites.converter import ConverterSuite
from spikecore.testing.suites.neuron import NeuronSuite


class TestAnn2SNN(ConverterSuite):
    component = "ann2snn"
    options = {"measure": 1}


class TestMax(ConverterSuite):
    component = "ann2snn"
    options = {"recipe": "max", "per": "layer", "fold": False, "measure": 0}


class TestPercentile(ConverterSuite):
    component = "ann2snn"
    options = {"recipe": "percentile", "measure": 0}


class TestTemporalDifference(ConverterSuite):
    component = "ann2snn"
    options = {"recipe": "temporal_difference", "measure": 0}


class TestQCFS(NeuronSuite):
    component = "qcfs"


class TestFixedPointLIF(NeuronSuite):
    component = "fixed_point_lif"


class TestQuantize(ConverterSuite):
    component = "quantize"


class TestQuantizeForTraining(ConverterSuite):
    component = "quantize"
    options = {"train": True, "per": "layer", "weight_bits": 6}
