"""Where things are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / ".build"
RESULTS = BUILD / "results"
CONFORMANCE = RESULTS / "conformance"
FULL = " in full"
"""Behind the name of a suite that ran with SPIKE_FULL=1, which is what `make test-full` sets."""


def reports_of(suite: str) -> str:
    """The directory below `CONFORMANCE` of what a suite executes in this environment."""
    return suite + FULL if os.environ.get("SPIKE_FULL") else suite


def plugins() -> list[Path]:
    """The plugins of this repository."""
    return sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
