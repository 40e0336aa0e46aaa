"""Neurons of spikecore as fused Triton kernels on GPUs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikecore_triton_backend.backend import TritonBackend

__all__ = ["TritonBackend"]


def __getattr__(name: str) -> Any:
    """Torch is loaded with the first name that is used: the hooks beside it do without."""
    if name in __all__:
        from spikecore_triton_backend import backend

        return getattr(backend, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
