"""Nets ↔ files of the Neuromorphic Intermediate Representation (NIR)."""

from spikecore_deploy_nir.deployer import NIR
from spikecore_deploy_nir.modules import Delay, NirNet, PerNeuron, Scale
from spikecore_deploy_nir.profiles import PROFILES, Profile

__all__ = ["NIR", "PROFILES", "Delay", "NirNet", "PerNeuron", "Profile", "Scale"]
