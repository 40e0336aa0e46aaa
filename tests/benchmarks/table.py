"""Benchmark results as CSV: what was measured, on what, with which versions. Used by the scripts beside it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from spikecore.bench.rows import device_name, write_csv

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"


def write(name: str, rows: Iterable[Mapping[str, Any]], *versions: str) -> Path:
    """Write `docs/benchmarks/NAME.csv`; every row also holds date, device and the versions of these distributions."""
    common = {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "device": device_name(),
        "python": platform.python_version(),
    }
    common |= {version: importlib.metadata.version(version) for version in ("spikecore", *versions)}
    whole = [{**row, **common} for row in rows]
    path = FOLDER / f"{name}.csv"
    write_csv(path, whole)
    return path
