"""The conformance suite on the deployer."""

from spikecore.testing.suites.deployer import DeployerSuite


class TestNIR(DeployerSuite):
    component = "nir"
