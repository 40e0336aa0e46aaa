"""Nets → artefacts for the compiler of Lynxi's chips."""

from spikecore_deploy_lynxi.deployer import Lynxi

__all__ = ["Lynxi"]
