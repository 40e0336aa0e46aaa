"""Benchmark results as CSV: what was measured, on what, with which versions. Used by the scripts beside it."""

from __future__ import annotations

import csv
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"


def device() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write(name: str, rows: Iterable[Mapping[str, Any]], *versions: str) -> Path:
    """Write `docs/benchmarks/NAME.csv`; every row also holds date, device and the versions of these distributions."""
    common = {"date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "device": device(), "python": platform.python_version()}
    common |= {version: importlib.metadata.version(version) for version in ("spikecore", *versions)}
    whole = [{**row, **common} for row in rows]
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(whole[0]))
        writer.writeheader()
        writer.writerows(whole)
    return path
