"""The fictional accelerator acme-npu."""

from acme_npu.backend import AcmeEmulator
from acme_npu.deployer import AcmeDeployer
from acme_npu.neuron import AcmeCell

__all__ = ["AcmeCell", "AcmeDeployer", "AcmeEmulator"]
