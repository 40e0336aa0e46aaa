import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for writers.py and tiny.py, which several test files share


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data directory."""
    monkeypatch.setenv("SPIKECORE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"
