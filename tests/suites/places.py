"""Where things are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / ".build"
RESULTS = BUILD / "results"
CONFORMANCE = RESULTS / "conformance"


def plugins() -> list[Path]:
    """The plugins of this repository."""
    return sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
