"""Neurons beyond those of the core, and more surrogates, as a plugin of spikecore.

Names are imported on first use, so that listing and hooks cost no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "adex": ("AdEx",),
    "alif": ("ALIF",),
    "eif": ("EIF",),
    "floor_lif": ("FloorLIF",),
    "glif": ("GLIF", "TimedGLIF"),
    "ilc": ("ILCIF", "ILCLIF"),
    "ilc_cuba": ("ILCCubaLIF",),
    "ilif": ("ILIF",),
    "izhikevich": ("Izhikevich",),
    "klif": ("KLIF",),
    "liaf": ("LIAF",),
    "mpbn": ("MPBNLIF",),
    "noisy": ("NoisyCubaLIF", "NoisyILCCubaLIF"),
    "psn": ("PSN", "MaskedPSN", "SlidingPSN"),
    "qif": ("QIF",),
    "resonate_and_fire": ("ResonateAndFire",),
    "surrogates": (
        *("DSpike", "DeterministicPass", "FakeNumericalGradient", "LeakyKReLU", "LogTailedReLU"),
        *("MultiLevelSpikeCount", "NonzeroSignLogAbs", "PiecewiseLeakyReLU", "PoissonPass", "QPseudoSpike", "S2NN"),
        "SquarewaveFourierSeries",
    ),
    "ternary": ("TernaryIF", "TernaryLIF"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
