"""Prints graphs as CUDA C. Its functions are those of prelude.cuh."""

from __future__ import annotations

import math
from collections.abc import Mapping

from spikecore.dynamics import CPrinter

NUMBER = "number"
FUNCTIONS = ("exp", "log", "sqrt", "tanh", "sigmoid", "abs", "sign", "floor", "round", "sin", "cos", "atan", "erf")


class CUDAPrinter(CPrinter):
    """Graphs as CUDA C; `real` is the type in which the kernel computes."""

    operations: Mapping[str, str] = {
        **CPrinter.operations,
        **{name: f"sc_{name}({{0}})" for name in FUNCTIONS},
        "min": "sc_min({0}, {1})",
        "max": "sc_max({0}, {1})",
        "clamp": "sc_clamp({0}, {1}, {2})",
        "where": "sc_where({0}, {1}, {2})",
    }

    def declare(self, name: str, text: str, is_bool: bool) -> str:
        """A `const` variable: one number, or one of each lane of the thread."""
        return f"const auto {name} = {text};"

    def constant(self, value: float, is_bool: bool) -> str:
        """As in C, without the macros of its headers."""
        if math.isfinite(value):
            text = super().constant(value, is_bool)
            # A number beyond float32 becomes an infinity there.
            return text.replace("INFINITY", "SC_INFINITY")
        if math.isnan(value):
            return "SC_NAN"
        return "SC_INFINITY" if value > 0 else "(-SC_INFINITY)"

    def number(self, slot: int, value: float) -> str:
        """An argument of the kernel."""
        return f"{NUMBER}{slot}"
