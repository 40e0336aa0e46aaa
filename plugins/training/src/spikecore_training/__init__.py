"""Trainers for spikecore: `supervised`, `regression`, `sequence`.

The hooks of this plugin are imported in every run, whatever trains there, and this module with them. So what it exports
is imported on first use: torchmetrics alone takes more than a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikecore_training.loop import Loop
    from spikecore_training.meters import Meter
    from spikecore_training.options import LoopConfig

__all__ = ["Loop", "LoopConfig", "Meter"]

_MODULES = {"Loop": "loop", "LoopConfig": "options", "Meter": "meters"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
