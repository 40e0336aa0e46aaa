"""Neurons of spikecore as fused C kernels on the CPU."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikecore_cpu_backend.backend import CPUBackend, free_memory

__all__ = ["CPUBackend", "free_memory"]


def __getattr__(name: str) -> Any:
    """Torch is loaded with the first name that is used: the hooks beside it do without."""
    if name in __all__:
        from spikecore_cpu_backend import backend

        return getattr(backend, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
