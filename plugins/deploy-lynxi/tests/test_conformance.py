"""The conformance suite on the deployer."""

from spikecore.testing.suites.deployer import DeployerSuite


class TestLynxi(DeployerSuite):
    component = "lynxi"
