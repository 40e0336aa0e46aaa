"""Nets → Loihi, through Lava: process networks, lava-dl files, and the neuron that computes what they compute."""

from spikecore_deploy_lava.deployer import Lava
from spikecore_deploy_lava.loihi_lif import LoihiLIF

__all__ = ["Lava", "LoihiLIF"]
