import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for writers.py and peer.py, which several test files share


@pytest.fixture(scope="session")
def simulated_data(tmp_path_factory):
    """Where the simulated datasets are kept for all tests."""
    return tmp_path_factory.mktemp("simulated")


@pytest.fixture
def embedded(simulated_data, monkeypatch):
    monkeypatch.setenv("SPIKECORE_DATA", str(simulated_data))
    return simulated_data


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data directory."""
    monkeypatch.setenv("SPIKECORE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"
