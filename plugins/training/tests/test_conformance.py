"""The conformance suites on every component of this plugin."""

from spikecore.testing.suites.trainer import TrainerSuite


class TestSupervised(TrainerSuite):
    component = "supervised"


class TestRegression(TrainerSuite):
    component = "regression"


class TestSequence(TrainerSuite):
    component = "sequence"
