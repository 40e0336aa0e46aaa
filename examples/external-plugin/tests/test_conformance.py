"""What every neuron, backend and deployer must do, checked by spikecore's own suites."""

from spikecore.testing import BackendSuite, DeployerSuite, NeuronSuite


class TestAcmeCell(NeuronSuite):
    component = "acme_cell"


class TestAcmeEmulator(BackendSuite):
    component = "acme"


class TestAcmeDeployer(DeployerSuite):
    component = "acme"
