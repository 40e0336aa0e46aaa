"""Nets → ONNX models."""

from spikecore_deploy_onnx.deployer import ONNX

__all__ = ["ONNX"]
