"""The conformance suites on the neuron and on the deployer."""

from spikecore.testing import NeuronSuite
from spikecore.testing.suites.deployer import DeployerSuite


class TestLoihiLIF(NeuronSuite):
    component = "loihi_lif"


class TestLava(DeployerSuite):
    component = "lava"
