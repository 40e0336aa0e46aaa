"""The conformance suites on every component of this plugin."""

from spikecore.testing import EncoderSuite, NeuronSuite


class TestPeriodic(EncoderSuite):
    component = "periodic"


class TestWeightedPhase(EncoderSuite):
    component = "weighted_phase"
    options = {"saturate": True}


class TestPopulation(EncoderSuite):
    component = "population"


class TestPopulationDeterministic(EncoderSuite):
    component = "population"
    options = {"mode": "deterministic"}


class TestPopulationRandom(EncoderSuite):
    component = "population"
    options = {"mode": "random"}


class TestGaussianTuning(EncoderSuite):
    component = "gaussian_tuning"


class TestRankOrder(EncoderSuite):
    component = "rank_order"


class TestSynapseFilter(NeuronSuite):
    component = "synapse_filter"
