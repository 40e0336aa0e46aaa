"""spikecore: spiking neural networks on PyTorch, built from plugins. Importing it loads no torch and no plugin."""

from __future__ import annotations

from typing import Any

from spikecore.version import __version__

__all__ = [
    "DoctorCheck",
    "__version__",
    "create",
    "explain",
    "find_python",
    "hookimpl",
    "load",
    "name_of",
    "optimize",
    "register",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in ("create", "register", "name_of"):
        from spikecore import registry

        return getattr(registry, name)
    if name == "explain":
        from spikecore.nn.explain import explain

        return explain
    if name == "optimize":
        from spikecore.nn.bit_net import optimize

        return optimize
    if name == "find_python":
        from spikecore.pythons import find_python

        return find_python
    if name in ("hookimpl", "DoctorCheck"):
        from spikecore.registry import hookspecs

        return getattr(hookspecs, name)
    if name == "run":
        import importlib

        return importlib.import_module("spikecore.run")
    if name == "load":
        from spikecore.run.experiment import load

        return load
    raise AttributeError(f"module 'spikecore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
