"""Which processor this is: its name alone often says too little, since clouds call every generation `AMD EPYC`."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve2": "SVE2", "sve": "SVE", "asimd": "NEON"}
"""Flag → the instructions that bound the speed of dense products, the widest first."""


def processor_name() -> str:
    """Name, family and model, and the widest vector instructions: `AMD EPYC (family 25, model 1, AVX2)`.

    What the system does not tell is left out. Speed, and the last bits of results, depend on all of these.
    """
    fields = _first_processor()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    widest = next((name for flag, name in VECTORS.items() if flag in flags), None)
    about = [f"{part} {fields[key]}" for key, part in (("cpu family", "family"), ("model", "model")) if fields.get(key)]
    name = fields.get("model name") or platform.processor() or platform.machine()
    details = ", ".join([*about, *([widest] if widest else [])])
    return f"{name} ({details})" if details else name


def _first_processor() -> dict[str, str]:
    """The first block of `/proc/cpuinfo`; nothing where there is none."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = text.strip().partition("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
