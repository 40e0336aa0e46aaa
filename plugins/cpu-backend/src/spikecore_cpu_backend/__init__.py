"""Neurons of spikecore as fused C kernels on the CPU."""

from spikecore_cpu_backend.backend import CPUBackend, free_memory

__all__ = ["CPUBackend", "free_memory"]
