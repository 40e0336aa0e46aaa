"""Neurons of spikecore as fused CUDA C kernels on GPUs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikecore_cupy_backend.backend import CuPyBackend

__all__ = ["CuPyBackend"]


def __getattr__(name: str) -> Any:
    """Torch is loaded with the first name that is used: the hooks beside it do without."""
    if name in __all__:
        from spikecore_cupy_backend import backend

        return getattr(backend, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
